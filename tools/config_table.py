"""The table from which tools/write_configs.py writes configs/: a base for each data set, and a row for each file.

A file is the template of tools/write_configs.py with text in its slots, the places marked `{…}`. The key of a row is the
name of its file. A row names its base, and has a title, a paragraph on the method, and the text of the slots that differ
from the base. The text of a slot is Python source; a comment can follow it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Base(NamedTuple):
    """The text that all config files of one data set share.

    title: the beginning of the first line of each file's docstring.
    about: a paragraph on the data and the cost of a run; {epochs} is replaced with the number of epochs of the file.
    data: the Python source of the section `data` of the config.
    slots: the text of the slots of the template that differ from DEFAULTS.
    before: the commands that the docstring lists before the command that trains, such as a download.
    flags: the flags after --config in the command that trains.
    """

    title: str
    about: str
    data: str
    slots: dict[str, str]
    before: tuple[str, ...] = ()
    flags: str = ""


class Row(NamedTuple):
    """One config file: a method on a data set.

    base: the key in BASES of the text on the data set.
    title: the end of the first line of the file's docstring, which names the method.
    about: a paragraph on the method, its source and its result.
    slots: the text of the slots of the template that differ from the base. The slot "data" replaces the whole section
        `data`; a slot such as "data.size" replaces one key of it.
    """

    base: str
    title: str
    about: str = ""
    slots: Mapping[str, str] = MappingProxyType({})


LAST = {"select": '"last"  # test the last epoch; "best": the epoch with the best monitored metric'}
BEST = {"select": '"best"  # test the epoch with the best monitored metric; "last": the last epoch'}
DEFAULTS = {
    "groups": 'name="data"  # the groups of the data set; "eiil", "xrm": groups that a first run infers',
    "sampler": 'name="shuffle"',
    "weights": 'name="uniform"',
    "mix": 'name="none"  # or "mixup", "lisa"',
    "loss": 'name="cross_entropy"',
    "objective": 'name="average"',
    "schedule": 'name="constant", warmup_epochs=0.0',
    "head": 'name="none"  # or a method that refits or adjusts the last layer after training',
    "clip_norm": "0.0",
    "eval_every": "1",
    "dtype": "float32",
    "channels_last": "False",
}


def sgd(lr: str, weight_decay: str = "0.0") -> dict[str, str]:
    return {"optim": f'name="sgd", lr={lr}, momentum=0.9, weight_decay={weight_decay}, decayed="all"'}


def importance(by: str, exponent: str = "1.0") -> dict[str, str]:
    return {"weights": f'name="importance", by="{by}", exponent={exponent}'}


def group_dro(step_size: str) -> dict[str, str]:
    return {"objective": f'name="group_dro", step_size={step_size}, size_adjustment=0.0, adjust_absent=False'}


def dpe(epochs: str, batch_size: str, lr: str, norm_penalty: str, similarity_penalty: str) -> dict[str, str]:
    return {
        "head": f'name="dpe", by="group", members=15, epochs={epochs}, batch_size={batch_size}, lr={lr}, momentum=0.9, '
        f"entropic_scale=30.0, norm_penalty={norm_penalty}, similarity_penalty={similarity_penalty}"
    }


MOMENTUM_SGD = 'lr=0.1, momentum=0.9, weight_decay=2e-4, decayed="all"'
POLY = {"loss": 'name="poly", alpha=1.0, left="logistic"'}
BALANCED = {"sampler": 'name="balanced", by="group"'}
DFR = {"head": 'name="dfr", inverse_penalties=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), fits=20'}
RESNET20 = {"model": 'name="resnet20", frozen=False'}
RESNET50 = {"model": 'name="resnet50", pretrained="imagenet", frozen=False', "channels_last": "True"}
RESNET50_V2 = {"model": 'name="resnet50", pretrained="IMAGENET1K_V2", frozen=False'}
BY_CLASS = {"score": "val/balanced_accuracy"}
BY_GROUP = {"score": "val/worst_group_accuracy"}
CIFAR_FILES = "  # contains cifar-10; `imbalance data download cifar10` downloads it"
FASHION_FILES = "  # contains FashionMNIST/raw; `imbalance data download fashion` downloads it"
SKLEARN = "  # not used, because scikit-learn contains the images"
STEP = {"schedule": 'name="step", milestones=(160, 180), factor=0.01, warmup_epochs=5.0'}
COSINE = {"schedule": 'name="cosine", warmup_epochs=0.0'}
PIP_TEXT = ("pip install -c constraints.txt -e '.[text]'",)

WANG = 'Wang et al., "Is Importance Weighting Incompatible with Interpolating Classifiers?", ICLR 2022'
SAGAWA = 'Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020'
KIRICHENKO = (
    'Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", '
    "ICLR 2023"
)
QIU = (
    'Qiu, Potapczynski, Izmailov and Wilson, "Simple and Fast Group Robustness by Automatic Feature Reweighting", '
    "ICML 2023"
)
CAO = 'Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019'
TO = 'To et al., "Diverse Prototypical Ensembles Improve Robustness to Subpopulation Shift", ICML 2025'
ZHANG = 'Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018'
KHOSLA = 'Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020'
KANG = 'Kang et al., "Decoupling Representation and Classifier for Long-tailed Recognition", ICLR 2020'

# fmt: off
BASES = {
    "gaussian": Base("Gaussian mixture, 200 against 20 examples in 500 dimensions", """
        The objective is the logarithm of the mean loss, because with the mean loss training would need millions of
        steps to reach its limit. A run takes a few seconds.""", """
            name="gaussian",
            dim=500,
            means=((3.0,), (0.0, 3.0)),  # for each class the first coordinates of its mean; all others are 0
            scale=1.0,
            radius=23.0,  # leave out points further from the mean, in standard deviations; 0: leave out none
            train_per_class=(200, 20),
            val_per_class=(2000, 2000),
            test_per_class=(5000, 5000),
        """, BY_CLASS | LAST | sgd("0.005") | {
            "objective": 'name="log_average"  # with it training reaches its limit in few steps',
            "model": 'name="linear", init="zeros"', "epochs": "400", "batch_size": "220  # all of train",
            "eval_batch_size": "10000", "eval_every": "100", "dtype": "float64",
            "data_dir": "  # not used, because the data are random numbers",
        }),
    "digits": Base("Digits, long-tailed", "Nothing is downloaded. A run takes about ten seconds on two cores.", """
            name="digits",
            classes=tuple(range(10)),  # the largest class first
            imbalance="exp",  # "none", "exp" or "step"
            imbalance_ratio=50.0,  # count of the largest class / count of the smallest
            total=0,  # number of training examples; 0: as many as the ratio allows
            val_fraction=0.2,
            test_fraction=0.2,
        """, BY_CLASS | LAST | sgd("0.02") | {
            "model": 'name="mlp", hidden=(256, 256)', "epochs": "600",
            "batch_size": "512  # more than train has, so every batch is all of train", "eval_batch_size": "512", "eval_every": "10",
            "data_dir": SKLEARN,
        }),
    "fashion_pair": Base("Fashion-MNIST T-shirt against shirt, 250 to 25", """
        A perceptron with one hidden layer of 32 units. This is a small stand-in for the CIFAR-10 experiment of Wang et
        al. (ICLR 2022), for comparisons over many pairs of classes, seeds and learning rates: `experiments.pairs` and
        `experiments.protocol` override the classes, the exponent of the weights, the learning rate and the number of
        epochs.""", """
            name="fashion",
            classes=("T-shirt", "shirt"),  # the largest class first
            imbalance="step",  # "none", "exp" or "step"
            imbalance_ratio=10.0,  # count of the largest class / count of the smallest
            total=550,  # number of examples of train, including val if val_from="train"; 0: as many as the ratio allows
            val_from="train",  # val is a part of the training images; "test": of the test images
            val_fraction=0.5,  # share of these images that becomes val
            augment=(),
        """, BY_CLASS | LAST | sgd("0.01") | importance("class") | {
            "model": 'name="mlp", hidden=(32,)', "epochs": "100", "batch_size": "32", "eval_batch_size": "512",
            "eval_every": "10", "data_dir": FASHION_FILES,
        }),
    "cifar_pair_features": Base("CIFAR-10 cat against dog, 250 to 25, on features", """
        The inputs are features of a LeNet that was trained on the other eight classes of CIFAR-10. Each seed draws
        other images of the two classes; their features must be extracted before the run, with the commands in
        docs/findings.md.""", """
            name="features",
            folder="cifar_pair/seed={seed}",  # in data_dir; written by `imbalance features --output=…`
            standardise=True,  # each feature to mean 0 and standard deviation 1 on train
        """, BY_CLASS | LAST | sgd("0.01") | importance("class") | {
            "model": 'name="linear", init="zeros"  # or "mlp", with hidden=(256,)', "epochs": "80",
            "batch_size": "32", "eval_batch_size": "512", "eval_every": "10", "data_dir": "  # contains the folder",
        }),
    "colored_digits": Base("Colored digits", "Nothing is downloaded.", """
            name="colored_digits",
            train_per_group=(420, 22, 7, 127),  # even red, even green, odd red, odd green; in the proportions of Waterbirds
            saturation=0.5,  # 0: grey digits; 1: the channels other than that of the colour are black
            val_fraction=0.2,
            test_fraction=0.3,
        """, BY_GROUP | BEST | sgd("0.1") | {
            "model": 'name="mlp", hidden=(128, 128)', "epochs": "100", "batch_size": "64", "eval_batch_size": "512",
            "eval_every": "2", "data_dir": SKLEARN,
        }),
    "fashion": Base(
        "Fashion-MNIST, long-tailed, imbalance 100",
        "ResNet-20, 30 epochs of about 14,900 images: not yet run here.", """
            name="fashion",
            # The largest class first.
            classes=(
                "T-shirt",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle boot",
            ),
            imbalance="exp",  # "none", "exp" or "step"
            imbalance_ratio=100.0,  # count of the largest class / count of the smallest
            total=0,  # number of examples of train, including val if val_from="train"; 0: as many as the ratio allows
            val_from="test",  # val is a part of the test images; "train": of the training images
            val_fraction=0.1,  # share of these images that becomes val
            augment=("flip",),
        """, RESNET20 | BY_CLASS | LAST | COSINE | sgd("0.1", "2e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "512", "data_dir": FASHION_FILES,
        }),
    "medmnist": Base("DermaMNIST", """
        Seven classes of skin lesions, one of which has 67 % of the images: Yang et al., "MedMNIST v2", Scientific Data
        2023. ResNet-20, 50 epochs of 7,007 images of 28×28: not yet run here. The licence of the images is CC BY-NC
        4.0.""", """
            name="medmnist",
            flag="dermamnist",
            augment=("flip",),  # or "pad_crop"
        """, RESNET20 | BY_CLASS | BEST | COSINE | sgd("0.1", "2e-4") | {
            "epochs": "50", "batch_size": "128", "eval_batch_size": "512",
            "data_dir": "  # contains dermamnist.npz; `imbalance data download dermamnist` downloads it",
        }),
    "cifar": Base("CIFAR-10 cats against dogs, 3,990 to 410", """
        On two cores {epochs} epochs take two to three hours. If the processor computes in bf16, they take half of that
        with --config.trainer.mixed_precision=bf16 --config.trainer.channels_last=True.""", """
            name="cifar10",
            classes=("cat", "dog"),  # the largest class first
            imbalance="step",  # "none", "exp" or "step"
            imbalance_ratio=10.0,  # count of the largest class / count of the smallest
            total=0,  # number of examples of train and val together; 0: as many as the ratio allows
            val_fraction=0.2,
            draw="published",  # the images of Wang et al. (ICLR 2022); "stratified": other images at every seed
            download=False,  # True: download the files into data_dir if they are missing (170 MB)
        """, BY_CLASS | LAST | sgd("0.001") | {
            "model": 'name="convnet"', "epochs": "400", "batch_size": "64", "eval_batch_size": "512",
            "data_dir": "  # contains cifar-10-batches-py/",
        }, flags=" --config.data.download=True"),
    "cifar10lt": Base(
        "CIFAR-10-LT, imbalance 100",
        "ResNet-32, {epochs} epochs of 12,406 images: needs a GPU; not yet run here.", """
            name="cifar10lt",
            imbalance="exp",  # "none", "exp" or "step"
            imbalance_ratio=100.0,  # count of the largest class / count of the smallest
            val_from="test",  # val is a part of the test images; "train": of the training images
            val_fraction=0.1,  # share of these images that becomes val
            augment=("flip", "pad_crop"),
            download=False,  # True: download the files into data_dir if they are missing (170 MB)
        """, BY_CLASS | LAST | STEP | sgd("0.1", "2e-4") | {
            "model": 'name="resnet32", frozen=False', "epochs": "200", "batch_size": "128", "eval_batch_size": "512",
            "eval_every": "10", "channels_last": "True", "data_dir": CIFAR_FILES,
        }),
    "cifar10": Base("CIFAR-10", "", """
            name="class_map",
            source=create(
                name="cifar10",
                classes=("cat", "dog", "automobile", "truck", "deer", "horse", "airplane", "ship"),
                imbalance="none",
                imbalance_ratio=1.0,
                total=0,
                val_fraction=0.1,
                draw="stratified",  # the seed decides which images are used
                download=False,  # True: download the files into data_dir if they are missing (170 MB)
            ),
            train_map=(("cat", "animal"), ("dog", "animal"), ("automobile", "vehicle"), ("truck", "vehicle")),
            eval_map=(("deer", "animal"), ("horse", "animal"), ("airplane", "vehicle"), ("ship", "vehicle")),
        """, RESNET20 | BY_CLASS | LAST | COSINE | sgd("0.05", "5e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "512", "channels_last": "True",
            "data_dir": CIFAR_FILES,
        }),
    "dominoes": Base("Dominoes, Fashion-MNIST above CIFAR-10", """
        Automobiles and trucks of CIFAR-10 below coats and dresses of Fashion-MNIST: Shah et al., NeurIPS 2020, and
        Pagliardini et al., ICLR 2023. In train, 95 % of the automobiles are below a coat, and 95 % of the trucks below
        a dress. The published runs have 100 %. ResNet-20, {epochs} epochs of 9,000 images of 64×32 take about an hour
        on two cores.""", """
            name="dominoes",
            top="fashion",  # or "mnist"
            top_classes=("coat", "dress"),  # goes with the first class, with the second; ("0", "1") for MNIST
            classes=("automobile", "truck"),  # of the lower half, which alone decides the class
            correlation=0.95,  # share of each class's training images whose upper half goes with the class
            val_per_group=250,  # taken from the training images
            augment=(),
            download=False,  # True: download CIFAR-10 and MNIST into data_dir if they are missing
        """, RESNET20 | BY_GROUP | BEST | COSINE | sgd("0.05", "5e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "512", "channels_last": "True",
            "data_dir": "  # contains cifar-10-batches-py/ and FashionMNIST/raw",
        }),
    "corrupted_cifar10": Base("Corrupted CIFAR-10, 5 % conflicting", """
        Each class goes with a kind of noise or blur: Nam et al., "Learning from Failure", NeurIPS 2020. As there:
        ResNet-20, Adam with learning rate 0.001, batches of 256, and 39,200 steps, which are {epochs} epochs of 50,000
        images. Different here: a tenth of the test images is val, and selects the epoch; the published numbers are the
        best test epoch. Not yet run here at full length. The corruptions are made in a minute at the start of a run;
        `imbalance data cut` keeps them in a file.""", """
            name="corrupted_cifar10",
            source="made",  # "type0", "type1": the files that the published code writes
            conflicting=0.05,  # share of training images with another corruption; or 0.02, 0.01, 0.005
            severity=4,  # 1 to 4
            draw_seed=0,  # seed of the noise; config.seed does not change the images
            val_fraction=0.1,  # share of every group of the test images that becomes val
            augment=(),
            download=False,  # True: download the files into data_dir if they are missing (170 MB)
        """, RESNET20 | BEST | {
            "score": "val/group_balanced_accuracy",
            "optim": 'name="adam", lr=0.001, betas=(0.9, 0.999), weight_decay=0.0, decayed="all"',
            "epochs": "200", "batch_size": "256", "eval_batch_size": "512", "channels_last": "True",
            "data_dir": CIFAR_FILES,
        }),
    "colored_fashion": Base("Colored Fashion-MNIST, 5 % conflicting", """
        Each class goes with a colour: colored MNIST of Nam et al., "Learning from Failure", NeurIPS 2020, made from
        Fashion-MNIST, so published numbers cannot be compared. As there: a perceptron of three layers of 100 units,
        Adam with learning rate 0.001, and batches of 256. An epoch of 60,000 images takes seconds on two cores.""", """
            name="colored_fashion",
            conflicting=0.05,  # share of training images with another colour; or 0.02, 0.01, 0.005
            severity=4,  # 1 to 4: how little the colours vary
            draw_seed=0,  # seed of these variations; config.seed does not change the images
            val_fraction=0.1,  # share of every group of the test images that becomes val
            augment=(),
        """, BEST | {
            "score": "val/group_balanced_accuracy", "model": 'name="mlp", hidden=(100, 100, 100)',
            "optim": 'name="adam", lr=0.001, betas=(0.9, 0.999), weight_decay=0.0, decayed="all"',
            "epochs": "20", "batch_size": "256", "eval_batch_size": "512", "data_dir": FASHION_FILES,
        }),
    "waterbirds": Base("Waterbirds", """
        ResNet-50 from ImageNet weights, {epochs} epochs of 4,795 images: needs a GPU; not yet run here. Get the images
        with `imbalance data download waterbirds`.""", """
            name="waterbirds",
            size=224,  # images are resized to 256×256, and cropped to this size
            regenerated=False,  # True: accept a copy of the data whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=("random_resized_crop", "flip"),  # or () for none
        """, RESNET50 | BY_GROUP | LAST | sgd("0.001", "0.001") | {
            "epochs": "100", "batch_size": "32", "eval_batch_size": "128", "data_dir": "",
        }),
    "celeba": Base("CelebA, blond hair", """
        2 % of the training images. ResNet-50 from ImageNet weights, {epochs} epochs of 3,255 images: needs a GPU; not
        yet run here. `imbalance data download celeba` says how to get the images.""", """
            name="celeba",
            target="Blond_Hair",
            confounders=("Male",),  # groups: target × these attributes; (): each class is a group
            train_fraction=0.02,  # share of the training images: 1446, 1308, 468 and 33 examples of the groups
            val_fraction=0.1,  # of every group
            test="balanced",  # 180 images of every group, as in Wang et al. (ICLR 2022); "full": all test images
            subset_seed=0,  # seed of these draws; config.seed does not change them
            size=224,  # the middle 178×178 of an image, resized to this size
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),  # or "flip", "random_resized_crop"
        """, RESNET50 | LAST | sgd("4e-4") | {
            "epochs": "50", "batch_size": "64", "eval_batch_size": "128", "data_dir": "",
            "score": "val/group_balanced_accuracy",
        }),
    "metashift": Base("MetaShift, cats and dogs", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 2,276 images, about its 5,000 steps.""", """
            name="metashift",
            metadata="",  # CSV file of SubpopBench with its splits; "": draw them as it does, from the sorted files
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "220", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains metashift/",
        }),
    "imagenet_bg": Base("ImageNet-9 with other backgrounds", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 183,006 images, about its 10,000 steps. Its table tests on mixed_rand.""", """
            name="imagenet_bg",
            test="mixed_rand",  # background of another class; or "original", "no_fg", "only_fg"
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_CLASS | BEST | sgd("0.001", "1e-4") | {
            "epochs": "6", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains backgrounds_challenge/",
        }),
    "nico_pp": Base("NICO++", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 62,657 images, about its 30,000 steps. Some groups have no training image.""", """
            name="nico_pp",
            metadata="",  # CSV file of SubpopBench with its splits; "": draw them as it does, from the sorted files
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "52", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains nicopp/",
        }),
    "breeds": Base("Living17 of BREEDS", """
        ResNet-50 from scratch, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 39,780 images, about its 60,000 steps.""", """
            name="breeds",
            subset="living17",  # or "entity13", "entity30", "nonliving26"
            test="target",  # subclasses that train has not; "source": those of train
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_CLASS | BEST | sgd("0.001", "1e-4") | {
            "model": 'name="resnet50", pretrained="", frozen=False', "epochs": "163", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains imagenet/train and imagenet/val",
        }),
    "chexpert": Base("CheXpert, No Finding by sex and race", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 167,093 images, about its 20,000 steps.""", """
            name="chexpert",
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "13", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains chexpert/",
        }),
    "mimic_cxr": Base("MIMIC-CXR, No Finding by sex and race", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001 and batches of 108, the default of SubpopBench: needs a GPU; not yet run here. {epochs} epochs of 303,591 images, about its 20,000 steps.""", """
            name="mimic_cxr",
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "7", "batch_size": "108", "eval_batch_size": "128", "data_dir": "  # contains MIMIC-CXR-JPG/",
        }),
    "imagenet_lt": Base("ImageNet-LT", """
        ResNet-50 from scratch, {epochs} epochs of 115,846 images: needs a GPU; not yet run here.""", """
            name="imagenet_lt",
            folder="imagenet",  # in data_dir; the paths in the list files are relative to it
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="files",  # decode each batch anew, so that crops see whole images; "store": decode once, to disk
            augment=("inception_crop", "flip", "color_jitter"),
        """, RESNET50 | BY_CLASS | LAST | COSINE | sgd("0.2", "5e-4") | {
            "model": 'name="resnet50", pretrained="", frozen=False', "epochs": "90", "batch_size": "512", "eval_batch_size": "128", "data_dir": "  # contains the list files and the images",
        }),
    "places_lt": Base("Places-LT", """
        ResNet-50 from ImageNet weights, {epochs} epochs of 62,500 images: needs a GPU; not yet run here.""", """
            name="places_lt",
            folder="places",  # in data_dir; the paths in the list files are relative to it
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="files",  # decode each batch anew, so that crops see whole images; "store": decode once, to disk
            augment=("inception_crop", "flip", "color_jitter"),
        """, RESNET50 | BY_CLASS | LAST | COSINE | sgd("0.1", "5e-4") | {
            "epochs": "30", "batch_size": "512", "eval_batch_size": "128", "data_dir": "  # contains the list files and the images",
        }),
    "inaturalist2018": Base("iNaturalist 2018", """
        ResNet-50 from scratch, {epochs} epochs of 437,513 images: needs a GPU; not yet run here.""", """
            name="inaturalist2018",
            folder=".",  # in data_dir; the paths in the list files are relative to it
            size=224,  # the shorter side is resized to 256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="files",  # decode each batch anew, so that crops see whole images; "store": decode once, to disk
            augment=("inception_crop", "flip"),
        """, RESNET50 | BY_CLASS | LAST | COSINE | sgd("0.2", "1e-4") | {
            "model": 'name="resnet50", pretrained="", frozen=False', "epochs": "90", "batch_size": "512", "eval_batch_size": "128", "data_dir": "  # contains the list files and the images",
        }),
    "urbancars": Base("UrbanCars", """
        ResNet-50 from ImageNet weights, SGD with learning rate 0.001, weight decay 0.0001, batches of 128, {epochs} epochs of 8,000 images, as in Li et al., CVPR 2023: needs a GPU; not yet run here.""", """
            name="urbancars",
            size=256,  # images are resized to this size, and not cropped
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=("flip",),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "300", "batch_size": "128", "eval_batch_size": "128", "data_dir": "  # contains urbancars/",
        }),
    "spuco": Base("SpuCo Birds", """
        ResNet-50 from ImageNet weights, {epochs} epochs of 21,000 images: needs a GPU; not yet run here.""", """
            name="spuco",
            subset="birds",  # or "dogs", "animals"
            size=224,  # images are resized to 256×256, and the middle cropped to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, RESNET50 | BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "128", "data_dir": "  # contains spuco_birds/ or spuco_dogs/",
        }),
    "camelyon17": Base("Camelyon17", """
        DenseNet-121 from scratch, SGD with learning rate 0.001, weight decay 0.01 and batches of 32, {epochs} epochs of 302,436 patches, as in WILDS (Koh et al., ICML 2021): needs a GPU; not yet run here.""", """
            name="camelyon17",
            val="other hospital",  # the official val; "same hospitals": held-out patches of the hospitals of train
            size=96,  # images are resized to this size
            check_counts=True,  # False: accept a copy whose counts are not the published ones
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=(),
        """, BEST | sgd("0.001", "0.01") | {
            "model": 'name="torchvision", network="densenet121", pretrained="", frozen=False', "score": "val/accuracy", "epochs": "10", "batch_size": "32", "eval_batch_size": "128", "data_dir": "  # contains camelyon17_v1.0/",
        }),
    "civilcomments": Base("CivilComments", """
        The hyperparameters are the defaults of the released code of WILDS (Koh et al., ICML 2021), except that the
        network is BERT instead of DistilBERT: AdamW with learning rate 1e-5, weight decay 0.01 (none for biases and
        normalisation layers), gradients clipped to norm 1, a linear schedule without warm-up, batches of 16, 300 tokens
        and 5 epochs. The epoch with the best worst-group accuracy on val is selected. WILDS trains with the groups
        black × class; here the training groups are any identity × class, as in later work. Not yet run here at full
        size: it needs a GPU, and downloads the weights from the Hugging Face hub.""", """
            name="civilcomments",
            evaluation="fine",  # 16 overlapping groups for metrics, identity × class; "coarse": the four training groups
            tokenizer="bert-base-uncased",  # of the pretrained weights; "words", "pieces": learnt on train
            vocabulary=0,  # number of tokens that a tokenizer learns; 0 for the tokenizer of pretrained weights
            max_tokens=300,  # longer texts are cut
            bucket=50,  # sort the texts of so many batches by length, so that batches need less padding; 0: do not sort
        """, BY_GROUP | BEST | {
            "mix": 'name="none"',
            "model": 'name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1',
            "optim": 'name="adamw", lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01, decayed="weights"',
            "schedule": 'name="linear", warmup_epochs=0.0', "epochs": "5", "batch_size": "16", "clip_norm": "1.0",
            "eval_batch_size": "128", "data_dir": "  # contains civilcomments_v1.0/",
        }, before=PIP_TEXT),
    "multinli": Base("MultiNLI", """
        The hyperparameters are those of the code group_DRO (Sagawa et al., ICLR 2020). The command for group DRO in its
        README has BERT, AdamW with learning rate 2e-5 and no weight decay, batches of 32 and 3 epochs. Its code has
        gradients clipped to norm 1, a linear schedule without warm-up and 128 tokens. Here the epoch of every method is
        selected by worst-group accuracy on val; Sagawa et al. do this for group DRO and reweighting, and select ERM by
        average accuracy. Not yet run here at full size: it needs a GPU, and downloads the weights from the Hugging Face
        hub.""", """
            name="multinli",
            tokenizer="bert-base-uncased",  # of the pretrained weights; "words", "pieces": learnt on train
            vocabulary=0,  # number of tokens that a tokenizer learns; 0 for the tokenizer of pretrained weights
            max_tokens=128,  # longer texts are cut
            bucket=50,  # sort the texts of so many batches by length, so that batches need less padding; 0: do not sort
        """, BY_GROUP | BEST | {
            "mix": 'name="none"',
            "model": 'name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1',
            "optim": 'name="adamw", lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, decayed="weights"',
            "schedule": 'name="linear", warmup_epochs=0.0', "epochs": "3", "batch_size": "32", "clip_norm": "1.0",
            "eval_batch_size": "128", "data_dir": "  # contains multinli/, or multinli_1.0/ beside it",
        }, before=PIP_TEXT),
    "text_small": Base("Your own texts", """
        Any .csv or .parquet file with a column of texts and a column of classes. The model is a bag of embeddings,
        trained from scratch; on a CPU it takes a minute for six thousand sentences. The accuracy depends on your
        data.""", """
            name="text",
            file="texts.csv",  # in data_dir; can also be .csv.gz or .parquet
            delimiter=",",
            text=("text",),  # the column that the model reads; two columns for pairs of texts
            skip_empty=False,  # True: leave out rows with an empty text, instead of refusing them
            target="target",  # the column of the classes
            classes=("negative", "positive"),  # the values of this column
            attributes=(),  # groups: target × these columns, such as ("domain",); (): each class is a group
            evaluated_by=(),  # columns of numbers; a text is in the evaluation group column × class if its value is ≥ 0.5
            split="",  # the column whose values are train, val or test; "": splits are drawn
            val_fraction=0.1,  # share of every group; 0.0 if the file has this split
            test_fraction=0.2,
            train_per_group=(),  # number of training texts of each group; (): all texts
            tokenizer="words",  # or "pieces": both are learnt on train; or the name or folder of pretrained weights
            vocabulary=10000,  # number of tokens that a tokenizer learns; 0 for the tokenizer of pretrained weights
            max_tokens=256,  # longer texts are cut
            bucket=50,  # sort the texts of so many batches by length, so that batches need less padding; 0: do not sort
        """, BY_GROUP | BEST | sgd("1.0") | {
            "mix": 'name="none"', "model": 'name="bag_of_embeddings", width=64', "epochs": "10", "batch_size": "64",
            "eval_batch_size": "512", "data_dir": "  # contains the file",
        }, before=PIP_TEXT),
    "folder": Base("Your own images, in a folder for each class", """
        Any folder that torchvision's ImageFolder can read, with or without the folders train, val and test above the
        class folders. `imbalance data verify` with this config checks the images. Time and accuracy depend on your
        data.""", """
            name="folder",
            folder="images",  # in data_dir; contains a folder for each class, or train, val and test with such folders
            val_fraction=0.1,  # share of every class; 0.0 if the split has a folder of its own
            test_fraction=0.2,
            mode="RGB",  # colour mode of the images; "L": grey
            convert=True,  # convert images of other modes (grey, palette, transparency, 16 bits); False: refuse them
            reduce=False,  # True: decode a large JPEG at 1/2, 1/4 or 1/8 of its size; faster, other pixels
            resize=256,  # the shorter side of an image is resized to this
            size=224,  # then the middle of the image is cropped to this size
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=("flip", "random_resized_crop"),
        """, BY_CLASS | BEST | sgd("0.001", "1e-4") | {
            "model": 'name="resnet18", pretrained="imagenet", frozen=False', "epochs": "30", "batch_size": "64",
            "eval_batch_size": "128", "channels_last": "True", "data_dir": "  # contains the folder",
        }),
    "table": Base("Your own images", """
        A folder of images, and a CSV or Parquet file with their paths, classes and attributes. `imbalance data verify`
        with this config checks both. Time and accuracy depend on your data.""", """
            name="table",
            file="table.csv",  # in data_dir; can also be .parquet
            delimiter=",",
            folder="images",  # in data_dir; the paths in the table are relative to it
            path="path",  # the column of the images' paths
            target="target",  # the column of the classes
            classes=("negative", "positive"),  # the values of this column
            attributes=(),  # groups: target × these columns, such as ("hospital",); (): each class is a group
            split="",  # the column whose values are train, val or test; "": splits are drawn
            val_fraction=0.1,  # share of every group; 0.0 if the table has this split
            test_fraction=0.2,
            mode="RGB",  # colour mode of the images; "L": grey
            convert=True,  # convert images of other modes (grey, palette, transparency, 16 bits); False: refuse them
            reduce=False,  # True: decode a large JPEG at 1/2, 1/4 or 1/8 of its size; faster, other pixels
            resize=256,  # the shorter side of an image is resized to this
            size=224,  # then the middle of the image is cropped to this size
            images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
            augment=("flip", "random_resized_crop"),
        """, BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "model": 'name="resnet18", pretrained="imagenet", frozen=False', "epochs": "30", "batch_size": "64",
            "eval_batch_size": "128", "channels_last": "True",
            "data_dir": "  # contains the table and the folder of images",
        }),
    "arrays": Base("Your own columns or arrays", """
        A .csv or .parquet file with columns of numbers and categories, or an .npz file of arrays. The model is a
        perceptron; on a CPU it takes seconds for thousands of examples. The accuracy depends on your data.""", """
            name="arrays",
            file="table.csv",  # in data_dir; can also be .parquet, .npz or a folder of .npy files
            delimiter=",",
            numeric=(),  # the columns of numbers that the model reads
            categorical=(),  # the columns of categories; if both are (): all columns except target, attributes and split
            missing=(),  # how the file writes a missing value, such as ("", "?"); (): missing values are refused
            target="target",  # the column of the classes
            classes=("0", "1"),  # the values of this column
            attributes=(),  # groups: target × these columns, such as ("sex",); (): each class is a group
            split="",  # the column whose values are train, val or test; "": splits are drawn
            val_fraction=0.1,  # share of every group; 0.0 if the file has this split
            test_fraction=0.2,
        """, BY_GROUP | BEST | sgd("0.05", "1e-4") | {
            "model": 'name="mlp", hidden=(64, 64)', "epochs": "20", "batch_size": "256", "eval_batch_size": "4096",
            "data_dir": "  # contains the file",
        }),
    "features": Base("Features of a network that is not trained", """
        The network is not trained: `imbalance features` has stored its features of every example. A run trains a linear
        layer on these features, in seconds.""", """
            name="features",
            folder="features",  # in data_dir; written by `imbalance features --output=…`
            standardise=True,  # each feature to mean 0 and standard deviation 1 on train
        """, BY_GROUP | BEST | sgd("0.001", "1e-3") | {
            "model": 'name="linear", init="zeros"  # or "mlp", with hidden=(256,)', "epochs": "20",
            "batch_size": "128", "eval_batch_size": "4096", "data_dir": "  # contains the folder",
        }, before=("imbalance features --config=waterbirds_erm --output=data/features",)),
    "drawn": Base("Features of a network that is not trained, drawn anew at every seed", """
        From features that `imbalance features` has stored, each seed draws a long tail of 1,000 to 10 images of ten
        classes. Other numbers make rare groups of any size.""", """
            name="drawn",
            source=create(
                name="features",
                folder="cifar10_lite0",  # in data_dir; written by `imbalance features --output=…`
                standardise=False,
            ),
            groups="source",  # "conflicting": two groups of each class, its largest group and all others
            train_counts=(1000, 599, 359, 215, 129, 77, 46, 28, 17, 10),  # number of examples of each group
            val_counts=(100,),  # a shorter list is repeated
            test_counts=(300,),
            test_from="test",  # "all": test, too, is drawn from all splits of the source
            standardise=True,  # each feature to mean 0 and standard deviation 1 on the drawn training examples
        """, BY_CLASS | BEST | sgd("0.001", "1e-3") | {
            "model": 'name="linear", init="zeros"  # or "mlp", with hidden=(256,)', "epochs": "20",
            "batch_size": "128", "eval_batch_size": "4096", "data_dir": "  # contains the folder",
        }),
}
BASES["digits_pair"] = BASES["digits"]._replace(
    title="Digits, 3 against 8, ten to one",
    about="""
        One of ten small data sets on which `experiments.ten_data_sets` compares four methods; it overrides the classes
        and the learning rate.""",
    slots=BASES["digits"].slots | sgd("0.01") | importance("class") | {
        "model": 'name="mlp", hidden=(32,)', "epochs": "100", "batch_size": "32",
        "data.classes": "(3, 8),  # the largest class first", "data.imbalance": '"step",  # "none", "exp" or "step"',
        "data.imbalance_ratio": "10.0,  # count of the largest class / count of the smallest", "data.test_fraction": "0.4,",
    },
)
BASES["cifar_pair"] = BASES["cifar"]._replace(
    title="CIFAR-10 cat against dog, 250 to 25",
    about="""
        A perceptron with one hidden layer of 16 units. This is a small stand-in for the CIFAR-10 experiment of Wang et
        al. (ICLR 2022), for comparisons over many pairs of classes, seeds and learning rates: `experiments.pairs` and
        `experiments.protocol` override the classes, the exponent of the weights, the learning rate and the number of
        epochs.""",
    slots=BASES["cifar"].slots | sgd("0.01") | importance("class") | {
        "model": 'name="mlp", hidden=(16,)', "epochs": "80", "batch_size": "32", "eval_every": "10",
        "data.total": "550,  # number of examples of train and val together; 0: as many as the ratio allows",
        "data.val_fraction": "0.5,",
        "data.draw": '"stratified",  # other images at every seed; "published": those of Wang et al. (ICLR 2022), needs total=0',
    },
    flags="",
)
BASES["cifar100lt"] = BASES["cifar10lt"]._replace(
    title="CIFAR-100-LT, imbalance 100",
    about="ResNet-32, {epochs} epochs of 10,847 images: needs a GPU; not yet run here.",
    slots=BASES["cifar10lt"].slots | {
        "data_dir": "  # contains cifar-100; `imbalance data download cifar100` downloads it", "data.name": '"cifar100lt",',
    },
)
BASES["celeba_whole"] = BASES["celeba"]._replace(
    about="All training images. ResNet-50, {epochs} epochs of 162,770 images: needs a GPU; not yet run here. "
    "`imbalance data download celeba` says how to get the images."
)

ROWS = {
    "gaussian_erm": Row("gaussian", "plain cross-entropy", """
        A linear model on separable data: under cross-entropy gradient descent converges to the maximum-margin direction
        (Soudry et al., JMLR 2018). The balanced error is about 16 %."""),
    "gaussian_ce": Row("gaussian", "cross-entropy under importance weights", f"""
        The claim of {WANG}: importance weights do not change the limit of training under cross-entropy. So this run
        reaches the same balanced error as gaussian_erm, about 16 %.""", importance("class")),
    "gaussian_poly": Row("gaussian", "the polynomial loss under importance weights", f"""
        The claim of {WANG}: under a loss with a polynomial tail importance weights do change the limit of training. The
        balanced error is about 11 %; that of gaussian_ce is 16 %.""", POLY | importance("class")),
    "digits_erm": Row("digits", "plain cross-entropy, empirical risk minimisation", """
        Ten classes of scikit-learn's digits, with 104 training images of the most frequent class and 2 of the
        rarest."""),
    "digits_ce": Row("digits", "cross-entropy under importance weights", f"""
        The baseline of {WANG}, on the ten classes of scikit-learn's digits. The exponent 1 of the weights was better
        than 1.5 on val, and the learning rate was the best of 0.02 to 0.4.""", importance("class")),
    "digits_poly": Row("digits", "the polynomially-tailed loss under importance weights",
        f"{WANG}, on the ten classes of scikit-learn's digits.",
        POLY | sgd("0.05") | importance("class", "1.5")),
    "digits_pair_ce": Row("digits_pair", "cross-entropy under importance weights",
        "The baseline of Wang et al. (ICLR 2022)."),
    "fashion_pair_ce": Row("fashion_pair", "cross-entropy under importance weights"),
    "fashion_pair_poly": Row("fashion_pair", "the polynomial loss under importance weights", "", POLY),
    "cifar_pair_ce": Row("cifar_pair", "cross-entropy under importance weights"),
    "cifar_pair_poly": Row("cifar_pair", "the polynomial loss under importance weights", "", POLY),
    "cifar_pair_features_ce": Row("cifar_pair_features", "cross-entropy under importance weights"),
    "cifar_pair_features_poly": Row("cifar_pair_features", "the polynomial loss under importance weights", "", POLY),
    "colored_digits_erm": Row("colored_digits", "cross-entropy without weights, empirical risk minimisation", """
        A small analogue of Waterbirds. The classes are even and odd digits; the colour predicts the class in training,
        and does not in val and test. Training reads no groups; the groups of val select the epoch. Test accuracy with
        seed 0 is 41 % in the worst group and 97 % on average. A run takes a few seconds on one core."""),
    "colored_digits_ce": Row("colored_digits", "cross-entropy under importance weights", """
        All groups have the same total weight. After the network interpolates, the weights have little effect: compare
        the last epoch (--config.callbacks.select=last). This is the starting point of Wang et al., ICLR 2022. Training
        reads the groups for the weights; the groups of val select the epoch. Test accuracy with seed 0 is 76 % in the
        worst group and 88 % on average. A run takes a few seconds on one core.""", importance("group")),
    "colored_digits_poly": Row("colored_digits", "the polynomial loss under importance weights", f"""
        {WANG}. Under this loss the importance weights still have an effect at the last epoch
        (--config.callbacks.select=last). Training reads the groups for the weights; the groups of val select the epoch.
        Test accuracy with seed 0 is 71 % in the worst group and 75 % on average. A run takes a few seconds on one
        core.""",
        POLY | sgd("0.03") | importance("group")),
    "colored_digits_dro": Row("colored_digits", "group DRO", f"""
        {SAGAWA}. Training reads the groups for the objective; the groups of val select the epoch. Test accuracy with
        seed 0 is 61 % in the worst group and 90 % on average. A run takes a few seconds on one
        core.""", group_dro("0.1")),
    "colored_digits_aucm": Row("colored_digits", "AUC margin loss", """
        Yuan et al., "Large-scale Robust Deep AUC Maximization", ICCV 2021: the objective is a loss of pairs of an even and an
        odd digit. Training reads the classes alone; the groups of val select the epoch.""",
        {"objective": 'name="aucm", positives=(1,), share=1.0, margin=1.0'}),
    "colored_digits_afr": Row("colored_digits", "automatic feature reweighting", f"""
        {QIU}. ERM trains on four fifths of train. Then the last layer is trained further on the rest; there the
        examples on which the model is least confident have the largest weights. Training reads no groups; the groups of
        val select the epoch. They also chose γ among 0.5, 1 and 2 and λ among 0, 0.1 and 1, by the mean over seeds 0 to
        2. With the chosen values the worst-group accuracy on val is 54 %; it is 46 % before the last layer is refitted,
        and close to 0 if γ is 5 or more. The held-out fifth has at most two of the seven odd red digits of train, so
        large weights fit single
        images.""", {"head": 'name="afr", fraction=0.2, gamma=0.5, penalty=0.1, steps=500, lr=0.01'}),
    "colored_digits_crt": Row("colored_digits", "classifier re-training on balanced groups", f"""
        {KANG}, by group instead of class: after ERM a new last layer is trained on draws of train that are balanced by
        group. Training reads the groups for the last layer; the groups of val select the epoch. Test accuracy with seed
        0 is 38 % in the worst group and 97 % on average. A run takes a few seconds on one core.""", sgd("0.03") | {
        "head": 'name="crt", by="group", epochs=20, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005',
    }),
    "colored_digits_cvar": Row("colored_digits", "CVaR DRO", """
        Levy et al., "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020: the objective is the
        mean over the fifth of every batch with the largest losses. Training reads no groups; the groups of val select
        the epoch. Test accuracy with seed 0 is 35 % in the worst group and 97 % on average. A run takes a few seconds
        on one core.""", sgd("0.03") | {"objective": 'name="cvar", level=0.2'}),
    "colored_digits_cnc": Row("colored_digits", "correct-n-contrast", """
        Zhang et al., "Correct-N-Contrast: A Contrastive Approach for Improving Robustness to Spurious Correlations",
        ICML 2022. A first run trains a biased model. Then a contrastive loss moves the features of examples that this
        model predicts wrongly towards those of their class that it predicts rightly. One command trains both runs.
        Training reads no groups; the groups of val select the epoch.""", BALANCED | {
        "groups": 'name="predictions", first_epochs=2', "objective": 'name="cnc", share=0.75, temperature=0.1',
    }),
    "colored_digits_dfr": Row("colored_digits", "deep feature reweighting", f"""
        {KIRICHENKO}: after ERM a new last layer is fitted to subsets of val that are balanced by group. Training reads
        no groups of train. The groups of val select the epoch, and the last layer is trained on val, so metrics on val
        are training metrics. Test accuracy with seed 0 is 83 % in the worst group and 89 % on average. A run takes a
        few seconds on one core.""", DFR),
    "colored_digits_dpe": Row("colored_digits", "diverse prototypical ensembles", f"""
        {TO}: after ERM the last layer is replaced with fifteen classifiers by distance to prototypes, which are trained
        on subsets of val that are balanced by group. Training reads no groups of train. The groups of val select the
        epoch and the prototypes, and the prototypes are trained on val, so metrics on val are training metrics. With
        the published penalties and epochs the 358 images of val give too few steps. The values here are the best of
        eighteen combinations over seeds 0 to 2, fitted on one half of val and evaluated on the other. Test accuracy
        with seed 0 is 68 % in the worst group and 93 % on average. A run takes half a minute on one core.""",
        dpe("200", "64", "0.001", "1.0", "10_000.0")),
    "colored_digits_eiil": Row("colored_digits", "environments inferred, then group DRO on them", """
        Creager et al., "Environment Inference for Invariant Learning", ICML 2021: a short first run trains a model, and
        the training examples are divided into the two environments in which the predictions of this model are least
        invariant. Then group DRO trains on the groups class × environment. One command trains both runs. Training reads
        no groups; the groups of val select the epoch. They also chose first_epochs and the step size, among a few
        values of each. Test accuracy with seed 0 is 73 % in the worst group and 84 % on average.""",
        group_dro("0.01") | {"groups": 'name="eiil", first_epochs=2, ascent_steps=1000, ascent_lr=0.01'}),
    "colored_digits_george": Row("colored_digits", "GEORGE, clusters as groups, then group DRO on them", """
        Sohoni et al., "No Subclass Left Behind: Fine-Grained Robustness in Coarse-Grained Classification Problems",
        NeurIPS 2020. A first run trains a model. Its outputs are clustered in each class, and group DRO trains on the
        clusters. One command trains both runs. Training reads no groups; the groups of val select the epoch.""",
        group_dro("0.01") | {
            "groups": 'name="george", first_epochs=5, reduction="hardness", components=2, algorithm="gmm", max_clusters=4, parts=5, smallest_part=5',
        }),
    "colored_digits_irm": Row("colored_digits", "invariant risk minimisation", """
        Arjovsky et al., "Invariant Risk Minimization", 2019. The environments are the two colours, each of which has
        both classes. Training reads the colour for the objective; the groups of val select the epoch.""",
        {"objective": 'name="irm", environments="attribute", penalty=10.0, warmup_steps=100'}),
    "colored_digits_vrex": Row("colored_digits", "risk extrapolation", """
        Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation (REx)", ICML 2021. The environments
        are the two colours, each of which has both classes. Training reads the colour for the objective; the groups of
        val select the epoch. The penalty and the learning rate have the best worst-group accuracy on val of 1 and 3, and of
        0.01, 0.03 and 0.1, over three seeds; with a penalty of 10 some runs diverge.""",
        sgd("0.03") | {"objective": 'name="vrex", environments="attribute", penalty=3.0, warmup_steps=100'}),
    "colored_digits_jtt": Row("colored_digits", "Just Train Twice", """
        Liu et al., ICML 2021: the training examples that a short first run classifies wrongly have larger weights in a
        second run. One command trains both runs. Training reads no groups; the groups of val select the epoch. Test
        accuracy with seed 0 is 68 % in the worst group and 80 % on average. A run takes a few seconds on one core.""",
        sgd("0.03") | {"weights": 'name="just_train_twice", first_epochs=5, upweight=50.0'}),
    "colored_digits_lc": Row("colored_digits", "logit correction", """
        Liu et al., "Avoiding Spurious Correlations via Logit Correction", ICLR 2023: logits are shifted by the classes that
        a second, biased network confuses. Training reads no groups; the groups of val select the epoch.""",
        sgd("0.03") | {"objective": 'name="lc", amplification=0.7, decay=0.5'}),
    "colored_digits_ldam_drw": Row("colored_digits", "LDAM with deferred re-weighting", f"""
        {CAO}, with their normalised last layer and its scale. The method corrects the imbalance of the classes.
        Training reads the class counts and no groups; the groups of val select the epoch. Test accuracy with seed 0 is
        46 % in the worst group and 98 % on average. A run takes a few seconds on one core.""", sgd("0.03") | {
        "weights": 'name="deferred", by="class", beta=0.9999, start_epoch=80',
        "loss": 'name="ldam", max_margin=0.5, scale=30.0', "model": 'name="mlp_cosine", hidden=(128, 128)',
    }),
    "colored_digits_lff": Row("colored_digits", "learning from failure", """
        Nam et al., "Learning from Failure: Training Debiased Classifier from Biased Classifier", NeurIPS 2020: the
        examples on which a second, biased network fails have larger weights. Training reads no groups; the groups of
        val select the epoch.""",
        {"objective": 'name="lff", amplification=0.7, decay=0.7'}),
    "colored_digits_lisa": Row("colored_digits", "LISA, selective mixing", """
        Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022: mixes two examples
        of the same class and different colours, or of the same colour and different classes. Training reads the groups
        for the sampler and the mixing; the groups of val select the epoch. Test accuracy with seed 0 is 79 % in the
        worst group and 84 % on average. A run takes a few seconds on one core.""",
        BALANCED | sgd("0.03") | {"mix": 'name="lisa", alpha=2.0, same_label=0.5'}),
    "colored_digits_mixup": Row("colored_digits", "mixup", f"""
        {ZHANG}. Training reads no groups; the groups of val select the epoch. Test accuracy with seed 0 is 46 % in the
        worst group and 97 % on average. A run takes a few seconds on one
        core.""", sgd("0.03") | {"mix": 'name="mixup", alpha=0.2'}),
    "colored_digits_pde": Row("colored_digits", "progressive data expansion", """
        Deng et al., "Robust Learning with Progressive Data Expansion Against Spurious Correlation", NeurIPS 2023: training
        starts on equally many examples of each group, and a few further ones join from time to time. Training reads the
        groups for the sampler; the groups of val select the epoch.""",
        sgd("0.03") | {"sampler": 'name="expanding", by="group", warmup_epochs=15, every=10, added=10'}),
    "colored_digits_self": Row("colored_digits", "SELF, by early-stop disagreement", """
        LaBonte et al., "Towards Last-layer Retraining for Group Robustness with Fewer Annotations", NeurIPS 2023. ERM
        trains on four fifths of train. Then the last layer is trained further on held-out examples, the classes
        counting equally: those on which the network disagrees most with an early model, which was trained for a few
        epochs. One command trains both. Training reads no groups; the groups of val select the epoch. They also chose
        first_epochs among 2 and 10, share among 0.1, 0.2 and 0.5, and the learning rate of the last layer among 0.001,
        0.01 and 0.1, by the mean over seeds 0 to 2. With the chosen values the worst-group accuracy on val is 46 %, as
        it was before the last layer was trained further. The held-out fifth has at most two of the seven odd red digits
        of train.""",
        {"head": 'name="self", fraction=0.2, first_epochs=2, share=0.1, steps=250, batch_size=32, lr=0.01'}),
    "colored_digits_spare": Row("colored_digits", "SPARE, early clusters as groups", """
        Yang et al., "Identifying Spurious Biases Early in Training through the Lens of Simplicity Bias", AISTATS 2024. A
        short first run trains a model. The probabilities that the model predicts are clustered in each class, and a
        second run draws small clusters more often. One command trains both runs. Training reads no groups; the groups
        of val select the epoch.""",
        {"groups": 'name="spare", first_epochs=2, lr=0.1, clusters=(2,), threshold=0.9, power=2.0',
         "sampler": 'name="within_class"'}),
    "colored_digits_ssa": Row("colored_digits", "spread spurious attribute, then group DRO on predicted groups", """
        Nam et al., "Spread Spurious Attribute: Improving Worst-group Accuracy with Spurious Attribute Estimation", ICLR
        2022. A first run trains three networks to predict the attribute, on half of val and on their own confident
        predictions for train. Group DRO trains on the combinations of class and predicted attribute. One command trains
        both runs. No groups of train are read; those of val train the networks and select the epoch.""",
        group_dro("0.01") | {"groups": 'name="ssa", first_epochs=20, lr=0.03, threshold=0.95, labelled_share=0.5'}),
    "colored_digits_ula": Row("colored_digits", "uLA, unsupervised logit adjustment", """
        Tsirigotis et al., "Group Robust Classification Without Any Group Information", NeurIPS 2023: logits are shifted by
        the classes that a short first run confuses. One command trains both runs. No groups are read, in train or in
        val: the accuracy on val, balanced over class and prediction of the first run, selects the epoch.""",
        {"groups": 'name="predictions", first_epochs=2', "score": "val/inferred_group_balanced_accuracy",
         "objective": 'name="ula", tau=1.0, temperature=1.0, decay=0.999'}),
    "colored_digits_undersampled": Row("colored_digits", "cross-entropy on an undersampled training set", """
        Every epoch has as many examples of each group as the smallest group has, and draws them anew. This baseline is
        hard to beat (Idrissi et al., "Simple data balancing achieves competitive worst-group-accuracy", CLeaR 2022).
        Training reads the groups for the sampler; the groups of val select the epoch. Test accuracy with seed 0 is 77 %
        in the worst group and 81 % on average. A run takes a few seconds on one
        core.""", sgd("0.03") | {"sampler": 'name="undersample", by="group", redraw=True'}),
    "colored_digits_vs": Row("colored_digits", "the vector-scaling loss", """
        Kini et al., NeurIPS 2021. The loss corrects the imbalance of the classes. Training reads the class counts and
        no groups; the groups of val select the epoch. Test accuracy with seed 0 is 50 % in the worst group and 97 % on
        average. A run takes a few seconds on one core.""",
        sgd("0.03") | {"loss": 'name="vs", gamma=0.2, tau=1.0'}),
    "colored_digits_xrm": Row("colored_digits", "environments inferred from cross-mistakes, then group DRO on them", """
        Pezeshki et al., "Discovering Environments with XRM", ICML 2024. A first run trains two networks on random
        halves of train, and gradually replaces labels with confident predictions of the other network. The examples
        that one of the networks classifies wrongly are one environment, the others a second one. Then group DRO trains
        on the groups class × environment. One command trains both runs. No groups are read, in train or in val: the
        epoch is selected by the worst inferred group of val. The learning rate of the first run has the highest flip
        rate among 0.03, 0.1 and 0.3 (the first of equals), over seeds 0 to 2. With it 5.03 % of the labels are
        replaced; 29 of the 576 training examples belong to the two small groups. The step size is that of
        colored_digits_eiil.""",
        group_dro("0.01") | {
            "groups": 'name="xrm", first_epochs=20, lr=0.03', "score": "val/worst_inferred_group_accuracy",
        }),
    "fashion_erm": Row("fashion", "cross-entropy", "The baseline for fashion_poly. The licence of the images is MIT."),
    "fashion_poly": Row("fashion", "the polynomially-tailed loss under importance weights", f"The loss of {WANG}.",
        POLY | importance("class", "1.5")),
    "medmnist_erm": Row("medmnist", "cross-entropy"),
    "medmnist_poly": Row("medmnist", "the polynomially-tailed loss under importance weights", f"The loss of {WANG}.",
        POLY | importance("class", "1.5")),
    "cifar_erm": Row("cifar", "plain cross-entropy", f"""
        An experiment of {WANG}, section 5, which reports a balanced test accuracy of 60.5 ± 2.6 % (± standard deviation
        over 10 seeds)."""),
    "cifar_ce": Row("cifar", "cross-entropy under importance weights", f"""
        An experiment of {WANG}, section 5, which reports a balanced test accuracy of 57.8 ± 1.3 % (± standard deviation
        over 10 seeds).""", importance("class")),
    "cifar_poly": Row("cifar", "the polynomial loss under importance weights", f"""
        An experiment of {WANG}, section 5, which reports a balanced test accuracy of 60.4 ± 1.0 % (± standard deviation
        over 10 seeds).""", POLY | importance("class")),
    "cifar_ldam": Row("cifar", "the LDAM loss", f"""
        An experiment of {WANG}, section 5, which reports a balanced test accuracy of 58.7 ± 1.6 % (± standard deviation
        over 10 seeds). The loss is that of Cao et al., NeurIPS 2019, without their deferred weights. Training reads the
        class counts; the last epoch is
        tested.""", sgd("0.01") | {"loss": 'name="ldam", max_margin=1.0, scale=1.0', "epochs": "300"}),
    "cifar_vs": Row("cifar", "the vector-scaling loss", f"""
        An experiment of {WANG}, section 5, which reports a balanced test accuracy of 69.3 ± 0.9 % (± standard deviation
        over 10 seeds) in the row "VS". The loss is that of Kini et al., NeurIPS 2021. Training reads the class counts;
        the last epoch is tested.""",
        sgd("0.01") | {"loss": 'name="vs", gamma=0.3, tau=3.0', "epochs": "300"}),
    "cifar10lt_erm": Row("cifar10lt", "cross-entropy", f"""
        The baseline of {CAO}, which reports 70.4 % test accuracy. As in their code: counts, network, learning rate and
        its drops, momentum, weight decay, batch size, augmentation. Different here: the last epoch is tested, where
        they report the best epoch on test; val is a tenth of the test images, so that train has the published counts;
        warm-up increases the learning rate at every step, there at every epoch; inputs are divided by the standard
        deviation of the pixels, there by (0.2023, 0.1994, 0.2010)."""),
    "cifar10lt_poly": Row("cifar10lt", "the polynomially-tailed loss under importance weights", f"""
        {WANG}, on the data and with the schedule of Cao et al., NeurIPS 2019. Val is a tenth of the test images, so
        that train has the published counts.""", POLY | importance("class", "1.5")),
    "cifar10lt_ldam_drw": Row("cifar10lt", "LDAM with deferred re-weighting", f"""
        {CAO}: 77.0 % test accuracy reported. As in their code: counts, network and normalised last layer, loss,
        deferred weights, learning rate and its drops, momentum, weight decay, batch size, augmentation. The scale 30 is
        meant for logits in [−1, 1]; with an ordinary last layer training diverges. Different here: the last epoch is
        tested, where they report the best epoch on test; val is a tenth of the test images, and the other nine tenths
        are the test split; warm-up increases the learning rate at every step, there at every epoch; weights have a mean
        of 1 over the training set, there over the batch; inputs are divided by the standard deviation of the pixels
        (0.247, 0.243, 0.261), there by (0.2023, 0.1994, 0.2010). Training and selection read only class labels.""", {
        "weights": 'name="deferred", by="class", beta=0.9999, start_epoch=160',
        "loss": 'name="ldam", max_margin=0.5, scale=30.0', "model": 'name="resnet32_cosine", frozen=False',
    }),
    "cifar10lt_logit_adjusted": Row("cifar10lt", "the logit-adjusted loss", """
        Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021: 77.7 % test accuracy reported. As in their
        code: τ = 1, counts, batch size, base learning rate. Different here: the other hyperparameters are those of
        cifar10lt_erm, with 200 epochs. Their code has 1,241 epochs with Nesterov momentum, a weight decay of 1e-4, a
        learning rate that falls to a tenth after epochs 604, 926 and 1,128, a ResNet-32 of bottleneck blocks, and two
        pixels of padding. Val is a tenth of the test images. So do not expect the reported accuracy here. Training and
        selection read only class labels.""",
        {"loss": 'name="logit_adjusted", tau=1.0'}),
    "cifar10lt_mixup_drw": Row("cifar10lt", "mixup with deferred re-weighting", f"""
        {ZHANG}, with the deferred weights of Cao et al., NeurIPS 2019. The package imbalanced-DL quotes 82.1 % test
        accuracy. Counts, learning rate and its drops, momentum, weight decay, batch size and augmentation are those of
        the code of LDAM-DRW (Cao et al., NeurIPS 2019). Val is a tenth of the test images, and the last epoch is
        tested; most published numbers are those of the best epoch on test. Training and selection read only class
        labels.""",
        {"weights": 'name="deferred", by="class", beta=0.9999, start_epoch=160', "mix": 'name="mixup", alpha=1.0'}),
    "cifar10lt_mislas": Row("cifar10lt", "MiSLAS, mixup and then label-aware smoothing", """
        Zhong, Cui, Liu and Jia, "Improving Calibration for Long-Tailed Recognition", CVPR 2021: 82.5 % test accuracy
        and an expected calibration error of 3.7 % reported. As in their code: mixup, learning rates and their schedule,
        weight decay, batch size, smoothing, and the 10 epochs of the second stage. Different here: the second stage has
        no augmentation, and the last epoch is tested, where they report the best epoch on test; val is a tenth of the
        test images; warm-up increases the learning rate at every step, there at every epoch. Training and selection read only class labels.""", {
        "mix": 'name="mixup", alpha=1.0',
        "schedule": 'name="step", milestones=(160, 180), factor=0.1, warmup_epochs=5.0',
        "head": 'name="mislas", by="class", head_smoothing=0.3, tail_smoothing=0.0, epochs=10, batch_size=128, lr=0.1, '
        "layer_factor=0.5, momentum=0.9, weight_decay=2e-4",
    }),
    "cifar10lt_los": Row("cifar10lt", "LOS, a last layer trained further with very smooth labels", """
        Sun et al., "Rethinking Classifier Re-Training in Long-Tailed Recognition: Label Over-Smooth Can Balance", ICLR
        2025. As in their code: learning rates, weight decay, batch size, the 20 epochs and the smoothing of the second
        stage. Different here: a ResNet-32, there a ResNet-34; the second stage has no augmentation, and the last epoch
        is tested, where they report the best epoch on test; val is a tenth of the test images. No published number has
        this network. Training and selection read only class labels.""", sgd("0.01", "5e-3") | COSINE | {
        "batch_size": "64",
        "head": 'name="los", smoothing=0.98, epochs=20, batch_size=64, lr=0.0005, momentum=0.9, weight_decay=0.0',
    }),
    "cifar10lt_sam": Row("cifar10lt", "sharpness-aware minimisation", """
        Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021. The other
        hyperparameters are those of cifar10lt_erm; no published number has them. A step takes twice as long as in
        cifar10lt_erm. Training and selection read only class labels.""",
        {"optim": f'name="sam", {MOMENTUM_SGD}, radius=0.05'}),
    "cifar10lt_focal_sam": Row("cifar10lt", "Focal-SAM with the logit-adjusted loss", """
        Li et al., "Focal-SAM: Focal Sharpness-Aware Minimization for Long-Tailed Classification", ICML 2025. As in
        their code: loss, ρ, γ and λ, learning rate, weight decay, batch size, cosine. Different here:
        val is a tenth of the test images, and the last epoch is tested. A step takes three times
        as long as in cifar10lt_erm. Training and selection read only class labels.""", COSINE | {
        "loss": 'name="logit_adjusted", tau=1.0', "batch_size": "64",
        "optim": f'name="focal_sam", {MOMENTUM_SGD}, radius=0.2, gamma=3.0, strength=0.5',
    }),
    "cifar10lt_bcl": Row("cifar10lt", "balanced contrastive learning", """
        Zhu, Wang, Chen, Chen and Jiang, "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022.
        The loss, the factor of the contrastive loss and the temperature are those of the authors' code, which has no settings for CIFAR; the width of 128 is that of cifar10lt_supcon, and all other
        hyperparameters are those of cifar10lt_erm. No published number has these hyperparameters. Val is a tenth of the
        test images, and the last epoch is tested. Training and selection read only class labels.""", {
        "loss": 'name="balanced_softmax"', "objective": 'name="bcl", penalty=0.35, temperature=0.07, width=128',
    }),
    "cifar10lt_paco": Row("cifar10lt", "parametric contrastive learning", """
        Cui et al., "Parametric Contrastive Learning", ICCV 2021. The loss, its factors, the temperature, the queue, the
        learning rate, the weight decay, the warm-up and the 400 epochs are those of the authors' code for CIFAR-100-LT, with
        a cosine schedule; its README has no number for CIFAR-10-LT. Different here: the authors augment all views more
        strongly; val is a tenth of the test images, and the last epoch is tested. For GPaCo, which needs no second network,
        set objective.name to gpaco. Training and selection read only class labels.""", {
        "objective": 'name="paco", alpha=0.01, beta=1.0, gamma=1.0, temperature=0.05, width=32, queue=1024, momentum=0.999',
        "optim": 'name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, decayed="all"',
        "schedule": 'name="cosine", warmup_epochs=10.0', "epochs": "400",
    }),
    "cifar10lt_glmc": Row("cifar10lt", "global and local mixture consistency", """
        Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-Tailed Visual Recognitions", CVPR 2023.
        The loss, its factors, the mixing, the learning rate, the weight decay, the batch size and the warm-up are those of
        the authors' code, which has 1 and 4 as the factor of the consistency for CIFAR-10-LT. Different here: the network of
        the authors, also called ResNet-32, is four times as wide; val is a tenth of the test images, and the last epoch is
        tested. Training and selection read only class labels.""", {
        "objective": 'name="glmc", penalty=4.0, exponent=1.2, width=64', "mix": 'name="glmc", alpha=1.0, exponent=0.0',
        "optim": 'name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-3, decayed="all"', "batch_size": "64",
        "schedule": 'name="cosine", warmup_epochs=10.0',
    }),
    "cifar10lt_proco": Row("cifar10lt", "probabilistic contrastive learning", """
        Du et al., "Probabilistic Contrastive Learning for Long-Tailed Visual Recognition", TPAMI 2024. The loss, the
        temperature, the width, the learning rate, the batch size, the weight decay and the warm-up are those of the authors'
        code, with a cosine schedule. Different here: the authors augment all views more strongly and use a third view for
        the loss; val is a tenth of the test images, and the last epoch is tested. Training and selection read only class
        labels.""", {
        "loss": 'name="balanced_softmax"', "objective": 'name="proco", penalty=1.0, temperature=0.1, width=128',
        "optim": 'name="sgd", lr=0.3, momentum=0.9, weight_decay=2e-4, decayed="all"', "batch_size": "256",
        "schedule": 'name="cosine", warmup_epochs=5.0',
    }),
    "cifar10lt_ride": Row("cifar10lt", "RIDE, three diverse experts", """
        Wang et al., "Long-tailed Recognition by Routing Diverse Distribution-Aware Experts", ICLR 2021, without its second
        stage, a router. The loss, its weights, the factor of the divergence and the temperatures are those of the
        authors' code for CIFAR-100-LT, where the experts are narrower; all other hyperparameters are those of
        cifar10lt_erm. The experts share the first two of the three stages. No published number has these hyperparameters.
        Val is a tenth of the test images, and the last epoch is tested. Training and selection read only class labels.""", {
        "loss": 'name="ldam", max_margin=0.5, scale=30.0', "weights": 'name="deferred", by="class", beta=0.9999, start_epoch=160',
        "objective": 'name="ride", diversity=0.45, temperature=1.0, tempering=0.05, start_epoch=160, scale=30.0',
        "model": 'name="experts_cosine", network=dict(name="resnet32", frozen=False), experts=3, shared=13',
    }),
    "cifar10lt_sade": Row("cifar10lt", "SADE, three experts for three class priors", """
        Zhang et al., "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition", NeurIPS
        2022. After training, the experts are weighted by the inputs of test, without its labels. The factor of the third
        expert and the descent at test time are those of the authors' code for CIFAR-100-LT, where the experts are
        narrower and the last layer is normalised; all other hyperparameters are those of cifar10lt_erm. The experts share
        the first two of the three stages. No published number has these hyperparameters. Val is a tenth of the test images,
        and the last epoch is tested. Training and selection read only class labels.""", {
        "objective": 'name="sade", tau=2.0, scale=1.0',
        "model": 'name="experts", network=dict(name="resnet32", frozen=False), experts=3, shared=13',
        "head": 'name="test_time", epochs=5, batch_size=128, lr=0.1, momentum=0.9, weight_decay=0.0005',
    }),
    "cifar10lt_supcon": Row("cifar10lt", "supervised contrastive learning", f"""
        {KHOSLA}. Both the contrastive loss and cross-entropy train the features. The factor of the contrastive loss is
        that of balanced contrastive learning (Zhu et al., CVPR 2022); temperature and width are those of Khosla et al.
        Counts, learning rate and its drops, momentum, weight decay, batch size and augmentation are those of the code
        of LDAM-DRW (Cao et al., NeurIPS 2019); papers on contrastive learning use larger batches and stronger
        augmentations. No published number has these hyperparameters. Val is a tenth of the test images, and the last
        epoch is tested. Training and selection read only class labels.""",
        {"objective": 'name="supcon", penalty=0.35, temperature=0.1, width=128, detached=False'}),
    "cifar100lt_erm": Row("cifar100lt", "cross-entropy", f"""
        The baseline of {CAO}, which reports 38.3 % test accuracy. As in their code: counts, network, learning rate and
        its drops, momentum, weight decay, batch size, augmentation. Different here: the last epoch is tested, where
        they report the best epoch on test; val is a tenth of the test images, so that train has the published counts;
        warm-up increases the learning rate at every step, there at every epoch; inputs are divided by the standard
        deviation of the pixels, there by (0.2023, 0.1994, 0.2010)."""),
    "cifar100lt_imb_sam": Row("cifar100lt", "ImbSAM, sharpness-aware minimisation for rare classes", """
        Zhou, Qu, Xu and Shen, "ImbSAM: A Closer Look at Sharpness-Aware Minimization in Class-Imbalanced Recognition",
        ICCV 2023: 51.1 % test accuracy reported, by code that counts the losses of rare classes twice. As in their
        code: ρ, the limit of 20 examples, learning rate, cosine, weight decay, batch size. Different here: the losses
        count once, as in the paper; a ResNet-32, there a ResNet-34; val is a tenth of the test images, and the last epoch is tested. A step
        takes three times as long as in cifar100lt_erm. Training and selection read only class labels.""", COSINE | {
        "batch_size": "64",
        "optim": 'name="imb_sam", lr=0.01, momentum=0.9, weight_decay=1e-3, decayed="all", radius=0.05, tail_below=20',
    }),
    "cifar100lt_lade": Row("cifar100lt", "LADE, class shares disentangled from the logits", """
        Hong et al., "Disentangling Label Distribution for Long-tailed Visual Recognition", CVPR 2021. As in
        their README: loss, factors of the regulariser, learning rate, weight decay, batch
        size, number of epochs. Different here: the schedule is that of cifar100lt_erm; val is a tenth of the test
        images, and the last epoch is tested. Training and selection read only class labels.""", sgd("0.2", "5e-4") | {
        "loss": 'name="balanced_softmax"', "objective": 'name="lade", penalty=0.1, drift=0.01', "batch_size": "256",
    }),
    "cifar100lt_weight_balancing": Row("cifar100lt", "weight balancing, by weight decay and MaxNorm", """
        Alshammari, Wang, Ramanan and Kong, "Long-Tailed Recognition via Weight Balancing", CVPR 2022: above 52 % test
        accuracy reported. As in their code: learning rates, weight decay and batch size of both stages, the share 0.1
        for the largest norm, β, cosine, and the 10 epochs of the second stage. Different here: a ResNet-32 and 200
        epochs, there a ResNet-34 and 320; the second stage has no augmentation, and the last epoch is tested, where
        they report the best epoch on test; val is a tenth of the test images. Training and selection read only class
        labels.""", sgd("0.01", "5e-3") | COSINE | {
        "batch_size": "64",
        "head": 'name="weight_balancing", limit=0.1, beta=0.9999, epochs=10, batch_size=64, lr=0.01, momentum=0.9, '
        "weight_decay=0.1",
    }),
    "cifar100lt_poly": Row("cifar100lt", "the polynomially-tailed loss under importance weights", f"""
        {WANG}, on the data and with the schedule of Cao et al., NeurIPS 2019. Val is a tenth of the test images, so
        that train has the published counts.""", POLY | importance("class", "1.5")),
    "cifar10_new_classes": Row("cifar10", "features learnt on cats and dogs, evaluated on deer and horses with a new last layer", """
        At every evaluation the features are frozen, and logistic regression is fitted on the training images of the new
        classes (see `imbalance.methods.heads.probe.fit_head`). ResNet-20, 30 epochs of 9,000 images: not yet run here
        to the end.""", {
        "data": """
            name="new_classes",
            source=create(
                name="cifar10",
                classes=("cat", "dog", "deer", "horse"),
                imbalance="none",
                imbalance_ratio=1.0,
                total=0,
                val_fraction=0.1,
                draw="stratified",  # the seed decides which images are used
                download=False,  # True: download the files into data_dir if they are missing (170 MB)
            ),
            train_map=(("cat", "cat"), ("dog", "dog")),
            eval_map=(("deer", "deer"), ("horse", "horse")),
            head_strength=1.0,  # the inverse of the L2 penalty of the new last layer
        """,
    }),
    "cifar10_unseen_kinds": Row("cifar10", "animals against vehicles, trained on some kinds of each, evaluated on others", """
        Train has cats, dogs, cars and trucks, with the two labels animal and vehicle. Val and test have deer, horses,
        aeroplanes and ships. So the score is the accuracy on kinds that training has not seen, and worst-group accuracy
        is that of the worst of these kinds. ResNet-20, 30 epochs of 18,000 images: not yet run here to the end."""),
    "dominoes_erm": Row("dominoes", "cross-entropy"),
    "corrupted_cifar10_erm": Row("corrupted_cifar10", "cross-entropy", """
        Published for this share of conflicting images: 39.4 ± 0.6 % with ResNet-18 on other files of the same kind
        (quoted by later papers)."""),
    "colored_fashion_erm": Row("colored_fashion", "cross-entropy"),
    "metashift_erm": Row("metashift", "cross-entropy",
        "Published: 82.6 ± 0.4 % worst-group accuracy (SubpopBench, after its search)."),
    "imagenet_bg_erm": Row("imagenet_bg", "cross-entropy",
        "Published with unknown attributes: 76.8 ± 0.9 % (SubpopBench)."),
    "nico_pp_erm": Row("nico_pp", "cross-entropy",
        "Published: 37.6 ± 2.0 % worst-group accuracy (SubpopBench, after its search)."),
    "breeds_erm": Row("breeds", "cross-entropy",
        "Published: 28.2 ± 1.5 % average accuracy from scratch (SubpopBench, after its search)."),
    "chexpert_erm": Row("chexpert", "cross-entropy",
        "Published: 50.2 ± 3.8 % worst-group accuracy (SubpopBench, after its search)."),
    "mimic_cxr_erm": Row("mimic_cxr", "cross-entropy"),
    "imagenet_lt_erm": Row("imagenet_lt", "cross-entropy"),
    "places_lt_erm": Row("places_lt", "cross-entropy"),
    "inaturalist2018_erm": Row("inaturalist2018", "cross-entropy"),
    "urbancars_erm": Row("urbancars", "cross-entropy"),
    "spuco_erm": Row("spuco", "cross-entropy"),
    "camelyon17_erm": Row("camelyon17", "cross-entropy"),
    "waterbirds_erm": Row("waterbirds", "cross-entropy, the standard baseline", f"""
        The base model of {KIRICHENKO}: 74.9 ± 2.4 % worst-group accuracy reported. As in their code: learning rate,
        weight decay, batch size, epochs, augmentation, ImageNet weights (V1), the last epoch. Different here: crops are
        taken out of the middle 224×224 of a resized image, not out of the whole image. Training and selection read no
        groups."""),
    "waterbirds_ce": Row("waterbirds", "cross-entropy under importance weights of the groups", """
        Sagawa et al., ICLR 2020, find that these weights have no effect after the network interpolates: compare
        waterbirds_erm and waterbirds_poly. The hyperparameters are those of waterbirds_erm, but the epoch is selected
        by the groups of val.""",
        BEST | importance("group")),
    "waterbirds_poly": Row("waterbirds", "the polynomially-tailed loss under importance weights of the groups", f"""
        {WANG}, whose code loads this data set, but whose paper has no experiment on it. The hyperparameters are those
        of waterbirds_erm, but the epoch is selected by the groups of val.""", POLY | BEST | importance("group")),
    "waterbirds_dro": Row("waterbirds", "group DRO, strongly regularised, on batches balanced over the groups", f"""
        {SAGAWA}: 91.4 ± 1.1 % worst-group accuracy reported. As in their code: batches drawn with replacement, with the
        same probability for every group (the flag --reweight_groups, which does not change the objective, but gives the
        loss of every group enough examples), batch size, epochs, step size, no augmentation, ImageNet weights (V1).
        Learning rate and weight decay are those that the paper calls a strong ℓ2 penalty; the sample command of the
        code has 1e-3 and 1e-4. The group adjustments of the paper are not used (size_adjustment=0). Training reads the
        groups for the sampler and the objective; the groups of val select the
        epoch.""", BEST | sgd("1e-5", "1.0") | group_dro("0.01") | {
        "sampler": 'name="resample", by="group", exponent=1.0', "epochs": "300", "batch_size": "128",
        "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "waterbirds_afr": Row("waterbirds", "automatic feature reweighting", f"""
        {QIU}: 90.4 ± 1.1 % worst-group accuracy reported. ERM trains on four fifths of train, and then the last layer
        is trained further on the rest. Training reads no groups; the groups of val are for tuning. The hyperparameters
        are those of the latest commands in the authors' repository: 50 epochs at learning rate 0.003, γ = 10, λ = 0,
        500 steps at learning rate 0.01; their notebook tries γ between 4 and 20. Different here: the last layer is that
        of the last of the 500 steps, not of the best on val; gradients are not clipped to a norm of 1; crops differ as
        in waterbirds_erm.""", sgd("0.003", "0.0001") | {
        "head": 'name="afr", fraction=0.2, gamma=10.0, penalty=0.0, steps=500, lr=0.01', "epochs": "50",
    }),
    "waterbirds_dfr": Row("waterbirds", "deep feature reweighting", f"""
        {KIRICHENKO}: 92.9 ± 0.2 % worst-group accuracy reported. The network is that of waterbirds_erm at the last
        epoch. Then a new last layer is fitted to subsets of val that are balanced by group. Training reads no groups of
        train. The last layer is trained on val and its groups, so metrics on val are training metrics. As in their
        code: the hyperparameters of the network (see waterbirds_erm, also for how crops differ), the seven penalties,
        20 fits. Different here: features are standardised by train also while the penalty is chosen, there by the half
        of val to which the layer is fitted.""", DFR),
    "waterbirds_dpe": Row("waterbirds", "diverse prototypical ensembles", f"""
        {TO}: 94.1 ± 0.4 % worst-group accuracy reported, with the groups of val. A network is trained on draws that are
        balanced by class, up to the last epoch. Then its last layer is replaced with fifteen classifiers by distance to
        prototypes, which are trained on subsets of val that are balanced by group. Training reads no groups of train.
        The prototypes are trained and selected on val, so metrics on val are training metrics. As in their code
        (github.com/minhto2802/dpe4subpop): ImageNet weights (V2), learning rates, momentum, batch sizes, epochs,
        class-balanced draws, the hyperparameters of the prototypes. Different here: crops have 0.7 to 1 of the area
        instead of 0.08 to 1, colours are not distorted, and an epoch's last batch is not left out.""",
        RESNET50_V2 | sgd("0.001") | dpe("20", "256", "0.001", "10.0", "500_000.0") | {
            "sampler": 'name="resample", by="class", exponent=1.0', "epochs": "400", "batch_size": "128",
        }),
    "waterbirds_eiil": Row("waterbirds", "environments inferred, then group DRO on them", """
        Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021. A first run trains a
        model, and the training examples are divided into the two environments in which its predictions are least
        invariant. Then group DRO trains on the groups class × environment. Training reads no groups; the groups of val
        select the epoch and are for tuning. The hyperparameters are those of waterbirds_dro, except for the groups of
        the objective, and for the sampler, which cannot balance groups that are not known beforehand. A first run of
        one epoch, and 20,000 steps of ascent at a rate of 0.01, are those of a later implementation
        (github.com/googleinterns/fairness_ssl) for Waterbirds.""",
        BEST | sgd("1e-5", "1.0") | group_dro("0.01") | {
            "groups": 'name="eiil", first_epochs=1, ascent_steps=20000, ascent_lr=0.01', "epochs": "300",
            "batch_size": "128", "data.augment": '(),  # or "random_resized_crop", "flip"',
        }),
    "waterbirds_irm": Row("waterbirds", "invariant risk minimisation", """
        Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019. The environments are the two
        backgrounds, each of which has both kinds of bird. Learning rate, weight decay, batch size, penalty and its 500
        steps of warm-up are the defaults of SubpopBench (Yang et al., ICML 2023). Its search tries penalties from 0.1
        to 1e5 and 1 to 10,000 steps of warm-up. Different here: SubpopBench takes the product of the slopes of two
        halves of a batch as penalty, and resets the optimiser when the warm-up ends. We chose the number of epochs, and
        no augmentation. Training reads the backgrounds for the objective; the groups of val select the
        epoch.""", BEST | sgd("0.001", "1e-4") | {
        "objective": 'name="irm", environments="attribute", penalty=100.0, warmup_steps=500', "batch_size": "108",
        "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "waterbirds_lff": Row("waterbirds", "learning from failure", """
        Nam, Cha, Ahn, Lee and Shin, "Learning from Failure: Training Debiased Classifier from Biased Classifier",
        NeurIPS 2020, which has no experiment on Waterbirds. Learning rate, weight decay, q and batch size are the
        defaults of SubpopBench (Yang et al., ICML 2023); the batch size is half of that of other methods, because there
        are two networks. The decay of the moving averages is that of Nam et al. We chose the number of epochs, and no
        augmentation. Training reads no groups; the groups of val select the epoch and are for tuning.""",
        BEST | sgd("0.001", "1e-4") | {
            "objective": 'name="lff", amplification=0.7, decay=0.7', "batch_size": "54",
            "data.augment": '(),  # or "random_resized_crop", "flip"',
        }),
    "waterbirds_lws": Row("waterbirds", "learnable weight scaling on balanced groups", f"""
        {KANG}, which has no experiment on Waterbirds. Here the draws are balanced by group instead of class, as
        SubpopBench (Yang et al., ICML 2023) does for the related method cRT. After ERM as in waterbirds_erm, one factor
        is learnt for each class, which multiplies its logit, with the same learning rate and weight decay; the ten
        epochs are those of the paper on Places. Training reads the groups for the factors; the groups of val are for
        tuning.""",
        {"head": 'name="lws", by="group", epochs=10, batch_size=32, lr=0.001, momentum=0.9, weight_decay=0.001'}),
    "waterbirds_self": Row("waterbirds", "SELF, by early-stop disagreement", """
        LaBonte, Muthukumar and Kumar, "Towards Last-layer Retraining for Group Robustness with Fewer Annotations",
        NeurIPS 2023. After ERM the last layer is trained further on held-out examples, the classes counting equally:
        those on which the network disagrees most with the model after ten epochs. Training reads no groups; the groups
        of val are for tuning. As in the authors' code: 100 epochs with batches of 32, and 250 steps for the last layer.
        Its learning rate of 0.001 and its 100 examples are the middle of their grids, to be tuned on val. Different
        here: a tenth of train is held out, not half of val; the learning rate of the network is constant, so that the
        early model belongs to the same run; crops differ as in waterbirds_erm.""",
        sgd("0.003", "0.0001") | {
            "head": 'name="self", fraction=0.1, first_epochs=10, share=0.2, steps=250, batch_size=32, lr=0.001',
        }),
    "waterbirds_xrm": Row("waterbirds", "environments inferred from cross-mistakes, then group DRO on them", """
        Pezeshki et al., "Discovering Environments with XRM", ICML 2024; colored_digits_xrm describes the method. As in
        their code the two networks, and that of group DRO, are one layer each on the frozen features of a ResNet-50
        from ImageNet weights, trained by SGD with momentum, and both runs have about 5,001 steps. Batch size, learning
        rates, weight decay and step size are the middle of the ranges from which the authors draw ten combinations (32
        to 128; 1e-5 to 1e-3; 1e-6 to 1e-3; 0.001 to 0.1). They choose those of the first run by flip rate, and those of
        the second by the worst inferred group. Here the layers start at 0. No groups are read, in train or in
        val.""", BEST | sgd("1e-4", "3e-5") | group_dro("0.01") | {
        "groups": 'name="xrm", first_epochs=67, lr=1e-4',
        "model": 'name="resnet50", pretrained="imagenet", frozen=True', "epochs": "67", "batch_size": "64",
        "score": "val/worst_inferred_group_accuracy", "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "celeba_erm": Row("celeba", "cross-entropy",
        f"{WANG}, section 5: 79.6 ± 1.2 % group-balanced test accuracy at the last epoch."),
    "celeba_ce": Row("celeba", "cross-entropy under importance weights", f"""
        {WANG}, section 5: 79.3 ± 1.2 % group-balanced test accuracy at the last epoch, which is no better than without
        weights.""",
        importance("group")),
    "celeba_poly": Row("celeba", "the polynomially-tailed loss under importance weights",
        f"{WANG}, section 5: 80.7 ± 1.8 % group-balanced test accuracy at the last epoch.",
        POLY | importance("group")),
    "celeba_dro": Row("celeba", "group DRO", f"""
        {WANG}, section 5: 84.8 ± 0.9 % group-balanced test accuracy (± standard deviation) in the row "CE+DRO".
        Training reads the groups for the objective; the last epoch is
        tested.""", sgd("0.001") | group_dro("0.05") | {"epochs": "200"}),
    "celeba_dpe": Row("celeba_whole", "diverse prototypical ensembles, on all training images", f"""
        {TO}: 90.3 ± 0.7 % worst-group accuracy reported, with the groups of val. A network is trained on draws that are
        balanced by class, up to the last epoch. Then its last layer is replaced with fifteen classifiers by distance to
        prototypes, which are trained on subsets of val that are balanced by group. Training reads no groups of train.
        The prototypes are trained and selected on val, so metrics on val are training metrics. As in their code
        (github.com/minhto2802/dpe4subpop): ImageNet weights (V2), learning rates, momentum, batch sizes, epochs,
        class-balanced draws, the hyperparameters of the prototypes. Different here: images are not rotated, training
        also reads only the middle 178×178 of each image, and an epoch's last batch is not left out.""",
        RESNET50_V2 | BY_GROUP | sgd("0.001") | dpe("20", "256", "0.0005", "10.0", "500_000.0") | {
            "sampler": 'name="resample", by="class", exponent=1.0', "batch_size": "128",
            "data.train_fraction": "1.0,  # share of the training images", "data.val_fraction": "1.0,  # of every group",
            "data.test": '"full",  # all test images; "balanced": 180 of every group',
            "data.augment": '("flip",),  # or "random_resized_crop"; () for none',
        }),
    "civilcomments_erm": Row("civilcomments", "cross-entropy"),
    "civilcomments_ce": Row("civilcomments", "importance-weighted cross-entropy", "", importance("group")),
    "civilcomments_poly": Row("civilcomments", "importance-weighted polynomially-tailed loss",
        "The loss of Wang et al., ICLR 2022, who have no experiment on this data set.",
        POLY | importance("group")),
    "civilcomments_dro": Row("civilcomments", "group DRO on batches that are balanced over the groups",
        "Sagawa et al., ICLR 2020.",
        group_dro("0.01") | {"sampler": 'name="resample", by="group", exponent=1.0'}),
    "multinli_erm": Row("multinli", "cross-entropy"),
    "multinli_poly": Row("multinli", "importance-weighted polynomially-tailed loss",
        "The loss of Wang et al., ICLR 2022, who have no experiment on this data set.",
        POLY | importance("group")),
    "multinli_dro": Row("multinli", "group DRO on batches that are balanced over the groups", "",
        group_dro("0.01") | {"sampler": 'name="resample", by="group", exponent=1.0'}),
    "text_small_erm": Row("text_small", "cross-entropy"),
    "text_small_ce": Row("text_small", "importance-weighted cross-entropy", "", importance("group")),
    "text_small_poly": Row("text_small", "importance-weighted polynomially-tailed loss", "The loss of Wang et al., ICLR 2022.",
        POLY | sgd("0.3") | importance("group")),
    "text_small_dro": Row("text_small", "group DRO on batches that are balanced over the groups",
        "Sagawa et al., ICLR 2020.",
        BALANCED | sgd("0.3") | group_dro("0.01")),
    "text_small_dfr": Row("text_small", "deep feature reweighting, a new last layer on val balanced by group",
        "Kirichenko et al., ICLR 2023.",
        DFR),
    "folder_erm": Row("folder", "cross-entropy"),
    "folder_ce": Row("folder", "cross-entropy under importance weights", "", importance("class")),
    "folder_poly": Row("folder", "the polynomially-tailed loss under importance weights", f"The loss of {WANG}.",
        POLY | importance("class", "1.5")),
    "table_erm": Row("table", "cross-entropy"),
    "table_ce": Row("table", "cross-entropy under importance weights of the groups", "", importance("group")),
    "table_poly": Row("table", "the polynomially-tailed loss under importance weights of the groups",
        f"The loss of {WANG}.",
        POLY | importance("group", "1.5")),
    "table_small": Row("table", "cross-entropy under importance weights of the groups, with a small network for a CPU", """
        A small LeNet-5, trained from scratch: a run on 600 training images takes 12 s on one core. On pullovers against
        coats (700 and 160 images of Fashion-MNIST) it reaches 81 % test accuracy in the worse class. The model
        `resnet20` takes more than ten times as long. For photographs, `table_ce` on a GPU is more accurate, because it
        starts from ImageNet weights.""",
        sgd("0.02", "1e-4") | importance("group") | {
            "model": 'name="lenet"',
            "data.convert": "True,  # convert images of other modes (grey, palette, transparency, 16 bits); False: refuse them",
            "data.resize": "32,  # the shorter side of an image is resized to this",
            "data.size": "32,  # then the middle of the image is cropped to this size",
            "data.augment": '("flip", "pad_crop"),',
        }),
    "arrays_erm": Row("arrays", "cross-entropy"),
    "arrays_ce": Row("arrays", "cross-entropy under importance weights of the groups", "", importance("group")),
    "arrays_poly": Row("arrays", "the polynomially-tailed loss under importance weights of the groups",
        f"The loss of {WANG}.",
        POLY | importance("group", "1.5")),
    "arrays_dro": Row("arrays", "group DRO on batches that are balanced over the groups", f"{SAGAWA}.",
        BALANCED | group_dro("0.01")),
    "drawn_erm": Row("drawn", "cross-entropy"),
    "features_erm": Row("features", "cross-entropy"),
    "features_ce": Row("features", "cross-entropy under importance weights of the groups", "", importance("group")),
    "features_poly": Row("features", "the polynomially-tailed loss under importance weights of the groups",
        f"The loss of {WANG}.",
        POLY | importance("group", "1.5")),
    "features_dro": Row("features", "group DRO on batches that are balanced over the groups", f"{SAGAWA}.",
        BALANCED | group_dro("0.01")),
    "features_afr": Row("features", "automatic feature reweighting", f"""
        {QIU}, with the hyperparameters of its code for Waterbirds. The network that computed the features should be
        trained on a share of train that does not include the examples held out here. A network that was trained on all
        of train is more confident on these examples than the method
        assumes.""", {"head": 'name="afr", fraction=0.2, gamma=10.0, penalty=0.0, steps=500, lr=0.01'}),
    "features_dfr": Row("features", "deep feature reweighting", f"""
        {KIRICHENKO}. The last layer is fitted to val and its groups, so metrics on val are training metrics. The
        network is the one that computed the features. The run first trains a linear layer for one epoch, which DFR then
        replaces; this epoch affects only the log.""",
        DFR | {"epochs": "1"}),
}

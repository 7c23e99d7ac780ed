"""The BREEDS sets: classes of ImageNet merged into larger ones; the test images can be of subclasses that are not in train.

Santurkar, Tsipras and Madry, "BREEDS: Benchmarks for Subpopulation Shift", ICLR 2021.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Natural
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.sets.published import PublishedSet, folder_images, middle, published_listing
from imbalance.errors import BadInput

# The folders of ImageNet, which contain train/<wnid>/ and val/<wnid>/.
LAYOUTS = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "imagenet_1k")
# For each subset its classes: (name, subclasses of train and of the "source" test images, subclasses of the "target" test
# images). A subclass is ImageNet's number of it: the rank of its wnid. They are the "rand" split of the published code.
SUBSETS: dict[str, tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]] = {
    "living17": (
        ("salamander", (27, 29), (26, 28)),
        ("turtle", (37, 34), (33, 35)),
        ("lizard", (41, 44), (47, 38)),
        ("snake", (60, 57), (65, 61)),
        ("spider", (76, 72), (74, 77)),
        ("grouse", (81, 83), (82, 80)),
        ("parrot", (88, 90), (87, 89)),
        ("crab", (118, 120), (119, 121)),
        ("dog", (163, 154), (257, 157)),
        ("wolf", (272, 271), (270, 269)),
        ("fox", (280, 279), (277, 278)),
        ("domestic cat", (282, 285), (283, 284)),
        ("bear", (297, 295), (296, 294)),
        ("beetle", (305, 306), (302, 303)),
        ("butterfly", (325, 321), (324, 322)),
        ("ape", (368, 365), (366, 367)),
        ("monkey", (377, 380), (381, 379)),
    ),
    "entity13": (
        ("garment", (869, 399, 578, 735, 652, 610, 501, 445, 655, 842), (617, 459, 601, 474, 697, 400, 411, 529, 841, 775)),
        ("bird", (87, 92, 91, 137, 14, 145, 129, 135, 85, 21), (83, 98, 146, 20, 99, 143, 132, 8, 90, 82)),
        ("reptile", (45, 42, 51, 47, 52, 63, 55, 35, 58, 33), (68, 34, 61, 57, 36, 37, 53, 62, 40, 46)),
        ("arthropod", (119, 72, 300, 75, 73, 317, 302, 120, 309, 313), (324, 321, 318, 69, 325, 316, 74, 304, 303, 308)),
        ("mammal", (284, 350, 292, 344, 174, 149, 375, 258, 283, 170), (212, 355, 387, 363, 384, 197, 254, 236, 180, 162)),
        ("accessory", (443, 552, 824, 728, 433, 514, 679, 518, 570, 638), (584, 879, 715, 658, 808, 793, 806, 770, 667, 591)),
        ("craft", (484, 814, 554, 914, 404, 510, 628, 871, 812, 403), (780, 576, 472, 913, 895, 417, 833, 724, 625, 405)),
        ("equipment", (890, 681, 430, 590, 872, 745, 422, 664, 522, 416), (482, 801, 602, 805, 752, 429, 613, 650, 848, 759)),
        ("furniture", (894, 861, 553, 669, 564, 431, 493, 559, 556, 789), (831, 857, 520, 765, 532, 703, 492, 904, 648, 423)),
        ("instrument", (881, 695, 626, 822, 704, 499, 845, 398, 778, 512), (641, 773, 635, 401, 530, 783, 473, 685, 687, 784)),
        ("man-made structure", (483, 442, 562, 727, 920, 460, 500, 663, 743, 900), (839, 912, 877, 858, 437, 919, 646, 489, 415, 540)),
        ("wheeled vehicle", (803, 867, 751, 791, 880, 670, 705, 654, 609, 757), (612, 575, 864, 407, 466, 555, 603, 829, 847, 661)),
        ("produce", (937, 987, 950, 943, 940, 942, 941, 938, 945, 952), (957, 947, 949, 951, 936, 948, 989, 998, 954, 944)),
    ),
    "entity30": (
        ("serpentes", (64, 56, 57, 52), (61, 55, 53, 62)),
        ("passerine", (11, 10, 20, 19), (18, 12, 14, 16)),
        ("saurian", (44, 45, 40, 46), (48, 47, 42, 38)),
        ("arachnid", (70, 73, 71, 75), (77, 72, 78, 76)),
        ("aquatic bird", (146, 140, 134, 127), (99, 142, 135, 97)),
        ("crustacean", (124, 123, 125, 118), (121, 119, 122, 120)),
        ("carnivore", (171, 359, 181, 253), (205, 175, 155, 195)),
        ("insect", (318, 308, 311, 325), (303, 317, 305, 321)),
        ("ungulate", (355, 353, 340, 345), (341, 344, 351, 343)),
        ("primate", (372, 379, 383, 367), (369, 384, 378, 371)),
        ("bony fish", (391, 0, 396, 392), (394, 397, 390, 395)),
        ("barrier", (460, 716, 877, 421), (489, 825, 525, 912)),
        ("building", (454, 483, 668, 467), (582, 865, 698, 437)),
        ("electronic equipment", (742, 707, 650, 508), (662, 482, 664, 528)),
        ("footwear", (502, 630, 638, 770), (774, 615, 514, 496)),
        ("garment", (400, 411, 655, 568), (608, 887, 775, 842)),
        ("headdress", (715, 584, 793, 452), (433, 515, 439, 518)),
        ("home appliance", (897, 651, 521, 882), (859, 550, 811, 534)),
        ("kitchen utensil", (647, 499, 505, 813), (567, 503, 868, 469)),
        ("measuring instrument", (531, 409, 704, 635), (426, 892, 604, 530)),
        ("motor vehicle", (627, 779, 665, 511), (867, 436, 734, 569)),
        ("musical instrument", (566, 641, 579, 881), (402, 687, 546, 889)),
        ("neckwear", (552, 678, 443, 906), (679, 824, 457, 451)),
        ("sports equipment", (795, 543, 522, 752), (768, 416, 602, 852)),
        ("tableware", (659, 899, 441, 898), (572, 907, 504, 923)),
        ("tool", (749, 507, 695, 783), (563, 784, 792, 862)),
        ("vessel", (510, 625, 403, 871), (628, 913, 484, 914)),
        ("dish", (964, 935, 963, 933), (965, 926, 962, 934)),
        ("vegetable", (939, 943, 942, 944), (938, 940, 941, 946)),
        ("fruit", (949, 953, 955, 948), (990, 987, 998, 988)),
    ),
    "nonliving26": (
        ("bag", (728, 748), (636, 414)),
        ("ball", (890, 747), (722, 805)),
        ("boat", (576, 871), (484, 472)),
        ("body armor", (465, 461), (490, 524)),
        ("bottle", (737, 440), (907, 898)),
        ("bus", (874, 654), (779, 757)),
        ("car", (751, 661), (734, 407)),
        ("chair", (559, 857), (765, 423)),
        ("coat", (617, 568), (614, 887)),
        ("digital computer", (620, 527), (681, 590)),
        ("dwelling", (698, 663), (660, 915)),
        ("fence", (912, 489), (825, 716)),
        ("hat", (439, 452), (808, 515)),
        ("keyboard instrument", (579, 687), (881, 401)),
        ("mercantile establishment", (467, 424), (788, 582)),
        ("outbuilding", (580, 410), (425, 449)),
        ("percussion instrument", (822, 642), (541, 577)),
        ("pot", (849, 544), (505, 469)),
        ("roof", (538, 884), (853, 858)),
        ("ship", (780, 724), (403, 628)),
        ("skirt", (601, 655), (689, 775)),
        ("stringed instrument", (546, 420), (889, 402)),
        ("timepiece", (531, 826), (704, 530)),
        ("truck", (555, 717), (866, 561)),
        ("wind instrument", (683, 776), (558, 432)),
        ("squash", (940, 941), (939, 942)),
    ),
}  # fmt: skip
# The numbers of train and val images; they are published for living17 alone.
TRAIN_COUNTS = {"living17": (39780, 4420)}
PER_CLASS = 50  # images of each class of ImageNet in its val folder


def list_breeds(
    data_dir: str,
    *,
    subset: Literal["living17", "entity13", "entity30", "nonliving26"],
    test: Literal["source", "target"],
    size: Natural,
    check_counts: bool,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the images of ImageNet in larger classes, such as "bear"; the groups are the classes.

    Val is a tenth of each class's training images, drawn as SubpopBench draws it. Test images are those of ImageNet's val
    folder.

    Args:
        subset: living17 (17 classes of four subclasses each), entity13, entity30 or nonliving26.
        test: "target" for test images of subclasses that are not in train, as in the tables of SubpopBench; "source" for
            test images of the same subclasses as train.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    classes = SUBSETS[subset]
    count = sum(len(target) for _, _, target in classes) * PER_CLASS
    names = tuple(name for name, _, _ in classes)
    about = PublishedSet("breeds", f"BREEDS ({subset})", names, (), (*TRAIN_COUNTS.get(subset, (None, None)), count))
    root = about.find(data_dir, LAYOUTS)
    wnids = imagenet_wnids(root, about.hint)
    in_train = {number: label for label, (_, source, _) in enumerate(classes) for number in source}
    in_test = {n: label for label, (_, *parts) in enumerate(classes) for n in parts[("source", "target").index(test)]}
    train = folder_images(root, [(f"train/{wnids[n]}", in_train[n], 0, 0) for n in sorted(in_train)])
    tests = folder_images(root, [(f"val/{wnids[n]}", in_test[n], 0, 2) for n in sorted(in_test)])
    images = train._replace(
        paths=[*train.paths, *tests.paths],
        targets=np.concatenate([train.targets, tests.targets]),
        attributes=np.concatenate([train.attributes, tests.attributes]),
        splits=np.concatenate([tenth(train.targets), tests.splits]),
        problems=[*train.problems, *tests.problems],
    )
    return published_listing(about, images, middle(size), check_counts, image_keys)


def imagenet_wnids(root: Path, hint: str) -> list[str]:
    """Return the names of the 1000 class folders of ImageNet in order; the rank of a name is the class's number.

    Args:
        root: the folder of ImageNet, which contains train/.
        hint: how to get ImageNet, as the end of a message.
    """
    train = root / "train"
    wnids = sorted(path.name for path in train.glob("n*"))
    if len(wnids) != 1000:
        raise BadInput(
            f"{train}: {len(wnids)} class folders n…, but ImageNet (ILSVRC 2012) has 1000, and their order numbers the classes; {hint}"
        )
    return wnids


def tenth(targets: np.ndarray) -> np.ndarray:
    """Return (N,) splits: 1 (val) for a tenth of each class, drawn with scikit-learn's seed 42 as in SubpopBench, else 0."""
    from sklearn.model_selection import train_test_split

    splits = np.zeros(len(targets), dtype=np.int64)
    if len(targets):  # otherwise every folder is missing, which is a problem of the listing
        splits[train_test_split(np.arange(len(targets)), test_size=0.1, random_state=42, stratify=targets)[1]] = 1
    return splits


breeds = image_dataset(list_breeds)

"""Data set Waterbirds: birds of CUB pasted on backgrounds of Places, 95 % of the training birds on their natural background.

Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020.
"""

from typing import Final

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Natural
from imbalance.data.files import find_path, read_csv
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.problems import Problem

# The folders of the unpacked archive, of group_DRO and code that follows it, and of WILDS.
LAYOUTS = tuple(
    f"{folder}/metadata.csv"
    for folder in (
        "waterbird_complete95_forest2water2",
        "cub/data/waterbird_complete95_forest2water2",
        "waterbirds_v1.0",
        "waterbirds",
    )
)
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
CLASSES = ("landbird", "waterbird")
GROUPS = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
# The numbers of examples of each group in train, val and test.
PUBLISHED: Final = ((3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642))
# The groups of train in a copy in circulation that was made with another seed
REGENERATED_TRAIN: Final = (3525, 186, 54, 1030)


def list_waterbirds(data_dir: str, *, size: Natural, regenerated: bool, **image_keys: Unpack[ImageKeys]) -> Listing:
    """List the published splits, and check their counts; the class is the bird, the group is bird × background.

    Args:
        size: the side in pixels of the square images: an image is resized to 8/7 of this side (256 for 224), and
            its middle is kept. 0 to resize and crop as the pretrained weights of config.model need.
        regenerated: False for the published data. True for data that somebody generated again, with other counts;
            results on such data cannot be compared with the literature.
        augment: published runs use flip and random_resized_crop, or nothing.
    """
    hint = "imbalance data download waterbirds downloads it"
    file = find_path(data_dir, LAYOUTS, "Waterbirds", hint)
    heading, rows, lines, problems = read_csv(file, COLUMNS)
    columns = {name: heading.index(name) for name in COLUMNS}
    good, labels = [], []
    for i, row in enumerate(rows):
        values = [row[columns[name]] for name in ("y", "place", "split")]
        wrong = [
            Problem(f"{file} line {lines[i]}", f"{name} is {value!r}, not one of {', '.join(valid)}")
            for name, value, valid in zip(("y", "place", "split"), values, ("01", "01", "012"))
            if value not in tuple(valid)
        ]
        problems += wrong
        if not wrong:
            good.append(i)
            labels.append([int(value) for value in values])
    birds, places, splits = np.array(labels, dtype=np.int64).reshape(-1, 3).T
    groups = 2 * birds + places
    if not problems:
        problems += count_problems(str(file), groups, splits, regenerated)
    return Listing(
        "waterbirds",
        file,
        file.parent,
        Recipe("RGB", (("square", round(size * 8 / 7)), ("crop", size))),
        [rows[i][columns["img_filename"]] for i in good],
        np.array(lines)[good],
        birds,
        groups,
        splits,
        np.array(good, dtype=np.int64),
        CLASSES,
        GROUPS,
        problems,
        **image_keys,
    )


waterbirds = image_dataset(list_waterbirds)


def count_problems(where: str, groups: np.ndarray, splits: np.ndarray, regenerated: bool) -> list[Problem]:
    """Return a problem if `config.data.regenerated` is wrong: False is for the published counts, True for other counts.

    Args:
        where: the metadata file, for the message.
        regenerated: `config.data.regenerated`.
    """
    counts = tuple(tuple(np.bincount(groups[splits == split], minlength=4).tolist()) for split in range(3))
    if counts == PUBLISHED:
        if regenerated:
            return [Problem(where, "this is the published Waterbirds; set config.data.regenerated=False")]
        return []
    if regenerated:
        return []
    known = " (a copy in circulation, regenerated with another seed)" if counts[0] == REGENERATED_TRAIN else ""
    cause = (
        f"not the published Waterbirds: train, val and test have {counts} examples of the groups, not {PUBLISHED}"
        f"{known}; set config.data.regenerated=True to use it all the same"
    )
    return [Problem(where, cause)]

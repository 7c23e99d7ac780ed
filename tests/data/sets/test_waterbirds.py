"""Waterbirds: every layout, the published counts, and one line for whatever is wrong with its file."""

import numpy as np
import pytest
import torch
from helpers.data_files import make_waterbirds

from imbalance.data.sets.waterbirds import GROUPS, PUBLISHED, REGENERATED_TRAIN, list_waterbirds, waterbirds
from imbalance.errors import BadInput


def counts(listing) -> list[list[int]]:
    groups = len(listing.group_names)
    return [np.bincount(listing.groups[listing.splits == split], minlength=groups).tolist() for split in range(3)]


@pytest.mark.parametrize(
    "layout",
    [
        "cub/data/waterbird_complete95_forest2water2",
        "waterbirds_v1.0",
        "waterbirds",
        "waterbird_complete95_forest2water2",
    ],
)
def test_waterbirds_has_the_published_counts_in_every_layout(tmp_path, layout):
    make_waterbirds(tmp_path, layout)
    listing = list_waterbirds(str(tmp_path), size=16, regenerated=False, images_from="store", augment=())
    assert listing.problems == listing.split_problems() == []
    assert counts(listing) == [list(of_split) for of_split in PUBLISHED]
    assert listing.group_names == GROUPS
    assert (listing.groups // 2 == listing.targets).all()
    assert listing.where(0) == f"{tmp_path / layout / 'metadata.csv'} line 2"


def test_waterbirds_trains_from_its_store(tmp_path):
    make_waterbirds(tmp_path, counts=((4, 2, 2, 4), (2, 2, 2, 2), (2, 2, 2, 2)), images=True)
    dataset = waterbirds(str(tmp_path), size=16, regenerated=True, images_from="store", augment=("flip",))
    assert dataset.group_counts(dataset.train).tolist() == [4, 2, 2, 4]
    assert dataset.input_shape == (3, 16, 16) and len(dataset.test) == 8
    assert dataset.train.inputs[torch.tensor([0, 11])].shape == (2, 3, 16, 16)
    assert dataset.augmentations == ("flip",)
    assert dataset.test.indices.tolist() == list(range(20, 28))


def test_a_regenerated_waterbirds_is_named_and_taken_only_if_the_config_says_so(tmp_path):
    make_waterbirds(tmp_path, counts=(REGENERATED_TRAIN, *PUBLISHED[1:]))
    (problem,) = map(
        str, list_waterbirds(str(tmp_path), size=16, regenerated=False, images_from="store", augment=()).problems
    )
    assert "regenerated with another seed" in problem and "config.data.regenerated=True" in problem
    assert list_waterbirds(str(tmp_path), size=16, regenerated=True, images_from="store", augment=()).problems == []


def test_the_published_waterbirds_is_not_called_regenerated(tmp_path):
    make_waterbirds(tmp_path)
    (problem,) = map(
        str, list_waterbirds(str(tmp_path), size=16, regenerated=True, images_from="store", augment=()).problems
    )
    assert "set config.data.regenerated=False" in problem


@pytest.mark.parametrize("split", range(3))
def test_waterbirds_with_any_group_exchanged_is_refused(tmp_path, split):
    file = make_waterbirds(tmp_path)
    text = file.read_text()
    file.write_text(text.replace(f",0,{split},0,", f",0,{split},1,", 1))
    with pytest.raises(BadInput, match="not the published Waterbirds"):
        waterbirds(str(tmp_path), size=16, regenerated=False, images_from="store", augment=())


def test_waterbirds_names_every_bad_line(tmp_path):
    file = make_waterbirds(tmp_path)
    lines = file.read_text().splitlines()
    lines[3], lines[5], lines[8] = lines[3] + ",x", lines[5].replace(",0,0,0,", ",2,0,0,"), "9,cut"
    file.write_text("\n".join(lines))
    problems = list_waterbirds(str(tmp_path), size=16, regenerated=False, images_from="store", augment=()).problems
    assert list(map(str, problems)) == [
        f"{file} line 4: 7 fields, but the heading has 6; each line needs as many",
        f"{file} line 9: 2 fields, but the heading has 6; each line needs as many",
        f"{file} line 6: y is '2', not one of 0, 1",
    ]


def test_no_waterbirds_says_where_it_should_be(tmp_path):
    with pytest.raises(
        BadInput, match=r"^config.data_dir: Waterbirds is not in .*waterbirds_v1.0/metadata.csv.*download"
    ):
        list_waterbirds(str(tmp_path), size=16, regenerated=False, images_from="store", augment=())

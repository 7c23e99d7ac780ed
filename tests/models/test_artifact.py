"""A model.json must be one that can describe a model."""

from pathlib import Path

import pytest

from imbalance.errors import BadInput, Damaged
from imbalance.models.artifact import FORMAT, check_description

ABOUT = dict(
    format=FORMAT, model={"name": "linear"}, dtype="float32", input_shape=[4], uint8=False, mean=[0, 0.5], std=[1, 2.0],
    classes=["cat", "dog"], preprocessing={},
)  # fmt: skip
OPTIONAL = dict(head={"name": "none"}, vocabulary=30, weights="sha256")


def test_a_description_may_lack_what_only_some_models_have():
    for about in (ABOUT, ABOUT | OPTIONAL, *(ABOUT | {key: value} for key, value in OPTIONAL.items())):
        check_description(about, Path("model.json"))


@pytest.mark.parametrize("key", [*ABOUT, *OPTIONAL])
def test_a_value_of_another_type_is_damage(key):
    with pytest.raises(BadInput if key == "format" else Damaged, match="format|the value of"):
        check_description(ABOUT | OPTIONAL | {key: 1.5}, Path("model.json"))

"""Configs and keys of older versions are answered with the words of this version, or translated."""

import pytest
from conftest import ROOT

from imbalance.config.experiment import validate
from imbalance.config.resolve import load, override, upgrade_saved_config
from imbalance.errors import BadInput


def test_the_old_key_of_groups_is_answered_by_the_new_one():
    """Groups used to be named whole, with or without the target; now they are the attributes crossed with the target."""
    config = load(ROOT / "configs" / "arrays_erm.py")
    with pytest.raises(BadInput, match="config.data.groups: .* it is config.data.attributes now"):
        override(config, {"data.groups": ("sex", "target")})
    with config.unlocked():
        del config.data.attributes
        config.data.groups = ("sex",)
    with pytest.raises(BadInput, match="config.data.groups: .* it is config.data.attributes now"):
        validate(config)


@pytest.mark.parametrize(
    ("groups", "attributes"), [([], []), (["target"], []), (["target", "sex"], ["sex"]), (["sex", "target"], None), (["sex"], None)]
)  # fmt: skip
def test_the_groups_of_an_old_config_are_translated_if_they_stay_the_same(groups, attributes):
    saved = load(ROOT / "configs" / "arrays_erm.py").to_dict()
    del saved["data"]["attributes"]
    saved["data"]["groups"] = groups
    data = upgrade_saved_config(saved)["data"]
    assert data.get("attributes") == attributes
    assert ("groups" in data) == (attributes is None)

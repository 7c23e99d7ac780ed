"""The features of a run that is done, as the start of another."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from imbalance.config.registries import registries
from imbalance.config.schema import Name, build
from imbalance.config.user_modules import user_module_file
from imbalance.errors import BadInput
from imbalance.models.artifact import read
from imbalance.models.small import CosineLinear, Head


def pretrained(
    input_shape: Sequence[int], vocabulary: int, num_classes: int, head: Head = nn.Linear, *, pretrained: Name
) -> nn.Sequential:
    """The network of a run that is done, of whatever model, with its features and a new last layer.

    Args:
        pretrained: the run directory. It is read when a run begins; model.json then says what network it was.
    """
    about, state = read(Path(pretrained))
    section = dict(about["model"])
    if user_module_file(section["name"]):
        raise BadInput(
            f"config.model.pretrained: the model of {pretrained} is of a module of one's own; name it in "
            "config.model.name, and let its function load the weights"
        )
    if vocabulary != about.get("vocabulary", 0):
        raise BadInput(
            f"config.model.pretrained: {pretrained} was trained on {about.get('vocabulary', 0):,} tokens; this data set has "
            f"{vocabulary:,}"
        )
    if list(input_shape) != list(about["input_shape"]):
        raise BadInput(
            f"config.model.pretrained: {pretrained} was trained on inputs {tuple(about['input_shape'])}; this data set "
            f"has {tuple(input_shape)}"
        )
    section["name"] = section["name"].removesuffix("_cosine") + ("_cosine" if head is CosineLinear else "")
    blank = {"pretrained": ""} if "pretrained" in section else {}
    shape = dict(input_shape=input_shape, vocabulary=vocabulary, num_classes=num_classes)
    network = build(registries()["model"], section | blank, **shape)
    features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    try:
        network.features.load_state_dict(features)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"config.model.pretrained: {pretrained}: the weights are not of model.json ({reason})") from None
    network.features.section = section  # for model.json: a run is loaded where the one before it is gone
    return network

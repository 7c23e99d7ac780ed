"""The features of a finished run as the start of another run."""

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
    """Build the network of a finished run, of any model, with its features and a new last layer.

    Args:
        pretrained: the run directory. It is read when a run begins; model.json then describes the network.
    """
    about, state = read(Path(pretrained))
    section = dict(about["model"])
    if user_module_file(section["name"]):
        raise BadInput(
            f"config.model.pretrained: the model of {pretrained} is a function in a file of your own; give that file in "
            "config.model.name, and let the function load the weights"
        )
    if vocabulary != about.get("vocabulary", 0):
        raise BadInput(
            f"config.model.pretrained: {pretrained} was trained on {about.get('vocabulary', 0):,} tokens; this data set "
            f"has {vocabulary:,}; give a run on data with the same tokens"
        )
    if list(input_shape) != list(about["input_shape"]):
        raise BadInput(
            f"config.model.pretrained: {pretrained} was trained on inputs {tuple(about['input_shape'])}; this data set "
            f"has {tuple(input_shape)}; give a run on inputs of this shape"
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
        raise BadInput(f"config.model.pretrained: {pretrained}: the weights do not fit model.json ({reason})") from None
    network.features.section = section  # a run must load without the run that it began with
    return network

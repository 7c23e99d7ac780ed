"""The model "pretrained": the network of a finished run, with its trained features and a new last layer."""

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
    """Build the network of a finished run, with its trained features and a new last layer.

    Args:
        pretrained: the directory of the finished run. It is needed only when the new run begins: the new run describes
            the network in its own model.json.
    """
    about, state = read(Path(pretrained))
    section = dict(about["model"])
    if user_module_file(section["name"]):
        raise BadInput(
            f"config.model.pretrained: {pretrained} given; the model of this run is your own function, so its weights cannot be "
            "loaded here; name the function in config.model.name, and load the weights there"
        )
    if vocabulary != about.get("vocabulary", 0):
        raise BadInput(
            f"config.model.pretrained: {pretrained} was trained with a vocabulary of {about.get('vocabulary', 0):,} tokens; "
            f"that of this data set has {vocabulary:,}; give a run with the tokenizer of this data set"
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
        raise BadInput(
            f"config.model.pretrained: {pretrained}: its weights do not fit its model.json ({reason}); give another run"
        ) from None
    network.features.section = section  # the new run must load without the finished run, which may be gone
    return network

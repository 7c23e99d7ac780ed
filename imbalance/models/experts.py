"""The model "experts": several copies of a network, which share their first layers and whose logits are averaged."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from imbalance.config.registries import registries
from imbalance.config.schema import Count, Natural, build, check_call, look_up
from imbalance.config.tags import tagged, tags_of
from imbalance.data.images.decode import Preparation
from imbalance.errors import BadInput
from imbalance.methods.margins import at_least_float32
from imbalance.models.small import Classifier, CosineLinear, Head


class ExpertFeatures(nn.Module):
    """The layers of E experts before the last layer: shared layers, followed by a branch for each expert.

    `forward` returns the (B, E · D) features of all experts, divided by E. So the mean of the experts' logits is one linear
    layer of these features, and every method that replaces the last layer works on experts, too.

    section: the section `config.model` to save in model.json; it builds the same network without loading pretrained weights.
    """

    section: dict[str, Any]

    def __init__(self, shared: nn.Module, branches: Sequence[nn.Module], section: dict[str, Any]):
        super().__init__()
        self.shared, self.branches, self.section = shared, nn.ModuleList(branches), section

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.shared(inputs)
        return torch.cat([branch(hidden).flatten(1) for branch in self.branches], dim=1) / len(self.branches)


class ExpertLinear(nn.Linear):
    """A linear last layer of the features of E experts; heads read E in `experts`."""

    def __init__(self, experts: int, in_features: int, out_features: int):
        super().__init__(experts * in_features, out_features)
        self.experts = experts


class ExpertCosine(CosineLinear):
    """A last layer whose logits are means over experts of the cosine between an expert's features and weight vector."""

    def __init__(self, experts: int, in_features: int, out_features: int):
        self.experts = experts
        super().__init__(experts * in_features, out_features)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, weight = (
                normalize(at_least_float32(values).unflatten(1, (self.experts, -1)), dim=2).flatten(1)
                for values in (features, self.weight)
            )
            return linear(features, weight) / self.experts


def network_preparation(section: Mapping[str, Any]) -> Preparation | None:
    """Return the image preprocessing of the pretrained weights of `section.network`; None without such weights."""
    preparation = tags_of(look_up(registries()["model"], section["network"]["name"])).preparation
    return preparation(section["network"]) if preparation else None


@tagged(preparation=network_preparation)
def experts(
    input_shape: Sequence[int],
    num_classes: int,
    head: Head = nn.Linear,
    *,
    network: Mapping[str, Any],
    experts: Count,
    shared: Natural,
) -> nn.Sequential:
    """Build several copies of a network, which share their first layers, and whose logits are averaged.

    RIDE and SADE train such a model; see `imbalance.methods.objectives.experts`. The experts share the bias of the last
    layer. Experts have the width of the network; in the authors' code they are narrower.

    Args:
        network: the section of the network, such as dict(name="resnet32", frozen=False). It must take images or numbers.
        experts: the number of experts; 3 in the papers.
        shared: the number of first layers of the network that all experts share. For "resnet32", 13 layers make the first
            two of its three stages, which the experts of the papers share. 0 shares no layer.
    """
    models, section = registries()["model"], dict(network)
    check_call("model.network", section, models)
    copies = [
        cast(Classifier, build(models, section, input_shape=input_shape, num_classes=num_classes, architecture=None))
        for _ in range(experts)
    ]
    layers = [list(copy.features) if isinstance(copy.features, nn.Sequential) else [copy.features] for copy in copies]
    if shared >= len(layers[0]):
        raise BadInput(
            f"config.model.shared: {shared} given; it must be less than {len(layers[0])}, the number of layers before the last "
            f"layer of config.model.network.name={section['name']!r}"
        )
    width = copies[0].head.in_features
    blank = {"pretrained": ""} if "pretrained" in section else {}
    about = dict(
        name="experts_cosine" if head is CosineLinear else "experts",
        network=section | blank,
        experts=experts,
        shared=shared,
    )
    branches = [nn.Sequential(*own[shared:]) for own in layers]
    features = ExpertFeatures(nn.Sequential(*layers[0][:shared]), branches, about)
    if head is CosineLinear:
        return Classifier(OrderedDict(features=features, head=ExpertCosine(experts, width, num_classes)))
    last = ExpertLinear(experts, width, num_classes)
    with torch.no_grad():  # as wide a range as one expert's own layer starts in
        last.weight.copy_(torch.cat([copy.head.weight for copy in copies], dim=1))
        last.bias.copy_(torch.stack([copy.head.bias for copy in copies]).mean(0))
    return Classifier(OrderedDict(features=features, head=last))

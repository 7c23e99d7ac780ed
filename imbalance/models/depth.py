"""Depth: the number of layers above each parameter of a network, for learning rates that shrink with depth."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from torch import nn

HEAD = "head"  # name of the last layer, which no parameter of timm's features has


def layers_above(model: nn.Module) -> dict[nn.Parameter, int]:
    """Return, for each parameter of `model`, the number of layers above its layer; 0 for the head, which is the last layer.

    The networks of timm define their layers themselves. In any other network, the layers are the embedding or stem (all
    parameters before the first block), then each block (see `blocks`), then the head. A parameter after a block, such as
    that of a last normalisation, belongs to the layer of this block, as in timm. If a method trains two networks, each
    has its own layers. A parameter of another part, such as a projection, counts as one of the head.
    """
    features = model.get_submodule("features")
    above = dict.fromkeys(model.parameters(), 0)
    for network in (model, *(part for part in model.children() if part is not features and hasattr(part, "features"))):
        above |= features_below_head(network.get_submodule("features"))
    return above


def features_below_head(features: nn.Module) -> dict[nn.Parameter, int]:
    """Return, for each parameter of `features`, the number of layers above its layer, including the head."""
    named = dict(features.named_parameters())
    depths: dict[str, int]
    if hasattr(features, "group_matcher"):
        from timm.models import group_parameters

        # timm puts what its matcher does not name into the layer of the head, so name a head to find this layer.
        with_head: Any = SimpleNamespace(named_parameters=lambda: [*named.items(), (HEAD, None)])
        depths = cast(Any, group_parameters(with_head, cast(Any, features).group_matcher(coarse=False), reverse=True))
    else:
        blocks_of_names, depths, depth = dict(_names_in_blocks(features)), {}, 0
        for name in named:
            depth = max(depth, blocks_of_names.get(name, 0))
            depths[name] = depth
        depths[HEAD] = 1 + max(depths.values(), default=0)
    top = depths[HEAD]
    return {parameter: top - depths[name] for name, parameter in named.items()}


def _names_in_blocks(features: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the name of each parameter that is in a block, and the number of the block, counted from 1."""
    number_of = {
        parameter: number for number, block in enumerate(blocks(features), 1) for parameter in block.parameters()
    }
    yield from ((name, number_of[p]) for name, p in features.named_parameters() if p in number_of)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model: each member of an `nn.Sequential` or `nn.ModuleList` in it that has parameters.

    A member that is itself a sequence, such as a stage of a ResNet, is not a block; its members are. A module of a
    subclass is no sequence here. So `features` and `head` of a network are no blocks. If they were, FSDP would gather
    `features` as a whole, and an objective that reads the weights of `head` would get sharded
    weights.
    """
    if is_sequence(model):
        members = [child for child in model.children() if any(True for _ in child.parameters())]
        nested = [blocks(child) if is_sequence(child) else [child] for child in members]
    else:
        nested = [blocks(child) for child in model.children()]
    return [block for inner in nested for block in inner]


def is_sequence(module: nn.Module) -> bool:
    """Return whether the type of a module is `nn.Sequential` or `nn.ModuleList` itself, not a subclass."""
    return type(module) in (nn.Sequential, nn.ModuleList)

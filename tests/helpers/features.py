"""Data sets of random features with classes and groups, for tests of heads."""

from collections.abc import Iterable, Sequence

import torch

from imbalance.data import Dataset, Split


def split(counts: Sequence[int], seed: int, shift: float = 0.0) -> Split:
    """Return a split with six features: the class with noise, the attribute with little noise, and four of noise alone.

    A group is 2 · class + attribute.

    Args:
        counts: the number of examples of each group.
        shift: a number that is added to the feature of the attribute.
    """
    random = torch.Generator().manual_seed(seed)
    groups = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    inputs = torch.randn(len(groups), 6, generator=random)
    inputs[:, 0] += 4.0 * (groups // 2)
    inputs[:, 1] = 0.3 * inputs[:, 1] + 3.0 * (groups % 2) + shift
    return Split(inputs, groups // 2, groups, torch.arange(len(groups)))


def dataset(train=(300, 15, 15, 100), val=(60, 60, 40, 40), num_classes: int = 2) -> Dataset:
    """Return a data set whose attribute is correlated with the class in train, and less so in val and test.

    Args:
        train, val: the number of examples of each group.
    """
    names = tuple("abcdef"[: len(train)])
    return Dataset(split(train, 0), split(val, 1), split((200,) * len(train), 2), names[:num_classes], names)


def worst_group(layer: Iterable[torch.Tensor], part: Split) -> float:
    """Return the accuracy of a linear layer in the group of a split where it is lowest.

    Args:
        layer: weight (K, D) and bias (K,).
    """
    weight, bias = (tensor.detach().double() for tensor in layer)
    right = (part.inputs.double() @ weight.T + bias).argmax(1) == part.targets
    return min(right[part.groups == group].double().mean().item() for group in part.groups.unique())

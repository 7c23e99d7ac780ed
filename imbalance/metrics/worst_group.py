"""Accuracy of the worst group, accumulated over batches; a `torchmetrics.Metric` if torchmetrics is installed."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imbalance.errors import BadInput
from imbalance.metrics.class_and_group import count_right
from imbalance.utils.torchvision_import import import_torchvision


class Accumulator(nn.Module):
    """The part of `torchmetrics.Metric` that `WorstGroupAccuracy` needs, for use without torchmetrics."""

    def __init__(self) -> None:
        super().__init__()
        self._initial: dict[str, Tensor] = {}

    def add_state(self, name: str, default: Tensor, dist_reduce_fx: str) -> None:
        """Register a tensor that `reset` sets back to `default`; torchmetrics also sums it over processes."""
        self._initial[name] = default.clone()
        self.register_buffer(name, default, persistent=False)

    def reset(self) -> None:
        """Forget all batches."""
        for name, default in self._initial.items():
            setattr(self, name, default.to(getattr(self, name).device, copy=True))

    def forward(self, *arguments: Tensor) -> Tensor:
        """Add a batch, and return the metric of this batch alone."""
        before = {name: getattr(self, name) for name in self._initial}
        self.reset()
        self.update(*arguments)
        value = self.compute()
        for name, sums in before.items():
            setattr(self, name, sums + getattr(self, name))
        return value

    def update(self, *arguments: Tensor) -> None:
        """Add a batch."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """Return the metric of all batches since the last reset."""
        raise NotImplementedError


Base = Accumulator
if not TYPE_CHECKING and find_spec("torchmetrics"):
    if find_spec("torchvision"):
        import_torchvision()  # torchmetrics imports it too, which fails beside a CPU-only torch
    from torchmetrics import Metric as Base


class WorstGroupAccuracy(Base):
    """The smallest accuracy of a group over all batches since the last reset; groups without examples are left out.

    If torchmetrics is installed, this is a `torchmetrics.Metric`, which sums over processes and which Lightning logs.
    Call `update` with each batch, then `compute`, then `reset`.

    Args:
        num_groups: the number of groups; groups are numbered from 0.
        kwargs: arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, num_groups: int, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(num_groups, int) or num_groups < 1:
            raise BadInput(f"WorstGroupAccuracy: num_groups={num_groups} given; it must be an integer, at least 1")
        self.num_groups = num_groups
        self.add_state("counts", default=torch.zeros(num_groups, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, groups: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B,) predicted classes, or (B, K) logits or probabilities; an example with nan counts as wrong.
            target, groups: (B,) class and group of each example.

        Raises:
            BadInput: the shapes differ, or a group is not one of 0 to `num_groups` − 1. On a GPU the groups are not
                compared, because the host would wait for them.
        """
        if preds.ndim == 1 and preds.is_floating_point():
            raise BadInput(
                "WorstGroupAccuracy: preds are one number with a fraction for each example; pass predicted classes, or (B, K) "
                "logits or probabilities"
            )
        if groups.is_floating_point():
            raise BadInput(f"WorstGroupAccuracy: groups of type {groups.dtype} given; integers are needed")
        # nan would be the largest logit, so an example with nan counts as wrong
        predicted = preds.argmax(1).masked_fill(preds.isnan().any(1), -1) if preds.ndim == 2 else preds
        if not predicted.shape == target.shape == groups.shape:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (preds, target, groups))
            raise BadInput(
                f"WorstGroupAccuracy: preds, target, groups of shapes {shapes} given; all need one value for each example"
            )
        if groups.device.type == "cpu" and groups.numel() and not 0 <= groups.min() <= groups.max() < self.num_groups:
            raise BadInput(
                f"WorstGroupAccuracy: groups from {groups.min()} to {groups.max()} given; they must be 0 to {self.num_groups - 1}"
            )
        self.counts = self.counts + count_right(predicted == target, groups, self.num_groups)

    def compute(self) -> Tensor:
        """Return the smallest accuracy of a group as a scalar; nan without examples."""
        totals = self.counts.sum(1)
        accuracies = (self.counts[:, 1] / totals)[totals > 0]
        return accuracies.min() if len(accuracies) else torch.tensor(torch.nan, device=totals.device)

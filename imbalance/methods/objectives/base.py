"""Objectives: the interface between a method and the training loop, and what several objectives share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from imbalance.config.schema import Natural, NonNegative
from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.attributes import count_attributes
from imbalance.methods.batch import Batch, Inputs, Loss

Environments = Literal["group", "attribute"]
ENVIRONMENTS_BY_ATTRIBUTE = "config.objective.environments: 'attribute'"


class Objective(nn.Module):
    """A method: it builds the model, computes tensors with a row for each example, and reduces these tensors to the objective.

    The loop calls `network` once, `terms` on each micro-batch of each process, and `value` on the terms of the whole
    batch.

    columns: the names of the values that `forward` takes as keyword arguments: keys of the result of `terms`, or
        `targets`, `rows` and `epoch` of the batch. The base class's `terms` computes two further tensors if `columns` names
        them: `features` (B, D), the inputs of the last layer, and `slopes` (B,), the derivative dℓ(s·z)/ds of each loss
        ℓ at s = 1.
    views: the number of independent augmentations of each example that `terms` reads from `batch.views`.
    num_groups: the number of groups if `forward` reads them, else 0.
    """

    tags = Tags(batched=True)
    columns: tuple[str, ...] = ()
    views: int = 1
    num_groups: int = 0

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Build the model to train.

        Args:
            make: builds the model of `config.model`; every call builds a new one.
        """
        return with_features(make()) if "features" in self.columns else make()

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """Compute tensors with one row for each example, by name: `losses`, `logits`, and those that `columns` names.

        No row may depend on another example, because micro-batches and processes compute their rows separately. Put
        comparisons of examples into `forward`.
        """
        outputs = model(batch.inputs)
        logits, features = outputs if "features" in self.columns else (outputs, None)
        terms = {"losses": batch.losses(loss, logits), "logits": logits}
        if features is not None:
            terms["features"] = features
        if "slopes" in self.columns:
            terms["slopes"] = slopes(lambda logits: batch.losses(loss, logits), logits)
        return terms

    def value(self, terms: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the scalar to minimise: call `forward` with the terms of the whole batch that `columns` names."""
        columns = {name: terms[name] if name in terms else getattr(batch, name) for name in self.columns}
        check_rows(terms["losses"], batch.weights, batch.groups, columns)
        return super().__call__(terms["losses"], batch.weights, batch.groups, **columns)  # a run's groups are checked

    def __call__(self, losses: Tensor, weights: Tensor, groups: Tensor | None = None, **columns: Tensor) -> Tensor:
        """Check that there is one loss, one weight and one group for each example, and call `forward`.

        On a GPU the values of the groups are not checked, because the host would wait for them.

        Raises:
            BadInput: the shapes differ (torch would repeat weights (B, 1) for all losses), or there is no such group.
        """
        check_rows(losses, weights, groups, columns)
        if self.num_groups and groups is not None and groups.device.type == "cpu":
            if groups.dtype not in (torch.int32, torch.int64):
                raise BadInput(f"groups: a tensor of {str(groups.dtype)[6:]} given; int64 is needed")
            if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < self.num_groups:
                low, high = int(groups.min()), int(groups.max())
                raise BadInput(f"groups: labels from {low} to {high} given; they must be 0 to {self.num_groups - 1}")
        return super().__call__(losses, weights, groups, **columns)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, **columns: Tensor) -> Tensor:
        """Return the scalar to minimise.

        Args:
            losses, weights, groups: (B,) each, for the whole batch, gathered from all processes.
            columns: the tensors that the class attribute `columns` names.
        """
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """Return metrics of the objective's state, such as "train/flip_rate".

        The keys are the names that the objective lists in `tags.measures`.
        """
        return {}

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Return further outputs of the selected model by name, each with B rows; they are saved next to the logits.

        A two-stage method reads these outputs of its first run in `FirstRun.predictions`.
        """
        return {}


def check_rows(losses: Tensor, weights: Tensor, groups: Tensor | None, columns: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless losses, weights and groups are (B,), and every tensor in `columns` has B rows.

    torch would repeat weights (B, 1), or a column with a single row, for all losses.
    """
    if losses.ndim != 1 or losses.shape != weights.shape or (groups is not None and groups.shape != losses.shape):
        shapes = ", ".join(str(tuple(values.shape)) for values in (losses, weights, groups) if values is not None)
        raise BadInput(f"objective: losses, weights and groups of shapes {shapes} given; each must be (B,)")
    for name, values in columns.items():
        if isinstance(values, Tensor) and values.ndim and len(values) != len(losses):
            raise BadInput(f"{name}: a tensor of shape {tuple(values.shape)} given; it must have {len(losses)} rows")


def check_vectors(count: int, **vectors: Tensor) -> None:
    """Raise `BadInput` unless each of the `vectors` has the shape (`count`,); torch would repeat one of the shape (B, 1)."""
    for name, values in vectors.items():
        if values.shape != (count,):
            raise BadInput(f"{name}: a tensor of shape {tuple(values.shape)} given; it must have the shape ({count},)")


class EnvironmentPenalty(Objective):
    """Base class of objectives whose penalty compares environments, with another factor in the first steps.

    Args:
        environments: "group" if each group is an environment, "attribute" if each attribute is one.
        penalty: the factor of the penalty after these first steps.
        warmup_steps: the number of steps at the start of training; the subclass chooses the factor for them.
    """

    tags = Tags(batched=False)  # the objective counts steps, so it cannot be stacked
    steps: Tensor

    def __init__(
        self,
        num_classes: int,
        num_groups: int,
        *,
        environments: Environments,
        penalty: NonNegative,
        warmup_steps: Natural,
    ):
        super().__init__()
        self.count, self.num_groups = count_environments(environments, num_classes, num_groups), num_groups
        self.penalty, self.warmup_steps = penalty, warmup_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def warms_up(self) -> Tensor:
        """Return whether the current step is one of the first `warmup_steps`.

        In training mode each call counts as a step.
        """
        early = self.steps < self.warmup_steps
        if self.training:
            self.steps += 1
        return early


class FunctionObjective(Objective):
    """Objective that calls a function or module with losses, weights and groups."""

    tags = Tags()

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        return self.function(losses, weights, groups)


def as_objective(function: Callable[..., Tensor]) -> Objective:
    """Return `function` if it is an `Objective`, else an objective that calls it."""
    return function if isinstance(function, Objective) else FunctionObjective(function)


class WithFeatures(nn.Sequential):
    """Model that returns logits and features in training mode, and logits alone in evaluation mode."""

    features: nn.Module
    head: nn.Module

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        features = self.features(inputs)
        logits = self.head(features)
        return (logits, features.flatten(1)) if self.training else logits


def with_features(model: nn.Module) -> nn.Module:
    """Return a `WithFeatures` that shares the `features` and `head` of `model`; parameters keep their names."""
    return WithFeatures(OrderedDict(features=features_of(model), head=head_of(model)))


def features_of(model: nn.Module) -> nn.Module:
    """Return the layers of `model` before its last layer."""
    return cast(nn.Module, model.features)  # a submodule, which torch types as a tensor or a module


def head_of(model: nn.Module) -> nn.Linear:
    """Return the last layer of `model`."""
    return cast(nn.Linear, model.head)  # a submodule, which torch types as a tensor or a module


class Pair(nn.Sequential):
    """Two networks that are trained together, of which only the first is evaluated.

    In training mode `forward` returns the logits of both networks, in evaluation mode those of the first. The second
    network is a submodule under the name of its keyword argument: `Pair(make(), biased=make())`.
    """

    features: nn.Module
    head: nn.Module

    def __init__(self, evaluated: nn.Module, **second: nn.Module):
        super().__init__(OrderedDict(features=features_of(evaluated), head=head_of(evaluated), **second))

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.head(self.features(inputs))
        return (logits, self[2](inputs)) if self.training else logits


def slopes(losses: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Return the (B,) slopes dℓ(s·z)/ds at s = 1, which are ⟨∂ℓ/∂z, z⟩; the result is differentiable.

    Args:
        losses: the function ℓ from (B, K) logits to (B,) losses.
        logits: (B, K), z.
    """
    return (torch.func.grad(lambda logits: losses(logits).sum())(logits) * logits).sum(1)


def group_means(losses: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return the (G,) mean losses of the groups, and (G,) booleans that are true for groups with examples.

    The mean of a group without examples is 0.
    """
    zeros = losses.new_zeros(num_groups)
    counts = zeros.index_add(0, groups, torch.ones_like(losses))  # on a GPU `bincount` would wait for the result
    sums = zeros.index_add(0, groups, losses)
    return sums / counts.clamp(min=1), counts > 0


def count_environments(environments: Environments, num_classes: int, num_groups: int) -> int:
    """Return the number E of environments; an example of group g is in environment g mod E.

    With "group" E is the number of groups. With "attribute" it is the number of attributes, because the group of an
    example is class · (number of attributes) + attribute.

    Raises:
        BadInput: `environments` is "attribute", and the groups are not the combinations of a class and an attribute.
    """
    if environments == "group":
        return num_groups
    return count_attributes(ENVIRONMENTS_BY_ATTRIBUTE, num_classes, num_groups, "use 'group'")

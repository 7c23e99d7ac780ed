"""Interface between a method and the training loop."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Inputs, Loss

Environments = Literal["group", "attribute"]


class Objective(nn.Module):
    """A method: a model to train, columns with a row for each example, and a scalar to minimise.

    columns: the keyword arguments of `forward`: names of columns of `terms`, or `targets` and `rows` of the batch.
        Every objective can ask for `features` (B, D), the inputs of the last layer. It can also ask for `slopes` (B,),
        the derivative of each loss by a factor on the logits, at factor 1.
    views: the number of independently augmented inputs of each example that `terms` reads from `batch.views`.
    """

    tags = Tags(batched=True)
    columns: tuple[str, ...] = ()
    views: int = 1

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Build the model to train; `make` builds the model of the config."""
        return with_features(make()) if "features" in self.columns else make()

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """Compute the columns of a batch, with one row for each example; `losses` and `logits` are always among them.

        No row may depend on another example, because micro-batches and processes compute their rows separately. Compare
        examples in `forward`.
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
        """Call `forward` with the columns that it asks for."""
        columns = {name: terms[name] if name in terms else getattr(batch, name) for name in self.columns}
        return self(terms["losses"], batch.weights, batch.groups, **columns)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor, **columns: Tensor) -> Tensor:
        """Return the scalar to minimise, of all examples of the batch."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """Return figures about the state of the method, by the names in `tags.measures`."""
        return {}

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Return (B, K) outputs of the selected model that a later run needs besides the logits, by name."""
        return {}


class FunctionObjective(Objective):
    """An objective made from a function, or a module, of losses, weights and groups."""

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
    """A model that returns logits and features in training, and logits in evaluation; parameters keep their names."""

    features: nn.Module
    head: nn.Module

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        features = self.features(inputs)
        logits = self.head(features)
        return (logits, features.flatten(1)) if self.training else logits


def with_features(model: nn.Module) -> nn.Module:
    """Return `model`, a module with `features` and `head`, as a model that returns its features in training."""
    return WithFeatures(OrderedDict(features=features_of(model), head=head_of(model)))


def features_of(model: nn.Module) -> nn.Module:
    """Return the part of `model` before its last layer."""
    return cast(nn.Module, model.features)  # a submodule, which torch types as a tensor or a module


def head_of(model: nn.Module) -> nn.Linear:
    """Return the last layer of `model`."""
    return cast(nn.Linear, model.head)  # a submodule, which torch types as a tensor or a module


class Pair(nn.Sequential):
    """Two networks: the evaluated network, with its features and head, and a second network under a name of its own.

    In training `forward` returns the outputs of both networks, in evaluation the logits of the first.
    """

    features: nn.Module
    head: nn.Module

    def __init__(self, evaluated: nn.Module, **second: nn.Module):
        super().__init__(OrderedDict(features=features_of(evaluated), head=head_of(evaluated), **second))

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.head(self.features(inputs))
        return (logits, self[2](inputs)) if self.training else logits


def slopes(losses: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Return (B,) dℓ(s·z)/ds at s = 1, which is ⟨∂ℓ/∂z, z⟩; the result can be differentiated again."""
    return (torch.func.grad(lambda logits: losses(logits).sum())(logits) * logits).sum(1)


def group_means(losses: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return (G,) mean losses of the groups, and (G,) booleans: true if the batch has the group.

    The mean of an absent group is 0.
    """
    zeros = losses.new_zeros(num_groups)
    counts = zeros.index_add(0, groups, torch.ones_like(losses))  # `bincount` waits for a GPU
    sums = zeros.index_add(0, groups, losses)
    return sums / counts.clamp(min=1), counts > 0


def count_environments(environments: Environments, num_classes: int, num_groups: int) -> int:
    """Return the number E of environments; an example of group g is in environment g mod E.

    A group is class · attributes + attribute.

    Raises:
        BadInput: `environments` is "attribute", and the groups are not classes times attributes.
    """
    if environments == "group":
        return num_groups
    if num_groups <= num_classes or num_groups % num_classes:
        raise BadInput(
            "config.objective.environments: 'attribute' needs groups that are classes times attributes; this data "
            f"set has {num_classes} classes and {num_groups} groups; use 'group'"
        )
    return num_groups // num_classes

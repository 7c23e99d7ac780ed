"""What a method is to the loop: a model to train, columns with one row an example, and the scalar that is minimised."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imbalance.config.tags import Tags
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Inputs, Loss

Environments = Literal["group", "attribute"]


class Objective(nn.Module):
    """A method: which model it trains, what it computes of each example, and what it minimises.

    columns: what `forward` takes by name, besides losses, weights and groups: columns of `terms`, or `targets` and
        `rows` of the batch. `features` (B, D), what the last layer sees, and `slopes` (B,), the derivative of each loss
        by a factor on its logits, at 1, are there for all.
    views: how many independently augmented inputs of each example `terms` needs, in `batch.views`.
    """

    tags = Tags(batched=True)
    columns: tuple[str, ...] = ()
    views: int = 1

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The model that is trained, from the function that makes that of the config."""
        return with_features(make()) if "features" in self.columns else make()

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """The columns, one row an example; `losses` and `logits` are always among them.

        No row may depend on another example: a batch is computed in parts, and by several processes. What mixes
        examples belongs in `forward`.
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
        """`forward` of the columns that it asks for."""
        columns = {name: terms[name] if name in terms else getattr(batch, name) for name in self.columns}
        return self(terms["losses"], batch.weights, batch.groups, **columns)

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What it has learned, in figures; by the names in `tags.measures`."""
        return {}

    def extra_outputs(self, model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        """Of the selected model, (B, K) each: what a later run asks for besides its logits."""
        return {}


class FunctionObjective(Objective):
    """A function of losses, weights and groups, or a module that is one, as an objective."""

    tags = Tags()

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, losses: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
        return self.function(losses, weights, groups)


def as_objective(function: Callable[..., Tensor]) -> Objective:
    """What a table or a module of one's own names, as the loop takes it."""
    return function if isinstance(function, Objective) else FunctionObjective(function)


class WithFeatures(nn.Sequential):
    """A model that in training returns logits and features. Its parameters are called as they were."""

    def forward(self, inputs: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        features = self.features(inputs)
        logits = self.head(features)
        return (logits, features.flatten(1)) if self.training else logits


def with_features(model: nn.Module) -> nn.Module:
    """`model`, which is `features`, then `head`, as one that shows its features."""
    return WithFeatures(OrderedDict(features=model.features, head=model.head))


class Pair(nn.Sequential):
    """A network that is evaluated, with its features and its head, and under a name of its own a second one.

    In training both are computed.
    """

    def __init__(self, evaluated: nn.Module, **second: nn.Module):
        super().__init__(OrderedDict(features=evaluated.features, head=evaluated.head, **second))

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.head(self.features(inputs))
        return (logits, self[2](inputs)) if self.training else logits


def slopes(losses: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """(B,) dℓ(s·z)/ds at s = 1, which is ⟨∂ℓ/∂z, z⟩; it can be differentiated again."""
    return (torch.func.grad(lambda logits: losses(logits).sum())(logits) * logits).sum(1)


def group_means(losses: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """(G,) the mean loss of each group, 0 where the batch has none of it, and (G,) whether it has any."""
    none = losses.new_zeros(num_groups)
    counts = none.index_add(0, groups, torch.ones_like(losses))  # `bincount` waits for a GPU
    sums = none.index_add(0, groups, losses)
    return sums / counts.clamp(min=1), counts > 0


def count_environments(environments: Environments, num_classes: int, num_groups: int) -> int:
    """How many there are; an example of group g is in environment g mod that, as g = class · attributes + attribute."""
    if environments == "group":
        return num_groups
    if num_groups <= num_classes or num_groups % num_classes:
        raise BadInput(
            "config.objective.environments: 'attribute' needs groups that are classes times attributes; this data "
            f"set has {num_classes} classes and {num_groups} groups"
        )
    return num_groups // num_classes

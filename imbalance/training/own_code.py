"""Check what a user's own functions return, before the first step.

Functions of this package are not checked here, because the tests of this package check them.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.user_modules import user_code_errors, user_module_file
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.batch import Inputs
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import FunctionObjective, Objective

# The columns that `Objective.terms` can compute, and those that `forward` can get from the batch.
COLUMNS = {"logits", "features", "slopes", "targets", "rows", "epoch"}


def check_returned(config: Experiment, path: str, value: Any, kind: Any, needed: str) -> None:
    """Raise `BadInput` if the function that a config section names returned a value that is not an instance of `kind`.

    Args:
        path: path of the section, such as "optim.schedule".
        kind: a type, or a tuple of types.
        needed: what the function must return, in words.
    """
    if not isinstance(value, kind):
        refuse(config, path, f"returns {described(value)}", needed)


def refuse(config: Experiment, path: str, fault: str, needed: str) -> None:
    """Raise `BadInput`, which names the user's function of a config section and says what is wrong with it.

    Args:
        path: path of the section, such as "optim.schedule".
        fault: the fault, in words that follow the name of the function.
        needed: what the function must return, in words.
    """
    raise BadInput(f"config.{path}.name: {config.section(path).name!r} {fault}; it must return {needed}")


def check_parts(config: Experiment, path: str, network: nn.Module, needed: str) -> None:
    """Raise `BadInput` if a user's own network lacks the parts `features` and `head`, which heads, adapters and `load` use.

    Args:
        path: the section whose function returned the network: "model" or "adapter".
        needed: what the function must return, in words.
    """
    lacking = [name for name in ("features", "head") if not isinstance(getattr(network, name, None), nn.Module)]
    if is_own(config, path) and lacking:
        refuse(config, path, f"returns {type(network).__name__} without the part `{lacking[0]}`", needed)


def is_own(config: Experiment, path: str) -> bool:
    """Return whether the section at `path` names a function in a user's own module."""
    return bool(user_module_file(config.section(path).name))


def own_errors(config: Experiment, path: str) -> AbstractContextManager[None]:
    """Return a context manager that turns an error in a user's own function into a `BadInput` with its file and line.

    Args:
        path: path of the config section that names the function, such as "optim.schedule".
    """
    return user_code_errors(config.section(path).name)


def check_rows(config: Experiment, rows: Any, size: int) -> None:
    """Raise `BadInput` if a user's own sampler returned anything but row numbers of the training split.

    Args:
        size: number of examples in the training split.
    """
    if not is_own(config, "sampler"):
        return
    needed = f"a tensor of integers from 0 to {size - 1}, the rows of train that the epoch draws"
    check_returned(config, "sampler", rows, Tensor, needed)
    if rows.dtype != torch.int64 or rows.dim() != 1 or not len(rows):
        refuse(config, "sampler", f"returns {described(rows)}", needed)
    if rows.min() < 0 or rows.max() >= size:
        refuse(config, "sampler", f"returns rows from {rows.min()} to {rows.max()}", needed)


def check_weights(config: Experiment, weights: Any, size: int) -> None:
    """Raise `BadInput` unless a user's importance weights are `size` finite numbers, at least 0 and with a sum above 0."""
    if not is_own(config, "weights"):
        return
    needed = f"a tensor of {size} finite numbers from 0 on, one for each example of train"
    check_returned(config, "weights", weights, Tensor, needed)
    if weights.shape != (size,) or not weights.is_floating_point():
        refuse(config, "weights", f"returns {described(weights)}", needed)
    if not weights.isfinite().all() or weights.min() < 0 or not weights.sum() > 0:
        refuse(config, "weights", f"returns weights from {weights.min()} to {weights.max()}", needed)


def check_views_and_columns(config: Experiment, objective: Objective) -> None:
    """Raise `BadInput` if an objective asks for less than one view, or for a column that `forward` cannot get."""
    views, own_terms = objective.views, type(objective).terms is not Objective.terms
    if not isinstance(views, int) or isinstance(views, bool) or views < 1:
        raise BadInput(
            f"config.objective.name: {config.objective.name!r} has views={views!r}; it must be an integer, at least 1"
        )
    if doubled := [name for name in ("losses", "weights", "groups") if name in objective.columns]:
        raise BadInput(
            f"config.objective.name: {config.objective.name!r} has the column {doubled[0]!r}, but `forward` always has an "
            "argument of this name; delete it from `columns`"
        )
    if unknown := [name for name in objective.columns if name not in COLUMNS and not own_terms]:
        raise BadInput(
            f"config.objective.name: {config.objective.name!r} has the column {unknown[0]!r}, which its terms do not compute; "
            f"name one of {', '.join(sorted(COLUMNS))}, or define `terms`"
        )


def check_outputs(
    config: Experiment,
    dataset: Dataset,
    model: nn.Module,
    loss: nn.Module,
    objective: Objective,
    normalise: Callable[[Inputs], Inputs],
) -> None:
    """Try a user's model, loss or objective on two examples of train; raise `BadInput` if a result has the wrong shape.

    Args:
        dataset: data set on the device of the model.
    """
    train, classes = dataset.train, dataset.num_classes
    batch = slice(0, min(2, len(train)))
    size = batch.stop
    if is_own(config, "model"):
        with own_errors(config, "model"), torch.no_grad():
            logits = model.eval()(normalise(train.inputs[batch]))
        model.train()
        needed = f"logits (B, {classes}) of B examples in evaluation mode"
        if not isinstance(logits, Tensor) or logits.shape != (size, classes) or not logits.is_floating_point():
            refuse(config, "model", f"returns a network that gives {described(logits)} for {size} examples", needed)
        if hasattr(model, "features") and hasattr(model, "head"):  # heads and stored features take this for granted
            check_composition(config, model, normalise(train.inputs[batch]), logits)
    for path, module in (("loss", loss), ("objective", objective)):
        if is_own(config, path):
            check_parameters(config, path, module, model)
    losses = torch.linspace(0.5, 1.0, size, device=train.targets.device, requires_grad=True)
    if is_own(config, "loss"):
        logits = torch.linspace(-1, 1, size * classes, device=train.targets.device).view(size, classes)
        logits = at_least_float32(logits.to(getattr(torch, config.trainer.dtype))).requires_grad_()
        with own_errors(config, "loss"):
            check_values_of(config, "loss", loss(logits, train.targets[batch], train.method_groups[batch]), (size,))
    if is_own(config, "objective") and isinstance(objective, FunctionObjective):
        with own_errors(config, "objective"):
            value = copy.deepcopy(objective)(losses, torch.ones_like(losses), train.method_groups[batch])
            check_values_of(config, "objective", value, ())


def check_parameters(config: Experiment, path: str, module: nn.Module, model: nn.Module) -> None:
    """Raise `BadInput` if a user's own loss or objective has a parameter outside `model`, which no optimiser would train.

    Args:
        path: config section that names the loss or the objective, such as "loss".
        model: the model that the optimiser trains.
    """
    trained = set(model.parameters())
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter not in trained:
            raise BadInput(
                f"config.{path}.name: {config.section(path).name!r} has the parameter {name!r}, which is not trained, because "
                "the optimiser has only the parameters of the network; make it a buffer by register_buffer, or a part of the "
                "network that the method `network` of an objective returns"
            )


def check_composition(config: Experiment, model: nn.Module, inputs: Inputs, logits: Tensor) -> None:
    """Raise `BadInput` if a user's own network gives other `logits` for `inputs` than its `head` of its `features`."""
    with own_errors(config, "model"), torch.no_grad():
        composed = model.eval().get_submodule("head")(model.get_submodule("features")(inputs))
    model.train()
    if composed.shape != logits.shape or not torch.allclose(composed, logits, rtol=1e-3, atol=1e-4, equal_nan=True):
        refuse(
            config,
            "model",
            "returns a network whose logits are not those of `head` applied to `features`",
            "a network that computes head(features(inputs)), as `imbalance.models.with_head` builds",
        )


def check_value(config: Experiment, value: Any) -> None:
    """Raise `BadInput` if a user's own objective returned anything but a scalar from which gradients flow."""
    if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad) and is_own(config, "objective"):
        check_values_of(config, "objective", value, ())


def check_values_of(config: Experiment, path: str, values: Any, shape: tuple[int, ...]) -> None:
    """Raise `BadInput` if the `values` of a loss or an objective have another shape than `shape`, or no gradients.

    Args:
        path: config section that names the loss or the objective, such as "loss".
    """
    one = "one number for each example, (B,)" if shape else "one number for the batch"
    needed = f"a function that gives {one}, as a tensor of floats from which gradients flow"
    if not isinstance(values, Tensor) or values.shape != shape or not values.is_floating_point():
        refuse(config, path, f"returns a function that gives {described(values)}", needed)
    if not values.requires_grad:
        refuse(config, path, "returns a function through which no gradients flow", needed)


def described(value: Any) -> str:
    """Return the type of a value in words; for a tensor, its type and shape."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return "None" if value is None else type(value).__name__

"""The arguments that a run passes to samplers, weights, losses and all other functions that a config names.

A function names these arguments before the `*` of its signature, and the values of its config section after the `*`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.run_directory import read_predictions, read_summary
from imbalance.data import Labels
from imbalance.errors import BadInput, Damaged
from imbalance.utils.output import one_line


@dataclass(frozen=True)
class FirstRun:
    """Predictions and metrics of a first run: the first of the two runs that a two-stage method trains.

    predictions: for each split, outputs of the selected model by name, each with a row for each example: "logits"
        (N, K), and the outputs that `Objective.extra_outputs` adds.
    metrics: the metrics in summary.json of the first run.
    """

    predictions: Mapping[str, Mapping[str, Tensor]]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def logits(self, split: str, targets: Tensor, column: str = "logits") -> Tensor:
        """Return the first run's (N, K) logits of the examples of `split`.

        A debug run saves the logits of its first batch only. In place of the missing logits, the result has a one-hot
        vector, with the 1 at the example's target.

        Args:
            targets: (N,) the targets of `split`.
            column: the name of the output in `predictions`.
        """
        logits = self.predictions[split][column]
        if len(logits) == len(targets):
            return logits
        missing = targets[len(logits) :, None] == torch.arange(logits.shape[1])
        return torch.cat([logits, missing.to(logits)])

    def errors(self, split: str, targets: Tensor) -> Tensor:
        """Return (N,) booleans: true for an example that the first run predicts wrongly.

        Args:
            split: "train", "val" or "test".
            targets: (N,) the targets of the split.
        """
        return self.logits(split, targets).argmax(1) != targets


class GroupAssignment(NamedTuple):
    """The environments and metrics that a group inference, such as `eiil`, returns.

    environments: for each split, the (N,) environments of its examples, numbered from 0.
    metrics: metrics of the inference by name; the run adds them to its own metrics.
    powers: (K,) exponent λ of each class for the sampler `within_class`, which draws an example of a group of n examples
        with a probability ∝ n^-λ; None for λ = 1 in every class.
    """

    environments: Mapping[str, Tensor]
    metrics: Mapping[str, float] = {}
    powers: Tensor | None = None


def read_first_run(directory: Path) -> FirstRun:
    """Read the predictions and metrics of a finished first run.

    Args:
        directory: the run directory of the first run.

    Raises:
        BadInput: a file of predictions is missing or damaged.
    """
    predictions = {}
    for split in ("train", "val", "test", "held_out"):
        path = directory / "predictions" / f"{split}.npz"
        if split == "held_out" and not path.exists():
            continue
        try:
            saved = read_predictions(directory, split, mapped=True)
        except (Damaged, OSError) as error:
            reason = one_line(getattr(error, "reason", None) or str(error))
            raise BadInput(
                f"{path}: damaged ({reason}); to write it again, remove {directory / 'summary.json'}, which marks the first "
                "run as done, and repeat the command"
            ) from None
        predictions[split] = {name: torch.from_numpy(array) for name, array in saved.items() if array.ndim == 2}
    return FirstRun(predictions, read_summary(directory)["metrics"])


def shortened_config(config: Experiment, epochs: int) -> dict[str, Any]:
    """Return `config` as a dictionary, changed to train for `epochs` epochs and to select the last epoch."""
    values = config.to_dict()
    values["trainer"]["epochs"] = epochs
    values["callbacks"] |= dict(select="last", patience=0, stop_at_interpolation=False)
    return values


def cross_entropy_baseline(config: Experiment, epochs: int) -> dict[str, Any]:
    """Return `config` as a dictionary, changed to train by plain cross-entropy for `epochs` epochs.

    Group inference trains this config as its first run, before any groups are known. So the sampler, weights, mixing,
    loss, objective, head and selection of `config` are replaced by ones that read no groups.
    """
    values = shortened_config(config, epochs)
    names = dict(groups="data", sampler="shuffle", weights="uniform", mix="none", loss="cross_entropy",
                 objective="average", head="none")  # fmt: skip
    values |= {section: {"name": name} for section, name in names.items()}
    values["score"] = values["callbacks"]["monitor"] = "val/worst_class_recall"
    return values


@dataclass(frozen=True)
class RunContext:
    """The values that a run can pass to samplers, weights, losses and other functions.

    A function gets only the fields that are arguments in its signature.

    targets, groups: (N,) class and group of each training example; the groups are inferred if `config.groups.name` is
        not "data".
    class_counts, group_counts: (K,) and (G,) numbers of training examples.
    labels: `labels("class")` returns `targets, class_counts`, and `labels("group")` returns `groups, group_counts`.
    input_shape: shape of one input, such as (3, 32, 32) for images.
    seed, epochs: `config.seed` and `config.trainer.epochs`.
    sampler: the section `config.sampler`.
    first: the results of the first run; None if no method of the run needs one.
    powers: `powers` of the `GroupAssignment`; None if no groups are inferred.
    """

    targets: Tensor
    groups: Tensor
    num_classes: int
    num_groups: int
    class_counts: Tensor
    group_counts: Tensor
    labels: Labels
    input_shape: tuple[int, ...]
    seed: int
    epochs: int
    sampler: Mapping[str, Any]
    first: FirstRun | None
    powers: Tensor | None = None


_CONTEXT = {field.name for field in fields(RunContext)}
# The arguments that a function can ask for, by the config section that names the function.
AVAILABLE_ARGUMENTS = {
    "data": {"data_dir", "seed"},
    "groups": {"dataset", "seed", "first"},
    "sampler": _CONTEXT | {"epoch", "generator"},
    "weights": _CONTEXT | {"epoch"},
    "mix": _CONTEXT | {"generator"},  # here `targets` and `groups` are those of a batch
    "loss": _CONTEXT,
    "objective": _CONTEXT | {"loss"},
    "model": {"input_shape", "num_classes", "vocabulary", "architecture"},
    "adapter": {"network"},
    "optim": _CONTEXT | {"parameters", "head_parameters", "layers_above"},
    "optim.schedule": {"epoch", "epochs"},
    "head": _CONTEXT | {"head", "dataset", "features", "augmented_features", "generator", "training_prior"},
}

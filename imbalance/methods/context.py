"""What the program gives to the functions that a config names: what stands before the `*` of their signatures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn.functional import one_hot

from imbalance.config.experiment import Experiment
from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.utils.output import one_line


@dataclass(frozen=True)
class FirstRun:
    """The selected model of a finished run.

    predictions: by split, (N, K) each: "logits", and by other names what the run's objective left beside them.
    metrics: those of its summary.
    """

    predictions: Mapping[str, Mapping[str, Tensor]]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def logits(self, split: str, targets: Tensor, column: str = "logits") -> Tensor:
        """(N, K) of the examples of `split`, which have these `targets`.

        Of a debug run, which has evaluated one batch, the rest are 0 but for the target's.
        """
        found = self.predictions[split][column]
        return torch.cat([found, one_hot(targets[len(found) :], found.shape[1]).to(found)])

    def errors(self, split: str, targets: Tensor) -> Tensor:
        """(N,) which examples it got wrong."""
        return self.logits(split, targets).argmax(1) != targets


class GroupAssignment(NamedTuple):
    """What `imbalance.methods.group_inference.registry` says of a data set.

    environments: of every split (N,), 0 or 1.
    metrics: how the finding went.
    """

    environments: Mapping[str, Tensor]
    metrics: Mapping[str, float] = {}


def read_first_run(directory: Path) -> FirstRun:
    """What the run in `directory` left."""
    predictions = {}
    for split in ("train", "val", "test", "held_out"):
        path = directory / "predictions" / f"{split}.npz"
        if split == "held_out" and not path.exists():
            continue
        try:
            with np.load(path) as saved:
                predictions[split] = {name: torch.from_numpy(saved[name]) for name in saved if saved[name].ndim == 2}
                predictions[split]["logits"]
        except Exception as error:  # a damaged file can fail in any way
            raise BadInput(
                f"{path}: damaged ({one_line(str(error))}); remove {directory / 'summary.json'}, and the same command makes it again"
            ) from None
    return FirstRun(predictions, json.loads((directory / "summary.json").read_text(encoding="utf-8"))["metrics"])


def shortened(config: Experiment, epochs: int) -> ConfigDict:
    """A copy of `config` that ends after so many epochs, with the last one's weights: to begin a first run from."""
    first = ConfigDict(config.to_dict())  # ConfigDict(config) would share its sections
    first.trainer.epochs = epochs
    first.callbacks.update(select="last", patience=0, stop_at_interpolation=False)
    return first


def plain(config: Experiment, epochs: int) -> ConfigDict:
    """`shortened`, by plain averages of cross-entropy: what the groups to be seen are found with may not read any."""
    first = shortened(config, epochs)
    names = dict(groups="data", sampler="shuffle", weights="uniform", mix="none", loss="cross_entropy",
                 objective="average", head="none")  # fmt: skip
    for section, name in names.items():
        first[section] = ConfigDict({"name": name})
    first.score = first.callbacks.monitor = "val/worst_class_recall"
    return first


@dataclass(frozen=True)
class RunContext:
    """What a run says to its methods.

    targets, groups: (N,) of the training examples; the groups are inferred ones where `config.groups` says so.
    class_counts, group_counts: (K,) and (G,), how many of them there are.
    labels: by class or group, see `imbalance.data.Labels`.
    seed, epochs: the config's.
    sampler: the config's section.
    first: None where no method has a first run.
    """

    targets: Tensor
    groups: Tensor
    num_classes: int
    num_groups: int
    class_counts: Tensor
    group_counts: Tensor
    labels: Labels
    seed: int
    epochs: int
    sampler: Mapping[str, Any]
    first: FirstRun | None


_OF_RUN_CONTEXT = {field.name for field in fields(RunContext)}
# By the section of the config: what its functions may ask for.
PROVIDED = {
    "data": {"data_dir", "seed"},
    "groups": {"dataset", "seed", "first"},
    "sampler": _OF_RUN_CONTEXT | {"epoch", "generator"},
    "weights": _OF_RUN_CONTEXT | {"epoch"},
    "mix": _OF_RUN_CONTEXT | {"generator"},  # where targets and groups are those of a batch
    "loss": _OF_RUN_CONTEXT,
    "objective": _OF_RUN_CONTEXT,
    "model": {"input_shape", "num_classes", "vocabulary", "architecture"},
    "optim": {"parameters", "head_parameters"},
    "optim.schedule": {"epoch", "epochs"},
    "head": _OF_RUN_CONTEXT | {"head", "dataset", "features", "generator"},
}

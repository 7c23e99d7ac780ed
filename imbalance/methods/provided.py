"""What the program gives to the functions that a config names: what stands before the `*` of their signatures."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.output import one_line


@dataclass(frozen=True)
class FirstRun:
    """The selected model of a finished run, on the training split.

    logits: (N, K); of a debug run, which has evaluated one batch, the rest are 0 but for the target's.
    targets: (N,).
    held_out: (M, K) of what a head keeps of the training examples, where it does; of a debug run, those of one batch.
    """

    logits: Tensor
    targets: Tensor
    held_out: Tensor | None = None

    @property
    def errors(self) -> Tensor:
        """(N,) which examples it got wrong."""
        return self.logits.argmax(1) != self.targets


def read_first_run(directory: Path, targets: Tensor) -> FirstRun:
    """What the run in `directory` left, for the training examples with these `targets`."""
    path = directory / "predictions" / "train.npz"
    try:
        found = saved_logits(path)
        kept = path.with_name("held_out.npz")
        path = kept if kept.exists() else path
        held_out = saved_logits(kept) if kept.exists() else None
    except Exception as error:  # a damaged file can fail in any way
        raise BadInput(
            f"{path}: damaged ({one_line(str(error))}); remove {directory / 'summary.json'}, and the same command makes it again"
        ) from None
    rest = torch.nn.functional.one_hot(targets[len(found) :], found.shape[1]).to(found)
    return FirstRun(torch.cat([found, rest]), targets, held_out)


def saved_logits(path: Path) -> Tensor:
    """(N, K) of predictions/<split>.npz."""
    with np.load(path) as saved:
        return torch.from_numpy(saved["logits"])


def shortened(config: ConfigDict, epochs: int) -> ConfigDict:
    """A copy of `config` that ends after so many epochs, with the last one's weights: to begin a first run from."""
    first = ConfigDict(config.to_dict())  # ConfigDict(config) would share its sections
    first.trainer.epochs = epochs
    first.callbacks.update(select="last", patience=0, stop_at_interpolation=False)
    return first


@dataclass(frozen=True)
class Given:
    """What a run says to its methods.

    targets, groups: (N,) of the training examples.
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


_OF_A_RUN = {field.name for field in fields(Given)}
# By the section of the config: what its functions may ask for.
PROVIDED = {
    "data": {"data_dir", "seed"},
    "sampler": _OF_A_RUN | {"epoch", "generator"},
    "weights": _OF_A_RUN | {"epoch"},
    "mix": _OF_A_RUN | {"generator"},  # where targets and groups are those of a batch
    "loss": _OF_A_RUN,
    "objective": _OF_A_RUN,
    "model": {"input_shape", "num_classes"},
    "optim": {"parameters"},
    "optim.schedule": {"epoch", "epochs"},
    "head": _OF_A_RUN | {"head", "dataset", "features", "generator"},
}

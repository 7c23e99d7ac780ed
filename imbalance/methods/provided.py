"""What the program gives to the functions that a config names: what stands before the `*` of their signatures."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imbalance.data import Labels
from imbalance.errors import BadInput
from imbalance.output import one_line


@dataclass(frozen=True)
class FirstRun:
    """The selected model of a finished run, on the training split.

    logits: (N, K); of a debug run, which has evaluated one batch, the rest are 0 but for the target's.
    targets: (N,).
    """

    logits: Tensor
    targets: Tensor

    @property
    def errors(self) -> Tensor:
        """(N,) which examples it got wrong."""
        return self.logits.argmax(1) != self.targets


def read_first_run(directory: Path, targets: Tensor) -> FirstRun:
    """What the run in `directory` left, for the training examples with these `targets`."""
    path = directory / "predictions" / "train.npz"
    try:
        with np.load(path) as saved:
            found = torch.from_numpy(saved["logits"])
    except Exception as error:  # a damaged file can fail in any way
        raise BadInput(
            f"{path}: damaged ({one_line(str(error))}); remove {directory / 'summary.json'}, and the same command makes it again"
        ) from None
    rest = torch.nn.functional.one_hot(targets[len(found) :], found.shape[1]).to(found)
    return FirstRun(torch.cat([found, rest]), targets)


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

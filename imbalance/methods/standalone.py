"""Parts of a method for a training loop of your own, without a config and a run directory.

Losses and objectives are modules to use directly (`imbalance.methods.losses`,
`imbalance.methods.objectives.registry`). Their arguments before the `*`, such as `class_counts`, are
`torch.bincount(targets)`. This module builds samplers and weights from the labels of a training set, with the names
and values of a config.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from imbalance.config.schema import By, Table, bind, check_values, keyword_annotations, look_up
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS
from imbalance.utils.seeds import generator

Labels = Tensor | np.ndarray | Sequence[int]


class EpochSampler(Sampler[int]):
    """A sampler for a torch DataLoader: `DataLoader(data, 64, sampler=EpochSampler("balanced", targets, by="class"))`.

    The rows of an epoch follow from `seed` and the epoch alone; they are those of a run with the same config. Call
    `set_epoch` before each epoch, as with torch's DistributedSampler; a loader prepared by accelerate calls it itself.

    With several processes, accelerate distributes the batches: keep the defaults of `rank` and `world`. With
    torch.distributed alone pass them. Then each process gets every `world`-th row, and all processes get the same
    number of rows, so up to world − 1 rows of an epoch are left out.

    Args:
        name: an entry of `imbalance.methods.samplers.SAMPLERS`, such as "shuffle", "undersample" or "balanced".
        targets: (N,) the class of each training example.
        groups: (N,) the group of each training example; needed for `by="group"`.
        seed: the seed of all draws.
        epochs: the number of epochs of the whole training, for the annealed samplers.
        rank: the number of this process, from 0.
        world: the number of processes.
        values: the values of the config section besides the name, such as `by="class"`.

    Raises:
        BadInput: there is no such sampler, or a value is missing or out of range.
    """

    def __init__(
        self,
        name: str,
        targets: Labels,
        groups: Labels | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        rank: int = 0,
        world: int = 1,
        **values: Any,
    ):
        if not 0 <= rank < world:
            raise BadInput(f"EpochSampler: rank={rank}, world={world} given; rank must be 0 to world − 1")
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self._provided = arguments_of(targets, groups) | {"seed": seed, "epochs": epochs}
        self._section = section_of("sampler", SAMPLERS, name, values)
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.epoch = epoch

    def rows(self) -> Tensor:
        """Return the (M,) rows that this process draws in the epoch, in order."""
        if self._drawn[0] != self.epoch:
            chooser = generator(self.seed, "sampler", self.epoch)
            drawn = bind(SAMPLERS, self._section, **self._provided, epoch=self.epoch, generator=chooser)()
            divisible = drawn if self.world == 1 else drawn[: len(drawn) // self.world * self.world]
            self._drawn = self.epoch, divisible[self.rank :: self.world]
        return self._drawn[1]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows().tolist())

    def __len__(self) -> int:
        return len(self.rows())


def example_weights(
    name: str,
    targets: Labels,
    groups: Labels | None = None,
    *,
    epoch: int = 0,
    epochs: int = 1,
    sampler: Mapping[str, Any] | None = None,
    logits: Tensor | None = None,
    **values: Any,
) -> Tensor:
    """Return (N,) float32 weights of the training examples, with mean 1: `(w * loss(logits, targets)).mean()`.

    Args:
        name: an entry of `imbalance.methods.weights.WEIGHTS`, such as "importance", "effective_number" or "deferred".
        targets, groups: as for `EpochSampler`.
        epoch, epochs: the epoch and the number of epochs, for weights that change; call this function in each epoch.
        sampler: the config section of an annealed sampler, for "residual".
        logits: (N, K) logits of a first model, for "just_train_twice".
        values: the values of the config section besides the name, such as `by="class", exponent=1.0`.

    Raises:
        BadInput: there is no such weighting, or a value is missing or out of range.
    """
    provided = arguments_of(targets, groups) | {"epoch": epoch, "epochs": epochs, "sampler": sampler}
    if logits is not None:
        provided["first"] = FirstRun({"train": {"logits": logits.cpu()}})
    return bind(WEIGHTS, section_of("weights", WEIGHTS, name, values), **provided)().float()


def section_of(what: str, table: Table, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section that a config would have, after a check of its values."""
    try:
        annotations = keyword_annotations(look_up(table, name))
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    if values.keys() != annotations.keys():
        given = f"{', '.join(values) or 'none'} given"
        raise BadInput(f"{what} {name!r}: takes the values {', '.join(annotations) or 'none'}; {given}")
    check_values(f"{what} {name!r}: ", values, annotations)
    return {"name": name, **values}


def arguments_of(targets: Labels, groups: Labels | None) -> dict[str, Any]:
    """Return the arguments that samplers and weights can ask for, made from the labels of a training set."""
    targets = torch.as_tensor(targets).cpu()
    labels = {"class": targets, "group": None if groups is None else torch.as_tensor(groups).cpu()}

    def count(by: By) -> tuple[Tensor, Tensor]:
        if labels[by] is None:
            raise BadInput("by='group' given, and no groups; pass groups, or by='class'")
        return labels[by], torch.bincount(labels[by])

    return {"labels": count, "targets": targets, "groups": targets if groups is None else labels["group"]}

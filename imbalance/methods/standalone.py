"""The parts of a method in a training loop of one's own: no config, no run directory.

Losses and objectives are modules, to be used as they are (`imbalance.methods.losses`, `imbalance.methods.objectives.registry`);
what they ask for before the `*`, such as `class_counts`, is `torch.bincount(targets)`. Samplers and weights are made
here from the labels of a training set, by the names and values that a config would say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """The rows that an epoch draws, for a torch DataLoader: `DataLoader(data, 64, sampler=EpochSampler("balanced", …))`.

    They follow from `seed` and the epoch alone, and are those that a run of the same config would draw. Call `set_epoch`
    before each epoch, as with torch's DistributedSampler; accelerate's prepared loader does so by itself.

    With several processes, accelerate divides the batches among them: leave `rank` and `world` as they are. In a loop of
    bare torch.distributed give them: each process then has every `world`-th row, all as many, and up to world − 1 rows
    are left out of an epoch.

    Args:
        name: of `imbalance.methods.samplers.SAMPLERS`, such as "shuffle", "undersample" or "balanced".
        targets: (N,) the class of each training example.
        groups: (N,) its group; needed where `by="group"`.
        seed: of all that is drawn.
        epochs: of the whole training, for the annealed samplers.
        rank, world: which process of how many.
        values: what a config's section says beside the name, such as `by="class"`.

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
            raise BadInput(f"EpochSampler: rank {rank} of world {world} given; ranks are 0 to world − 1")
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self._provided = of_labels(targets, groups) | {"seed": seed, "epochs": epochs}
        self._section = section_of("sampler", SAMPLERS, name, values)
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def set_epoch(self, epoch: int) -> None:
        """Draw for `epoch` from the next iteration on."""
        self.epoch = epoch

    def rows(self) -> Tensor:
        """(M,) what this process draws in the epoch, in order."""
        if self._drawn[0] != self.epoch:
            chooser = generator(self.seed, "sampler", self.epoch)
            drawn = bind(SAMPLERS, self._section, **self._provided, epoch=self.epoch, generator=chooser)()
            shared = drawn if self.world == 1 else drawn[: len(drawn) // self.world * self.world]
            self._drawn = self.epoch, shared[self.rank :: self.world]
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
    """(N,) float32 how much each training example counts, mean 1: `(w * loss(logits, targets)).mean()`.

    Args:
        name: of `imbalance.methods.weights.WEIGHTS`, such as "importance", "effective_number" or "deferred".
        targets, groups: as for `EpochSampler`.
        epoch, epochs: for weights that change, which are to be asked for anew in each epoch.
        sampler: the section of an annealed sampler, for "residual".
        logits: (N, K) of a first model, for "just_train_twice".
        values: what a config's section says beside the name, such as `by="class", exponent=1.0`.

    Raises:
        BadInput: there is no such weighting, or a value is missing or out of range.
    """
    provided = of_labels(targets, groups) | {"epoch": epoch, "epochs": epochs, "sampler": sampler}
    if logits is not None:
        provided["first"] = FirstRun({"train": {"logits": logits.cpu()}})
    return bind(WEIGHTS, section_of("weights", WEIGHTS, name, values), **provided)().float()


def section_of(what: str, table: Table, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A section as a config would have it, checked."""
    try:
        annotations = keyword_annotations(look_up(table, name))
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    if values.keys() != annotations.keys():
        given = f"{', '.join(values) or 'none'} given"
        raise BadInput(f"{what} {name!r}: takes the values {', '.join(annotations) or 'none'}; {given}")
    check_values(f"{what} {name!r}: ", values, annotations)
    return {"name": name, **values}


def of_labels(targets: Labels, groups: Labels | None) -> dict[str, Any]:
    """What samplers and weights are given of a training set, by the names that they have for it."""
    targets = torch.as_tensor(targets).cpu()
    labels = {"class": targets, "group": None if groups is None else torch.as_tensor(groups).cpu()}

    def counted(by: By) -> tuple[Tensor, Tensor]:
        if labels[by] is None:
            raise BadInput("by='group' given, and no groups")
        return labels[by], torch.bincount(labels[by])

    get: Callable[[By], tuple[Tensor, Tensor]] = counted
    return {"labels": get, "targets": targets, "groups": targets if groups is None else labels["group"]}

"""Samplers and weights for a training loop of your own, without a config and a run directory.

Samplers and weights are built from the labels of a training set, with the names and values of a config. Losses and
objectives are modules that you can use directly, see `imbalance.methods.losses` and
`imbalance.methods.objectives.registry`. Pass `torch.bincount(targets)` as their `class_counts`, and
`torch.bincount(groups)` as their `group_counts`.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from imbalance.config.schema import (
    By,
    Table,
    bind,
    check_values,
    keyword_annotations,
    look_up,
    plain,
    required_arguments,
    short_repr,
)
from imbalance.config.user_modules import forget_changed_modules
from imbalance.data.tables.values import check_unmasked
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS
from imbalance.utils.seeds import generator

Labels = Tensor | np.ndarray | Sequence[int]
MOST_LABELS = 10_000_000  # classes or groups; counts of more take memory in vain


class EpochSampler(Sampler[int]):
    """A sampler for a torch DataLoader: `DataLoader(data, 64, sampler=EpochSampler("balanced", targets, by="class"))`.

    The rows of an epoch depend on `seed` and the epoch alone; a run with the same config draws the same rows. Call
    `set_epoch` before each epoch, as with torch's DistributedSampler; a loader that accelerate has prepared calls
    `set_epoch` itself.

    With several processes, accelerate distributes the batches, so leave `rank` and `world` at their defaults. With
    torch.distributed and without accelerate, pass `rank` and `world`. Then each process gets every `world`-th row. All
    processes get the same number of rows, so up to world − 1 rows of an epoch are left out.

    Args:
        name: an entry of `imbalance.methods.samplers.SAMPLERS`, such as "shuffle", "undersample" or "balanced".
        targets: (N,) the class of each training example.
        groups: (N,) the group of each training example, usually class × attribute; needed for `by="group"`.
        seed: the seed of all draws.
        epochs: the number of epochs of the whole training, which the annealed samplers read.
        rank: the number of this process, from 0.
        world: the number of processes.
        values: the values of `config.sampler` besides the name, such as `by="class"`.

    Raises:
        BadInput: no sampler has this name, or a value is missing or out of range; `rows` raises `BadInput` for an epoch
            with fewer rows than processes.
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
        check_integers(seed=seed, epochs=epochs, rank=rank, world=world)
        if rank >= world:
            raise BadInput(f"EpochSampler: rank={rank}, world={world} given; rank must be 0 to world − 1")
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self._provided = arguments_of(targets, groups) | {"seed": seed, "epochs": epochs}
        self._section = section_of("sampler", SAMPLERS, name, values)
        if groups is None and self._section.get("by") == "group":
            raise no_groups()
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        check_integers(epoch=epoch)
        self.epoch = epoch

    def rows(self) -> Tensor:
        """Return the (M,) row numbers that this process trains on in this epoch, in the order of training."""
        if self._drawn[0] != self.epoch:
            chooser = generator(self.seed, "sampler", self.epoch)
            drawn = bind(SAMPLERS, self._section, **self._provided, epoch=self.epoch, generator=chooser)()
            if len(drawn) < self.world:
                raise BadInput(
                    f"EpochSampler: world={self.world} given, but epoch {self.epoch} has only {len(drawn)} rows, so no process "
                    "would get one; use fewer processes"
                )
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
    """Return (N,) float32 weights w of the training examples, for `(w * loss(logits, targets)).mean()`.

    The weights have mean 1; those of "residual" have mean 1 over the examples that the annealed sampler draws in `epoch`.

    Args:
        name: an entry of `imbalance.methods.weights.WEIGHTS`, such as "importance", "effective_number" or "deferred".
        targets: (N,) the class of each training example.
        groups: (N,) the group of each training example, usually class × attribute; needed for `by="group"`.
        epoch, epochs: the epoch from 0, and the number of epochs. The weights "deferred" and "residual" change with the
            epoch, so call this function in each epoch for them.
        sampler: the section `config.sampler` of an annealed sampler; needed for "residual".
        logits: (N, K) logits of a first model; needed for "just_train_twice".
        values: the values of `config.weights` besides the name, such as `by="class", exponent=1.0`.

    Raises:
        BadInput: there is no such weighting, or a value is missing or out of range.
    """
    check_integers(epoch=epoch, epochs=epochs)
    provided = arguments_of(targets, groups) | {"epoch": epoch, "epochs": epochs}
    section = section_of("weights", WEIGHTS, name, values)
    size, needed = len(as_labels("targets", targets)), required_arguments(WEIGHTS[name])
    if "sampler" in needed:
        provided["sampler"] = annealed_section(sampler)
    if "first" in needed:
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != size or not logits.isfinite().all():
            raise BadInput(
                f"logits: finite logits (N, K) of a first model are needed for the {size:,} training examples"
            )
        provided["first"] = FirstRun({"train": {"logits": logits.cpu()}})
    return bind(WEIGHTS, section, **provided)().float()


def annealed_section(sampler: Any) -> dict[str, Any]:
    """Return the argument if it is the config section of an annealed sampler; else raise `BadInput`."""
    annealed = {name: function for name, function in SAMPLERS.items() if "epoch" in required_arguments(function)}
    if not isinstance(sampler, Mapping) or sampler.get("name") not in annealed:
        raise BadInput(f"sampler: the section of an annealed sampler is needed, such as dict(name={next(iter(annealed))!r}, by='class')")  # fmt: skip
    values = {key: value for key, value in sampler.items() if key != "name"}
    return section_of("sampler", SAMPLERS, sampler["name"], values)


def section_of(section: str, table: Table, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config section `{"name": name, **values}`, after a check of the name and the values.

    Args:
        section: the name of the section, "sampler" or "weights", for messages.
        table: the functions that the section can name.

    Raises:
        BadInput: the table has no such name, or a value is missing, unknown or out of range.
    """
    forget_changed_modules({"name": name})
    try:
        annotations = keyword_annotations(look_up(table, name))
    except BadInput as error:
        raise BadInput(f"{section}: {error}") from None
    if values.keys() != annotations.keys():
        raise BadInput(
            f"{section} {name!r}: {', '.join(values) or 'no argument'} given; pass exactly these arguments: "
            f"{', '.join(annotations) or 'none'}"
        )
    values = plain(values, section)
    check_values(f"{section} {name!r}: ", values, annotations)
    return {"name": name, **values}


def as_labels(name: str, labels: Labels) -> Tensor:
    """Check the labels of a training set, and return them as int64 on the CPU.

    Args:
        name: the argument of the caller, for messages.

    Raises:
        BadInput: `labels` are not (N,) whole numbers from 0 on, with N at least 1.
    """
    check_unmasked(labels, f"{name}: ")
    needed = f"{name}: whole numbers from 0 to {MOST_LABELS - 1:,} are needed, one for each training example"
    try:
        # torch reads a Series of pandas by its row labels, and warns of read-only arrays, so NumPy copies both.
        tensor = labels.cpu() if isinstance(labels, Tensor) else torch.from_numpy(as_numbers(name, labels))
    except BadInput:
        raise
    except Exception:  # torch and the labels can fail in many ways
        raise BadInput(f"{needed}; {type(labels).__name__} given") from None
    has_values = tensor.layout == torch.strided and not tensor.is_meta
    if tensor.dim() != 1 or not len(tensor) or tensor.is_floating_point() or tensor.is_complex() or not has_values:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise BadInput(f"{needed}; {dtype} of shape {tuple(tensor.shape)} given")
    tensor = tensor.long()
    if not 0 <= tensor.min() <= tensor.max() < MOST_LABELS:
        raise BadInput(f"{needed}; labels from {tensor.min()} to {tensor.max()} given")
    return tensor


def as_numbers(name: str, labels: Any) -> np.ndarray:
    """Return labels as a new array of numbers; raise `BadInput` if they are texts.

    Args:
        name: the argument of the caller, for messages.
    """
    array = np.array(labels)
    if array.dtype.kind in "OUST" and any(isinstance(label, str | bytes) for label in array.ravel()[:1]):
        raise BadInput(
            f"{name}: texts such as {array.ravel()[0]!r} given; number them, as by numpy.unique({name}, return_inverse=True)[1]"
        )
    return array.astype(array.dtype.newbyteorder("="))


def check_integers(**values: Any) -> None:
    """Raise `BadInput` unless every value is an integer from 0 to 2⁶³ − 1; `epochs` and `world` must be at least 1.

    Args:
        values: the arguments to check, by name.
    """
    for name, value in values.items():
        least = 1 if name in ("epochs", "world") else 0
        if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) < 2**63:
            raise BadInput(f"{name}: {short_repr(value)} given; an integer from {least} to 2**63 - 1 is needed")


def no_groups() -> BadInput:
    """Return the error for `by="group"` without groups."""
    return BadInput("by='group' given, and no groups; pass groups=…, or by='class'")


def arguments_of(targets: Labels, groups: Labels | None) -> dict[str, Any]:
    """Return the arguments of samplers and weights that are computed from the labels of a training set, by name."""
    targets = as_labels("targets", targets)
    labels = {"class": targets, "group": None if groups is None else as_labels("groups", groups)}
    if groups is not None and len(labels["group"]) != len(targets):
        raise BadInput(
            f"groups: {len(labels['group']):,} given, and {len(targets):,} targets; their numbers must be equal"
        )

    def count(by: By) -> tuple[Tensor, Tensor]:
        if labels[by] is None:
            raise no_groups()
        if by == "group" and len(torch.unique(torch.stack([targets, labels[by]]), dim=1).T) > len(
            torch.unique(labels[by])
        ):
            warnings.warn(
                "groups: a group has examples of several classes, so weights and draws by group do not balance the classes; "
                "if these are attributes, pass class × attribute: groups=targets * number of attributes + attributes",
                stacklevel=2,
            )
        return labels[by], torch.bincount(labels[by])

    all_groups = targets if groups is None else labels["group"]
    return {"labels": count, "targets": targets, "groups": all_groups, "powers": None}

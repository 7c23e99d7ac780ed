"""What a data set is made of, and how examples are divided among splits and thinned out into an imbalance."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import By
from imbalance.data.images.augment import Augmentation
from imbalance.data.images.stored import Stored
from imbalance.data.texts.tokens import Tokens
from imbalance.errors import BadInput
from imbalance.utils.seeds import derived_seed

Profile = Literal["none", "exp", "step"]
Labels = Callable[[By], tuple[Tensor, Tensor]]  # by class or group: each example's (N,), and the counts of all


@dataclass(frozen=True)
class Split:
    """N examples.

    inputs: (N, ...) floats, ready for the model, or (N, C, H, W) uint8, still to be normalised: a tensor, or images or
        texts on disk that are indexed like one.
    targets, groups: (N,) int64.
    indices: (N,) int64, the examples' rows in the source: what a message or a saved prediction refers to.
    known: (N,) uint32, the `checksums` where they are known beforehand.
    inferred: (N,) int64, the groups that a method has found, which other methods then see in place of `groups`; None
        where none has.
    eval_group_mask: (N, E) bool, the evaluation groups that each is in, several or none; None where they are the groups.
    """

    inputs: Tensor | Stored | Tokens
    targets: Tensor
    groups: Tensor
    indices: Tensor
    known: np.ndarray | None = None
    inferred: Tensor | None = None
    eval_group_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def checksums(self) -> np.ndarray:
        """(N,) uint32, the CRC-32 of each input: of a store's images as they were decoded, of a tensor's rows as they are.

        Of float64 as float32, so that the last bit of what is computed, which differs between machines, does not count.
        """
        if self.known is not None:
            return self.known
        if isinstance(self.inputs, Stored | Tokens):
            return self.inputs.checksums[self.inputs.rows.numpy()]
        inputs = self.inputs.float() if self.inputs.dtype == torch.float64 else self.inputs
        rows = inputs.contiguous().view(len(inputs), -1).numpy()
        return np.fromiter(map(zlib.crc32, rows), dtype=np.uint32, count=len(rows))

    @cached_property
    def on_cpu(self) -> dict[str, Tensor]:
        """The labels that there are, by name, on the CPU: for what is only counted, named or saved."""
        labels = {name: getattr(self, name) for name in ("targets", "groups", "indices", "inferred", "eval_group_mask")}
        return {name: tensor.cpu() for name, tensor in labels.items() if tensor is not None}

    @property
    def method_groups(self) -> Tensor:
        """(N,) the groups that methods see: the inferred ones, or where none are, those of the data."""
        return self.groups if self.inferred is None else self.inferred

    def to(self, device: torch.device, dtype: torch.dtype, images: bool = False) -> "Split":
        """The split on `device`, float inputs as `dtype`; the same for all who ask.

        Args:
            images: also those of a store, which otherwise come batch by batch.

        Raises:
            BadInput: the device has no room for these.
        """
        asked = device, dtype, images
        if asked in self.copies:
            return self.copies[asked]
        inputs = self.inputs.to(device, dtype if self.inputs.is_floating_point() else self.inputs.dtype)
        inputs = inputs.whole() if images and isinstance(inputs, Stored) else inputs
        moved = Split(inputs, **{name: tensor.to(device) for name, tensor in self.on_cpu.items()})
        vars(moved)["on_cpu"] = self.on_cpu  # which need not be copied back
        self.copies[asked] = moved
        return moved

    @cached_property
    def copies(self) -> dict[tuple, "Split"]:
        """Those that `to` has made: runs that are trained at once share one."""
        return {}

    def subset(self, rows: Tensor) -> "Split":
        """The examples at `rows` of these."""
        inputs = self.inputs.subset(rows) if isinstance(self.inputs, Stored | Tokens) else self.inputs[rows]
        labels = (self.targets[rows], self.groups[rows], self.indices[rows])
        further = dict(inferred=self.inferred, eval_group_mask=self.eval_group_mask)
        return Split(inputs, *labels, **{k: None if tensor is None else tensor[rows] for k, tensor in further.items()})


@dataclass(frozen=True)
class Dataset:
    """The three splits and the names of their classes and groups.

    evaluation_names: of the evaluation groups, where these are others than the groups that methods read: see `eval_group_names`.
    mean, std: per channel of uint8 inputs, as fractions of 255; empty for inputs that are floats.
    augmentations: what is done to training batches, see `imbalance.data.images.augment`.
    probe: where val and test are to be of classes that train has not: a data set of those classes, on whose train split
        a new head is fitted, on whose val and test it is evaluated.
    probe_strength: the inverse of that head's L2 penalty.
    held_out: what a method keeps of the training examples for later, which are then not in train; see `hold_out`.
    bucket: so many batches of an epoch are sorted by length together; see `imbalance.data.texts.tokens.bucketed`.
    preprocessing: how a file or a table becomes inputs as these, in terms that JSON has; empty where only arrays do. A
        trained model keeps it: see `imbalance.deploy.predict`.
    inferred_names: of the groups in `Split.inferred`; empty where no method has found any.
    notes: what the reader of a log should know of how the data was read, a line each.
    """

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    evaluation_names: tuple[str, ...] = field(default=(), kw_only=True)
    bucket: int = field(default=0, kw_only=True)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentations: tuple[Augmentation, ...] = ()
    probe: "Dataset | None" = None
    probe_strength: float = 0.0
    held_out: Split | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    inferred_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def eval_dataset(self) -> "Dataset":
        """The data set whose val and test splits are evaluated."""
        return self.probe or self

    @property
    def splits(self) -> dict[str, Split]:
        """All that there are, by name."""
        of_all = {name: getattr(self, name) for name in ("train", "val", "test", "held_out")}
        return {name: split for name, split in of_all.items() if split is not None}

    @property
    def stored_bytes(self) -> int:
        """Of the images that a store has, and not the memory."""
        own = sum(split.inputs.nbytes for split in self.splits.values() if isinstance(split.inputs, Stored))
        return own + (self.probe.stored_bytes if self.probe else 0)

    def to(self, device: torch.device, dtype: torch.dtype, images: bool = False) -> "Dataset":
        """All splits on `device`, so that a batch is a gather there; see `Split.to`."""
        splits = {name: split.to(device, dtype, images) for name, split in self.splits.items()}
        kept = (f"images: {self.stored_bytes / 1e6:,.1f} MB, all on {device}",) if images and self.stored_bytes else ()
        probe = self.probe and self.probe.to(device, dtype, images)
        return replace(self, **splits, probe=probe, notes=(*self.notes, *kept))

    @property
    def for_methods(self) -> "Dataset":
        """The data set as methods see it: with the inferred groups, where there are some, as its groups."""
        if not self.inferred_names:
            return self
        splits = {
            name: replace(split, groups=split.method_groups, eval_group_mask=None)
            for name, split in self.splits.items()
        }
        return replace(self, **splits, group_names=self.inferred_names, evaluation_names=())

    def hold_out(self, fraction: float, seed: int) -> "Dataset":
        """The same, where `fraction` of each class of train is no longer in it but is `held_out`.

        Not of each group: the methods that hold a share out read no groups of train.
        """
        rng = np.random.default_rng(derived_seed(seed, "held out"))
        rest, held_out = stratified_split(self.train.targets.numpy(), fraction, rng)
        train, held_out = (self.train.subset(torch.from_numpy(rows)) for rows in (rest, held_out))
        return replace(self, train=train, held_out=held_out)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_groups(self) -> int:
        return len(self.group_names)

    @property
    def eval_group_names(self) -> tuple[str, ...]:
        """The names of the groups that it is evaluated by: its evaluation groups, or its groups where there are none."""
        return self.evaluation_names or self.group_names

    @property
    def vocabulary(self) -> int:
        """How many tokens there are; 0 where inputs are no texts."""
        return self.train.inputs.vocabulary if isinstance(self.train.inputs, Tokens) else 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])

    def class_counts(self, split: Split) -> Tensor:
        """(K,) examples of each class in `split`, on the CPU."""
        return torch.bincount(split.on_cpu["targets"], minlength=self.num_classes)

    def group_counts(self, split: Split) -> Tensor:
        """(G,) examples of each group in `split`, on the CPU."""
        return torch.bincount(split.on_cpu["groups"], minlength=self.num_groups)

    @cached_property
    def counts_of_train(self) -> tuple[Tensor, Tensor]:
        """(K,) and (G,) training examples of each class and each group, on the CPU."""
        return self.class_counts(self.train), self.group_counts(self.train)

    def eval_group_counts(self, split: Split) -> Tensor:
        """(E,) examples of each group that it is evaluated by, in `split`; an example may count several times, or not."""
        return self.group_counts(split) if split.eval_group_mask is None else split.on_cpu["eval_group_mask"].sum(0)

    def labels(self, split: Split, by: By) -> tuple[Tensor, Tensor]:
        """(N,) each example's class or group, and how many examples each class or group has in `split`, on the CPU."""
        if by == "class":
            return split.on_cpu["targets"], self.class_counts(split)
        return split.on_cpu["groups"], self.group_counts(split)


def check_classes(asked: Sequence[str], there: Sequence[str]) -> None:
    """Raise `BadInput` unless `config.data.classes` names at least two different classes that there are."""
    if set(asked) - set(there) or len(set(asked)) != len(asked) or len(asked) < 2:
        raise BadInput(
            f"config.data.classes: {asked} given; at least two different ones of {', '.join(there)} are needed"
        )


def imbalanced_counts(available: Sequence[int], profile: Profile, ratio: float, total: int) -> np.ndarray:
    """How many examples of each class to keep; earlier classes are the larger ones.

    Args:
        available: how many there are of each class; the largest kept class has min(available), unless `total` says
            otherwise.
        profile: "step": the first half of the classes is `ratio` times as large as the rest; "exp": sizes fall
            geometrically from the first class to the last (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019);
            "none": all that there are.
        ratio: largest over smallest class, at least 1.
        total: 0, or the number of examples to be divided in these proportions, so that ratios compare at equal size.

    Returns:
        (K,) int64. Without a total `int(max · ratio^(-i/(K-1)))`, the published rounding; with one, rounded by
        largest remainder so that the counts sum to it.

    Raises:
        BadInput: the total asks for more examples of a class than there are, or leaves a class empty.
    """
    available = np.asarray(available)
    num_classes = len(available)
    if available.min() < 1:
        raise BadInput(
            f"config.data.val_fraction, test_fraction: of the classes they leave {available.tolist()} training examples; "
            "no class can be empty"
        )
    if profile == "exp":
        shares = ratio ** (-np.arange(num_classes) / max(1, num_classes - 1))
    elif profile == "step":
        shares = np.where(np.arange(num_classes) < num_classes / 2, 1.0, 1 / ratio)
    elif ratio != 1:
        raise BadInput(f"config.data.imbalance_ratio: {ratio} given; it is 1.0 where config.data.imbalance is 'none'")
    else:
        shares = available / available.max()
    if total:
        exact = shares / shares.sum() * total
        counts = np.floor(exact).astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    else:
        largest = available.max() if profile == "none" else available.min()
        # 1e-9: 500 / 100 · 100 and the like must not be truncated to one less.
        counts = (largest * shares + 1e-9).astype(np.int64)
    if (counts > available).any() or (counts < 1).any():
        problem = f"would take {counts.tolist()} examples of classes that have {available.tolist()}, and no class can be empty"
        raise BadInput(f"config.data.{'total' if total else 'imbalance_ratio'}: {total or ratio} {problem}")
    return counts


def choose(targets: np.ndarray, counts: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Rows of `counts[k]` random examples of each class k, in ascending order."""
    rows = [rng.permutation(np.flatnonzero(targets == label))[:n] for label, n in enumerate(counts)]
    return np.sort(np.concatenate(rows))


def stratified_split(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two parts, the second with `fraction` of every label, rounded to the nearest whole number."""
    counts = np.bincount(labels)
    second = choose(labels, np.floor(counts * fraction + 0.5).astype(np.int64), rng)
    return np.setdiff1d(np.arange(len(labels)), second), second


def class_split(inputs: Tensor, targets: np.ndarray, indices: np.ndarray) -> Split:
    """A split whose groups are its classes."""
    targets = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))
    return Split(inputs, targets, targets, torch.from_numpy(np.asarray(indices, dtype=np.int64)))

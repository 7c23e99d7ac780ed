"""`Split` and `Dataset`, and functions to draw stratified splits and to make a data set imbalanced by leaving out examples."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from imbalance.config.schema import By
from imbalance.data.images.augment import Augmentation
from imbalance.data.images.stored_images import DiskImages
from imbalance.data.texts.tokens import Tokens
from imbalance.errors import BadInput
from imbalance.utils.seeds import derived_seed

Profile = Literal["none", "exp", "step"]
Labels = Callable[[By], tuple[Tensor, Tensor]]  # "class" or "group" → (N,) labels of the examples, counts of the labels


@dataclass(frozen=True)
class Split:
    """A split of N examples.

    inputs: a tensor, or images or texts on disk that are indexed like a tensor. A tensor has (N, ...) floats, which the
        model takes as they are, or (N, C, H, W) uint8 images, which are normalised first.
    targets, groups: (N,) int64.
    indices: (N,) int64, the row of each example in its file or array, for messages and saved predictions.
    known_checksums: (N,) uint32, the values of `checksums` if they are known in advance; None to compute them.
    inferred: (N,) int64, groups that a method has inferred; methods then use them in place of `groups`. None if no
        method has inferred groups.
    eval_group_mask: (N, E) bool, the evaluation groups of each example, which may be several or none; None if the
        evaluation groups are `groups`.
    """

    inputs: Tensor | DiskImages | Tokens
    targets: Tensor
    groups: Tensor
    indices: Tensor
    known_checksums: np.ndarray | None = None
    inferred: Tensor | None = None
    eval_group_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def checksums(self) -> np.ndarray:
        """The (N,) uint32 CRC-32 of each input: of the bytes of a tensor's row, of decoded pixels, or of a text's tokens.

        float64 inputs are rounded to float32 first, because the last bits of computed inputs differ between machines.
        """
        if self.known_checksums is not None:
            return self.known_checksums
        if isinstance(self.inputs, DiskImages | Tokens):
            return self.inputs.checksums[self.inputs.rows.numpy()]
        inputs = self.inputs.float() if self.inputs.dtype == torch.float64 else self.inputs
        rows = inputs.contiguous().view(len(inputs), -1).numpy()
        return np.fromiter(map(zlib.crc32, rows), dtype=np.uint32, count=len(rows))

    @cached_property
    def on_cpu(self) -> dict[str, Tensor]:
        """The tensors with a row for each example, by name and on the CPU; without `inputs` and those that are None."""
        labels = {name: getattr(self, name) for name in ("targets", "groups", "indices", "inferred", "eval_group_mask")}
        return {name: tensor.cpu() for name, tensor in labels.items() if tensor is not None}

    @property
    def saved_labels(self) -> dict[str, Tensor]:
        """The labels that predictions/<split>.npz has, by name: `on_cpu`, but `eval_group_mask` is called `members`."""
        return {{"eval_group_mask": "members"}.get(name, name): tensor for name, tensor in self.on_cpu.items()}

    @property
    def method_groups(self) -> Tensor:
        """The (N,) groups that methods use: the inferred groups if there are any, else the groups of the data."""
        return self.groups if self.inferred is None else self.inferred

    def to(self, device: torch.device, dtype: torch.dtype, images: bool = False) -> "Split":
        """Return this split on `device`, with float inputs as `dtype`; equal arguments return the same object.

        Args:
            images: copy all images of a store on disk to the device now; False: copy each batch when it is indexed.

        Raises:
            BadInput: the device has too little memory for the images.
        """
        key = device, dtype, images
        if key in self.moved_splits:
            return self.moved_splits[key]
        inputs = self.inputs.to(device, dtype if self.inputs.is_floating_point() else self.inputs.dtype)
        inputs = inputs.as_tensor() if images and isinstance(inputs, DiskImages) else inputs
        labels = {name: tensor.to(device) for name, tensor in self.on_cpu.items()}
        moved = Split(
            inputs,
            labels["targets"],
            labels["groups"],
            labels["indices"],
            inferred=labels.get("inferred"),
            eval_group_mask=labels.get("eval_group_mask"),
        )
        vars(moved)["on_cpu"] = self.on_cpu  # saves copying the labels back
        self.moved_splits[key] = moved
        return moved

    @cached_property
    def moved_splits(self) -> dict[tuple, "Split"]:
        """The splits that `to` has returned, by its arguments, so that runs that train together share one copy."""
        return {}

    def subset(self, rows: Tensor) -> "Split":
        """Return the split that has only the examples at the positions `rows`."""
        inputs = self.inputs.subset(rows) if isinstance(self.inputs, DiskImages | Tokens) else self.inputs[rows]
        return Split(
            inputs,
            self.targets[rows],
            self.groups[rows],
            self.indices[rows],
            inferred=None if self.inferred is None else self.inferred[rows],
            eval_group_mask=None if self.eval_group_mask is None else self.eval_group_mask[rows],
        )


def joined(first: Split, second: Split) -> Split:
    """Return the split that has the examples of `first` and, after them, those of `second`.

    The inputs must be two tensors, or two selections from one store on disk. An optional label, such as the evaluation
    groups, must be in both splits or in neither.
    """
    if isinstance(first.inputs, DiskImages | Tokens):
        assert isinstance(second.inputs, type(first.inputs))  # all splits of a data set have one store
        inputs = replace(cast(Any, first.inputs), rows=torch.cat([first.inputs.rows, second.inputs.rows]))
    else:
        inputs = torch.cat([first.inputs, cast(Tensor, second.inputs)])
    labels = {name: torch.cat([tensor, getattr(second, name)]) for name, tensor in first.on_cpu.items()}
    return replace(first, inputs=inputs, known_checksums=None, **labels)


class CrossedGroups(NamedTuple):
    """The class index and the attribute index of each of G groups."""

    classes: tuple[int, ...]
    attributes: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """The train, val and test splits, and the names of their classes and groups.

    evaluation_names: names of the evaluation groups if these are not the groups that methods use; see
        `eval_group_names`.
    bucket: the number of batches of texts that are sorted by length together; see
        `imbalance.data.texts.tokens.bucketed`. 0 for no sorting.
    mean, std: mean and standard deviation of each channel of uint8 inputs, as fractions of 255; empty for float inputs.
    augmentations: the augmentations of training batches; see `imbalance.data.images.augment`.
    probe: a second data set if the network is evaluated on other classes than it is trained on: a new head is fitted on
        the train split of `probe`, and evaluated on its val and test splits. Otherwise None.
    probe_strength: the inverse of the L2 penalty of the new head of `probe`.
    held_out: training examples that are not in train, because a head is fitted on them after training; see `hold_out`.
    preprocessing: the steps from a file or table to inputs, in types that JSON has; empty if inputs are arrays. A
        trained model saves these steps, to apply them when it predicts; see `imbalance.deploy`.
    inferred_names: names of the groups in `Split.inferred`; empty if no method has inferred groups.
    notes: lines for the log on how the data was read.
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
        """The data set whose val and test splits are evaluated: `probe` if there is one, else this data set."""
        return self.probe or self

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, val, test, and held_out if there is one."""
        splits = {name: getattr(self, name) for name in ("train", "val", "test", "held_out")}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def stored_bytes(self) -> int:
        """The size in bytes of all images that are read batch by batch from a store on disk; 0 if there are none."""
        own = sum(split.inputs.nbytes for split in self.splits.values() if isinstance(split.inputs, DiskImages))
        return own + (self.probe.stored_bytes if self.probe else 0)

    def to(self, device: torch.device, dtype: torch.dtype, images: bool = False) -> "Dataset":
        """Return this data set with all splits on `device`, and float inputs as `dtype`.

        Args:
            images: copy all images of a store on disk to the device now; False: copy each batch when it is indexed.
        """
        splits = {name: split.to(device, dtype, images) for name, split in self.splits.items()}
        kept = (f"images: {self.stored_bytes / 1e6:,.1f} MB, all on {device}",) if images and self.stored_bytes else ()
        probe = self.probe and self.probe.to(device, dtype, images)
        return replace(self, **splits, probe=probe, notes=(*self.notes, *kept))

    @property
    def for_methods(self) -> "Dataset":
        """The data set as methods see it: if groups were inferred, they take the place of the groups of the data."""
        if not self.inferred_names:
            return self
        splits = {
            name: replace(split, groups=split.method_groups, eval_group_mask=None)
            for name, split in self.splits.items()
        }
        return replace(self, **splits, group_names=self.inferred_names, evaluation_names=())

    def hold_out(self, fraction: float, seed: int) -> "Dataset":
        """Return this data set with a random `fraction` of each training class moved to the split `held_out`.

        The draw is stratified by class and not by group, because the methods that need held-out examples know no
        training groups.

        Raises:
            BadInput: the fraction is not from 0 to below 1, or a class would have no training example left.
        """
        if not 0 <= fraction < 1:
            raise BadInput(f"fraction: {fraction} given; a number from 0 to below 1 is needed")
        counts = self.class_counts(self.train).numpy()
        if (lost := (counts > 0) & (np.floor(counts * fraction + 0.5) == counts)).any():
            label = int(lost.argmax())
            raise BadInput(
                f"fraction: {fraction} given, which leaves no training example of class {self.class_names[label]!r}, which "
                f"has {int(counts[label])}; give a smaller fraction (config.head.fraction)"
            )
        rng = np.random.default_rng(derived_seed(seed, "held out"))
        rest, held_out = stratified_split(self.train.targets.numpy(), fraction, rng)
        train, held_out = (self.train.subset(torch.from_numpy(rows)) for rows in (rest, held_out))
        return replace(self, train=train, held_out=held_out)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def num_groups(self) -> int:
        """The number of groups."""
        return len(self.group_names)

    @property
    def eval_group_names(self) -> tuple[str, ...]:
        """The names of the groups that metrics use: the evaluation groups if there are any, else the groups of the data."""
        return self.evaluation_names or self.group_names

    @property
    def vocabulary(self) -> int:
        """The number of tokens in the vocabulary of texts; 0 for other inputs."""
        return self.train.inputs.vocabulary if isinstance(self.train.inputs, Tokens) else 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    def class_counts(self, split: Split) -> Tensor:
        """Return the (K,) numbers of examples of each class in `split`, on the CPU."""
        return torch.bincount(split.on_cpu["targets"], minlength=self.num_classes)

    def group_counts(self, split: Split) -> Tensor:
        """Return the (G,) numbers of examples of each group in `split`, on the CPU."""
        return torch.bincount(split.on_cpu["groups"], minlength=self.num_groups)

    @cached_property
    def train_counts(self) -> tuple[Tensor, Tensor]:
        """The (K,) and (G,) numbers of training examples of each class and of each group, on the CPU."""
        return self.class_counts(self.train), self.group_counts(self.train)

    @cached_property
    def crossed_groups(self) -> CrossedGroups | None:
        """The class and the attribute of each group; None unless each group is one of two classes with one attribute.

        The name of such a group is the name of its class, a comma or a space, and the attribute.
        """
        groups, targets = self.train.on_cpu["groups"], self.train.on_cpu["targets"]
        class_of_group = torch.zeros(self.num_groups, dtype=targets.dtype).scatter(0, groups, targets)
        if self.num_classes != 2 or not self.train_counts[1].all() or not class_of_group[groups].equal(targets):
            return None  # a group without training examples, or with examples of both classes
        classes, attributes = tuple(class_of_group.tolist()), list[str]()
        for name, target in zip(self.group_names, classes):
            plain = self.class_names[target]
            quoted = '"' + plain.replace('"', '""') + '"'  # as in the name of a group if the class has a comma
            rest = name.removeprefix(quoted if name.startswith(f"{quoted},") else plain)
            if rest == name or rest[:1] not in (",", " "):
                return None
            attributes.append(rest)
        values = sorted(set(attributes))
        return CrossedGroups(classes, tuple(values.index(rest) for rest in attributes))

    def eval_group_counts(self, split: Split) -> Tensor:
        """Return the (E,) numbers of examples of each evaluation group in `split`.

        An example in several evaluation groups counts in each of them.
        """
        return self.group_counts(split) if split.eval_group_mask is None else split.on_cpu["eval_group_mask"].sum(0)

    def labels(self, split: Split, by: By) -> tuple[Tensor, Tensor]:
        """Return the (N,) class or group of each example of `split`, and the number of examples of each class or group.

        Args:
            by: "class" for classes, "group" for groups.
        """
        if by == "class":
            return split.on_cpu["targets"], self.class_counts(split)
        return split.on_cpu["groups"], self.group_counts(split)


def check_class_choice(chosen: Sequence[str], available: Sequence[str]) -> None:
    """Raise `BadInput` unless `chosen` (config.data.classes) names at least two of the `available` classes.

    No class may be named twice.
    """
    if set(chosen) - set(available) or len(set(chosen)) != len(chosen) or len(chosen) < 2:
        raise BadInput(
            f"config.data.classes: {chosen} given; name at least two different ones of {', '.join(available)}"
        )


def imbalanced_counts(available: Sequence[int] | np.ndarray, profile: Profile, ratio: float, total: int) -> np.ndarray:
    """Return the number of examples to keep of each class, to subsample a data set to an imbalance.

    Args:
        available: the number of examples of each class. With "step" or "exp" and a total of 0, the largest class keeps
            min(available) examples.
        profile: "step": each class of the first half is `ratio` times as large as each class of the second half; "exp":
            counts fall geometrically from the first class to the last (Cui et al., CVPR 2019; Cao et al., NeurIPS
            2019); "none": all available examples.
        ratio: the count of the largest class divided by that of the smallest, at least 1.
        total: the number of examples of all classes together, so that different ratios can be compared at equal size;
            0 to keep as many as possible.

    Returns:
        (K,) int64. Without a total, "exp" gives class i `int(n · ratio^(-i/(K-1)))` examples, where n is min(available),
        rounded like the published data sets. With a total, the counts are rounded by largest remainder and sum to it.

    Raises:
        BadInput: `total` and `ratio` need more examples of a class than are available, or leave a class empty.
    """
    available = np.asarray(available)
    num_classes = len(available)
    if available.min() < 1:
        raise BadInput(
            f"config.data.val_fraction, test_fraction: they leave {available.tolist()} training examples of the classes, "
            "and each class needs one; make the fractions smaller"
        )
    if profile == "exp":
        shares = ratio ** (-np.arange(num_classes) / max(1, num_classes - 1))
    elif profile == "step":
        shares = np.where(np.arange(num_classes) < num_classes / 2, 1.0, 1 / ratio)
    elif ratio != 1:
        raise BadInput(f"config.data.imbalance_ratio: {ratio} given; it must be 1.0 if config.data.imbalance is 'none'")
    else:
        shares = available / available.max()
    if total:
        exact = shares / shares.sum() * total
        counts = np.floor(exact).astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    else:
        largest = available.max() if profile == "none" else available.min()
        # 1e-9 keeps a rounding error in 500 / 100 · 100 and the like from truncating the count to one less.
        counts = (largest * shares + 1e-9).astype(np.int64)
    if (counts > available).any() or (counts < 1).any():
        problem = (
            f"needs {counts.tolist()} examples of the classes, but they have {available.tolist()}; each class must keep "
            "one example or more, and can keep no more than it has; change config.data.total or "
            "config.data.imbalance_ratio"
        )
        raise BadInput(
            f"config.data.{'total' if total else 'imbalance_ratio'}: {total or ratio} given, which {problem}"
        )
    return counts


def draw_per_class(targets: np.ndarray, counts: Sequence[int] | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of `counts[k]` random examples of each class k, in ascending order.

    Args:
        targets: (N,) the class of each row.
    """
    rows = [rng.permutation(np.flatnonzero(targets == label))[:n] for label, n in enumerate(counts)]
    return np.sort(np.concatenate(rows))


def stratified_split(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a fraction of the rows of each label; return the rows that were not drawn, and the drawn rows.

    Both are (M,) arrays in ascending order. The number of drawn rows of a label is rounded to a whole number.

    Args:
        labels: (N,) the label of each row.
    """
    counts = np.bincount(labels)
    second = draw_per_class(labels, np.floor(counts * fraction + 0.5).astype(np.int64), rng)
    return np.delete(np.arange(len(labels)), second), second


def class_split(inputs: Tensor, targets: np.ndarray, indices: np.ndarray) -> Split:
    """Return a `Split` of examples whose groups are their classes.

    Args:
        targets: (N,) the classes.
        indices: (N,) the row of each example in its file or array.
    """
    labels = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))
    return Split(inputs, labels, labels, torch.from_numpy(np.asarray(indices, dtype=np.int64)))

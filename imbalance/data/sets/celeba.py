"""CelebA (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015) with any attributes as class and groups."""

from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from imbalance.config.schema import Name, Natural
from imbalance.data.images.augment import Augmentation
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import Listing, find, opened
from imbalance.data.problems import Problem
from imbalance.data.splits import choose, stratified_split
from imbalance.errors import BadInput
from imbalance.utils.files import check_regular

Share = Annotated[float, Field(gt=0, le=1)]

LAYOUTS = tuple(
    f"{folder}list_attr_celeba.{kind}"
    for folder in ("celeba/", "celebA/", "celebA/data/", "")
    for kind in ("txt", "csv")
)
SPLIT_SIZES: Final = (162770, 19867, 19962)
# Blond_Hair × Male in train, val and test: neither, male, blond, both.
FINGERPRINT: Final = ((71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180))
# Of the 2 % that Wang et al. train on: a fingerprint of the rows' order too.
PAPERS_TRAIN: Final = (1446, 1308, 468, 33)


def list_celeba(
    data_dir: str,
    *,
    target: Name,
    confounders: tuple[Name, ...],
    train_fraction: Share,
    val_fraction: Share,
    test: Literal["full", "balanced"],
    subset_seed: Natural,
    size: Natural,
    augment: tuple[Augmentation, ...],
) -> Listing:
    """The published partition, checked, or a part of it. Class: the target attribute; group: it and the confounders.

    Args:
        target: the attribute to predict, such as Blond_Hair.
        confounders: the attributes that make groups with it, such as Male; none: groups are classes.
        train_fraction: the share of the training images, drawn regardless of groups. 0.02 with subset_seed 0 gives
            the 1446, 1308, 468 and 33 examples of Blond_Hair × Male in Wang et al., ICLR 2022.
        val_fraction: the share of every group's validation images.
        test: all of it, or as many of every group as the smallest one has (180 each for Blond_Hair × Male).
        subset_seed: the seed of these draws. The run's seed does not change them, so that all seeds share one store
            of images.
        size: the side of the square images: the middle 178×178 pixels are resized to it; 0 to prepare images as for
            the weights of config.model.
        augment: random changes of training images: "flip" mirrors an image with probability 1/2, "pad_crop" shifts
            it by at most 4 pixels, "random_resized_crop" crops 70 to 100 % of its area; () for none.
    """
    file = find(data_dir, LAYOUTS, "CelebA", "imbalance data download celeba says how to get it")
    problems: list[Problem] = []
    wanted = (target, *confounders)
    if len(set(wanted)) != len(wanted):
        raise BadInput(f"config.data.confounders: {confounders} given beside target {target!r}; they must differ")
    names, lines, values = read_attributes(file, ("Blond_Hair", "Male", *wanted), problems)
    splits = read_partition(file.with_name(f"list_eval_partition{file.suffix}"), names, problems)
    groups = np.zeros(len(names), dtype=np.int64)
    for attribute in wanted:
        groups = 2 * groups + values[attribute]
    if not problems:
        blond_male = 2 * values["Blond_Hair"] + values["Male"]
        parts = [np.flatnonzero(splits == split) for split in range(3)]
        parts.append(draw_train(splits, 0.02, 0))
        found = tuple(tuple(np.bincount(blond_male[rows], minlength=4).tolist()) for rows in parts)
        if found != (*FINGERPRINT, PAPERS_TRAIN):
            cause = (
                f"not the published CelebA: train, val, test and the published 2 % of train have {found} examples "
                f"of Blond_Hair × Male, not {(*FINGERPRINT, PAPERS_TRAIN)}"
            )
            problems.append(Problem(str(file), cause))
    rows = [
        draw_train(splits, train_fraction, subset_seed),
        draw_val(splits, groups, val_fraction, subset_seed),
        draw_test(splits, groups, test, subset_seed),
    ]
    kept = np.concatenate(rows)
    readable = [attribute.lower().replace("_", " ") for attribute in wanted]
    either = [(f"not {name}", name) for name in readable]
    images = find(str(file.parent), ("img_align_celeba/img_align_celeba", "img_align_celeba"), "CelebA's images",
                  "unpack img_align_celeba.zip there")  # fmt: skip
    return Listing(
        "celeba",
        file,
        images,
        Recipe("RGB", (("crop", 178), ("square", size))),
        augment,
        [names[row] for row in kept],
        lines[kept],
        values[target][kept],
        groups[kept],
        splits[kept],
        kept,
        either[0],
        tuple(", ".join(parts) for parts in product(*either)),
        problems,
    )


celeba = opened(list_celeba)


def draw_train(splits: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a fraction of the training images, drawn and rounded as by the code of Wang et al."""
    rows = np.flatnonzero(splits == 0)
    return np.sort(np.random.default_rng(seed).choice(rows, int(np.round(fraction * len(rows))), replace=False))


def draw_val(splits: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of the same fraction of every group's validation images."""
    rows = np.flatnonzero(splits == 1)
    if not len(rows):
        return rows
    return rows[stratified_split(groups[rows], fraction, np.random.default_rng([seed, 1]))[1]]


def draw_test(splits: np.ndarray, groups: np.ndarray, part: str, seed: int) -> np.ndarray:
    """Rows of all test images, or of as many of every group as the smallest has."""
    rows = np.flatnonzero(splits == 2)
    if part == "full" or not len(rows):
        return rows
    counts = np.bincount(groups[rows])
    smallest = counts[counts > 0].min()
    return rows[choose(groups[rows], np.minimum(counts, smallest), np.random.default_rng([seed, 2]))]


def read_attributes(
    file: Path, wanted: tuple[str, ...], problems: list[Problem]
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """The images' names, their lines, and the wanted attributes as 0 and 1; lines that cannot be read go to `problems`."""
    words = split_words(file)
    if file.suffix == ".txt":  # the count, the 40 names, then a line an image
        first, heading = 2, ["image_id", *words.of_line(1)]
        said, count = " ".join(words.of_line(0)), len(words.first) - 2
        if said != str(count):
            problems.append(Problem(f"{file} line 1", f"says {said!r} images, {max(0, count)} follow"))
    else:
        first, heading = 1, words.of_line(0)
    for name in wanted:
        if name not in heading[1:]:
            raise BadInput(
                f"config.data: no attribute {name!r} in {file}; there are {', '.join(heading[1:]) or 'none'}"
            )
    lines = words.lines_of(len(heading), first, file, problems)
    values, valid = {}, np.ones(len(lines), dtype=bool)
    for name in wanted:
        values[name], known = words.flags(lines, heading.index(name))
        problems += [Problem(f"{file} line {line + 1}", f"{name} is not 1 or -1") for line in lines[~known]]
        valid &= known
    lines = lines[valid]
    return words.column(lines, 0), lines + 1, {name: value[valid] for name, value in values.items()}


def read_partition(file: Path, names: list[str], problems: list[Problem]) -> np.ndarray:
    """(N,) the split of each image of `names`; -1 where the file does not list it, which goes to `problems`."""
    words = split_words(file)
    lines = words.lines_of(2, 1 if file.suffix == ".csv" else 0, file, problems)
    listed, splits = words.column(lines, 0), words.digits(lines, 1)
    wrong = lines[(splits < 0) | (splits > 2)]
    problems += [Problem(f"{file} line {line + 1}", "the split is not 0, 1 or 2") for line in wrong]
    if listed == names:
        return splits
    split_of = dict(zip(listed, splits.tolist()))
    problems += [Problem(f"{file}: {name}", "it is not listed") for name in names if name not in split_of]
    return np.array([split_of.get(name, -1) for name in names], dtype=np.int64)


class Words(NamedTuple):
    """A text file as words: `text[starts[i]:ends[i]]`, those of line k from word `first[k]` on. Lines count from 0.

    Eight million words would take Python five seconds as objects, so only the ones asked for become any.
    """

    text: str
    characters: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray

    def of_line(self, line: int) -> list[str]:
        """The words of a line; none beyond the end."""
        bounds = [*self.first, len(self.starts)][line : line + 2]
        return [self.word(i) for i in range(*bounds)] if len(bounds) == 2 else []

    def word(self, i: int) -> str:
        return self.text[self.starts[i] : self.ends[i]]

    def lines_of(self, count: int, first: int, file: Path, problems: list[Problem]) -> np.ndarray:
        """The lines from `first` on that have `count` words; the others go to `problems`."""
        counts = np.diff(self.first, append=len(self.starts))
        lines = np.arange(first, len(counts))
        wrong = lines[counts[first:] != count]
        problems += [Problem(f"{file} line {line + 1}", f"{counts[line]} fields, not {count}") for line in wrong]
        return lines[counts[first:] == count]

    def column(self, lines: np.ndarray, column: int) -> list[str]:
        """A word of each of `lines`."""
        words = self.first[lines] + column
        bounds = zip(self.starts[words].tolist(), self.ends[words].tolist())
        return [self.text[start:end] for start, end in bounds]

    def flags(self, lines: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a column of 1 and −1 (or 0): which are 1, as int64, and which are either."""
        words, digits = self.first[lines] + column, self.digits(lines, column)
        start, end = self.starts[words], self.ends[words]
        minus_one = (end == start + 2) & (self.characters[start] == ord("-")) & (self.characters[end - 1] == ord("1"))
        return (digits == 1).astype(np.int64), (digits == 0) | (digits == 1) | minus_one

    def digits(self, lines: np.ndarray, column: int) -> np.ndarray:
        """Of a column of single digits: their values as int64, and −1 for what is none."""
        words = self.first[lines] + column
        values = self.characters[self.starts[words]].astype(np.int64) - ord("0")
        is_digit = (self.ends[words] == self.starts[words] + 1) & (values >= 0) & (values <= 9)
        return np.where(is_digit, values, -1)


def split_words(file: Path) -> Words:
    """The words of a file, separated by commas or runs of spaces; any line end, with or without a byte-order mark."""
    try:
        check_regular(file)
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip() + b"\n"
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    characters = np.frombuffer(content, dtype=np.uint8)
    between = (characters <= ord(" ")) | (characters == ord(","))
    edges = np.flatnonzero(np.diff(between, prepend=True))  # where words start and end, in turn
    starts, ends = edges[::2], edges[1::2]
    line_ends = np.flatnonzero(characters == ord("\n"))
    first = np.searchsorted(starts, np.concatenate([[0], line_ends[:-1]]))
    text = content.decode("ascii", errors="replace")  # one character a byte
    if text.startswith(","):
        raise BadInput(
            f"{file} line 1: the first column has no name; pandas writes its index there unless asked not to: "
            "to_csv(…, index=False)"
        )
    return Words(text, characters, starts, ends, first)

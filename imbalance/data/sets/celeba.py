"""Data set CelebA (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015), with any attributes as labels."""

from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field
from typing_extensions import Unpack

from imbalance.config.schema import Name, Natural
from imbalance.data.files import find_path
from imbalance.data.images.decode import Recipe
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.problems import Problem
from imbalance.data.splits import draw_per_class, stratified_split
from imbalance.errors import BadInput
from imbalance.utils.read import read_bytes

Share = Annotated[float, Field(gt=0, le=1)]

# The places under data_dir where the file of attributes is searched.
LAYOUTS = tuple(
    f"{folder}list_attr_celeba.{kind}"
    for folder in ("celeba/", "celebA/", "celebA/data/", "")
    for kind in ("txt", "csv")
)
SPLIT_SIZES: Final = (162770, 19867, 19962)
# The numbers of images in train, val and test that are neither blond nor male, male alone, blond alone, or both.
FINGERPRINT: Final = ((71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180))
# The same numbers for the random 2 % of train that Wang et al. (ICLR 2022) use. If the rows of a copy are in another
# order, these numbers change, while those of FINGERPRINT do not.
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
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the images of the published splits, or a random part of them, and check the published counts.

    The class is the value of the target; the group is the combination of the values of target and confounders.

    Args:
        target: the attribute to predict, such as Blond_Hair.
        confounders: the attributes that make groups with the target, such as Male; () if the classes are the groups.
        train_fraction: the share of the training images that is used, drawn regardless of groups. 0.02 with
            subset_seed 0 gives the 1446, 1308, 468 and 33 examples of Blond_Hair × Male in Wang et al., ICLR 2022.
        val_fraction: the share of every group's validation images that is used.
        test: "full" for all test images; "balanced" for as many of each group as the smallest group has (180 each
            for Blond_Hair × Male).
        subset_seed: the seed of the draws of train_fraction, val_fraction and test. The run's seed does not change
            these draws, so that runs with different seeds share one store of images.
        size: the side in pixels of the square images; the middle 178×178 pixels are resized to this size. 0 to
            resize and crop as the pretrained weights of config.model need.
    """
    file = find_path(data_dir, LAYOUTS, "CelebA", "imbalance data download celeba says how to get it")
    problems: list[Problem] = []
    attributes = (target, *confounders)
    if len(set(attributes)) != len(attributes):
        raise BadInput(
            f"config.data.confounders: {confounders} given with target {target!r}; target and confounders must all differ"
        )
    names, lines, values = read_attributes(file, ("Blond_Hair", "Male", *attributes), problems)
    splits = read_partition(file.with_name(f"list_eval_partition{file.suffix}"), names, problems)
    groups = np.zeros(len(names), dtype=np.int64)
    for attribute in attributes:
        groups = 2 * groups + values[attribute]
    if not problems:
        blond_male = 2 * values["Blond_Hair"] + values["Male"]
        parts = [np.flatnonzero(splits == split) for split in range(3)]
        parts.append(draw_train(splits, 0.02, 0))
        counts = tuple(tuple(np.bincount(blond_male[rows], minlength=4).tolist()) for rows in parts)
        if counts != (*FINGERPRINT, PAPERS_TRAIN):
            cause = (
                f"not the published CelebA: train, val, test and the published 2 % of train have {counts} examples "
                f"of Blond_Hair × Male, not {(*FINGERPRINT, PAPERS_TRAIN)}; "
                "imbalance data download celeba says how to get it"
            )
            problems.append(Problem(str(file), cause))
    rows = [
        draw_train(splits, train_fraction, subset_seed),
        draw_val(splits, groups, val_fraction, subset_seed),
        draw_test(splits, groups, test, subset_seed),
    ]
    kept = np.concatenate(rows)
    readable = [attribute.lower().replace("_", " ") for attribute in attributes]
    value_names = [(f"not {name}", name) for name in readable]
    folders = ("img_align_celeba/img_align_celeba", "img_align_celeba")
    images = find_path(str(file.parent), folders, "CelebA's images", "unpack img_align_celeba.zip there")
    return Listing(
        "celeba",
        file,
        images,
        Recipe("RGB", (("crop", 178), ("square", size))),
        [names[row] for row in kept],
        lines[kept],
        values[target][kept],
        groups[kept],
        splits[kept],
        kept,
        value_names[0],
        tuple(", ".join(parts) for parts in product(*value_names)),
        problems,
        **image_keys,
    )


celeba = image_dataset(list_celeba)


def draw_train(splits: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of a random fraction of the training images, drawn as in the code of Wang et al. (ICLR 2022).

    Args:
        splits: (N,) 0, 1, 2 for train, val, test.
    """
    rows = np.flatnonzero(splits == 0)
    return np.sort(np.random.default_rng(seed).choice(rows, int(np.round(fraction * len(rows))), replace=False))


def draw_val(splits: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of a random fraction of each group's validation images.

    Args:
        splits: (N,) 0, 1, 2 for train, val, test.
        groups: (N,) the group of each image.
    """
    rows = np.flatnonzero(splits == 1)
    if not len(rows):
        return rows
    return rows[stratified_split(groups[rows], fraction, np.random.default_rng([seed, 1]))[1]]


def draw_test(splits: np.ndarray, groups: np.ndarray, part: str, seed: int) -> np.ndarray:
    """Return the rows of the test images to use.

    Args:
        splits: (N,) 0, 1, 2 for train, val, test.
        groups: (N,) the group of each image.
        part: "full" for all test images; "balanced" for equally many of each group, as many as the smallest group has.
        seed: seed of the random choice.
    """
    rows = np.flatnonzero(splits == 2)
    if part == "full" or not len(rows):
        return rows
    counts = np.bincount(groups[rows])
    smallest = counts[counts > 0].min()
    return rows[draw_per_class(groups[rows], np.minimum(counts, smallest), np.random.default_rng([seed, 2]))]


def read_attributes(
    file: Path, wanted: tuple[str, ...], problems: list[Problem]
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Read CelebA's file of attributes; append a problem to `problems` for each line that cannot be read.

    Args:
        wanted: the names of the attributes to read.

    Returns:
        The file names of the images; their line numbers; and for each wanted attribute its (N,) values 0 and 1.
    """
    words = split_words(file)
    if file.suffix == ".txt":  # the number of images, the 40 names, then a line for each image
        first, heading = 2, ["image_id", *words.line_words(1)]
        stated, count = " ".join(words.line_words(0)), len(words.first) - 2
        if stated != str(count):
            problems.append(
                Problem(f"{file} line 1", f"says {stated!r} images, but {max(0, count)} follow; both must be equal")
            )
    else:
        first, heading = 1, words.line_words(0)
    for name in wanted:
        if name not in heading[1:]:
            raise BadInput(
                f"config.data: no attribute {name!r} in {file}; name one of {', '.join(heading[1:]) or 'none'}"
            )
    lines = words.valid_lines(len(heading), first, file, problems)
    values, valid = {}, np.ones(len(lines), dtype=bool)
    for name in wanted:
        values[name], is_flag = words.flags(lines, heading.index(name))
        problems += [Problem(f"{file} line {line + 1}", f"{name} is not 1 or -1") for line in lines[~is_flag]]
        valid &= is_flag
    lines = lines[valid]
    return words.column(lines, 0), lines + 1, {name: value[valid] for name, value in values.items()}


def read_partition(file: Path, names: list[str], problems: list[Problem]) -> np.ndarray:
    """Return the split of each image as (N,) numbers: 0, 1, 2 for train, val, test.

    An image that `file` does not list gets -1, and a problem is appended to `problems`.

    Args:
        file: CelebA's file of splits.
        names: the file names of the images.
    """
    words = split_words(file)
    lines = words.valid_lines(2, 1 if file.suffix == ".csv" else 0, file, problems)
    listed, splits = words.column(lines, 0), words.digits(lines, 1)
    wrong = lines[(splits < 0) | (splits > 2)]
    problems += [Problem(f"{file} line {line + 1}", "the split is not 0, 1 or 2") for line in wrong]
    if listed == names:
        return splits
    split_of = dict(zip(listed, splits.tolist()))
    problems += [Problem(f"{file}: {name}", "the image is not listed") for name in names if name not in split_of]
    return np.array([split_of.get(name, -1) for name in names], dtype=np.int64)


class Words(NamedTuple):
    """The words of a text file, saved as positions in the text; lines count from 0.

    Making Python strings of CelebA's eight million words would take five seconds, so only requested words become strings.

    text, characters: the text, as a string and as bytes.
    starts, ends: word i is `text[starts[i]:ends[i]]`.
    first: the number of the first word of each line: line k begins with word `first[k]`.
    """

    text: str
    characters: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray

    def line_words(self, line: int) -> list[str]:
        """Return the words of a line; an empty list if the file has no such line."""
        bounds = [*self.first, len(self.starts)][line : line + 2]
        return [self.word(i) for i in range(*bounds)] if len(bounds) == 2 else []

    def word(self, i: int) -> str:
        """Return word number `i` of the file, from 0."""
        return self.text[self.starts[i] : self.ends[i]]

    def valid_lines(self, count: int, first: int, file: Path, problems: list[Problem]) -> np.ndarray:
        """Return the indices (from 0) of the lines that have `count` words, from the index `first` on.

        For each other line, append a problem to `problems`.

        Args:
            file: the path of the file, for the problems.
        """
        counts = np.diff(self.first, append=len(self.starts))
        lines = np.arange(first, len(counts))
        wrong = lines[counts[first:] != count]
        problems += [
            Problem(f"{file} line {line + 1}", f"{counts[line]} fields, but {count} are needed") for line in wrong
        ]
        return lines[counts[first:] == count]

    def column(self, lines: np.ndarray, column: int) -> list[str]:
        """Return word number `column` of each line in `lines`; words and lines count from 0."""
        words = self.first[lines] + column
        bounds = zip(self.starts[words].tolist(), self.ends[words].tolist())
        return [self.text[start:end] for start, end in bounds]

    def flags(self, lines: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Read word `column` (from 0) of each line with an index in `lines`; a word is "1" for yes, and "-1" or "0" for no.

        Returns:
            (N,) int64, 1 for yes and 0 for any other word; and (N,) bool, true if the word is "1", "-1" or "0".
        """
        words, digits = self.first[lines] + column, self.digits(lines, column)
        start, end = self.starts[words], self.ends[words]
        minus_one = (end == start + 2) & (self.characters[start] == ord("-")) & (self.characters[end - 1] == ord("1"))
        return (digits == 1).astype(np.int64), (digits == 0) | (digits == 1) | minus_one

    def digits(self, lines: np.ndarray, column: int) -> np.ndarray:
        """Return word number `column` of each line in `lines` as int64 if it is a single digit, and else −1."""
        words = self.first[lines] + column
        values = self.characters[self.starts[words]].astype(np.int64) - ord("0")
        is_digit = (self.ends[words] == self.starts[words] + 1) & (values >= 0) & (values <= 9)
        return np.where(is_digit, values, -1)


def split_words(file: Path) -> Words:
    """Split a file into words at commas and spaces; any line end and a byte-order mark are accepted."""
    try:
        content = read_bytes(file).removeprefix(b"\xef\xbb\xbf").rstrip() + b"\n"
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}; make it readable") from None
    characters = np.frombuffer(content, dtype=np.uint8)
    between = (characters <= ord(" ")) | (characters == ord(","))
    edges = np.flatnonzero(np.diff(between, prepend=True))  # the start of a word, its end, the next start, …
    starts, ends = edges[::2], edges[1::2]
    line_ends = np.flatnonzero(characters == ord("\n"))
    first = np.searchsorted(starts, np.concatenate([[0], line_ends[:-1]]))
    text = content.decode("ascii", errors="replace")  # one character a byte
    if text.startswith(","):
        raise BadInput(
            f"{file} line 1: the first column has no name, most likely because pandas wrote its index; write the file with "
            "to_csv(…, index=False)"
        )
    return Words(text, characters, starts, ends, first)

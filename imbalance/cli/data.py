"""Download, verify, build and describe data sets: the commands `imbalance data …`."""

import glob
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import resolve
from imbalance.config.schema import build as build_section
from imbalance.data import CORPORA, LISTINGS, Dataset, load
from imbalance.data.cut import cut_path, write_cut
from imbalance.data.download import download as fetch
from imbalance.data.identity import dataset_duplicates, digest, duplicates
from imbalance.data.images.decode import decode, image_mode
from imbalance.data.images.decode_pool import check_images
from imbalance.data.images.listing import Listing, with_preparation
from imbalance.data.images.sheet import is_sheet, write_sheet
from imbalance.data.images.store import damage, file_stamps, stored_checksums
from imbalance.data.population import SPLITS, missing_examples
from imbalance.data.problems import DataProblems, Problem, problem_lines
from imbalance.data.sets.class_map import build_source
from imbalance.data.sets.drawn import SOURCE_SEED
from imbalance.data.sets.encoded_table import forget_checks
from imbalance.data.sources import SOURCES
from imbalance.data.splits import Split
from imbalance.data.stores import store_root
from imbalance.data.texts.corpus import token_problems
from imbalance.errors import BadInput, Damaged
from imbalance.models import preparation_of
from imbalance.utils.files import output_path
from imbalance.utils.output import counted
from imbalance.utils.read import read_json

KINDS_SHOWN = 10  # kinds of problems that `verify` prints


def download(*, name: str, data_dir: str) -> None:
    """Download a data set into `data_dir`, after printing its licence."""
    from imbalance.cli.main import did_you_mean

    if name not in SOURCES:
        raise BadInput(
            f"{name}: no data set to download has this name; {did_you_mean(name, SOURCES) or 'valid: ' + ', '.join(sorted(SOURCES))}"
        )
    fetch(name, data_dir)


def build(*, config: str, overrides: Mapping[str, Any]) -> None:
    """Decode the images of a config's data set into its store on disk; do nothing if the store exists."""
    load_dataset(resolve(config, overrides)[0])


def load_dataset(experiment: Experiment) -> Dataset:
    """Return the data set of a config, with images resized and normalised as the pretrained weights of its model need."""
    return load(experiment.data, experiment.data_dir, experiment.seed, preparation_of(experiment.model))


def cut(*, config: str, output: str, overrides: Mapping[str, Any]) -> None:
    """Write the examples that a config uses to a file in the folder `output`, and print how to use the file.

    If each seed draws its examples from another data set ("drawn"), write that data set, which serves every seed.
    """
    experiment, _ = resolve(config, overrides)
    section, seed = experiment.data, experiment.seed
    if section["name"] == "drawn":
        section, seed = experiment.to_dict()["data"]["source"], SOURCE_SEED
        dataset, every_seed = build_source(section, experiment.data_dir, seed), False
    else:
        dataset = load_dataset(experiment)
        other_seed = load(section, experiment.data_dir, seed + 1, preparation_of(experiment.model))
        every_seed = digest(other_seed) == digest(dataset)
    path = cut_path(section, output, None if every_seed else seed)
    write_cut(dataset, path)
    serves = f"seed {seed}" if section is experiment.data and not every_seed else "every seed"
    print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB, {serves}")
    print(f"to use it: --config.data_dir={output}")


def describe(*, config: str, sheet: str, overrides: Mapping[str, Any]) -> None:
    """Print the number of examples of every split, class and group; write sample images to the image file `sheet`."""
    experiment, _ = resolve(config, overrides)
    file = output_path(sheet, "--sheet", is_sheet)
    dataset = load_dataset(experiment)
    print(count_table(dataset))
    for note in (*missing_examples(dataset), *dataset_duplicates(dataset)):
        print(f"note: {note}")
    if len(dataset.input_shape) == 3:
        write_sheet(dataset, file)
        print(f"sample images of every group: {sheet}")


def verify(*, config: str, every: bool, overrides: Mapping[str, Any]) -> int:
    """Open every image or text of a config's data set, and print the problems of the data set and of its stores.

    Return the exit status: 2 if there is a problem, and 0 otherwise. A store is a copy of the data on disk, as decoded
    pixels, as tokens or as an encoded table.

    Args:
        every: True to print every problem; False to print one problem for each cause, and at most `KINDS_SHOWN` causes.
    """
    experiment, _ = resolve(config, overrides)
    section, arguments = dict(experiment.data), {"data_dir": experiment.data_dir, "seed": experiment.seed}
    name, notes = section["name"], []
    if name in LISTINGS:
        listing = with_preparation(build_section(LISTINGS, section, **arguments), preparation_of(experiment.model))
        problems, notes = listing_problems(listing, experiment.data_dir)
        name, size = listing.name, len(listing.paths)
    else:
        size = 0
        forget_checks(experiment.data_dir)
        try:
            problems, size = corpus_problems(section, **arguments) if name in CORPORA else ([], 0)
            if not problems:
                dataset = load(section, **arguments)
                notes = [*dataset.notes, *missing_examples(dataset), *dataset_duplicates(dataset)]
                size = sum(len(getattr(dataset, split)) for split in SPLITS)
        except DataProblems as error:
            problems = error.problems
    problems += store_problems(store_root(experiment.data_dir), name)
    for line in map(str, problems) if every else problem_lines(problems, KINDS_SHOWN):
        print(line, file=sys.stderr)
    for note in notes:
        print(f"note: {note}")
    print(f"{name}: {counted(size, 'example')}, {counted(len(problems), 'problem')}")
    return 2 if problems else 0


def listing_problems(listing: Listing, data_dir: str) -> tuple[list[Problem], list[str]]:
    """Return a tuple: the problems in the metadata, splits and images of an image data set, and a list of notes.

    The notes tell which images are left out and which are duplicates. Every image is opened, and its pixels are
    compared with those in the store, the file of decoded images.
    """
    files = listing.folder, listing.paths
    stamps, problems = file_stamps(*files, listing.where)
    checksums, damaged = check_images(*files, listing.recipe, listing.where)
    missing = {problem.place for problem in problems}
    problems = listing.problems + listing.split_problems() + problems + [p for p in damaged if p.place not in missing]
    directory, stored = stored_checksums(data_dir, listing.name, listing.paths, listing.recipe, stamps)
    if directory:
        different = np.flatnonzero((stored != checksums) & (checksums != 0)).tolist()
        cause = (
            f"its pixels differ from those in its store; remove {directory}, and the next run decodes all images again"
        )
        problems += [Problem(f"{listing.where(row)}: {listing.paths[row]}", cause) for row in different]

    readable: list[int] = np.flatnonzero(checksums).tolist()  # an image that cannot be read has checksum 0

    def equal(i: int, j: int) -> bool:
        one, other = (decode(listing.folder / listing.paths[readable[k]], listing.recipe) for k in (i, j))
        return bool((one == other).all())

    labels = np.stack([listing.targets, listing.groups], 1)
    places = [f"{listing.paths[row]} ({listing.where(row)})" for row in readable]
    notes = [*listing.notes, *converted_modes(listing, readable)]
    notes += duplicates(checksums[readable], listing.splits[readable], labels[readable], equal, places.__getitem__)
    return problems, notes


def converted_modes(listing: Listing, rows: Sequence[int]) -> list[str]:
    """Return a note on the images that are converted to the colour mode of the network's inputs; [] if there are none.

    Args:
        rows: the positions of the images that can be read.
    """
    recipe, modes = listing.recipe, Counter()
    if ("convert", 0) not in recipe.steps:
        return []
    for row in rows:
        modes[image_mode(listing.folder / listing.paths[row])] += 1
    del modes[recipe.mode]
    counts = ", ".join(f"{n:,} of mode {mode}" for mode, n in modes.most_common())
    return [f"{counted(modes.total(), 'image')} converted to {recipe.mode}: {counts}"] if modes else []


def corpus_problems(section: Mapping[str, Any], data_dir: str, seed: int) -> tuple[list[Problem], int]:
    """Return a tuple: the problems of a data set of texts, and the number of its texts.

    Texts, labels and splits are checked first; if they have no problem, the store of tokens on disk is checked, too.

    Args:
        section: `config.data`.
    """
    corpus = build_section(CORPORA, section, data_dir=data_dir, seed=seed)
    return corpus.all_problems() or token_problems(corpus, data_dir), len(corpus.texts)


def store_problems(folder: Path, name: str) -> list[Problem]:
    """Recompute the checksums of all stores in `folder` that belong to the data set `name`, and return the problems.

    A store is a copy of the data on disk, as decoded pixels or as tokens.
    """
    problems = []
    for description in sorted(folder.glob(f"{glob.escape(name)}-*/store.json")):
        try:
            shape = tuple(read_json(description)["shape"])
        except (Damaged, OSError, KeyError, TypeError) as error:
            cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            problems.append(Problem(str(description), f"damaged ({cause}); remove {description.parent}"))
            continue
        damages = damage(description.parent, shape, every_row=True)
        problems += [Problem(place, f"{cause}; remove {description.parent}") for place, cause in damages]
    return problems


def count_table(dataset: Dataset) -> str:
    """Return a text table with the number of examples of each class and group in each split."""
    lines = [*dataset.notes, ""] if dataset.notes else []
    lines += _count_lines("class", dataset, lambda data, split: (data.class_names, data.class_counts(split)))
    if dataset.group_names != dataset.class_names:
        lines += _count_lines("group", dataset, lambda data, split: (data.group_names, data.group_counts(split)))
    if dataset.evaluation_names:  # an example can be in several evaluation groups or in none, so they have no total
        lines += _count_lines(
            "evaluation group",
            dataset,
            lambda data, split: (data.evaluation_names, data.eval_group_counts(split)),
            False,
        )
    return "\n".join(lines)


def _count_lines(
    kind: str,
    dataset: Dataset,
    names_and_counts: Callable[[Dataset, Split], tuple[tuple[str, ...], Tensor]],
    total: bool = True,
) -> list[str]:
    """Return one line for each class or group, with its number of examples in every split.

    Args:
        kind: "class", "group" or "evaluation group", for the heading.
        names_and_counts: function that takes the data set and one of its splits, and returns the names of the classes or
            groups, and the number of examples of each.
        total: add a line with the sum over all classes or groups.
    """
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        source = dataset if split == "train" else dataset.eval_dataset
        names, numbers = names_and_counts(source, getattr(source, split))
        counts[split] = dict(zip(names, numbers.tolist()))
    names = tuple(dict.fromkeys(name for numbers in counts.values() for name in numbers))
    width = max(map(len, (*names, kind)))
    lines = [f"{kind:{width}}" + "".join(f"{split:>10}" for split in SPLITS)]
    for name in names:
        cells = (f"{counts[split][name]:10,}" if name in counts[split] else f"{'-':>10}" for split in SPLITS)
        lines.append(f"{name:{width}}" + "".join(cells))
    if total:
        lines.append(f"{'all':{width}}" + "".join(f"{sum(counts[split].values()):10,}" for split in SPLITS))
    return [*lines, ""]

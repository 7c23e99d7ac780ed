"""What `imbalance data …` does."""

import glob
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.config.experiment import Experiment, validate
from imbalance.config.resolve import config_file, override
from imbalance.config.resolve import load as load_config
from imbalance.config.schema import build as build_section
from imbalance.data import CORPORA, LISTINGS, Dataset, load
from imbalance.data.download import download as fetch
from imbalance.data.identity import dataset_duplicates, duplicates
from imbalance.data.images.decode import decode
from imbalance.data.images.decode_pool import check_images
from imbalance.data.images.listing import Listing, with_preparation
from imbalance.data.images.sheet import write_sheet
from imbalance.data.images.store import damage, file_stamps, stored_checksums
from imbalance.data.population import SPLITS, missing_examples
from imbalance.data.problems import Problem, problem_lines
from imbalance.data.sources import SOURCES
from imbalance.data.stores import store_root
from imbalance.data.texts.corpus import KEYS, token_problems
from imbalance.errors import BadInput
from imbalance.models import preparation_of

SHOWN = 10  # kinds of problems that `verify` prints


def read(config: str, overrides: Mapping[str, Any]) -> Experiment:
    return validate(override(load_config(config_file(config)), overrides))


def download(*, name: str, data_dir: str) -> None:
    """Fetch a data set into `data_dir`, after saying under which licence."""
    from imbalance.cli.main import did_you_mean

    if name not in SOURCES:
        raise BadInput(f"{name}: nothing to download; {did_you_mean(name, SOURCES) or ', '.join(sorted(SOURCES))}")
    fetch(name, data_dir)


def build(*, config: str, overrides: Mapping[str, Any]) -> None:
    """Decode the images of a config's data, where they are not yet."""
    found = read(config, overrides)
    load(found.data, found.data_dir, found.seed, preparation_of(found.model))


def describe(*, config: str, sheet: str, overrides: Mapping[str, Any]) -> None:
    """Print how many examples there are of everything, and write a sheet of sample images where they are images."""
    found = read(config, overrides)
    dataset = load(found.data, found.data_dir, found.seed, preparation_of(found.model))
    print(counts_of(dataset))
    for remark in (*missing_examples(dataset), *dataset_duplicates(dataset)):
        print(f"note: {remark}")
    if len(dataset.input_shape) == 3:
        write_sheet(dataset, Path(sheet))
        print(f"sample images of every group: {sheet}")


def verify(*, config: str, every: bool, overrides: Mapping[str, Any]) -> int:
    """Print what is wrong with the data that a config names, opening every image and every text, and with its stores.

    Args:
        every: print every problem, not one of each of the first `SHOWN` kinds.
    """
    config = read(config, overrides)
    section, provided = dict(config.data), {"data_dir": config.data_dir, "seed": config.seed}
    name, notes = section["name"], []
    if name in LISTINGS:
        listing = with_preparation(build_section(LISTINGS, section, **provided), preparation_of(config.model))
        problems, notes = listing_problems(listing, config.data_dir)
        name, size = listing.name, len(listing.paths)
    else:
        problems, size = corpus_problems(section, **provided) if name in CORPORA else ([], 0)
        if not problems:
            dataset = load(section, **provided)
            notes = [*missing_examples(dataset), *dataset_duplicates(dataset)]
            size = sum(len(getattr(dataset, name)) for name in SPLITS)
    problems += store_problems(store_root(config.data_dir), name)
    for line in map(str, problems) if every else problem_lines(problems, SHOWN):
        print(line, file=sys.stderr)
    for note in notes:
        print(f"note: {note}")
    print(f"{name}: {size:,} examples, {len(problems):,} problems")
    return 2 if problems else 0


def listing_problems(listing: Listing, data_dir: str) -> tuple[list[Problem], list[str]]:
    """Everything that is wrong: metadata, splits and, opening every one, the images, compared with their store's; and
    which of them are copies."""
    files = listing.folder, listing.paths
    stamps, problems = file_stamps(*files, listing.where)
    checksums, damaged = check_images(*files, listing.recipe, listing.where)
    found = {problem.place for problem in problems}
    problems = listing.problems + listing.split_problems() + problems + [p for p in damaged if p.place not in found]
    directory, stored = stored_checksums(data_dir, listing.name, listing.paths, listing.recipe, stamps)
    if directory:
        other = np.flatnonzero((stored != checksums) & (checksums != 0))
        cause = f"not the pixels that its store has; remove {directory} and the next run decodes it anew"
        problems += [Problem(f"{listing.where(row)}: {listing.paths[row]}", cause) for row in other]

    def equal(i: int, j: int) -> bool:
        one, other = (decode(listing.folder / listing.paths[row], listing.recipe) for row in (i, j))
        return bool((one == other).all())

    labels = np.stack([listing.targets, listing.groups], 1)
    whole = np.flatnonzero(checksums)
    place = [f"{listing.paths[row]} ({listing.where(row)})" for row in whole]
    notes = duplicates(
        checksums[whole],
        listing.splits[whole],
        labels[whole],
        lambda i, j: equal(whole[i], whole[j]),
        place.__getitem__,
    )
    return problems, notes


def corpus_problems(section: Mapping[str, Any], data_dir: str, seed: int) -> tuple[list[Problem], int]:
    """Everything that is wrong with texts, their labels and splits, or else with the store of their tokens; and how many
    texts there are."""
    keys = {key: section[key] for key in KEYS}
    listed = {key: value for key, value in section.items() if key not in KEYS}
    corpus = build_section(CORPORA, listed, data_dir=data_dir, seed=seed)
    return corpus.all_problems() or token_problems(corpus, data_dir, **keys), len(corpus.texts)


def store_problems(folder: Path, name: str) -> list[Problem]:
    """What is wrong with each store of a data set, comparing every checksum."""
    problems = []
    for description in sorted(folder.glob(f"{glob.escape(name)}-*/store.json")):
        try:
            shape = tuple(json.loads(description.read_text())["shape"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(Problem(str(description), f"{error}; remove {description.parent}"))
            continue
        wrong = damage(description.parent, shape, 0)
        problems += [Problem(place, f"{cause}; remove {description.parent}") for place, cause in wrong]
    return problems


def counts_of(dataset: Dataset) -> str:
    """Counts of every split, class and group, as a table."""
    lines = [*dataset.notes, ""] if dataset.notes else []
    kinds = {
        "class": lambda of, split: (of.class_names, of.class_counts(split)),
        "group": lambda of, split: (of.group_names, of.group_counts(split)),
        "evaluation group": lambda of, split: (of.evaluation_names, of.eval_group_counts(split)),
    }
    for kind, counted in kinds.items():
        absent = {"group": dataset.group_names == dataset.class_names, "evaluation group": not dataset.evaluation_names}
        if absent.get(kind):
            continue
        sources = {"train": dataset, "val": dataset.eval_dataset, "test": dataset.eval_dataset}
        found = {split: counted(of, getattr(of, split)) for split, of in sources.items()}
        names = tuple(dict.fromkeys(name for of_split, _ in found.values() for name in of_split))
        width = max(map(len, (*names, kind)))
        lines.append(f"{kind:{width}}" + "".join(f"{split:>10}" for split in SPLITS))
        counts = {split: dict(zip(of_split, numbers.tolist())) for split, (of_split, numbers) in found.items()}
        for name in names:
            cells = (f"{counts[split][name]:10,}" if name in counts[split] else f"{'-':>10}" for split in SPLITS)
            lines.append(f"{name:{width}}" + "".join(cells))
        if kind != "evaluation group":  # in which an example can be in several, or in none
            lines.append(f"{'all':{width}}" + "".join(f"{sum(counts[split].values()):10,}" for split in SPLITS))
        lines.append("")
    return "\n".join(lines)

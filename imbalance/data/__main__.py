"""Getting and checking data: `python -m imbalance.data download waterbirds --data_dir=data`, and

    python -m imbalance.data verify   --config=configs/waterbirds_ce.py   # everything that is wrong, a line a kind
    python -m imbalance.data build    --config=configs/waterbirds_ce.py   # decode the images before a run does
    python -m imbalance.data describe --config=configs/waterbirds_ce.py   # counts, and a sheet of sample images

with overrides as for main.py. Exit status 0, or 2 with one line (verify: a line a kind of problem; with --all one a problem) on stderr.
"""

import argparse
import glob
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from imbalance.config import validate
from imbalance.data import LISTINGS, Dataset, load
from imbalance.data.decode import decode
from imbalance.data.download import download
from imbalance.data.identity import copies, copies_in
from imbalance.data.listing import Listing
from imbalance.data.population import SPLITS, remarks
from imbalance.data.problems import Problem, grouped
from imbalance.data.sheet import write_sheet
from imbalance.data.sources import SOURCES
from imbalance.data.store import damage, image_problems, root, stamps_of, stored_checksums
from imbalance.errors import BadInput
from imbalance.schema import build

SHOWN = 10  # kinds of problems that `verify` tells


def main() -> int:
    """Do what `sys.argv` asks, where ml_collections looks for its overrides too, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m imbalance.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("download", help="fetch a data set, after saying under which licence")
    fetching.add_argument("name", choices=sorted(SOURCES))
    fetching.add_argument("--data_dir", default="data")
    for name, purpose in (
        ("verify", "list every problem"),
        ("build", "decode the images"),
        ("describe", "count, show"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--config", required=True, help="a file of configs/; --config.<key>=<value> overrides")
        if name == "verify":
            command.add_argument("--all", action="store_true", help="a line for every problem, not for every kind")
        if name == "describe":
            command.add_argument("--sheet", type=Path, default=Path("sheet.png"), help="where the sample images go")
    arguments, overrides = parser.parse_known_args()
    try:
        if arguments.command == "download":
            if overrides:
                parser.error(f"unexpected argument {overrides[0]!r}")
            download(arguments.name, arguments.data_dir)
            return 0
        config = read_config(arguments.config, overrides)
        if arguments.command == "verify":
            return verify(config, arguments.all)
        dataset = load(config.data, config.data_dir, config.seed)
        if arguments.command == "describe":
            print(describe(dataset))
            for remark in (*remarks(dataset), *copies_in(dataset)):
                print(f"note: {remark}")
            if len(dataset.input_shape) == 3:
                write_sheet(dataset, arguments.sheet)
                print(f"sample images of every group: {arguments.sheet}")
    except BadInput as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"{error.filename or 'config.data_dir'}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def read_config(path: str, overrides: list[str]) -> ConfigDict:
    """The config of a file with the overrides of the command line, validated."""
    if not Path(path).is_file():
        raise BadInput(f"--config: no file {path}")
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        rest = values(["imbalance.data", f"--config={path}", *overrides])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput("--config: " + " ".join(str(error).strip("'\"").split())) from None
    if rest:
        raise BadInput(f"{rest[0]!r}: unexpected argument; an override reads --config.<key>=<value>")
    return validate(holder.value)


def verify(config: ConfigDict, every: bool) -> int:
    """Print what is wrong with the data that a config names, opening every image, and with its stores.

    Args:
        every: print every problem, not one of each of the first `SHOWN` kinds.
    """
    section, provided = dict(config.data), {"data_dir": config.data_dir, "seed": config.seed}
    name, notes = section["name"], []
    if name in LISTINGS:
        listing = build(LISTINGS, section, **provided)
        problems, notes = listing_problems(listing, config.data_dir)
        name, size = listing.name, len(listing.paths)
    else:
        dataset = load(section, **provided)
        problems, notes = [], [*remarks(dataset), *copies_in(dataset)]
        size = sum(len(getattr(dataset, name)) for name in SPLITS)
    problems += store_problems(root(config.data_dir), name)
    for line in map(str, problems) if every else grouped(problems, SHOWN):
        print(line, file=sys.stderr)
    for note in notes:
        print(f"note: {note}")
    print(f"{name}: {size:,} examples, {len(problems):,} problems")
    return 2 if problems else 0


def listing_problems(listing: Listing, data_dir: str) -> tuple[list[Problem], list[str]]:
    """Everything that is wrong: metadata, splits and, opening every one, the images, compared with their store's; and
    which of them are copies."""
    files = listing.folder, listing.paths
    stamps, problems = stamps_of(*files, listing.where)
    checksums, damaged = image_problems(*files, listing.recipe, listing.where)
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
    notes = copies(
        checksums[whole],
        listing.splits[whole],
        labels[whole],
        lambda i, j: equal(whole[i], whole[j]),
        place.__getitem__,
    )
    return problems, notes


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


def describe(dataset: Dataset) -> str:
    """Counts of every split, class and group, as a table."""
    lines = [*dataset.notes, ""] if dataset.notes else []
    for kind in ("class", "group"):
        if kind == "group" and dataset.group_names == dataset.class_names:
            continue
        sources = {"train": dataset, "val": dataset.judged, "test": dataset.judged}
        names = tuple(dict.fromkeys(name for of in sources.values() for name in getattr(of, f"{kind}_names")))
        width = max(map(len, (*names, kind)))
        lines.append(f"{kind:{width}}" + "".join(f"{split:>10}" for split in SPLITS))
        counts = {}
        for split, of in sources.items():
            found = getattr(of, f"{kind}_counts")(getattr(of, split)).tolist()
            counts[split] = dict(zip(getattr(of, f"{kind}_names"), found))
        for name in names:
            cells = (f"{counts[split][name]:10,}" if name in counts[split] else f"{'-':>10}" for split in SPLITS)
            lines.append(f"{name:{width}}" + "".join(cells))
        lines.append(f"{'all':{width}}" + "".join(f"{sum(counts[split].values()):10,}" for split in SPLITS))
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

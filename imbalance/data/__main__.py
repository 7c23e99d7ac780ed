"""Getting and checking data: `python -m imbalance.data download waterbirds --data_dir=data`, and

    python -m imbalance.data verify   --config=configs/waterbirds_ce.py   # everything that is wrong, a line each
    python -m imbalance.data build    --config=configs/waterbirds_ce.py   # decode the images before a run does
    python -m imbalance.data describe --config=configs/waterbirds_ce.py   # counts, and a sheet of sample images

with overrides as for main.py. Exit status 0, or 2 with one line (verify: a line a problem) on stderr.
"""

import argparse
import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from imbalance.config import validate
from imbalance.data import DATASETS, LISTINGS, Dataset
from imbalance.data.download import download
from imbalance.data.listing import SPLITS
from imbalance.data.sheet import write_sheet
from imbalance.data.sources import SOURCES
from imbalance.data.store import damage
from imbalance.errors import BadInput
from imbalance.schema import build


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
            return verify(config)
        dataset = build(DATASETS, config.data, data_dir=config.data_dir, seed=config.seed)
        if arguments.command == "describe":
            print(describe(dataset))
            write_sheet(dataset, arguments.sheet)
            print(f"sample images of every group: {arguments.sheet}")
    except BadInput as error:
        print(error, file=sys.stderr)
        return error.exit_status
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


def verify(config: ConfigDict) -> int:
    """Print every problem of the data that a config names, opening every image, and of its stores."""
    section, provided = dict(config.data), {"data_dir": config.data_dir, "seed": config.seed}
    problems, name = [], section["name"]
    if name in LISTINGS:
        listing = build(LISTINGS, section, **provided)
        problems += listing.all_problems()
        name, size = listing.name, len(listing.paths)
    else:
        dataset = build(DATASETS, section, **provided)
        size = sum(len(getattr(dataset, name)) for name in SPLITS)
    problems += store_problems(Path(config.data_dir) / "decoded", name)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{name}: {size:,} examples, {len(problems):,} problems")
    return 2 if problems else 0


def store_problems(folder: Path, name: str) -> list[str]:
    """What is wrong with each store of a data set, comparing every checksum."""
    problems = []
    for description in sorted(folder.glob(f"{name}-*/store.json")):
        try:
            shape = tuple(json.loads(description.read_text())["shape"])
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{description}: {error}")
            continue
        problems += [f"{problem}; remove {description.parent}" for problem in damage(description.parent, shape, 0)]
    return problems


def describe(dataset: Dataset) -> str:
    """Counts of every split, class and group, as a table."""
    lines = []
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

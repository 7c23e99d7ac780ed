"""Every run under a work_dir as a row of one table, CSV or Parquet by the suffix.

    imbalance collect --work_dir=runs --output=runs.parquet

A row has the config, flattened, the run's status, score, seconds and every metric of the selected weights. No run is
left out: one that has no summary yet is `incomplete`, one whose summary cannot be read `damaged`, and diverged and
interrupted ones are counted like the others.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.report import tables
from imbalance.report.saved_runs import summary_of
from imbalance.utils.output import one_line

Row = dict[str, Any]
INCOMPLETE = {"status": "incomplete", "groups": {"test": {}}}  # in place of a summary that is not there yet
OF_SUMMARY = (
    "score",
    "epoch",
    "step",
    "selected_epoch",
    "interpolation_epoch",
    "seconds",
    "warnings",
    "device",
    "commit",
)


def collect(work_dir: Path) -> list[Row]:
    """A row for every directory that holds a config.json, sorted by directory.

    Keys: name (of the config file), overrides, status, seed, the keys of OF_SUMMARY, config.<key> for every value of
    the config, test/examples/<group>, how many there are of each, and <split>/<metric> where the run is done.
    """
    rows = []
    for path in sorted(work_dir.rglob("config.json")):
        directory = path.parent
        if directory.name == "first" or "wandb" in directory.relative_to(work_dir).parts:  # a part of the run above it
            continue
        config = config_of(path)
        if config is None:
            continue
        summary = summary_or_status(directory)
        rows.append(
            {
                "run": str(directory.relative_to(work_dir)),
                "name": directory.absolute().parts[-3],
                "overrides": directory.absolute().parts[-2],
                "seed": config["seed"],
                "status": summary["status"],
                **{key: summary.get(key) for key in OF_SUMMARY},
                **{f"config.{key}": value for key, value in flatten(config).items()},
                **(summary.get("metrics") or {}),
                **{f"test/examples/{group}": n for group, n in summary["groups"]["test"].items()},
            }
        )
    return rows


def summary_or_status(directory: Path) -> dict[str, Any]:
    """A run's summary; in its place INCOMPLETE where there is none yet, or the same of a damaged one."""
    try:
        summary = summary_of(directory)
    except FileNotFoundError:
        return INCOMPLETE
    except (BadInput, OSError):
        return INCOMPLETE | {"status": "damaged"}
    groups = summary.get("groups")
    whole = isinstance(groups, dict) and isinstance(groups.get("test"), dict)
    whole &= all(isinstance(summary.get(key), int | float | None) for key in ("score", "seconds"))
    whole &= summary["status"] != "done" or isinstance(summary.get("metrics"), dict)
    return summary if whole else INCOMPLETE | {"status": "damaged"}


def config_of(path: Path) -> dict[str, Any] | None:
    """A run's config; None, and a line on stderr, for a file that is damaged or no run's."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        read = {"trainer.epochs", "optim.lr", "callbacks.monitor", "callbacks.select"}  # of every run, by the report
        if isinstance(config, dict) and isinstance(config.get("seed"), int) and read <= flatten(config).keys():
            return config
        reason = "not the config of a run"
    except (OSError, ValueError) as error:
        reason = str(error)
    print(one_line(f"{path}: left out: {reason}"), file=sys.stderr)
    return None


def columns(rows: list[Row]) -> list[str]:
    """The keys of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def write_csv(path: Path, rows: list[Row]) -> None:
    """nan and what a row lacks are empty cells."""
    tables.write_csv(path, columns(rows), rows)


def write_parquet(path: Path, rows: list[Row]) -> None:
    """nan and what a row lacks are null; lists, and columns of several types, are JSON text."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"{path}: writing Parquet needs pyarrow: pip install -c constraints.txt -e '.[parquet]'"
        ) from None
    table = {}
    for column in columns(rows):
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if list in kinds or (len(kinds) > 1 and kinds != {int, float}):
            values = [None if value is None else json.dumps(value) for value in values]
        table[column] = values
    pyarrow.parquet.write_table(pyarrow.table(table), path)


WRITERS = {".csv": write_csv, ".parquet": write_parquet}


def write(*, work_dir: str, output: str | None) -> None:
    """Write the table of all runs.

    Args:
        output: a .csv or .parquet file; by default <work_dir>/runs.csv.
    """
    path = Path(output or Path(work_dir) / "runs.csv")
    if path.suffix not in WRITERS:
        raise BadInput(f"--output={path}: must end in one of {', '.join(WRITERS)}")
    rows = collect(Path(work_dir))
    if not rows:
        raise BadInput(f"--work_dir={work_dir}: no runs there")
    WRITERS[path.suffix](path, rows)
    counts = Counter(row["status"] for row in rows)
    print(f"{path}: {len(rows)} runs, " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))

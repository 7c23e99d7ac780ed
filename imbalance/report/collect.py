"""Collect the runs under a work_dir in a table with one row per run, and write the table as CSV or Parquet.

    imbalance collect --work_dir=runs --output=runs.parquet

A row has the flattened config, the run's status, score and seconds, and every metric of the selected checkpoint. Diverged
and interrupted runs have rows too. A run without summary.json has the status `incomplete`. A run whose summary.json cannot
be read has the status `damaged`. A finished run with config.debug=True has the status `debug`.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from imbalance.config.run_directory import FILES
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Damaged
from imbalance.report import tables
from imbalance.report.run_index import Part, read_each, run_directories
from imbalance.report.saved_runs import summary_of
from imbalance.utils.files import begins_with, contains, output_path
from imbalance.utils.optional import optional
from imbalance.utils.output import counted, one_line
from imbalance.utils.read import read_json

Row = dict[str, Any]
INCOMPLETE = {"status": "incomplete", "groups": {"test": {}}}  # used as the summary of a run that has no summary.json
ROW_KEYS = ("run", "name", "overrides", "seed", "status")  # first columns of every table of runs
SUMMARY_KEYS = (
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
    """Return a row for every run directory under `work_dir`, sorted by path; unchanged runs are read from the index.

    A row has the keys run (its path under `work_dir`), name (of the config file), overrides, seed, status, and SUMMARY_KEYS.
    It has config.<key> for every value of the config, and test/examples/<group> for the number of test examples of each
    group. The row of a done run also has <split>/<metric> for every metric.
    """
    runs, above, rows = run_directories(work_dir), work_dir.absolute().parts, []
    for run, row in zip(runs, read_each(work_dir, runs, ROW)):
        if row is not None:
            parts = (*above, *Path(run).parts)
            rows.append({"run": run, "name": parts[-3], "overrides": parts[-2], **row})
    return rows


def separate_repeated(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Make runs of one config name, overrides and seed settings of their own, as those of two folders of run directories.

    If such runs were one setting, they would count as two seeds, even if the config file was changed in between.

    Returns:
        The rows, in which the name of such a run begins with its folder, and a warning about the first such runs; "" if
        there are none. Copies of a run directory in one folder get their whole path as name.
    """
    rows, texts = list(rows), []
    for name_of in (lambda row: "/".join([*Path(row["run"]).parts[:-3], row["name"]]), lambda row: row["run"]):
        first_runs: dict[tuple[str, str, Any], str] = {}
        repeated = set()
        for row in rows:
            first = first_runs.setdefault((row["name"], row["overrides"], row["seed"]), row["run"])
            if first != row["run"]:
                repeated.add((row["name"], row["overrides"]))
                texts.append(
                    f"WARNING: {first} and {row['run']} have the same config name, overrides and seed, so they count as two "
                    "settings, named by their folders; type a folder that has one of them as --work_dir to leave out the other"
                )
        rows = [row | {"name": name_of(row)} if (row["name"], row["overrides"]) in repeated else row for row in rows]
    return rows, texts[0] if texts else ""


def read_row(directory: Path) -> Row | None:
    """Return the row of a run without what its path says; None if its config cannot be read, which is printed."""
    summary = summary_or_status(directory)
    config = config_of(directory, summary)
    if config is None:
        return None
    return {
        "seed": config["seed"],
        # Its metrics are of one batch, so every table of means leaves it out, as it does a run that is not done
        "status": "debug" if config.get("debug") and summary["status"] == "done" else summary["status"],
        **{key: summary.get(key) for key in SUMMARY_KEYS},
        **{f"config.{key}": value for key, value in config.items()},
        **(summary.get("metrics") or {}),
        **{f"test/examples/{group}": n for group, n in summary["groups"]["test"].items()},
    }


ROW = Part("row", ("config.json", "summary.json"), read_row, lambda row: row["status"] != "damaged")


def summary_or_status(directory: Path) -> dict[str, Any]:
    """Return the content of a run's summary.json.

    If the file is missing, return INCOMPLETE, which has the status "incomplete". If it is invalid, return INCOMPLETE
    with the status "damaged".
    """
    try:
        summary = summary_of(directory)
    except FileNotFoundError:
        return INCOMPLETE
    except (BadInput, OSError):
        return INCOMPLETE | {"status": "damaged"}
    return summary if summary.get("groups") else INCOMPLETE | {"status": "damaged", FILES: summary.get(FILES, {})}


def config_of(directory: Path, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the values of a run's config.json by full key, such as "optim.lr".

    If the file is damaged or is no run's config, print a warning and return None.

    Args:
        summary: content of the run's summary.json, which may have the digest of the config.
    """
    path = directory / "config.json"
    try:
        config = flatten(read_json(path, summary.get(FILES, {}).get(path.name)))
        needed = {"trainer.epochs", "callbacks.monitor", "callbacks.select"}  # the report reads these keys
        if isinstance(config.get("seed"), int) and needed <= config.keys():
            return config
        reason = f"a run's config has an integer seed and the keys {', '.join(sorted(needed))}"
    except Damaged as error:
        reason = f"damaged ({error.reason})"
    except OSError as error:
        reason = error.strerror or str(error)
    print(one_line(f"{path} is left out: {reason}; move the file elsewhere, or train the run again"), file=sys.stderr)
    return None


def values_under(row: Row, *prefixes: str) -> Row:
    """Return the values of a row whose keys begin with one of `prefixes`."""
    return {key: row[key] for key in _keys_under(tuple(row), prefixes)}


@lru_cache(maxsize=4096)
def _keys_under(keys: tuple[str, ...], prefixes: tuple[str, ...]) -> list[str]:
    return [key for key in keys if key.startswith(prefixes)]


def columns(rows: list[Row]) -> list[str]:
    """Return all keys that occur in at least one row: the columns of a table, in order of their first appearance."""
    return list(dict.fromkeys(key for keys in dict.fromkeys(map(tuple, rows)) for key in keys))


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write the rows as CSV; nan and missing keys are empty cells."""
    tables.write_csv(path, columns(rows), rows)


def write_parquet(path: Path, rows: list[Row]) -> None:
    """Write the rows as Parquet. nan and missing keys are null; lists, and columns of mixed types, are JSON text.

    Raises:
        BadInput: pyarrow is not installed.
    """
    install = "Parquet files need pyarrow, which is not installed; type pip install -c constraints.txt -e '.[parquet]'"
    with optional("pyarrow", message=f"{path}: {install}"):
        import pyarrow
        import pyarrow.parquet
    table = {}
    for column in columns(rows):
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if list in kinds or (len(kinds) > 1 and kinds != {int, float}):
            values = [None if value is None else json.dumps(value) for value in values]
        table[column] = values
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def is_collected(path: Path) -> bool:
    """Return whether the file is a table that `write_csv` or `write_parquet` wrote."""
    is_parquet = begins_with(path, b"PAR1") and contains(path, b"config.callbacks.select")  # the name of a column
    return is_parquet or begins_with(path, ",".join(ROW_KEYS).encode() + b",")


WRITERS = {".csv": write_csv, ".parquet": write_parquet}


def write(*, work_dir: str, output: str | None) -> None:
    """Write the table of all runs under `work_dir`.

    Args:
        output: a .csv or .parquet file; <work_dir>/runs.csv if None.
    """
    path = Path(output or Path(work_dir) / "runs.csv")
    if path.suffix not in WRITERS:
        raise BadInput(
            f"--output={path} does not end in {' or '.join(WRITERS)}; type such a name, as --output=runs.csv"
        )
    if not Path(work_dir).is_dir():
        raise BadInput(
            f"--work_dir={work_dir} is no folder; type the folder that has the run directories, as --work_dir=runs"
        )
    suffix, path = path.suffix, output_path(path, "--output", is_collected)
    rows = collect(Path(work_dir))
    if not rows:
        raise BadInput(f"--work_dir={work_dir} has no run directories; type a folder that has some, as --work_dir=runs")
    WRITERS[suffix](path, rows)
    counts = Counter(row["status"] for row in rows)
    print(f"{path}: {counted(len(rows), 'run')}, " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))

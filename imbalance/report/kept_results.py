"""Keep the results of finished runs, from any machine, as rows of the CSV files in results/.

    imbalance keep --work_dir=runs --study=rows      # adds every finished run under runs/ to results/rows.csv
    imbalance keep --work_dir=runs --to=carried      # on a temporary machine: packs every finished run into small files
    imbalance keep --from=carried --study=rows       # elsewhere: unpacks these runs under runs/ and adds them to results/rows.csv

A row has the experiment (config, overrides, seed, digests of the data and of each section of the config), how it was
run (device, threads, processor, number of runs trained together, precision, versions, commit), and its results: every
group's accuracy on train, val and test with the selected checkpoint. If test was evaluated during training, the row
also has the epochs that other selection rules would have selected, and the test accuracies at those epochs. A debug run
is left out. A run that already has a row is skipped, so the command can be repeated. A run is refused if its code had
uncommitted changes, or if its commit is not part of the current branch, because nobody could repeat it; the runs that
are not refused are added. Rows from before this rule have a commit that ends in + if there were uncommitted changes,
and in ? if no clone has the commit.

Each table is a file results/<table>.csv, or .csv.gz for thousands of runs. `--study` names the table.
"""

import csv
import functools
import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from imbalance.config.override_flags import OverrideText
from imbalance.config.renamed import RENAMED
from imbalance.config.resolve import (
    as_file_name,
    config_file,
    defining_values,
    load,
    resolve,
    upgrade_saved_config,
    without_added_keys,
)
from imbalance.config.run_directory import read_predictions, read_run_config
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Damaged
from imbalance.report.collect import config_of, summary_or_status
from imbalance.report.run_index import run_directories
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.utils.files import write_atomic
from imbalance.utils.output import counted
from imbalance.utils.read import read_bytes

Row = dict[str, str]
KEY = ("name", "overrides", "seed", "data")  # the columns that identify a run
# The selection rules, each with the metric that it maximises. Of several epochs with the same value, a rule selects the first.
# The oracle reads test, so nobody can use it in practice, but most papers on long tails report it.
RULES = {
    "best average": "val/accuracy",
    "best balanced": "val/balanced_accuracy",
    "best worst group": "val/worst_group_accuracy",
    "oracle": "test/balanced_accuracy",
}
CONFIG_COLUMNS = {  # column of a row: key of the config
    "set": "data.name", "classes": "data.classes", "model": "model.name", "loss": "loss.name", "weights": "weights.name",
    "exponent": "weights.exponent", "lr": "optim.lr", "momentum": "optim.momentum", "batch size": "trainer.batch_size",
    "epochs": "trainer.epochs",
}  # fmt: skip
CONFIG_DIGESTS = "config"  # column of the digests of the config; rows of older versions have no such cell


def row_of(directory: Path) -> Row | None:
    """Return the row of a run directory, or None if the run is neither done nor diverged, or has config.debug=True."""
    if not (directory / "summary.json").exists():
        return None
    summary = summary_of(directory)
    if summary["status"] not in ("done", "diverged"):
        return None
    config = read_run_config(directory)
    if config.get("debug"):  # its metrics are of one batch
        return None
    trainer = config["trainer"]
    row = {
        "name": directory.absolute().parts[-3], "overrides": directory.absolute().parts[-2], "seed": config["seed"],
        "data": digest(directory) if summary["status"] == "done" else "",
        **settings(config), CONFIG_DIGESTS: config_digests(config),
        "status": summary["status"], "epoch": summary["epoch"], "interpolation epoch": summary["interpolation_epoch"],
        "groups": "|".join(summary["groups"]["test"]),
        **{f"{split} counts": "|".join(map(str, counts.values())) for split, counts in summary["groups"].items()},
    }  # fmt: skip
    if summary["status"] == "done":
        row |= {"selected epoch": summary["selected_epoch"]}
        for split in ("train", "val", "test"):
            row |= accuracies(split, summary["metrics"], split)
        row |= selected_by_rules(evaluations_of(directory))
    precision = trainer["dtype"] if trainer["mixed_precision"] == "no" else trainer["mixed_precision"]
    row |= {
        "seconds": round(summary["seconds"], 1), "together": summary["together"],
        "threads": summary.get("threads"), "processor": summary.get("processor"), "device": summary["device"],
        "precision": precision + (" channels last" if trainer["channels_last"] else ""),
        "versions": " ".join(f"{name}={version}" for name, version in summary["versions"].items() if version),
        "commit": (summary["commit"] or "")[:10] + ("+" if (summary["commit"] or "").endswith("+") else ""),
    }  # fmt: skip
    return {key: text(value) for key, value in row.items()}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config's value for each column in CONFIG_COLUMNS, by column; None if the config has no such key."""
    flat = flatten(config)
    return {column: flat.get(key) for column, key in CONFIG_COLUMNS.items()}


def config_digests(config: Mapping[str, Any]) -> str:
    """Return a digest of each section of a config, as text such as "data=1b2f05a7 optim=9c41d0e3".

    The seed is left out, and so are the sections that say where a run reads and writes.

    Args:
        config: content of a config.json, of this version or an older one.
    """
    values = without_added_keys(defining_values(upgrade_saved_config(dict(config))))
    texts = {key: json.dumps(value, sort_keys=True) for key, value in sorted(values.items()) if key != "seed"}
    return " ".join(f"{key}={hashlib.sha256(text.encode()).hexdigest()[:8]}" for key, text in texts.items())


def accuracies(prefix: str, metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """Return two cells for a split: its balanced accuracy, and the accuracies of all its groups in one cell.

    Args:
        prefix: beginning of the two column names.
        metrics: metrics by key, such as "test/balanced_accuracy".
    """
    group_accuracies = [value for key, value in metrics.items() if key.startswith(f"{split}/group_accuracy/")]
    return {
        f"{prefix} balanced": metrics[f"{split}/balanced_accuracy"],
        f"{prefix} of groups": "|".join(map(text, group_accuracies)),
    }


def selected_by_rules(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return cells of a row: for each rule in RULES, the epoch that it selects and the test accuracies at that epoch.

    Further cells have the balanced accuracy at every evaluated epoch. There are no cells if test was not evaluated during
    training.
    """
    if not evaluations or "test/accuracy" not in evaluations[-1]:
        return {}
    values = {"path: epochs": "|".join(str(line["epoch"]) for line in evaluations)}
    for split in ("val", "test"):
        values[f"path: {split} balanced"] = "|".join(text(line[f"{split}/balanced_accuracy"]) for line in evaluations)
    for rule, metric in RULES.items():
        line = max(evaluations, key=lambda line: -math.inf if line[metric] is None else line[metric])  # None: 0/0
        values |= {f"{rule}: epoch": line["epoch"]} | accuracies(f"{rule}: test", line, "test")
    return values


def digest(directory: Path) -> str:
    """Return a hash of the row numbers, targets and groups of each split's examples, but not of their inputs.

    Args:
        directory: run directory.
    """
    sha256 = hashlib.sha256()
    for split in ("train", "val", "test"):
        saved = read_predictions(directory, split)
        for name in ("indices", "targets", "groups"):
            sha256.update(np.ascontiguousarray(saved[name], dtype=np.int64).tobytes())
    return sha256.hexdigest()[:10]


def text(value: Any) -> str:
    """Format a value as a CSV cell. Floats get six decimals, enough to tell apart accuracies on a million examples."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(round(value, 6), ".10g")
    return "+".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


# The files


def file_of(table: str, folder: Path) -> Path:
    """Return the path of the file with the table of results `table`; the file need not exist yet."""
    packed = folder / f"{table}.csv.gz"
    return packed if packed.exists() else packed.with_suffix("")


def read(table: str, folder: Path) -> list[Row]:
    """Read the rows of the table of results `table`; return [] if the table has no file yet.

    If the config of a row was removed from configs/, the row gets the config and overrides that replace it.
    """
    path = file_of(table, folder)
    if not path.exists():
        return []
    try:
        content = gzip.decompress(read_bytes(path)) if path.suffix == ".gz" else read_bytes(path)
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        rows, lines = [], []
        for row in reader:
            rows.append(row)
            lines.append(reader.line_num)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise Damaged(path, str(error)) from None
    if rows and not set(KEY) <= rows[0].keys():
        raise Damaged(path, f"a table of results has the columns {', '.join(KEY)}")
    for row, line in zip(rows, lines):
        if None in row or None in row.values():
            raise Damaged(path, f"line {line} has more or fewer cells than the first line")
        if not row["name"] or not row["seed"].isdecimal():
            raise Damaged(path, f"line {line} is no run: a run has a name, and an integer as its seed")
        if row.get("status", "done") not in ("done", "diverged"):
            raise Damaged(path, f"line {line} has the status {row['status']!r}, not done or diverged")
    return [_with_current_name(row) for row in rows]


def _with_current_name(row: Row) -> Row:
    """Return the row; if its config was removed from configs/, with the config and overrides that replace it."""
    name, overrides = current_name(row["name"], row["overrides"])
    return {**row, "name": name, "overrides": overrides}


@functools.cache
def current_name(name: str, overrides: str) -> tuple[str, str]:
    """Return the config and overrides that replace a removed config and its overrides; a current config stays the same.

    Args:
        name: name of a config, removed or not.
        overrides: overrides as in the name of a run directory, such as "default" or "optim.lr=0.1,seed=3".
    """
    if name not in RENAMED:
        return name, overrides
    config, *flags = RENAMED[name].split()
    file_values = flatten(defining_values(load(config_file(config))))
    changes = {key: OverrideText(value) for key, _, value in (flag.partition("=") for flag in flags)}
    _, directory = resolve(config, changes)
    values = _values_of(directory.parent.name) | _values_of(overrides)
    changed = {
        key: value for key, value in values.items() if key not in file_values or value != as_file_name(file_values[key])
    }
    return config, ",".join(f"{key}={changed[key]}" for key in sorted(changed)) or "default"


def _values_of(overrides: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in overrides.split(",") if "=" in part)


def add(table: str, folder: Path, rows: Iterable[Row], packed: bool = False) -> int:
    """Add to the table of results `table` the rows of runs without a row in the table; return how many were added.

    The file is sorted, so it does not depend on the order in which rows were added. A lock makes commands that add at
    the same time wait for one another.

    Args:
        packed: write the file as .csv.gz.

    Raises:
        BadInput: a row has the key of another row, but another config; then nothing is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{table}.lock"):
        return _add(table, folder, rows, packed)


def check_settings(row: Row, known: Mapping[tuple[str, ...], Row]) -> None:
    """Raise `BadInput` if a known row has the key of `row`, but is of another config: a config file was changed in between.

    Args:
        known: rows by key; see `key_of`.
    """
    if changed := differences(row, known.get(key_of(row), row)):
        raise BadInput(
            f"{row['name']}/{row['overrides']}/seed={row['seed']}: another run has this name and other values: "
            f"{', '.join(changed)}; give the changed config file another name, and train with that"
        )


def differences(row: Row, other: Row) -> list[str]:
    """Return texts that name the config values in which two rows of a config differ, or the sections; [] if they are equal.

    Cells that one of the rows lacks are not compared, because older rows have fewer columns.
    """
    columns = [column for column in CONFIG_COLUMNS if row.get(column) and other.get(column)]
    changed = [
        f"{column} {row[column]} instead of {other[column]}"
        for column in columns
        if not _same(row[column], other[column])
    ]
    # Versions write the same value otherwise in the name of a run directory, so compare what has a column by its column.
    compared = {CONFIG_COLUMNS[column] for column in columns}
    texts, other_texts = _overrides_by_key(row), _overrides_by_key(other)
    changed += [
        f"{texts.get(key, f'no {key}')} instead of {other_texts.get(key, f'no {key}')}"
        for key in sorted(texts.keys() | other_texts.keys())
        if key not in compared and texts.get(key) != other_texts.get(key)
    ]
    if row.get(CONFIG_DIGESTS) and other.get(CONFIG_DIGESTS):
        texts, other_texts = (_values_of(cells[CONFIG_DIGESTS].replace(" ", ",")) for cells in (row, other))
        sections = [key for key in sorted(texts.keys() | other_texts.keys()) if texts.get(key) != other_texts.get(key)]
        changed += [f"other values in config.{key}" for key in sections]
    return changed


def _overrides_by_key(row: Row) -> dict[str, str]:
    """Return each override of a row, such as "optim.lr=0.1", by its key.

    The end of a name that was cut has the key "other overrides": its last key may be cut, and further keys are in its hash.
    """
    parts = [part for part in row["overrides"].split(",") if part not in ("", "default")]
    cut = parts.pop() if re.search("-[0-9a-f]{12}$", row["overrides"]) else ""
    return {part.partition("=")[0]: part for part in parts} | ({"other overrides": cut} if cut else {})


def key_of(row: Row) -> tuple[str, ...]:
    """Return the cells that identify a row."""
    return tuple(row[key] for key in KEY)


def _same(first: str, second: str) -> bool:
    """Return whether two cells are equal, as texts or as numbers: older rows may write a number otherwise."""
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


def _add(table: str, folder: Path, rows: Iterable[Row], packed: bool) -> int:
    old = read(table, folder)
    by_key = {key_of(row): row for row in old}
    known = len(by_key)
    for row in map(_with_current_name, rows):
        check_settings(row, by_key)
        by_key.setdefault(key_of(row), row)
    new = list(by_key.values())[known:]
    if not new:
        return 0
    path = file_of(table, folder)
    if packed and path.suffix != ".gz":
        path.unlink(missing_ok=True)
        path = path.with_name(path.name + ".gz")
    both = sorted(old + new, key=lambda row: (row["name"], row["overrides"], int(row["seed"]), row["data"]))
    longest = max(both, key=len)  # a diverged run has fewer columns
    columns = list(dict.fromkeys([*longest, *(key for row in both for key in row)]))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(both)
    content = out.getvalue().encode()
    write_atomic(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    return len(new)


def finished(work_dir: Path) -> list[Row]:
    """Return the rows of all runs under `work_dir` that are done or diverged, without debug runs."""
    rows = []
    for directory in (work_dir / run for run in run_directories(work_dir)):
        if config_of(directory, summary_or_status(directory)) and (row := row_of(directory)):
            rows.append(row)
    return rows


def check_row(row: Row) -> None:
    """Raise `BadInput` if the code of the run of `row` cannot be checked out.

    The code had uncommitted changes, or its commit is not part of the current branch.
    """
    from imbalance.training.state.provenance import check_commit  # here, because it imports torch

    check_commit(row["commit"] or None, f"{row['name']}/{row['overrides']}/seed={row['seed']}")


def numbers(rows: Iterable[Row], column: str) -> np.ndarray:
    """Return the column of this name as floats, with nan for an empty cell."""
    return np.array([float(row.get(column) or "nan") for row in rows])


def score(row: Row, split: str, metric: str) -> float:
    """Return a run's metric as a fraction; nan if the run diverged.

    Args:
        row: row of a table of results.
        metric: "balanced_accuracy" or "worst_group_accuracy".
    """
    if row["status"] != "done":
        return np.nan
    if metric == "worst_group_accuracy":
        return float(np.nanmin([float(accuracy or "nan") for accuracy in row[f"{split} of groups"].split("|")]))
    return float(row[f"{split} balanced"])


def share_interpolating(rows: Sequence[Row]) -> str:
    """Return, as text such as "40%", the share of runs that in some epoch predicted all training examples correctly."""
    return f"{np.mean([row['interpolation epoch'] != '' for row in rows]):.0%}"


def keep(*, study: str | None, work_dir: str, results: str, to: str | None = None, source: str | None = None) -> str:
    """Add a row for every finished run under `work_dir` to a table of results, or carry the runs to another machine.

    Return the message to print.

    Args:
        study: name of the table; its file is <results>/<study>.csv. None is allowed only with `to`.
        work_dir: folder of the run directories.
        results: folder of the table's file.
        to: folder to write the runs under `work_dir` to, for another machine; then no table is written.
        source: folder that a command with `to` wrote. Its runs are first put under `work_dir`.

    Raises:
        BadInput: there is no finished run, or a run is refused; the runs that are not refused have been added.
    """
    from imbalance.report.carried_runs import read_runs, write_runs  # here, because it imports torch

    if to:
        if study or source:
            raise BadInput("--to writes no table and reads no runs; leave --study and --from out, or type two commands")
        files = write_runs(Path(work_dir), Path(to))
        return "\n".join(f"{file}: {file.stat().st_size / 2**20:,.1f} MiB" for file in files)
    if not study:
        raise BadInput("--study is missing; type the name of a table, as --study=rows, or --to=<folder>")
    if source:
        print(f"{work_dir}: {counted(read_runs(Path(source), Path(work_dir)), 'run')} from {source}")
    rows, folder, refusals = finished(Path(work_dir)), Path(results), []
    if not rows:
        raise BadInput(
            f"--work_dir={work_dir} has no finished run besides debug runs; type a folder with done or diverged runs, as --work_dir=runs"
        )
    accepted, known = [], {key_of(row): row for row in read(study, folder)}
    for row in map(_with_current_name, rows):
        try:
            check_row(row)
            check_settings(row, known)
        except BadInput as error:
            refusals.append(str(error))
        else:
            accepted.append(row)
            known.setdefault(key_of(row), row)
    added = add(study, folder, accepted) if accepted else 0
    message = (
        f"{file_of(study, folder)}: {added} of {counted(len(rows), 'run')} added; the file now has "
        f"{counted(len(read(study, folder)), 'run')}"
    )
    if refusals:
        raise BadInput(f"{message}; {counted(len(refusals), 'run')} refused, the first: {refusals[0]}")
    return message

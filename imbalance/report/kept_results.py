"""Keep a row in results/ for every finished run, whichever machine trained it.

    imbalance keep --work_dir=runs --study=rows      # adds the finished runs under runs/ to results/rows.csv

A row has the experiment (config, overrides, seed, a digest of the data), how it was run (device, precision, versions,
commit), and its results: every group's accuracy on train, val and test with the selected weights. If test was evaluated
during training, the row also has the epochs that other selection rules would have selected, and their test accuracy. A run
that has a row already is left as it is, so the command can be repeated.

Each study has a file of its own, results/<study>.csv, or .csv.gz for thousands of runs.
"""

import csv
import functools
import gzip
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from imbalance.config.overrides import OverrideText
from imbalance.config.renamed import RENAMED
from imbalance.config.resolve import as_file_name, config_file, defining_values, load, resolve
from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.report.collect import config_of
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.utils.files import write_atomic

Row = dict[str, str]
KEY = ("name", "overrides", "seed", "data")
# By selection rule, the metric that it maximises; of equal epochs the rule selects the first. The oracle reads test, so it is
# no usable rule, but most papers on long tails report it.
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


def row_of(directory: Path) -> Row | None:
    """Return the row of a run directory, or None if the run has not ended."""
    if not (directory / "summary.json").exists():
        return None
    summary = summary_of(directory)
    if summary["status"] not in ("done", "diverged"):
        return None
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    trainer = config["trainer"]
    row = {
        "name": directory.absolute().parts[-3], "overrides": directory.absolute().parts[-2], "seed": config["seed"],
        "data": digest(directory) if summary["status"] == "done" else "",
        **settings(config),
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
        "seconds": round(summary["seconds"], 1), "together": summary["together"], "device": summary["device"],
        "precision": precision + (" channels last" if trainer["channels_last"] else ""),
        "versions": " ".join(f"{name}={version}" for name, version in summary["versions"].items()),
        "commit": (summary["commit"] or "")[:10] + ("+" if (summary["commit"] or "").endswith("+") else ""),
    }  # fmt: skip
    return {key: text(value) for key, value in row.items()}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config's values of CONFIG_COLUMNS; None for a key that the config does not have."""
    flat = flatten(config)
    return {column: flat.get(key) for column, key in CONFIG_COLUMNS.items()}


def accuracies(prefix: str, metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """Return the cells for a split's balanced accuracy and for the accuracies of its groups."""
    group_accuracies = [value for key, value in metrics.items() if key.startswith(f"{split}/group_accuracy/")]
    return {
        f"{prefix} balanced": metrics[f"{split}/balanced_accuracy"],
        f"{prefix} of groups": "|".join(map(text, group_accuracies)),
    }


def selected_by_rules(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the epoch that each rule selects, and its test accuracies; nothing if test was not evaluated in training."""
    if not evaluations or "test/accuracy" not in evaluations[-1]:
        return {}
    values = {}
    for rule, metric in RULES.items():
        line = max(evaluations, key=lambda line: -math.inf if line[metric] is None else line[metric])  # None: 0/0
        values |= {f"{rule}: epoch": line["epoch"]} | accuracies(f"{rule}: test", line, "test")
    return values


def digest(directory: Path) -> str:
    """Return a digest of the examples in each split and their labels. It does not depend on the examples' pixels."""
    sha256 = hashlib.sha256()
    for split in ("train", "val", "test"):
        with np.load(directory / "predictions" / f"{split}.npz") as saved:
            for name in ("indices", "targets", "groups"):
                sha256.update(np.ascontiguousarray(saved[name], dtype=np.int64).tobytes())
    return sha256.hexdigest()[:10]


def text(value: Any) -> str:
    """Return a value as a cell's text. Six decimals tell accuracies on a million examples apart, so floats get no more."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(round(value, 6), ".10g")
    return "+".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


# The files


def file_of(study: str, folder: Path) -> Path:
    """Return the path of the study's file, which need not exist yet."""
    packed = folder / f"{study}.csv.gz"
    return packed if packed.exists() else packed.with_suffix("")


def read(study: str, folder: Path) -> list[Row]:
    """Read the study's rows, with those of removed configs under their current names; none if it has no file yet."""
    path = file_of(study, folder)
    if not path.exists():
        return []
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [_with_current_name(row) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]


def _with_current_name(row: Row) -> Row:
    """Return a row with its config and overrides under their current names."""
    name, overrides = current_name(row["name"], row["overrides"])
    return {**row, "name": name, "overrides": overrides}


@functools.cache
def current_name(name: str, overrides: str) -> tuple[str, str]:
    """Return the config and the overrides that replace a removed config with overrides; others are returned unchanged.

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


def add(study: str, folder: Path, rows: Iterable[Row], packed: bool = False) -> int:
    """Add the rows that the study's file does not have yet, and return their number.

    The file is sorted, so it does not depend on the order in which rows were added. A lock makes commands that add at the
    same time wait for one another.

    Args:
        packed: write a .csv.gz file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{study}.lock"):
        return _add(study, folder, rows, packed)


def _add(study: str, folder: Path, rows: Iterable[Row], packed: bool) -> int:
    old = read(study, folder)
    known = {tuple(row[key] for key in KEY) for row in old}
    by_key = {tuple(row[key] for key in KEY): row for row in map(_with_current_name, rows)}
    new = [row for key, row in by_key.items() if key not in known]
    if not new:
        return 0
    path = file_of(study, folder)
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
    """Return the rows of all ended runs under `work_dir`: done or diverged."""
    rows = []
    for path in sorted(work_dir.rglob("config.json")):
        is_part = path.parent.name == "first" or "wandb" in path.relative_to(work_dir).parts  # part of the run above
        if not is_part and config_of(path) and (row := row_of(path.parent)):
            rows.append(row)
    return rows


def numbers(rows: Iterable[Row], column: str) -> np.ndarray:
    """Return a column as floats; an empty cell is nan."""
    return np.array([float(row.get(column) or "nan") for row in rows])


def score(row: Row, split: str, metric: str) -> float:
    """Return a run's metric as a fraction; nan if the run diverged.

    Args:
        metric: "balanced_accuracy" or "worst_group_accuracy".
    """
    if row["status"] != "done":
        return np.nan
    if metric == "worst_group_accuracy":
        return float(np.nanmin([float(accuracy or "nan") for accuracy in row[f"{split} of groups"].split("|")]))
    return float(row[f"{split} balanced"])


def share_interpolating(rows: Sequence[Row]) -> str:
    """Return the percentage of runs that predicted all training examples correctly in some epoch."""
    return f"{np.mean([row['interpolation epoch'] != '' for row in rows]):.0%}"


def keep(*, study: str, work_dir: str, results: str) -> str:
    """Add the finished runs under `work_dir` to a study, and return a line with their number."""
    rows, folder = finished(Path(work_dir)), Path(results)
    if not rows:
        raise BadInput(
            f"--work_dir={work_dir} has no finished run; type the folder that holds run directories, such as runs"
        )
    added = add(study, folder, rows)
    return f"{file_of(study, folder)}: {added} of {len(rows)} runs added; it now has {len(read(study, folder))} runs"

"""What has been run, kept: a row in results/ for every finished run, whichever machine and day it comes from.

    imbalance keep --work_dir=runs --study=rows      # adds the finished runs under runs/ to results/rows.csv

A row says what was run (config, overrides, seed, a digest of the data), how (device, precision, versions, commit) and what
came out: of the tested weights every group's accuracy on train, val and test, and, where test was followed, what other
selection rules would have chosen. A run that is there already is left as it is, so that the command can be given again.

Studies are apart so that the files stay small: results/<study>.csv, or .csv.gz for thousands of runs.
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
# What a rule reads, as metrics.jsonl calls it; of equal values the first epoch is chosen. The last reads test: not a
# rule that can be used, but what most papers on long tails report.
RULES = {
    "best average": "val/accuracy",
    "best balanced": "val/balanced_accuracy",
    "best worst group": "val/worst_group_accuracy",
    "oracle": "test/balanced_accuracy",
}
OF_CONFIG = {
    "set": "data.name", "classes": "data.classes", "model": "model.name", "loss": "loss.name", "weights": "weights.name",
    "exponent": "weights.exponent", "lr": "optim.lr", "momentum": "optim.momentum", "batch size": "trainer.batch_size",
    "epochs": "trainer.epochs",
}  # fmt: skip


def row_of(directory: Path) -> Row | None:
    """The row of a run directory; None of a run that has not come to an end."""
    summary = summary_of(directory) if (directory / "summary.json").exists() else {"status": "unfinished"}
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
        **{f"{split} counts": "|".join(map(str, of.values())) for split, of in summary["groups"].items()},
    }  # fmt: skip
    if summary["status"] == "done":
        row |= {"selected epoch": summary["selected_epoch"]}
        for split in ("train", "val", "test"):
            row |= outcome(split, summary["metrics"], split)
        row |= by_rules(evaluations_of(directory))
    precision = trainer["dtype"] if trainer["mixed_precision"] == "no" else trainer["mixed_precision"]
    row |= {
        "seconds": round(summary["seconds"], 1), "together": summary["together"], "device": summary["device"],
        "precision": precision + (" channels last" if trainer["channels_last"] else ""),
        "versions": " ".join(f"{name}={version}" for name, version in summary["versions"].items()),
        "commit": (summary["commit"] or "")[:10] + ("+" if (summary["commit"] or "").endswith("+") else ""),
    }  # fmt: skip
    return {key: text(value) for key, value in row.items()}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of OF_CONFIG, whatever a config may lack."""
    flat = flatten(config)
    return {column: flat.get(key) for column, key in OF_CONFIG.items()}


def outcome(prefix: str, metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """Balanced accuracy and the accuracy of every group."""
    of_groups = [value for key, value in metrics.items() if key.startswith(f"{split}/group_accuracy/")]
    return {
        f"{prefix} balanced": metrics[f"{split}/balanced_accuracy"],
        f"{prefix} of groups": "|".join(map(text, of_groups)),
    }


def by_rules(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """Which epoch each rule would have chosen, and what that was worth on test; nothing where test was not followed."""
    if not evaluations or "test/accuracy" not in evaluations[-1]:
        return {}
    values = {}
    for rule, metric in RULES.items():
        line = max(evaluations, key=lambda line: -math.inf if line[metric] is None else line[metric])  # None: 0/0
        values |= {f"{rule}: epoch": line["epoch"]} | outcome(f"{rule}: test", line, "test")
    return values


def digest(directory: Path) -> str:
    """Of which examples were in which split, under which labels. Other pixels under the same labels make no difference."""
    found = hashlib.sha256()
    for split in ("train", "val", "test"):
        with np.load(directory / "predictions" / f"{split}.npz") as saved:
            for name in ("indices", "targets", "groups"):
                found.update(np.ascontiguousarray(saved[name], dtype=np.int64).tobytes())
    return found.hexdigest()[:10]


def text(value: Any) -> str:
    """As a cell: six decimals at most, which tell accuracies on a million examples apart."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(round(value, 6), ".10g")
    return "+".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


# The files


def file_of(study: str, folder: Path) -> Path:
    """Where the study's rows are, or are to be."""
    packed = folder / f"{study}.csv.gz"
    return packed if packed.exists() else packed.with_suffix("")


def read(study: str, folder: Path) -> list[Row]:
    """Return the study's rows, those of removed configs under today's names; none where there is no file yet."""
    path = file_of(study, folder)
    if not path.exists():
        return []
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [_with_current_name(row) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]


def _with_current_name(row: Row) -> Row:
    """Return the row of a removed config under the config and the overrides that took its place."""
    name, overrides = current_name(row["name"], row["overrides"])
    return {**row, "name": name, "overrides": overrides}


@functools.cache
def current_name(name: str, overrides: str) -> tuple[str, str]:
    """Return the config and the overrides that a run directory of today has in place of `name` and `overrides`.

    Args:
        name: of a config, old or not.
        overrides: the name of the folder below it, such as "default" or "optim.lr=0.1,seed=3".
    """
    if name not in RENAMED:
        return name, overrides
    config, *flags = RENAMED[name].split()
    before = flatten(defining_values(load(config_file(config))))
    directory = resolve(
        config, {key: OverrideText(value) for key, _, value in (flag.partition("=") for flag in flags)}
    )[1]
    values = _overridden(directory.parent.name) | _overridden(overrides)
    changed = {key: value for key, value in values.items() if key not in before or value != as_file_name(before[key])}
    return config, ",".join(f"{key}={changed[key]}" for key in sorted(changed)) or "default"


def _overridden(overrides: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in overrides.split(",") if "=" in part)


def add(study: str, folder: Path, rows: Iterable[Row], packed: bool = False) -> int:
    """Put rows in the study's file that are not there yet, and return how many: sorted, so that the order of adding
    leaves no trace. Commands that add at the same time do so one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{study}.lock"):
        return _add(study, folder, rows, packed)


def _add(study: str, folder: Path, rows: Iterable[Row], packed: bool) -> int:
    there = read(study, folder)
    known = {tuple(row[key] for key in KEY) for row in there}
    by_key = {tuple(row[key] for key in KEY): row for row in map(_with_current_name, rows)}
    new = [row for key, row in by_key.items() if key not in known]
    if not new:
        return 0
    path = file_of(study, folder)
    if packed and path.suffix != ".gz":
        path.unlink(missing_ok=True)
        path = path.with_name(path.name + ".gz")
    both = sorted(there + new, key=lambda row: (row["name"], row["overrides"], int(row["seed"]), row["data"]))
    longest = max(both, key=len)  # a diverged run has fewer
    columns = list(dict.fromkeys([*longest, *(key for row in both for key in row)]))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(both)
    content = out.getvalue().encode()
    write_atomic(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    return len(new)


def finished(work_dir: Path) -> list[Row]:
    """The rows of all runs under `work_dir` that came to an end."""
    rows = []
    for path in sorted(work_dir.rglob("config.json")):
        is_part = path.parent.name == "first" or "wandb" in path.relative_to(work_dir).parts  # of the run above it
        if not is_part and config_of(path) and (row := row_of(path.parent)):
            rows.append(row)
    return rows


def numbers(rows: Iterable[Row], column: str) -> np.ndarray:
    """A column as floats; an empty cell is nan."""
    return np.array([float(row.get(column) or "nan") for row in rows])


def keep(*, study: str, work_dir: str, results: str) -> str:
    """Add the finished runs under `work_dir` to a study, and say how many there are."""
    rows, folder = finished(Path(work_dir)), Path(results)
    if not rows:
        raise BadInput(f"--work_dir={work_dir}: no finished run there")
    added = add(study, folder, rows)
    return f"{file_of(study, folder)}: {added} of {len(rows)} runs added, {len(read(study, folder))} there"

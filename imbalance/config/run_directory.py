"""Read the files of a run directory, and compare each file with the digest that the finished run recorded.

A finished run writes summary.json last. Its key `files` has the digest of every other file of the run; runs of older
versions have no such key, so only the format of their files is checked.
"""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from imbalance.errors import Damaged
from imbalance.utils.read import (
    check_digest,
    map_npz,
    open_regular,
    parse_json,
    read_array,
    read_bytes,
    read_json,
    read_npz,
)

if TYPE_CHECKING:
    import numpy as np

STATUSES = ("done", "diverged", "interrupted", "pruned")
FILES = "files"  # key of summary.json with the digests of the other files
MISSING = "missing"  # reason for which `damaged_files` names a file that does not exist
# The beginnings of the names of files that a finished run writes again from its last checkpoint.
REWRITTEN = ("model.json", "checkpoints/selected.pt", "predictions/")


def read_summary(directory: Path) -> dict[str, Any]:
    """Return the content of the summary.json of a run.

    Raises:
        FileNotFoundError: the run has not ended yet.
        Damaged: the file has been changed since it was written, or is no summary.
        OSError: the file cannot be read.
    """
    path = directory / "summary.json"
    summary = read_json(path)
    if wrong := [key for key, holds in _expected(summary).items() if not holds]:
        raise Damaged(path, f"the value of {wrong[0]!r} cannot be that of a run")
    return summary


def _expected(summary: Mapping[str, Any]) -> dict[str, bool]:
    """Return, for each key of summary.json that other modules read, whether its value has the right type.

    Args:
        summary: content of summary.json.
    """

    def holds(key: str, kind: type, of: Any = object) -> bool:
        value = summary.get(key, kind())
        # The kinds of the values are few, and there can be thousands of values.
        return isinstance(value, kind) and all(issubclass(item, of) for item in set(map(type, value.values())))

    groups, metrics = summary.get("groups", {}), summary.get("metrics")
    return {
        "status": summary.get("status") in STATUSES,
        "score": isinstance(summary.get("score", None if summary.get("status") != "done" else ""), int | float | None),
        "metrics": holds("metrics", dict, int | float | NoneType) if summary.get("status") == "done" else not metrics,
        "classes": holds("classes", dict, dict),
        "groups": holds("groups", dict, dict) and (not groups or "test" in groups),
        "data": holds("data", dict, dict),
        "versions": holds("versions", dict, str | NoneType),  # None: the package is not installed
        FILES: holds(FILES, dict, str),
    } | {
        key: isinstance(summary.get(key), int | float | None)
        for key in ("seconds", "epoch", "step", "selected_epoch", "interpolation_epoch")
    }


def recorded_digests(directory: Path) -> dict[str, str]:
    """Return the digests that a finished run recorded, by file name; return {} if the run recorded none.

    Raises:
        Damaged: summary.json is damaged.
    """
    try:
        return read_summary(directory).get(FILES, {})
    except FileNotFoundError:
        return {}


def read_run_config(directory: Path) -> dict[str, Any]:
    """Return the content of the config.json of a run."""
    return read_json(directory / "config.json", recorded_digests(directory).get("config.json"))


def read_predictions(
    directory: Path, split: str, summary: Mapping[str, Any] | None = None, mapped: bool = False
) -> "dict[str, np.ndarray]":
    """Return the arrays in predictions/<split>.npz by name: logits (N, K); targets, groups and indices, each (N,).

    If the data set has E evaluation groups besides its groups, members (N, E) bool says which examples are in which.

    Args:
        summary: content of the run's summary.json; None to read the file.
        mapped: whether the arrays are memory maps, which the processes on a machine share.

    Raises:
        FileNotFoundError: the run has not ended yet.
        Damaged: the file has been changed since it was written, or its arrays do not belong together.
    """
    name = f"predictions/{split}.npz"
    digests = recorded_digests(directory) if summary is None else summary.get(FILES, {})
    path, arrays = directory / name, (map_npz if mapped else read_npz)(directory / name, digests.get(name))
    logits, labels = arrays.get("logits"), [arrays.get(key) for key in ("targets", "groups", "indices")]
    if logits is None or logits.ndim != 2 or any(array is None or array.shape != logits.shape[:1] for array in labels):
        raise Damaged(path, "it needs logits, targets, groups and indices, with a row for each example")
    targets, members = arrays["targets"], arrays.get("members")
    if len(targets) and not 0 <= targets.min() <= targets.max() < logits.shape[1]:
        raise Damaged(path, f"its targets are not all from 0 to {logits.shape[1] - 1}")
    if members is not None and (members.ndim != 2 or len(members) != len(targets) or members.dtype != bool):
        raise Damaged(path, "members is no mask of the examples")
    return arrays


def read_logits(directory: Path, split: str) -> "dict[int, np.ndarray]":
    """Return the (N, K) logits that a run saved at each evaluation of a split, by epoch.

    They are in the files evaluations/<split>-<epoch>.npy.
    """
    digests = recorded_digests(directory)
    epochs = (path.stem.rpartition("-")[2] for path in (directory / "evaluations").glob(f"{split}-*.npy"))
    names = {epoch: f"evaluations/{split}-{epoch}.npy" for epoch in sorted(int(e) for e in epochs if e.isdecimal())}
    return {epoch: read_array(directory / name, digests.get(name)) for epoch, name in names.items()}


def read_evaluations(directory: Path, summary: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the lines of the metrics.jsonl of a run; leave out an incomplete last line, which a killed run leaves.

    Args:
        summary: content of the run's summary.json, {} if there is no such file; None to read the file.

    Raises:
        FileNotFoundError: the run has no evaluation yet.
        Damaged: a line is no evaluation, or the file has been changed since the run finished.
    """
    path = directory / "metrics.jsonl"
    if summary is None:
        try:
            summary = read_summary(directory)
        except FileNotFoundError:
            summary = {}
    content = read_bytes(path, summary.get(FILES, {}).get(path.name))
    lines = [parse_json(line, path) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    if not all(isinstance(line.get("epoch"), int) for line in lines):
        raise Damaged(path, "a line has no epoch")
    last = summary.get("epoch") if summary.get("status") == "done" else None  # the last epoch is always evaluated
    if last is not None and (not lines or lines[-1]["epoch"] != last):
        raise Damaged(path, f"the evaluation of epoch {last} is missing")
    return lines


def damaged_files(directory: Path, summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the damaged files of a finished run, by name, each with the reason.

    A user may have removed large files to save space, and logits of evaluations can be many gigabytes. So files in
    evaluations/ are not read, and a missing file counts as damaged only if a finished run can write the file
    again from its last checkpoint; see `REWRITTEN`.
    """
    damaged = {}
    # Older runs recorded no digests, but no model can be loaded without these two files.
    names = {"model.json": None, "checkpoints/selected.pt": None} | dict(summary.get(FILES, {}))
    for name, digest in names.items():
        path, rewritten = directory / name, name.startswith(REWRITTEN)
        if name.startswith("evaluations/") or (digest is None and not path.exists()):
            continue
        try:
            with open_regular(path) as file:
                check_digest(file, path, digest)
            if digest is None and path.suffix == ".json":
                parse_json(read_bytes(path), path)
        except FileNotFoundError:
            if rewritten:
                damaged[name] = MISSING
        except Damaged as error:
            damaged[name] = error.reason
        except OSError as error:
            damaged[name] = error.strerror or str(error)
    return damaged

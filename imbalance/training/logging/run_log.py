"""Log of a run: the files of its directory, trackers and the console."""

import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TextIO

import numpy as np
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import first_difference, upgrade_saved_config
from imbalance.config.run_directory import FILES, MISSING, REWRITTEN, damaged_files, read_summary
from imbalance.config.user_modules import user_module_code, user_module_files
from imbalance.errors import BadInput, Busy, Damaged
from imbalance.training.logging import trackers
from imbalance.training.logging.predictions_file import PredictionsFile
from imbalance.training.logging.trackers import Tracker
from imbalance.utils.files import atomic_file, missing_folders, names_file, remove_empty, write_atomic
from imbalance.utils.locks import FolderLock, is_same_file
from imbalance.utils.output import print_safely
from imbalance.utils.read import hash_file, parse_json, read_bytes, read_json, regular_opener, seal, short_hash


class RunLog:
    """Files and console output of one run. Only the main process writes them; on other processes nothing is written."""

    def __init__(self, directory: Path, config: Experiment, writes: bool):
        self.directory, self.config, self.writes = directory, config, writes
        self.trackers: list[Tracker] = []
        self.wandb_id: str | None = None  # id of the wandb run, which a resumed run continues
        self.digests: dict[str, str] = {}  # of the files that this run has written, by name
        self._is_new = False  # whether this process makes the run directory
        self._new_folders: list[Path] = []  # the folders above the run directory that this process makes
        self._claimed: ClaimedFiles | None = None
        self._metrics_hash = hashlib.sha256()  # of all that metrics.jsonl holds
        self._unwritten = b""  # lines of metrics.jsonl that could not be written yet, as on a full disk
        self._shows_bar = writes and sys.stdout is not None and sys.stdout.isatty()
        self._last_line = self._last_bar = -math.inf

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._tell_trackers("finish", bool(error))
        self.clear_bar()
        if self._claimed and error and issubclass(error, BadInput):
            self._remove_if_new()
        for file in self._claimed or ():
            with suppress(OSError):  # closing log.txt fails on a full disk
                file.close()

    @property
    def _files(self) -> "ClaimedFiles":
        """Return the open files of the run directory, which `claim` must have opened before."""
        assert self._claimed
        return self._claimed

    def claim(self) -> dict[str, Any] | None:
        """Lock the run directory for this process, and open its files.

        Return the content of summary.json if the run is finished and its files are whole, and None otherwise. The files
        of a finished run are only read, so they may be on a disk that cannot be written to.

        Raises:
            Busy: another process has locked the directory.
            BadInput: the directory cannot be written to, has a damaged file, or holds a run of another config.
        """
        trackers.check(self.config)  # first, because loading data may take long
        lock = None
        try:
            self._is_new = not self.directory.exists()
            self._new_folders = missing_folders(self.directory)
            lock = self._lock_directory()
            check_directory_config(self.config, self.directory)
            self._check_modules()
            summary, warnings = self._saved_summary()
            if summary:
                return summary
            self._keep_config()
            self._keep_modules()
            text = open(self.directory / "log.txt", "a", buffering=1, encoding="utf-8", opener=regular_opener)
            metrics = open(self.directory / "metrics.jsonl", "ab", buffering=0, opener=regular_opener)
            self._claimed, lock = ClaimedFiles(text, metrics, lock), None
        except OSError as error:
            raise _not_writable(error, self.directory) from None
        finally:
            if lock:
                self._remove_if_new()
                lock.close()
        for warning in warnings:
            self.line(f"WARNING: {warning}")
        return None

    def _lock_directory(self) -> FolderLock:
        """Lock the run directory against other processes.

        A finished run may be on a disk that cannot be written to. Then lock the directory itself, without a lock file.

        Raises:
            Busy: another process has locked the directory.
            OSError: the directory cannot be written to, and holds no finished run.
        """
        try:
            return FolderLock(self.directory)
        except BlockingIOError:
            raise Busy(str(self.directory)) from None
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not self._saved_summary()[0]:
                raise
            return FolderLock(self.directory, file=False)

    def _keep_config(self) -> None:
        """Write config.json, unless it already has the same values, perhaps under the keys of an older version."""
        path, text = self.directory / "config.json", json.dumps(self.config.to_dict(), indent=2)
        # No file yet, or the damaged file of a run that never trained
        with suppress(OSError, ValueError, AttributeError):
            content = read_bytes(path)
            if upgrade_saved_config(parse_json(content, path)) == json.loads(text):
                self.digests["config.json"] = short_hash(content)
                return
        content = text.encode() + b"\n"
        write_atomic(path, content)
        self.digests["config.json"] = short_hash(content)

    def _check_modules(self) -> None:
        """Raise `BadInput` if a user's own module that the config names has changed since this run began."""
        for file in user_module_files(self.config.to_dict()):
            copy = self.directory / "modules" / file.name
            if copy.exists() and read_bytes(copy) != user_module_code(file):
                raise BadInput(
                    f"{file}: not the code that this run began with, which is in {copy}; restore that code, or use another "
                    "config.work_dir"
                )

    def _keep_modules(self) -> None:
        """Copy the user's modules that the config names to the run directory, so that the run can be repeated."""
        for file in user_module_files(self.config.to_dict()):
            copy, code = self.directory / "modules" / file.name, user_module_code(file)
            if not copy.exists():
                write_atomic(copy, code)
            self.digests[f"modules/{file.name}"] = short_hash(code)

    def _saved_summary(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return a tuple: the content of summary.json, or None for a run that is not finished; and a list of warnings.

        If summary.json, or the weights, predictions or model.json of a finished run are damaged, they are treated as
        missing, with a warning for each. The run then resumes from its last checkpoint and writes these files again.

        Raises:
            BadInput: a file is damaged that cannot be written again.
        """
        try:
            summary = read_summary(self.directory)
        except FileNotFoundError:
            return None, []
        except (Damaged, OSError) as error:
            summary, damaged = None, {"summary.json": getattr(error, "reason", None) or str(error)}
        else:
            if summary["status"] != "done" or self.config.debug:
                return None, []
            damaged = damaged_files(self.directory, summary)
        for name in damaged:
            if (self.directory / name).is_dir():  # no file can take its place
                raise BadInput(
                    f"{self.directory / name}: a directory, not a file; remove it, and type the command again"
                )
        if not (self.directory / "checkpoints" / "last.pt").exists():
            damaged = {name: reason for name, reason in damaged.items() if reason != MISSING}
            if damaged:
                name, reason = next(iter(damaged.items()))
                raise BadInput(
                    f"{self.directory / name}: damaged ({reason}), with no checkpoint to write it again from; remove "
                    f"{self.directory} to start anew"
                )
        for name, reason in damaged.items():
            if not name.startswith(("summary.json", *REWRITTEN)):
                hint = f"restore the file from a copy, or remove {self.directory} to start anew"
                raise Damaged(self.directory / name, reason, hint)
        states = {name: MISSING if reason == MISSING else f"damaged ({reason})" for name, reason in damaged.items()}
        warnings = [
            f"{self.directory / name} is {state}; it is written again from the last checkpoint"
            for name, state in states.items()
        ]
        return (None if damaged else summary), warnings

    def _remove_if_new(self) -> None:
        """Remove the run directory if this process made it and trained nothing in it, as when a config is refused."""
        if self._is_new and not is_trained(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)
            # Several processes make the folders of runs, which are empty folders of work_dir if all runs are refused.
            work_dir = Path(str(self.config.work_dir))
            remove_empty(f for f in self.directory.parents if f in self._new_folders or work_dir in f.parents)

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write the file `name` of the run directory atomically, and record its digest for summary.json.

        Raises:
            BadInput: the run directory was removed or replaced, so the file would be apart from the metrics of the run.
        """
        self.check_directory()
        write_atomic(self.directory / name, data)
        self.digests[name] = short_hash(data)

    def check_directory(self) -> None:
        """Raise `BadInput` if the run directory or its metrics.jsonl was removed or replaced since `claim`."""
        metrics = self._files.metrics.fileno()
        if not (self._files.lock.holds() and is_same_file(self.directory / "metrics.jsonl", metrics)):
            raise BadInput(
                f"{self.directory}: removed or replaced while this run was training in it; type the same command again to start anew"
            )

    # metrics.jsonl and checkpoints

    def position(self) -> int:
        """Write all lines of metrics.jsonl to the disk, and return its length in bytes, for `rewind` in a resumed run.

        Raises:
            OSError: not all lines could be written, so a checkpoint with this length would lose the rest.
            BadInput: the run directory or metrics.jsonl was removed or replaced.
        """
        self._write_metrics()
        os.fsync(self._files.metrics.fileno())
        self.check_directory()
        return self._files.metrics.tell()

    @property
    def metrics_digest(self) -> str:
        """The digest of metrics.jsonl, as `short_hash` returns it."""
        return self._metrics_hash.hexdigest()[:16]

    @property
    def digests_so_far(self) -> dict[str, Any]:
        """The digests of metrics.jsonl and of the saved logits, which a checkpoint keeps for `rewind`."""
        logits = {name: digest for name, digest in self.digests.items() if name.startswith("evaluations/")}
        return {"metrics_digest": self.metrics_digest, FILES: logits}

    def rewind(self, state: Mapping[str, Any]) -> None:
        """Cut metrics.jsonl to its length at a checkpoint, because the resumed run writes all later lines again.

        Args:
            state: content of the checkpoint, with the length and `digests_so_far`; empty for a new run. Checkpoints of
                older versions have no digests.

        Raises:
            BadInput: metrics.jsonl is already shorter, or its content was changed.
        """
        if not self.writes:
            return
        position, digest = state.get("metrics_position", 0), state.get("metrics_digest")
        metrics, path = self._files.metrics, self.directory / "metrics.jsonl"
        if os.fstat(metrics.fileno()).st_size < position:
            raise BadInput(
                f"{path}: shorter than the checkpoint says, so lines are lost; remove {self.directory} to start anew"
            )
        self._metrics_hash = hashlib.sha256(read_bytes(path)[:position] if position else b"")
        if digest not in (None, self.metrics_digest):
            hint = f"restore the file from a copy, or remove {self.directory} to start anew"
            raise Damaged(path, "its content is not the one that was written", hint)
        self.digests |= state.get(FILES, {})
        metrics.truncate(position)
        metrics.seek(position)

    def _write_metrics(self) -> None:
        """Append to metrics.jsonl the lines that are not in the file yet."""
        while self._unwritten:
            with names_file(self.directory / "metrics.jsonl"):
                written = self._files.metrics.write(self._unwritten)
            self._metrics_hash.update(self._unwritten[:written])
            self._unwritten = self._unwritten[written:]

    # trackers

    def start_trackers(self, wandb_id: str | None) -> None:
        """Start the trackers that the config or WANDB_MODE asks for.

        Args:
            wandb_id: id of the wandb run to continue; None for a new one.
        """
        if not self.writes:
            return
        if settings := trackers.wandb_settings(self.config):
            wandb = trackers.Wandb(settings, self.config, self.directory, wandb_id, self.line)
            self.trackers.append(wandb)
            self.wandb_id = wandb.id
        if self.config.logger.mode == "tensorboard":
            after = max((line["step"] for line in self.evaluations()), default=0)
            try:
                self.trackers.append(trackers.TensorBoard(self.config, self.directory, after))
            except Exception as error:
                self._go_on_without("tensorboard", error)

    def _tell_trackers(self, method: str, *values: Any) -> None:
        """Call a method on every tracker, and remove each tracker that raises an error.

        Args:
            method: name of the method.
            values: arguments of the method.
        """
        for tracker in list(self.trackers):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:
                self.trackers.remove(tracker)
                self._go_on_without(tracker.name, error)

    def _go_on_without(self, tracker: str, error: Exception) -> None:
        """Log that a tracker has failed, and that the run goes on without it."""
        self.line(f"{tracker}: {type(error).__name__}: {error}; going on without it; metrics.jsonl has all metrics")

    # metrics, results and lines

    def metrics(self, values: dict[str, Any]) -> None:
        """Write `values` as one line of metrics.jsonl, with null for nan, and send them to the trackers."""
        if self.writes:
            self._unwritten += json.dumps(without_nan(values), allow_nan=False).encode() + b"\n"
            with self.attempt(self.directory / "metrics.jsonl", "the next evaluation tries again"):
                self._write_metrics()
            self._tell_trackers("log", values)

    def evaluations(self) -> list[dict[str, Any]]:
        """Return all lines of metrics.jsonl; on processes that do not write, an empty list."""
        if not self.writes:
            return []
        path = self.directory / "metrics.jsonl"
        return [parse_json(line, path) for line in (read_bytes(path) + self._unwritten).splitlines()]

    def summary(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write all remaining lines of metrics.jsonl, and then write summary.json atomically.

        Return `values`. If the run is done, they also have the digests of all other files of the run.
        """
        if self.writes:
            self.position()
            if values["status"] == "done":
                values = {
                    **values,
                    FILES: dict(sorted((self.digests | {"metrics.jsonl": self.metrics_digest}).items())),
                }
            text = json.dumps(seal(without_nan(values)), indent=2, allow_nan=False)
            self.check_directory()
            write_atomic(self.directory / "summary.json", text.encode() + b"\n")
            flat = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
            self._tell_trackers("summary", flat)
        return values

    def model(self, values: dict[str, Any]) -> None:
        """Write model.json, the description of the model that `imbalance.load` reads beside the weights."""
        self.write("model.json", json.dumps(seal(values), allow_nan=False).encode() + b"\n")

    @contextmanager
    def predictions(self, split: str, rows: int) -> Iterator[PredictionsFile]:
        """Return a context manager that opens predictions/<split>.npz; the body must write the logits and complete the file.

        Args:
            rows: number of examples.
        """
        self.check_directory()
        name = f"predictions/{split}.npz"
        with atomic_file(self.directory / name) as file:
            predictions = PredictionsFile(file, rows)
            try:
                yield predictions
            finally:
                predictions.close()
            self.check_directory()
            file.flush()
            self.digests[name] = hash_file(file)

    def logits(self, split: str, epoch: int, logits: Tensor) -> None:
        """Write the (N, K) logits of an evaluation to evaluations/<split>-<epoch>.npy.

        If a resumed run evaluates the epoch again, the file is overwritten.
        """
        if self.writes:
            file = io.BytesIO()
            np.save(file, logits.cpu().numpy())
            name = f"evaluations/{split}-{epoch}.npy"
            with self.attempt(self.directory / name, "`imbalance select` will lack it"):
                self.write(name, file.getbuffer())

    @contextmanager
    def attempt(self, path: Path, otherwise: str) -> Iterator[None]:
        """Return a context manager that logs an OSError raised in it, such as a full disk, and lets the run go on.

        Args:
            path: file that is written inside the context.
            otherwise: consequence of a failure, for the message.
        """
        try:
            yield
        except OSError as error:
            self.line(f"WARNING: cannot write {path}: {error.strerror}; {otherwise}")

    def line(self, text: str, on_terminal: Callable[[int], str] | None = None) -> None:
        """Write a line, or lines, to the console and to log.txt.

        Args:
            on_terminal: function from the width of a terminal to the text to print on it instead; an ImportError that it
                raises means that the package that draws this text is not installed.
        """
        if self.writes:
            self.clear_bar()
            printed = text
            if on_terminal and self._shows_bar:
                with suppress(ImportError):
                    printed = on_terminal(shutil.get_terminal_size().columns)
            print_safely(printed, sys.stdout)
            print_safely(text, self._claimed and self._claimed.text)

    def progress(self, text: str, last: bool) -> None:
        """Write the line for an evaluation to log.txt, and to the console at most once a second.

        Args:
            last: whether it is the last evaluation, whose line is always written to the console.
        """
        now = time.monotonic()
        if self.writes and (last or now - self._last_line >= 1):
            self._last_line = now
            self.line(text)
        elif self.writes:
            print_safely(text, self._claimed and self._claimed.text)

    def bar(self, text: Callable[[], str]) -> None:
        """On a terminal, replace the line shown before by the line that `text()` returns, at most five times a second."""
        if self._shows_bar and (now := time.monotonic()) - self._last_bar >= 0.2:
            self._last_bar = now
            print_safely("\r\x1b[K" + text()[: shutil.get_terminal_size().columns - 1], sys.stdout, end="")

    def clear_bar(self) -> None:
        """Erase, on a terminal, the line that `bar` shows."""
        if self._last_bar > -math.inf:
            self._last_bar = -math.inf
            print_safely("\r\x1b[K", sys.stdout, end="")


class ClaimedFiles(NamedTuple):
    """Open files of a run directory, and its lock.

    text: file log.txt.
    metrics: file metrics.jsonl.
    """

    text: TextIO
    metrics: FileIO
    lock: FolderLock


def is_trained(directory: Path) -> bool:
    """Return whether `directory` holds results of training: a summary, a metric or a checkpoint."""
    metrics = directory / "metrics.jsonl"
    results = (directory / "summary.json").exists() or (metrics.exists() and metrics.stat().st_size > 0)
    return results or any((directory / "checkpoints").glob("*.pt"))


def check_writable(directory: Path) -> None:
    """Raise `BadInput` if the run directory `directory` does not exist and cannot be made; nothing is left behind."""
    if directory.exists():  # perhaps a finished run on a read-only disk, which is only read
        return
    existing = next(folder for folder in directory.absolute().parents if folder.exists())
    try:
        with TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        error.filename = str(directory)  # in place of the name of the temporary folder
        raise _not_writable(error, directory) from None


def _not_writable(error: OSError, directory: Path) -> BadInput:
    return BadInput(
        f"config.work_dir: cannot write {error.filename or directory}: {error.strerror}; use another work_dir, or make this "
        "one writable"
    )


def check_directory_config(config: Experiment, directory: Path) -> None:
    """Raise `BadInput` if `directory` holds a trained run whose config differs from `config` or cannot be read.

    A run that was refused or killed before its first checkpoint does not count.
    """
    path = directory / "config.json"
    if not is_trained(directory):
        return
    hint = f"restore it from a backup, or remove {directory} to start anew"
    try:
        before = read_json(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: missing, although a run was trained here; {hint}") from None
    except Damaged as error:
        raise Damaged(path, error.reason, hint) from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; {hint}") from None
    if difference := first_difference(config, before):
        key, ours, theirs = difference
        raise BadInput(
            f"config.{key}: {ours} given, but {path} was written by a run with {theirs}; use another config.work_dir, or "
            f"remove {directory}"
        )


def without_nan(value: Any) -> Any:
    """Return `value`, in which None replaces every nan and infinity, because JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Log of a run: the files of its directory, trackers and the console."""

import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import defining_values, upgrade_saved_config
from imbalance.config.user_modules import user_module_files
from imbalance.errors import BadInput, Busy
from imbalance.training.logging import trackers
from imbalance.training.logging.trackers import Tracker
from imbalance.utils.files import write_atomic
from imbalance.utils.locks import FolderLock, is_same_file
from imbalance.utils.output import print_safely


class RunLog:
    """Files and console output of one run. Only the main process writes; on other processes nothing is written."""

    def __init__(self, directory: Path, config: Experiment, writes: bool):
        self.directory, self.config, self.writes = directory, config, writes
        self.trackers: list[Tracker] = []
        self.wandb_id: str | None = None  # id of the wandb run, which a resumed run continues
        self._claimed: ClaimedFiles | None = None
        self._unwritten = b""  # lines of metrics.jsonl that could not be written yet, as on a full disk
        self._shows_bar = writes and sys.stdout is not None and sys.stdout.isatty()
        self._last_line = self._last_bar = -math.inf

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._tell_trackers("finish", bool(error))
        self.clear_bar()
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

        Return the summary if the run is finished, and None otherwise.

        Raises:
            Busy: another process has locked the directory.
            BadInput: the directory cannot be written to, has a damaged file, or holds a run of another config.
        """
        trackers.check(self.config)  # first, because loading data may take long
        lock = None
        try:
            lock = FolderLock(self.directory)
            check_directory_config(self.config, self.directory)
            self._keep_config()
            self._keep_modules()
            text = open(self.directory / "log.txt", "a", buffering=1, encoding="utf-8")
            metrics = open(self.directory / "metrics.jsonl", "ab", buffering=0)
            self._claimed, lock = ClaimedFiles(text, metrics, lock), None
        except BlockingIOError:
            raise Busy(str(self.directory)) from None
        except OSError as error:
            raise BadInput(
                f"config.work_dir: cannot write {error.filename or self.directory}: {error.strerror}; make it writable, or "
                "use another work_dir"
            ) from None
        finally:
            if lock:
                lock.close()
        summary = self._saved_summary()
        return summary if summary["status"] == "done" and not self.config.debug else None

    def _keep_config(self) -> None:
        """Write config.json, unless it already has the same values, perhaps under the keys of an older version."""
        path, text = self.directory / "config.json", json.dumps(self.config.to_dict(), indent=2)
        with suppress(
            OSError, ValueError, AttributeError
        ):  # no file yet, or the damaged file of a run that never trained
            if upgrade_saved_config(json.loads(path.read_text(encoding="utf-8"))) == json.loads(text):
                return
        write_atomic(path, text.encode() + b"\n")

    def _keep_modules(self) -> None:
        """Copy the user's modules that the config names to the run directory, so that the run can be repeated."""
        for file in user_module_files(self.config.to_dict()):
            copy, code = self.directory / "modules" / file.name, file.read_bytes()
            if not copy.exists():
                write_atomic(copy, code)
            elif copy.read_bytes() != code:
                raise BadInput(
                    f"{file}: not the code that this run began with, which is in {copy}; restore that code, or use another "
                    "config.work_dir"
                )

    def _saved_summary(self) -> dict[str, Any]:
        """Return the content of summary.json, or `{"status": None}` if there is no file.

        A damaged file counts as no file, because the run resumes from its last checkpoint and writes it again.

        Raises:
            BadInput: the file is damaged, and there is no checkpoint.
        """
        path, nothing = self.directory / "summary.json", {"status": None}
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            whole = isinstance(summary, dict) and {"status", "score"} <= summary.keys()
            if whole and (summary["status"] != "done" or isinstance(summary.get("metrics"), dict)):
                return summary
        except FileNotFoundError:
            return nothing
        except ValueError:
            pass
        if not (self.directory / "checkpoints" / "last.pt").exists():
            raise BadInput(
                f"{path}: damaged, with no checkpoint to write it again from; remove {self.directory} to start anew"
            )
        self.line(f"WARNING: {path} is damaged; it is written again from the last checkpoint")
        return nothing

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        """Write a file of the run directory, whole or not at all.

        Raises:
            BadInput: the run directory was removed or replaced, so the file would not land beside the run's metrics.
        """
        self.check_directory()
        write_atomic(path, data)

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

    def rewind(self, position: int) -> None:
        """Cut metrics.jsonl to `position` bytes, because the resumed run writes all later lines again.

        Raises:
            BadInput: metrics.jsonl is already shorter.
        """
        if not self.writes:
            return
        metrics = self._files.metrics
        if os.fstat(metrics.fileno()).st_size < position:
            raise BadInput(
                f"{metrics}: shorter than the checkpoint says, so lines are lost; remove {self.directory} to start anew"
            )
        metrics.truncate(position)
        metrics.seek(position)

    def _write_metrics(self) -> None:
        """Append the lines that are not written yet to metrics.jsonl."""
        while self._unwritten:
            self._unwritten = self._unwritten[self._files.metrics.write(self._unwritten) :]

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
        """Call the method of that name on every tracker, and remove a tracker that raises an error."""
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
        """Write `values` as a line to metrics.jsonl, with null for nan, and send them to the trackers."""
        if self.writes:
            self._unwritten += json.dumps(without_nan(values), allow_nan=False).encode() + b"\n"
            with self.attempt(self.directory / "metrics.jsonl", "the next evaluation tries again"):
                self._write_metrics()
            self._tell_trackers("log", values)

    def evaluations(self) -> list[dict[str, Any]]:
        """Return all lines of metrics.jsonl; on processes that do not write, an empty list."""
        if not self.writes:
            return []
        text = (self.directory / "metrics.jsonl").read_bytes() + self._unwritten
        return [json.loads(line) for line in text.splitlines()]

    def summary(self, values: dict[str, Any]) -> None:
        """Write all remaining lines of metrics.jsonl, and then summary.json, whole or not at all."""
        if self.writes:
            self.position()
            text = json.dumps(without_nan(values), indent=2, allow_nan=False)
            self._write(self.directory / "summary.json", text.encode() + b"\n")
            flat = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
            self._tell_trackers("summary", flat)

    def model(self, values: dict[str, Any]) -> None:
        """Write model.json, the description of the model that `imbalance.load` reads beside the weights."""
        write_atomic(self.directory / "model.json", json.dumps(values, allow_nan=False).encode() + b"\n")

    def predictions(self, split: str, **arrays: Tensor) -> None:
        """Write predictions/<split>.npz.

        Args:
            arrays: columns of the file, such as logits and targets, with one row for each example.
        """
        file = io.BytesIO()
        columns: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(file, **columns)
        self._write(self.directory / "predictions" / f"{split}.npz", file.getbuffer())

    def logits(self, split: str, epoch: int, logits: Tensor) -> None:
        """Write evaluations/<split>-<epoch>.npy. If a resumed run evaluates the epoch again, it overwrites the file."""
        if self.writes:
            file = io.BytesIO()
            np.save(file, logits.cpu().numpy())
            path = self.directory / "evaluations" / f"{split}-{epoch}.npy"
            with self.attempt(path, "`imbalance select` will lack it"):
                self._write(path, file.getbuffer())

    @contextmanager
    def attempt(self, path: Path, otherwise: str) -> Iterator[None]:
        """Return a context manager that logs an OSError inside it, such as a full disk, and lets the run go on.

        Args:
            path: file that is written inside the context.
            otherwise: consequence of a failure, for the message.
        """
        try:
            yield
        except OSError as error:
            self.line(f"WARNING: cannot write {path}: {error.strerror}; {otherwise}")

    def line(self, text: str) -> None:
        """Write a line to the console and to log.txt."""
        if self.writes:
            self.clear_bar()
            print_safely(text, sys.stdout)
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
        """Show the line that `text` returns on a terminal, in place of the line before, at most five times a second."""
        if self._shows_bar and (now := time.monotonic()) - self._last_bar >= 0.2:
            self._last_bar = now
            print_safely("\r\x1b[K" + text()[: shutil.get_terminal_size().columns - 1], sys.stdout, end="")

    def clear_bar(self) -> None:
        """Remove the line that `bar` shows from the terminal."""
        if self._last_bar > -math.inf:
            self._last_bar = -math.inf
            print_safely("\r\x1b[K", sys.stdout, end="")


class ClaimedFiles(NamedTuple):
    """Open files of a run directory, and its lock.

    text: log.txt.
    metrics: metrics.jsonl.
    """

    text: TextIO
    metrics: FileIO
    lock: FolderLock


def check_directory_config(config: Experiment, directory: Path) -> None:
    """Raise `BadInput` if `directory` holds a trained run whose config is not `config`, or cannot be read.

    A run that was refused or killed before its first checkpoint does not count.
    """
    path, metrics = directory / "config.json", directory / "metrics.jsonl"
    trained = (directory / "summary.json").exists() or (metrics.exists() and metrics.stat().st_size > 0)
    if not trained and not any((directory / "checkpoints").glob("*.pt")):
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        raise BadInput(
            f"{path}: missing, although a run was trained here; put it back, or remove {directory} to start anew"
        ) from None
    except ValueError as error:
        raise BadInput(f"{path}: damaged ({error}); put it back, or remove {directory} to start anew") from None
    ours, before = defining_values(config), defining_values(upgrade_saved_config(before))
    changed = sorted(key for key in ours if ours[key] != before.get(key))
    if changed:
        raise BadInput(
            f"config.{changed[0]}: {ours[changed[0]]!r} given, but {path} was written by a run with {before.get(changed[0])!r}; "
            f"use another config.work_dir, or remove {directory}"
        )


def without_nan(value: Any) -> Any:
    """Return `value`, in which None replaces every nan and infinity, because JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """Return a number of seconds as text: `3h07m`, `4m12s` or `9s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"

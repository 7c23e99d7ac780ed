"""Log of a run: its directory, metrics.jsonl, trackers and the console."""

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
    """Files and console of one run. Only the main process writes; on other processes every method does nothing."""

    def __init__(self, directory: Path, config: Experiment, writes: bool):
        self.directory, self.config, self.writes = directory, config, writes
        self.trackers: list[Tracker] = []
        self.wandb_id: str | None = None  # with which a resumed run continues its wandb run
        self._claimed: ClaimedFiles | None = None
        self._unwritten = b""  # lines of metrics.jsonl that a full disk did not take yet
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
        """Return the open files of the run directory; `claim` must have opened them."""
        assert self._claimed
        return self._claimed

    def claim(self) -> dict[str, Any] | None:
        """Lock the directory for this process, and open its files. Return the summary of a finished run there, if any.

        Raises:
            Busy: another process has locked the directory.
            BadInput: the directory cannot be written to, is damaged, or holds another experiment.
        """
        trackers.check(self.config)  # before data are loaded, which may take long
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
                f"config.work_dir: cannot write {error.filename or self.directory}: {error.strerror}"
            ) from None
        finally:
            if lock:
                lock.close()
        summary = self._saved_summary()
        return summary if summary["status"] == "done" and not self.config.debug else None

    def _keep_config(self) -> None:
        """Write config.json, unless the file there has the same values, perhaps in the form of an older version."""
        path, text = self.directory / "config.json", json.dumps(self.config.to_dict(), indent=2)
        with suppress(OSError, ValueError, AttributeError):  # no file yet, or a damaged one of a run that never trained
            if upgrade_saved_config(json.loads(path.read_text(encoding="utf-8"))) == json.loads(text):
                return
        write_atomic(path, text.encode() + b"\n")

    def _keep_modules(self) -> None:
        """Copy each module of the user's own that the config names, with which the run can be loaded and repeated."""
        for file in user_module_files(self.config.to_dict()):
            copy, code = self.directory / "modules" / file.name, file.read_bytes()
            if not copy.exists():
                write_atomic(copy, code)
            elif copy.read_bytes() != code:
                raise BadInput(
                    f"{file}: not the code that this run began with, which is {copy}; restore that code, or use another "
                    "config.work_dir"
                )

    def _saved_summary(self) -> dict[str, Any]:
        """Return the content of summary.json, with the status None if there is no file.

        A damaged file counts as none, because the last checkpoint makes it again.
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
                f"{path}: damaged, with no checkpoint to make it from; remove {self.directory} to start anew"
            )
        self.line(f"WARNING: {path} is damaged; it is made again from the last checkpoint")
        return nothing

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        """Write a whole file in the run directory.

        Raises:
            BadInput: the directory was removed or replaced. The file would no longer be with the run's metrics.
        """
        self.check_directory()
        write_atomic(path, data)

    def check_directory(self) -> None:
        """Raise `BadInput` if the directory or its metrics.jsonl was removed or replaced since `claim`."""
        metrics = self._files.metrics.fileno()
        if not (self._files.lock.holds() and is_same_file(self.directory / "metrics.jsonl", metrics)):
            raise BadInput(
                f"{self.directory}: removed or replaced while this run was training in it; the same command starts anew"
            )

    # metrics.jsonl and checkpoints

    def position(self) -> int:
        """Write all lines of metrics.jsonl to the disk, and return its length, to which a resume can `rewind`.

        Raises:
            OSError: the disk did not take all lines, so a checkpoint would lose the rest.
            BadInput: the file was removed or replaced.
        """
        self._write_metrics()
        os.fsync(self._files.metrics.fileno())
        self.check_directory()
        return self._files.metrics.tell()

    def rewind(self, position: int) -> None:
        """Remove the lines of metrics.jsonl that came after a checkpoint, because the resumed run writes them again."""
        metrics = self._files.metrics
        if os.fstat(metrics.fileno()).st_size < position:
            raise BadInput(f"{metrics.name}: shorter than the checkpoint says; remove {self.directory} to start anew")
        metrics.truncate(position)
        metrics.seek(position)

    def _write_metrics(self) -> None:
        """Write the lines that metrics.jsonl does not have yet."""
        while self._unwritten:
            self._unwritten = self._unwritten[self._files.metrics.write(self._unwritten) :]

    # trackers

    def start_trackers(self, wandb_id: str | None) -> None:
        """Start the trackers that the config or WANDB_MODE asks for, or continue theirs from the last line of metrics.jsonl."""
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
        """Call `method` of every tracker, and remove a tracker that raises an error."""
        for tracker in list(self.trackers):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:
                self.trackers.remove(tracker)
                self._go_on_without(tracker.name, error)

    def _go_on_without(self, tracker: str, error: Exception) -> None:
        """Log that a tracker has failed; the run goes on."""
        self.line(f"{tracker}: {type(error).__name__}: {error}; going on without it, metrics.jsonl has everything")

    # reports

    def metrics(self, values: dict[str, Any]) -> None:
        """Write one line to metrics.jsonl, and send it to the trackers. JSON has no nan, so nan becomes null."""
        if self.writes:
            self._unwritten += json.dumps(without_nan(values), allow_nan=False).encode() + b"\n"
            with self.attempt(self.directory / "metrics.jsonl", "the next line tries again"):
                self._write_metrics()
            self._tell_trackers("log", values)

    def evaluations(self) -> list[dict[str, Any]]:
        """Return all lines of metrics.jsonl; an empty list on processes that do not write."""
        if not self.writes:
            return []
        text = (self.directory / "metrics.jsonl").read_bytes() + self._unwritten
        return [json.loads(line) for line in text.splitlines()]

    def summary(self, values: dict[str, Any]) -> None:
        """Write summary.json, whole or not at all, and only after metrics.jsonl has all of its lines."""
        if self.writes:
            self.position()
            text = json.dumps(without_nan(values), indent=2, allow_nan=False)
            self._write(self.directory / "summary.json", text.encode() + b"\n")
            flat = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
            self._tell_trackers("summary", flat)

    def model(self, values: dict[str, Any]) -> None:
        """Write model.json, which `imbalance.load` reads with the weights."""
        write_atomic(self.directory / "model.json", json.dumps(values, allow_nan=False).encode() + b"\n")

    def predictions(self, split: str, **arrays: Tensor) -> None:
        """Write predictions/<split>.npz: logits of the selected weights, targets, groups and source rows."""
        file = io.BytesIO()
        columns: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(file, **columns)
        self._write(self.directory / "predictions" / f"{split}.npz", file.getbuffer())

    def logits(self, split: str, epoch: int, logits: Tensor) -> None:
        """Write evaluations/<split>-<epoch>.npy. A resumed run that evaluates an epoch again writes the same file."""
        if self.writes:
            file = io.BytesIO()
            np.save(file, logits.cpu().numpy())
            path = self.directory / "evaluations" / f"{split}-{epoch}.npy"
            with self.attempt(path, "selecting afterwards will lack it"):
                self._write(path, file.getbuffer())

    @contextmanager
    def attempt(self, path: Path, otherwise: str) -> Iterator[None]:
        """Log an OSError inside this context, such as a full disk, and go on, because the run can do without the file for now.

        Args:
            otherwise: the consequence, for the message.
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
        """Write a line on an evaluation to log.txt, and to the console if it is the last, or the first within a second."""
        now = time.monotonic()
        if self.writes and (last or now - self._last_line >= 1):
            self._last_line = now
            self.line(text)
        elif self.writes:
            print_safely(text, self._claimed and self._claimed.text)

    def bar(self, text: Callable[[], str]) -> None:
        """Show a line on a terminal between evaluations, at most five times a second."""
        if self._shows_bar and (now := time.monotonic()) - self._last_bar >= 0.2:
            self._last_bar = now
            print_safely("\r\x1b[K" + text()[: shutil.get_terminal_size().columns - 1], sys.stdout, end="")

    def clear_bar(self) -> None:
        """Remove the line that `bar` shows."""
        if self._last_bar > -math.inf:
            self._last_bar = -math.inf
            print_safely("\r\x1b[K", sys.stdout, end="")


class ClaimedFiles(NamedTuple):
    """Open files of a run directory: log.txt, metrics.jsonl, and the lock of the directory."""

    text: TextIO
    metrics: FileIO
    lock: FolderLock


def check_directory_config(config: Experiment, directory: Path) -> None:
    """Raise `BadInput` if a run with another config, or with one that cannot be read, was trained in `directory`.

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
            f"{path}: missing, and without it nobody knows what was trained here; put it back, or remove {directory} to "
            "start anew"
        ) from None
    except ValueError as error:
        raise BadInput(f"{path}: damaged ({error}); put it back, or remove {directory} to start anew") from None
    ours, before = defining_values(config), upgrade_saved_config(before)
    changed = sorted(key for key in ours if ours[key] != before.get(key))
    if changed:
        raise BadInput(
            f"config.{changed[0]}: {path} was written by a run with {before.get(changed[0])!r}, this one has "
            f"{ours[changed[0]]!r}; use another config.work_dir, or remove the directory"
        )


def without_nan(value: Any) -> Any:
    """Return `value` with None for every float that JSON cannot express."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """Return a duration as text: `3h07m`, `4m12s` or `9s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"

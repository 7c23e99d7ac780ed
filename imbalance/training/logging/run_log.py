"""What a run leaves behind and what it prints: its directory, metrics.jsonl, trackers and the console."""

import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from imbalance.config.experiment import Experiment
from imbalance.config.load import as_now, own_modules
from imbalance.config.run_directory import defining_values
from imbalance.errors import BadInput, Busy
from imbalance.training.logging import trackers
from imbalance.training.logging.trackers import Tracker
from imbalance.utils.files import write_whole
from imbalance.utils.locks import FolderLock, is_same
from imbalance.utils.output import say


class RunLog:
    """The files of one run. Only the main process writes; on the others every method does nothing."""

    def __init__(self, directory: Path, config: Experiment, writes: bool):
        self.directory, self.config, self.writes = directory, config, writes
        self.trackers: list[Tracker] = []
        self.wandb_id: str | None = None  # by which a resumed run goes on with its wandb run
        self._lock = self._text = self._metrics = None
        self._unwritten = b""  # the end of metrics.jsonl, while the disk is full
        self._shows_bar = writes and sys.stdout is not None and sys.stdout.isatty()
        self._last_line = self._last_bar = -math.inf

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._tell_trackers("finish", bool(error))
        self.clear_bar()
        for file in filter(None, (self._text, self._metrics, self._lock)):
            with suppress(OSError):  # log.txt on a full disk; see `line`
                file.close()

    def claim(self) -> dict[str, Any] | None:
        """Take the directory for this process alone; returns the summary of a run that is done there.

        Raises:
            Busy: another process has it.
            BadInput: it cannot be written to, is damaged, or holds another experiment.
        """
        trackers.check(self.config)  # a mistake there shows before anything is loaded
        try:
            self._lock = FolderLock(self.directory)
            check_directory_config(self.config, self.directory)
            self._keep_config()
            self._keep_modules()
            self._text = open(self.directory / "log.txt", "a", buffering=1, encoding="utf-8")
            self._metrics = open(self.directory / "metrics.jsonl", "ab", buffering=0)
        except BlockingIOError:
            raise Busy(str(self.directory)) from None
        except OSError as error:
            raise BadInput(
                f"config.work_dir: cannot write {error.filename or self.directory}: {error.strerror}"
            ) from None
        summary = self._summary_before()
        return summary if summary["status"] == "done" and not self.config.debug else None

    def _keep_config(self) -> None:
        """config.json; one that says the same is left as it is, also in the words of an older version."""
        path, text = self.directory / "config.json", json.dumps(self.config.to_dict(), indent=2)
        with suppress(OSError, ValueError, AttributeError):  # none yet, or of a run that was never trained
            if as_now(json.loads(path.read_text(encoding="utf-8"))) == json.loads(text):
                return
        write_whole(path, text.encode() + b"\n")

    def _keep_modules(self) -> None:
        """A copy of each module of one's own, with which the run can be loaded and run again."""
        for file in own_modules(self.config.to_dict()):
            copy, code = self.directory / "modules" / file.name, file.read_bytes()
            if not copy.exists():
                write_whole(copy, code)
            elif copy.read_bytes() != code:
                raise BadInput(
                    f"{file}: not the code that this run began with, which is {copy}; put that back, or use another "
                    "config.work_dir"
                )

    def _summary_before(self) -> dict[str, Any]:
        """What summary.json says; a damaged one is made again from the last checkpoint."""
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
        """A whole file, in the directory that is this run's.

        Raises:
            BadInput: it is so no longer. What would be written elsewhere than the metrics is no run.
        """
        self.check_directory()
        write_whole(path, data)

    def check_directory(self) -> None:
        """Raise `BadInput` if the directory or its metrics.jsonl has been removed or replaced since `claim`."""
        if not (self._lock.holds() and is_same(self.directory / "metrics.jsonl", self._metrics.fileno())):
            raise BadInput(
                f"{self.directory}: removed or replaced while this run was training in it; the same command starts anew"
            )

    # metrics.jsonl and checkpoints

    def position(self) -> int:
        """How many bytes metrics.jsonl has on the disk; a checkpoint says so, that a resume can `rewind` to it.

        Raises:
            OSError: it has not all of its lines, and a checkpoint would lose the rest.
            BadInput: it is no longer there.
        """
        self._write_metrics()
        os.fsync(self._metrics.fileno())
        self.check_directory()
        return self._metrics.tell()

    def rewind(self, position: int) -> None:
        """Drop the lines that were written after a checkpoint: the resumed run writes them again."""
        if os.fstat(self._metrics.fileno()).st_size < position:
            raise BadInput(
                f"{self._metrics.name}: shorter than the checkpoint says; remove {self.directory} to start anew"
            )
        self._metrics.truncate(position)
        self._metrics.seek(position)

    def _write_metrics(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[self._metrics.write(self._unwritten) :]

    # trackers

    def start_trackers(self, wandb_id: str | None) -> None:
        """Start those that the config or WANDB_MODE asks for, or go on with them after the last line of metrics.jsonl."""
        if not self.writes:
            return
        if settings := trackers.wandb_settings(self.config):
            self.trackers.append(trackers.Wandb(settings, self.config, self.directory, wandb_id, self.line))
            self.wandb_id = self.trackers[-1].id
        if self.config.logger.mode == "tensorboard":
            after = max((line["step"] for line in self.evaluations()), default=0)
            try:
                self.trackers.append(trackers.TensorBoard(self.config, self.directory, after))
            except Exception as error:
                self._go_on_without("tensorboard", error)

    def _tell_trackers(self, method: str, *values: Any) -> None:
        for tracker in list(self.trackers):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:
                self.trackers.remove(tracker)
                self._go_on_without(tracker.name, error)

    def _go_on_without(self, tracker: str, error: Exception) -> None:
        """Whatever happens to a tracker must not happen to the run."""
        self.line(f"{tracker}: {type(error).__name__}: {error}; going on without it, metrics.jsonl has everything")

    # What the run reports

    def metrics(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl, and the same to the trackers. nan, which JSON lacks, becomes null."""
        if self.writes:
            self._unwritten += json.dumps(without_nan(values), allow_nan=False).encode() + b"\n"
            with self.attempt(self.directory / "metrics.jsonl", "the next line tries again"):
                self._write_metrics()
            self._tell_trackers("log", values)

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of this process and of those before it; none on processes that do not write."""
        if not self.writes:
            return []
        text = (self.directory / "metrics.jsonl").read_bytes() + self._unwritten
        return [json.loads(line) for line in text.splitlines()]

    def summary(self, values: dict[str, Any]) -> None:
        """summary.json, whole or not at all, and only where metrics.jsonl has all of its lines."""
        if self.writes:
            self.position()
            text = json.dumps(without_nan(values), indent=2, allow_nan=False)
            self._write(self.directory / "summary.json", text.encode() + b"\n")
            flat = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
            self._tell_trackers("summary", flat)

    def model(self, values: dict[str, Any]) -> None:
        """model.json: what `imbalance.load` must know beside the weights."""
        write_whole(self.directory / "model.json", json.dumps(values, allow_nan=False).encode() + b"\n")

    def predictions(self, split: str, **arrays: Tensor) -> None:
        """predictions/<split>.npz: the selected weights' logits beside targets, groups and source rows."""
        file = io.BytesIO()
        np.savez_compressed(file, **{name: array.cpu().numpy() for name, array in arrays.items()})
        self._write(self.directory / "predictions" / f"{split}.npz", file.getbuffer())

    def logits(self, split: str, epoch: int, logits: Tensor) -> None:
        """evaluations/<split>-<epoch>.npy; a resumed run that evaluates an epoch again writes the same again."""
        if self.writes:
            file = io.BytesIO()
            np.save(file, logits.cpu().numpy())
            path = self.directory / "evaluations" / f"{split}-{epoch}.npy"
            with self.attempt(path, "selecting afterwards will lack it"):
                self._write(path, file.getbuffer())

    @contextmanager
    def attempt(self, path: Path, otherwise: str) -> Iterator[None]:
        """Around the writing of what a run can do without for now: a full disk is reported, and does not end it."""
        try:
            yield
        except OSError as error:
            self.line(f"WARNING: cannot write {path}: {error.strerror}; {otherwise}")

    def line(self, text: str) -> None:
        """A line to the console and to log.txt."""
        if self.writes:
            self.clear_bar()
            say(text, sys.stdout)
            say(text, self._text)

    def progress(self, text: str, last: bool) -> None:
        """A line on an evaluation: all of them to log.txt, and to the console at most one a second, and the last."""
        now = time.monotonic()
        if self.writes and (last or now - self._last_line >= 1):
            self._last_line = now
            self.line(text)
        elif self.writes:
            say(text, self._text)

    def bar(self, text: Callable[[], str]) -> None:
        """The line that a terminal shows between evaluations, made anew five times a second."""
        if self._shows_bar and (now := time.monotonic()) - self._last_bar >= 0.2:
            self._last_bar = now
            say("\r\x1b[K" + text()[: shutil.get_terminal_size().columns - 1], sys.stdout, end="")

    def clear_bar(self) -> None:
        if self._last_bar > -math.inf:
            self._last_bar = -math.inf
            say("\r\x1b[K", sys.stdout, end="")


def check_directory_config(config: Experiment, directory: Path) -> None:
    """Raise `BadInput` if what has been trained in `directory` had another config, or one that cannot be read.

    Trained, and not only begun: a run that was refused or killed on the way stands in nobody's way.
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
    ours, before = defining_values(config), as_now(before)
    changed = sorted(key for key in ours if ours[key] != before.get(key))
    if changed:
        raise BadInput(
            f"config.{changed[0]}: {path} was written by a run with {before.get(changed[0])!r}, this one has "
            f"{ours[changed[0]]!r}; use another config.work_dir, or remove the directory"
        )


def without_nan(value: Any) -> Any:
    """`value` with None for every float that JSON cannot express."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """`3h07m`, `4m12s` or `9s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"

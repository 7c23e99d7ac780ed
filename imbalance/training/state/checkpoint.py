"""Checkpoints: written whole or not at all, and checked before they are trusted."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput
from imbalance.training.distributed.processes import from_main, of_all_processes
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.run import Run
from imbalance.training.state.finite import copied, first_not_finite, put_back
from imbalance.training.state.progress import Progress, joined
from imbalance.training.state.provenance import FORMAT, check_format, check_origin, origin
from imbalance.utils.files import write_atomic
from imbalance.utils.seeds import random_state, set_random_state


def save_run(run: Run) -> None:
    """Write all that `resume` needs, of the state that is remembered; every process takes part.

    Where that fails (a full disk), the checkpoint before stays, a line says so, and training goes on.
    """
    learner, progress, log = run.learner, run.progress, run.log
    accelerator, train = learner.accelerator, learner.dataset.train
    progress.seconds = run.clock.seconds()
    with run.clock.saving():
        # What an epoch drew and predicted is only ever counted, over all processes, so the main one can keep it all.
        progress.reduce_logits(train.targets)
        none = torch.empty(0, device=accelerator.device)
        epoch = copied(
            {
                "drawn": joined(progress.drawn, train.indices),
                "predictions": joined(progress.predictions, train.targets),
                "margins": joined(progress.margins, none),
                "values": torch.stack(progress.values) if progress.values else none,
            }
        )
        values = {"values": epoch.pop("values")}  # the same on every process
        parts = of_all_processes({"random": random_state(), **epoch})
        if not log.writes:
            return
        state = {
            **run.good["state"],
            "progress": vars(progress) | values | {key: torch.cat([part[key] for part in parts]) for key in epoch},
            "random": [part["random"] for part in parts],
            "wandb_id": log.wandb_id,
            **origin(learner.data),
        }
        path = log.directory / "checkpoints" / "last.pt"
        with log.attempt(path, "the checkpoint before it stays"):
            save(path, state | {"metrics_position": log.position()})


def resume(config: Experiment, learner: Learner, log: RunLog) -> Progress:
    """Take up the run where its last whole checkpoint left it, or start it.

    Any number of processes can take up what any other number left; only the random state (of dropout) is then new on
    those that had none.

    Raises:
        BadInput: there are checkpoints, and none is whole; they are of other data, or of another version of this program.
    """
    accelerator = learner.accelerator
    path = log.directory / "checkpoints" / "last.pt"
    state = None if config.debug else from_main(accelerator, lambda: load(path, log))
    if state:
        from_main(accelerator, lambda: check_origin(state, learner.data, path, log.line))
    from_main(accelerator, lambda: log.rewind(state["metrics_position"] if state else 0))
    from_main(accelerator, lambda: log.start_trackers(state["wandb_id"] if state else None))
    if not state:
        return Progress()
    put_back(learner, state)
    if bad := first_not_finite(learner):
        raise BadInput(f"{path}: not finite: {bad}; remove {log.directory} to start anew")
    progress = Progress(**state["progress"] | {"together": 1})
    progress.values = list(progress.values.to(accelerator.device))
    for key in ("drawn", "predictions", "margins"):
        setattr(progress, key, [getattr(progress, key).to(accelerator.device)] if accelerator.is_main_process else [])
    if accelerator.process_index < len(state["random"]):
        set_random_state(state["random"][accelerator.process_index])
    log.line(f"resumed at epoch {progress.epoch}, step {progress.step}")
    return progress


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a crash at any moment leaves either the old file or the new one.

    The file before it is kept as `<stem>.previous.pt`, for the case that a disk loses what it said was written.
    """
    write(path, {"format": FORMAT, **state}, previous(path))


def write(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """`state` as torch saves it, by `write_atomic`."""
    data = io.BytesIO()
    torch.save(state, data)
    write_atomic(path, data.getbuffer(), previous)


def load(path: Path, log: RunLog) -> dict[str, Any] | None:
    """The checkpoint at `path`, or with a warning the one before it if that is damaged; None if there is neither.

    torch's files are zip archives, whose checksums show damage; nothing pickled is ever run.

    Raises:
        BadInput: there is one, and none is whole, or another version of this program wrote it.
        OSError: none can be read.
    """
    found, unread = [candidate for candidate in (path, previous(path)) if candidate.exists()], None
    for candidate in found:
        try:
            data = candidate.read_bytes()
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"bad checksum of {damaged}")
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            check_format(state, candidate, oldest=FORMAT)
            return state
        except BadInput:
            raise
        except Exception as error:  # a damaged file can fail in any way
            unread = error if isinstance(error, OSError) else unread
            log.line(f"WARNING: {candidate} is damaged ({error}); trying the checkpoint before it")
    if unread:
        raise unread
    if found:
        raise BadInput(f"{path}: damaged, and so is the checkpoint before it; remove both to start anew")
    return None


def previous(path: Path) -> Path:
    """Where `save` keeps the file before the last."""
    return path.with_suffix(f".previous{path.suffix}")

"""Checkpoints: write them whole or not at all, and check them before they are trusted."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput
from imbalance.training.distributed.processes import from_main, of_all_processes
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state.finite import first_non_finite
from imbalance.training.state.progress import LOCAL_RECORDS, Progress
from imbalance.training.state.provenance import FORMAT, check_format, check_provenance, provenance
from imbalance.training.state.registry import RandomState, Stateful, restore
from imbalance.training.state.run_state import Run
from imbalance.utils.files import write_atomic


def save_run(run: Run) -> None:
    """Write the remembered state of every part of the run, for `resume`. Every process must call this function.

    If writing fails, as on a full disk, the checkpoint before stays, a line in the log says so, and training goes on.
    """
    log = run.log
    with run.clock.saving():
        # Records of an epoch's steps are only counted, over all processes; so the main process can keep all of them.
        progress = run.remembered["progress"]
        local = {"random": run.remembered["random"], **{key: progress[key] for key in LOCAL_RECORDS}}
        shares = of_all_processes(local)
        if not log.writes:
            return
        records = {key: torch.cat([share[key] for share in shares]) for key in LOCAL_RECORDS}
        state = {
            **run.remembered,
            "progress": progress | records,
            "random": [share["random"] for share in shares],
            "wandb_id": log.wandb_id,
            **provenance(run.learner.data),
        }
        path = log.directory / "checkpoints" / "last.pt"
        with log.attempt(path, "the checkpoint before it stays"):
            save(path, state | {"metrics_position": log.position()})


def resume(config: Experiment, learner: Learner, log: RunLog) -> Progress:
    """Restore the last whole checkpoint of the run directory, and return its progress; without one, start the run.

    The number of processes may differ from that of the run before. Processes beyond that number then have a new random
    state, from which dropout draws.

    Raises:
        BadInput: no checkpoint is whole, or the last one is of other data or of another version of this program.
    """
    accelerator = learner.accelerator
    path = log.directory / "checkpoints" / "last.pt"
    state = None if config.debug else from_main(accelerator, lambda: load(path, log))
    if state:
        from_main(accelerator, lambda: check_provenance(state, learner.data, path, log.line))
    from_main(accelerator, lambda: log.rewind(state["metrics_position"] if state else 0))
    from_main(accelerator, lambda: log.start_trackers(state["wandb_id"] if state else None))
    progress = Progress(device=accelerator.device)
    if not state:
        return progress
    restore(learner.parts, state)
    if name := first_non_finite(learner):
        raise BadInput(f"{path}: not finite: {name}; remove {log.directory} to start anew")
    local = state_of_process(state, accelerator)
    parts: dict[str, Stateful] = {"progress": progress, "random": RandomState()}
    restore({name: part for name, part in parts.items() if name in local}, local)
    log.line(f"resumed at epoch {progress.epoch}, step {progress.step}")
    return progress


def state_of_process(state: Mapping[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Return the progress and the random state that this process restores from a checkpoint.

    The main process takes the records of all processes. A process that the checkpoint does not know has no random state.
    """
    progress, random = state["progress"], state["random"]
    if not accelerator.is_main_process:
        progress = progress | {key: progress[key][:0] for key in LOCAL_RECORDS}
    rank = accelerator.process_index
    return {"progress": progress} | ({"random": random[rank]} if rank < len(random) else {})


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`. A crash at any moment leaves either the old file or the new one.

    The old file is kept as `<stem>.previous.pt`, because a disk may lose what it has reported as written.
    """
    write(path, {"format": FORMAT, **state}, previous(path))


def write(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write `state` in torch's format, by `write_atomic`."""
    data = io.BytesIO()
    torch.save(state, data)
    write_atomic(path, data.getbuffer(), previous)


def load(path: Path, log: RunLog) -> dict[str, Any] | None:
    """Return the checkpoint at `path`, or None without one. If it is damaged, warn, and return the one before it.

    torch's files are zip archives, whose checksums show damage. No pickled code is ever run.

    Raises:
        BadInput: there is a checkpoint, but none is whole, or another version of this program wrote it.
        OSError: there is a checkpoint, but none can be read.
    """
    candidates = [candidate for candidate in (path, previous(path)) if candidate.exists()]
    read_error = None
    for candidate in candidates:
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
            read_error = error if isinstance(error, OSError) else read_error
            log.line(f"WARNING: {candidate} is damaged ({error}); trying the checkpoint before it")
    if read_error:
        raise read_error
    if candidates:
        raise BadInput(f"{path}: damaged, and so is the checkpoint before it; remove both to start anew")
    return None


def previous(path: Path) -> Path:
    """Return the path at which `save` keeps the file before the last."""
    return path.with_suffix(f".previous{path.suffix}")

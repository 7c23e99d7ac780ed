"""Checkpoints: write each file completely or not at all, and check it before a run resumes from it.

A checkpoint is one file, `last.pt`, which `torch.save` writes. `torch.distributed.checkpoint` would bring nothing here:
one process writes the file, which is replaced in one step, has checksums, and is read without pickle. Only sharded
runs use that package, for the tensors that the ranks hold in parts; see `imbalance.training.state.sharded`.
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput, Damaged
from imbalance.training.distributed.processes import from_main, of_all_processes, on_every_process
from imbalance.training.distributed.sharding import is_sharded
from imbalance.training.learner import Learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.state.finite import first_non_finite, is_finite
from imbalance.training.state.progress import LOCAL_RECORDS, Progress
from imbalance.training.state.provenance import FORMAT, check_format, check_provenance, provenance
from imbalance.training.state.registry import RandomState, Stateful, restore
from imbalance.training.state.run_state import Run
from imbalance.training.state.sharded import (
    check_folder,
    finish_saving,
    remove_folders,
    restore_sharded,
    restore_whole,
    start_saving,
)
from imbalance.utils.files import write_atomic
from imbalance.utils.read import archive_stamp, read_torch


def save_run(run: Run, wait: bool = True) -> None:
    """Write a checkpoint of the state that `remember` last copied. Every process must call this function.

    If writing fails, as on a full disk, the previous checkpoint stays, the log has a warning, and training goes on.

    Args:
        wait: False to let a sharded run go on while its checkpoint is written. All other runs always wait.
    """
    log = run.log
    with run.clock.saving():
        finish_saving(run)
        # Metrics only count the records of an epoch's steps over all processes, so one process can restore all of them.
        progress = run.remembered["progress"]
        local = {"random": run.remembered["random"], **{key: progress[key] for key in LOCAL_RECORDS}}
        shares = of_all_processes(local)
        sharded = is_sharded(run.learner.network)
        if not (log.writes or sharded):
            return
        records = {key: torch.cat([share[key] for share in shares]) for key in LOCAL_RECORDS}
        state = {
            **run.remembered,
            "progress": progress | records,
            "random": [share["random"] for share in shares],
            "wandb_id": log.wandb_id,
            **provenance(run.learner.data, run.pretrained),
        }
        if sharded:
            start_saving(run, state, save)
            if wait:
                finish_saving(run)
            return
        path = log.directory / "checkpoints" / "last.pt"
        with log.attempt(path, "the previous checkpoint stays"):
            save(path, state | {"metrics_position": log.position(), **log.digests_so_far})


def resume(config: Experiment, learner: Learner, log: RunLog, pretrained: str | None = None) -> Progress:
    """Restore the last undamaged checkpoint in the run directory, and return its progress.

    Without a checkpoint, return the progress of a new run. The number of processes may differ from the number that
    wrote the checkpoint. A process that did not exist then starts with a new random state, from which dropout draws.

    Args:
        pretrained: digest of the pretrained weights with which this run begins; None without any.

    Raises:
        BadInput: all checkpoints are damaged, or the last one was written with other data or by another version of this
            program.
    """
    accelerator = learner.accelerator
    path = log.directory / "checkpoints" / "last.pt"
    undamaged = None if config.debug else from_main(accelerator, lambda: undamaged_checkpoint(path, log))
    state = on_every_process(accelerator, lambda: load_checkpoint(*undamaged)) if undamaged else None
    if state:
        from_main(
            accelerator,
            lambda: check_provenance(
                state, learner.data, path, log.line, pretrained, in_memory=config.data.name == "in_memory"
            ),
        )
    from_main(accelerator, lambda: log.rewind(state or {}))
    from_main(accelerator, lambda: log.start_trackers(state["wandb_id"] if state else None))
    progress = Progress(device=accelerator.device)
    if not state:
        return progress
    restore_learner(learner, state, path)
    if not is_finite(learner):
        name = first_non_finite(learner) or "a weight"  # of a sharded model, perhaps on another rank
        raise BadInput(
            f"{path}: {name} is not finite, so no run can resume from it; remove {log.directory} to start anew"
        )
    local = state_of_process(state, accelerator)
    parts: dict[str, Stateful] = {"progress": progress, "random": RandomState()}
    restore({name: part for name, part in parts.items() if name in local}, local)
    log.line(f"resumed at epoch {progress.epoch}, step {progress.step}")
    return progress


def restore_learner(learner: Learner, state: dict[str, Any], path: Path) -> None:
    """Restore the stateful parts of a learner from a checkpoint; the learner, the checkpoint or both may be sharded.

    Args:
        state: content of the checkpoint. This function adds the weights of the best epoch if the checkpoint is sharded.
        path: path of last.pt.
    """
    parts = dict(learner.parts)
    if "sharded" in state:
        best = restore_sharded(learner, state["sharded"], path.with_name(state["sharded"]["folder"]))
        state["progress"] = state["progress"] | {"best_weights": best}
    elif is_sharded(learner.network):
        restore_whole(learner.network, learner.optimizer, state)
    if "sharded" in state or is_sharded(learner.network):
        del parts["model"], parts["optimizer"]
    restore(parts, state, last_use=True)


def state_of_process(state: Mapping[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Return a dictionary with the progress and the random state that this process restores from a checkpoint.

    Only the main process restores the predictions and margins of the current epoch, which were gathered from all
    processes. A process that did not exist when the checkpoint was written gets no random state.

    Args:
        state: content of the checkpoint.
    """
    progress, random = state["progress"], state["random"]
    if not accelerator.is_main_process:
        progress = progress | {key: progress[key][:0] for key in LOCAL_RECORDS}
    rank = accelerator.process_index
    return {"progress": progress} | ({"random": random[rank]} if rank < len(random) else {})


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint to `path`, and keep the one before it as `<stem>.previous.pt`.

    A crash at any moment leaves at least one of these two files whole. Both are kept because a disk may lose data that
    it has reported as written.
    """
    write(path, {"format": FORMAT, **state}, previous(path))
    remove_folders(path, previous(path))


def write(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write `state` to `path` by `torch.save`, completely or not at all.

    Args:
        previous: path to which the file that was at `path` is moved; None to replace that file.
    """
    write_atomic(path, as_bytes(state), previous)


def as_bytes(state: dict[str, Any]) -> memoryview:
    """Return the bytes of the file that `torch.save` would write for `state`."""
    data = io.BytesIO()
    torch.save(state, data)
    return data.getbuffer()


def undamaged_checkpoint(path: Path, log: RunLog) -> tuple[Path, str] | None:
    """Return the path and the `archive_stamp` of the checkpoint at `path` or, if it is damaged, of the previous checkpoint.

    Log a warning for each damaged checkpoint. Return None if there is no checkpoint.

    Raises:
        BadInput: both checkpoints are damaged, or another version of this program wrote them.
        OSError: no checkpoint is whole, and one cannot be read.
    """
    candidates = [candidate for candidate in (path, previous(path)) if candidate.exists()]
    read_error = None
    for candidate in candidates:
        try:
            state = read_torch(candidate)
            if not isinstance(state, dict):
                raise Damaged(candidate, "no checkpoint")
            check_format(state, candidate, oldest=FORMAT)
            if "sharded" in state:
                check_folder(candidate, state["sharded"])
            return candidate, archive_stamp(candidate)
        except (Damaged, OSError) as error:
            read_error = error if isinstance(error, OSError) else read_error
            log.line(
                f"WARNING: {candidate} is damaged ({getattr(error, 'reason', error)}); trying the previous checkpoint"
            )
    if read_error:
        raise read_error
    if candidates:
        raise BadInput(f"{path}: damaged, as is {previous(path).name} beside it; remove both to start anew")
    return None


def load_checkpoint(path: Path, stamp: str) -> dict[str, Any]:
    """Return the checkpoint at `path`, which `undamaged_checkpoint` has checked on the main process.

    The tensors are memory maps, so all processes on a machine share the memory of one copy.

    Args:
        stamp: stamp of the file on the main process.

    Raises:
        BadInput: this process cannot read the file, or the file has another stamp.
    """
    try:
        return read_torch(path, stamp=stamp)
    except (Damaged, OSError) as error:
        rank, reason = os.environ.get("RANK", "0"), error.reason if isinstance(error, Damaged) else error.strerror
        raise BadInput(
            f"config.work_dir: process {rank} cannot read {path}: {reason}; put work_dir on a disk that all machines share"
        ) from None


def previous(path: Path) -> Path:
    """Return the path at which `save` keeps the checkpoint that was at `path` before."""
    return path.with_suffix(f".previous{path.suffix}")

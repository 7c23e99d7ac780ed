"""Checkpoints of sharded runs: each rank writes the part of the network that it holds, while training goes on.

`torch.distributed.checkpoint` (DCP) writes the model, the optimiser's state and the weights of the best epoch into a new
folder `sharded.<n>` beside `last.pt`. Once all ranks have written their files, the main process writes `last.pt`, which
holds the rest of the state and names the folder. Until then `last.pt` names the folder of the previous
checkpoint, so a process that is killed during a save loses only this save. DCP reads such a folder into any number of
ranks, and into a model that is not sharded.

DCP stores its table of contents with pickle, so resume only from run directories that you trust. Trained models are read
from `selected.pt`, which needs no pickle.
"""

import functools
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from imbalance.errors import BadInput, Damaged
from imbalance.training.distributed import heartbeat
from imbalance.training.distributed.processes import from_main
from imbalance.training.learner import Learner
from imbalance.training.state.registry import copied
from imbalance.training.state.run_state import Run
from imbalance.utils.files import sync_folder
from imbalance.utils.read import read_bytes, read_torch, short_hash

CONTENTS = ".metadata"  # DCP's table of contents, which it writes after all other files of a folder
_thread = ThreadPoolExecutor(1, "checkpoints")  # ends each save by writing last.pt


def start_saving(run: Run, state: dict[str, Any], save: Callable[[Path, dict[str, Any]], None]) -> None:
    """Start to write a checkpoint of a sharded run; `finish_saving` waits for its end. Every process must call this function.

    Args:
        state: content of an unsharded checkpoint. Its model and optimiser are not used: they are read from the learner.
        save: function that writes last.pt, from its path and its content.
    """
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import async_save

    learner, log = run.learner, run.log
    path = log.directory / "checkpoints" / "last.pt"
    model, optimizer = get_state_dict(learner.network, learner.optimizer)
    best = state["progress"]["best_weights"]
    rest = {key: value for key, value in state.items() if key not in ("model", "optimizer")}
    rest["progress"] = state["progress"] | {"best_weights": {}}

    def new_folder() -> str | None:
        with log.attempt(path, "the previous checkpoint stays"):
            rest.update(metrics_position=log.position(), **log.digests_so_far)
            return f"sharded.{1 + max(map(number_of, folders(path.parent)), default=0)}"
        return None

    if name := from_main(learner.accelerator, new_folder):
        folder = path.parent / name
        rest["sharded"] = {"folder": name, "groups": copied(optimizer["param_groups"]), "best": bool(best)}
        tensors = {"model": model, "optimizer": optimizer["state"]} | ({"best": best} if best else {})
        writing = cast(Future, async_save(tensors, checkpoint_id=folder, process_group=group_of_checkpoints()))
        run.writing = _thread.submit(end_saving, run, folder, rest, writing, save)


def end_saving(
    run: Run, folder: Path, rest: dict[str, Any], writing: Future, save: Callable[[Path, dict[str, Any]], None]
) -> None:
    """Wait until all ranks have written their files, and write last.pt on the main process.

    Args:
        folder: folder of these files.
        rest: content of last.pt, without the sizes of the files.
        writing: future that DCP has returned.
        save: function that writes last.pt, from its path and its content.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    path = folder.with_name("last.pt")
    try:
        writing.result()
    except CheckpointException as error:  # raised on every rank
        reasons = [reason for reason, _ in error.failures.values()]
        if not all(isinstance(reason, OSError) for reason in reasons):
            raise RuntimeError(f"{folder}: {reasons[0]}") from error
        with run.log.attempt(folder, "the previous checkpoint stays"):
            raise reasons[0] from None
        return
    if run.log.writes:
        with run.log.attempt(path, "the previous checkpoint stays"):
            sync_folder(folder)
            sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
            rest["sharded"] |= {"sizes": sizes, "contents": short_hash(read_bytes(folder / CONTENTS))}
            save(path, rest)


def finish_saving(run: Run) -> None:
    """Wait until the checkpoint that is being written is whole. Every process must call this function."""
    if run.writing:
        writing, run.writing = run.writing, None
        with heartbeat.exchange("writing a checkpoint"):
            writing.result()


def remove_folders(*checkpoints: Path) -> None:
    """Remove the folders of sharded checkpoints that none of the files `checkpoints` names.

    If one of these files is damaged, remove no folder.

    Args:
        checkpoints: last.pt and last.previous.pt, which may be missing.
    """
    if not (present := folders(checkpoints[0].parent)):
        return
    with suppress(Damaged, OSError):  # of a damaged file the folder is unknown, so keep all
        named = {read_torch(path).get("sharded", {}).get("folder") for path in checkpoints if path.exists()}
        for folder in present:
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)


def folders(directory: Path) -> list[Path]:
    """Return the folders of sharded checkpoints in `directory`, whole or not."""
    return [path for path in directory.glob("sharded.*") if number_of(path)]


def number_of(path: Path) -> int:
    """Return the number in the name of a folder of a sharded checkpoint; 0 for any other name."""
    return int(match[1]) if (match := re.fullmatch(r"sharded\.(\d+)", path.name)) else 0


@functools.cache
def group_of_checkpoints() -> Any:
    """Return the process group in which checkpoints are written.

    The group is not that of training, because checkpoints and training exchange messages at the same time. The group
    uses gloo, because the files are written from copies on the CPU.
    """
    return torch.distributed.new_group(backend="gloo", timeout=heartbeat.torch_timeout())


def check_folder(path: Path, about: Mapping[str, Any]) -> None:
    """Raise `Damaged` unless the files of a sharded checkpoint have the recorded sizes and table of contents.

    Args:
        path: path of the last.pt that names the folder.
        about: entry "sharded" of this last.pt.
    """
    folder = path.with_name(about["folder"])
    try:
        read_bytes(folder / CONTENTS, about["contents"])
        bad = [name for name, size in about["sizes"].items() if (folder / name).stat().st_size != size]
    except OSError as error:
        raise Damaged(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from None
    if bad:
        raise Damaged(folder, f"{bad[0]} has another size than was written")


def restore_sharded(learner: Learner, about: Mapping[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """Load model and optimiser from a sharded checkpoint of any number of ranks, and return the best epoch's weights.

    Args:
        about: entry "sharded" of last.pt.
        folder: folder that last.pt names.

    Raises:
        BadInput: a file is damaged.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    alone = learner.accelerator.num_processes == 1
    reading: dict[str, Any] = dict(checkpoint_id=folder, no_dist=alone)
    if not alone:
        reading["process_group"] = group_of_checkpoints()
    model, optimizer = get_state_dict(learner.network, learner.optimizer)
    tensors: dict[str, Any] = {"model": model} | ({"best": copied(model)} if about["best"] else {})
    states = {"optimizer": optimizer["state"]}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is meant to be in one process
            load(tensors, **reading)
            # A parameter that never had a gradient has no state in the checkpoint, so keep its new state.
            load(states, planner=DefaultLoadPlanner(allow_partial_load=True), **reading)
    except CheckpointException as error:
        reason = " ".join(str(next(iter(error.failures.values()))[0]).split())[:200]
        raise BadInput(
            f"{folder}: damaged ({reason}); remove {folder.with_name('last.pt')} to resume from the previous checkpoint"
        ) from None
    state = {"state": states["optimizer"], "param_groups": about["groups"]}
    with own_fused(learner.optimizer):
        set_state_dict(
            learner.network,
            learner.optimizer,
            model_state_dict=tensors["model"],
            optim_state_dict=state,
            options=StateDictOptions(strict=False),
        )
    return tensors.get("best", {})


def restore_whole(network: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an unsharded checkpoint, which holds whole tensors, into a sharded model and its optimiser.

    Args:
        state: content of the checkpoint.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    set_model_state_dict(network, copied(state["model"]), options=StateDictOptions(full_state_dict=True))
    with own_fused(optimizer):
        set_optimizer_state_dict(
            network,
            optimizer,
            by_name(copied(state["optimizer"]), network, optimizer),
            options=StateDictOptions(full_state_dict=True, strict=False),
        )


def by_name(state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimiser with names of parameters in place of their numbers, because DCP needs names."""
    name_of = {parameter: name for name, parameter in network.named_parameters()}
    names = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    groups = [group | {"params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[number]: values for number, values in state["state"].items()}, "param_groups": groups}


@contextmanager
def own_fused(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Return a context manager that restores the optimiser's values of `fused` after its body, which loads a state.

    The loaded values may be wrong for this run: torch has no fused SGD for sharded parameters.
    """
    values = [group.get("fused") for group in optimizer.param_groups]
    yield
    for group, value in zip(optimizer.param_groups, values, strict=True):
        group["fused"] = value

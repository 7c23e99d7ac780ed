"""Whether all that a run has learned is finite: weights, buffers, the optimiser's state and that of the method.

To look at all of it after every step would cost a small model a tenth of its time. So a step only looks at its loss,
and the state is looked at before it is used: saved, evaluated, or called done. Where it is good it is remembered; where
it is not, or a loss is not, `forensics.find` does the steps since then again, and looks after each of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from imbalance.training.distributed.processes import totals
from imbalance.training.learner import Learner
from imbalance.training.run import Run
from imbalance.utils.seeds import random_state, set_random_state

LEAST_SCALE = 2.0**-14  # of fp16's gradients: with it they are smaller than those that float16 has as normal numbers


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values are; by the largest magnitude of each tensor, which unlike a sum cannot overflow."""
    tensors = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not tensors:
        return True
    largest = [norm.double() for norm in torch._foreach_norm(tensors, torch.inf)]
    return torch.stack(largest).isfinite().all().item()


def state_tensors(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a step may change, with what it is called in a message."""
    names = {parameter: name for name, parameter in learner.network.named_parameters()}
    for parameter, name in names.items():
        yield f"parameter {name}", parameter.detach()
    for name, buffer in learner.network.named_buffers():
        yield f"buffer {name}", buffer
    for parameter, state in learner.optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                yield f"the optimiser's {key} of {names[parameter]}", value
    for name, buffer in learner.objective.named_buffers():
        yield f"the objective's {name}", buffer


def everywhere(learner: Learner, good: bool) -> bool:
    """Whether all processes say so."""
    if learner.accelerator.num_processes == 1:
        return good
    bad = torch.tensor(float(not good), device=learner.accelerator.device)
    return not totals(learner.accelerator, {"bad": bad}, {})["bad"]


def is_finite(learner: Learner) -> bool:
    """Whether the state is, on every process."""
    scaler = learner.accelerator.scaler
    good = finite(tensor for _, tensor in state_tensors(learner)) and not (scaler and scaler.get_scale() < LEAST_SCALE)
    return everywhere(learner, good)


def all_skipped(run: Run) -> bool:
    """Whether fp16's scaler has halved its scale in every step of the run, and so has applied none."""
    scaler, step = run.learner.accelerator.scaler, run.progress.step
    return bool(scaler and step and scaler.get_scale() == run.first_scale * scaler.get_backoff_factor() ** step)


def first_not_finite(learner: Learner) -> str | None:
    """What of the state is not, as a message says it: that which comes first."""
    scaler = learner.accelerator.scaler
    if scaler and scaler.get_scale() < LEAST_SCALE:
        return f"float16 gradients, down to a scale of {scaler.get_scale():g}"
    return next((name for name, tensor in state_tensors(learner) if not finite([tensor])), None)


def learned(learner: Learner) -> dict[str, Any]:
    """All that training changes, as a checkpoint has it; no copy."""
    scaler = learner.accelerator.scaler
    return {
        "model": learner.network.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else {},
        "objective": learner.objective.state_dict(),
    }


def put_back(learner: Learner, state: dict[str, Any]) -> None:
    """Undo training since `state`, which `learned` returned."""
    learner.network.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(copied(state["optimizer"]))  # which keeps the tensors that it is given
    learner.objective.load_state_dict(state["objective"])
    if learner.accelerator.scaler:
        learner.accelerator.scaler.load_state_dict(state["scaler"])


def remember(run: Run) -> None:
    """Keep the state, which is finite, to go back to from one that is not; what has not changed since is not copied."""
    place = {key: list(value) if isinstance(value, list) else value for key, value in vars(run.progress).items()}
    state = run.good["state"] if is_known(run) else copied(learned(run.learner))
    run.good = {"state": state, "progress": place, "random": random_state()}


def is_known(run: Run) -> bool:
    """Whether the state is the one that is remembered: no step has been done since."""
    return run.good is not None and run.good["progress"]["step"] == run.progress.step


def go_back(run: Run) -> None:
    """Take up the run where it was when it was remembered."""
    put_back(run.learner, run.good["state"])
    run.learner.optimizer.zero_grad()
    set_random_state(run.good["random"])
    place = {key: list(value) if isinstance(value, list) else value for key, value in run.good["progress"].items()}
    vars(run.progress).update(place | {"together": run.progress.together})


def copied(value: Any, device: str | torch.device = "cpu") -> Any:
    """Of nested dictionaries and lists, with copies of their tensors on the CPU: a GPU has no room to waste.

    From a GPU all are under way before they are waited for, once; what has been copied so goes back without a wait.
    """
    from_device = []

    def copy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item) for item in value]
        if not isinstance(value, Tensor):
            return value
        if value.device.type != "cpu":
            from_device.append(value)
        return value.detach().to(device, non_blocking=True, copy=True)

    copies = copy(value)
    if from_device and torch.device(device).type == "cpu":
        torch.cuda.synchronize()
    return copies


def shortened(rows: list[int]) -> str:
    """The first 20 of them."""
    return ", ".join(map(str, rows[:20])) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")

"""Finite check: find NaN and infinity in the weights, the buffers, and the state of the optimiser and the method.

A step checks only its loss, because checking the whole state would take a tenth of the time of a small model. The whole
state is checked before the run saves, evaluates or ends. If it is finite, `remember` copies it to memory. If the state
or a loss is not finite, `forensics.find` repeats the steps since the last copy, and checks the whole state after each.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from imbalance.training.distributed.processes import totals
from imbalance.training.distributed.sharding import local
from imbalance.training.learner import Learner
from imbalance.training.state.registry import tensors_in
from imbalance.training.state.run_state import Run

LEAST_SCALE = 2.0**-14  # least scale of fp16 gradients; below it, gradients are smaller than float16's normal numbers


def finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values of the floating-point tensors are finite.

    Of a sharded tensor, only the part on this rank is tested. The test reads the largest magnitude of each tensor. A sum
    would be wrong, because it can overflow although all values are finite.
    """
    tensors = [tensor for tensor in map(local, tensors) if tensor.is_floating_point() and tensor.numel()]
    if not tensors:
        return True
    magnitudes = [norm.double() for norm in torch._foreach_norm(tensors, torch.inf)]  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack it)
    return bool(torch.stack(magnitudes).isfinite().all())


def named_tensors(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    """Yield the name, for messages, and the value of every tensor in `learner.parts`."""
    parameter_names: dict[Tensor, str] = {parameter: name for name, parameter in learner.network.named_parameters()}
    for key, part in learner.parts.items():
        if isinstance(part, nn.Module):
            parameter, buffer = ("parameter", "buffer") if key == "model" else [f"the {key}'s"] * 2
            yield from ((f"{parameter} {name}", tensor.detach()) for name, tensor in part.named_parameters())
            yield from ((f"{buffer} {name}", tensor) for name, tensor in part.named_buffers())
        elif isinstance(part, torch.optim.Optimizer):
            for parameter, state in part.state.items():
                for name, tensor in tensors_in(state):
                    yield f"the optimiser's {name} of {parameter_names[parameter]}", tensor
        else:
            yield from ((f"the {key}'s {name}", tensor) for name, tensor in tensors_in(part.state_dict()))


def all_processes_agree(learner: Learner, good: bool) -> bool:
    """Return whether `good` is true on every process; every process must call this function."""
    if learner.accelerator.num_processes == 1:
        return good
    bad = torch.tensor(float(not good), device=learner.accelerator.device)
    return not totals(learner.accelerator, {"bad": bad}, {})["bad"]


def is_finite(learner: Learner) -> bool:
    """Return whether the state of the learner is finite on every process."""
    scaler = learner.accelerator.scaler
    good = finite(tensor for _, tensor in named_tensors(learner)) and not (scaler and scaler.get_scale() < LEAST_SCALE)
    return all_processes_agree(learner, good)


def all_steps_skipped(run: Run) -> bool:
    """Return whether the fp16 scaler has skipped every step of the run.

    The scaler halves its scale whenever it skips a step, so the scale shows the number of skipped steps.
    """
    scaler, step = run.learner.accelerator.scaler, run.progress.step
    return bool(scaler and step and scaler.get_scale() == run.first_scale * scaler.get_backoff_factor() ** step)


def first_non_finite(learner: Learner) -> str | None:
    """Return the name, for a message, of the first tensor of the state that is not finite; None if all are finite."""
    scaler = learner.accelerator.scaler
    if scaler and scaler.get_scale() < LEAST_SCALE:
        return f"float16 gradients, down to a scale of {scaler.get_scale():g}"
    return next((name for name, tensor in named_tensors(learner) if not finite([tensor])), None)


def listed_rows(rows: list[int]) -> str:
    """Return a text of the first 20 row numbers, and of how many more there are."""
    return ", ".join(map(str, rows[:20])) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")

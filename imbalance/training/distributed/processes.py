"""One run in many processes, by accelerate: what makes them give the answer that one would."""

import functools
import os
from collections.abc import Callable
from math import ceil, isfinite
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.training.distributed import heartbeat
from imbalance.training.distributed.heartbeat import exchange


def start_accelerator(config: Experiment) -> Accelerator:
    """The accelerator for `config.trainer`, with the number of processes that the launcher asked for."""
    precision, on_cpu = config.trainer.mixed_precision, not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise BadInput(
            "config.trainer.mixed_precision: 'fp16' given, which a CPU computes in float32; use 'bf16' or 'no'"
        )
    set_arithmetic(config)
    # `accelerate launch --cpu --num_processes 2` starts one process, and leaves no other trace of having been asked.
    one_of_many = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    asked = int(os.environ.get("WORLD_SIZE", 0 if one_of_many else 1))
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    patience = InitProcessGroupKwargs(timeout=heartbeat.WAIT)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[patience])
    if accelerator.num_processes != asked:
        raise BadInput(
            f"launch: {asked or 'more'} processes were asked for and {accelerator.num_processes} started, or they do not "
            "see each other; use torchrun --standalone --nproc_per_node N main.py … (see docs/how-to/many-processes.md)"
        )
    heartbeat.watch_processes(accelerator.process_index, accelerator.num_processes)
    return accelerator


def set_arithmetic(config: Experiment) -> None:
    """How a GPU computes, for this process, as `config.trainer` has it.

    TF32 is float32 that tensor cores multiply with 10 bits of mantissa. torch's own setting is "convolutions".
    """
    # For whichever run of this process is deterministic: it must be there before the first matrix product on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.trainer.deterministic:
        # Only then, as the call imports torch's compiler.
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    # What is allocated is written before it is read, so nothing has to be filled.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = config.trainer.tf32 == "all"
    torch.backends.cudnn.allow_tf32 = config.trainer.tf32 != "none"


def share_batch_statistics(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """`model` with batch normalisation over the batches of all processes, as if there were one."""
    if accelerator.num_processes == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    if accelerator.device.type == "cpu":
        raise BadInput(
            "config.model.name: has batch normalisation, which torch shares between processes on GPUs only; "
            "on a CPU start one process"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def from_main(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """What `function` returns on the main process, on every process; an error that it raises there, too."""
    answer = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = function()
        except (BadInput, Diverged, Interrupted, OSError) as error:
            answer[1] = error
    if accelerator.num_processes > 1:
        with exchange("what process 0 does for all"):
            broadcast_object_list(answer)
    if answer[1]:
        raise answer[1]
    return answer[0]


def of_all_processes(value: Any) -> list[Any]:
    """What each process gives, in the order of their numbers, on every process."""
    with exchange("what each process has"):
        return gather_object([value])


def across_processes(
    accelerator: Accelerator, terms: dict[str, Tensor], request: int, size: int
) -> tuple[dict[str, Tensor], int | Tensor]:
    """The terms of the whole batch of `size`, in its order, and the greatest request of all processes.

    Gradients flow through this process's own rows only. With them every objective, however it mixes examples, is the
    one that a single process would compute; that processes average their gradients is made up for in the step.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if world == 1:
        return terms, request
    kind = terms["losses"].dtype
    columns = {name: column[:, None] if column.dim() == 1 else column.flatten(1) for name, column in terms.items()}
    widths = [column.shape[1] for column in columns.values()]
    sent = terms["losses"].new_full((ceil(size / world) + 1, sum(widths)), request)
    sent[: len(terms["losses"])] = torch.cat([column.detach().to(kind) for column in columns.values()], dim=1)
    gathered = accelerator.gather(sent).view(world, *sent.shape)
    everyone = gathered[:, :-1].transpose(0, 1).flatten(0, 1)[:size]
    whole = {}
    for (name, column), of_all in zip(terms.items(), everyone.split(widths, dim=1)):
        whole[name] = of_all.reshape(size, *column.shape[1:]).clone()
        whole[name][rank::world] = column.to(kind)
    return whole, gathered[:, -1].max()


def totals(accelerator: Accelerator, sums: dict[str, Tensor], maxima: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU: `sums` added up over all processes, and the greatest of `maxima`; in one exchange and one copy.

    They travel as float64, which has every count below 2^53.
    """
    parts = sums | maxima
    sent = torch.cat([part.double().flatten() for part in parts.values()])
    with exchange("counts and sums"):
        of_all = accelerator.gather(sent[None]).cpu()
    places = sum(part.numel() for part in sums.values())
    whole = torch.cat([of_all[:, :places].sum(0), of_all[:, places:].amax(0)])
    found = whole.split([part.numel() for part in parts.values()])
    return {name: values.to(part.dtype).view(part.shape) for (name, part), values in zip(parts.items(), found)}


def async_item(value: Tensor, request: int | Tensor) -> Callable[[], tuple[bool, int]]:
    """Start to copy what the host must know of a step, and return how to read it: is it finite, what is requested.

    On a GPU, reading after the backward pass is queued waits for the forward pass only, and the device stays busy. To be
    read before the next step's is sent: there is one place to send it to.

    Args:
        request: on the device where it was gathered from several processes, which alone has to be copied.
    """
    if value.device.type == "cpu":
        return lambda: (isfinite(value.item()), int(request))
    numbers = [value.detach(), *([request.to(value)] if isinstance(request, Tensor) else [])]
    host, copied = pinned_buffer(value.dtype)
    host[: len(numbers)].copy_(torch.stack(numbers) if len(numbers) > 1 else numbers[0], non_blocking=True)
    copied.record()

    def read() -> tuple[bool, int]:
        copied.synchronize()
        return isfinite(host[0]), int(request if isinstance(request, int) else host[1])

    return read


@functools.cache
def pinned_buffer(dtype: torch.dtype) -> tuple[Tensor, torch.cuda.Event]:
    """Memory that a GPU writes to by itself, and what says when it has: they take long to make, and so are made once."""
    return torch.empty(2, dtype=dtype, pin_memory=True), torch.cuda.Event()

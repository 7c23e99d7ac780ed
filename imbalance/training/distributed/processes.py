"""Train one run in several processes with accelerate; the result is the same as in one process."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import ceil, isfinite
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.training.distributed import heartbeat, launcher
from imbalance.training.distributed.heartbeat import exchange
from imbalance.utils.launch import check_launch

T = TypeVar("T")
R = TypeVar("R")


def start_accelerator(config: Experiment) -> Accelerator:
    """Start accelerate with the options in `config.trainer`, and return its accelerator.

    Raises:
        BadInput: the device cannot compute in `config.trainer.mixed_precision`, the launcher has a setting that the
            config decides, or the launcher has started another number of processes than it was told to.
    """
    check_launch()
    launcher.check_settings(config)
    precision, on_cpu = config.trainer.mixed_precision, launcher.is_told_to_use_cpu() or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise BadInput(
            "config.trainer.mixed_precision: 'fp16' given; a CPU does not compute in float16; use 'bf16' or 'no'"
        )
    if launcher.expected_processes() == 0:
        launcher.check_processes(started=1)
    set_arithmetic(config)
    AcceleratorState._reset_state()  # an earlier run in the same process may have had another precision
    patience = InitProcessGroupKwargs(timeout=heartbeat.torch_timeout())
    with heartbeat.startup():
        accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[patience])
    launcher.check_processes(accelerator.num_processes)
    heartbeat.watch_processes(accelerator.process_index, accelerator.num_processes)
    return accelerator


def set_arithmetic(config: Experiment) -> None:
    """Apply `config.trainer.deterministic` and `config.trainer.tf32` to the GPU computations of this process.

    In TF32, tensor cores multiply float32 numbers with 10 bits of mantissa. torch's own default corresponds to
    `config.trainer.tf32="convolutions"`.
    """
    # A later run in this process may be deterministic, and the variable must be set before the first matrix product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.trainer.deterministic:
        # This call imports torch's compiler, so call it only if the value changes.
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    # All code here writes memory before it reads it, so filling the memory first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue] (torch's stubs lack it)
    torch.backends.cuda.matmul.allow_tf32 = config.trainer.tf32 == "all"
    torch.backends.cudnn.allow_tf32 = config.trainer.tf32 != "none"


def share_batch_statistics(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return `model` with its batch normalisation computed over the global batch, as one process would.

    Raises:
        BadInput: there are several processes on a CPU, and the model has batch normalisation.
    """
    if accelerator.num_processes == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    if accelerator.device.type == "cpu":
        raise BadInput(
            "config.model.name: the model has batch normalisation, whose statistics processes can share "
            "on GPUs only; on a CPU start one process"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def from_main(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Call `function` on the main process, and return its result, or raise its error, on every process."""
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = function()
        except (BadInput, Diverged, Interrupted, OSError) as error:
            answer[1] = error
    if accelerator.num_processes > 1:
        with exchange("work that process 0 does for all"):
            broadcast_object_list(answer)
    if answer[1]:
        raise answer[1]
    return answer[0]


def from_main_with_help(
    accelerator: Accelerator,
    function: Callable[[Callable[[Sequence[R]], Iterator[Tensor]]], T],
    compute: Callable[[R], Tensor],
    uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> T:
    """Call `function` on the main process, and return its result, or raise its error, on every process.

    While `function` runs, all processes compute tensors for it.

    Args:
        function: takes one argument, `compute_all`, which maps a list of requests to an iterator over their tensors, in
            order. With several processes, each computes one request at a time, and the tensors are on the CPU.
        compute: returns the tensor that a request asks for; every process has the same model and data.
        uninterrupted: returns a context manager in which a signal raises no error. If the main process raised one while
            it exchanges tensors, all other processes would wait for it.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if world == 1:
        return function(lambda requests: map(compute, requests))

    def one_each(requests: Sequence[R]) -> list[tuple[Tensor | None, Exception | None]]:
        answer: tuple[Tensor | None, Exception | None] = None, None
        if rank < len(requests):
            try:
                answer = compute(requests[rank]).cpu(), None
            except (BadInput, Diverged, RuntimeError) as error:  # every process must reach the exchange
                answer = None, error
        answers: list[tuple[Tensor | None, Exception | None]] = of_all_processes(answer)
        return answers[: len(requests)]

    def compute_all(requests: Sequence[R]) -> Iterator[Tensor]:
        for start in range(0, len(requests), world):
            with uninterrupted():
                asked = requests[start : start + world]
                broadcast_object_list([asked])
                answers = one_each(asked)
            for value, error in answers:
                if error:
                    raise error
                yield cast(Tensor, value)

    def answer_requests() -> None:
        while True:
            asked: list[Any] = [None]
            with exchange("work that process 0 does for all"):
                broadcast_object_list(asked)
            if asked[0] is None:
                return
            one_each(asked[0])

    def call_and_release() -> T:  # the other processes stop to answer requests
        try:
            return function(compute_all)
        finally:
            broadcast_object_list([None])

    if not accelerator.is_main_process:
        answer_requests()
    return from_main(accelerator, call_and_release)


def of_all_processes(value: T) -> list[T]:
    """Gather `value` from every process; return all values, in the order of the ranks, on every process."""
    with exchange("collecting values"):
        return gather_object([value])


def across_processes(
    accelerator: Accelerator, terms: dict[str, Tensor], request: int, size: int
) -> tuple[dict[str, Tensor], int | Tensor]:
    """Gather the terms of a batch's examples from all processes, and the greatest request of all processes.

    Return a tuple: the terms of the global batch, in the order of its examples; and that request. A request asks all
    processes to save a checkpoint, or to save and stop, after the current step.

    From the global terms every process computes the same objective as a single process, even if the objective combines
    examples. Gradients flow only through the examples of this process. accelerate averages the gradients of the
    processes, but their sum is needed, so the step multiplies the objective by the number of processes.

    Args:
        terms: terms of the examples of this process.
        request: request of this process, a number from `imbalance.training.loop.current_request`.
        size: number of examples in the global batch.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if world == 1:
        return terms, request
    dtype = terms["losses"].dtype
    columns = {name: column[:, None] if column.dim() == 1 else column.flatten(1) for name, column in terms.items()}
    widths = [column.shape[1] for column in columns.values()]
    sent = terms["losses"].new_full((ceil(size / world) + 1, sum(widths)), request)
    sent[: len(terms["losses"])] = torch.cat([column.detach().to(dtype) for column in columns.values()], dim=1)
    gathered = cast(Tensor, accelerator.gather(sent)).view(world, *sent.shape)
    all_rows = gathered[:, :-1].transpose(0, 1).flatten(0, 1)[:size]
    global_terms = {}
    for (name, column), values in zip(terms.items(), all_rows.split(widths, dim=1)):
        global_terms[name] = values.reshape(size, *column.shape[1:]).clone()
        global_terms[name][rank::world] = column.to(dtype)
    return global_terms, gathered[:, -1].max()


def on_every_process(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Call `function` on every process, and return the result of this process; an error on one process is raised on all."""
    if accelerator.num_processes == 1:
        return function()
    result, error = None, None
    try:
        result = function()
    except (BadInput, Diverged, Interrupted, OSError) as raised:
        error = raised
    for raised in of_all_processes(error):
        if raised:
            raise raised
    return cast(T, result)


def totals(accelerator: Accelerator, sums: dict[str, Tensor], maxima: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return, by name, the sums of `sums` over all processes and the maxima of `maxima` over all processes.

    All tensors are exchanged in one call and copied to the CPU, as float64, which is exact for every count below 2^53.
    """
    tensors = sums | maxima
    sent = torch.cat([tensor.double().flatten() for tensor in tensors.values()])
    with exchange("counts and sums"):
        gathered = cast(Tensor, accelerator.gather(sent[None])).cpu()
    end_of_sums = sum(tensor.numel() for tensor in sums.values())
    reduced = torch.cat([gathered[:, :end_of_sums].sum(0), gathered[:, end_of_sums:].amax(0)])
    values = reduced.split([tensor.numel() for tensor in tensors.values()])
    return {name: value.to(tensor.dtype).view(tensor.shape) for (name, tensor), value in zip(tensors.items(), values)}


def gather_on_main(accelerator: Accelerator, block: Tensor) -> list[Tensor]:
    """Return on the main process a list of the blocks of all processes, in the order of the ranks; [] on the others.

    Args:
        block: tensor with the same shape on every process.
    """
    world = accelerator.num_processes
    if world == 1:
        return [block]
    blocks = [torch.empty_like(block) for _ in range(world)] if accelerator.is_main_process else []
    with exchange("collecting logits"):
        torch.distributed.gather(block, blocks or None, dst=0)
    return blocks


def async_item(value: Tensor, request: int | Tensor) -> Callable[[], tuple[bool, int]]:
    """Start to copy a step's `value` and `request` to the host, and return a function that waits for both.

    The returned function returns whether the value is finite, and the request. On a GPU, call the returned function
    once the backward pass is queued: it then waits for the forward pass only, so the device stays busy. Call the
    returned function before the next call of `async_item`, because all copies share one pinned buffer.

    Args:
        value: scalar that the step minimises.
        request: with several processes, the gathered request, a tensor on the device; with one, a number, not copied.
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
    """Return a pinned buffer, and an event for the end of a copy to it; both are slow to make, so they are cached."""
    return torch.empty(2, dtype=dtype, pin_memory=True), torch.cuda.Event()

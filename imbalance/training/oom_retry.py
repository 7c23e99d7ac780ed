"""Retry after an out-of-memory error: train on with smaller micro-batches, or evaluate with smaller batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from imbalance.errors import BadInput, is_out_of_memory
from imbalance.training.state.run_state import Run, go_back

T = TypeVar("T")


def oom_retry(run: Run) -> None:
    """Go back to the last state copied by `remember`, and from then on use micro-batches of half the size.

    The step that ran out of memory may have changed running means, the state of the method or some weights. From the
    copied state, smaller micro-batches lead to the same numbers; see `step.forward`. The caller must not keep the
    exception, because it keeps the memory of the step.

    Raises:
        BadInput: a micro-batch is already as small as it can be, or the run has several processes, of which the others
            cannot go back.
    """
    learner = run.learner
    most = run.config.trainer.batch_size // learner.smallest_batch
    if learner.micro_batches >= most or learner.accelerator.num_processes > 1:
        if learner.micro_batches >= most:
            where = (
                "for one example"
                if learner.smallest_batch == 1
                else "for the two examples that batch normalisation needs"
            )
            remedy = "use a smaller config.model"
        else:
            where = f"on process {learner.accelerator.process_index}"
            remedy = "use a greater config.trainer.accumulation, or a smaller config.model"
        raise BadInput(
            f"config.trainer.accumulation: {learner.micro_batches} given, and there is not enough memory {where}; {remedy}"
        )
    learner.micro_batches = min(2 * learner.micro_batches, most)
    learner.optimizer.zero_grad()  # first, because an allocated gradient keeps its block
    torch.cuda.empty_cache()  # free blocks have the sizes of the larger micro-batches
    go_back(run)
    normalised = any(isinstance(module, _BatchNorm) for module in learner.network.modules())
    run.log.line(
        f"out of memory: the run went back to step {run.progress.step}, and continues with {learner.micro_batches} micro-batches "
        + (
            "a batch, each with its own means in batch normalisation"
            if normalised
            else "a batch, which changes no result"
        )
        + f"; to start like this, use config.trainer.accumulation={learner.micro_batches}"
    )


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Suppress out-of-memory errors of the host and of a GPU.

    The error keeps the memory of the failed computation, so free memory only after this context has ended.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise


def with_freed_memory(call: Callable[[], T], purpose: str) -> T:
    """Return `call()`; after an out-of-memory error, free the unused blocks of torch's cache, and call once more.

    Args:
        purpose: what the memory is for, for the message: "to draw the examples of an epoch".

    Raises:
        BadInput: there is not enough memory in the second call either.
    """
    for _ in range(2):
        with suppress_out_of_memory():
            return call()
        torch.cuda.empty_cache()
    raise BadInput(
        f"out of memory: there is not enough memory {purpose}; use a smaller config.model, or a GPU that no other process uses"
    )


def with_smaller_batches(call: Callable[[int], T], size: int, may_halve: bool = True) -> tuple[T, int]:
    """Return a tuple of `call(size)` and `size`; after each out-of-memory error, halve `size` and call again.

    Args:
        size: number of examples in a batch.
        may_halve: False if all processes must have the same size.

    Raises:
        BadInput: there is not enough memory for one example, or the size must not change.
    """
    while True:
        with suppress_out_of_memory():
            return call(size), size
        torch.cuda.empty_cache()  # its blocks have the sizes of the larger batches
        if size == 1 or not may_halve:
            remedy = "use a smaller config.model" if size == 1 else "use a smaller value"
            raise BadInput(f"config.trainer.eval_batch_size: {size} given, and there is not enough memory; {remedy}")
        size //= 2

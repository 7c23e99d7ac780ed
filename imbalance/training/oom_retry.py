"""Retry after an out-of-memory error: go back, and train on with smaller micro-batches."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from imbalance.errors import BadInput
from imbalance.training.state.run_state import Run, go_back


def oom_retry(run: Run) -> None:
    """Go back to the last state copied by `remember`, and from then on use micro-batches of half the size.

    The step that ran out of memory may have changed running means, the state of the method or some weights. From the
    copied state, smaller micro-batches lead to the same numbers; see `step.forward`. The caller must not keep the
    exception, because it keeps the memory of the step.

    Raises:
        BadInput: a micro-batch is already as small as it can be, or there are other processes, which cannot go back.
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
    if learner.accelerator.device.type == "cuda":
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

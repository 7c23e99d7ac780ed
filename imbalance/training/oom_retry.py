"""What a GPU has no memory for is computed in smaller parts, from the last state on that is whole."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from imbalance.errors import BadInput
from imbalance.training.run import Run
from imbalance.training.state.finite import go_back


def compute_in_smaller_parts(run: Run) -> None:
    """Go back to the latest state that is remembered, and compute batches in twice as many parts from there on.

    A step that ran out of memory may have moved the running means of a model, the state of a method or some of the
    weights. From the state before all that, the same steps come to the same numbers: see `step.forward`.

    Raises:
        BadInput: the parts cannot be smaller, or other processes are in the middle of the step.
    """
    learner, size = run.learner, run.config.trainer.batch_size
    if learner.micro_batches >= size or learner.accelerator.num_processes > 1:
        alone = (
            "for one example" if learner.micro_batches >= size else f"on process {learner.accelerator.process_index}"
        )
        raise BadInput(
            f"config.trainer.accumulation: {learner.micro_batches} given, and there is not enough memory {alone}; use a smaller "
            "model, or a greater accumulation"
        )
    learner.micro_batches = min(2 * learner.micro_batches, size)
    if learner.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()  # its blocks have the sizes of the larger parts
    go_back(run)
    normalised = any(isinstance(module, _BatchNorm) for module in learner.network.modules())
    run.log.line(
        f"out of memory: back to step {run.progress.step}, and on with batches in {learner.micro_batches} parts, "
        + ("over each of which batch normalisation takes its means" if normalised else "which changes no result")
        + f"; config.trainer.accumulation={learner.micro_batches} begins so"
    )

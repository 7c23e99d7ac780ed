"""Measure the ratio of the time of an evaluation to the time of the model's forward passes alone.

An evaluation computes every metric of every class and group of a split. The ConvNet evaluates 512 or 1,024 images. With more
images the ratio would be lower, because the work after the predictions hardly grows with the number of images. The forward
pass of a linear model takes almost no time, so the ratio of a linear model shows the cost of the metrics, and has no bar.
"""

from collections.abc import Iterator, Sequence

import torch

from imbalance.bench.cases import make, on_images, start_run
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.config.experiment import Experiment, validate
from imbalance.training.evaluate import evaluate, split_metrics
from imbalance.training.learner import Learner
from imbalance.utils.malloc import keep_freed_memory

# For each row: the model, the numbers of images, classes and groups, and the bar.
CASES = (
    ("convnet", 512, 2, 2, "≤ 1.05"),
    ("convnet", 512, 10, 100, "≤ 1.05"),
    ("convnet", 1024, 1000, 1000, "≤ 1.05"),
    ("linear", 10_000, 2, 2, ""),
    ("linear", 10_000, 1000, 1000, ""),
)


@torch.inference_mode()
def forward(config: Experiment, learner: Learner) -> None:
    """Compute the logits of val, as every evaluation has to do, and discard them."""
    model, inputs = learner.network.eval(), learner.dataset.val.inputs
    assert isinstance(inputs, torch.Tensor), "random images are in memory"
    for batch in inputs.split(config.trainer.eval_batch_size):
        model(learner.normalise(batch))


def time_ratios(config: Experiment, repeats: int) -> list[float]:
    """Return `repeats` ratios of the time of a whole evaluation of val to the time of its forward passes."""
    run = start_run(config, make(config))
    return timed_in_turns(
        lambda: split_metrics(run, "val", *evaluate([run], "val")), lambda: forward(config, run.learner), repeats
    )


def rows(repeats: int, cases: Sequence[tuple[str, int, int, int, str]] = CASES) -> Iterator[Row]:
    """Measure evaluations, and yield the rows of the benchmark's table."""
    keep_freed_memory()
    for model, size, classes, groups, bar in cases:
        config = validate(on_images(model, size=size, batch_size=64, classes=classes, groups=groups))
        case = f"{model}, {size:,} images, {classes:,} classes, {groups:,} groups"
        yield Row("evaluation: all / forward pass", case, time_ratios(config, repeats), bar)

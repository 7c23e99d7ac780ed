"""Evaluating a split, with every metric of every class and group, over the model's forward pass over it alone.

The ConvNet on 512 images, or one a class, which is few: what follows the predictions costs the same for more. A linear
model's forward pass is next to nothing, so its ratio says what the rest costs and has no bar.
"""

from collections.abc import Sequence

import torch
from ml_collections import ConfigDict

from imbalance.bench.cases import begun, make, on_images
from imbalance.bench.timing import Row, timed_in_turns
from imbalance.training.evaluate import evaluate, split_metrics
from imbalance.training.learner import Learner
from imbalance.utils.malloc import keep_freed_memory

# Model, images, classes, groups and the bar.
CASES = (
    ("convnet", 512, 2, 2, "≤ 1.05"),
    ("convnet", 512, 10, 100, "≤ 1.05"),
    ("convnet", 1024, 1000, 1000, "≤ 1.05"),
    ("linear", 10_000, 2, 2, ""),
    ("linear", 10_000, 1000, 1000, ""),
)


@torch.inference_mode()
def forward(config: ConfigDict, learner: Learner) -> None:
    """What `evaluate` has to do at the least."""
    model, inputs = learner.network.eval(), learner.dataset.val.inputs
    for batch in inputs.split(config.trainer.eval_batch_size):
        model(learner.normalise(batch))


def ratios(config: ConfigDict, repeats: int) -> list[float]:
    """Of the seconds that both take."""
    run = begun(config, make(config))
    return timed_in_turns(
        lambda: split_metrics(run, "val", *evaluate([run], "val")), lambda: forward(config, run.learner), repeats
    )


def rows(repeats: int, cases: Sequence[tuple[str, int, int, int, str]] = CASES) -> list[Row]:
    keep_freed_memory()
    found = []
    for model, size, classes, groups, bar in cases:
        config = on_images(model, size=size, batch_size=64, classes=classes, groups=groups)
        case = f"{model}, {size:,} images, {classes:,} classes, {groups:,} groups"
        found.append(Row("evaluation: all / forward pass", case, ratios(config, repeats), bar))
    return found

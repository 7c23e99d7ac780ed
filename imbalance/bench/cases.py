"""Make configs whose data needs no files, and train epochs of these configs by the project's training loop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from ml_collections import ConfigDict

from imbalance.config.experiment import Experiment, validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load, override
from imbalance.config.schema import Count
from imbalance.data import Dataset, Split
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import Learner, make_learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.loop import train_epoch
from imbalance.training.state.progress import Clock, Progress
from imbalance.training.state.run_state import Run, remember

Config = ConfigDict | Experiment


def random_images(seed: int, *, size: Count, classes: Count, groups: Count) -> Dataset:
    """Return a data set of `size` random uint8 images of shape (3, 32, 32); all splits have the same images."""
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(size)
    split = Split(images, rows % classes, rows % groups, rows)
    class_names, group_names = (tuple(map(str, range(count))) for count in (classes, groups))
    return Dataset(split, split, split, class_names, group_names, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def on_images(model: str, *, size: int, batch_size: int, classes: int = 2, groups: int = 2) -> ConfigDict:
    """Return a config on random images.

    Args:
        model: "convnet" for the ConvNet of Wang et al. (ICLR 2022), or "linear".
        size: number of images.
        classes, groups: number of classes and of groups, which have equally many images.
    """
    data = {"name": f"{__file__}:random_images", "size": size, "classes": classes, "groups": groups}
    changes = {"data": data, "trainer.batch_size": batch_size}
    if model == "linear":
        changes["model"] = {"name": "linear", "init": "default"}
    return override(load(CONFIGS / "cifar_ce.py"), changes)


def make(config: Config) -> Learner:
    """Validate a config, and build its learner, which holds the data set, the model and the optimiser."""
    experiment = validate(config)
    return make_learner(experiment, start_accelerator(experiment), Path())


def start_run(config: Config, learner: Learner) -> Run:
    """Return a run of the learner that writes no files, to time its steps."""
    experiment, progress = validate(config), Progress()
    log = RunLog(Path(), experiment, writes=False)
    run = Run(experiment, learner, progress, log, Interrupt(), Clock(progress, 1e9))
    remember(run)
    return run


def our_epoch(config: Config, learner: Learner) -> Callable[[], None]:
    """Return a function that trains the next epoch by the project's loop, but evaluates nothing and writes no files."""
    experiment = validate(config)
    never = replace(experiment.trainer, epochs=10_000_000, eval_every=10_000_000)
    callbacks = replace(experiment.callbacks, stop_at_interpolation=False)
    run = start_run(replace(experiment, trainer=never, callbacks=callbacks), learner)
    return lambda: train_epoch(run)

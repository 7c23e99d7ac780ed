"""What is trained in the benchmark: data that need no file, configs for them, and the project's loop over them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.config.experiment import validate
from imbalance.config.resolve import CONFIGS, load
from imbalance.config.schema import Count
from imbalance.data import DATASETS, Dataset, Split
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import Learner, make_learner
from imbalance.training.logging.run_log import RunLog
from imbalance.training.loop import train_epoch
from imbalance.training.state.progress import Clock, Progress
from imbalance.training.state.run_state import Run, remember


def random_images(seed: int, *, size: Count, classes: Count, groups: Count) -> Dataset:
    """`size` uint8 images of CIFAR's shape, in each split the same: what they show does not matter to the clock."""
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(size)
    split = Split(images, rows % classes, rows % groups, rows)
    names = (tuple(map(str, range(count))) for count in (classes, groups))
    return Dataset(split, split, split, *names, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def on_images(model: str, *, size: int, batch_size: int, classes: int = 2, groups: int = 2) -> ConfigDict:
    """The config of the paper's ConvNet, or of a linear model, on random images."""
    DATASETS["random_images"] = random_images
    config = load(CONFIGS / "cifar_ce.py")
    config.data = create(name="random_images", size=size, classes=classes, groups=groups)
    if model == "linear":
        config.model = create(name="linear", init="default")
    config.trainer.batch_size = batch_size
    return config


def make(config: ConfigDict) -> Learner:
    """The learner of a config, which it checks as a run does."""
    config = validate(config)
    return make_learner(config, start_accelerator(config), Path())


def begun(config: ConfigDict, learner: Learner) -> Run:
    """A run that leaves no files."""
    progress, log = Progress(), RunLog(Path(), config, writes=False)
    run = Run(config, learner, progress, log, Interrupt(), Clock(progress, 1e9))
    remember(run)
    return run


def our_epoch(config: ConfigDict, learner: Learner) -> Callable[[], None]:
    """Return a function that trains the next epoch by the project's loop, without evaluation and files."""
    experiment = validate(config)
    never = replace(experiment.trainer, epochs=10_000_000, eval_every=10_000_000)
    callbacks = replace(experiment.callbacks, stop_at_interpolation=False)
    run = begun(replace(experiment, trainer=never, callbacks=callbacks), learner)
    return lambda: train_epoch(run)

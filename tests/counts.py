"""Kernels launched and waits for the device, a step and an epoch: `python tests/counts.py` prints a table.

Every case is trained twice, on the CPU and on the stand-in for a GPU, where it must come to the same numbers. Beside a
step's launches stand those of a loop of one's own: the same model and optimiser, weighted `F.cross_entropy`, nothing
measured. A second table has a step's launches with each loss.
"""

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

from helpers.standin import Device  # isort: skip  # before the program, which uses what it puts in the place of torch's
import numpy as np
import torch
import torch.nn.functional as F
from conftest import ROOT
from examples import names, settings
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.bench.cases import make, on_images, random_images
from imbalance.config.resolve import load
from imbalance.config.schema import Count
from imbalance.data import DATASETS, Dataset
from imbalance.data.images.stored_images import StoredImages, pinned_copier
from imbalance.data.population import SPLITS
from imbalance.training import loop
from imbalance.training.lbfgs import Solver
from imbalance.training.stacked import train as batched
from imbalance.training.step import draw_epoch, take_step

PARTS = ("draw_epoch", "take_step", "training_metrics", "evaluate", "remember", "save", "finish")


def of_file(name: str, **sections: Any) -> ConfigDict:
    config = load(ROOT / "configs" / f"{name}.py")
    for key, section in sections.items():
        config[key] = create(**section)
    config.trainer.update(epochs=2, eval_every=1, batch_size=64)
    config.callbacks.select = "best"
    return config


def on_random_images(**sections: Any) -> ConfigDict:
    config = on_images("convnet", size=24, batch_size=8, groups=4)
    for key, section in sections.items():
        config[key] = create(**section)
    config.trainer.update(epochs=1, eval_every=1)
    config.callbacks.select = "best"
    return config


def with_few_epochs_of_head(config: ConfigDict) -> ConfigDict:
    config.head.epochs = 2
    return config


def with_moving_average(config: ConfigDict) -> ConfigDict:
    config.trainer.ema_decay = 0.9
    return config


SCHEDULE = dict(name="constant", warmup_epochs=0.0)
LBFGS = dict(name="lbfgs", weight_decay=1e-3, decayed="weights", tolerance=1e-4, schedule=SCHEDULE)
SAM = dict(name="sam", **settings("optim", "sam"), schedule=SCHEDULE)
SUPCON = dict(name="supcon", **settings("objective", "supcon"))
POLY = dict(name="poly", alpha=1.0, left="logistic")
DRO = dict(name="group_dro", step_size=0.01, size_adjustment=0.0, adjust_absent=False)
CASES: dict[str, Callable[[], ConfigDict]] = {
    "linear, cross-entropy": lambda: of_file("gaussian_ce"),
    "linear, poly": lambda: of_file("gaussian_poly"),
    "MLP, cross-entropy": lambda: of_file("digits_ce"),
    "MLP, poly": lambda: of_file("digits_poly"),
    "MLP, group DRO": lambda: of_file("colored_digits_dro"),
    "MLP, CVaR": lambda: of_file("colored_digits_cvar"),
    "MLP, cRT": lambda: with_few_epochs_of_head(of_file("colored_digits_crt")),
    "MLP, worst group": lambda: of_file("colored_digits_ce", objective=dict(name="worst_group")),
    "linear, lbfgs": lambda: of_file("digits_ce", model=dict(name="linear", init="default"), optim=LBFGS),
    "MLP, SAM": lambda: of_file("digits_ce", optim=SAM),
    "MLP, moving average of the weights": lambda: with_moving_average(of_file("digits_ce")),
    "ConvNet, cross-entropy": on_random_images,
    "ConvNet, poly": lambda: on_random_images(loss=POLY),
    "ConvNet, group DRO": lambda: on_random_images(objective=DRO),
    "ConvNet, two views": lambda: on_random_images(objective=SUPCON),
}


def on_augmented_images() -> ConfigDict:
    """An epoch of several batches, each of whose examples is flipped and cropped by its own numbers."""
    config, plain = on_random_images(), random_images

    def augmented(seed: int, *, size: Count, classes: Count, groups: Count) -> Dataset:
        return replace(plain(seed, size=size, classes=classes, groups=groups), augmentations=("flip", "pad_crop"))

    DATASETS["augmented_images"] = augmented
    config.data.name = "augmented_images"
    return config


def on_stored_images() -> ConfigDict:
    """The same images behind a store, which is where the decoded images of files are."""
    config, plain = on_random_images(), random_images

    def stored(seed: int, *, size: Count, classes: Count, groups: Count) -> Dataset:
        dataset = plain(seed, size=size, classes=classes, groups=groups)
        images = StoredImages(
            dataset.train.inputs.numpy(), np.zeros(size, np.uint32), torch.arange(size), torch.device("cpu")
        )
        return replace(dataset, **{name: replace(getattr(dataset, name), inputs=images) for name in SPLITS})

    DATASETS["stored_images"] = stored
    config.data.name = "stored_images"
    config.trainer.eval_batch_size = 4
    return config


def on_images_that_stay() -> ConfigDict:
    config = on_stored_images()
    config.trainer.images_on_device = True
    return config


CASES["ConvNet, augmentation"] = on_augmented_images
CASES["ConvNet, from a store"] = on_stored_images
CASES["ConvNet, store on the device"] = on_images_that_stay


def bare(config: ConfigDict, device: Device) -> int:
    """The launches of a step without the project, on a learner of its making: that of the benchmark's bare loop."""
    learner = make(config)
    train, model, optimizer = learner.dataset.train, learner.model.train(), learner.optimizer
    if isinstance(optimizer, Solver):  # which takes no step on a batch
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    weights = learner.weights(0)
    order = torch.arange(config.trainer.batch_size)
    rows, places = order.to(train.targets.device), order.to(train.inputs.device)
    device.reset()
    images = learner.normalise(train.inputs.index_select(0, places))
    logits = model(images)
    logits = logits if isinstance(logits, torch.Tensor) else logits[0]  # a second output is the objective's
    losses = F.cross_entropy(logits, train.targets.index_select(0, rows), reduction="none")
    (losses * weights.index_select(0, rows)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return device.launches.total()


# A step is counted on each of these with each of those.
LOSSES = {name: settings("loss", name) for name in names("loss")} | {
    "poly": {key: value for key, value in POLY.items() if key != "name"}
}
MODELS: dict[str, Callable[[], ConfigDict]] = {
    "linear, 2 classes": lambda: of_file("gaussian_ce", objective=dict(name="average")),
    "MLP, 2 classes": lambda: of_file("colored_digits_ce"),
    "ConvNet, 2 classes": on_random_images,
    "linear, 10 classes": lambda: of_file("digits_ce", model=dict(name="linear", init="default")),
}


def launches_with_losses(case: Callable[[], ConfigDict]) -> dict[str, int]:
    """Of a bare step, and of one with each loss, from the second on."""
    with Device() as device:
        found = {"bare": bare(case(), device)}
        for name, values in LOSSES.items():
            config = case()
            config.loss = create(name=name, **values)
            learner = make(config)
            epoch = draw_epoch(learner, 0)
            for batch in range(2):
                device.reset()
                take_step(config, learner, epoch, batch, 2, lambda: 0)
                learner.optimizer.zero_grad()
            found[name] = device.launches.total()
    return found


def counted(device: Device) -> dict[str, list[int]]:
    """From each of PARTS to calls, launches and waits, filled from here on."""
    found = defaultdict(lambda: [0, 0, 0])

    def counting(name: str, function: Callable) -> Callable:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            launches, waits = device.launches.total(), device.waits.total()
            result = function(*args, **kwargs)
            new = (1, device.launches.total() - launches, device.waits.total() - waits)
            found[name] = [before + more for before, more in zip(found[name], new)]
            return result

        return counted

    for module in (loop, batched):
        for name in PARTS:
            if hasattr(module, name):
                device.patch.setattr(module, name, counting(name, getattr(module, name)))
    return found


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Of a case: launches and waits of each part, on the average; those of a bare step; whether a CPU comes to the same."""
    summary = loop.train(CASES[name](), folder / "cpu")
    with Device() as device:
        of_bare = bare(CASES[name](), device)
        parts = counted(device)
        pinned_copier.cache_clear()  # whose memory is counted anew
        device.reset()
        on_device = loop.train(CASES[name](), folder / "standin")
    lines = [(folder / place / "metrics.jsonl").read_text() for place in ("cpu", "standin")]
    assert on_device["device"] == "standin:0"
    return {
        "bare": of_bare,
        "same": lines[0] == lines[1] and str(summary["metrics"]) == str(on_device["metrics"]),
        "parts": {part: [launches / calls, waits / calls] for part, (calls, launches, waits) in parts.items()},
        "copied": device.copied,
        "pinned": device.allocated,
    }


# Of which four runs, of two seeds and two rates, are trained at once.
AT_ONCE = ("MLP, cross-entropy", "ConvNet, augmentation")


def measure_at_once(name: str, folder: Path) -> dict[str, Any]:
    """Launches and waits of a step of all runs, and whether a CPU comes to the same, all of them at once there, too."""

    def runs(place: str) -> list[tuple[ConfigDict, Path]]:
        found = []
        for seed, rate in ((0, 0.02), (0, 0.05), (1, 0.02), (1, 0.05)):
            found.append((CASES[name](), folder / place / f"{seed} {rate}"))
            found[-1][0].update(seed=seed)
            found[-1][0].optim.lr = rate
        return found

    summaries = batched.train_stacked(runs("cpu"))
    with Device() as device:
        device.patch.setattr(batched, "WRITERS", 1)  # the device is seen by this thread alone
        parts = counted(device)
        on_device = batched.train_stacked(runs("standin"))
    assert [summary["device"] for summary in on_device] == ["standin:0"] * 4
    calls, launches, waits = parts["take_step"]
    same = [str(one["metrics"]) == str(other["metrics"]) for one, other in zip(summaries, on_device)]
    return {"same": all(same), "step": [launches / calls, waits / calls]}


def table(found: dict[str, dict[str, Any]]) -> str:
    """In Markdown: launches / waits."""
    lines = ["| | bare step | " + " | ".join(PARTS) + " |", "|---" * (len(PARTS) + 2) + "|"]
    for name, of_case in found.items():
        cells = [f"{launches:.0f} / {waits:.0f}" for launches, waits in map(of_case["parts"].get, PARTS)]
        lines.append(f"| {name} | {of_case['bare']} / 0 | {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_losses(found: dict[str, dict[str, int]]) -> str:
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in ("bare", *LOSSES):
        lines.append(f"| {name} | " + " | ".join(str(of_model[name]) for of_model in found.values()) + " |")
    return "\n".join(lines)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = {name: measure(name, Path(directory) / name) for name in names or CASES}
        at_once = {name: measure_at_once(name, Path(directory) / f"{name}, at once") for name in AT_ONCE}
    of_losses = {name: launches_with_losses(case) for name, case in MODELS.items()}
    print(table(found), table_of_losses(of_losses), sep="\n\n", file=sys.stderr)
    print(json.dumps({"cases": found, "losses": of_losses, "at once": at_once}))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Torch ends its threads for a device as the process ends, where one that is still at work there aborts it now and then
    # ("terminate called without an active exception"), with everything said.
    os._exit(0)

"""Features: their extraction over the network's forward passes alone, and what heads on them cost.

Heads of eight learning rates and twelve seeds on features of Waterbirds' size that are made up: as one batched model,
over one process a run, of which some are timed, and over scikit-learn's logistic regression, fitted for eight penalties
at one seed, as its fits draw no random numbers.
"""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance import extract
from imbalance.config import load, validate
from imbalance.data import Dataset, Split
from imbalance.data.features import close_features, crc, open_features
from imbalance.training.batched import train_at_once
from imbalance.training.learner import load_dataset
from imbalance.training.memory import keep_freed_memory

from .cases import on_images
from .timing import ROOT, Row, few, in_turns, python, seconds, timed_in_turns

PART = "features"
RATES, SEEDS = 8, 12
TIMED = 2  # of the processes
EXAMPLES, WIDTH = (4795, 1199, 5794), 2048  # Waterbirds' splits, and the features of a ResNet-50


def extraction(repeats: int, images: int = 256) -> list[float]:
    """The ratios of seconds: all of `imbalance features` but its start, over the forward passes alone."""
    config = on_images("convnet", size=images, batch_size=64)
    config.trainer.eval_batch_size = 64
    config = validate(config)
    dataset = load_dataset(config)
    model = extract.configured(config, dataset)

    def written() -> None:
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            extract.extract(config, dataset, model, {}, Path(folder) / "features")

    def forward() -> None:
        for split in (dataset.train, dataset.val, dataset.test):
            for batch in split.inputs.split(64):
                model.features(batch)

    return timed_in_turns(written, forward, repeats)


def made_up(folder: Path) -> None:
    """A folder of features of two classes and four groups, of which one feature in ten says something."""
    rng, splits = np.random.default_rng(0), []
    features = np.abs(rng.standard_normal((sum(EXAMPLES), WIDTH), dtype=np.float32))
    for count, first in zip(EXAMPLES, np.cumsum((0, *EXAMPLES))):
        targets = np.arange(count) % 4 // 3
        places = np.where(rng.random(count) < 0.9, targets, 1 - targets)
        rows = slice(first, first + count)
        features[rows, :100] += 0.2 * targets[:, None]
        features[rows, 100:200] += 0.4 * places[:, None]
        labels = (torch.from_numpy(array) for array in (targets, 2 * targets + places, np.arange(count)))
        splits.append(Split(torch.from_numpy(features[rows]), *labels))
    folder.mkdir()
    np.save(folder / "features.npy", features)
    about = {"model": {"name": "made up"}, "weights": "none", "inputs": {}, "data": {}}
    checksums = np.array([crc(row) for row in features], dtype=np.uint32)
    close_features(folder, Dataset(*splits, ("0", "1"), ("00", "01", "10", "11")), about, checksums)


def heads(folder: Path, work_dir: Path) -> list[ConfigDict]:
    """Their configs."""
    found = []
    for i in range(RATES * SEEDS):
        config = load(ROOT / "configs" / "features_erm.py")
        config.data = create(name="features", folder=str(folder), standardise=True)
        config.update(seed=i // RATES, work_dir=str(work_dir))
        config.optim.lr = 1e-4 * 2.0 ** (i % RATES)
        found.append(config)
    return found


def quietly(call: Callable[[], None]) -> None:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        call()


def at_once(folder: Path) -> float:
    """The seconds of all heads, their files included."""
    with tempfile.TemporaryDirectory() as work_dir:
        runs = [(config, Path(work_dir) / str(i)) for i, config in enumerate(heads(folder, Path(work_dir)))]
        return seconds(lambda: quietly(lambda: train_at_once(runs)))


def by_process(folder: Path) -> float:
    """The seconds of all heads, had each taken what `TIMED` of them take in a process of their own."""
    with tempfile.TemporaryDirectory() as work_dir:
        flags = [f"--config.data.folder={folder}", f"--config.work_dir={work_dir}", "--config=configs/features_erm.py"]
        timed = (lambda seed=seed: python("main.py", *flags, f"--config.seed={seed}") for seed in range(TIMED))
        return RATES * SEEDS * sum(map(seconds, timed)) / TIMED


def by_scikit_learn(folder: Path) -> float:
    """The seconds of a grid of as many fits, had all seeds taken what one takes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    stored = open_features(folder)
    inputs = StandardScaler().fit_transform(stored.features[: EXAMPLES[0]])
    targets = stored.tables["targets"][: EXAMPLES[0]]

    def grid() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that have not converged: scikit-learn's own limit of 100 steps
            for i in range(RATES):
                LogisticRegression(C=10.0 ** (2 - i)).fit(inputs, targets)

    return SEEDS * seconds(grid)


def rows(repeats: int) -> list[Row]:
    keep_freed_memory()
    found = [Row(f"{PART}: extraction / forward passes", "ConvNet, 768 images", extraction(repeats), "≤ 1.05")]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "features"
        made_up(folder)
        case = f"{RATES * SEEDS} linear heads, {EXAMPLES[0]:,} × {WIDTH:,}, 20 epochs"
        for name, other, bar in (("one process a run", by_process, "≥ 20"), ("scikit-learn", by_scikit_learn, "≥ 5")):
            ratios = in_turns(lambda other=other: other(folder), lambda: at_once(folder), few(repeats))
            found.append(Row(f"{PART}: {name} / at once", case, ratios, bar))
    return found

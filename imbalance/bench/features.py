"""Features: their extraction over the network's forward passes alone, and what heads on them cost.

Heads of eight learning rates and twelve seeds on features of Waterbirds' size that are made up, as one batched model: 20
epochs each, evaluated after every one, with the files of a run. Over the same runs in a process each, of which some are
timed; and over scikit-learn's logistic regression, of which there are as many fits, of eight penalties, each to its own
tolerance, with its probabilities on val and test and no files. Its fits draw no random numbers, so one seed is timed.
The features do not depend on one another, which is the case that lbfgs is fastest in: seven to seventeen steps. Steps
differ in how many a fit takes, so last a step of lbfgs for every head over an epoch of all: either is one pass over the
examples, forward and back, of one logit there and two here.
"""

import statistics
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

from imbalance.bench.cases import begun, on_images
from imbalance.bench.timing import ROOT, Row, few, python, seconds, timed_in_turns
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data import Dataset, Split
from imbalance.data.sets.features import close_features, crc, open_features
from imbalance.deploy import extract_features as extract
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import learner_on, load_dataset, make_source
from imbalance.training.stacked.models import Stack
from imbalance.training.stacked.train import train_epoch, train_stacked
from imbalance.utils.malloc import keep_freed_memory

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
    model = extract.config_model(config, dataset)

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
        return seconds(lambda: quietly(lambda: train_stacked(runs)))


def by_process(folder: Path) -> float:
    """The seconds of all heads, had each taken what `TIMED` of them take in a process of their own."""
    with tempfile.TemporaryDirectory() as work_dir:
        flags = [f"--config.data.folder={folder}", f"--config.work_dir={work_dir}", "--config=configs/features_erm.py"]
        timed = (lambda seed=seed: python("main.py", *flags, f"--config.seed={seed}") for seed in range(TIMED))
        return RATES * SEEDS * sum(map(seconds, timed)) / TIMED


def by_scikit_learn(folder: Path) -> tuple[float, float]:
    """The seconds of a grid of as many fits, and of a step of each of them, had all seeds taken what one takes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    stored = open_features(folder)
    train, others = stored.features[: EXAMPLES[0]], stored.features[EXAMPLES[0] :]
    scaler = StandardScaler().fit(train)
    inputs, others, targets = scaler.transform(train), scaler.transform(others), stored.tables["targets"][: EXAMPLES[0]]
    models = [LogisticRegression(C=10.0 ** (2 - i)) for i in range(RATES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that have not converged within its limit of 100 steps
        of_fits = [seconds(lambda model=model: model.fit(inputs, targets)) for model in models]
    predicting = seconds(lambda: [model.predict_proba(others) for model in models])
    steps = sum(taken / model.n_iter_[0] for taken, model in zip(of_fits, models))
    return SEEDS * (sum(of_fits) + predicting), SEEDS * steps


def epoch_at_once(folder: Path) -> Callable[[], None]:
    """The next epoch of all heads, with nothing read, evaluated or written."""
    configs = [validate(config) for config in heads(folder, Path())]
    accelerator, dataset = start_accelerator(configs[0]), load_dataset(configs[0])
    sources = {config.seed: make_source(config, accelerator, Path(), dataset) for config in configs[::RATES]}
    members = [begun(config, learner_on(sources[config.seed], config, accelerator)) for config in configs]
    stack = Stack(members)

    def epoch() -> None:
        train_epoch(stack, members, Interrupt())
        for member in members:
            member.progress.next_epoch()

    epoch()  # the first takes longer
    return epoch


def of_heads(folder: Path, repeats: int) -> list[Row]:
    epoch, processes, fits, steps = epoch_at_once(folder), [], [], []
    for _ in range(few(repeats)):
        ours = at_once(folder)
        processes.append(by_process(folder) / ours)
        of_fits, of_steps = by_scikit_learn(folder)
        fits.append(of_fits / ours)
        steps.append(of_steps / statistics.median(seconds(epoch) for _ in range(5)))
    case = f"{RATES * SEEDS} linear heads, {EXAMPLES[0]:,} × {WIDTH:,}"
    return [
        Row(f"{PART}: one process a run / at once", f"{case}, 20 epochs", sorted(processes), "≥ 20"),
        Row(f"{PART}: scikit-learn's fits / at once", f"{case}, 20 epochs", sorted(fits), "≥ 5"),
        Row(f"{PART}: a step of its fits / an epoch at once", case, sorted(steps), ""),
    ]


def rows(repeats: int) -> list[Row]:
    keep_freed_memory()
    found = [Row(f"{PART}: extraction / forward passes", "ConvNet, 768 images", extraction(repeats), "≤ 1.05")]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "features"
        made_up(folder)
        return found + of_heads(folder, repeats)

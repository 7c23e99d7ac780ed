"""Measure the extraction of features, and the training of linear heads on features.

The first ratio is that of the time of an extraction to the time of the network's forward passes alone.

The heads have eight learning rates and twelve seeds. They are trained as one stacked model, on random features of Waterbirds'
size. Each head is trained for 20 epochs, evaluated after every epoch, and writes the files of a run. Three more ratios compare
the 96 stacked heads with other ways to train 96 heads:

- The ratio of the time of the same runs in a process each to the time of the stacked runs. Only some processes are timed.
- The ratio of the time of 96 fits of scikit-learn's logistic regression to the time of the stacked runs. The fits have
  eight penalties, stop at scikit-learn's tolerance, and compute the probabilities on val and test, but write no files. A fit
  draws no random numbers, so only one seed is timed.
- The ratio of the processor time of 96 fits by scikit-learn to that of the same fits by `optim.name="lbfgs"`, with the same
  penalties and tolerance, and without files. In one row of the table all 96 fits differ. In another there are eight different
  fits, each of which `lbfgs` computes once for its twelve seeds.
- The ratio of the time of one lbfgs step in every fit to the time of one epoch of the stacked heads. Each step and each epoch
  is one pass over the examples, forward and backward, so this ratio does not depend on the number of steps. A fit has one
  logit, and a head two.

The random features are independent of one another, which is the fastest case for lbfgs: it takes seven to seventeen steps.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from imbalance.bench.cases import on_images, start_run
from imbalance.bench.timing import Row, halved, in_turns, python, seconds, timed_in_turns
from imbalance.config.experiment import Experiment, validate
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load, override
from imbalance.data import Dataset, Split
from imbalance.data.sets.features import close_features, crc, open_features
from imbalance.deploy import extract_features as extract
from imbalance.methods.losses import CrossEntropy
from imbalance.training.distributed.interrupt import Interrupt
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.lbfgs import Fits, Problem
from imbalance.training.learner import learner_on, load_dataset, make_source
from imbalance.training.optim import lbfgs
from imbalance.training.stacked.models import Stack
from imbalance.training.stacked.train import train_epoch, train_stacked
from imbalance.utils.malloc import keep_freed_memory

PART = "features"
RATES, SEEDS = 8, 12  # numbers of learning rates and of seeds
STRENGTHS = [10.0 ** (2 - i) for i in range(RATES)]  # C of scikit-learn's fits
TOLERANCE = 1e-4  # largest entry of the gradient at the end of a fit
TIMED = 2  # number of one-run processes that are timed
EXAMPLES, WIDTH = (4795, 1199, 5794), 2048  # sizes of Waterbirds' splits, and number of features of a ResNet-50


def extraction(repeats: int, images: int = 256) -> list[float]:
    """Return ratios of the time of `imbalance features`, without its start-up, to that of the network's forward passes.

    Args:
        repeats: number of ratios.
        images: number of images in each of three splits.
    """
    images_config = on_images("convnet", size=images, batch_size=64)
    config = validate(override(images_config, {"trainer.eval_batch_size": 64}))
    dataset = load_dataset(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = extract.config_model(config, dataset, device)
    compute = extract.make_compute(config, dataset, model)

    def extract_all() -> None:
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            extract.extract(config, dataset, {}, Path(folder) / "features", lambda batches: map(compute, batches))

    def forward() -> None:
        for split in (dataset.train, dataset.val, dataset.test):
            assert isinstance(split.inputs, torch.Tensor), "random images are in memory"
            for batch in split.inputs.split(64):
                model.features(batch)

    return timed_in_turns(extract_all, forward, repeats)


def make_features(folder: Path) -> None:
    """Write random features to `folder`, as `imbalance features` does; about one feature in ten is informative.

    The examples have two classes and four groups.
    """
    rng, splits = np.random.default_rng(0), []
    features = np.abs(rng.standard_normal((sum(EXAMPLES), WIDTH), dtype=np.float32))
    for count, first in zip(EXAMPLES, np.cumsum((0, *EXAMPLES))):
        targets = np.arange(count) % 4 // 3
        backgrounds = np.where(rng.random(count) < 0.9, targets, 1 - targets)
        rows = slice(first, first + count)
        features[rows, :100] += 0.2 * targets[:, None]
        features[rows, 100:200] += 0.4 * backgrounds[:, None]
        groups, indices = 2 * targets + backgrounds, np.arange(count)
        labels = torch.from_numpy(targets), torch.from_numpy(groups), torch.from_numpy(indices)
        splits.append(Split(torch.from_numpy(features[rows]), *labels))
    folder.mkdir()
    np.save(folder / "features.npy", features)
    about = {"model": {"name": "made up"}, "weights": "none", "inputs": {}, "data": {}}
    checksums = np.array([crc(row) for row in features], dtype=np.uint32)
    train, val, test = splits
    close_features(folder, Dataset(train, val, test, ("0", "1"), ("00", "01", "10", "11")), about, checksums)


def heads(folder: Path, work_dir: Path) -> list[Experiment]:
    """Return the configs of linear heads (last layers) on the features in `folder`, for each seed and learning rate.

    Args:
        folder: folder that `make_features` has written.
        work_dir: folder of the run directories.
    """
    data = {"name": "features", "folder": str(folder), "standardise": True}
    base = override(load(CONFIGS / "features_erm.py"), {"data": data, "work_dir": str(work_dir)})
    return [
        validate(override(base, {"seed": seed, "optim.lr": 1e-4 * 2.0**rate}))
        for seed in range(SEEDS)
        for rate in range(RATES)
    ]


def quietly(call: Callable[[], object]) -> None:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        call()


def stacked_seconds(folder: Path) -> float:
    """Return the seconds that it takes to train all 96 heads as one stacked model, and to write their files.

    Args:
        folder: folder that `make_features` has written.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        runs = [(config, Path(work_dir) / str(i)) for i, config in enumerate(heads(folder, Path(work_dir)))]
        return seconds(lambda: quietly(lambda: train_stacked(runs)))


def process_seconds(folder: Path) -> float:
    """Return an estimate of the seconds that it takes to train all 96 heads in a process each.

    Only TIMED such processes are timed.

    Args:
        folder: folder that `make_features` has written.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        flags = [f"--config.data.folder={folder}", f"--config.work_dir={work_dir}", "--config=configs/features_erm.py"]
        timed = (lambda seed=seed: python("main.py", *flags, f"--config.seed={seed}") for seed in range(TIMED))
        return RATES * SEEDS * sum(map(seconds, timed)) / TIMED


def scikit_learn_seconds(folder: Path) -> tuple[float, float]:
    """Return two times of scikit-learn's logistic regression: of all fits, and of one iteration of every fit.

    Both are in seconds. Only the fits of one seed are measured.

    Args:
        folder: folder that `make_features` has written.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    stored = open_features(folder)
    train, others = stored.features[: EXAMPLES[0]], stored.features[EXAMPLES[0] :]
    scaler = StandardScaler().fit(train)
    inputs, others, targets = scaler.transform(train), scaler.transform(others), stored.tables["targets"][: EXAMPLES[0]]
    models = [LogisticRegression(C=strength) for strength in STRENGTHS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits that do not converge within the limit of 100 steps warn
        fits = [seconds(lambda model=model: model.fit(inputs, targets)) for model in models]
    predicting = seconds(lambda: [model.predict_proba(others) for model in models])
    steps = sum(taken / model.n_iter_[0] for taken, model in zip(fits, models))
    return SEEDS * (sum(fits) + predicting), SEEDS * steps


def fits_seconds(inputs: torch.Tensor, targets: torch.Tensor, copies: int) -> float:
    """Return the processor seconds of fits by L-BFGS with the penalties of `scikit_learn_fits`.

    Args:
        inputs: (N, D) features.
        targets: (N,) classes, 0 or 1.
        copies: number of fits for each penalty; a little is added to the penalty of each, so that all fits differ.
    """
    penalties = [2 / (strength * len(targets)) * (1 + copy / 1000) for copy in range(copies) for strength in STRENGTHS]
    problem, solvers = Problem(inputs, targets, targets, CrossEntropy(), True), []
    for penalty in penalties:
        head = torch.nn.Linear(inputs.shape[1], 2)
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
        solvers.append([lbfgs(list(head.parameters()), weight_decay=penalty, decayed="weights", tolerance=TOLERANCE)])
    started = time.process_time()
    while solvers:
        fits = Fits(problem, solvers, torch.ones(len(solvers), len(targets)))
        while not any(solver.ended for (solver,) in solvers):
            fits.step()
        solvers = [same for same in solvers if not same[0].ended]
    return time.process_time() - started


def scikit_learn_fits(inputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the processor seconds in which scikit-learn fits one classifier for each of `STRENGTHS`.

    Args:
        inputs: (N, D) features.
        targets: (N,) classes, 0 or 1.
    """
    from sklearn.linear_model import LogisticRegression

    started = time.process_time()
    for strength in STRENGTHS:
        LogisticRegression(C=strength, tol=TOLERANCE, max_iter=1000).fit(inputs, targets)
    return time.process_time() - started


def solver_rows(folder: Path, repeats: int) -> Iterator[Row]:
    """Measure the fits of 96 heads by L-BFGS and by scikit-learn, and yield the rows of the benchmark's table."""
    train = load_dataset(heads(folder, Path())[0]).train
    assert isinstance(train.inputs, torch.Tensor), "the features are in memory"
    inputs, targets, case = train.inputs, train.targets, f"{RATES * SEEDS} heads, {EXAMPLES[0]:,} × {WIDTH:,}"
    fits_seconds(inputs, targets, 1)  # the first fits take longer
    for name, copies, bar in (("all different", SEEDS, "≥ 5"), (f"{RATES} different", 1, "≥ 12")):
        ratios = in_turns(
            lambda: SEEDS * scikit_learn_fits(inputs.numpy(), targets.numpy()),
            lambda copies=copies: fits_seconds(inputs, targets, copies),
            repeats,
        )
        yield Row("features: scikit-learn's fits / lbfgs, CPU time", f"{case}, {name}", ratios, bar)


def stacked_epoch(folder: Path) -> Callable[[], None]:
    """Return a function that trains all 96 heads for one more epoch, as one stacked model.

    The function evaluates nothing and writes no files.

    Args:
        folder: folder that `make_features` has written.
    """
    configs = heads(folder, Path())
    accelerator, dataset = start_accelerator(configs[0]), load_dataset(configs[0])
    sources = {config.seed: make_source(config, accelerator, Path(), dataset) for config in configs[::RATES]}
    runs = [start_run(config, learner_on(sources[config.seed], config, accelerator)) for config in configs]
    stack = Stack(runs)

    def epoch() -> None:
        train_epoch(stack, runs, Interrupt())
        for run in runs:
            run.progress.next_epoch()

    epoch()  # the first epoch takes longer
    return epoch


def head_rows(folder: Path, repeats: int) -> list[Row]:
    """Compare stacked linear heads with other ways to train the same number of heads, and return the rows of the benchmark's table.

    Args:
        folder: folder for the features and run directories.
        repeats: number of measurements for each row, an even number; every two give one ratio, see `halved`.
    """
    epoch, processes, fits, steps = stacked_epoch(folder), [], [], []
    for _ in range(halved(repeats)):
        ours = stacked_seconds(folder)
        processes.append(process_seconds(folder) / ours)
        fit_seconds, step_seconds = scikit_learn_seconds(folder)
        fits.append(fit_seconds / ours)
        steps.append(step_seconds / statistics.median(seconds(epoch) for _ in range(5)))
    case = f"{RATES * SEEDS} linear heads, {EXAMPLES[0]:,} × {WIDTH:,}"
    return [
        Row(f"{PART}: one process a run / stacked", f"{case}, 20 epochs", sorted(processes), "≥ 20"),
        Row(f"{PART}: scikit-learn's fits / stacked", f"{case}, 20 epochs", sorted(fits), "≥ 5"),
        Row(f"{PART}: a step of its fits / a stacked epoch", case, sorted(steps), ""),
    ]


def rows(repeats: int) -> Iterator[Row]:
    """Time the extraction of features and the training of linear heads (last layers), and yield the table's rows."""
    keep_freed_memory()
    yield Row(f"{PART}: extraction / forward passes", "ConvNet, 768 images", extraction(repeats), "≤ 1.05")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "features"
        make_features(folder)
        yield from solver_rows(folder, repeats)
        yield from head_rows(folder, repeats)

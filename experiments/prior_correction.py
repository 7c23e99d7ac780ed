"""Show how far class probabilities are from the truth after methods for imbalance, before and after prior correction.

    imbalance reproduce prior_correction

The data are three Gaussian classes in two dimensions with the shares 80, 15 and 5 %, of which the true class probabilities
are known. A linear model, whose logits can be the logarithms of these probabilities, is trained with each method over ten
seeds. Each test split has 20,000 examples with the same class shares. The correction is `predict(prior="natural")`, see
`imbalance.methods.prior`. Poly has no effective prior, so its correction is refused; the row below poly shows what the formula
for the importance weights would give. All runs together take a minute on two cores.
"""

import json

import numpy as np
import torch

from imbalance.config.schema import build
from imbalance.data import DATASETS
from imbalance.methods.prior import log_ratio
from imbalance.metrics.intervals import bounds, mean
from imbalance.metrics.scores import ece, nll, probabilities
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, run_all
from imbalance.sweep.variants import Variant

SEEDS = range(10)
MEANS = ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0))
SHARES = (0.8, 0.15, 0.05)
DATA = {
    "data.dim": 2,
    "data.means": MEANS,
    "data.radius": 0.0,
    "data.train_per_class": (3200, 600, 200),
    "data.val_per_class": (320, 60, 20),
    "data.test_per_class": (16000, 3000, 1000),
    "objective": dict(name="average"),
    "optim.lr": 0.5,
    "trainer.epochs": 30,
    "trainer.batch_size": 200,
    "trainer.eval_every": 30,
    "optim.schedule": dict(name="cosine", warmup_epochs=0.0),
}
IMPORTANCE = dict(name="importance", by="class", exponent=1.0)
POLY = dict(name="poly", alpha=1.0, left="logistic")
# For each row of the table: the title, and the sections in place of those of plain cross-entropy.
ROWS = {
    "cross-entropy": {},
    "importance weights": {"weights": IMPORTANCE},
    "weights 1/√n": {"weights": dict(name="square_root", by="class")},
    "oversampling": {"sampler": dict(name="oversample", by="class")},
    "undersampling": {"sampler": dict(name="undersample", by="class", redraw=True)},
    "balanced softmax": {"loss": dict(name="balanced_softmax")},
    "logit adjustment, τ = 2": {"loss": dict(name="logit_adjusted", tau=2.0)},
    "poly": {"loss": POLY},
    "poly with importance weights": {"loss": POLY, "weights": IMPORTANCE},
}
NAMES = ("nll", "nll", "ece", "ece")  # the metrics in the columns of the table
FORMULA = "the same run, the formula applied nevertheless"  # the title of the row after ROWS


def prior_correction(*, work_dir: str, jobs: int, stacked: int) -> None:
    """Train the runs that are not done yet, and print nll and ECE of each row of ROWS before and after the correction.

    Args:
        stacked: largest number of runs that one process trains together as one stacked model.
    """
    runs = [Variant("gaussian_erm", sections).run(DATA, seed, work_dir) for sections in ROWS.values() for seed in SEEDS]
    run_all(runs, jobs, stacked)
    measured, rows = iter(runs), []
    for title in ROWS:
        seeds = [next(measured) for _ in SEEDS]
        rows.append([title, *cells([measure(run) for run in seeds])])
    rows.append([FORMULA, *cells([measure(run, formula=True) for run in seeds])])
    truth = np.array([true_scores(run) for run in seeds])
    rows.append(
        [
            "true probabilities",
            *(text for column, name in zip(truth.T, NAMES[::2]) for text in ("", show(column, name))),
        ]
    )
    print(markdown(["method", "nll", "corrected", "ECE, %", "corrected"], rows), end="")


def cells(scores: list[list[float]]) -> list[str]:
    """Return table cells with the means over seeds of nll, corrected nll, ECE and corrected ECE; "refused" for nan."""
    columns = zip(np.array(scores).T, NAMES, strict=True)
    return ["refused" if np.isnan(column).any() else show(column, name) for column, name in columns]


def show(values: np.ndarray, name: str) -> str:
    """Return the mean over seeds of the metric `name`, with its 95 % t-interval, as text.

    Args:
        values: the metric of each seed.
    """
    return mean(values, *bounds(name)).of_metric(name)


def measure(run: Run, formula: bool = False) -> list[float]:
    """Return nll, corrected nll, ECE and corrected ECE of a run on test; the corrected ones are nan without a correction.

    Args:
        formula: whether to correct for the importance weights even if the run has no effective prior.
    """
    with np.load(run.directory / "predictions" / "test.npz") as saved:
        logits, targets = torch.from_numpy(saved["logits"]).double(), saved["targets"]
    prior = json.loads((run.directory / "model.json").read_text())["prior"]
    if formula:
        prior["model"] = [1 / 3] * 3  # importance weights give all classes the same total weight
    shift = np.nan
    if prior["model"]:
        shift = log_ratio(*(torch.tensor(prior[key], dtype=torch.float64) for key in ("natural", "model")))
    before, after = scores(logits.numpy(), targets), scores((logits + shift).numpy(), targets)
    return [before[0], after[0], before[1], after[1]]


def scores(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the negative log-likelihood and the ECE of logits; nan for both if the logits are nan."""
    if np.isnan(logits).any():
        return np.nan, np.nan
    return nll(probabilities(logits), targets), ece(probabilities(logits), targets)


def true_scores(run: Run) -> tuple[float, float]:
    """Return nll and ECE of the true class probabilities of a run's test examples."""
    test = build(DATASETS, run.config.data, seed=run.config.seed, data_dir="").test
    means = np.array(MEANS)
    logits = test.inputs.numpy() @ means.T - (means**2).sum(1) / 2 + np.log(SHARES)
    return scores(logits, test.targets.numpy())

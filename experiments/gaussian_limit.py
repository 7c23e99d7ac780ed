"""Show that importance weights change the limit of training with the poly loss, but not with cross-entropy.

    imbalance reproduce gaussian_limit

The claim is that of Wang et al. (ICLR 2022). The poly loss (`poly`) is their polynomially tailed loss. The data is the Gaussian
mixture with 200 against 20 examples in 500 dimensions, and ten seeds. The table has the exact balanced error of the trained
linear classifier, and its angle to the classifier to which training converges, which `imbalance.theory.oracle` computes.

The last rows show where the claim ends. After only 100 steps with the objective `average`, importance weights move the
classifier of cross-entropy as far as that of the poly loss. If the class means are antipodal instead of orthogonal, importance
weights improve neither loss. All runs together take five minutes on two cores.
"""

import numpy as np
import torch

from imbalance.config.schema import build
from imbalance.data import DATASETS
from imbalance.data.sets.gaussian import balanced_error
from imbalance.metrics.intervals import mean
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, make_run, run_all
from imbalance.theory.oracle import angle, direction_of, margin_direction, poly_direction

SEEDS = range(10)
EXPONENTS = (0.0, 1.0, 1.5, 2.0, 3.0)
LIMIT = {"trainer.epochs": 400, "trainer.eval_every": 400}
# The errors have a closed form, so val and test need only a few examples.
FEW = {"data.val_per_class": (10, 10), "data.test_per_class": (10, 10)}
POLY_1, POLY_2 = {"loss.alpha": 1.0}, {"loss.alpha": 2.0}
ANTIPODAL = {"data.means": ((3.0,), (-3.0,))}
PLAIN = {"objective.name": "average", "trainer.epochs": 100, "trainer.eval_every": 100}

# For each row of the table: the title, the config and the overrides. The columns are the exponents of the importance weights.
ROWS = (
    ("cross-entropy", "gaussian_ce", LIMIT),
    ("poly α = 1", "gaussian_poly", LIMIT | POLY_1),
    ("poly α = 2", "gaussian_poly", LIMIT | POLY_2),
    ("cross-entropy, 100 plain steps", "gaussian_ce", PLAIN),
    ("poly α = 1, 100 plain steps", "gaussian_poly", PLAIN | POLY_1),
    ("cross-entropy, antipodal means", "gaussian_ce", LIMIT | ANTIPODAL),
    ("poly α = 1, antipodal means", "gaussian_poly", LIMIT | ANTIPODAL | POLY_1),
)


def gaussian_limit(*, work_dir: str, jobs: int, stacked: int) -> None:
    """Train the runs that are not done yet, and print the exact balanced error for every row of ROWS and every exponent.

    Args:
        stacked: largest number of runs that one process trains as one stacked model.
    """
    runs = [
        make_run(name, changes | FEW | {"weights.exponent": exponent}, seed, work_dir)
        for _, name, changes in ROWS
        for exponent in EXPONENTS
        for seed in SEEDS
    ]
    run_all(runs, jobs, stacked)
    measured = (measure(run) for run in runs)
    print(
        "Balanced error in %, with 95 % t-intervals over ten seeds. In brackets: the mean angle to the limit in degrees.\n"
    )
    rows = []
    for title, _, _ in ROWS:
        cells = [[next(measured) for _ in SEEDS] for _ in EXPONENTS]
        errors, angles = (
            [mean([seed[i] for seed in cell], 0, high) for cell in cells] for i, high in enumerate((1, 180))
        )
        row = (f"{error.percent()} ({off.value:.1f}°)" for error, off in zip(errors, angles))
        rows.append([title, *row])
    print(markdown(["weights to the power", *(f"{c:g}" for c in EXPONENTS)], rows), end="")


def measure(run: Run) -> tuple[float, float]:
    """Return the exact balanced error of a run's classifier, and its angle in degrees to the limit of training."""
    config = run.config
    state = torch.load(run.directory / "checkpoints" / "selected.pt", weights_only=True)
    weight, bias = state["head.weight"], state["head.bias"]
    train = build(DATASETS, config.data, seed=config.seed, data_dir="").train
    inputs, targets = train.inputs.numpy(), train.targets.numpy()
    if config.loss.name == "poly":
        weights = np.bincount(targets)[targets] ** -config.weights.exponent
        limit = poly_direction(inputs, targets, weights / weights.mean(), config.loss.alpha)
    else:
        limit = margin_direction(inputs, targets)
    means = np.zeros((2, config.data.dim))
    for label, centre in enumerate(config.data.means):
        means[label, : len(centre)] = centre
    error = balanced_error(weight.numpy(), bias.numpy(), means, config.data.scale)
    return error, angle(direction_of(weight, bias), limit)

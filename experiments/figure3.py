"""Reproduce figure 3 of Wang et al.: at the last epoch, importance weights change what poly learns, not what cross-entropy learns.

    imbalance reproduce figure3 --data=cifar --seeds=10

The data sets are CIFAR-10 cat/dog and CelebA. On each, cross-entropy and the polynomially tailed loss (`poly`) are trained
without importance weights, with them, and with importance weights to a higher power. Each training run
takes hours on two cores for CIFAR, and needs a GPU for CelebA. After a stop, the same command resumes the runs. With --no-train
the command trains nothing, and shows all runs that were started before, including unfinished ones.
"""

from imbalance.experiments.paper_rows import compare, last
from imbalance.sweep.variants import Variant

# The paper's optimiser for importance weights to a higher power
NO_MOMENTUM = {"optim.lr": 0.008, "optim.momentum": 0.0}

ROWS = {
    "cifar": {
        "ce No IW": Variant("cifar_erm"),
        "ce IW": Variant("cifar_ce"),
        "ce IW-Exp": Variant("cifar_ce", {"weights.exponent": 1.5, **NO_MOMENTUM}),
        "poly No IW": Variant("cifar_poly", {"weights.name": "uniform"}),
        "poly IW": Variant("cifar_poly"),
        "poly IW-Exp": Variant("cifar_poly", {"weights.exponent": 1.5, **NO_MOMENTUM}),
    },
    "celeba": {
        "ce No IW": Variant("celeba_erm"),
        "ce IW": Variant("celeba_ce"),
        "ce IW-Exp": Variant("celeba_ce", {"weights.exponent": 2.0, "trainer.epochs": 100}),
        "poly No IW": Variant("celeba_poly", {"weights.name": "uniform"}),
        "poly IW": Variant("celeba_poly"),
        "poly IW-Exp": Variant("celeba_poly", {"weights.exponent": 2.0, "trainer.epochs": 100}),
    },
}


def figure3(**arguments) -> None:
    """Train the runs of ROWS, print their table and draw the figure; for the arguments see `paper_rows.compare`."""
    compare("figure3", "Last epoch", ROWS, last, **arguments)

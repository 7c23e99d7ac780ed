"""Figure 3 of the paper: at the last epoch, weights change the polynomial loss's classifier and not cross-entropy's.

    imbalance reproduce figure3 --data=cifar --seeds=10

The runs are CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {no weights, weights, weights to a higher power}. A CIFAR
run takes hours on two cores; CelebA needs a GPU. The same command resumes after a stop. With --no-train it trains nothing
and shows the runs so far, unfinished ones too.
"""

from imbalance.experiments.paper_rows import compare, last
from imbalance.sweep.variants import Variant

NO_MOMENTUM = {"optim.lr": 0.008, "optim.momentum": 0.0}  # the paper's optimiser under weights to a higher power

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
    """Train, tabulate and draw these rows by `paper_rows.compare`."""
    compare("figure3", "Last epoch", ROWS, last, **arguments)

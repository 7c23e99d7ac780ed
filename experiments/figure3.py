"""Figure 3 of the paper: trained to the last epoch, weights move the polynomial loss and not cross-entropy.

CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {no weights, weights, weights to a higher power}. Hours a run on two
cores for CIFAR; CelebA is for a GPU. It goes on where it was stopped; --no-train shows what there is, unfinished runs too.

    imbalance reproduce figure3 --data=cifar --seeds=10
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
    """`paper_rows.compare` of these rows."""
    compare("figure3", "Last epoch", ROWS, last, **arguments)

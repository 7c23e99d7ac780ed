"""Figure 3 of the paper: trained to the last epoch, weights move the polynomial loss and not cross-entropy.

CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {no weights, weights, weights to a higher power}. Hours a run on two
cores for CIFAR; CelebA is for a GPU. It goes on where it was stopped; --no-train shows what there is, unfinished runs too.

    imbalance reproduce figure3 --data=cifar --seeds=10
"""

from imbalance.experiments.paper_rows import compare, last

ROWS = {
    "cifar": {
        "ce No IW": "cifar_erm",
        "ce IW": "cifar_ce",
        "ce IW-Exp": "cifar_ce_exponent15",
        "poly No IW": "cifar_poly_unweighted",
        "poly IW": "cifar_poly",
        "poly IW-Exp": "cifar_poly_exponent15",
    },
    "celeba": {
        "ce No IW": "celeba_erm",
        "ce IW": "celeba_ce",
        "ce IW-Exp": "celeba_ce_exponent2",
        "poly No IW": "celeba_poly_unweighted",
        "poly IW": "celeba_poly",
        "poly IW-Exp": "celeba_poly_exponent2",
    },
}


def figure3(**arguments) -> None:
    """`paper_rows.compare` of these rows."""
    compare("figure3", "Last epoch", ROWS, last, **arguments)

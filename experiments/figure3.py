"""Figure 3 of the paper: at the last epoch, weights change the polynomial loss's classifier and not cross-entropy's.

    imbalance reproduce figure3 --data=cifar --seeds=10

The runs are CIFAR-10 cat/dog and CelebA, {cross-entropy, poly} × {no weights, weights, weights to a higher power}. A CIFAR
run takes hours on two cores; CelebA needs a GPU. The same command resumes after a stop. With --no-train it trains nothing
and shows the runs so far, unfinished ones too.
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
    """Train, tabulate and draw these rows by `paper_rows.compare`."""
    compare("figure3", "Last epoch", ROWS, last, **arguments)

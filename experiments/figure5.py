"""Figure 5 of the paper: the polynomial loss against other methods, each tuned.

    imbalance reproduce figure5 --data=cifar --seeds=10

The data sets are CIFAR-10 cat/dog and CelebA. A CIFAR run takes hours on two cores; CelebA needs a GPU. With --no-train the
command trains nothing and shows the runs so far, unfinished ones too.
"""

from imbalance.experiments.paper_rows import compare, last

ROWS = {
    "cifar": {
        "CE+US": "cifar_undersampled",
        "LDAM": "cifar_ldam",
        "CDT": "cifar_cdt",
        "LA": "cifar_logit_adjusted",
        "VS": "cifar_vs",
        "Poly+IW": "cifar_poly_exponent3",
    },
    "celeba": {
        "CE+US": "celeba_undersampled",
        "VS": "celeba_vs_group",
        "Poly+IW": "celeba_poly_exponent25",
        "CE+DRO": "celeba_dro",
        "VS+DRO": "celeba_vs_dro",
        "Poly+DRO": "celeba_poly_dro",
    },
}


def figure5(**arguments) -> None:
    """Train, tabulate and draw these rows by `paper_rows.compare`."""
    compare("figure5", "Tuned", ROWS, last, **arguments)

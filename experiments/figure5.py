"""Figure 5 of the paper: the polynomial loss against the methods of its time, each tuned.

CIFAR-10 cat/dog and CelebA. Hours a run on two cores for CIFAR; CelebA is for a GPU. --no-train shows what there is,
unfinished runs too.

    imbalance reproduce figure5 --data=cifar --seeds=10
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
    """`paper_rows.compare` of these rows."""
    compare("figure5", "Tuned", ROWS, last, **arguments)

"""Figure 5 of the paper: the polynomial loss against the methods of its time, each tuned.

CIFAR-10 cat/dog and CelebA. Hours a run on two cores for CIFAR; CelebA is for a GPU. --notrain shows what there is,
unfinished runs too.

    python -m experiments.figure5 --data=cifar --seeds=10
"""

from absl import app

from experiments.paper_rows import compare, last
from experiments.runs import exit_status

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


def main(argv: list[str]) -> int:
    return exit_status(lambda: compare("figure5", "Tuned", ROWS, last), argv)


if __name__ == "__main__":
    app.run(main)

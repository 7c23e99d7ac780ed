"""Reproduce figure 5 of Wang et al.: the polynomially tailed loss (`poly`) against other methods, each tuned.

    imbalance reproduce figure5 --data=cifar --seeds=10

The data sets are CIFAR-10 cat/dog and CelebA. Each training run takes hours on two cores for CIFAR, and needs a GPU for
CelebA. With --no-train the command trains nothing, and shows all runs that were started before, including unfinished ones.
"""

from typing import Any

from imbalance.experiments.paper_rows import compare, last
from imbalance.sweep.variants import Variant

TUNED = {"optim.lr": 0.01, "trainer.epochs": 300}
VS_GROUP = {"loss": dict(name="vs_group", gamma=0.4, tau=0.0)}
POLY = {"loss": dict(name="poly", alpha=2.0, left="logistic")}


def undersampled(by: str) -> dict[str, Any]:
    """Return the override that undersamples the training set by "class" or "group", once for all epochs."""
    return {"sampler": dict(name="reject", by=by, redraw=False)}


ROWS = {
    "cifar": {
        "CE+US": Variant("cifar_erm", {**undersampled("class"), "trainer.epochs": 600}),
        "LDAM": Variant("cifar_ldam"),
        "CDT": Variant("cifar_erm", {"loss": dict(name="cdt", gamma=0.5), **TUNED}),
        "LA": Variant("cifar_erm", {"loss": dict(name="logit_adjusted", tau=3.0), **TUNED}),
        "VS": Variant("cifar_vs"),
        "Poly+IW": Variant(
            "cifar_poly",
            {
                "weights.exponent": 3.0,
                "loss.alpha": 2.0,
                "optim.lr": 0.08,
                "optim.momentum": 0.0,
                "trainer.epochs": 600,
            },
        ),
    },
    "celeba": {
        "CE+US": Variant("celeba_erm", undersampled("group")),
        "VS": Variant("celeba_erm", VS_GROUP),
        "Poly+IW": Variant("celeba_poly", {"weights.exponent": 2.5, "loss.alpha": 2.0, "trainer.epochs": 200}),
        "CE+DRO": Variant("celeba_dro"),
        "VS+DRO": Variant("celeba_dro", VS_GROUP),
        "Poly+DRO": Variant("celeba_dro", POLY),
    },
}


def figure5(**arguments) -> None:
    """Train the runs of ROWS, print their table and draw the figure; for the arguments see `paper_rows.compare`."""
    compare("figure5", "Tuned", ROWS, last, **arguments)

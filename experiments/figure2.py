"""Reproduce figure 2 of Wang et al.: importance weights move the limit of the poly loss in a million dimensions.

    imbalance reproduce figure2

The data is that of Wang et al. (ICLR 2022): p = 10⁶ dimensions, n = 100 examples, orthogonal class means of norm p^0.251, unit
noise, and no bias. The loss is the polynomially tailed loss with the pure tail 1/m, where m is the margin. The importance
weights are 1 for the majority and τ^ρ for the minority, where τ is the ratio of the class sizes. The classifier to which
training converges lies in the span of the n examples and the two means. In that span the noise is the Bartlett factor of a
Wishart matrix, so data in n + 2 dimensions has exactly the same distribution, and no p-dimensional vector is drawn. The
classifiers come from `imbalance.theory.oracle`, and their errors are exact. The table compares the errors with an independent
computation. The figure is written to <folder>/figure2.png and .pdf.
"""

import numpy as np
from scipy.special import ndtr

from imbalance.experiments.published import find_published
from imbalance.metrics.intervals import mean
from imbalance.report.plot_style import PALETTE, save, subplots
from imbalance.report.tables import markdown
from imbalance.theory.oracle import margin_direction, poly_direction

DIMENSIONS, EXAMPLES = 10**6, 100
NORM = DIMENSIONS**0.251
MINORITIES = (40, 30, 20, 15, 9)  # numbers of minority examples, in the left panel
EXPONENTS_LEFT, EXPONENTS_RIGHT = (0, 1, 3), (0, 1, 2, 3, 4, 5)
SEEDS = range(10)


def draw(minority: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random inputs (n, n + 2) and targets (n,), 1 for the minority, of as many examples as `EXAMPLES` says.

    The coordinates of an input are those in a basis: 2 vectors along the class means, and n that span the noise.

    Args:
        minority: number of minority examples.
    """
    rng = np.random.default_rng(seed)
    targets = (np.arange(EXAMPLES) >= EXAMPLES - minority).astype(int)
    means = NORM * np.eye(2)[targets]
    degrees = DIMENSIONS - 2 - np.arange(EXAMPLES)
    bartlett = np.tril(rng.standard_normal((EXAMPLES, EXAMPLES)), -1) + np.diag(np.sqrt(rng.chisquare(degrees)))
    return np.hstack([means + rng.standard_normal((EXAMPLES, 2)), bartlett]), targets


def errors(direction: np.ndarray) -> np.ndarray:
    """Return the exact errors in % of the classifier with this direction: on the majority, on the minority, and their mean."""
    along = NORM * direction[:2] / np.linalg.norm(direction)
    majority, minority = 100 * ndtr(along[0]), 100 * ndtr(-along[1])
    return np.array([majority, minority, (majority + minority) / 2])


def limit_errors(minority: int, seed: int, exponents: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the three `errors` of each classifier, by name.

    "margin" is the max-margin classifier. The other names are the exponents ρ, such as "1", each for the limit of the poly
    loss with this exponent.

    Args:
        minority: number of minority examples.
        exponents: the exponents ρ.
    """
    inputs, targets = draw(minority, seed)
    inputs = inputs / np.sqrt(DIMENSIONS)  # keeps numbers near 1 and does not change the directions
    ratio = (EXAMPLES - minority) / minority
    by_limit = {"margin": errors(margin_direction(inputs, targets, bias=False))}
    for exponent in exponents:
        weights = np.where(targets == 1, ratio**exponent, 1.0)
        by_limit[str(exponent)] = errors(poly_direction(inputs, targets, weights, alpha=1.0, bias=False))
    return by_limit


def figure2(*, folder: str) -> None:
    """Print our errors beside those of an independent computation, and write figure 2 to `folder`."""
    left = {m: [limit_errors(m, seed, EXPONENTS_LEFT) for seed in SEEDS] for m in MINORITIES}
    right = [limit_errors(MINORITIES[-1], seed, EXPONENTS_RIGHT) for seed in SEEDS]
    print(
        f"Errors in %, mean ± 95 % t-interval over {len(SEEDS)} draws, with 91 against 9 examples.\nIn brackets: an independent computation of the same setting.\n"
    )
    rows = []
    for name in right[0]:
        cells = []
        for i, group in enumerate(("majority", "minority", "overall")):
            theirs = find_published("figure2 right", f"{name} {group}")
            compared = "" if theirs is None else f" ({theirs.value:g})"
            cells.append(mean([e[name][i] for e in right], 0, 100).text(digits=2) + compared)
        rows.append(["maximum margin" if name == "margin" else f"poly, ρ = {name}", *cells])
    print(markdown(["limit", "majority", "minority", "mean of both"], rows), end="")
    draw_figure(left, right, folder)


def draw_figure(left: dict[int, list], right: list, folder: str) -> None:
    """Draw the errors over the class ratio in the left panel, and over the exponent ρ in the right panel.

    Args:
        left: by number of minority examples, the result of `limit_errors` for each seed.
        right: the result of `limit_errors` for each seed.
    """
    figure, (at_left, at_right) = subplots(1, 2, width=7.2, height=3.1)
    ratios = [(EXAMPLES - m) / m for m in MINORITIES]
    labels = {"margin": "maximum margin"} | {str(rho): f"poly, ρ = {rho}" for rho in EXPONENTS_LEFT}
    for (name, label), colour, marker in zip(labels.items(), PALETTE, "osD^"):
        means = [mean([e[name][2] for e in left[m]], 0, 100) for m in MINORITIES]
        at_left.errorbar(
            ratios, [m.value for m in means], np.transpose([m.arms for m in means]),
            color=colour, marker=marker, markersize=4, capsize=2, linewidth=1.3, label=label,
        )  # fmt: skip
    at_left.set(xlabel="class ratio τ", ylabel="error, mean of both classes, %", ylim=(0, None))
    at_left.legend()
    for i, (group, colour, marker) in enumerate(zip(("majority", "minority", "mean of both"), PALETTE, "os^")):
        means = [mean([e[str(rho)][i] for e in right], 0, 100) for rho in EXPONENTS_RIGHT]
        at_right.errorbar(
            EXPONENTS_RIGHT, [m.value for m in means], np.transpose([m.arms for m in means]),
            color=colour, marker=marker, markersize=4, capsize=2, linewidth=1.3, label=group,
        )  # fmt: skip
    at_right.set(xlabel="ρ, for a minority weight of (91/9)$^ρ$", ylabel="error, %", ylim=(0, None))
    at_right.legend()
    save(figure, folder, "figure2")

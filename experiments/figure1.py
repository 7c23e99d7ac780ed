"""Reproduce figure 1 of Wang et al.: importance weights move the boundary of the poly loss, but not of cross-entropy.

    imbalance reproduce figure1

The data is that of Wang et al. (ICLR 2022): two dimensions, 20 examples around (0, 5) against 200 around (5, 0), drawn as in
the paper's notebook. The poly loss (`poly`) is the paper's polynomially tailed loss. The lines are the boundaries to which
training converges, computed by `imbalance.theory.oracle`. The paper has a picture and no numbers, so the table compares our
numbers with an independent computation from the notebook's seed. The figure is written to <folder>/figure1.png and .pdf. The
command takes seconds.
"""

import numpy as np
import torch

from imbalance.experiments.published import published
from imbalance.metrics.intervals import mean
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots
from imbalance.report.tables import markdown
from imbalance.theory.oracle import margin_direction, poly_direction

MINORITY, MAJORITY = np.array([0.0, 5.0]), np.array([5.0, 0.0])
SIZES, SEED, SEEDS = (20, 200), 1, range(50)
EXPONENTS = (0.0, 1.0, 2.0)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random inputs (220, 2) and their targets (220,), which are 1 for the smaller class."""
    generator = torch.Generator().manual_seed(seed)
    few, many = (torch.randn(size, 2, generator=generator).numpy() for size in SIZES)
    return np.vstack([few + MINORITY, many + MAJORITY]), np.repeat([1, 0], SIZES)


def limits(inputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for each loss and exponent of the importance weights, the direction [w, b] to which training converges.

    The keys are names in published.csv.

    Args:
        inputs, targets: (220, 2) and (220,), from `draw`.
    """
    directions = {"cross-entropy": margin_direction(inputs, targets)}
    for exponent in EXPONENTS:
        weights = np.bincount(targets)[targets] ** -exponent
        directions[f"poly {exponent:g}"] = poly_direction(inputs, targets, weights / weights.mean(), alpha=1.0)
    return directions


def measure(direction: np.ndarray) -> tuple[float, float]:
    """Return the angle of the boundary to the diagonal x = y in degrees, and its offset from the class means' midpoint.

    The diagonal is the best boundary for classes of equal size. The offset is positive if the boundary lies on the
    minority's side of the midpoint.

    Args:
        direction: [w, b] of the classifier.
    """
    normal, bias = direction[:2], direction[2]
    ideal = (MINORITY - MAJORITY) / np.linalg.norm(MINORITY - MAJORITY)
    normal, bias = normal / np.linalg.norm(normal), bias / np.linalg.norm(normal)
    angle = np.degrees(np.arccos(np.clip(normal @ ideal, -1, 1)))
    return float(angle), float(-(normal @ (MINORITY + MAJORITY) / 2 + bias))


def figure1(*, folder: str) -> None:
    """Print our boundaries beside those of an independent computation, and write figure 1 to `folder`."""
    inputs, targets = draw(SEED)
    ours = {name: measure(direction) for name, direction in limits(inputs, targets).items()}
    over_seeds: dict[str, list[tuple[float, float]]] = {name: [] for name in ours}
    for seed in SEEDS:
        for name, direction in limits(*draw(1000 + seed)).items():
            over_seeds[name].append(measure(direction))
    print(
        f"Angle to the diagonal and offset from the midpoint, for the notebook's draw (seed {SEED}), and as mean ± 95 % "
        f"t-interval over {len(SEEDS)} other draws.\nIn brackets: an independent computation of the notebook's draw.\n"
    )
    rows = []
    for name, (angle, offset) in ours.items():
        theirs = [published("figure1", f"{name} {part}").value for part in ("angle", "offset")]
        angles, offsets = zip(*over_seeds[name])
        compared = f"{angle:.1f} ({theirs[0]:.1f})", f"{offset:.2f} ({theirs[1]:.2f})"
        rows.append([name, *compared, mean(angles, 0, 180).text(digits=1), mean(offsets).text(digits=2)])
    print(markdown(["limit", "angle, °", "offset", "angle, other draws", "offset, other draws"], rows), end="")
    draw_figure(inputs, targets, folder)


def draw_figure(inputs: np.ndarray, targets: np.ndarray, folder: str) -> None:
    """Draw the examples and the boundaries, and write the figure to `folder`."""
    figure, axes = subplots(1, 2, width=7.2, height=3.7)
    directions, across = limits(inputs, targets), np.array([-4.0, 9.0])
    panels = (
        ("Cross-entropy", [("cross-entropy", "any weights")]),
        ("Poly, α = 1", [(f"poly {c:g}", f"weights to the power {c:g}") for c in EXPONENTS]),
    )
    for axis, (title, lines) in zip(axes, panels):
        for target, colour, marker, name in ((0, PALETTE[0], "o", "majority"), (1, PALETTE[1], "^", "minority")):
            axis.scatter(
                *inputs[targets == target].T, s=11, color=colour, marker=marker, alpha=0.55, linewidths=0, label=name
            )
        for (name, label), style, colour in zip(lines, ("-", "--", ":"), PALETTE[2:]):
            w0, w1, b = directions[name]
            axis.plot(across, -(w0 * across + b) / w1, style, color=colour, linewidth=1.6, label=label)
        axis.plot(across, across, color=NEUTRAL, linewidth=0.8, zorder=0, label="best for equal classes")
        axis.set(title=title, xlim=(-3.2, 8.2), ylim=(-3.2, 8.2), aspect="equal", xticks=[0, 5], yticks=[0, 5])
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, columnspacing=1.2, handlelength=1.8)
    save(figure, folder, "figure1")

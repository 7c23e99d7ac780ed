"""Figure 1 of the paper: where weights move a linear boundary in two dimensions, and where they cannot.

Wang et al., ICLR 2022. 20 examples around (0, 5) against 200 around (5, 0), drawn as the paper's notebook draws them.
The lines are the limits of training, computed by `imbalance.theory.oracle`. Printed beside an independent computation for this
project, from the seed of that notebook: the paper has the picture, and no numbers. Ours goes to <folder>/figure1.png and
.pdf. It takes seconds.

    imbalance reproduce figure1
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
    """(220, 2) inputs and their targets, 1 for the minority."""
    generator = torch.Generator().manual_seed(seed)
    few, many = (torch.randn(size, 2, generator=generator).numpy() for size in SIZES)
    return np.vstack([few + MINORITY, many + MAJORITY]), np.repeat([1, 0], SIZES)


def limits(inputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """The direction [w, b] that each loss tends to, by what the published table calls it."""
    found = {"cross-entropy": margin_direction(inputs, targets)}
    for exponent in EXPONENTS:
        weights = np.bincount(targets)[targets] ** -exponent
        found[f"poly {exponent:g}"] = poly_direction(inputs, targets, weights / weights.mean(), alpha=1.0)
    return found


def measure(direction: np.ndarray) -> tuple[float, float]:
    """Degrees between the boundary and the diagonal between the means, and how far it misses their midpoint.

    The offset is positive where the boundary lies on the minority's side, so that the majority gets more room.
    """
    normal, bias = direction[:2], direction[2]
    ideal = (MINORITY - MAJORITY) / np.linalg.norm(MINORITY - MAJORITY)
    normal, bias = normal / np.linalg.norm(normal), bias / np.linalg.norm(normal)
    angle = np.degrees(np.arccos(np.clip(normal @ ideal, -1, 1)))
    return float(angle), float(-(normal @ (MINORITY + MAJORITY) / 2 + bias))


def figure1(*, folder: str) -> None:
    inputs, targets = draw(SEED)
    ours = {name: measure(direction) for name, direction in limits(inputs, targets).items()}
    over_seeds = {name: [] for name in ours}
    for seed in SEEDS:
        for name, direction in limits(*draw(1000 + seed)).items():
            over_seeds[name].append(measure(direction))
    print(
        f"Degrees off the diagonal, and how far off the midpoint; draw {SEED} is the notebook's. Mean ± 95 % t-interval "
        f"over {len(SEEDS)} others.\nIn brackets an independent computation of the same draw.\n"
    )
    rows = []
    for name, (angle, offset) in ours.items():
        theirs = [published("figure1", f"{name} {what}").value for what in ("angle", "offset")]
        angles, offsets = zip(*over_seeds[name])
        beside = f"{angle:.1f} ({theirs[0]:.1f})", f"{offset:.2f} ({theirs[1]:.2f})"
        rows.append([name, *beside, mean(angles, 0, 180).text(digits=1), mean(offsets).text(digits=2)])
    print(markdown(["limit", "angle, °", "offset", "angle over other draws", "offset over them"], rows), end="")
    picture(inputs, targets, folder)


def picture(inputs: np.ndarray, targets: np.ndarray, folder: str) -> None:
    figure, axes = subplots(1, 2, width=7.2, height=3.7)
    found, across = limits(inputs, targets), np.array([-4.0, 9.0])
    shown = (
        ("Cross-entropy", [("cross-entropy", "any weights")]),
        ("Poly, α = 1", [(f"poly {c:g}", f"weights to the power {c:g}") for c in EXPONENTS]),
    )
    for axis, (title, lines) in zip(axes, shown):
        for target, colour, marker, name in ((0, PALETTE[0], "o", "majority"), (1, PALETTE[1], "^", "minority")):
            of_class = inputs[targets == target]
            axis.scatter(*of_class.T, s=11, color=colour, marker=marker, alpha=0.55, linewidths=0, label=name)
        for (name, label), style, colour in zip(lines, ("-", "--", ":"), PALETTE[2:]):
            w0, w1, b = found[name]
            axis.plot(across, -(w0 * across + b) / w1, style, color=colour, linewidth=1.6, label=label)
        axis.plot(across, across, color=NEUTRAL, linewidth=0.8, zorder=0, label="best for equal classes")
        axis.set(title=title, xlim=(-3.2, 8.2), ylim=(-3.2, 8.2), aspect="equal", xticks=[0, 5], yticks=[0, 5])
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, columnspacing=1.2, handlelength=1.8)
    save(figure, folder, "figure1")

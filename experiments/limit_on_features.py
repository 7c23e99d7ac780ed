"""Test at the limit of training, on features of real images, whether importance weights act under the poly loss.

    imbalance features --config=cifar_pair_ce --config.data_dir=data --config.model.name=lite0 \\
        --config.data.classes=airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck --config.data.imbalance=none \\
        --config.data.imbalance_ratio=1.0 --config.data.total=30000 --config.trainer.eval_batch_size=16 \\
        --output=data/cifar10_lite0
    imbalance reproduce limit_on_features --features=data/cifar10_lite0 --seeds=20
    imbalance reproduce limit_on_features --no-train    # the outcome, tables and figure from results/ only

The design, the contrasts and the expectations were fixed before the first run, in
docs/preregistered/2026-11-28-limit-on-features.md. A problem is an ordered pair of classes of CIFAR-10 and a seed: 250
training images of the first class, and 25 of the second at the ratio 10. Every arm is a linear classifier of the 1,280
features. The limits of training are computed as convex problems by `imbalance.theory.gram`. With `--descent`, gradient
descent of 10² to 10⁶ steps is compared with its own limit instead.

A problem takes half a second. Rows are added to results/limit_on_features.csv.gz seed by seed, and a problem with a row is
not computed again. So to go on with a command that was stopped, type the command again.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.data.sets.features import open_features
from imbalance.errors import BadInput
from imbalance.metrics.clusters import Contrast, ahead_and_behind, contrast, contrast_over_classes, holm
from imbalance.metrics.scores import auroc
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, numbers
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots
from imbalance.report.tables import markdown
from imbalance.theory import gram
from imbalance.training.state.provenance import clean_commit, machine, versions

STUDY, DESCENT_STUDY = "limit_on_features", "limit_descent"
MAJORITY = 250
RATIOS = (10, 2, 50)
PREPROCESSINGS = {
    "raw": "raw features, free bias",
    "standardised": "standardised on train, free bias",
    "centred": "centred between the class means, no bias",
}
EXPONENTS, ALPHAS = (0.0, 1.0, 1.5, 2.0), (1.0, 2.0)
TUNED_ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
GAMMAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
MEMBERS = 10  # classifiers of an undersampled ensemble
STEPS = (100, 1_000, 10_000, 100_000, 1_000_000)
EQUIVALENCE = 0.005  # half a point, the margin within which two arms are level
HARD, POLY, POLY_TUNED, RIDGE = "hard margin", "poly α=1 IW^1", "poly IW^1, tuned", "ridge, tuned"
# The primary contrasts: first arm, second arm, and the judgement of both, "at 0" or "at val".
PRIMARY = {
    "a": (POLY, HARD, "at 0"),
    "b": (POLY, HARD, "at val"),
    "c": (POLY_TUNED, RIDGE, "at val"),
}
# Contrasts that were not planned. Contrasts "a" and "b" change loss and weights at once; these have one of the two changes.
UNWEIGHTED = "poly α=1 IW^0"
PARTS = {
    "loss": (UNWEIGHTED, HARD, "at 0"),
    "weights": (POLY, UNWEIGHTED, "at 0"),
    "loss, val": (UNWEIGHTED, HARD, "at val"),
    "weights, val": (POLY, UNWEIGHTED, "at val"),
}


# One problem


class Problem(NamedTuple):
    """The preprocessed features of an ordered pair of classes in each split.

    train, val, test: (examples, features).
    signs, val_signs, test_signs: (examples,) 1 for the minority class, −1 for the majority class; `signs` is of train.
    """

    train: np.ndarray
    signs: np.ndarray
    val: np.ndarray
    val_signs: np.ndarray
    test: np.ndarray
    test_signs: np.ndarray


class Features(NamedTuple):
    """The features of ten classes.

    splits: for each split, a list with the (examples, 1280) features of each class.
    classes: the names of the classes.
    model: the name of the network that computed the features.
    digest: the digest of the weights of this network.
    """

    splits: Mapping[str, list[np.ndarray]]
    classes: Sequence[str]
    model: str
    digest: str


def read_features(folder: Path) -> Features:
    """Return the features that `imbalance features` wrote into `folder`."""
    stored = open_features(folder)
    about, targets, splits, start = stored.description, stored.tables["targets"], {}, 0
    for split, count in about["examples"].items():
        rows = slice(start, start + count)
        features, labels = np.asarray(stored.features[rows]), targets[rows]
        splits[split] = [features[labels == label] for label in range(len(about["classes"]))]
        start += count
    made_of = about["made_of"]
    return Features(splits, about["classes"], made_of["model"]["name"], made_of["weights"])


def make_problem(features: Features, pair: tuple[int, int], seed: int, ratio: int, preprocessing: str) -> Problem:
    """Return the problem of an ordered pair of classes and a seed.

    Args:
        pair: the numbers of the majority and of the minority class.
        ratio: the number of majority images in train for each minority image.
        preprocessing: a key of PREPROCESSINGS.
    """
    counts = (MAJORITY, MAJORITY // ratio)

    def drawn(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for label, count in zip(pair, counts):
            images = features.splits[split][label]
            if len(images) < count:
                raise BadInput(
                    f"--features: a class has {len(images)} images in {split}, and {count} are needed; make the features with the command that docs/findings.md has"
                )
            parts.append(images[np.random.default_rng([seed, number, label]).permutation(len(images))[:count]])
        return np.concatenate(parts).astype(np.float64), np.repeat([-1.0, 1.0], counts)

    train, signs = drawn("train", 0)
    val, val_signs = drawn("val", 1)
    test = np.concatenate([features.splits["test"][label] for label in pair]).astype(np.float64)
    test_signs = np.repeat([-1.0, 1.0], [len(features.splits["test"][label]) for label in pair])
    if preprocessing == "standardised":
        centre, scale = train.mean(0), train.std(0)
        scale[scale == 0] = 1
    elif preprocessing == "centred":
        centre, scale = (train[signs > 0].mean(0) + train[signs < 0].mean(0)) / 2, np.ones(train.shape[1])
    else:
        centre, scale = np.zeros(train.shape[1]), np.ones(train.shape[1])
    return Problem(
        *((train - centre) / scale, signs), *((val - centre) / scale, val_signs), *((test - centre) / scale, test_signs)
    )


def class_weights(signs: np.ndarray, exponent: float) -> np.ndarray:
    """Return the importance weight of each example: (1 / count of its class)^exponent, divided by the mean of these."""
    weights = np.where(signs > 0, (signs > 0).sum(), (signs < 0).sum()).astype(float) ** -exponent
    return weights / weights.mean()


def classifiers(problem: Problem, preprocessing: str, seed: int) -> dict[str, dict[float, gram.Linear]]:
    """Return the classifiers of each arm, by tuned value; an arm that is not tuned has the one value nan.

    The coefficients of a classifier are already multiplied by the signs of the examples.
    """
    bias = preprocessing != "centred"
    signs, products = problem.signs, problem.train @ problem.train.T
    arms: dict[str, dict[float, gram.Linear]] = {}

    def plain(solution: gram.Linear) -> gram.Linear:
        return gram.Linear(signs * solution.coefficients, solution.bias)

    hard = gram.hard_margin(products, signs, bias)
    arms[HARD] = {np.nan: plain(hard)}
    polys = {}
    for alpha, exponent in [*itertools.product(ALPHAS, EXPONENTS), *((alpha, 1.0) for alpha in TUNED_ALPHAS)]:
        if (alpha, exponent) not in polys:
            weights = class_weights(signs, exponent)
            polys[alpha, exponent] = plain(gram.poly_limit(products, signs, weights, alpha, bias, hard))
    for alpha, exponent in itertools.product(ALPHAS, EXPONENTS):
        arms[poly_name(alpha, exponent)] = {np.nan: polys[alpha, exponent]}
    arms[POLY_TUNED] = {alpha: polys[alpha, 1.0] for alpha in TUNED_ALPHAS}
    if bias:  # the margins of VS, −1 and δ, are those of the hard margin after a shift and a change of scale
        ratio = (signs < 0).sum() / (signs > 0).sum()
        arms["limit of VS, tuned"] = {
            gamma: gram.Linear(signs * hard.coefficients, hard.bias + (ratio**gamma - 1) / (ratio**gamma + 1))
            for gamma in GAMMAS
        }
    arms[RIDGE] = ridges(products, signs, bias)
    arms["ridge, λ=1"] = {np.nan: arms[RIDGE][1.0]}
    rng, minority, majority = np.random.default_rng([seed, 2]), np.flatnonzero(signs > 0), np.flatnonzero(signs < 0)
    totals = {value: gram.Linear(np.zeros(len(signs)), 0.0) for value in PENALTIES}
    for _ in range(MEMBERS):
        rows = np.concatenate([rng.choice(majority, len(minority), replace=False), minority])
        for value, member in ridges(products[np.ix_(rows, rows)], signs[rows], bias).items():
            totals[value].coefficients[rows] += member.coefficients / MEMBERS
            totals[value] = gram.Linear(totals[value].coefficients, totals[value].bias + member.bias / MEMBERS)
    arms["undersampled ensemble, tuned"] = totals
    means = signs / np.where(signs > 0, len(minority), len(majority))
    lengths = [np.square(problem.train[rows].mean(0)).sum() for rows in (majority, minority)]
    arms["nearest mean"] = {np.nan: gram.Linear(means, float(lengths[0] - lengths[1]) / 2)}
    return arms


def poly_name(alpha: float, exponent: float) -> str:
    """Return the name of the arm of poly with the tail `alpha` and weights to the power `exponent`."""
    return f"poly α={alpha:g} IW^{exponent:g}"


def ridges(products: np.ndarray, signs: np.ndarray, bias: bool) -> dict[float, gram.Linear]:
    """Return a weighted logistic regression for each of PENALTIES, with coefficients as in `classifiers`.

    Each fit starts at the solution for the next larger penalty.

    Args:
        products: (n, n) inner products of the examples.
        signs: (n,) 1 for the minority class, −1 for the majority class.
        bias: whether the classifiers have a bias.
    """
    solutions, solution = {}, None
    for penalty in reversed(PENALTIES):
        solution = gram.ridge(products, signs, class_weights(signs, 1.0), penalty, bias, solution)
        solutions[penalty] = gram.Linear(signs * solution.coefficients, solution.bias)
    return {penalty: solutions[penalty] for penalty in PENALTIES}


# The judgement


def balanced_accuracy(scores: np.ndarray, signs: np.ndarray, threshold: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the (A,) balanced accuracies of the columns of (N, A) scores.

    Args:
        signs: (N,) 1 for the minority class, −1 for the majority class.
        threshold: one threshold for all columns, or one for each column.
    """
    above = scores > threshold
    return (above[signs > 0].mean(0) + (~above[signs < 0]).mean(0)) / 2


def best_threshold(scores: np.ndarray, signs: np.ndarray) -> float:
    """Return the threshold on (N,) scores with the best balanced accuracy, a midpoint between neighbouring scores.

    If several midpoints are equally good, return their median.
    """
    order = np.argsort(scores)
    ordered, positive = scores[order], signs[order] > 0
    accuracy = (np.cumsum(~positive) / (~positive).sum() + 1 - np.cumsum(positive) / positive.sum())[:-1]
    accuracy[ordered[1:] == ordered[:-1]] = -1  # no threshold separates equal scores
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return float(ordered[chosen] + ordered[chosen + 1]) / 2


def judge(problem: Problem, arms: Mapping[str, Mapping[float, gram.Linear]]) -> dict[str, Any]:
    """Return the cells of a row: for each arm the test balanced accuracy at threshold 0 and at val's threshold, and AUROC.

    A tuned arm has two more cells. One has two tuned values: the best on val at threshold 0, and the best at val's threshold.
    The other has the test accuracy of each tuned value, at val's threshold.
    """
    flat = [(arm, value, solution) for arm, solutions in arms.items() for value, solution in solutions.items()]
    direction = problem.train.T @ np.column_stack([solution.coefficients for *_, solution in flat])
    offset = np.array([solution.bias for *_, solution in flat])
    val, test = problem.val @ direction + offset, problem.test @ direction + offset
    thresholds = np.array([best_threshold(column, problem.val_signs) for column in val.T])
    at_0, at_val = (balanced_accuracy(test, problem.test_signs, level) for level in (0.0, thresholds))
    val_at_0, val_at_val = (balanced_accuracy(val, problem.val_signs, level) for level in (0.0, thresholds))
    areas, val_areas = (
        [auroc(column, split_signs > 0) for column in scores.T]
        for scores, split_signs in ((test, problem.test_signs), (val, problem.val_signs))
    )
    cells: dict[str, Any] = {}
    for arm, solutions in arms.items():
        columns = [i for i, (name, *_) in enumerate(flat) if name == arm]
        # Rounding makes equal accuracies equal, so that the AUROC decides between them; `max` takes the first of equals.
        chosen_0, chosen = (
            max(columns, key=lambda i: (round(float(accuracy[i]), 9), round(float(val_areas[i]), 9)))
            for accuracy in (val_at_0, val_at_val)
        )
        cells |= {f"{arm}: at 0": at_0[chosen_0], f"{arm}: at val": at_val[chosen], f"{arm}: auroc": areas[chosen]}
        if len(solutions) > 1:
            cells[f"{arm}: values"] = f"{flat[chosen_0][1]:g}|{flat[chosen][1]:g}"
            cells[f"{arm}: all at val"] = "|".join(f"{at_val[i]:.4f}" for i in columns)
    return cells


# Descent


def descend(problem: Problem, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """Run gradient descent for each arm, and return the cells of a row: the results after each number of `steps`.

    Gradient descent starts at zero, on the mean loss of a linear classifier of [x, 1]. The learning rate is one over the
    largest curvature of the mean loss. The results are the test balanced accuracy at threshold 0 and at val's threshold,
    and the angle to the limit in degrees.
    """
    signs, n = problem.signs, len(problem.signs)
    inputs, val, test = (
        np.column_stack([part, np.ones(len(part))]) for part in (problem.train, problem.val, problem.test)
    )
    products = inputs @ inputs.T
    signed = products * np.outer(signs, signs)
    hard = gram.hard_margin(products, signs, bias=False)
    names, limits, weights, rates = [], [], [], []
    for poly, exponent in ((False, 0.0), (False, 1.0), (False, 1.5), (True, 0.0), (True, 1.0)):
        weight = class_weights(signs, exponent)
        root = np.sqrt(weight)
        curvature = np.linalg.eigvalsh(signed * np.outer(root, root))[-1] / n * (2.0 if poly else 0.25)
        names.append(f"{'poly α=1' if poly else 'cross-entropy'} IW^{exponent:g}")
        limits.append(
            gram.poly_limit(products, signs, weight, 1.0, False, hard).coefficients if poly else hard.coefficients
        )
        weights.append(weight)
        rates.append(1 / curvature / n)
    weight, rate = np.column_stack(weights), np.array(rates)
    poly, limit = np.array([name.startswith("poly") for name in names]), np.column_stack(limits)
    coefficients, cells, done = np.zeros_like(weight), {}, 0
    for count in steps:
        for _ in range(count - done):
            coefficients += rate * weight * pull(signed @ coefficients, poly)
        done = count
        direction = inputs.T @ (signs[:, None] * coefficients)
        val_scores, test_scores = val @ direction, test @ direction
        thresholds = np.array([best_threshold(column, problem.val_signs) for column in val_scores.T])
        at_0, at_val = (balanced_accuracy(test_scores, problem.test_signs, level) for level in (0.0, thresholds))
        lengths = [np.sqrt(np.einsum("ia,ij,ja->a", c, signed, c)) for c in (coefficients, limit)]
        cosines = np.einsum("ia,ij,ja->a", coefficients, signed, limit) / (lengths[0] * lengths[1])
        for i, name in enumerate(names):
            prefix = f"{name}, {count} steps"
            cells |= {f"{prefix}: at 0": at_0[i], f"{prefix}: at val": at_val[i],
                      f"{prefix}: angle": np.degrees(np.arccos(np.clip(cosines[i], -1, 1)))}  # fmt: skip
    direction = inputs.T @ (signs[:, None] * limit)
    at_0 = balanced_accuracy(test @ direction, problem.test_signs)
    return cells | {f"{name}, limit: at 0": at_0[i] for i, name in enumerate(names)}


def pull(margins: np.ndarray, poly: np.ndarray) -> np.ndarray:
    """Return minus the derivative of the loss with respect to the margin, for each entry of (n, A) margins.

    Args:
        poly: (A,), true for a column of poly with α = 1 and the logistic left part, false for cross-entropy.
    """
    logistic = 1 / (1 + np.exp(margins))
    tail = np.where(margins > 1, 1 / np.maximum(margins, 1) ** 2, logistic / np.log1p(np.exp(-1)))
    return np.where(poly, tail, logistic)


# The runs


def compute(features: Features, seeds: int, ratio: int, preprocessing: str, folder: Path, descent: bool) -> None:
    """Compute the problems that have no row yet, and add their rows seed by seed."""
    from threadpoolctl import threadpool_limits

    commit = clean_commit()
    study = DESCENT_STUDY if descent else STUDY
    done = {(row["overrides"], int(row["seed"])) for row in kept_results.read(study, folder)}
    count = len(features.classes)
    orders = list(itertools.combinations(range(count), 2) if descent else itertools.permutations(range(count), 2))
    with threadpool_limits(1):  # more threads change the last bits, and small matrices gain nothing
        for seed in range(seeds):
            rows = []
            for pair in orders:
                majority, minority = (features.classes[label] for label in pair)
                overrides = f"ratio={ratio},preprocessing={preprocessing},majority={majority},minority={minority}"
                if (overrides, seed) in done:
                    continue
                start = time.process_time()
                about = {
                    "name": study, "overrides": overrides, "seed": str(seed), "data": features.digest[:10],
                    "representation": features.model, "ratio": str(ratio), "preprocessing": preprocessing,
                    "majority": majority, "minority": minority, "status": "done",
                }  # fmt: skip
                problem = make_problem(features, pair, seed, ratio, preprocessing)
                try:
                    cells = descend(problem) if descent else judge(problem, classifiers(problem, preprocessing, seed))
                    outcome = {"solved": "yes", **cells}
                except BadInput as error:  # of the solver
                    outcome = {"solved": str(error)}
                outcome |= {"cpu seconds": round(time.process_time() - start, 2), **machine(threads=1),
                            "versions": " ".join(f"{name}={versions()[name]}" for name in ("numpy", "scipy", "scikit-learn")),
                            "commit": commit[:10]}  # fmt: skip
                rows.append(about | {key: kept_results.text(value) for key, value in outcome.items()})
                if descent:
                    kept_results.add(study, folder, rows, packed=True)
            kept_results.add(study, folder, rows, packed=True)
            print(f"{study}, {ratio}:1, {preprocessing}: seed {seed} done", flush=True)


# The analysis


class Cell(NamedTuple):
    """The results at one ratio and preprocessing, for the seeds that are complete.

    pairs: the 45 unordered pairs of classes.
    rows: the row of each pair, of each of the two choices of the minority class, and of each seed: a (45, 2, S) array of
        objects.
    unsolved: the number of rows whose problem no solver has solved; their seeds are left out.
    """

    pairs: list[tuple[int, int]]
    rows: np.ndarray
    unsolved: int

    def values(self, arm: str, judgement: str) -> np.ndarray:
        """Return the (45, 2, S) values of an arm by a judgement, such as `values("hard margin", "at 0")`."""
        return numbers(self.rows.ravel().tolist(), f"{arm}: {judgement}").reshape(self.rows.shape)


def cell_of(rows: Sequence[Row], ratio: int, preprocessing: str) -> Cell | None:
    """Return the results at a ratio and preprocessing; None if fewer than two seeds are complete."""
    chosen = [row for row in rows if row["ratio"] == str(ratio) and row["preprocessing"] == preprocessing]
    names = sorted({row["majority"] for row in chosen})
    pairs = list(itertools.combinations(range(len(names)), 2))
    solved = {(row["majority"], row["minority"], row["seed"]): row for row in chosen if row["solved"] == "yes"}
    orders = [[(names[i], names[j]), (names[j], names[i])] for i, j in pairs]
    seeds = [
        seed for seed in sorted({row["seed"] for row in chosen}, key=int)
        if all((*order, seed) in solved for both in orders for order in both)
    ]  # fmt: skip
    if len(seeds) < 2 or not pairs:
        return None
    table = np.empty((len(pairs), 2, len(seeds)), dtype=object)
    for (i, both), k in itertools.product(enumerate(orders), range(len(seeds))):
        for j, order in enumerate(both):
            table[i, j, k] = solved[(*order, seeds[k])]
    return Cell(pairs, table, len(chosen) - len(solved))


def difference(cell: Cell, first: str, second: str, judgement: str) -> np.ndarray:
    """Return the (45, 2, S) values of the arm `first` minus those of the arm `second`, both by `judgement`, such as "at 0"."""
    return cell.values(first, judgement) - cell.values(second, judgement)


def primary(cell: Cell) -> dict[str, Contrast]:
    """Return the contrasts in PRIMARY by key. The further key "threshold" has the difference: contrast "a" minus contrast "b"."""
    parts = {key: difference(cell, *arms) for key, arms in PRIMARY.items()}
    return {
        key: contrast(values, cell.pairs) for key, values in [*parts.items(), ("threshold", parts["a"] - parts["b"])]
    }


def outcome(cell: Cell) -> str:
    """Return sentences with the outcome of the primary contrasts in `cell`."""
    results = primary(cell)
    corrected = dict(zip(PRIMARY, holm([results[key].p for key in PRIMARY])))
    a, b, c, threshold = (results[key] for key in ("a", "b", "c", "threshold"))

    def verdict(key: str) -> str:
        level = results[key].level(EQUIVALENCE)
        if corrected[key] < 0.05:
            return "significant, but level" if level else "significant"
        return "level" if level else "not decided"

    parts = {key: contrast(difference(cell, *arms), cell.pairs).points(2) for key, arms in PARTS.items()}
    shape = cell.rows.shape
    return (
        f"(a) At threshold 0, poly with IW^1 is {a.points(2)} points above the hard margin ({verdict('a')}). (b) With thresholds from "
        f"val {b.points(2)} points are left ({verdict('b')}); the other {threshold.points(2)} are threshold. (c) Tuned on val, with thresholds from val, poly is "
        f"{c.points(2)} points above ridge regression ({verdict('c')}). Holm's p-values are {corrected['a']:.2g}, {corrected['b']:.2g} and "
        f"{corrected['c']:.2g}; {shape[0]} pairs × {shape[1]} role orders × {shape[2]} seeds"
        + (f", {cell.unsolved} problems unsolved. " if cell.unsolved else ". ")
        + f"Not planned: the loss alone (poly without weights minus hard margin) accounts for {parts['loss']} points of (a) and "
        f"{parts['loss, val']} of (b), the weights for {parts['weights']} and {parts['weights, val']}."
    )


def outcome_text(folder: Path) -> str:
    """Return the outcome of the primary cell, raw features at the ratio 10, from the tables in `folder`."""
    cell = cell_of(kept_results.read(STUDY, folder), 10, "raw")
    return outcome(cell) + "\n" if cell else "No two seeds of the primary cell have finished yet.\n"


def cells(folder: Path) -> Iterator[tuple[int, str, Cell]]:
    """Yield a ratio, a preprocessing and their results, for each pair of these two with at least two complete seeds."""
    rows = kept_results.read(STUDY, folder)
    for preprocessing, ratio in itertools.product(PREPROCESSINGS, RATIOS):
        if cell := cell_of(rows, ratio, preprocessing):
            yield ratio, preprocessing, cell


def contrasts_table(folder: Path) -> str:
    """Return a table of the contrasts in PRIMARY at every ratio and preprocessing with at least two complete seeds."""
    heads = ["features", "ratio", "seeds", "(a) poly IW^1 − hard margin, threshold 0", "part of (a) that is threshold",
             "(b) both with val's thresholds", "(c) poly IW^1 − ridge, tuned", "pairs ahead, behind in (a); (b); (c)"]  # fmt: skip
    table = []
    for ratio, preprocessing, cell in cells(folder):
        results = primary(cell)
        counts = "; ".join(
            f"{ahead}, {behind}"
            for ahead, behind in (ahead_and_behind(difference(cell, *arms)) for arms in PRIMARY.values())
        )
        table.append([PREPROCESSINGS[preprocessing], f"{ratio}:1", str(cell.rows.shape[2]),
                      *(results[key].points(2) for key in ("a", "threshold", "b", "c")), counts])  # fmt: skip
    return markdown(heads, table) if table else "No cell has finished yet.\n"


def parts_table(folder: Path) -> str:
    """Return a table that divides contrasts "a" and "b" of PRIMARY into a part of the loss and a part of the weights."""
    heads = ["features", "ratio", "(a) poly IW^1 − hard margin", "loss: poly, no weights − hard margin",
             "weights: poly IW^1 − poly, no weights", "the same weights, val's thresholds", "(b) = (a), val's thresholds"]  # fmt: skip
    table = []
    for ratio, preprocessing, cell in cells(folder):
        columns = (PRIMARY["a"], PARTS["loss"], PARTS["weights"], PARTS["weights, val"], PRIMARY["b"])
        table.append([PREPROCESSINGS[preprocessing], f"{ratio}:1",
                      *(contrast(difference(cell, *arms), cell.pairs).points(2) for arms in columns)])  # fmt: skip
    return markdown(heads, table) if table else "No cell has finished yet.\n"


def arms_table(folder: Path) -> str:
    """Return a table of all arms in the primary cell (see `outcome_text`), each compared with the arms of `against`.

    The last two numbers of a comparison are the pairs of classes ahead and behind, by `ahead_and_behind`.
    """
    cell = cell_of(kept_results.read(STUDY, folder), 10, "raw")
    if not cell:
        return "No two seeds of the primary cell have finished yet.\n"
    against = {
        "threshold 0, minus hard margin": (HARD, "at 0"),
        "threshold 0, minus poly α=1 IW^1": (POLY, "at 0"),
        "threshold 0, minus poly α=1 IW^1.5": (poly_name(1.0, 1.5), "at 0"),
        "from val, minus ridge, tuned": (RIDGE, "at val"),
    }
    table = []
    for arm in (column.removesuffix(": auroc") for column in cell.rows[0, 0, 0] if column.endswith(": auroc")):
        cells = [f"{100 * cell.values(arm, judgement).mean():.1f}" for judgement in ("at 0", "at val", "auroc")]
        for other, judgement in against.values():
            values = difference(cell, arm, other, judgement)
            ahead, behind = ahead_and_behind(values)
            cells.append("" if arm == other else f"{contrast(values, cell.pairs).points(2)} ({ahead}, {behind})")
        table.append([arm, *cells])
    return markdown(["arm", "threshold 0", "threshold from val", "AUROC", *against], table)


def tuning_text(folder: Path) -> str:
    """Return sentences on what val chooses for the two tuned arms of contrast "c" in the primary cell."""
    cell = cell_of(kept_results.read(STUDY, folder), 10, "raw")
    if not cell:
        return "No two seeds of the primary cell have finished yet.\n"

    def ends(arm: str, values: Sequence[float]) -> str:
        """Return the shares of problems in which val chooses the smallest and the largest of the values."""
        chosen = np.array([float(row[f"{arm}: values"].split("|")[1]) for row in cell.rows.ravel()])
        return f"{(chosen == min(values)).mean():.0%} and {(chosen == max(values)).mean():.0%}"

    def gain(first: str, second: str) -> str:
        return contrast(difference(cell, first, second, "at val"), cell.pairs).points(3)

    return (
        f"With 25 minority images val can hardly tune. It chooses the smallest and the largest value of poly's α in {ends(POLY_TUNED, TUNED_ALPHAS)} "
        f"of the problems, and of the penalty of ridge in {ends(RIDGE, PENALTIES)}. Tuning gains {gain(POLY_TUNED, POLY)} points for poly and "
        f"{gain(RIDGE, 'ridge, λ=1')} for ridge. Without tuning (α = 1, λ = 1) poly is {gain(POLY, 'ridge, λ=1')} points above ridge.\n"
    )


def descent_table(folder: Path) -> str:
    """Return a table of gradient descent: the gain of importance weights and the angle to the limit after each number of steps.

    There is one seed, so the intervals are over classes only.
    """
    rows = [row for row in kept_results.read(DESCENT_STUDY, folder) if row["solved"] == "yes"]
    if not rows:
        return "No descent has finished yet.\n"
    names = sorted({row[role] for row in rows for role in ("majority", "minority")})
    pairs = [(names.index(row["majority"]), names.index(row["minority"])) for row in rows]
    heads = ["steps", "cross-entropy, no weights: angle", "IW^1 minus none", "the same, val's thresholds",
             "IW^1.5 minus none", "poly IW^1: angle", "poly IW^1 minus cross-entropy IW^1"]  # fmt: skip
    table = []

    def gain(first: str, second: str, end: str, judgement: str = "at 0") -> str:
        values = numbers(rows, f"{first}, {end}: {judgement}") - numbers(rows, f"{second}, {end}: {judgement}")
        return contrast_over_classes(values, pairs).points(2)

    for end in (*(f"{count} steps" for count in STEPS), "limit"):
        angles = (
            "0°" if end == "limit" else f"{numbers(rows, f'{arm}, {end}: angle').mean():.1f}°"
            for arm in ("cross-entropy IW^0", "poly α=1 IW^1")
        )
        first, second = angles
        ce, weighted = "cross-entropy IW^0", "cross-entropy IW^1"
        gains = ["0, by theory"] * 3 if end == "limit" else [
            gain(weighted, ce, end), gain(weighted, ce, end, "at val"), gain("cross-entropy IW^1.5", ce, end)
        ]  # fmt: skip
        table.append([end, first, *gains, second, gain("poly α=1 IW^1", weighted, end)])
    return markdown(heads, table)


def draw(folder: str) -> None:
    """Draw the primary contrasts, one point for each pair of classes, and the accuracy by the power of the importance weights."""
    cell = cell_of(kept_results.read(STUDY, Path(folder)), 10, "raw")
    if not cell:
        return
    figure, (left, right) = subplots(1, 2, 9.0, 3.6, width_ratios=(1.15, 1))
    titles = {
        "a": "over hard margin,\nthreshold 0",
        "b": "over hard margin,\nthresholds from val",
        "c": "over ridge,\nboth tuned on val",
    }
    left.axhspan(-100 * EQUIVALENCE, 100 * EQUIVALENCE, color=NEUTRAL, alpha=0.3, linewidth=0)
    left.text(2.7, -100 * EQUIVALENCE + 0.05, "level", ha="right", color="#555555", fontsize=8)
    left.axhline(0, color=NEUTRAL, linewidth=1)
    for x, (key, result) in enumerate((key, primary(cell)[key]) for key in PRIMARY):
        pairs = 100 * difference(cell, *PRIMARY[key]).mean((1, 2))
        spread = 0.25 * (np.argsort(np.argsort(pairs)) * 7 % len(pairs) / len(pairs) - 0.5)
        left.plot(x + spread, pairs, "o", markersize=3, color=PALETTE[x], alpha=0.5)
        left.errorbar(
            x + 0.3, 100 * result.value, 50 * (result.high - result.low), fmt="D", color=PALETTE[x], capsize=3
        )
        left.annotate(
            f"{100 * result.value:+.1f}", (x + 0.34, 100 * result.value), xytext=(3, 4), textcoords="offset points"
        )
    left.set(xticks=range(3), xticklabels=[titles[key] for key in PRIMARY], xlim=(-0.4, 2.75),
             ylabel="test balanced accuracy, points", title="Gain of poly with weights (IW^1), 45 pairs of classes")  # fmt: skip
    for alpha, colour in zip(ALPHAS, PALETTE[1:]):
        for judgement, line in (("at 0", "-"), ("at val", ":")):
            values = [100 * cell.values(poly_name(alpha, exponent), judgement).mean() for exponent in EXPONENTS]
            right.plot(EXPONENTS, values, line, marker="o", markersize=3, color=colour,
                       label=f"poly, tail α = {alpha:g}, {'threshold 0' if judgement == 'at 0' else 'from val'}")  # fmt: skip
    for judgement, line in (("at 0", "-"), ("at val", ":")):
        right.axhline(100 * cell.values(HARD, judgement).mean(), color=PALETTE[0], linestyle=line,
                      label=f"hard margin, {'threshold 0' if judgement == 'at 0' else 'from val'}")  # fmt: skip
    right.axhline(
        100 * cell.values(RIDGE, "at val").mean(),
        color="black",
        linestyle="--",
        linewidth=1,
        label="ridge, tuned, from val",
    )
    right.set(
        xlabel="weights: class count to the power −c",
        ylabel="test balanced accuracy, %",
        title="In the limit of training",
    )
    right.legend(fontsize=7)
    save(figure, folder, STUDY)


def limit_on_features(
    *,
    features: str,
    train: bool,
    seeds: int,
    ratios: Sequence[int],
    preprocessings: Sequence[str],
    descent: bool,
    results: str,
) -> None:
    """Compute the problems that have no row in `results` yet; print the outcome and the tables, and draw the figure.

    Args:
        features: the folder that `imbalance features` has written.
        train: False to compute nothing, and use only the kept rows.
        seeds: the number of seeds.
        ratios: the numbers of majority images for each minority image, out of RATIOS.
        preprocessings: keys of PREPROCESSINGS.
        descent: run gradient descent instead of computing the limits.
        results: folder that holds the tables of results, such as results/.
    """
    folder = Path(results)
    if not train and not folder.is_dir():
        raise BadInput(f"--results={results} is no folder; name the folder that has {STUDY}.csv.gz, such as results")
    if train:
        stored = read_features(Path(features))
        for preprocessing, ratio in itertools.product(preprocessings, ratios):
            compute(stored, seeds, int(ratio), preprocessing, folder, descent)
    print(
        f"{outcome_text(folder)}\n{contrasts_table(folder)}\n{parts_table(folder)}\n{arms_table(folder)}\n{descent_table(folder)}",
        end="",
    )
    draw(results)

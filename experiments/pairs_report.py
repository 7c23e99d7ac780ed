"""What the runs of `experiments.pairs` come to, from results/ alone: three tables and a picture."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from imbalance.metrics.aggregates import (
    Estimate,
    bootstrap,
    improvement,
    interquartile_mean,
    iqm_difference,
    profile,
)
from imbalance.metrics.intervals import mean
from imbalance.report.figures import NEUTRAL, PALETTE, save, subplots
from imbalance.report.keep import Row, numbers
from imbalance.report.tables import markdown

Method = tuple[str, float]  # the loss and the exponent of the weights
EXPONENTS = (0.0, 1.0, 1.5)
LOSSES = {"ce": "cross-entropy", "poly": "poly"}
METHODS: tuple[Method, ...] = tuple(itertools.product(LOSSES, EXPONENTS))
COLUMNS = {"last epoch": "test balanced", "early-stopped": "best balanced: test balanced"}
TITLES = {"fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
CHANCE = 0.5


class Scores(NamedTuple):
    """Of one method on a data set's pairs; all arrays are (pairs, seeds)."""

    test: Mapping[str, np.ndarray]  # balanced accuracy by choice of epoch
    train: np.ndarray  # accuracy over all training examples, at the last epoch
    after: np.ndarray  # the share of training from the epoch of interpolation on; 0 of a run that never did
    rate: float


def label(method: Method) -> str:
    loss, exponent = method
    return LOSSES[loss] + (f", IW^{exponent:g}" if exponent else ", no weights")


def scores_of(by_method: Mapping[Method, list[Row]]) -> tuple[list[str], dict[Method, Scores]]:
    """The pairs for which all methods have the same seeds, and the scores on them; a diverged run has chance.

    Args:
        by_method: the rows of the seeds that count, of one data set.
    """
    found = {method: {(row["classes"], int(row["seed"])): row for row in rows} for method, rows in by_method.items()}
    seeds = sorted(set.union(*({seed for _, seed in rows} for rows in found.values())))
    everywhere = set.intersection(*(set(rows) for rows in found.values()))
    pairs = sorted({pair for pair, _ in everywhere if all((pair, seed) in everywhere for seed in seeds)})

    def table(rows: Mapping, value: Callable[[list[Row]], np.ndarray]) -> np.ndarray:
        return value([rows[pair, seed] for pair in pairs for seed in seeds]).reshape(len(pairs), len(seeds))

    def of(method: Method) -> Scores:
        rows = found[method]
        test = {
            name: table(rows, lambda r, c=column: np.nan_to_num(numbers(r, c), nan=CHANCE))
            for name, column in COLUMNS.items()
        }
        epochs, at = (
            table(rows, lambda r: numbers(r, "epochs")),
            table(rows, lambda r: numbers(r, "interpolation epoch")),
        )
        rates = {row["lr"] for row in rows.values()}
        assert len(rates) == 1, f"{label(method)}: runs at rates {rates}"
        return Scores(test, table(rows, train_accuracy), np.nan_to_num(1 - (at - 1) / epochs), float(*rates))

    return pairs, {method: of(method) for method in found}


def train_accuracy(rows: list[Row]) -> np.ndarray:
    """Over all training examples, from the groups' accuracies and counts."""

    def of(row: Row) -> float:
        counts = np.array(row["train counts"].split("|"), dtype=float)
        accuracies = np.array((row["train of groups"] or "nan|nan").split("|"), dtype=float)
        return float(counts @ accuracies / counts.sum())

    return np.array([of(row) for row in rows])


def methods_table(found: Mapping[str, Mapping[Method, Scores]]) -> str:
    """Every method: how far it interpolates, and its interquartile mean."""
    heads = [
        "data", "method", "rate", "runs", "of which interpolate", "train accuracy", "of training from there on",
        *(f"test, {name}" for name in COLUMNS),
    ]  # fmt: skip
    table = []
    for data, methods in found.items():
        for method, scores in methods.items():
            table.append([
                TITLES[data], label(method), f"{scores.rate:g}", str(scores.train.size), f"{(scores.after > 0).mean():.0%}",
                f"{100 * np.nanmean(scores.train):.1f}", f"{scores.after.mean():.0%}",
                *(bootstrap(interquartile_mean, scores.test[name], paired=True).percent() for name in COLUMNS),
            ])  # fmt: skip
    return markdown(heads, table)


class Comparison(NamedTuple):
    difference: Estimate  # of interquartile means, paired by seed
    chance: Estimate  # that a run of the first beats a run of the second on the same pair
    ahead: int  # pairs on which the 95 % t-interval of the paired difference lies above zero
    behind: int
    pairs: int


def compared(scores: np.ndarray, others: np.ndarray) -> Comparison:
    intervals = [mean(differences, -1, 1) for differences in scores - others]
    return Comparison(
        bootstrap(iqm_difference, scores, others, paired=True),
        bootstrap(improvement, scores, others, paired=False),
        sum(i.low > 0 for i in intervals),
        sum(i.high < 0 for i in intervals),
        len(intervals),
    )


# What the claim is about: the loss under the same weights, and the weights under the same loss.
QUESTIONS: tuple[tuple[Method, Method], ...] = (
    *((("poly", e), ("ce", e)) for e in EXPONENTS),
    *(((loss, e), (loss, 0.0)) for loss in LOSSES for e in EXPONENTS[1:]),
)


def comparisons_table(found: Mapping[str, Mapping[Method, Scores]]) -> str:
    heads = [
        "data", "epoch", "what over what", "difference of interquartile means, points", "probability of improvement, %",
        "pairs ahead", "behind", "of",
    ]  # fmt: skip
    table = []
    for data, name, (first, second) in itertools.product(found, COLUMNS, QUESTIONS):
        result = compared(*(found[data][method].test[name] for method in (first, second)))
        table.append([
            TITLES[data], name, f"{label(first)} over {label(second)}", result.difference.percent(), result.chance.percent(),
            str(result.ahead), str(result.behind), str(result.pairs),
        ])  # fmt: skip
    return markdown(heads, table)


def one_rate_table(by_data: Mapping[str, Mapping[Method, list[Row]]]) -> str:
    """What weights are worth where a loss has one rate with and without them, on the pairs that have all of its runs.

    Args:
        by_data: the rows of every method at the rate of its loss without weights.
    """
    heads = [
        "data", "loss", "rate", "weights", "of training after interpolation, without and with",
        *(f"weights over none, {name}, points (pairs ahead, behind, of)" for name in COLUMNS),
    ]  # fmt: skip
    table = []
    for data, loss in itertools.product(by_data, LOSSES):
        pairs, found = scores_of({method: rows for method, rows in by_data[data].items() if method[0] == loss})
        plain = found[loss, 0.0]
        for exponent in EXPONENTS[1:] if pairs else ():
            weighted = found[loss, exponent]
            results = [compared(weighted.test[name], plain.test[name]) for name in COLUMNS]
            table.append([
                TITLES[data], LOSSES[loss], f"{plain.rate:g}", f"IW^{exponent:g}",
                f"{plain.after.mean():.0%}, {weighted.after.mean():.0%}",
                *(f"{r.difference.percent()} ({r.ahead}, {r.behind}, {r.pairs})" for r in results),
            ])  # fmt: skip
    return markdown(heads, table) if table else "No pair has finished yet.\n"


def trend_table(found: Mapping[str, Mapping[Method, Scores]]) -> str:
    """Does poly gain the more over cross-entropy, the further training goes on past interpolation? Over the pairs."""
    from scipy import stats

    heads = ["data", "epoch", "weights", "Spearman's rank correlation over pairs", "p"]
    table = []
    for data, name, exponent in itertools.product(found, COLUMNS, EXPONENTS):
        x, y = past_and_gain(found[data], name, exponent)
        varied = np.ptp(x) > 0 and np.ptp(y.mean(1)) > 0
        result = [f"{value:.2g}" for value in stats.spearmanr(x, y.mean(1))] if varied else ["–", "–"]
        table.append([TITLES[data], name, f"IW^{exponent:g}" if exponent else "none", *result])
    return markdown(heads, table)


def past_and_gain(methods: Mapping[Method, Scores], name: str, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) the share of training past interpolation, the mean of both losses; (pairs, seeds) poly minus cross-entropy."""
    poly, ce = (methods[loss, exponent] for loss in ("poly", "ce"))
    return (poly.after.mean(1) + ce.after.mean(1)) / 2, poly.test[name] - ce.test[name]


def draw(found: Mapping[str, Mapping[Method, Scores]], folder: str) -> None:
    """A point a pair: poly minus cross-entropy over how far training goes on past interpolation; and all runs' profile."""
    figure, axes = subplots(len(found), 3, 11.0, 3.3 * len(found), squeeze=False)
    for row, (data, methods) in zip(axes, found.items()):
        for axis, name in zip(row, COLUMNS):
            axis.axhline(0, color=NEUTRAL, linewidth=1)
            for exponent, colour in zip(EXPONENTS, PALETTE):
                x, y = past_and_gain(methods, name, exponent)
                y = 100 * y
                arms = np.transpose([mean(differences, -100, 100).arms for differences in y])
                axis.errorbar(100 * x, y.mean(1), arms, fmt="o", markersize=3, color=colour, linewidth=0.5, alpha=0.8,
                              label=f"IW^{exponent:g}" if exponent else "no weights")  # fmt: skip
            axis.set(title=f"{TITLES[data]}, {name}", ylabel="poly minus cross-entropy,\ntest points",
                     xlabel="of training past interpolation, %")  # fmt: skip
        thresholds = np.linspace(0.45, 1, 200)
        for (loss, exponent), scores in methods.items():
            row[2].plot(100 * thresholds, profile(scores.test["last epoch"], thresholds), linewidth=1,
                        color=PALETTE[EXPONENTS.index(exponent)], linestyle="-" if loss == "poly" else ":",
                        label=label((loss, exponent)))  # fmt: skip
        row[2].set(
            title=f"{TITLES[data]}, last epoch", xlabel="test balanced accuracy above, %", ylabel="share of runs"
        )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    axes[0, 2].legend(loc="lower left")
    save(figure, folder, "pairs")


def scores_by_data(by_data: Mapping[str, Mapping[Method, list[Row]]]) -> dict[str, dict[Method, Scores]]:
    """Of those data sets that have a pair with all seeds of all methods."""
    found = {data: scores_of(by_method)[1] for data, by_method in by_data.items() if all(by_method.values())}
    return {data: scores for data, scores in found.items() if scores[METHODS[0]].train.size}


def report(by_data: Mapping[str, Mapping[Method, list[Row]]], folder: str) -> None:
    """The tables, and the picture in `folder`."""
    found = scores_by_data(by_data)
    for data, scores in found.items():
        pairs, seeds = scores[METHODS[0]].train.shape
        print(f"{TITLES[data]}: {pairs} of 45 pairs have {seeds} seeds of every method.")
    if found:
        print("\nBalanced accuracy, %, with its 95 % stratified bootstrap interval over seeds.\n")
        print(methods_table(found) + "\n" + comparisons_table(found))
        draw(found, folder)

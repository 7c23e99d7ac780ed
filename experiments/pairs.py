"""Compare the poly loss with cross-entropy, with and without importance weights, on all pairs of ten classes.

    imbalance reproduce pairs --data=fashion,cifar --seeds=10 --config.data_dir=data
    imbalance reproduce pairs --no-train       # tables and figure from results/pairs.csv.gz only

The pairs are all 45 pairs of the ten classes of Fashion-MNIST, and of CIFAR-10. On every pair a perceptron is trained on 250
images of the first class and 25 of the second. The poly loss (`poly`) is the polynomially tailed loss of Wang et al. (ICLR
2022). The six methods are cross-entropy and the poly loss, each with importance weights to the power 0, 1 and 1.5
(configs/<data>_pair_ce.py and _poly.py). A seed draws the images, the initialisation and the order, the same for all six
methods. Results are shown at two epochs: the last, and the one with the best balanced accuracy on val. Val is as large as the
training set, and is evaluated every ten epochs. Test has 1,000 images of each class.

Learning rates are tuned first. Each method gets the best learning rate of a grid on val, over two seeds of four of the 45
pairs; these two seeds are used for nothing else. A learning rate counts only if at least three quarters of its tuning runs
predict their whole training set correctly, because the claim is about such runs. Last, each loss with importance weights is
also trained at the learning rate that it has without them, so that only the importance weights differ.

Runs that have a row in results/pairs.csv.gz are not trained again, and finished runs are added to that file.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.data.sets.cifar10 import CLASSES as CIFAR10
from imbalance.data.sets.fashion import CLASSES as FASHION
from imbalance.errors import BadInput
from imbalance.metrics.aggregates import profile
from imbalance.metrics.clusters import Contrast, ahead_and_behind, contrast, holm
from imbalance.metrics.intervals import mean
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, numbers
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots
from imbalance.report.tables import Raw, markdown
from imbalance.sweep.runs import Run, add_own_values, check_common_overrides, make_run, run_and_keep

STUDY = "pairs"
CLASSES = {"fashion": FASHION, "cifar": CIFAR10}
TITLES = {"fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
RATES = {
    "fashion": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "cifar": (0.0003, 0.001, 0.003, 0.01, 0.03),
}
TUNED_ON = {
    "fashion": (("T-shirt", "shirt"), ("sandal", "bag"), ("pullover", "coat"), ("sneaker", "ankle boot")),
    "cifar": (("cat", "dog"), ("airplane", "frog"), ("automobile", "truck"), ("bird", "ship")),
}
TUNING_SEEDS = (1000, 1001)
INTERPOLATING = 0.75  # share of tuning runs that must predict their whole training set correctly, at least

Method = tuple[str, float]  # the loss, and the exponent of the importance weights
EXPONENTS = (0.0, 1.0, 1.5)
LOSSES = {"ce": "cross-entropy", "poly": "poly"}
METHODS: tuple[Method, ...] = tuple(itertools.product(LOSSES, EXPONENTS))
COLUMNS = {"last epoch": "test balanced", "early-stopped": "best balanced: test balanced"}
CHANCE = 0.5
EQUIVALENCE = (
    0.005  # half a point; two methods are level if the whole interval of their difference is within ± this margin
)

# The columns of results/pairs.csv.gz that tell the runs of this experiment apart; see `run_and_keep`.
IDENTITY = ("name", "seed", "classes", "exponent", "lr")


# The runs


class Settings(NamedTuple):
    """The folders and options that all runs of this experiment share."""

    work_dir: str
    folder: Path  # the folder that holds the tables of results, such as results/
    common: Mapping[str, Any]  # overrides of all runs
    jobs: int


def pair_run(settings: Settings, data: str, method: Method, pair: Sequence[str], rate: float, seed: int) -> Run:
    """Return the config and the run directory of a method on a pair of classes; nothing is trained.

    Args:
        data: a key of CLASSES.
        method: the loss, and the exponent of the importance weights.
        rate: learning rate.
    """
    loss, exponent = method
    overrides = {"data.classes": tuple(pair), "weights.exponent": exponent, "optim.lr": rate,
                 "trainer.eval_splits": ("val", "test")}  # fmt: skip
    return make_run(f"{data}_pair_{loss}", add_own_values(settings.common, overrides), seed, settings.work_dir)


def train(settings: Settings, stacks: Iterable[list[Run]]) -> None:
    """Train the runs that have no row in results/pairs.csv.gz, each list as one stacked model, and add their rows."""
    run_and_keep(stacks, settings.jobs, STUDY, settings.folder, IDENTITY)


def tune(settings: Settings, data: str) -> None:
    """Train the tuning runs: every method at every learning rate, on the pairs of TUNED_ON."""
    train(settings, (
        [pair_run(settings, data, (loss, exponent), pair, rate, seed)
         for seed in TUNING_SEEDS for exponent in EXPONENTS for rate in RATES[data]]
        for pair in TUNED_ON[data] for loss in LOSSES
    ))  # fmt: skip


def train_all_pairs(settings: Settings, data: str, seeds: int) -> None:
    """Train every method on every pair, at the learning rate that tuning chose for the method."""
    rows = kept_results.read(STUDY, settings.folder)
    rates = {method: tuned_rate(rows, data, method) for method in METHODS}
    train(settings, (
        [pair_run(settings, data, (loss, exponent), pair, rates[loss, exponent], seed)
         for seed in range(seeds) for exponent in EXPONENTS]
        for pair in itertools.combinations(CLASSES[data], 2) for loss in LOSSES
    ))  # fmt: skip


def train_at_one_rate(settings: Settings, data: str, seeds: int) -> None:
    """Train every method at the learning rate of its loss without importance weights, so that only these weights differ."""
    rows = kept_results.read(STUDY, settings.folder)
    rates = {loss: tuned_rate(rows, data, (loss, 0.0)) for loss in LOSSES}
    train(settings, (
        [pair_run(settings, data, (loss, exponent), pair, rates[loss], seed)
         for seed in range(seeds) for exponent in EXPONENTS]
        for loss in LOSSES for pair in itertools.combinations(CLASSES[data], 2)
    ))  # fmt: skip


# The learning rates


def rows_of(rows: Iterable[Row], data: str, method: Method) -> list[Row]:
    """Return the rows of a method on a data set, including those of tuning runs."""
    loss, exponent = method
    return [row for row in rows if row["name"] == f"{data}_pair_{loss}" and float(row["exponent"]) == exponent]


def tuning_results(rows: Iterable[Row], data: str, method: Method) -> dict[float, tuple[float, float]]:
    """Return the tuning results of a method by learning rate.

    A result is the mean val balanced accuracy of the tuning runs at the last epoch, and the share of these runs that predicted
    their whole training set correctly in some epoch. A diverged run counts with the accuracy of chance.
    """
    results, method_rows = {}, [row for row in rows_of(rows, data, method) if int(row["seed"]) in TUNING_SEEDS]
    for rate in RATES[data]:
        at_rate = [row for row in method_rows if float(row["lr"]) == rate]
        if at_rate:
            val = np.nan_to_num(numbers(at_rate, "val balanced"), nan=CHANCE)
            results[rate] = float(val.mean()), float(np.mean([row["interpolation epoch"] != "" for row in at_rate]))
    return results


def rate_of(rows: Iterable[Row], data: str, method: Method) -> float | None:
    """Return the tuned learning rate: the one with the best val result, if enough tuning runs interpolate at it.

    At least the share INTERPOLATING of the tuning runs must interpolate, which means to predict the whole training set
    correctly. If no learning rate reaches this share, the largest share that occurs is enough. Return None if there are
    no tuning runs.
    """
    results = tuning_results(rows, data, method)
    enough = min(INTERPOLATING, max((share for _, share in results.values()), default=0))
    interpolating = {rate: val for rate, (val, share) in results.items() if share >= enough}
    return max(interpolating, key=lambda rate: interpolating[rate], default=None)


def tuned_rate(rows: Iterable[Row], data: str, method: Method) -> float:
    """Return the result of `rate_of`; raise AssertionError if it is None, as before the tuning runs are done."""
    rate = rate_of(rows, data, method)
    assert rate is not None, (
        f"{data}, {label(method)}: no tuning run has a row in results/pairs.csv.gz; call `tune` first"
    )
    return rate


def by_method(
    rows: Sequence[Row], data_sets: Iterable[str], one_rate: bool = False
) -> dict[str, dict[Method, list[Row]]]:
    """Return, by data set and method, the rows at the method's tuned learning rate, without the tuning runs.

    Args:
        one_rate: return the rows at the learning rate of the method's loss without importance weights instead.
    """

    def method_rows(data: str, method: Method) -> list[Row]:
        rate = rate_of(rows, data, (method[0], 0.0) if one_rate else method)
        every = rows_of(rows, data, method)
        return [row for row in every if float(row["lr"]) == rate and int(row["seed"]) not in TUNING_SEEDS]

    return {data: {method: method_rows(data, method) for method in METHODS} for data in data_sets}


def tuning_table(rows: Sequence[Row], data_sets: Iterable[str]) -> str:
    """Return a table of the tuning results by learning rate.

    The chosen learning rate is in bold, with an asterisk if it is the smallest or the largest that was tried.
    """
    cells = []
    for data, method in itertools.product(data_sets, METHODS):
        chosen, texts = rate_of(rows, data, method), []
        for rate, (val, share) in tuning_results(rows, data, method).items():
            text = f"{rate:g}: {100 * val:.1f} ({100 * share:.0f})"
            end = r"\*" if rate in (RATES[data][0], RATES[data][-1]) else ""
            texts.append(f"**{text}**{end}" if rate == chosen else text)
        cells.append([TITLES[data], label(method), Raw(", ".join(texts))])
    return markdown(["data", "method", "rate: val balanced accuracy, % (runs that interpolate, %)"], cells)


# The scores


class Scores(NamedTuple):
    """The scores of one method on a data set's pairs; all arrays are (pairs, seeds)."""

    test: Mapping[str, np.ndarray]  # test balanced accuracy, by choice of epoch (a key of COLUMNS)
    train: np.ndarray  # accuracy over all training examples, at the last epoch
    # Share of epochs that come after the first interpolation, including it; 0 if a run never interpolated
    after: np.ndarray
    rate: float
    pairs: Sequence[str]  # the names of the pairs, such as "cat+dog"


MethodScores = Mapping[Method, Scores]


def label(method: Method) -> str:
    loss, exponent = method
    return LOSSES[loss] + (f", IW^{exponent:g}" if exponent else ", no weights")


def scores_of(rows_by_method: Mapping[Method, list[Row]]) -> tuple[list[str], dict[Method, Scores]]:
    """Return the pairs for which every method has a run at every seed, and the scores of every method on these pairs.

    A diverged run counts with the accuracy of chance.

    Args:
        rows_by_method: rows of one data set, without tuning runs.
    """
    cells = {
        method: {(row["classes"], int(row["seed"])): row for row in rows} for method, rows in rows_by_method.items()
    }
    seeds = sorted(set.union(*({seed for _, seed in rows} for rows in cells.values())))
    everywhere = set.intersection(*(set(rows) for rows in cells.values()))
    pairs = sorted({pair for pair, _ in everywhere if all((pair, seed) in everywhere for seed in seeds)})

    def table(rows: Mapping, value: Callable[[list[Row]], np.ndarray]) -> np.ndarray:
        return value([rows[pair, seed] for pair in pairs for seed in seeds]).reshape(len(pairs), len(seeds))

    def method_scores(method: Method) -> Scores:
        rows = cells[method]
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
        return Scores(test, table(rows, train_accuracy), np.nan_to_num(1 - (at - 1) / epochs), float(*rates), pairs)

    return pairs, {method: method_scores(method) for method in cells}


def scores_by_data(by_data: Mapping[str, Mapping[Method, list[Row]]]) -> dict[str, dict[Method, Scores]]:
    """Return the scores of each data set, over its pairs with all seeds of all methods; leave out data sets without one."""
    scores = {data: scores_of(rows)[1] for data, rows in by_data.items() if all(rows.values())}
    return {data: methods for data, methods in scores.items() if methods[METHODS[0]].train.size}


def train_accuracy(rows: list[Row]) -> np.ndarray:
    """Return each run's accuracy over all training examples, computed from the groups' accuracies and counts."""

    def accuracy(row: Row) -> float:
        counts = np.array(row["train counts"].split("|"), dtype=float)
        accuracies = np.array((row["train of groups"] or "nan|nan").split("|"), dtype=float)
        return float(counts @ accuracies / counts.sum())

    return np.array([accuracy(row) for row in rows])


# The tables and the figure


def methods_table(by_data: Mapping[str, MethodScores]) -> str:
    """Return a table with one row for each method on each data set; all values are over the runs of the method.

    A row has the share of runs that interpolate, the mean share of training after that, and mean accuracies.
    """
    heads = [
        "data", "method", "rate", "runs", "of which interpolate", "train accuracy", "of training from there on",
        *(f"test, {name}" for name in COLUMNS),
    ]  # fmt: skip
    table = []
    for data, methods in by_data.items():
        for method, scores in methods.items():
            table.append([
                TITLES[data], label(method), f"{scores.rate:g}", str(scores.train.size), f"{(scores.after > 0).mean():.0%}",
                f"{100 * np.nanmean(scores.train):.1f}", f"{scores.after.mean():.0%}",
                *(f"{100 * scores.test[name].mean():.1f}" for name in COLUMNS),
            ])  # fmt: skip
    return markdown(heads, table)


class Comparison(NamedTuple):
    difference: Contrast  # mean over pairs and seeds of the paired differences
    spread: tuple[float, float]  # tenth and ninetieth percentile of the mean differences of the pairs
    ahead: int  # number of pairs on which the first method is better, after Holm's correction over all pairs
    behind: int  # number of pairs on which it is worse, after the same correction
    pairs: int  # number of pairs

    def verdict(self) -> str:
        """Return "level" if the interval is within half a point of 0, else "ahead" or "behind" if it excludes 0, else "open".

        "level" comes first: a small difference can exclude 0 and still be level.
        """
        if self.difference.level(EQUIVALENCE):
            return "level"
        return "ahead" if self.difference.low > 0 else "behind" if self.difference.high < 0 else "open"


def compare(scores: np.ndarray, others: np.ndarray, pairs: Sequence[str]) -> Comparison:
    """Compare a method with another by the differences of the two accuracies on the same pair and seed.

    Args:
        scores: (P, S) accuracies of the method.
        others: (P, S) accuracies of the other method, which are subtracted.
        pairs: the P pairs, such as "cat+dog".
    """
    differences = scores - others
    names = sorted({name for pair in pairs for name in pair.split("+")})
    numbered = [(names.index(pair.split("+")[0]), names.index(pair.split("+")[1])) for pair in pairs]
    low, high = np.quantile(differences.mean(1), [0.1, 0.9])
    ahead, behind = ahead_and_behind(differences)
    return Comparison(contrast(differences, numbered), (float(low), float(high)), ahead, behind, len(pairs))


# The comparisons that test the claim: both losses with the same importance weights, and different importance weights with the
# same loss.
QUESTIONS: tuple[tuple[Method, Method], ...] = (
    *((("poly", e), ("ce", e)) for e in EXPONENTS),
    *(((loss, e), (loss, 0.0)) for loss in LOSSES for e in EXPONENTS[1:]),
)


def comparisons_table(by_data: Mapping[str, MethodScores]) -> str:
    """Return a table of all comparisons in QUESTIONS, with p-values by Holm's method over the whole table.

    The column "where both interpolate" has the mean over the pairs of runs of which both predict all of train correctly.
    """
    heads = [
        "data", "epoch", "what over what", "mean difference, points", "Holm's p", "from a tenth to nine tenths of the pairs", "verdict",
        "where both interpolate", "pairs ahead", "behind", "of",
    ]  # fmt: skip
    questions = list(itertools.product(by_data, COLUMNS, QUESTIONS))
    results = []
    for data, name, (first, second) in questions:
        methods = by_data[data]
        results.append(compare(methods[first].test[name], methods[second].test[name], methods[first].pairs))
    table = []
    for (data, name, (first, second)), result, p in zip(questions, results, holm([r.difference.p for r in results])):
        scores, others = by_data[data][first], by_data[data][second]
        both = (scores.after > 0) & (others.after > 0)
        mean_of_both = (scores.test[name] - others.test[name])[both].mean() if both.any() else np.nan
        table.append([
            TITLES[data], name, f"{label(first)} over {label(second)}", result.difference.points(), f"{p:.2g}",
            f"{100 * result.spread[0]:.1f} to {100 * result.spread[1]:.1f}", result.verdict(), f"{100 * mean_of_both:.1f}",
            str(result.ahead), str(result.behind), str(result.pairs),
        ])  # fmt: skip
    return markdown(heads, table)


def interaction_table(by_data: Mapping[str, MethodScores]) -> str:
    """Return a table of differences between two gains of importance weights.

    Some rows have the gain under poly minus that under cross-entropy. The other rows have the gain at the best epoch on val
    minus that at the last epoch.
    """
    heads = ["data", "difference of two gains of importance weights", "IW^1", "IW^1.5"]
    last, early = COLUMNS
    table = []
    for data, methods in by_data.items():

        def gain(loss: str, exponent: float, name: str, methods: MethodScores) -> np.ndarray:
            return methods[loss, exponent].test[name] - methods[loss, 0.0].test[name]

        questions = {
            f"under poly minus under cross-entropy, {last}": ("poly", last, "ce", last),
            f"under poly minus under cross-entropy, {early}": ("poly", early, "ce", early),
            f"under cross-entropy, {early} minus {last}": ("ce", early, "ce", last),
            f"under poly, {early} minus {last}": ("poly", early, "poly", last),
        }
        for title, (first, first_name, second, second_name) in questions.items():
            results = (
                compare(
                    gain(first, exponent, first_name, methods),
                    gain(second, exponent, second_name, methods),
                    methods["ce", 0.0].pairs,
                )
                for exponent in EXPONENTS[1:]
            )
            table.append(
                [TITLES[data], title, *(f"{result.difference.points()} ({result.verdict()})" for result in results)]
            )
    return markdown(heads, table)


def one_rate_table(by_data: Mapping[str, Mapping[Method, list[Row]]]) -> str:
    """Return a table that compares each loss with importance weights and without, both at the same learning rate.

    Only pairs with all runs of the loss count. A line "poly minus cross-entropy" has the difference of the two gains.

    Args:
        by_data: by data set, the rows of every method at the learning rate of its loss without importance weights.
    """
    heads = [
        "data", "loss", "rate", "weights", "share of training after interpolation: without weights, with weights",
        *(f"weights over none, {name}, points (pairs ahead, behind, of)" for name in COLUMNS),
    ]  # fmt: skip
    table = []

    def texts(gains: np.ndarray, others: np.ndarray, pairs: Sequence[str]) -> list[str]:
        results = [compare(gain, other, pairs) for gain, other in zip(gains, others)]
        return [f"{r.difference.points()} ({r.ahead}, {r.behind}, {r.pairs})" for r in results]

    for data, methods in by_data.items():
        gains: dict[tuple[str, float], tuple[list[str], np.ndarray]] = {}
        for loss in LOSSES:
            of_loss = {method: rows for method, rows in methods.items() if method[0] == loss}
            pairs, scores = scores_of(of_loss) if all(of_loss.values()) else ([], {})
            for exponent in EXPONENTS[1:] if pairs else ():
                unweighted, weighted = scores[loss, 0.0], scores[loss, exponent]
                gain = np.stack([weighted.test[name] - unweighted.test[name] for name in COLUMNS])
                gains[loss, exponent] = pairs, gain
                table.append([
                    TITLES[data], LOSSES[loss], f"{unweighted.rate:g}", f"IW^{exponent:g}",
                    f"{unweighted.after.mean():.0%}, {weighted.after.mean():.0%}", *texts(gain, np.zeros_like(gain), pairs),
                ])  # fmt: skip
        for exponent in EXPONENTS[1:]:
            (of_ce, ce), (of_poly, poly) = (gains.get((loss, exponent), ([], np.empty(0))) for loss in LOSSES)
            if of_ce and of_ce == of_poly and ce.shape == poly.shape:
                table.append(
                    [TITLES[data], "poly minus cross-entropy", "–", f"IW^{exponent:g}", "–", *texts(poly, ce, of_ce)]
                )
    return markdown(heads, table) if table else "No pair has finished yet.\n"


def trend_table(by_data: Mapping[str, MethodScores]) -> str:
    """Return a table of the rank correlation of the poly loss's gain with the share of training past interpolation.

    A correlation is over the pairs of a data set. The gain is that of `past_and_gain`. The partial correlation holds the
    difficulty of a pair fixed, which is the mean accuracy of all methods on the pair. Pairs share classes, so the p-values
    that independent pairs would have are not shown.
    """
    from scipy import stats

    heads = ["data", "epoch", "weights", "Spearman's rank correlation over pairs", "with equal difficulty"]
    table = []
    for data, name, exponent in itertools.product(by_data, COLUMNS, EXPONENTS):
        x, y = past_and_gain(by_data[data], name, exponent)
        varied = np.ptp(x) > 0 and np.ptp(y.mean(1)) > 0
        result = ["–", "–"]
        if varied:
            difficulty = np.mean([scores.test[name].mean(1) for scores in by_data[data].values()], axis=0)
            ranks = np.corrcoef([stats.rankdata(values) for values in (x, y.mean(1), difficulty)])
            partial = (ranks[0, 1] - ranks[0, 2] * ranks[1, 2]) / np.sqrt(
                (1 - ranks[0, 2] ** 2) * (1 - ranks[1, 2] ** 2)
            )
            result = [f"{ranks[0, 1]:.2f}", f"{partial:.2f}"]
        table.append([TITLES[data], name, f"IW^{exponent:g}" if exponent else "none", *result])
    return markdown(heads, table)


def past_and_gain(methods: MethodScores, name: str, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the (pairs,) share of epochs after interpolation, and the (pairs, seeds) gain of the poly loss.

    The share is averaged over poly and cross-entropy. The gain is the test score of the poly loss minus that of cross-entropy,
    both with importance weights to the power `exponent`.

    Args:
        name: the epoch of the test scores, a key of COLUMNS.
    """
    poly, ce = (methods[loss, exponent] for loss in ("poly", "ce"))
    return (poly.after.mean(1) + ce.after.mean(1)) / 2, poly.test[name] - ce.test[name]


def draw(by_data: Mapping[str, MethodScores], folder: str) -> None:
    """Draw two kinds of figures: gains against the share of training that comes after interpolation, and performance profiles.

    A gain is that of the poly loss for a pair of classes, which is one point. The performance profile of a method is the share
    of its runs above each score.
    """
    figure, axes = subplots(len(by_data), 3, 11.0, 3.3 * len(by_data), squeeze=False)
    for row, (data, methods) in zip(axes, by_data.items()):
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


def report(by_data: Mapping[str, Mapping[Method, list[Row]]], folder: str) -> None:
    """Print the tables of scores and comparisons, and draw the figure in `folder`."""
    scores_of_data = scores_by_data(by_data)
    for data, scores in scores_of_data.items():
        pairs, seeds = scores[METHODS[0]].train.shape
        print(f"{TITLES[data]}: {pairs} of 45 pairs have {seeds} seeds of every method.")
    if scores_of_data:
        print("\nBalanced accuracy, %.\n")
        print(methods_table(scores_of_data) + "\n" + comparisons_table(scores_of_data))
        draw(scores_of_data, folder)


def pairs(
    *,
    data: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    results: str,
) -> None:
    """Train the runs that have no row in results/pairs.csv.gz, print the tables, and draw the figure in `results`.

    Args:
        data: names in CLASSES; if none, all.
        train: False to train nothing, and use only the results in results/pairs.csv.gz.
        overrides: config values by key, for all runs.
        results: folder that holds the tables of results, such as results/.
    """
    unknown = sorted(set(data) - CLASSES.keys())
    if unknown:
        raise BadInput(f"--data={unknown[0]} is no data set of this experiment; type one of {', '.join(CLASSES)}")
    data_sets = data or list(CLASSES)
    settings = Settings(work_dir, Path(results), check_common_overrides(overrides), jobs)
    if train:
        for name in data_sets:
            tune(settings, name)
        for name in data_sets:
            train_all_pairs(settings, name, seeds)
        for name in data_sets:
            train_at_one_rate(settings, name, seeds)
    rows = kept_results.read(STUDY, settings.folder)
    print(tuning_table(rows, data_sets))
    report(by_method(rows, data_sets), results)
    print(f"\n{one_rate_table(by_method(rows, data_sets, one_rate=True))}")

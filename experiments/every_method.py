"""Compare every method on real data by one nested protocol: three learning rates a seed, chosen on val, test read once.

    imbalance reproduce every_method --data=sentiment,cifar10lt_100 --methods=erm,reweight,groupdro --config.data_dir=data
    imbalance reproduce every_method --no-train       # the tables from results/every_method.csv.gz only

The data sets are those of DATA in every_method_runs.py: features of a published network that is not trained further, tables,
and images on which a small network is trained from scratch. docs/findings-tables.md says how to get them. The protocol is fixed
in docs/preregistered/2026-11-28-every-method.md, and for pixels in 2026-11-28-every-method-on-pixels.md. For each method and
each seed, three learning rates are tried. Val of the seed chooses one of them and an epoch, by one of two rules: one reads the
groups of val, the other only its classes. Own hyperparameters of a method have their published defaults.

The three learning rates are a window of one grid that all methods share. If more than half of the seeds choose the
lowest or the highest rate of the window, the window moves by one rate, at most MOVES times. So all methods have
the same number of trials.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.errors import BadInput
from imbalance.experiments.every_method_runs import (
    DATA,
    EVERY,
    MOVES,
    SCORES,
    STUDY,
    UNPLANNED,
    ends_at_edge,
    has_rate,
    labels_read,
    outcome,
    rules_of,
    train_windows,
)
from imbalance.experiments.subpopbench_settings import has_head
from imbalance.metrics.clusters import holm, t_test
from imbalance.metrics.intervals import Mean, decimals, mean, paired_difference
from imbalance.metrics.variance import variance_components
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.tables import markdown
from imbalance.sweep.runs import check_common_overrides
from imbalance.utils.output import counted

ALPHA = 0.05  # level of tests, after Holm's correction
RARE_CLASS = ("law", "credit")  # data sets whose rare groups are those of a rare class; chosen after the results
BALANCED = ("groupdro", "resample", "reweight", "cbloss", "undersample", "polyreweight")  # balance the groups fully


# Tables


class Line(NamedTuple):
    """The result of a method on a data set by one rule.

    values: the test metric by seed.
    difference: the mean of the paired differences from ERM; None for ERM.
    p_value: of this difference by a t-test over seeds, after Holm's correction over all planned methods of the data set; nan
        for ERM and UNPLANNED.
    at_edge: whether most seeds choose the lowest or the highest learning rate of the last window.
    """

    values: Mapping[int, float]
    difference: Mean | None
    p_value: float
    at_edge: bool

    @property
    def average(self) -> Mean:
        """The mean over seeds with its interval."""
        return mean(list(self.values.values()), 0, 1)


def lines_of(rows: Sequence[Row], name: str, rule: str) -> dict[str, Line]:
    """Return the result of each method that has been trained with all seeds on a data set, by method.

    Args:
        rows: all rows of results.
        rule: key of SCORES, the metric of val.
    """
    data, values, at_edge = DATA[name], {}, {}
    for method in EVERY:
        of_method = [row for row in rows if row["set"] == name and row["method"] == method]
        if of_method:
            values[method] = outcome(of_method, data, method, rule)
            at_edge[method] = ends_at_edge(of_method, data, method, rule)
    reference = values.get("erm", {})
    p_values = {}
    for method, by_seed in values.items():
        shared = sorted(by_seed.keys() & reference.keys())
        if method not in ("erm", *UNPLANNED) and len(shared) > 1:
            differences = [by_seed[seed] - reference[seed] for seed in shared]
            p_values[method] = float(t_test(np.array([differences]))[0])
    corrected = dict(zip(p_values, holm(list(p_values.values())).tolist()))
    return {
        method: Line(
            by_seed,
            None if method == "erm" else paired_difference(by_seed, reference, 0, 1),
            corrected.get(method, np.nan),
            at_edge[method],
        )
        for method, by_seed in values.items()
    }


def difference_text(line: Line) -> str:
    """Return the difference from ERM as text, with a † if it is significant at 5 % after Holm's correction."""
    if line.difference is None:
        return ""
    return line.difference.percent() + (" †" if line.p_value < ALPHA else "")


def data_table(rows: Sequence[Row], name: str) -> str:
    """Return the table of a data set: for each method the labels that it reads, and its results by each rule."""
    data, rules = DATA[name], rules_of(DATA[name])
    by_rule = {labels: lines_of(rows, name, rule) for labels, rule in rules.items()}
    heads = ["method", "reads groups of"]
    for labels in rules:
        heads += [f"val's {labels} choose", "minus ERM"]
    table = []
    first = next(iter(by_rule.values()))
    for method in sorted(first, key=lambda name: -first[name].average.value):
        cells = [EVERY[method].title, labels_read(data, method)]
        for lines in by_rule.values():
            edge = " ‡" if lines[method].at_edge else ""
            cells += [lines[method].average.percent() + edge, difference_text(lines[method])]
        table.append(cells)
    return markdown(heads, table)


def trained_sets(rows: Sequence[Row]) -> list[str]:
    """Return the data sets that have rows of ERM, in the order of DATA."""
    trained = {row["set"] for row in rows if row["method"] == "erm"}
    return [name for name in DATA if name in trained]


Results = Mapping[str, Mapping[str, Line]]  # by data set and method


def results_of(rows: Sequence[Row], labels: str, metric: str = "", pixels: bool | None = None) -> Results:
    """Return the results of all data sets by the rule that reads these labels of val.

    Args:
        labels: "groups" or "classes"; a data set without a rule for "groups" has its rule for "classes".
        metric: key of SCORES; only data sets with this metric. "" for all.
        pixels: True for the data sets on which a network is trained from scratch on pixels; False for all others; None for
            both.
    """
    results = {}
    for name in trained_sets(rows):
        if metric in ("", DATA[name].metric) and pixels in (None, DATA[name].representation == "pixels"):
            rules = rules_of(DATA[name])
            results[name] = lines_of(rows, name, rules.get(labels, rules["classes"]))
    return results


def on_all(results: Results) -> list[str]:
    """Return the methods that were trained on all data sets of `results`, in the order of EVERY."""
    return [method for method in EVERY if results and all(method in lines for lines in results.values())]


def mean_by_source(by_set: Mapping[str, float]) -> float:
    """Return the mean over published sources of data of values by data set, averaged first within each source."""
    by_source: dict[str, list[float]] = {}
    for name, value in by_set.items():
        by_source.setdefault(DATA[name].source, []).append(value)
    return float(np.mean([np.mean(values) for values in by_source.values()]))


def mean_and_range(by_set: Mapping[str, float]) -> str:
    """Return the mean by source and the range over data sets of values by data set, in points, as text.

    The text describes these data sets. It has no interval, because they are few and no sample of a population.
    """
    values = [
        decimals(100 * value, 1) for value in (mean_by_source(by_set), min(by_set.values()), max(by_set.values()))
    ]
    return f"{values[0]}, {values[1]} to {values[2]}"


def mean_difference(results: Results, method: str) -> str:
    """Return the mean difference of a method from ERM by source, with its range over data sets, as text."""
    return mean_and_range(
        {name: lines[method].average.value - lines["erm"].average.value for name, lines in results.items()}
    )


def ahead_behind(results: Results, method: str) -> str:
    """Return on how many data sets a method is ahead of ERM, and behind, by tests with Holm's correction, as text.

    Methods that were not planned are not tested.
    """
    if method in UNPLANNED:
        return "not tested"
    lines = [of_set[method] for of_set in results.values()]
    signs = [np.sign(line.difference.value) for line in lines if line.difference and line.p_value < ALPHA]
    return f"{signs.count(1)}, {signs.count(-1)}"


def reads(results: Results, method: str) -> str:
    """Return which groups a method reads on any of the data sets: those of "train", those of "val", or "none"."""
    return next((r for name in results if (r := labels_read(DATA[name], method)) != "none"), "none")


def ranks_table(results: Results) -> str:
    """Return a table of the average rank of each method over the data sets of `results`, among methods that all of them have.

    The rank of a method on a data set is that of its mean over seeds; rank 1 is the best. Ranks and differences are averaged
    within each source first.
    """
    from scipy import stats

    methods = on_all(results)
    means = np.array([[lines[method].average.value for method in methods] for lines in results.values()])
    ranks_by_set = dict(zip(results, stats.rankdata(-means, axis=1)))
    ranks = [mean_by_source({name: of_set[i] for name, of_set in ranks_by_set.items()}) for i in range(len(methods))]
    table = [
        [EVERY[methods[i]].title, reads(results, methods[i]), f"{ranks[i]:.1f}",
         *(("", "") if methods[i] == "erm" else (mean_difference(results, methods[i]), ahead_behind(results, methods[i])))]
        for i in np.argsort(ranks, kind="stable")
    ]  # fmt: skip
    heads = ["method", "reads groups of", f"average rank of {len(methods)}", "minus ERM: " + counts_text(results),
             "data sets ahead of ERM, behind"]  # fmt: skip
    return markdown(heads, table)


def counts_text(results: Results) -> str:
    """Return the number of data sets and of their sources as text."""
    sources = len({DATA[name].source for name in results})
    text = counted(len(results), "data set")
    return text if sources == len(results) else f"{text} of {counted(sources, 'source')}"


def summary_table(folder: Path) -> str:
    """Return a table of the mean difference of each method from ERM, by kind of data set and by labels that val's rule reads.

    The range over data sets, and the numbers of data sets on which the method is ahead and behind, follow. A method that was
    not trained on all data sets of a kind has no value there.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows = kept_results.read(STUDY, folder)
    if not trained_sets(rows):
        return "No data set has finished yet.\n"
    by_rule = {labels: results_of(rows, labels, "worst group", pixels=False) for labels in ("groups", "classes")}
    kinds: dict[str, Results] = {
        f"rare {kind}, val's {labels} choose": {
            name: lines for name, lines in results.items() if (name in RARE_CLASS) == (kind == "class")
        }
        for kind in ("class", "group") for labels, results in by_rule.items()
    }  # fmt: skip
    kinds["balanced accuracy"] = results_of(rows, "classes", "balanced", pixels=False)
    for title, labels, metric in (
        ("worst group, val's groups choose", "groups", "worst group"), ("balanced accuracy", "classes", "balanced"),
    ):  # fmt: skip
        if results := results_of(rows, labels, metric, pixels=True):
            kinds[f"from scratch on pixels: {title}"] = results
    heads = ["method", "reads groups of"]
    heads += [f"{title}, {counts_text(results)}" for title, results in kinds.items()]
    heads.append("worst group: val's groups minus val's classes choose")
    table = []
    for method in EVERY:
        cells = [
            f"{mean_difference(results, method)} ({ahead_behind(results, method)})"
            if method in on_all(results)
            else "–"
            for results in kinds.values()
        ]
        if set(cells) != {"–"}:
            first = next((r for results in kinds.values() if (r := reads(results, method)) != "none"), "none")
            gain = rule_gain(by_rule["groups"], by_rule["classes"], method)
            table.append([EVERY[method].title, first, *([""] * len(cells) if method == "erm" else cells), gain])
    return markdown(heads, table)


def rule_gain(by_groups: Results, by_classes: Results, method: str) -> str:
    """Return, as text, what a method gains on average over data sets if val's groups choose instead of val's classes.

    Args:
        by_groups, by_classes: the results by the two rules on the same data sets.
    """
    if by_groups.keys() != by_classes.keys() or method not in on_all(by_groups):
        return "–"
    return mean_and_range(
        {name: by_groups[name][method].average.value - by_classes[name][method].average.value for name in by_groups}
    )


def dfr_table(folder: Path) -> str:
    """Return a table of DFR minus ReWeight, paired by seed, by data set in the order of the size of val's smallest group.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows, table = kept_results.read(STUDY, folder), []
    by_rule = [results_of(rows, labels, "worst group") for labels in ("groups", "classes")]
    smallest = {name: min(DATA[name].values["data.val_counts"]) for name in by_rule[0]}
    for name in sorted(smallest, key=lambda name: -smallest[name]):
        pairs = [(results[name].get("dfr"), results[name].get("reweight")) for results in by_rule]
        differences = [paired_difference(dfr.values, other.values, 0, 1) for dfr, other in pairs if dfr and other]
        if differences:
            table.append([DATA[name].title, smallest[name], *(difference.percent() for difference in differences)])
    heads = ["data", "smallest group of val", "val's groups choose", "val's classes choose"]
    return markdown(heads, table) if table else "No data set has both methods yet.\n"


def balanced_table(folder: Path) -> str:
    """Return a table of the significant differences between methods that balance the groups of train fully.

    The differences are paired by seed. Holm's correction is over all pairs of BALANCED on a data set, for each rule apart.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows, table, tests = kept_results.read(STUDY, folder), [], 0
    for name in trained_sets(rows):
        for labels, rule in rules_of(DATA[name]).items():
            lines = lines_of(rows, name, rule)
            differences = {}
            for first, second in itertools.combinations([method for method in BALANCED if method in lines], 2):
                difference = paired_difference(lines[first].values, lines[second].values, 0, 1)
                # The better method is named first.
                pair = (first, second) if difference.value >= 0 else (second, first)
                one, other = (lines[method].values for method in pair)
                differences[pair] = np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
            tests += len(differences)
            p_values = holm([float(t_test(each[None])[0]) for each in differences.values()])
            for (first, second), p_value in zip(differences, p_values):
                if p_value < ALPHA:
                    difference = paired_difference(lines[first].values, lines[second].values, 0, 1).percent()
                    pair = f"{EVERY[first].title} minus {EVERY[second].title}"
                    table.append([DATA[name].title, f"val's {labels}", pair, difference, f"{p_value:.1g}"])
    if not table:
        return f"No difference is significant, of {counted(tests, 'pair')}.\n"
    heads = ["data", "choose", f"significant, {len(table)} of {tests}", "difference, points", "p after Holm"]
    return markdown(heads, table)


def last_epoch_table(folder: Path) -> str:
    """Return a table of test results from scratch on pixels: at the epoch that val chooses, and after the last epoch.

    Each learning rate of the first window, which all these data sets share, has a column. DFR, whose last layer is fitted after
    the last epoch, is left out.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows, table = kept_results.read(STUDY, folder), []
    middle = DATA["dominoes_pixels"].rates
    exponents = range(middle - 1, middle + 2)
    for name in trained_sets(rows):
        data = DATA[name]
        if data.representation != "pixels":
            continue
        chosen, last = (f"{when}: {data.metric}" for when in (next(iter(rules_of(data).values())), "last"))
        for method in EVERY:
            of_method = [row for row in rows if (row["set"], row["method"], row["status"]) == (name, method, "done")]
            if not of_method or has_head(EVERY[method]):
                continue
            cells = [data.title, EVERY[method].title]
            for exponent in exponents:
                at_rate = [row for row in of_method if int(row["exponent"]) == exponent]
                cells.append(
                    " → ".join(
                        mean([float(row[column]) for row in at_rate], 0, 1).percent() for column in (chosen, last)
                    )
                )
            table.append(cells)
    heads = ["data", "method", *(f"learning rate 1e{exponent}" for exponent in exponents)]
    return markdown(heads, table) if table else "No data set has finished yet.\n"


def variance_table(folder: Path) -> str:
    """Return a table of variance shares of the test metric of each data set: before and after the choice of the learning rate.

    Before the choice, the values are those of all runs of the windows, each at the epochs that the two rules choose and at
    the last epoch. After it, they are the results of each method and seed by the rules; the rule is nested in the method,
    and the seed is the residual, because each rule trains and chooses for itself.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows, table = kept_results.read(STUDY, folder), []
    factors = {"method": "method", "learning rate": "exponent", "seed": "seed"}
    names = (*factors, "selection rule")
    for name in trained_sets(rows):
        data, done = DATA[name], [row for row in rows if row["set"] == name and row["status"] == "done"]
        done = [row for row in done if has_rate(data, EVERY[row["method"]])]
        methods = {row["method"] for row in done}
        values = [(float(row[f"{rule}: {data.metric}"]), row) for row in done for rule in (*SCORES, "last")]
        labels = {factor: [row[column] for _, row in values] for factor, column in factors.items()}
        before = [value for value, _ in values], labels, names[-1]
        rules = rules_of(data).values()
        chosen = [
            (value, method, rule)
            for rule in rules for method, line in lines_of(rows, name, rule).items() if method in methods
            for value in line.values.values()
        ]  # fmt: skip
        by_method, by_rule = ([line[i] for line in chosen] for i in (1, 2))
        nested = {"method": by_method, **({"selection rule": by_rule} if len(rules) > 1 else {})}
        after = [value for value, *_ in chosen], nested, "seed"
        for title, (accuracies, labels, within) in (("before", before), ("after", after)):
            components = variance_components(accuracies, labels, within)
            shares = [
                f"{c.share:.0%} ({c.low:.0%} to {c.high:.0%})" if (c := components.get(factor)) else "–"
                for factor in names
            ]
            spread = f"{100 * np.std(accuracies, ddof=1):.1f}"
            table.append([data.title if title == "before" else "", title, len(methods), spread, *shares])
    heads = ["data", "choice of the rate", "methods", "standard deviation, points", *names]
    return markdown(heads, table) if table else "No data set has finished yet.\n"


def kept_tables(folder: Path, names: Sequence[str] = ()) -> str:
    """Return the tables of data sets, then those over all data sets, from every_method.csv.gz in a folder such as results/.

    Args:
        names: keys of DATA; () for all that have been trained.
    """
    rows = kept_results.read(STUDY, folder)
    parts = []
    for name in trained_sets(rows):
        if not names or name in names:
            data = DATA[name]
            metric = "worst-group accuracy" if data.metric == "worst group" else "balanced accuracy"
            seeds = len({row["seed"] for row in rows if row["set"] == name})
            parts.append(
                f"**{data.title}** ({data.representation}; test {metric}, %; {seeds} seeds):\n\n{data_table(rows, name)}"
            )
    for title, pixels in (("all data sets of features and tables", False), ("all data sets of pixels", True)):
        for labels in ("groups", "classes"):
            if (results := results_of(rows, labels, pixels=pixels)) or not pixels:
                parts.append(f"Over {title}, val's {labels} choose:\n\n{ranks_table(results)}")
    return "\n".join(parts)


# The command


def every_method(
    *,
    data: Sequence[str],
    methods: Sequence[str],
    train: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    results: str,
) -> None:
    """Train the runs that have no row in results/every_method.csv.gz, and print the tables.

    Args:
        data: keys of DATA; if none, all.
        methods: keys of EVERY; if none, all that fit a data set.
        train: False to train nothing.
        overrides: config values by key, for all runs.
        stacked: largest number of runs that one process trains as one stacked model.
        results: folder that holds the tables of results.
    """
    for flag, names, valid in (("--data", data, DATA), ("--methods", methods, EVERY)):
        for name in names:
            if name not in valid:
                raise BadInput(f"{flag}: {name!r} given; valid: {', '.join(valid)}")
    folder = Path(results)
    if train:
        common = check_common_overrides(overrides)
        for _ in range(MOVES + 1):
            train_windows(data or tuple(DATA), methods or tuple(EVERY), common, seeds, work_dir, jobs, stacked, folder)
    print(kept_tables(folder, data))

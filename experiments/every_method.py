"""Compare every method on real data by one nested protocol: three learning rates a seed, chosen on val, test read once.

    imbalance reproduce every_method --data=sentiment,cifar10lt_100 --methods=erm,reweight,groupdro --config.data_dir=data
    imbalance reproduce every_method --no-train       # the tables from results/every_method.csv.gz only

The data sets are those of DATA, mostly features of a published network that is not trained further; docs/findings.md says how
to get them. The protocol is fixed in docs/preregistered/2026-11-28-every-method.md. For each method and each seed, three
learning rates are tried. Val of the seed chooses one of them and an epoch, by one of two rules: one reads the groups of
val, the other only its classes. Own hyperparameters of a method have their published defaults.

The three learning rates are a window of one grid that all methods share. If more than half of the seeds choose the
lowest or the highest rate of the window, the window moves by one rate, at most MOVES times. So all methods have
the same number of trials.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.experiments.subpopbench_settings import BY, METHODS, Method, has_head, method_values, section
from imbalance.metrics.clusters import holm, t_test
from imbalance.metrics.intervals import Mean, decimals, mean, paired_difference
from imbalance.metrics.variance import variance_components
from imbalance.report import kept_results, leaderboard
from imbalance.report.kept_results import Row
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, check_common_overrides, make_batches, make_run, run_and_keep
from imbalance.utils.output import counted

STUDY = "every_method"
IDENTITY = ("name", "overrides", "seed")
CONFIG = "drawn_erm"
# Columns of `kept_results.row_of` that a row of this table has, too.
ABOUT_RUN = (
    "name", "overrides", "seed", "data", "lr", "epochs", "status", "train counts", "seconds", "together", "threads", "processor",
    "device", "precision", "versions", "commit",
)  # fmt: skip
ALPHA = 0.05  # level of tests, after Holm's correction
SCORES = {"worst group": "worst_group_accuracy", "balanced": "balanced_accuracy"}  # by rule and by column
RARE_CLASS = ("law", "credit")  # data sets whose rare groups are those of a rare class; chosen after the results
BALANCED = ("groupdro", "resample", "reweight", "cbloss", "undersample", "polyreweight")  # balance the groups fully


# Data sets


class Data(NamedTuple):
    """A data set of this comparison.

    title: name in tables.
    representation: "lite0" or "minilm" for features of that network, "columns" for a table.
    values: config values by key in which a run differs from CONFIG.
    metric: key of SCORES: the test metric, which is also the metric of the rule that reads the groups of val.
    rates: exponent of ten of the middle learning rate of the first window.
    by: "group" or "class", which stands in for BY.
    crossed: whether the groups are two classes × attributes, which some methods need.
    """

    title: str
    representation: str
    values: Mapping[str, Any]
    metric: str = "worst group"
    rates: int = -3
    by: str = "group"
    crossed: bool = True

    @property
    def source(self) -> str:
        """The published data that the data set is made of; two data sets with one source are no independent evidence."""
        if self.representation != "lite0":
            return self.title
        return "Fashion-MNIST" if "Fashion" in self.title else "CIFAR-10"

    @property
    def test_examples(self) -> int:
        """The number of test examples of each seed."""
        counts, groups = self.values["data.test_counts"], len(self.values["data.train_counts"])
        return int(np.resize(counts, groups).sum())


def on_features(
    folder: str, train: Sequence[int], val: Sequence[int], test: Sequence[int], **own: Any
) -> dict[str, Any]:
    """Return the config values of a data set of stored features, with these numbers of examples of each group."""
    source = dict(name="features", folder=folder, standardise=False)
    return {
        "data.source": source, "data.train_counts": tuple(train), "data.val_counts": tuple(val), "data.test_counts": tuple(test),
        **{f"data.{key}": value for key, value in own.items()},
    }  # fmt: skip


def long_tail(ratio: int) -> Data:
    """Return CIFAR-10 with class counts that fall geometrically from LARGEST to LARGEST / ratio."""
    counts = [int(LARGEST * ratio ** (-label / 9)) for label in range(10)]
    values = on_features("cifar10_lite0", counts, (100,), (300,))
    return Data(f"CIFAR-10-LT, ratio {ratio}", "lite0", values, "balanced", by="class", crossed=False)


def biased(title: str, folder: str, percent: float) -> Data:
    """Return a data set of ten classes in which most images of a class share an attribute, except for `percent` of them.

    Train has 500 images of each class on average. In val and test, all ten attributes are equally frequent.
    """
    conflicting = [round(50 * percent * (label + 1)) // 10 - round(50 * percent * label) // 10 for label in range(10)]
    train = [count for few in conflicting for count in (500 - few, few)]
    values = on_features(folder, train, (10, 90), (20, 180))
    return Data(f"{title}, {percent:g} % conflicting", "lite0", values, "balanced", crossed=False)


def people(
    title: str, file: str, labels: Mapping[str, Any], numeric: Sequence[str], categorical: Sequence[str], **counts: Any
) -> Data:
    """Return a table of people, whose groups are class × one attribute.

    Args:
        labels: the values of the keys target, classes and attributes.
        numeric, categorical: the columns that are inputs.
        counts: number of examples of each group, by the keys train, val and test.
    """
    source = dict(
        name="arrays", file=f"people/{file}", delimiter=",", numeric=tuple(numeric), categorical=tuple(categorical), missing=(),
        **labels, split="", val_fraction=0.1, test_fraction=0.2,
    )  # fmt: skip
    values = {
        "data.source": source, **{f"data.{key}_counts": value for key, value in counts.items()}, "data.test_from": "all",
        "data.standardise": False, "model": dict(name="mlp", hidden=(64, 64)), "optim.weight_decay": 1e-4,
    }  # fmt: skip
    return Data(title, "columns", values, rates=-2)


LARGEST = 1000
SENTIMENT = (2986, 5363, 1580, 1303, 2204, 5242, 2128, 2897)  # numbers of texts of each class × domain
DATA = {
    "sentiment": Data("sentiment by domain", "minilm", on_features(
        "sentiment_minilm", [n // 5 for n in SENTIMENT], [n // 10 for n in SENTIMENT], [n // 5 for n in SENTIMENT], test_from="all")),
    "cifar10lt_100": long_tail(100),
    "adult": people("Adult by sex", "adult.csv.gz", dict(target="income", classes=("<=50K", ">50K"), attributes=("sex",)),
        ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"),
        ("workclass", "education", "marital_status", "occupation", "relationship", "race", "native_country"),
        train=(1440, 2270, 180, 990), val=(720, 1130, 90, 500), test=(1500, 1500, 600, 1500)),
    "compas": people("COMPAS by race", "compas-recidivism.csv",
        dict(target="two-year-recid", classes=("0", "1"), attributes=("race",)),
        ("sex", "age-num", "juv-fel-count", "juv-misd-count", "juv-other-count", "priors-count", "c-charge-degree_F"), (),
        train=(1040, 640, 990, 410), val=(310, 190, 300, 120), test=(700, 440, 690, 290)),
    "law": people("law school by race", "law.csv", dict(target="PF_1", classes=("0", "1"), attributes=("Race_White",)),
        ("LSAT", "UGPA", "Sex_1"), (), train=(220, 330, 580, 3870), val=(110, 165, 290, 1930), test=(500, 700, 1000, 2000)),
    "credit": people("credit by sex", "UCI_Credit_Card.csv",
        dict(target="default-payment-next-month", classes=("0", "1"), attributes=("SEX",)),
        ("LIMIT_BAL", "AGE", *(f"PAY_{month}" for month in (0, 2, 3, 4, 5, 6)),
         *(f"{kind}_AMT{month}" for kind in ("BILL", "PAY") for month in range(1, 7)),
         *(f"EDUCATION_{level}" for level in range(7)), *(f"MARRIAGE_{kind}" for kind in range(4))), (),
        train=(1500, 2390, 480, 630), val=(750, 1190, 240, 310), test=(1000, 1000, 800, 1000)),
    "spam": Data("SpamAssassin by source", "minilm",
        on_features("spam_minilm", (1600, 70, 350), (400, 35, 100), (1400, 125, 1396)), crossed=False),
    "dominoes": Data("Dominoes", "lite0", on_features("dominoes_lite0", (1900, 100, 100, 1900), (150,), (500,))),
    **{f"corrupted_{percent}": biased("corrupted CIFAR-10", "corrupted_cifar10_lite0", percent) for percent in (5, 2, 1, 0.5)},
    "colored_fashion": biased("colored Fashion-MNIST", "colored_fashion_lite0", 2),
    "cifar10lt_50": long_tail(50),
    "cifar10lt_10": long_tail(10),
}  # fmt: skip


# Methods

POLY = {"loss": dict(name="poly", alpha=1.0, left="logistic")}
EVERY = {
    **METHODS,
    "undersample": Method("undersampling", section("sampler", "undersample", by=BY, redraw=True)),
    "resample_class": Method("ReSample by class", section("sampler", "resample", by="class", exponent=1.0)),
    "reweight_class": Method("ReWeight by class", section("weights", "importance", by="class", exponent=1.0)),
    "poly": Method("poly", POLY),
    "polyreweight": Method("poly, ReWeight", {**POLY, **section("weights", "importance", by=BY, exponent=1.0)}),
}
CROSSED = ("lisa", "irm", "mmd", "coral")  # need two classes × attributes
# Change or refit what lies below the last layer, or refit the last layer on train: on features that stay fixed, each
# equals another method.
NEEDS_FEATURES = ("mmd", "coral", "crt", "reweightcrt", "vanillacrt")
BY_CLASS = ("resample_class", "reweight_class")  # equal ReSample and ReWeight if the classes are the groups


def methods_for(data: Data) -> list[str]:
    """Return the methods that can be trained on a data set, and equal no other method there."""
    left_out = set() if data.crossed else set(CROSSED)
    left_out |= set() if data.representation == "columns" else set(NEEDS_FEATURES)
    left_out |= set(BY_CLASS) if data.by == "class" else set()
    return [name for name in EVERY if name not in left_out]


def has_rate(data: Data, method: Method) -> bool:
    """Return whether the learning rate can change a result: not if a head replaces all that training has learnt."""
    return not has_head(method) or data.representation == "columns"


def labels_read(data: Data, method: str) -> str:
    """Return which labels besides the classes of train and the rule's labels a method reads: "train", "val" or "none"."""
    if data.by == "class":
        return "none"
    if EVERY[method].overrides.get("head.name") == "dfr":
        return "val"
    flat = flatten(make_run(CONFIG, run_values(data, method, 0), 0, "runs").config.to_dict())
    return "train" if leaderboard.labels_in_train(flat) == "groups" else "none"


EPOCHS, BATCH = 20, 256
MOVES = 2  # most moves of a window


def run_values(data: Data, method: str, exponent: int) -> dict[str, Any]:
    """Return the config values of a run by key, for a learning rate of ten to the power `exponent`."""
    about = EVERY[method]
    shared = {
        "trainer.epochs": EPOCHS, "trainer.batch_size": BATCH, "optim.lr": 10.0**exponent,
        "optim.weight_decay": data.values.get("optim.weight_decay", 1e-3),
    }  # fmt: skip
    values = {**shared, **method_values(about, data.by, 0, shared)}
    if about.overrides.get("objective.name") == "irm":  # a tenth of the steps, as 500 are of 5,001
        steps = EPOCHS * -(-sum(data.values["data.train_counts"]) // BATCH)
        values["objective.warmup_steps"] = max(1, steps // 10)
    return {
        **data.values, **values, "trainer.eval_every": 2, "trainer.eval_splits": ("val", "test"), "callbacks.select": "last",
    }  # fmt: skip


# Rows of results


def to_row(directory: Path, keys: Mapping[Path, tuple[str, str, int]]) -> Row | None:
    """Return the row of a finished run, or None if the run is neither done nor diverged.

    For each rule, the key of SCORES that it maximises on val, and for the rule "last", the last epoch, the row has the
    epoch, the value on val, and all SCORES on test.

    Args:
        keys: data set, method and exponent of the learning rate of each run, by run directory.
    """
    full = kept_results.row_of(directory)
    if full is None:
        return None
    name, method, exponent = keys[directory]
    row = {"set": name, "representation": DATA[name].representation, "method": method, "exponent": str(exponent)}
    row |= {column: full[column] for column in ABOUT_RUN if column in full}
    if full["status"] != "done":
        return row
    if has_head(EVERY[method]):  # fitted after training, so only the final predictions have it
        metrics = summary_of(directory)["metrics"]
        lines = [{"epoch": full["epoch"], **metrics}]
    else:
        lines = evaluations_of(directory)
    for rule in (*SCORES, "last"):
        line = lines[-1] if rule == "last" else max(lines, key=lambda line, m=SCORES[rule]: line[f"val/{m}"])
        cells = {"epoch": line["epoch"]} if rule != "last" else {}
        cells |= {} if rule == "last" else {"val": line[f"val/{SCORES[rule]}"]}
        cells |= {score: line[f"test/{metric}"] for score, metric in SCORES.items()}
        row |= {f"{rule}: {key}": kept_results.text(value) for key, value in cells.items()}
    return row


# The choice of learning rates


def window(rows: Sequence[Row], data: Data, method: str, rule: str) -> range:
    """Return the exponents of the learning rates that a method tries on a data set, as far as the kept rows tell.

    Args:
        rows: rows of the method on the data set.
        rule: key of SCORES, the metric of val by which each seed chooses a rate.
    """
    start = data.rates - 1
    if not has_rate(data, EVERY[method]):
        return range(data.rates, data.rates + 1)
    moved = 0
    while abs(moved) < MOVES:
        exponents = range(start + moved, start + moved + 3)
        chosen = [int(row["exponent"]) for row in choices(rows, exponents, rule).values()]
        if {int(row["exponent"]) for row in rows} & set(exponents) != set(exponents):
            break  # not trained yet
        ends = [sum(exponent == end for exponent in chosen) for end in (exponents[0], exponents[-1])]
        step = -1 if 2 * ends[0] > len(chosen) else 1 if 2 * ends[1] > len(chosen) else 0
        if step == 0 or step * moved < 0:  # never back
            break
        moved += step
    return range(start + moved, start + moved + 3)


def choices(rows: Sequence[Row], exponents: range, rule: str) -> dict[int, Row]:
    """Return, by seed, the row of the learning rate that the seed's val chooses; of equally good ones, the lowest.

    A diverged run is never chosen. A seed of which all runs diverged has no row.

    Args:
        rows: rows of a method on a data set.
        exponents: exponents of the learning rates to choose from.
        rule: key of SCORES, the metric of val.
    """
    result: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: int(row["exponent"])):
        if row["status"] != "done" or int(row["exponent"]) not in exponents:
            continue
        best = result.setdefault(int(row["seed"]), row)
        if float(row[f"{rule}: val"]) > float(best[f"{rule}: val"]):
            result[int(row["seed"])] = row
    return result


def outcome(rows: Sequence[Row], data: Data, method: str, rule: str) -> dict[int, float]:
    """Return the test metric of a method by seed, at the learning rate and epoch that the seed's val chooses.

    Args:
        rows: rows of the method on the data set.
        rule: key of SCORES, the metric of val.
    """
    chosen = choices(rows, window(rows, data, method, rule), rule)
    return {seed: float(row[f"{rule}: {data.metric}"]) for seed, row in sorted(chosen.items())}


def ends_at_edge(rows: Sequence[Row], data: Data, method: str, rule: str) -> bool:
    """Return whether more than half of the seeds choose one end of the window that is left after all moves.

    A better learning rate may then lie outside the window.

    Args:
        rows: rows of the method on the data set.
        rule: key of SCORES, the metric of val.
    """
    exponents = window(rows, data, method, rule)
    chosen = [int(row["exponent"]) for row in choices(rows, exponents, rule).values()]
    ends = exponents[0], exponents[-1]
    return len(exponents) > 1 and any(2 * chosen.count(end) > len(chosen) for end in ends)


def rules_of(data: Data) -> dict[str, str]:
    """Return the rules by the labels of val that they read: "groups", unless the metric reads none, and "classes"."""
    return {"groups": "worst group", "classes": "balanced"} if data.metric == "worst group" else {"classes": "balanced"}


# Tables


class Line(NamedTuple):
    """The result of a method on a data set by one rule.

    values: the test metric by seed.
    difference: the mean of the paired differences from ERM; None for ERM.
    p_value: of this difference by a t-test over seeds, after Holm's correction over all methods of the data set; nan for ERM.
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
        if method != "erm" and len(shared) > 1:
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


def results_of(rows: Sequence[Row], labels: str, metric: str = "") -> Results:
    """Return the results of all data sets by the rule that reads these labels of val.

    Args:
        labels: "groups" or "classes"; a data set without a rule for "groups" has its rule for "classes".
        metric: key of SCORES; only data sets with this metric. "" for all.
    """
    results = {}
    for name in trained_sets(rows):
        if metric in ("", DATA[name].metric):
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
    """Return on how many data sets a method is ahead of ERM, and behind, by tests with Holm's correction, as text."""
    lines = [of_set[method] for of_set in results.values()]
    signs = [np.sign(line.difference.value) for line in lines if line.difference and line.p_value < ALPHA]
    return f"{signs.count(1)}, {signs.count(-1)}"


def reads(results: Results, method: str) -> str:
    """Return which groups a method reads on any of the data sets: those of "train", those of "val", or "none"."""
    return next((r for name in results if (r := labels_read(DATA[name], method)) != "none"), "none")


def ranks_table(rows: Sequence[Row], labels: str) -> str:
    """Return a table of the average rank of each method over all data sets, among methods that all of them have.

    The rank of a method on a data set is that of its mean over seeds; rank 1 is the best. Ranks and differences are averaged
    within each source first.

    Args:
        labels: the labels of val that the rule reads, as in `results_of`.
    """
    from scipy import stats

    results = results_of(rows, labels)
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
    by_rule = {labels: results_of(rows, labels, "worst group") for labels in ("groups", "classes")}
    kinds: dict[str, Results] = {
        f"rare {kind}, val's {labels} choose": {
            name: lines for name, lines in results.items() if (name in RARE_CLASS) == (kind == "class")
        }
        for kind in ("class", "group") for labels, results in by_rule.items()
    }  # fmt: skip
    kinds["balanced accuracy"] = results_of(rows, "classes", "balanced")
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
    parts += [
        f"Over all data sets, val's {labels} choose:\n\n{ranks_table(rows, labels)}" for labels in ("groups", "classes")
    ]
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
        for name in data or DATA:
            chosen = [method for method in methods_for(DATA[name]) if not methods or method in methods]
            for _ in range(MOVES + 1):
                train_windows(name, chosen, common, seeds, work_dir, jobs, stacked, folder)
    print(kept_tables(folder, data))


def train_windows(
    name: str,
    methods: Sequence[str],
    common: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    folder: Path,
) -> None:
    """Train the runs of the current windows of methods on a data set that have no row yet, and keep their rows."""
    data, rows = DATA[name], kept_results.read(STUDY, folder)
    runs: list[Run] = []
    keys: dict[Path, tuple[str, str, int]] = {}
    for method in methods:
        of_method = [row for row in rows if row["set"] == name and row["method"] == method]
        exponents = {e for rule in set(rules_of(data).values()) for e in window(of_method, data, method, rule)}
        for seed, exponent in itertools.product(range(seeds), sorted(exponents)):
            run = make_run(CONFIG, {**common, **run_values(data, method, exponent)}, seed, work_dir)
            keys[run.directory] = name, method, exponent
            runs.append(run)
    batches = make_batches(runs, jobs, stacked)
    run_and_keep(batches, jobs, STUDY, folder, IDENTITY, partial(to_row, keys=keys))

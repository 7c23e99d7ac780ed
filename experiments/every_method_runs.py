"""Define and train the runs of `every_method`: data sets, methods, windows of learning rates, and the choice on val.

A run has a data set, a method, a learning rate and a seed. Its row of results holds what test says at the epoch that each
rule chooses; `every_method` makes tables of the rows.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.experiments.every_method_data import EXTRACTIONS
from imbalance.experiments.subpopbench_settings import BY, METHODS, Method, has_head, method_values, section
from imbalance.report import kept_results, leaderboard
from imbalance.report.kept_results import Row
from imbalance.report.saved_runs import evaluations_of, summary_of
from imbalance.sweep.runs import Run, add_own_values, make_batches, make_run, run_and_keep

STUDY = "every_method"
IDENTITY = ("name", "overrides", "seed")  # columns that tell runs apart; see `run_and_keep`
CONFIG = "drawn_erm"
# Columns of `kept_results.row_of` that a row of this table has, too.
ABOUT_RUN = (
    "name", "overrides", "seed", "data", "lr", "epochs", "config", "status", "train counts", "seconds", "together", "threads", "processor",
    "device", "precision", "versions", "commit",
)  # fmt: skip
SCORES = {"worst group": "worst_group_accuracy", "balanced": "balanced_accuracy"}  # by rule and by column


# Data sets


class Data(NamedTuple):
    """A data set of this comparison.

    title: name in tables.
    representation: "lite0" or "minilm" for features of that network, "columns" for a table, "pixels" for images on which a
        small network is trained from scratch.
    values: config values by key in which a run differs from CONFIG.
    metric: key of SCORES: the test metric, which is also the metric of the rule that reads the groups of val.
    rates: exponent of ten of the middle learning rate of the first window.
    by: "group" or "class", which stands in for BY.
    crossed: whether the groups are two classes × attributes, which some methods need.
    epochs: number of epochs of a run; JTT divides them between its two stages.
    batch: number of examples in a batch.
    """

    title: str
    representation: str
    values: Mapping[str, Any]
    metric: str = "worst group"
    rates: int = -3
    by: str = "group"
    crossed: bool = True
    epochs: int = 20
    batch: int = 256

    @property
    def source(self) -> str:
        """The published data that the data set is made of; two data sets with one source are no independent evidence."""
        if self.representation not in ("lite0", "pixels"):
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


def from_scratch(data: Data) -> Data:
    """Return the data set of images from which the features of `data` were extracted, to train LeNet on the pixels.

    A seed draws the same images for train, val and test as it draws features of `data`.
    """
    source = EXTRACTIONS[data.values["data.source"]["folder"]].values["data"]
    own = {
        "data.source": source, "data.standardise": False, "model": dict(name="lenet"), "optim.weight_decay": 1e-4,
        "trainer.eval_batch_size": 500,  # small, because the images of 32 stacked models are in memory at once
    }  # fmt: skip
    return data._replace(
        title=f"{data.title}, from scratch",
        representation="pixels",
        values={**data.values, **own},
        rates=-2,
        epochs=40,
        batch=128,
    )


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
# In the order of the preregistration of these data sets.
FROM_SCRATCH = ("dominoes", "colored_fashion", "corrupted_1", "corrupted_5", "corrupted_2", "corrupted_0.5")
DATA |= {f"{name}_pixels": from_scratch(DATA[name]) for name in FROM_SCRATCH}


# Methods

POLY = {"loss": dict(name="poly", alpha=1.0, left="logistic")}
EVERY = {
    **METHODS,
    "undersample": Method("undersampling", section("sampler", "undersample", by=BY, redraw=True)),
    "undersample_longer": Method("undersampling, as many steps", section("sampler", "undersample", by=BY, redraw=True)),
    "resample_class": Method("ReSample by class", section("sampler", "resample", by="class", exponent=1.0)),
    "reweight_class": Method("ReWeight by class", section("weights", "importance", by="class", exponent=1.0)),
    "poly": Method("poly", POLY),
    "polyreweight": Method("poly, ReWeight", {**POLY, **section("weights", "importance", by=BY, exponent=1.0)}),
}
UNPLANNED = ("undersample_longer",)  # added after the results, because an epoch of undersampling has few steps
CROSSED = ("lisa", "irm", "mmd", "coral")  # need two classes × attributes
# Change or refit what lies below the last layer, or refit the last layer on train: on features that stay fixed, each
# equals another method.
NEEDS_FEATURES = ("mmd", "coral", "crt", "reweightcrt", "vanillacrt")
BY_CLASS = ("resample_class", "reweight_class")  # equal ReSample and ReWeight if the classes are the groups


def methods_for(data: Data) -> list[str]:
    """Return the methods that can be trained on a data set, and equal no other method there."""
    left_out = set() if data.crossed else set(CROSSED)
    left_out |= set() if trains_features(data) else set(NEEDS_FEATURES)
    left_out |= set(BY_CLASS) if data.by == "class" else set()
    left_out |= set() if longer_epochs(data) > 1 else {"undersample_longer"}
    return [name for name in EVERY if name not in left_out]


def trains_features(data: Data) -> bool:
    """Return whether a run on the data set trains more than a last layer."""
    return data.representation in ("columns", "pixels")


def has_rate(data: Data, method: Method) -> bool:
    """Return whether the learning rate can change a result: not if a head replaces all that training has learnt."""
    return not has_head(method) or trains_features(data)


def labels_read(data: Data, method: str) -> str:
    """Return which labels besides the classes of train and the rule's labels a method reads: "train", "val" or "none"."""
    if data.by == "class":
        return "none"
    if EVERY[method].overrides.get("head.name") == "dfr":
        return "val"
    flat = flatten(make_run(CONFIG, run_values(data, method, 0), 0, "runs").config.to_dict())
    return "train" if leaderboard.labels_in_train(flat) == "groups" else "none"


MOVES = 2  # most moves of a window


def run_values(data: Data, method: str, exponent: int) -> dict[str, Any]:
    """Return the config values of a run by key, for a learning rate of ten to the power `exponent`."""
    about = EVERY[method]
    shared = {
        "trainer.epochs": data.epochs, "trainer.batch_size": data.batch, "optim.lr": 10.0**exponent,
        "optim.weight_decay": data.values.get("optim.weight_decay", 1e-3),
    }  # fmt: skip
    values = {**shared, **method_values(about, data.by, 0, shared)}
    if about.overrides.get("objective.name") == "irm":  # a tenth of the steps, as 500 are of 5,001
        steps = data.epochs * -(-sum(data.values["data.train_counts"]) // data.batch)
        values["objective.warmup_steps"] = max(1, steps // 10)
    longer = longer_epochs(data) if method == "undersample_longer" else 1
    values["trainer.epochs"] *= longer
    return {
        **data.values, **values, "trainer.eval_every": 2 * longer, "trainer.eval_splits": ("val", "test"), "callbacks.select": "last",
    }  # fmt: skip


def longer_epochs(data: Data) -> int:
    """Return how many epochs of undersampling have as many steps as one epoch of all training examples, rounded down."""
    counts = data.values["data.train_counts"]
    steps = [-(-examples // data.batch) for examples in (sum(counts), len(counts) * min(counts))]
    return steps[0] // steps[1]


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


# Training


def train_windows(
    names: Sequence[str],
    methods: Sequence[str],
    common: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    folder: Path,
) -> None:
    """Train the runs of the current windows of methods on data sets that have no row yet, and keep their rows.

    One call trains the runs of all data sets, so that worker processes start once, and none waits while another data set
    could go on. The first data sets come first.

    Args:
        names: keys of DATA.
        methods: keys of EVERY; on each data set, those that fit it are trained.

    Raises:
        BadInput: a run has the data set, method, learning rate and seed of a row, but other values of `common`.
    """
    rows = kept_results.read(STUDY, folder)
    runs: list[Run] = []
    keys: dict[Path, tuple[str, str, int]] = {}
    for name, method in itertools.product(names, methods):
        data = DATA[name]
        if method not in methods_for(data):
            continue
        of_method = [row for row in rows if row["set"] == name and row["method"] == method]
        kept = {(int(row["exponent"]), int(row["seed"])): row["overrides"] for row in of_method}
        exponents = {e for rule in set(rules_of(data).values()) for e in window(of_method, data, method, rule)}
        for seed, exponent in itertools.product(range(seeds), sorted(exponents)):
            run = make_run(CONFIG, add_own_values(common, run_values(data, method, exponent)), seed, work_dir)
            overrides = run.directory.parent.name
            if kept.get((exponent, seed), overrides) != overrides:  # tables would mix both settings
                given = ", ".join(f"--config.{key}" for key in common) or "changed settings of this experiment"
                raise BadInput(
                    f"{kept_results.file_of(STUDY, folder)} has a row of {method} on {name}, seed {seed}, without {given}; "
                    "type --results=<another folder> for these runs"
                )
            keys[run.directory] = name, method, exponent
            runs.append(run)
    batches = make_batches(runs, jobs, stacked)
    run_and_keep(batches, jobs, STUDY, folder, IDENTITY, partial(to_row, keys=keys), own_columns=("set", "exponent"))

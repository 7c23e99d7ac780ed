"""Compare methods by the protocol of SubpopBench: a random search for each method, three selection rules, then more seeds.

    imbalance reproduce subpopbench --data=colored_digits --methods=erm,groupdro,reweight --steps=1000 --trials=4
    imbalance reproduce subpopbench --data=waterbirds --methods=erm,jtt,dfr --dry_run
    imbalance reproduce subpopbench --data=waterbirds --methods=mixup,focal --attributes=unknown --launcher=slurm --jobs=16

The protocol is that of Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023. Each method is trained
at seed 0 with the default setting and 15 random settings, drawn as in the released code. A selection rule chooses a setting
and a checkpoint. The chosen setting is trained with two more seeds, and the tables show its test metrics. Published values
stand beside them as quotations.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import ceil, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.run_directory import read_logits, read_predictions
from imbalance.errors import BadInput
from imbalance.experiments.colored_digits_methods import KERNELS
from imbalance.experiments.published import find_published
from imbalance.metrics import selection
from imbalance.metrics.intervals import mean
from imbalance.metrics.scores import saved_group_mask, score_metrics
from imbalance.metrics.selection import KEPT, Evaluations, evaluations
from imbalance.report.saved_runs import summary_of
from imbalance.report.tables import markdown
from imbalance.sweep.launch import train_in_study
from imbalance.sweep.runs import check_common_overrides, make_run
from imbalance.sweep.storage import StudyLocation
from imbalance.sweep.study import Point
from imbalance.sweep.sweep import parse_values


class DataSet(NamedTuple):
    """A data set of the protocol.

    config: the config whose network and data are used.
    size: number of training examples.
    steps: number of training steps.
    check: number of steps from one checkpoint to the next.
    changes: config values by key in which the protocol differs from the config.
    quoted: the test metric that the published table shows.
    """

    config: str
    size: int
    steps: int
    check: int
    changes: Mapping[str, Any] = {}
    quoted: str = "worst group"


# Colored digits, which take seconds, have the budget that SubpopBench gives CMNIST. All other rows are those of SubpopBench.
DATA = {
    "colored_digits": DataSet("colored_digits_erm", 576, 5001, 250),
    "waterbirds": DataSet("waterbirds_erm", 4795, 5001, 300, {"data.augment": ()}),
    "celeba": DataSet(
        "celeba_erm", 162770, 30001, 1000, {"data.train_fraction": 1.0, "data.val_fraction": 1.0, "data.test": "full"}
    ),
    "metashift": DataSet("metashift_erm", 2276, 5001, 300),
    "imagenet_bg": DataSet("imagenet_bg_erm", 183006, 10001, 500),
    "nico_pp": DataSet("nico_pp_erm", 62657, 30001, 1000),
    "living17": DataSet("breeds_erm", 39780, 60001, 2000, quoted="average"),
    "mimic_cxr": DataSet("mimic_cxr_erm", 303591, 20001, 1000),
    "chexpert": DataSet("chexpert_erm", 167093, 20001, 1000),
}

# Draw a hyperparameter: (name in SubpopBench, default, random value) -> value.
Draw = Callable[[str, Any, Callable[[np.random.RandomState], Any]], Any]


class Method(NamedTuple):
    """A method of SubpopBench.

    title: name in the published tables.
    overrides: function from a draw and "group" or "class" to config values by key. Without attributes, SubpopBench takes
        each class for a group, so "group" becomes "class".
    needs_attributes: whether the method cannot be used if attributes are unknown, because it would then be ERM, or not the
        published method.
    """

    title: str
    overrides: Callable[[Draw, str], dict[str, Any]]
    needs_attributes: bool = False


def section(path: str, name: str, **values: Any) -> dict[str, Any]:
    """Return the overrides that set a section of the config, such as "loss", to a call of `name` with these values."""
    return {f"{path}.name": name, **{f"{path}.{key}": value for key, value in values.items()}}


def power(low: float, high: float, base: float = 10.0, factor: float = 1.0) -> Callable[[np.random.RandomState], float]:
    """Return a function that draws factor · base^u with u uniform between `low` and `high`."""
    return lambda random: float(factor * base ** random.uniform(low, high))


def irm(draw: Draw, by: str) -> dict[str, Any]:
    penalty = draw("irm_lambda", 100.0, power(-1, 5))
    warmup = draw("irm_penalty_anneal_iters", 500, lambda random: int(10 ** random.uniform(0, 4)))
    return section("objective", "irm", environments="attribute", penalty=penalty, warmup_steps=warmup)


def alignment(name: str, **values: Any) -> Callable[[Draw, str], dict[str, Any]]:
    """Return the function `Method.overrides` of CORAL or MMD; both draw the hyperparameter "mmd_gamma"."""

    def overrides(draw: Draw, by: str) -> dict[str, Any]:
        penalty = draw("mmd_gamma", 1.0, power(-1, 1))
        return section("objective", name, environments="attribute", penalty=penalty, **values)

    return overrides


def lisa(draw: Draw, by: str) -> dict[str, Any]:
    share = draw("LISA_p_sel", 0.5, lambda random: float(random.uniform(0, 1)))
    return section("mix", "lisa", alpha=draw("LISA_alpha", 2.0, power(-1, 1)), same_label=share)


def jtt(draw: Draw, by: str) -> dict[str, Any]:
    return section("weights", "just_train_twice", upweight=draw("jtt_lambda", 10.0, power(0, 2.5)))


def lff(draw: Draw, by: str) -> dict[str, Any]:
    amplification = draw("LfF_q", 0.7, lambda random: float(random.uniform(0.05, 0.95)))
    batch_size = draw("batch_size", 54, lambda random: int(2 ** random.uniform(5, 5.75)))
    return section("objective", "lff", amplification=amplification, decay=0.0) | {"trainer.batch_size": batch_size}


def ldam(draw: Draw, by: str) -> dict[str, Any]:
    margin = draw("max_m", 0.5, power(-1, -0.1))
    return section("loss", "ldam", max_margin=margin, scale=draw("scale", 30.0, lambda r: float(r.choice([10, 30]))))


def cb_loss(draw: Draw, by: str) -> dict[str, Any]:
    beta = draw("beta", 0.9999, lambda random: float(1 - 10 ** random.uniform(-5, -2)))
    return section("weights", "effective_number", by=by, beta=beta)


def group_dro(draw: Draw, by: str) -> dict[str, Any]:
    step_size = draw("groupdro_eta", 0.01, power(-3, -1))
    return section("objective", "group_dro", step_size=step_size, size_adjustment=0.0, adjust_absent=False)


PENALTIES = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # of which DFR selects one on val
METHODS = {
    "erm": Method("ERM", lambda draw, by: {}),
    "mixup": Method("Mixup", lambda draw, by: section("mix", "mixup", alpha=draw("mixup_alpha", 0.2, power(-1, 1)))),
    "groupdro": Method("GroupDRO", group_dro, True),
    "cvardro": Method("CVaRDRO", lambda draw, by: section("objective", "cvar", level=draw("joint_dro_alpha", 0.1, power(-2, 0)))),
    "jtt": Method("JTT", jtt),
    "lff": Method("LfF", lff),
    "lisa": Method("LISA", lisa, True),
    "resample": Method("ReSample", lambda draw, by: section("sampler", "resample", by=by, exponent=1.0)),
    "reweight": Method("ReWeight", lambda draw, by: section("weights", "importance", by=by, exponent=1.0)),
    "sqrtreweight": Method("SqrtReWeight", lambda draw, by: section("weights", "square_root", by=by)),
    "cbloss": Method("CBLoss", cb_loss),
    "focal": Method("Focal", lambda draw, by: section("loss", "focal", gamma=draw("gamma", 1.0, power(0, 1, factor=0.5)))),
    "ldam": Method("LDAM", ldam),
    "bsoftmax": Method("BSoftmax", lambda draw, by: section("loss", "balanced_softmax")),
    "irm": Method("IRM", irm, True),
    "mmd": Method("MMD", alignment("mmd", gammas=KERNELS), True),
    "coral": Method("CORAL", alignment("coral"), True),
    "crt": Method("CRT", lambda draw, by: section("head", "crt", by=by, momentum=0.9)),
    "dfr": Method("DFR", lambda draw, by: section("head", "dfr", inverse_penalties=PENALTIES, fits=20), True),
}  # fmt: skip


# The metrics of the tables, which are those of the tables of SubpopBench.
COLUMNS = (
    "worst group", "average", "adjusted", "balanced", "worst precision", "precision", "worst F1", "F1", "AUROC", "ECE",
)  # fmt: skip

# A rule chooses a setting and a checkpoint by the largest value on val or test: (name, split, value at each checkpoint).
RULES: tuple[tuple[str, str, Callable[[Evaluations], np.ndarray]], ...] = (
    ("val worst group", "val", selection.worst),
    ("val worst class", "val", selection.worst_class),
    ("test worst group (oracle)", "test", selection.worst),
)
QUOTED_RULE = {"known": "val worst group", "unknown": "val worst class"}  # of the published tables, by --attributes


def seed_hash(*values: Any) -> int:
    """Return the hash by which SubpopBench seeds random values, so that a hyperparameter has the same value in all methods."""
    return int(hashlib.md5(str(values).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def point(data: str, method: str, setting: int, seed: int, attributes: str, steps: int) -> Point:
    """Return the config, the overrides and the seed of a run, for the Optuna study.

    Args:
        data, method: keys of DATA and METHODS.
        setting: number of the setting; 0 for the default values, and a number above 0 for random values.
        attributes: "known" or "unknown" in training.
        steps: number of training steps; 0 for that of the protocol. It is rounded to whole epochs.
    """

    def draw(name: str, default: Any, random_value: Callable[[np.random.RandomState], Any]) -> Any:
        return random_value(np.random.RandomState(seed_hash(seed_hash(setting), name))) if setting else default

    data_set = DATA[data]
    values = {
        "optim.lr": draw("lr", 1e-3, power(-4, -2)),
        "optim.weight_decay": draw("weight_decay", 1e-4, power(-6, -3)),
        "trainer.batch_size": draw("batch_size", 108, lambda random: int(2 ** random.uniform(6, 6.75))),
        **METHODS[method].overrides(draw, "group" if attributes == "known" else "class"),
    }
    steps_per_epoch = ceil(data_set.size / values["trainer.batch_size"])
    budget = steps or data_set.steps
    epochs = max(1, round(budget / steps_per_epoch))
    every = max(1, round(epochs * data_set.check / data_set.steps))
    if method == "jtt":  # the first run takes a share of the steps
        share = draw("first_stage_step_frac", 0.5, lambda random: float(random.uniform(0.2, 0.8)))
        values["weights.first_epochs"] = max(1, round(share * epochs))
        epochs = max(1, epochs - values["weights.first_epochs"])
    if method == "crt":  # the second stage has the hyperparameters and the steps of the first
        values |= {"head.epochs": epochs, "head.batch_size": values["trainer.batch_size"],
                   "head.lr": values["optim.lr"], "head.weight_decay": values["optim.weight_decay"]}  # fmt: skip
    # A head is fitted to the last epoch, which is then the only checkpoint.
    checkpoints = {"callbacks.select": "last"} if has_head(method) else KEPT
    values |= {"trainer.epochs": epochs, "trainer.eval_every": min(every, epochs), **checkpoints}
    return {"config": data_set.config, **data_set.changes, **values, "seed": seed}


def has_head(method: str) -> bool:
    """Return whether the method trains a new last layer once the network has been trained."""
    return method in ("crt", "dfr")


class Checkpoints(NamedTuple):
    """The predictions of a run on val and test at each checkpoint, and the (N, K) logits on test at each checkpoint."""

    val: Evaluations
    test: Evaluations
    logits: Sequence[np.ndarray]


def read_checkpoints(directory: Path, final_only: bool) -> Checkpoints | None:
    """Return the checkpoints of a run; None if it diverged.

    Args:
        final_only: whether only the final predictions count, because a last layer was fitted after training.
    """
    if summary_of(directory)["status"] != "done":
        return None
    if not final_only:
        logits = list(read_logits(directory, "test").values())
        return Checkpoints(evaluations(directory, "val")[1], evaluations(directory, "test")[1], logits)
    saved = [read_predictions(directory, split) for split in ("val", "test")]
    val, test = (
        Evaluations((s["logits"].argmax(1) == s["targets"])[None], s["targets"], saved_group_mask(s)) for s in saved
    )
    return Checkpoints(val, test, [saved[1]["logits"]])


def test_metrics(logits: np.ndarray, test: Evaluations) -> dict[str, float]:
    """Return the metrics in COLUMNS by name, as fractions.

    `adjusted` is the mean accuracy of the groups, without weights. `worst precision` and `worst F1` are of the worst class.

    Args:
        logits: (N, K) logits on test.
        test: targets and groups of test.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predictions, labels = logits.argmax(1), np.unique(test.targets)
    zero: Any = 0  # as in SubpopBench; the type stubs of scikit-learn allow only texts
    precision, recall, f1, _ = precision_recall_fscore_support(
        test.targets, predictions, labels=labels, zero_division=zero
    )
    right = (predictions == test.targets)[None]
    groups = selection.group_accuracies(Evaluations(right, test.targets, test.group_mask))[0]
    scores = score_metrics(logits, test.targets, [str(label) for label in range(logits.shape[1])])
    values = (
        groups.min(), right.mean(), groups.mean(), np.mean(recall), np.min(precision), np.mean(precision),
        np.min(f1), np.mean(f1), scores["auroc"], scores["ece"],
    )  # fmt: skip
    return dict(zip(COLUMNS, map(float, values), strict=True))


def subpopbench(
    *,
    data: Sequence[str],
    methods: Sequence[str],
    attributes: str,
    trials: int,
    steps: int,
    dry_run: bool,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> None:
    """Train the runs of the protocol that are not done yet, and print a table for every data set and selection rule.

    Args:
        data: keys of DATA.
        methods: keys of METHODS; if none, all that can be trained with these `attributes`.
        attributes: "known" or "unknown" in training; they are always known in val and test.
        trials: number of settings for each method, the default setting included.
        steps: number of training steps of every run; 0 for those of the protocol.
        dry_run: print the number of runs and of steps, train nothing.
        overrides: config values by key, for all runs.
        seeds: number of seeds for each chosen setting; seeds count from 0.
        stacked: largest number of runs that one worker trains as one stacked model.
        study: name of the Optuna study that holds the runs; "subpopbench" if None.
    """
    usable = [name for name, method in METHODS.items() if attributes == "known" or not method.needs_attributes]
    check_names("--data", data, list(DATA))
    for name in methods:
        if name in METHODS and name not in usable:
            raise BadInput(
                f"--methods={name}: the method reads the attributes of train, which --attributes=unknown withholds; "
                f"leave {name} out, or type --attributes=known"
            )
    check_names("--methods", methods, usable)
    methods, common = methods or usable, check_common_overrides(overrides)

    def point_of(name: str, method: str, setting: int, seed: int) -> Point:
        return parse_values({**point(name, method, setting, seed, attributes, steps), **common})

    searched = {
        (name, method, setting): point_of(name, method, setting, 0)
        for name in data
        for method in methods
        for setting in range(trials)
    }
    for run in searched.values():  # refuse what is wrong before anything is trained
        make_run(run["config"], {k: v for k, v in run.items() if k not in ("config", "seed")}, 0, work_dir)
    if dry_run:
        print(plan(searched, data, methods, trials, seeds, work_dir, jobs), end="")
        return
    location = StudyLocation(study or "subpopbench", work_dir, storage)

    def train(points: Mapping[Any, Point]) -> dict[Any, Checkpoints | None]:
        directories = train_in_study(location, list(points.values()), jobs, stacked, launcher, slurm)
        return {key: read_checkpoints(path, has_head(key[1])) for key, path in zip(points, directories)}

    searched_runs = train(searched)
    chosen = {
        (name, method, rule): best_setting({s: searched_runs[name, method, s] for s in range(trials)}, split, value)
        for name in data
        for method in methods
        for rule, split, value in RULES
    }
    wanted = {
        (name, method, setting, seed): point_of(name, method, setting, seed)
        for (name, method, _), setting in chosen.items()
        if setting is not None
        for seed in range(seeds)
    }
    results = train(wanted)
    print(f"Test, %: mean ± 95 % t-interval over seeds; attributes of train {attributes}; {trials} settings a method.")
    print("A quoted value, with the ± that it was published with, is from runs of other authors.")
    for name in data:
        for rule, split, value in RULES:
            rows, heads = [], ["method", "setting", *COLUMNS, "n"]
            quotations = [quotation(name, attributes, METHODS[method].title) for method in methods]
            quoted = rule == QUOTED_RULE[attributes] and any(quotations)
            for method, quoted_value in zip(methods, quotations):
                setting = chosen[name, method, rule]
                runs = [] if setting is None else [results[name, method, setting, seed] for seed in range(seeds)]
                metrics = [None if run is None else at_best(run, split, value) for run in runs]
                cells = [METHODS[method].title, "all diverged" if setting is None else setting, *summarise(metrics)]
                rows.append([*cells, quoted_value] if quoted else cells)
            heads += [f"{DATA[name].quoted}, published (quoted)"] * quoted
            print(f"\n{name}, selected by {rule}\n\n{markdown(heads, rows)}", end="")


def check_names(flag: str, names: Sequence[str], valid: Sequence[str]) -> None:
    """Raise `BadInput` if one of `names`, the value of a flag, is not valid or is repeated."""
    for i, name in enumerate(names):
        if name not in valid:
            raise BadInput(f"{flag}: {name!r} given; valid: {', '.join(valid)}")
        if name in names[:i]:
            raise BadInput(f"{flag}: {name!r} given twice; type it once")


def best_setting(
    runs: Mapping[int, Checkpoints | None], split: str, value: Callable[[Evaluations], np.ndarray]
) -> int | None:
    """Return the setting whose best checkpoint has the largest value on a split; None if every run diverged.

    Of several equally good settings, the first is returned.
    """
    scores = {setting: value(getattr(run, split)).max() for setting, run in runs.items() if run is not None}
    return max(scores, key=scores.__getitem__, default=None)


def at_best(run: Checkpoints, split: str, value: Callable[[Evaluations], np.ndarray]) -> dict[str, float]:
    """Return the test metrics at the checkpoint with the largest value on a split."""
    return test_metrics(run.logits[int(value(getattr(run, split)).argmax())], run.test)


def summarise(metrics: Sequence[Mapping[str, float] | None]) -> list[Any]:
    """Return the mean of each metric of COLUMNS over the seeds as text, and the number of seeds that did not diverge.

    Args:
        metrics: the metrics at each seed; None for a seed that diverged.
    """
    means = [mean([nan if m is None else m[column] for m in metrics], 0, 1) for column in COLUMNS]
    return [*(m.percent() for m in means), sum(m is not None for m in metrics)]


def quotation(data: str, attributes: str, title: str) -> str:
    """Return the published value of a method on a data set as text; "" if published.csv has none."""
    value = find_published(f"subpopbench {data} {attributes}", title)
    return "" if value is None else f"{value.value:g} ± {value.standard_deviation:g}"


def plan(
    searched: Mapping[tuple[str, str, int], Point],
    data: Sequence[str],
    methods: Sequence[str],
    trials: int,
    seeds: int,
    work_dir: str,
    jobs: int,
) -> str:
    """Return a table of the runs, steps and hours that the protocol takes, by data set and method.

    The rules can choose up to three settings, each of which is trained with the seeds after 0. The time of a step is the
    mean over the finished runs of the data set under `work_dir`, set-up and evaluation included.

    Args:
        searched: the points of the search, by data set, method and setting.
        jobs: number of workers, by which the hours are divided.
    """
    rows, unknown = [], []
    for name in data:
        summaries = [
            summary_of(path.parent) for path in Path(work_dir).glob(f"{DATA[name].config}/*/seed=*/summary.json")
        ]
        done = [s for s in summaries if s["status"] == "done" and s.get("step")]
        step = sum(s["seconds"] for s in done) / sum(s["step"] for s in done) if done else nan
        unknown += [] if done else [name]
        for method in methods:
            most = trials + min(len(RULES), trials) * (seeds - 1)
            points = [searched[name, method, setting] for setting in range(trials)]
            epochs = [
                (p["trainer.epochs"] + p.get("weights.first_epochs", 0))
                * ceil(DATA[name].size / p["trainer.batch_size"])
                for p in points
            ]
            steps = round(np.mean(epochs) * most)
            hours = f"{steps * step / 3600 / jobs:.2g}" if done else "unknown"
            rows.append([name, METHODS[method].title, trials, most, steps, hours])
    text = markdown(
        ["data", "method", "settings", "runs, at most", "steps, at most", f"hours with {jobs} workers"], rows
    )
    if unknown:
        text += (
            f"\nNo finished run under {work_dir} tells the time of a step on {', '.join(unknown)}. To measure it, type the "
            "command with --methods=erm --trials=1 --seeds=1 --steps=200 in place of --dry_run.\n"
        )
    return text

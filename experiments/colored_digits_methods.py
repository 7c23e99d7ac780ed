"""Does knowing the groups help the worst of them? Methods on colored digits, ten seeds, in minutes.

Each method is a config as it stands, or one with the overrides of METHODS. The learning rate of the first seven is the
best of LEARNING_RATES by the val worst-group accuracy at the selected epoch, over three seeds that the table does not
use: the same budget for all. The configs and METHODS say what the others were tuned on, at seed 0.

    imbalance reproduce colored_digits_methods             # the table
    imbalance reproduce colored_digits_methods --tune      # what the learning rates in the configs come from
    imbalance reproduce colored_digits_methods --untuned   # more methods, for which nothing was tuned
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imbalance.metrics.intervals import mean
from imbalance.report.saved_runs import Summary, evaluations_of, metric
from imbalance.report.tables import markdown
from imbalance.sweep.compare import comparison
from imbalance.sweep.runs import run_all
from imbalance.sweep.variants import Variant

SEEDS, TUNING_SEEDS = range(10), range(100, 103)
LEARNING_RATES = (0.01, 0.03, 0.1)
KERNELS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # DomainBed's
LWS = dict(name="lws", by="group", epochs=20, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005)
EIIL = dict(name="eiil", first_epochs=2, ascent_steps=1000, ascent_lr=0.01)
DEFERRED = dict(name="deferred", by="class", beta=0.9999, start_epoch=80)


def of_erm(lr: float = 0.1, **sections: Mapping[str, Any]) -> Variant:
    """Return the config of ERM with another learning rate and other sections."""
    return Variant("colored_digits_erm", {**sections, "optim.lr": lr})


# What the table calls it, what is run, and what it reads of the groups in training. All select by val's groups.
METHODS = (
    ("ERM", Variant("colored_digits_erm"), "none"),
    ("importance-weighted cross-entropy", Variant("colored_digits_ce"), "weights"),
    ("importance-weighted poly", Variant("colored_digits_poly"), "weights"),
    ("group DRO", Variant("colored_digits_dro"), "objective"),
    ("undersampling", Variant("colored_digits_undersampled"), "sampler"),
    ("DFR", Variant("colored_digits_dfr"), "none; val's fit the head"),
    ("JTT", Variant("colored_digits_jtt"), "none"),
    ("DPE", Variant("colored_digits_dpe"), "none; val's fit the head"),
    ("IRM", Variant("colored_digits_irm"), "objective"),
    # The penalties have the best val worst group of 0.1, 1 and 10, and for MMD of 0.01, 0.1, 0.3, 1 and 10.
    ("CORAL", of_erm(objective=dict(name="coral", environments="attribute", penalty=10.0)), "objective"),
    ("MMD", of_erm(objective=dict(name="mmd", environments="attribute", penalty=0.01, gammas=KERNELS)), "objective"),
    ("EIIL, then group DRO", Variant("colored_digits_eiil"), "none"),
    ("EIIL, then IRM", Variant("colored_digits_irm", {"groups": EIIL}), "none"),
    ("XRM, then group DRO", Variant("colored_digits_xrm"), "none, in val neither"),
    ("LfF", Variant("colored_digits_lff"), "none"),
    ("AFR", Variant("colored_digits_afr"), "none"),
    ("SELF", Variant("colored_digits_self"), "none"),
    # The head's rates 0.03, 0.1 and 0.3 come to the same.
    ("LWS", of_erm(lr=0.03, head=LWS), "none"),
    ("mixup", Variant("colored_digits_mixup"), "none"),
    # The rate is the best of 0.01, 0.03 and 0.1; for Remix, one of the two best.
    ("mixup-DRW", of_erm(mix=dict(name="mixup", alpha=1.0), weights=DEFERRED), "none"),
    ("Remix", of_erm(lr=0.03, mix=dict(name="remix", alpha=1.0, kappa=2.0, tau=0.5)), "none"),
)
# The methods of --untuned, by what their table calls them; the first is what the others are compared with.
VS_GROUP = dict(name="vs_group", gamma=0.4, tau=0.0)
FOCAL_BY_CLASS = dict(beta=0.999, gamma=0.5)
UNTUNED = {
    "ERM": Variant("colored_digits_erm"),
    "importance-weighted cross-entropy": Variant("colored_digits_ce"),
    "importance-weighted poly": Variant("colored_digits_poly"),
    "VS": Variant("colored_digits_vs"),
    "VS by group": of_erm(lr=0.03, loss=dict(name="vs_group", gamma=0.3, tau=1.0)),
    "CDT": of_erm(lr=0.03, loss=dict(name="cdt", gamma=0.3)),
    "LDAM-DRW": Variant("colored_digits_ldam_drw"),
    "logit-adjusted loss": of_erm(lr=0.03, loss=dict(name="logit_adjusted", tau=1.0)),
    "balanced softmax": of_erm(lr=0.03, loss=dict(name="balanced_softmax")),
    "focal loss": of_erm(lr=0.03, loss=dict(name="focal", gamma=2.0)),
    "class-balanced loss": of_erm(lr=0.03, loss=dict(name="class_balanced", **FOCAL_BY_CLASS)),
    "class-balanced loss, sigmoid": of_erm(lr=0.03, loss=dict(name="class_balanced_sigmoid", **FOCAL_BY_CLASS)),
    "CVaR DRO": Variant("colored_digits_cvar"),
    "VS by group under group DRO": Variant("colored_digits_dro", {"loss": VS_GROUP, "optim.lr": 0.03}),
    "poly under group DRO": Variant(
        "colored_digits_dro", {"loss": dict(name="poly", alpha=2.0, left="logistic"), "optim.lr": 0.03}
    ),
    "LISA": Variant("colored_digits_lisa"),
    "cRT": Variant("colored_digits_crt"),
    "post-hoc logit adjustment": of_erm(lr=0.03, head=dict(name="logit_adjusted", tau=1.0)),
    "oversampling": of_erm(lr=0.03, sampler=dict(name="oversample", by="group")),
    "resampling": of_erm(lr=0.03, sampler=dict(name="resample", by="group", exponent=1.0)),
    "annealed undersampling": of_erm(
        lr=0.03, sampler=dict(name="annealed_linear", by="group"), weights=dict(name="residual")
    ),
    "undersampling": Variant("colored_digits_undersampled"),
}
WORST = "worst_group_accuracy"


def colored_digits_methods(*, tune: bool, untuned: bool, work_dir: str, jobs: int, at_once: int) -> None:
    """Print the table, or where the configs' learning rates come from (`tune`), or the table of UNTUNED (`untuned`)."""
    (learning_rates if tune else untuned_table if untuned else table)(work_dir, jobs, at_once)


def table(work_dir: str, jobs: int, at_once: int) -> None:
    """Worst-group test accuracy of every method, at the epoch that val selects and at the last."""
    # Test is looked at beside val, so that the last epoch's is known too; nothing is chosen by it.
    overrides = {"trainer.eval_splits": ("val", "test")}
    runs = [variant.run(overrides, seed, work_dir) for _, variant, _ in METHODS for seed in SEEDS]
    heads = [run.config.head.name for run in runs[:: len(SEEDS)]]
    summaries = iter(run_all(runs, jobs, at_once))
    rows = []
    for (title, _, reads), head in zip(METHODS, heads):
        of_method = [next(summaries) for _ in SEEDS]
        worst, average = (
            mean([metric(summary, f"test/{key}") for summary in of_method], 0, 1)
            for key in (WORST, "adjusted_accuracy")
        )
        # A head is put on the selected weights only.
        last = "–" if head != "none" else mean([at_the_end(s) for s in of_method], 0, 1).percent()
        rows.append([title, reads, worst.percent(), last, average.percent(), worst.n])
    columns = [
        "method",
        "groups read in training",
        "worst group, selected epoch",
        "last epoch",
        "average, selected epoch",
    ]
    print(markdown([*columns, "n"], rows), end="")


def learning_rates(work_dir: str, jobs: int, at_once: int) -> None:
    """Val worst-group accuracy at the selected epoch, by method and learning rate."""
    runs = [
        variant.run({"optim.lr": lr}, seed, work_dir)
        for _, variant, _ in METHODS
        for lr in LEARNING_RATES
        for seed in TUNING_SEEDS
    ]
    summaries = iter(run_all(runs, jobs, at_once))
    rows = []
    for title, _, _ in METHODS:
        means = [mean([best_on_val(next(summaries)) for _ in TUNING_SEEDS]) for _ in LEARNING_RATES]
        rows.append([title, *(f"{100 * m.value:.1f}" for m in means)])
    print(markdown(["method", *(f"lr {lr:g}" for lr in LEARNING_RATES)], rows), end="")


def untuned_table(work_dir: str, jobs: int, at_once: int) -> None:
    """Print the worst-group test accuracy of the methods of UNTUNED, and how far each is from ERM."""
    runs = [variant.run({}, seed, work_dir) for variant in UNTUNED.values() for seed in SEEDS]
    summaries = iter(run_all(runs, jobs, at_once))
    worst = {title: {seed: metric(next(summaries), f"test/{WORST}") for seed in SEEDS} for title in UNTUNED}
    print(comparison(worst, f"test/{WORST}", f"test/{WORST}, %"), end="")


def best_on_val(summary: Summary) -> float:
    """As training saw it: a head that is fitted on val says nothing about val."""
    return max(row[f"val/{WORST}"] for row in evaluations_of(Path(summary["run_directory"])))


def at_the_end(summary: Summary) -> float:
    return evaluations_of(Path(summary["run_directory"]))[-1][f"test/{WORST}"]

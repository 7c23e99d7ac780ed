"""Compare methods on colored digits by worst-group accuracy, and list the group labels that each method reads in training.

    imbalance reproduce colored_digits_methods             # the table
    imbalance reproduce colored_digits_methods --tune      # the val results by which learning rates were chosen
    imbalance reproduce colored_digits_methods --untuned   # more methods, for which nothing was tuned

Each method is a config with the overrides in METHODS, trained over ten seeds. The first seven methods have the same tuning
budget: their learning rate is the best of LEARNING_RATES by val worst-group accuracy at the selected epoch, over three seeds
that the table does not use. The other methods have other tuning budgets, see docs/results.md. All runs together take minutes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imbalance.metrics.intervals import mean
from imbalance.report.saved_runs import Summary, evaluations_of, metric
from imbalance.report.tables import markdown
from imbalance.sweep.compare import comparison_table
from imbalance.sweep.runs import run_all
from imbalance.sweep.variants import Variant

SEEDS, TUNING_SEEDS = range(10), range(100, 103)
LEARNING_RATES = (0.01, 0.03, 0.1)
KERNELS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # DomainBed's
LWS = dict(name="lws", by="group", epochs=20, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0.0005)
EIIL = dict(name="eiil", first_epochs=2, ascent_steps=1000, ascent_lr=0.01)
DEFERRED = dict(name="deferred", by="class", beta=0.9999, start_epoch=80)


def erm_with(lr: float = 0.1, **sections: Mapping[str, Any]) -> Variant:
    """Return a variant of the config of ERM, with the learning rate `lr` and new sections.

    Args:
        sections: the new sections by name, such as `loss`.
    """
    return Variant("colored_digits_erm", {**sections, "optim.lr": lr})


def ranking(name: str, lr: float = 0.1, **values: Any) -> Variant:
    """Return a variant of the config of the AUC margin loss, with the learning rate `lr` and another ranking objective.

    Args:
        name: the ranking objective.
        values: arguments of the objective, except the classes to rank and the share of the ranking loss.
    """
    return Variant(
        "colored_digits_aucm", {"objective": dict(name=name, positives=(1,), share=1.0, **values), "optim.lr": lr}
    )


# For each method: the title, the config, and the section of the config that reads group labels in training. All methods select
# the epoch by val's groups.
METHODS = (
    ("ERM", Variant("colored_digits_erm"), "none"),
    ("importance-weighted cross-entropy", Variant("colored_digits_ce"), "weights"),
    ("importance-weighted poly", Variant("colored_digits_poly"), "weights"),
    ("group DRO", Variant("colored_digits_dro"), "objective"),
    ("undersampling", Variant("colored_digits_undersampled"), "sampler"),
    ("DFR", Variant("colored_digits_dfr"), "none; val's fit the head"),
    ("JTT", Variant("colored_digits_jtt"), "none"),
    ("PDE", Variant("colored_digits_pde"), "sampler"),
    ("DPE", Variant("colored_digits_dpe"), "none; val's fit the head"),
    ("IRM", Variant("colored_digits_irm"), "objective"),
    ("V-REx", Variant("colored_digits_vrex"), "objective"),
    # The penalties are the best by val worst-group accuracy: for CORAL of 0.1, 1 and 10, for MMD of 0.01, 0.1, 0.3, 1 and 10.
    ("CORAL", erm_with(objective=dict(name="coral", environments="attribute", penalty=10.0)), "objective"),
    ("MMD", erm_with(objective=dict(name="mmd", environments="attribute", penalty=0.01, gammas=KERNELS)), "objective"),
    ("AUC margin loss", Variant("colored_digits_aucm"), "none"),
    # The learning rates are the best of 0.01, 0.03 and 0.1 by val worst-group accuracy, over the three tuning seeds.
    ("partial AUC loss", ranking("partial_auc", lr=0.01, margin=1.0, estimator="kl", level=1.0, step=0.9), "none"),
    ("Smooth-AP", ranking("smooth_ap", temperature=0.01), "none"),
    ("SOAP", ranking("soap", lr=0.01, margin=1.0, decay=0.1), "none"),
    ("EIIL, then group DRO", Variant("colored_digits_eiil"), "none"),
    # The penalty grows with the square of the logits of an environment that is mostly wrong, and EIIL infers such an
    # environment. Without clipping, two of ten seeds diverge.
    ("EIIL, then IRM", Variant("colored_digits_irm", {"groups": EIIL, "trainer.clip_norm": 1.0}), "none"),
    ("GEORGE, then group DRO", Variant("colored_digits_george"), "none"),
    ("SPARE", Variant("colored_digits_spare"), "none"),
    ("XRM, then group DRO", Variant("colored_digits_xrm"), "none, in val neither"),
    ("LfF", Variant("colored_digits_lff"), "none"),
    ("uLA", Variant("colored_digits_ula"), "none, in val neither"),
    ("LC", Variant("colored_digits_lc"), "none"),
    ("AFR", Variant("colored_digits_afr"), "none"),
    ("SELF", Variant("colored_digits_self"), "none"),
    # The learning rates 0.03, 0.1 and 0.3 of the head give the same result.
    ("LWS", erm_with(lr=0.03, head=LWS), "none"),
    ("mixup", Variant("colored_digits_mixup"), "none"),
    # The learning rate is the best of 0.01, 0.03 and 0.1; for Remix, one of the two best.
    ("mixup-DRW", erm_with(mix=dict(name="mixup", alpha=1.0), weights=DEFERRED), "none"),
    ("Remix", erm_with(lr=0.03, mix=dict(name="remix", alpha=1.0, kappa=2.0, tau=0.5)), "none"),
)
WORST = "worst_group_accuracy"

# The methods of --untuned, by title. Each later method is compared with ERM.
VS_GROUP = dict(name="vs_group", gamma=0.4, tau=0.0)
FOCAL_BY_CLASS = dict(beta=0.999, gamma=0.5)
UNTUNED = {
    "ERM": Variant("colored_digits_erm"),
    "importance-weighted cross-entropy": Variant("colored_digits_ce"),
    "importance-weighted poly": Variant("colored_digits_poly"),
    "VS": Variant("colored_digits_vs"),
    "VS by group": erm_with(lr=0.03, loss=dict(name="vs_group", gamma=0.3, tau=1.0)),
    "CDT": erm_with(lr=0.03, loss=dict(name="cdt", gamma=0.3)),
    "LDAM-DRW": Variant("colored_digits_ldam_drw"),
    "logit-adjusted loss": erm_with(lr=0.03, loss=dict(name="logit_adjusted", tau=1.0)),
    "balanced softmax": erm_with(lr=0.03, loss=dict(name="balanced_softmax")),
    "focal loss": erm_with(lr=0.03, loss=dict(name="focal", gamma=2.0)),
    "class-balanced loss": erm_with(lr=0.03, loss=dict(name="class_balanced", **FOCAL_BY_CLASS)),
    "class-balanced loss, sigmoid": erm_with(lr=0.03, loss=dict(name="class_balanced_sigmoid", **FOCAL_BY_CLASS)),
    "CVaR DRO": Variant("colored_digits_cvar"),
    "VS by group under group DRO": Variant("colored_digits_dro", {"loss": VS_GROUP, "optim.lr": 0.03}),
    "poly under group DRO": Variant(
        "colored_digits_dro", {"loss": dict(name="poly", alpha=2.0, left="logistic"), "optim.lr": 0.03}
    ),
    "LISA": Variant("colored_digits_lisa"),
    "cRT": Variant("colored_digits_crt"),
    "post-hoc logit adjustment": erm_with(lr=0.03, head=dict(name="logit_adjusted", tau=1.0)),
    "oversampling": erm_with(lr=0.03, sampler=dict(name="oversample", by="group")),
    "resampling": erm_with(lr=0.03, sampler=dict(name="resample", by="group", exponent=1.0)),
    "annealed undersampling": erm_with(
        lr=0.03, sampler=dict(name="annealed_linear", by="group"), weights=dict(name="residual")
    ),
    "undersampling": Variant("colored_digits_undersampled"),
}


def colored_digits_methods(*, tune: bool, untuned: bool, work_dir: str, jobs: int, stacked: int) -> None:
    """Train the runs that are not done yet, and print the table of METHODS.

    Args:
        tune: print the val results at each learning rate instead.
        untuned: print the table of UNTUNED instead.
        stacked: largest number of runs that one process trains as one stacked model.
    """
    (print_tuning if tune else print_untuned if untuned else print_methods)(work_dir, jobs, stacked)


def print_methods(work_dir: str, jobs: int, stacked: int) -> None:
    """Print the worst-group test accuracy of every method, at the selected epoch and at the last epoch."""
    # The table shows test accuracy at the last epoch too, so evaluate test during training. Nothing is selected by test.
    overrides = {"trainer.eval_splits": ("val", "test")}
    runs = [variant.run(overrides, seed, work_dir) for _, variant, _ in METHODS for seed in SEEDS]
    heads = [run.config.head.name for run in runs[:: len(SEEDS)]]
    summaries = iter(run_all(runs, jobs, stacked))
    rows = []
    for (title, _, reads), head in zip(METHODS, heads):
        seeds = [next(summaries) for _ in SEEDS]
        worst, average = (
            mean([metric(summary, f"test/{key}") for summary in seeds], 0, 1) for key in (WORST, "adjusted_accuracy")
        )
        # A head is fitted at the selected epoch only, so a method with a head has no result at the last epoch.
        last = "–" if head != "none" else mean([last_test(s) for s in seeds], 0, 1).percent()
        rows.append([title, reads, worst.percent(), last, average.percent(), worst.n])
    columns = [
        "method",
        "groups read in training",
        "worst group, selected epoch",
        "last epoch",
        "average, selected epoch",
    ]
    print(markdown([*columns, "n"], rows), end="")


def print_tuning(work_dir: str, jobs: int, stacked: int) -> None:
    """Print the val worst-group accuracy at the selected epoch, by method and learning rate."""
    runs = [
        variant.run({"optim.lr": lr}, seed, work_dir)
        for _, variant, _ in METHODS
        for lr in LEARNING_RATES
        for seed in TUNING_SEEDS
    ]
    summaries = iter(run_all(runs, jobs, stacked))
    rows = []
    for title, _, _ in METHODS:
        means = [mean([best_val(next(summaries)) for _ in TUNING_SEEDS]) for _ in LEARNING_RATES]
        rows.append([title, *(f"{100 * m.value:.1f}" for m in means)])
    print(markdown(["method", *(f"lr {lr:g}" for lr in LEARNING_RATES)], rows), end="")


def print_untuned(work_dir: str, jobs: int, stacked: int) -> None:
    """Print the worst-group test accuracy of each method in UNTUNED, and its difference from that of ERM."""
    runs = [variant.run({}, seed, work_dir) for variant in UNTUNED.values() for seed in SEEDS]
    summaries = iter(run_all(runs, jobs, stacked))
    worst = {title: {seed: metric(next(summaries), f"test/{WORST}") for seed in SEEDS} for title in UNTUNED}
    print(comparison_table(worst, f"test/{WORST}", f"test/{WORST}"), end="")


def best_val(summary: Summary) -> float:
    """Return the best val worst-group accuracy during training, that is before a head is fitted."""
    return max(row[f"val/{WORST}"] for row in evaluations_of(Path(summary["run_directory"])))


def last_test(summary: Summary) -> float:
    """Return the test worst-group accuracy at the last epoch."""
    return evaluations_of(Path(summary["run_directory"]))[-1][f"test/{WORST}"]

"""Compare methods by their worst group on colored digits, by the labels that they read in training.

    imbalance reproduce colored_digits_methods          # the table
    imbalance reproduce colored_digits_methods --tune   # the tuning of the learning rates in the configs

Each method is its config without overrides, over ten seeds. The first seven methods have the same tuning budget: their
learning rate is the best of LEARNING_RATES by val worst-group accuracy at the selected epoch, over three seeds that the
table does not use. The other configs say how they were tuned, at seed 0. All runs take minutes.
"""

from pathlib import Path

from imbalance.config.experiment import validate
from imbalance.config.load import config_file, load
from imbalance.metrics.intervals import mean
from imbalance.report.saved_runs import Summary, evaluations_of, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import make_run, run_all

SEEDS, TUNING_SEEDS = range(10), range(100, 103)
LEARNING_RATES = (0.01, 0.03, 0.1)
# The title and the config of each method, and the part that reads the groups in training. All select by val's groups.
METHODS = (
    ("ERM", "colored_digits_erm", "none"),
    ("importance-weighted cross-entropy", "colored_digits_ce", "weights"),
    ("importance-weighted poly", "colored_digits_poly", "weights"),
    ("group DRO", "colored_digits_dro", "objective"),
    ("undersampling", "colored_digits_undersampled", "sampler"),
    ("DFR", "colored_digits_dfr", "none; val's fit the head"),
    ("JTT", "colored_digits_jtt", "none"),
    ("DPE", "colored_digits_dpe", "none; val's fit the head"),
    ("IRM", "colored_digits_irm", "objective"),
    ("CORAL", "colored_digits_coral", "objective"),
    ("MMD", "colored_digits_mmd", "objective"),
    ("EIIL, then group DRO", "colored_digits_eiil", "none"),
    ("EIIL, then IRM", "colored_digits_eiil_irm", "none"),
    ("XRM, then group DRO", "colored_digits_xrm", "none, in val neither"),
    ("LfF", "colored_digits_lff", "none"),
    ("AFR", "colored_digits_afr", "none"),
    ("SELF", "colored_digits_self", "none"),
    ("LWS", "colored_digits_lws", "none"),
    ("mixup", "colored_digits_mixup", "none"),
    ("mixup-DRW", "colored_digits_mixup_drw", "none"),
    ("Remix", "colored_digits_remix", "none"),
)
WORST = "worst_group_accuracy"


def colored_digits_methods(*, tune: bool, work_dir: str, jobs: int, stacked: int) -> None:
    """Train the missing runs, and print the table, or with `tune` the table of the learning rates.

    Args:
        stacked: most runs that one process trains as one stacked model.
    """
    (print_tuning if tune else print_methods)(work_dir, jobs, stacked)


def print_methods(work_dir: str, jobs: int, stacked: int) -> None:
    """Print the worst-group test accuracy of every method, at the selected epoch and at the last."""
    # The table shows test accuracy at the last epoch too, so evaluate test in training. Nothing is selected by it.
    overrides = {"trainer.eval_splits": ("val", "test")}
    runs = [make_run(name, overrides, seed, work_dir) for _, name, _ in METHODS for seed in SEEDS]
    summaries = iter(run_all(runs, jobs, stacked))
    rows = []
    for title, name, reads in METHODS:
        seeds = [next(summaries) for _ in SEEDS]
        worst, average = (
            mean([metric(summary, f"test/{key}") for summary in seeds], 0, 1) for key in (WORST, "adjusted_accuracy")
        )
        # A head is fitted on the selected weights only, so such a method has no result at the last epoch.
        last = "–" if has_head(name) else mean([last_test(s) for s in seeds], 0, 1).percent()
        rows.append([title, reads, worst.percent(), last, average.percent(), worst.n])
    heads = [
        "method",
        "groups read in training",
        "worst group, selected epoch",
        "last epoch",
        "average, selected epoch",
    ]
    print(markdown([*heads, "n"], rows), end="")


def print_tuning(work_dir: str, jobs: int, stacked: int) -> None:
    """Print the val worst-group accuracy at the selected epoch, by method and learning rate."""
    runs = [
        make_run(name, {"optim.lr": lr}, seed, work_dir)
        for _, name, _ in METHODS
        for lr in LEARNING_RATES
        for seed in TUNING_SEEDS
    ]
    summaries = iter(run_all(runs, jobs, stacked))
    rows = []
    for title, _, _ in METHODS:
        means = [mean([best_val(next(summaries)) for _ in TUNING_SEEDS]) for _ in LEARNING_RATES]
        rows.append([title, *(f"{100 * m.value:.1f}" for m in means)])
    print(markdown(["method", *(f"lr {lr:g}" for lr in LEARNING_RATES)], rows), end="")


def has_head(name: str) -> bool:
    """Return True if a config fits a head after training."""
    return validate(load(config_file(name))).head.name != "none"


def best_val(summary: Summary) -> float:
    """Return the best val worst-group accuracy in training, before any head is fitted on val."""
    return max(row[f"val/{WORST}"] for row in evaluations_of(Path(summary["run_directory"])))


def last_test(summary: Summary) -> float:
    """Return the test worst-group accuracy at the last epoch."""
    return evaluations_of(Path(summary["run_directory"]))[-1][f"test/{WORST}"]

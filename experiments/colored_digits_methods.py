"""Does knowing the groups help the worst of them? Methods on colored digits, ten seeds, in minutes.

Each method is its config as it stands. The learning rate of the first seven is the best of LEARNING_RATES by the val
worst-group accuracy at the selected epoch, over three seeds that the table does not use: the same budget for all. What
the others were tuned on, at seed 0, their configs say.

    imbalance reproduce colored_digits_methods          # the table
    imbalance reproduce colored_digits_methods --tune   # what the learning rates in the configs come from
"""

from pathlib import Path

from imbalance.config.resolve import config_file, load
from imbalance.metrics.intervals import mean
from imbalance.report.saved_runs import Summary, evaluations_of, metric
from imbalance.report.tables import markdown
from imbalance.sweep.runs import configured, run_all

SEEDS, TUNING_SEEDS = range(10), range(100, 103)
LEARNING_RATES = (0.01, 0.03, 0.1)
# What the table calls it, its config, and what it reads of the groups in training. All select by val's groups.
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


def colored_digits_methods(*, tune: bool, work_dir: str, jobs: int, at_once: int) -> None:
    """Print the table, or (`tune`) where the configs' learning rates come from."""
    (learning_rates if tune else table)(work_dir, jobs, at_once)


def table(work_dir: str, jobs: int, at_once: int) -> None:
    """Worst-group test accuracy of every method, at the epoch that val selects and at the last."""
    # Test is looked at beside val, so that the last epoch's is known too; nothing is chosen by it.
    overrides = {"trainer.eval_splits": ("val", "test")}
    runs = [configured(name, overrides, seed, work_dir) for _, name, _ in METHODS for seed in SEEDS]
    summaries = iter(run_all(runs, jobs, at_once))
    rows = []
    for title, name, reads in METHODS:
        of_method = [next(summaries) for _ in SEEDS]
        worst, average = (
            mean([metric(summary, f"test/{key}") for summary in of_method], 0, 1)
            for key in (WORST, "adjusted_accuracy")
        )
        # A head is put on the selected weights only.
        last = "–" if refits(name) else mean([at_the_end(s) for s in of_method], 0, 1).percent()
        rows.append([title, reads, worst.percent(), last, average.percent(), worst.n])
    heads = [
        "method",
        "groups read in training",
        "worst group, selected epoch",
        "last epoch",
        "average, selected epoch",
    ]
    print(markdown([*heads, "n"], rows), end="")


def learning_rates(work_dir: str, jobs: int, at_once: int) -> None:
    """Val worst-group accuracy at the selected epoch, by method and learning rate."""
    runs = [
        configured(name, {"optim.lr": lr}, seed, work_dir)
        for _, name, _ in METHODS
        for lr in LEARNING_RATES
        for seed in TUNING_SEEDS
    ]
    summaries = iter(run_all(runs, jobs, at_once))
    rows = []
    for title, _, _ in METHODS:
        means = [mean([best_on_val(next(summaries)) for _ in TUNING_SEEDS]) for _ in LEARNING_RATES]
        rows.append([title, *(f"{100 * m.value:.1f}" for m in means)])
    print(markdown(["method", *(f"lr {lr:g}" for lr in LEARNING_RATES)], rows), end="")


def refits(name: str) -> bool:
    return load(config_file(name)).head.name != "none"


def best_on_val(summary: Summary) -> float:
    """As training saw it: a head that is fitted on val says nothing about val."""
    return max(row[f"val/{WORST}"] for row in evaluations_of(Path(summary["run_directory"])))


def at_the_end(summary: Summary) -> float:
    return evaluations_of(Path(summary["run_directory"]))[-1][f"test/{WORST}"]

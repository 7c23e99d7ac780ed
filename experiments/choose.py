"""Write the tables of docs/choose.md from the runs in results/advice.csv.gz and results/ledger.csv.

    imbalance findings    # writes the page; docs/choose.md names the commands that trained the runs

Each number stands beside the labels that it read: those of train that training read, and those of val by which the
hyperparameters and the epoch were chosen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imbalance.metrics.intervals import mean, paired_difference
from imbalance.report import kept_results
from imbalance.report.kept_results import Row, score
from imbalance.report.tables import Raw, markdown

STUDY = "advice"  # name of the table of results
FEW = "data.val_fraction=0.02"  # the override of runs with few examples in val


class Method(NamedTuple):
    """A method in a row of a table.

    title: text in Markdown, with a link to the page of the method.
    config: config of its runs.
    labels: labels of train that training reads.
    tuning: labels of val by which its hyperparameters were chosen, or "not recorded"; see docs/results.md.
    cost: text that compares its cost with that of a run with plain cross-entropy.
    """

    title: str
    config: str
    labels: str
    tuning: str
    cost: str


def colored(title: str, method: str, labels: str, cost: str, tuning: str = "groups") -> Method:
    """Return a method on colored digits. Its learning rate, or that of ERM which it takes, was chosen by the groups of val.

    Args:
        method: end of the name of the config.
    """
    return Method(title, f"colored_digits_{method}", labels, tuning, cost)


PLAIN = colored("plain cross-entropy", "erm", "classes", "a plain run")
DFR = colored("[DFR](methods/dfr.md)", "dfr", "classes; last layer: val groups", "a plain run and seconds")
JTT = colored("[JTT](methods/jtt.md)", "jtt", "classes", "two plain runs")
LFF = colored("[LfF](methods/lff.md)", "lff", "classes", "two plain runs")
SPARE = colored("[SPARE](methods/spare.md)", "spare", "classes", "a plain run to two")
TRAIN_GROUPS = (
    colored("[undersampling](methods/sampling.md) by group", "undersampled", "groups", "less than a plain run"),
    colored("[importance weights](methods/importance-weights.md) by group", "ce", "groups", "a plain run"),
    colored("importance weights by group under [poly](methods/poly.md)", "poly", "groups", "a plain run"),
    colored("[group DRO](methods/group-dro.md), batches balanced by group", "dro", "groups", "a plain run"),
)
INFERRED = (
    SPARE,
    colored("[EIIL](methods/eiil.md), then group DRO", "eiil", "classes", "two plain runs"),
    colored("[XRM](methods/xrm.md), then group DRO", "xrm", "classes", "three plain runs"),
    colored("[uLA](methods/ula-lc.md)", "ula", "classes", "a plain run to two"),
    colored("[LC](methods/ula-lc.md)", "lc", "classes", "two plain runs", tuning="not recorded"),
    colored("[GEORGE](methods/george.md), then group DRO", "george", "classes", "a plain run to two"),
    colored("[CVaR](methods/cvar.md)", "cvar", "classes", "a plain run", tuning="none"),
)
GROUPS, CLASSES, INFERRED_GROUPS = "val groups", "val classes", "groups inferred from the classes"
OWN_GROUPS = ("colored_digits_xrm", "colored_digits_ula")  # their configs select the epoch by groups that they infer
# For each situation: the methods to compare, with many or few examples in val, and the labels that select the epoch.
SITUATIONS: tuple[tuple[str, Sequence[Method], bool, str], ...] = (
    ("groups in train and val", (PLAIN, *TRAIN_GROUPS), False, GROUPS),
    ("groups in val only, {} of the smallest", (DFR, JTT, LFF, SPARE), False, GROUPS),
    ("groups in val only, {} of the smallest", (PLAIN, DFR, JTT, LFF, SPARE), True, GROUPS),
    ("no groups, only classes", (PLAIN, JTT, LFF, *INFERRED), False, CLASSES),
)


def worst_group(row: Row, epoch: str) -> float:
    """Return the worst-group test accuracy of a run as a fraction; nan if the run diverged.

    Args:
        epoch: labels that select the epoch; for CLASSES the epoch with the best balanced accuracy on val is taken, else that of
            the config.
    """
    if row["status"] == "done" and epoch == CLASSES:
        return min(float(accuracy) for accuracy in row["best balanced: test of groups"].split("|"))
    return score(row, "test", "worst_group_accuracy")


def groups_table(folder: Path) -> str:
    """Return the table of worst-group accuracies on colored digits, by the labels that a user has.

    Args:
        folder: folder that holds the tables of results, such as results/; the rows are in advice.csv.gz.
    """
    every, table = kept_results.read(STUDY, folder), []
    for situation, methods, few, epoch in SITUATIONS:
        have = situation
        for method in methods:
            rows = [row for row in every if row["name"] == method.config and (FEW in row["overrides"]) == few]
            if not rows:
                continue
            chosen = INFERRED_GROUPS if epoch == CLASSES and method.config in OWN_GROUPS else epoch
            values = mean([worst_group(row, chosen) for row in rows], 0, 1)
            smallest = min(int(count) for row in rows for count in row["val counts"].split("|"))
            reads = f"train {method.labels}; epoch: {chosen}; tuning: {tuning_text(method)}"
            table.append([have.format(smallest), Raw(method.title), values.percent(), values.n, reads, method.cost])
            have = ""
    heads = ["you have", "method", "accuracy in the worst group, %", "n", "labels that this number read", "cost"]
    return markdown(heads, table) if table else "No run has finished yet.\n"


def tuning_text(method: Method) -> str:
    """Return the labels of val that the tuning read, as text such as "val groups"."""
    return method.tuning if method.tuning in ("none", "not recorded") else f"val {method.tuning}"


class OnDigits(NamedTuple):
    """A method on the long-tailed digits: its title in Markdown, its config, a part of its overrides, and its tuning."""

    title: str
    config: str
    overrides: str
    tuning: str


ON_DIGITS = (
    OnDigits("plain cross-entropy", "digits_erm", "default", "val classes"),
    OnDigits(
        "[importance weights](methods/importance-weights.md) by class, exponent 1", "digits_ce", "default", "val classes"
    ),
    OnDigits(
        "importance weights by class, exponent 1.5, under [poly](methods/poly.md)", "digits_poly", "default", "val classes"
    ),
    OnDigits(
        "[balanced softmax](methods/balanced-softmax.md), with the learning rate of plain cross-entropy", "digits_erm",        "loss.name=balanced_softmax", "val classes, for plain cross-entropy",
    ),
    OnDigits(
        "[logit adjustment](methods/logit-adjustment.md) after training with plain cross-entropy", "digits_erm",
        "head.name=logit_adjusted,head.tau=1.0", "val classes, for plain cross-entropy",
    ),
)  # fmt: skip


def classes_table(folder: Path) -> str:
    """Return the table of balanced accuracies on the long-tailed digits.

    Args:
        folder: folder that holds the tables of results, such as results/; the rows are in ledger.csv.
    """
    every, table, reference = kept_results.read("ledger", folder), [], {}
    for method in ON_DIGITS:
        rows = [row for row in every if row["name"] == method.config and row["overrides"] == method.overrides]
        if not rows:
            continue
        values = {int(row["seed"]): score(row, "test", "balanced_accuracy") for row in rows}
        reference = reference or values
        over_seeds = mean(list(values.values()), 0, 1)
        difference = "" if values is reference else paired_difference(values, reference, 0, 1).percent()
        interpolating = f"{np.sum([row['interpolation epoch'] != '' for row in rows])} of {len(rows)}"
        reads = f"train classes; epoch: none; tuning: {method.tuning}"
        table.append([Raw(method.title), over_seeds.percent(), difference, over_seeds.n, interpolating, reads])
    heads = [
        "method", "balanced accuracy, %", "minus plain cross-entropy, paired by seed", "n", "runs that interpolate",
        "labels that this number read",
    ]  # fmt: skip
    return markdown(heads, table) if table else "No run has finished yet.\n"

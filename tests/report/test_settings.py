"""The rule that selected a checkpoint, as tables of results show it."""

import pytest

from imbalance.report.settings import selection_rule


@pytest.mark.parametrize(
    ("select", "monitor", "head", "name", "labels"),
    [
        ("last", "val/accuracy", {}, "last epoch", "none"),
        ("best", "val/accuracy", {}, "best accuracy", "val classes"),
        ("best", "val/worst_group_accuracy", {}, "best worst group accuracy", "val groups"),
        ("best", "val/worst_inferred_group_accuracy", {}, "best worst inferred group accuracy", "val classes"),
        ("last", "val/accuracy", {"name": "dfr"}, "last epoch, head dfr", "val groups"),
        ("best", "val/accuracy", {"name": "dpe"}, "best accuracy, head dpe", "val groups"),
        ("last", "val/accuracy", {"name": "temperature"}, "last epoch, head temperature", "val classes"),
        ("last", "val/accuracy", {"name": "thresholds", "metric": "worst_group_accuracy"}, "last epoch, head thresholds", "val groups"),
        ("last", "val/accuracy", {"name": "thresholds", "metric": "accuracy"}, "last epoch, head thresholds", "val classes"),
    ],
)  # fmt: skip
def test_a_rule_says_which_labels_of_val_it_reads(select, monitor, head, name, labels):
    row = {"config.callbacks.select": select, "config.callbacks.monitor": monitor}
    row |= {f"config.head.{key}": value for key, value in head.items()}
    assert selection_rule(row) == {"name": name, "labels": labels}


def test_groups_that_are_learned_from_those_of_val_read_them():
    row = {"config.callbacks.select": "best", "config.callbacks.monitor": "val/accuracy", "config.groups.name": "ssa"}
    assert selection_rule(row)["labels"] == "val groups"

import json
import shutil

import numpy as np
import pytest

from imbalance.errors import BadInput
from imbalance.metrics.selection import (
    RULES,
    Evaluations,
    balanced,
    evaluations,
    group_average,
    sample,
    worst,
    worst_class,
)
from imbalance.sweep.select_epoch import select
from imbalance.training.loop import train


def test_kept_logits_give_the_metrics_of_every_evaluation(config, tmp_path):
    config.trainer.eval_splits = ("val", "test")
    config.callbacks.keep_logits = True
    train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("val", "test"):
        epochs, split = evaluations(tmp_path / "run", name)
        assert epochs == [line["epoch"] for line in lines] == [1, 2, 3]
        assert balanced(split) == pytest.approx([line[f"{name}/balanced_accuracy"] for line in lines])
        assert worst_class(split) == pytest.approx([line[f"{name}/worst_class_recall"] for line in lines])
        assert worst(split) == pytest.approx([line[f"{name}/worst_group_accuracy"] for line in lines])
        assert group_average(split) == pytest.approx([line[f"{name}/group_balanced_accuracy"] for line in lines])


def test_every_rule_chooses_by_what_it_says_it_reads():
    targets, groups = np.array([0] * 8 + [1] * 4), np.array([0] * 6 + [1] * 2 + [2] * 4)
    right = np.zeros((5, 12), dtype=bool)
    right[0, :10] = True  # best on average: groups at 1, 1, 0.5
    right[1, [*range(4), *range(8, 12)]] = True  # groups at 2/3, 0, 1
    right[2, [*range(4), 6, *range(8, 12)]] = True  # best balanced and 2/3, 1/2, 1
    right[3, [*range(5), 6, 7, 8, 9, 10]] = True  # best worst group: 5/6, 1, 3/4
    members = groups[:, None] == np.arange(3)
    val = Evaluations(right, targets, members, inferred=groups)
    test = Evaluations(right[::-1], targets, members)
    chosen = {name: rule(val, test, 0.5, 0) for name, _, rule in RULES}
    assert chosen["last"] == 4 and chosen["best worst group"] == 3 and chosen["oracle"] == 1
    assert chosen["best worst inferred group"] == 3
    assert chosen["best group average"] == 3  # 31/36 against 30/36, 20/36, 26/36 and 0
    # Recall of the classes: 1 and ½, ½ and 1, 5/8 and 1, 7/8 and ¾, 0 and 0.
    assert chosen["best worst class"] == 3
    assert chosen["best average"] == 0 and chosen["best balanced"] == int(balanced(val).argmax())


def test_few_labels_are_few_of_every_group_and_the_same_for_a_seed():
    groups = np.array([0] * 90 + [1] * 9 + [2])
    split = Evaluations(np.tile(np.arange(100), (1, 1)), groups, np.eye(3, dtype=bool)[groups])
    found = sample(split, 0.1, 3)
    assert len(found.group_mask) == 10 and found.group_mask.any(0).all()
    assert len(set(found.right[0])) == 10 and (found.right == sample(split, 0.1, 3).right).all()
    assert len(sample(split, 0.01, 0).group_mask) == 3


@pytest.mark.parametrize(("name", "labels", "rule"), RULES)
def test_a_rule_reads_what_it_says_and_nothing_else(name, labels, rule):
    """Exchanging what it does not name never moves its choice, and exchanging what it names does."""
    rng = np.random.default_rng(0)

    def moves(split: str, field: str) -> bool:
        for seed in range(20):
            splits = [
                Evaluations(
                    rng.random((50, 60)) < 0.7,
                    rng.integers(0, 2, 60),
                    np.eye(3, dtype=bool)[rng.integers(0, 3, 60)],
                    inferred=rng.integers(0, 3, 60),
                )
                for _ in range(2)
            ]
            before, i = rule(*splits, 0.3, seed), ("val", "test").index(split)
            splits[i] = splits[i]._replace(**{field: rng.permutation(getattr(splits[i], field))})
            if rule(*splits, 0.3, seed) != before:
                return True
        return False

    assert moves("val", "right") == ("val" in labels) and moves("test", "right") == ("test" in labels)
    assert moves("val", "group_mask") == ("val groups" in labels) and moves("test", "group_mask") == (
        "test groups" in labels
    )
    assert moves("val", "targets") == (name in ("best balanced", "best worst class")) and not moves("test", "targets")


def test_runs_of_one_seed_in_two_folders_are_two_rows(config, tmp_path, capsys):
    """They counted as two seeds."""
    config.trainer.eval_splits = ("val", "test")
    config.callbacks.keep_logits = True
    run = "digits_poly/default/seed=0"
    train(config, tmp_path / "a" / run)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    select(config=[], overrides={}, share=0.1, seeds=1, work_dir=str(tmp_path), jobs=1, stacked=1)
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if "| last |" in line]
    assert [row.split()[1] for row in rows] == ["a/digits_poly", "b/digits_poly"]
    assert all(row.endswith("| 1 |") for row in rows)
    assert f"a/{run} and b/{run} have the same config name" in printed.err


def test_a_run_that_kept_the_logits_of_val_only_is_left_out(config, tmp_path):
    config.callbacks.keep_logits = True
    train(config, tmp_path / "digits_poly" / "default" / "seed=0")
    with pytest.raises(BadInput, match="no finished run"):
        select(config=[], overrides={}, share=0.1, seeds=1, work_dir=str(tmp_path), jobs=1, stacked=1)

"""CivilComments: four groups to train with, and sixteen to evaluate by."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.texts import dataset_of, save_bert, text_config, write_civilcomments
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data import load as load_data
from imbalance.errors import BadInput
from imbalance.training import loop
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()  # which transformers imports


civilcomments, multinli = (import_module(f"imbalance.data.sets.{name}") for name in ("civilcomments", "multinli"))


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


def test_mentions_have_a_row_for_each_identity_of_a_comment(tmp_path, monkeypatch):
    """As SubpopBench makes its table, identity by identity."""
    rows = write_civilcomments(tmp_path / "civilcomments_v1.0")
    monkeypatch.setattr(civilcomments, "PUBLISHED", (40, 20, 20))
    corpus = civilcomments.list_civilcomments(str(tmp_path), 0, evaluation="mentions")
    by_comment = civilcomments.list_civilcomments(str(tmp_path), 0, evaluation="coarse")
    expected = sorted(
        (("train", "val", "test").index(row["split"]), 8 * (row["toxicity"] >= 0.5) + i, row["comment_text"])
        for row in rows
        for i, name in enumerate(civilcomments.IDENTITIES)
        if row[name] >= 0.5
    )
    assert sorted(zip(corpus.splits.tolist(), corpus.groups.tolist(), corpus.texts)) == expected
    assert corpus.group_names[9] == "toxic, female" and (corpus.targets == corpus.groups // 8).all()
    assert corpus.eval_group_mask is None and max(np.bincount(corpus.indices)) > 1
    for i in (0, len(corpus.texts) - 1):
        assert rows[corpus.indices[i]]["comment_text"] == corpus.texts[i]
        assert corpus.where(i) == by_comment.where(int(corpus.indices[i]))


@pytest.mark.parametrize("evaluation", ["fine", "coarse"])
def test_civilcomments_has_four_groups_to_train_with_and_sixteen_to_evaluate_by(tmp_path, monkeypatch, evaluation):
    rows = write_civilcomments(tmp_path / "civilcomments_v1.0")
    config = load(ROOT / "configs" / "civilcomments_dro.py")
    config.data_dir, config.debug, config.data.evaluation = str(tmp_path), True, evaluation
    weights = str(save_bert(tmp_path / "bert", positions=400))
    config.data.tokenizer = config.model.pretrained = weights
    with pytest.raises(
        BadInput, match=r"not the published data: train, val and test have \(40, 20, 20\) comments, not \(269038"
    ):
        load_data(validate(config).data, config.data_dir, 0)
    monkeypatch.setattr(civilcomments, "PUBLISHED", (40, 20, 20))
    dataset = dataset_of(config)
    test = dataset.test
    for i, row in enumerate(test.indices.tolist()):
        toxic, identities = rows[row]["toxicity"] >= 0.5, [rows[row][name] >= 0.5 for name in civilcomments.IDENTITIES]
        assert dataset.class_names[test.targets[i]] == ("toxic" if toxic else "not toxic")
        assert test.groups[i] == 2 * toxic + any(identities)
        if evaluation == "fine":
            expected = {
                f"{n}, {('not toxic', 'toxic')[toxic]}"
                for n, there in zip(civilcomments.IDENTITIES, identities)
                if there
            }
            assert {dataset.eval_group_names[e] for e in test.eval_group_mask[i].nonzero().flatten()} == expected
    assert len(dataset.eval_group_names) == (16 if evaluation == "fine" else 4)
    assert loop.train(config, tmp_path / "run")["status"] == "done"

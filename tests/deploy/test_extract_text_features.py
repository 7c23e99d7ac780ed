"""Features of texts, extracted once: of bags, small transformers and encoders, with the groups that texts are judged by."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.texts import civilcomments, dataset_of, save_bert, text_config, write_civilcomments
from ml_collections import ConfigDict
from ml_collections.config_dict import create

import imbalance
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.schema import build
from imbalance.data import load as load_data
from imbalance.data.identity import digest
from imbalance.deploy import extract_features as extract
from imbalance.errors import BadInput
from imbalance.models import MODELS
from imbalance.training import loop

MODELS_OF_TEXTS = {
    "bag_of_embeddings": dict(width=6),
    "transformer": dict(width=8, depth=1, heads=2, dropout=0.1),
    "encoder": dict(pool="first", dropout=0.0),
}


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


def section(folder: Path) -> dict:
    return dict(name="features", folder=str(folder), standardise=False)


@pytest.mark.parametrize("name", MODELS_OF_TEXTS)
def test_they_are_what_a_network_makes_of_each_text_alone(config, tmp_path, name):
    """Batches are padded to their longest; what is extracted is what a text by itself would have."""
    values = dict(MODELS_OF_TEXTS[name])
    if name == "encoder":
        weights = str(save_bert(tmp_path / "bert"))
        values["pretrained"] = weights
        config.data.update(tokenizer=weights, vocabulary=0, max_tokens=24)
    config.model = create(name=name, **values)
    config.data.evaluated_by = ("old", "tall")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    extract.features(config=str(file), run=None, output=str(tmp_path / "made"), overrides={})
    data, found = dataset_of(config), load_data(section(tmp_path / "made"), "data", 0)
    torch.manual_seed(config.seed)
    shape = dict(input_shape=data.input_shape, vocabulary=data.vocabulary, num_classes=2)
    network = build(MODELS, validate(config).model, architecture=None, **shape).double().eval()
    for split in ("train", "val", "test"):
        ours, theirs = getattr(found, split), getattr(data, split)
        alone = [network.features(theirs.inputs[i : i + 1]).detach() for i in range(12)]
        torch.testing.assert_close(ours.inputs[:12], torch.cat(alone), rtol=1e-9, atol=1e-9)
        for label in ("targets", "groups", "indices", "eval_group_mask"):
            assert getattr(ours, label).equal(getattr(theirs, label)), label
    assert (found.group_names, found.evaluation_names) == (data.group_names, data.evaluation_names)
    assert found.evaluation_names == ("old, no", "old, yes", "tall, no", "tall, yes")
    assert digest(found)["train"]["evaluation groups"] == digest(data)["train"]["evaluation groups"]


def test_a_head_on_features_of_comments_is_judged_by_their_sixteen_groups(tmp_path, monkeypatch):
    """By accuracies counted by hand from its predictions and the file's identities."""
    rows = write_civilcomments(tmp_path / "civilcomments_v1.0")
    monkeypatch.setattr(civilcomments, "PUBLISHED", (40, 20, 20))
    comments = load(ROOT / "configs" / "civilcomments_erm.py")
    comments.data_dir, comments.work_dir = str(tmp_path), str(tmp_path / "runs")
    weights = str(save_bert(tmp_path / "bert"))
    comments.data.tokenizer, comments.data.max_tokens, comments.model.pretrained = weights, 24, weights
    file = tmp_path / "config.json"
    file.write_text(json.dumps(comments.to_dict()))
    extract.features(config=str(file), run=None, output=str(tmp_path / "made"), overrides={})
    on_features = load(ROOT / "configs" / "features_erm.py")
    on_features.data.folder, on_features.trainer.epochs = str(tmp_path / "made"), 3
    summary = loop.train(on_features, tmp_path / "run")
    with np.load(tmp_path / "run" / "predictions" / "test.npz") as saved:
        right = saved["logits"].argmax(1) == saved["targets"]
        sources, members = saved["indices"], saved["members"]
    expected = {}
    for name in civilcomments.IDENTITIES:
        for toxic, label in enumerate(civilcomments.CLASSES):
            there = [rows[i][name] >= 0.5 and (rows[i]["toxicity"] >= 0.5) == bool(toxic) for i in sources]
            if any(there):
                expected[f"{name}, {label}"] = right[there].mean()
    found = {key: value for key, value in summary["metrics"].items() if key.startswith("test/group_accuracy/")}
    assert (
        members.shape == (20, 16)
        and len(summary["groups"]["test"]) == 16
        and len(summary["training_groups"]["train"]) == 4
    )
    assert {key.removeprefix("test/group_accuracy/"): v for key, v in found.items() if v == v} == pytest.approx(
        expected
    )
    assert summary["metrics"]["test/worst_group_accuracy"] == pytest.approx(min(expected.values()))


def test_of_a_run_they_are_its_own_network_s_and_of_texts_as_it_reads_them(config, tmp_path):
    loop.train(config, tmp_path / "run")
    made = dict(run=str(tmp_path / "run"), output=str(tmp_path / "made"))
    extract.features(config=None, overrides={}, **made)
    found, data = load_data(section(tmp_path / "made"), "data", 0), dataset_of(config)
    model = imbalance.load(tmp_path / "run", "cpu")
    torch.testing.assert_close(found.val.inputs, model.features(data.val.inputs[:]).clone())
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict() | dict(data=config.data.to_dict() | dict(vocabulary=9))))
    with pytest.raises(BadInput, match="run was trained with another tokenizer than that of config.data; both must be"):
        extract.features(config=str(file), overrides={}, **made | dict(output=str(tmp_path / "other")))

"""MultiNLI: metadata and sentences, paired."""

import csv
import json
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.texts import dataset_of, save_bert, text_config
from ml_collections import ConfigDict

import imbalance
from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.training import loop
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()  # which transformers imports


civilcomments, multinli = (import_module(f"imbalance.data.sets.{name}") for name in ("civilcomments", "multinli"))


transformers = pytest.importorskip("transformers")


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


def write_multinli(folder: Path, texts_too: bool = False) -> list[dict]:
    """Three files of pairs, and metadata of those that have a label."""
    pairs, labels = [], ("contradiction", "entailment", "neutral")
    (folder / "multinli_1.0").mkdir(parents=True)
    for part, n in zip(multinli.PARTS, (60, 12, 12)):
        with open(folder / "multinli_1.0" / f"multinli_1.0_{part}.jsonl", "w") as file:
            for i in range(n):
                label = "-" if part != "train" and i == 3 else labels[i % 3]
                pair = dict(gold_label=label, sentence1=f"the film {i}", sentence2="never good" if i % 2 else "so bad")
                pairs.append(pair)
                file.write(json.dumps(pair) + "\n")
    with open(folder / "metadata_random.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "gold_label", "sentence2_has_negation", "split"])
        kept = [i for i, pair in enumerate(pairs) if pair["gold_label"] != "-"]
        for place in kept:
            pair = pairs[place]
            writer.writerow([place, labels.index(pair["gold_label"]), "never" in pair["sentence2"], place // 6 % 3])
    return pairs


@pytest.mark.parametrize("layout", ["multinli/data", "multinli", "multinli_v1.0", "."])
def test_multinli_pairs_its_metadata_with_its_sentences(tmp_path, monkeypatch, layout):
    folder = tmp_path / "data" / layout
    pairs = write_multinli(folder)
    config = load(ROOT / "configs" / "multinli_erm.py")
    config.data_dir, config.debug = str(tmp_path / "data"), True
    weights = str(save_bert(tmp_path / "bert"))
    config.data.tokenizer = config.model.pretrained = weights
    with pytest.raises(BadInput, match="not the published data"):
        dataset_of(config)
    monkeypatch.setattr(multinli, "PUBLISHED", (29, 29, 24))  # of 30, 30 and 24, two have no label
    dataset = dataset_of(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
    kept = [pair for pair in pairs if pair["gold_label"] != "-"]
    for i in range(5):
        pair = kept[dataset.test.indices[i]]
        assert dataset.class_names[dataset.test.targets[i]] == pair["gold_label"]
        assert dataset.test.groups[i] == 2 * dataset.test.targets[i] + ("never" in pair["sentence2"])
        theirs = tokenizer(pair["sentence1"], pair["sentence2"], return_tensors="pt", return_token_type_ids=True)
        ours = dataset.test.inputs[i : i + 1]
        assert all(ours[name].equal(theirs[name]) for name in ("input_ids", "token_type_ids", "attention_mask"))
    if layout == "multinli":
        assert loop.train(config, tmp_path / "run")["status"] == "done"
        model = imbalance.load(tmp_path / "run", device="cpu")
        assert len(model.predict([("the film", "so bad"), ("a shop", "never good")]).classes) == 2
    metadata = folder / "metadata_random.csv"
    metadata.write_text(metadata.read_text().replace("\n0,0,", "\n0,1,", 1))
    with pytest.raises(
        BadInput, match=r"line 2: gold_label is 1 \(entailment\), but pair 0 of MultiNLI is 'contradiction'"
    ):
        dataset_of(config)
    metadata.write_text(metadata.read_text().replace("\n1,1,", "\n1,no,", 1))
    with pytest.raises(BadInput, match=r"line 3: the line must have .* \(and 1 more"):
        dataset_of(config)

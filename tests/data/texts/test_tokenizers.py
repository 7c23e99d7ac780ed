"""Texts of a Parquet file as of a CSV file, and tokens that are pieces of words."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.texts import dataset_of, text_config
from ml_collections import ConfigDict

import imbalance
from imbalance.data.identity import digest
from imbalance.data.texts.tokenizers import from_json, learn_tokenizer, padding_token
from imbalance.errors import BadInput
from imbalance.training import loop


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


def test_texts_of_a_parquet_file_are_those_of_the_csv_file(config):
    """Its columns have types: numbers where a text belongs to an evaluation group."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = Path(config.data_dir)
    config.data.evaluated_by = ("old", "tall")
    of_csv = dataset_of(config)
    rows = list(csv.DictReader(open(folder / "texts.csv")))
    columns = {name: [row[name] for row in rows] for name in ("text", "target", "place")}
    columns |= {name: [float(row[name]) for row in rows] for name in ("old", "tall")}
    parquet.write_table(pyarrow.table(columns), folder / "texts.parquet")
    config.data.file = "texts.parquet"
    assert digest(dataset_of(config)) == digest(of_csv)
    directory = loop.train(config, folder / "run")["run_directory"]
    model = imbalance.load(directory, "cpu")
    from imbalance.data.tables.columns import read_columns

    tables = [model.predict(read_columns(folder / f"texts.{kind}")).probabilities for kind in ("csv", "parquet")]
    np.testing.assert_array_equal(*tables)


def test_pieces_are_byte_pairs_that_spell_every_text_and_are_learnt_on_train_alone(config):
    config.data.update(tokenizer="pieces", vocabulary=300)
    dataset = dataset_of(config)
    tokenizer = from_json(dataset.preprocessing["tokenizer"])
    assert tokenizer.get_vocab_size() <= dataset.vocabulary == 300
    rows = list(csv.DictReader(open(Path(config.data_dir) / "texts.csv")))
    texts = [rows[i]["text"] for i in dataset.train.indices.sort().values.tolist()]
    assert learn_tokenizer("pieces", texts, 300).get_vocab() == tokenizer.get_vocab()
    assert learn_tokenizer("pieces", [*texts, "zyxw " * 500], 300).get_vocab() != tokenizer.get_vocab()
    tokenizer.no_padding()
    for text in ("a lovely film!", "Grüße, 東京 and 🙂", "zyxw"):  # with signs that no text of train has
        ids = tokenizer.encode(text).ids
        assert ids[0] == tokenizer.token_to_id("[CLS]") and tokenizer.token_to_id("[UNK]") not in ids
        spelt = bytes(BYTES[sign] for i in ids[1:] for sign in tokenizer.id_to_token(i)).decode()
        assert spelt.strip() == text
    batch = dataset.test.inputs[:5]
    first = rows[dataset.test.indices[0]]["text"]
    assert batch["input_ids"][0, : batch["attention_mask"][0].sum()].tolist() == tokenizer.encode(first).ids
    summary = loop.train(config, Path(config.work_dir) / "pieces")
    with np.load(Path(summary["run_directory"]) / "predictions" / "test.npz") as saved:
        logits, sources = saved["logits"], saved["indices"]
    found = imbalance.load(summary["run_directory"], "cpu").predict([rows[i]["text"] for i in sources]).probabilities
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(found, odds / odds.sum(1, keepdims=True), rtol=1e-6)


def test_a_damaged_file_that_names_the_padding_token_is_refused(tmp_path):
    """Its token would be replaced by "[PAD]" without a word; without the file "[PAD]" is right."""
    assert padding_token(tmp_path) == "[PAD]"
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    assert padding_token(tmp_path) == "<pad>"
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pa')
    with pytest.raises(BadInput, match="tokenizer_config.json"):
        padding_token(tmp_path)


def byte_signs() -> dict[str, int]:
    """The byte that each sign of a byte-level token stands for (Radford et al., 2019): itself, or from 256 on, in order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = byte_signs()

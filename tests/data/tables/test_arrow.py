"""Tables and texts in Arrow files: those of the same file in Parquet, to the bit, and shared by all processes."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import ROOT
from helpers.texts import text_config

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data.identity import digest
from imbalance.data.tables import encoding
from imbalance.data.tables.columns import read_columns
from imbalance.data.texts import tokens as token_module
from imbalance.data.texts.tokenizers import encode, learn_tokenizer
from imbalance.deploy.load import load as load_model
from imbalance.errors import BadInput
from imbalance.training.learner import load_dataset
from imbalance.training.loop import train

ROWS = 101


def people() -> pyarrow.Table:
    rng = np.random.default_rng(0)
    jobs = rng.choice(["cook", "né", "ne\u0301", None], ROWS)  # two forms of one word, and nulls
    return pyarrow.table(
        {
            "age": pyarrow.array([None if x < 0.1 else x for x in rng.random(ROWS)]),
            "hours": rng.integers(0, 80, ROWS),
            "job": pyarrow.array(jobs.tolist(), pyarrow.string()),
            "member": rng.random(ROWS) > 0.5,
            "sex": rng.choice(["f", "m"], ROWS),
            "income": np.where(np.arange(ROWS) % 3, "low", "high"),
        }
    )


def write(folder: Path, table: pyarrow.Table, name: str, batch: int = 1000, stream: bool = False) -> None:
    pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(str(folder / f"{name}.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=batch)


def people_config(folder: Path, file: str):
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.data_dir, config.work_dir = str(folder), str(folder / "runs")
    config.data.update(file=file, target="income", classes=("low", "high"), attributes=("sex",), split="", missing=("",),
                       numeric=(), categorical=(), val_fraction=0.2, test_fraction=0.2)  # fmt: skip
    config.trainer.update(epochs=2, batch_size=16)
    return config


def assert_equal(one, two) -> None:
    """Assert that two data sets have the same bits."""
    assert digest(one) == digest(two)
    assert (one.class_names, one.group_names, one.notes) == (two.class_names, two.group_names, two.notes)
    assert json.dumps(one.preprocessing, sort_keys=True) == json.dumps(two.preprocessing, sort_keys=True)


@pytest.mark.parametrize(("batch", "stream"), [(1000, False), (7, False), (7, True)])
def test_a_table_in_an_arrow_file_is_the_one_in_parquet(tmp_path, monkeypatch, batch, stream):
    write(tmp_path, people(), "people", batch, stream)
    monkeypatch.setattr(encoding, "ENCODED_ROWS", 10)
    expected = load_dataset(validate(people_config(tmp_path, "people.parquet")))
    config = validate(people_config(tmp_path, "people.arrow"))
    built, opened = load_dataset(config), load_dataset(config)
    for dataset in (built, opened):
        assert_equal(dataset, expected)
        for name in ("train", "val", "test"):
            assert torch.equal(getattr(dataset, name).inputs, getattr(expected, name).inputs)
    (store,) = (tmp_path / "decoded").glob("encoded-*/store.json")
    inputs = built.train.inputs
    inputs[0] = 5  # a map of the file, in which a write stays in this process
    assert np.load(store.with_name("features.npy"))[0].tolist() == opened.train.inputs[0].tolist() != inputs[0].tolist()


def test_a_store_is_built_once_for_all_seeds_and_again_for_other_content(tmp_path, capfd):
    table = people()
    write(tmp_path, table, "people")
    config = people_config(tmp_path, "people.arrow")
    load_dataset(validate(config))
    assert "encoding" in capfd.readouterr().err
    load_dataset(validate(config))
    assert not capfd.readouterr().err
    config.seed = 1  # draws other examples for val and test
    load_dataset(validate(config))
    assert "encoding" in capfd.readouterr().err
    write(tmp_path, table.set_column(1, "hours", [pyarrow.array(np.arange(ROWS))]), "people")
    load_dataset(validate(config))
    assert "encoding" in capfd.readouterr().err
    assert len(list((tmp_path / "decoded").glob("encoded-*/store.json"))) == 3


def test_without_draws_all_seeds_share_a_store(tmp_path):
    parts = [["train", "val", "test"][i // 9 % 3] for i in range(ROWS)]
    write(tmp_path, people().append_column("part", [parts]), "people")
    for seed in (0, 1):
        config = people_config(tmp_path, "people.arrow")
        config.seed = seed
        config.data.update(split="part", val_fraction=0.0, test_fraction=0.0)
        load_dataset(validate(config))
    assert len(list((tmp_path / "decoded").glob("encoded-*/store.json"))) == 1


def test_a_run_and_its_predictions_are_those_of_parquet(tmp_path, monkeypatch):
    write(tmp_path, people(), "people", 7)
    scores, predictions = [], []
    for kind in ("parquet", "arrow"):
        config = people_config(tmp_path, f"people.{kind}")
        scores.append(train(config, tmp_path / kind)["metrics"])
        model = load_model(tmp_path / kind)
        monkeypatch.setattr(encoding, "ENCODED_ROWS", 10)
        predictions += [
            model.predict(model.read_columns(tmp_path / f"people.{end}"), batch_size=4) for end in ("parquet", "arrow")
        ]
    np.testing.assert_equal(*scores)
    assert all(np.array_equal(one.probabilities, predictions[0].probabilities) for one in predictions)


def test_the_program_of_the_page_turns_parquet_into_arrow(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "how-to" / "data.md").read_text()
    program = page[page.index("import pyarrow\nimport pyarrow.dataset") :].partition("```")[0]
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(people(), tmp_path / "data" / "rows.parquet", row_group_size=30)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    arrow, parquet = (read_columns(tmp_path / "data" / f"rows.{end}") for end in ("arrow", "parquet"))
    assert list(arrow.values) == list(parquet.values)
    assert all(arrow.text(name).tolist() == parquet.text(name).tolist() for name in arrow.values)


def test_columns_are_read_when_they_are_used(tmp_path):
    write(tmp_path, people(), "people", 7)
    columns = read_columns(tmp_path / "people.arrow")
    assert len(columns) == ROWS and len(columns.part(10, 30)) == 20
    assert columns.part(10, 30).where(3).endswith("people.arrow row 13")
    assert columns.part(10, 30).text("sex").tolist() == columns.text("sex").tolist()[10:30]


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "missing"])
def test_a_damaged_arrow_file_is_said(tmp_path, damage):
    write(tmp_path, people(), "people")
    path = tmp_path / "people.arrow"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"age,sex\n", "empty": b""}[damage])
    with pytest.raises(BadInput, match="people.arrow"):
        read_columns(path)
    with pytest.raises(BadInput, match="people.arrow"):
        load_dataset(validate(people_config(tmp_path, "people.arrow")))


def test_a_text_whose_offset_is_outside_the_file_is_refused(tmp_path):
    """Without the check the process would end with a segmentation fault."""
    table = pyarrow.table({"text": ["a" * 40, "b" * 40]})
    write(tmp_path, table, "texts")
    content = (tmp_path / "texts.arrow").read_bytes()
    offsets = np.array([0, 40, 80], np.int32).tobytes()
    assert content.count(offsets) == 1
    (tmp_path / "texts.arrow").write_bytes(content.replace(offsets, np.array([0, 40, 2**30], np.int32).tobytes()))
    with pytest.raises(BadInput, match="texts.arrow"):
        read_columns(tmp_path / "texts.arrow")


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_in_an_arrow_file_are_those_in_parquet(tmp_path, monkeypatch, pairs):
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "cafe\u0301", "film", ""])
    texts = [[" ".join(rng.choice(words, 5)) or "x" for _ in range(60)] for _ in range(2)]
    table = pyarrow.table({"text": texts[0], "second": texts[1], "target": ["no", "yes"] * 30})
    monkeypatch.setattr(token_module, "CHUNK", 7)
    datasets = []
    for kind in ("parquet", "arrow"):
        folder = tmp_path / kind
        folder.mkdir()
        write(folder, table, "texts", 7)
        config = text_config(folder)
        config.data.update(file=f"texts.{kind}", attributes=(), text=("text", "second") if pairs else ("text",))
        datasets.append(load_dataset(validate(config)))
    assert_equal(*datasets)
    stores = [next((tmp_path / kind / "decoded").glob("tokens-*")) for kind in ("parquet", "arrow")]
    assert stores[0].name == stores[1].name
    for file in ("ids.npy", "kinds.npy", "starts.npy", "checksums.npy", "store.json"):
        assert (stores[0] / file).read_bytes() == (stores[1] / file).read_bytes()


def test_a_store_of_tokens_has_the_bytes_of_whole_arrays_however_it_is_cut(tmp_path, monkeypatch):
    texts = [("one two", "three"), ("two", ""), ("", "one")] * 5
    tokenizer = learn_tokenizer("words", ["one two three"], 10)
    whole = token_module.token_arrays(texts, encode(tokenizer, texts))
    monkeypatch.setattr(token_module, "CHUNK", 2)
    assert token_module.write_parts(tmp_path, texts, tokenizer) == len(whole[0])
    for part, array in zip(token_module.PARTS, whole, strict=True):
        file = io.BytesIO()
        np.save(file, array)
        assert (tmp_path / f"{part}.npy").read_bytes() == file.getvalue()

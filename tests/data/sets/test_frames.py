"""Data frames straight in: of pandas, polars and pyarrow, whole or by split, with labels that are texts."""

import json
import warnings

import numpy as np
import pytest
import torch
from helpers.data_files import people, write_csv

import imbalance
from imbalance.config.metric_names import PARITY_METRICS
from imbalance.data import as_dataset, frame_dataset
from imbalance.data.sets.arrays import arrays
from imbalance.errors import BadInput
from imbalance.metrics import evaluate

KINDS = ["mapping", "pandas", "polars", "pyarrow"]
SECTION = dict(file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("", "?"), target="income",
               classes=("high", "low"), attributes=("sex",), split="split", val_fraction=0.0, test_fraction=0.0)  # fmt: skip


def frame(kind, columns):
    """Return a data frame of a library, or skip the test without the library."""
    if kind == "mapping":
        return columns
    library = pytest.importorskip(kind)
    lists = {name: list(values) for name, values in columns.items()}
    return library.table(lists) if kind == "pyarrow" else library.DataFrame(lists)


def typed():
    """Return the columns of `people` as a data frame has them: numbers, None for missing values, categories as text."""
    columns = people()
    return columns | {
        "age": [None if value == "?" else int(value) for value in columns["age"]],
        "hours": columns["hours"].astype(float),
        "work": [None if value == "?" else value for value in columns["work"]],
    }


def same(one, other):
    for name in ("train", "val", "test"):
        for part in ("inputs", "targets", "groups"):
            torch.testing.assert_close(
                getattr(getattr(one, name), part), getattr(getattr(other, name), part), rtol=0, atol=0
            )
    assert (one.class_names, one.group_names) == (other.class_names, other.group_names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_the_data_of_its_csv_file(tmp_path, kind):
    write_csv(tmp_path / "people.csv", people())
    expected = arrays(str(tmp_path), 0, **SECTION)
    made = frame_dataset(frame(kind, typed()), 0, target="income", attributes="sex", split="split")
    same(made, expected)
    drawn = frame_dataset(frame(kind, {k: v for k, v in typed().items() if k != "split"}), 3, target="income")
    assert [len(split) for split in (drawn.train, drawn.val, drawn.test)] == [84, 12, 24]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_for_each_split_is_the_whole_frame(kind):
    columns = typed()
    split = columns.pop("split")
    parts = {
        name: frame(kind, {key: [v for v, s in zip(values, split) if s == name] for key, values in columns.items()})
        for name in ("train", "val", "test")
    }
    same(
        frame_dataset(parts, 0, target="income", attributes=("sex",)),
        frame_dataset(frame(kind, columns | {"split": split}), 0, target="income", attributes=("sex",), split="split"),
    )


@pytest.mark.parametrize("absent", [("val",), ("test",), ("val", "test")], ids=" ".join)
def test_a_split_without_a_frame_is_drawn_from_train(absent):
    """As from one frame whose column of splits lacks that split."""
    columns, kept = typed(), [name for name in ("train", "val", "test") if name not in absent]
    split = ["train" if name in absent else name for name in columns.pop("split")]
    parts = {
        name: {key: [v for v, s in zip(values, split) if s == name] for key, values in columns.items()} for name in kept
    }
    made = frame_dataset(parts, 3, target="income", attributes="sex")
    order = [i for name in kept for i, s in enumerate(split) if s == name]
    whole = {key: [values[i] for i in order] for key, values in columns.items()}
    whole |= {"split": [split[i] for i in order]}
    same(made, frame_dataset(whole, 3, target="income", attributes="sex", split="split"))


def test_a_single_text_or_number_is_a_tuple_of_one():
    columns = typed()
    columns["age"] = [-999 if value is None else value for value in columns["age"]]
    several = dict(target="income", split="split", numeric=("age",), categorical=("work",))
    expected = frame_dataset(columns, 0, missing=("-999",), **several)
    assert any("age" in note for note in expected.notes if "missing" in note)
    for missing in (-999, (-999,), np.array([-999]), -999.0, "-999"):
        same(frame_dataset(columns, 0, missing=missing, **several), expected)
    single = {**several, "numeric": "age", "categorical": "work"}
    same(frame_dataset(columns, 0, missing=("-999",), **single), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_takes_a_frame_and_its_model_predicts_frames(config, kind):
    columns = typed()
    config.model = dict(name="linear", init="default")
    directory = f"{config.work_dir}/frames"
    made = frame(kind, columns)
    run = imbalance.run(config, directory=directory, data=made, target="income", attributes=("sex",), split="split")
    test = {key: [v for v, s in zip(values, columns["split"]) if s == "test"] for key, values in columns.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = imbalance.load(directory, "cpu").predict(frame(kind, test))
    accuracy = np.mean(np.array(predicted.classes) == np.array(test["income"]))
    assert accuracy == pytest.approx(run.summary["metrics"]["test/accuracy"])


def test_parity_and_top_k_select_the_epoch(config, tmp_path):
    """The best of the lines in metrics.jsonl, and for the score the value of `evaluate` on the saved predictions."""
    config.score, config.model = "val/top1_accuracy", dict(name="linear", init="default")
    config.trainer.update(epochs=4, batch_size=10)
    config.callbacks.update(select="best", monitor="val/demographic_parity_ratio")
    data = dict(data=frame("pyarrow", typed()), target="income", attributes=("sex",), split="split")
    summary = imbalance.run(config, directory=tmp_path / "run", **data).summary
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ratios = [line["val/demographic_parity_ratio"] for line in lines]
    metrics = summary["metrics"]
    assert metrics["val/demographic_parity_ratio"] == max(ratio for ratio in ratios if ratio is not None)
    assert summary["score"] == metrics["val/top1_accuracy"] == metrics["val/accuracy"]
    saved = np.load(tmp_path / "run" / "predictions" / "val.npz")
    own = evaluate(saved["targets"], saved["logits"].argmax(1), saved["groups"] % 2)
    for name in PARITY_METRICS:
        np.testing.assert_allclose(metrics[f"val/{name}"], own[name].value)
    with pytest.raises(BadInput, match="needs two classes and groups that are crossed with attributes"):
        imbalance.run(config, directory=tmp_path / "other", data=data["data"], target="income", split="split")


def inputs_and_labels(kind, texts=True):
    columns = typed()
    split, income, sex = (columns.pop(name) for name in ("split", "income", "sex"))
    if not texts:
        income = (income == "low").astype(np.int64)
        sex = (sex == "woman").astype(np.int64)

    def one(name):
        rows = split == name
        inputs = {key: [v for v, keep in zip(values, rows) if keep] for key, values in columns.items()}
        labels = [frame(kind, {"y": values[rows]}) for values in (income, sex)]
        return (frame(kind, inputs), *(label["y"] for label in labels))

    return {name: one(name) for name in ("train", "val", "test")}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_with_series_of_labels_are_the_frame_with_all_columns(kind):
    expected = frame_dataset(typed(), 0, target="income", attributes="sex", split="split")
    same(as_dataset(inputs_and_labels(kind)), expected)
    numbers = as_dataset(inputs_and_labels(kind, texts=False), ("high", "low"), ("man", "woman"))
    same(numbers, expected)


@pytest.mark.parametrize("dtype", [object, str, bool])
def test_labels_may_be_texts_in_any_order(dtype):
    rng = np.random.default_rng(0)
    values = np.array([False, True] if dtype is bool else ["no", "yes"], dtype=dtype)
    data = {
        name: (rng.normal(size=(9, 2)).astype(np.float32), values[rng.permutation(9) % 2])
        for name in ("train", "val", "test")
    }
    made = as_dataset(data)
    assert made.class_names == tuple(map(str, values.tolist()))
    assert (values[made.test.targets.numpy()] == data["test"][1]).all()
    if dtype is not bool:
        swapped = as_dataset(data, class_names=("yes", "no"))
        assert (swapped.test.targets == 1 - made.test.targets).all() and swapped.class_names == ("yes", "no")
        with pytest.raises(BadInput, match=r"class_names: \('yes', 'maybe'\) given; the targets also have 'no'"):
            as_dataset(data, class_names=("yes", "maybe"))


def test_read_only_reversed_and_swapped_arrays_are_taken_without_a_warning():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(9, 2)), np.arange(9) % 3
    locked = inputs.copy()
    locked.setflags(write=False)
    expected = as_dataset(dict.fromkeys(("train", "val", "test"), (inputs, targets)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (locked, inputs[::-1].copy()[::-1], inputs.astype(">f8"), np.asfortranarray(inputs)):
            same(as_dataset(dict.fromkeys(("train", "val", "test"), (other, targets))), expected)


WRONG = {
    "no target": (dict(data=typed()), "data: a mapping with age, .* name the column of the classes too: target=…"),
    "letters of a column": (dict(data={"a": [1.0, 2.0] * 60, "b": [1.0, 2.0] * 60, **typed()}, target="income", numeric="ab"), "no column 'ab'"),
    "classes as one text": (dict(data=typed(), target="income", classes="low,high"), r"^classes: 'low,high' given; give the classes as a tuple"),
    "no tuple of texts": (dict(data=typed(), target="income", missing=None), "^missing: None given; give a tuple of texts"),
    "None in a tuple": (dict(data=typed(), target="income", categorical=("work", None)), "^categorical: .* given; give a tuple of texts"),
    "a list as target": (dict(data=typed(), target=["income"]), r"^target: \['income'\] given; give the name of one column"),
    "a fraction as text": (dict(data=typed(), target="income", val_fraction="0.1"), "^val_fraction: '0.1' given; give a number"),
    "a fraction of True": (dict(data=typed(), target="income", test_fraction=True), "^test_fraction: True given; give a number"),
    "another name of a split": (dict(data={"train": typed(), "valid": typed()}, target="income"), "^data: a mapping with train, valid given; give each data frame under"),
    "no data": (dict(target="income"), "data: NoneType given with target; these arguments need a data frame"),
    "an unknown target": (dict(data=typed(), target="wealth"), "no column 'wealth', which is needed; the columns are age"),
    "a typing error": (dict(data=typed(), target="income", atributes="sex"), "unknown argument 'atributes'; did you mean attributes"),
    "a target that is an attribute": (dict(data=typed(), target="income", attributes="income"), "leave out 'income'"),
    "a gap in the target": (dict(data=typed(), target="work"), r"data frame row \d+: work has no value in \d+ of 120 rows"),
    "another form": (dict(data={**typed(), "hours": ["7,5"] * 120}, target="income"), "hours is '7,5', a number in a form"),
    "a text among numbers": (dict(data={**typed(), "hours": ["7.5"] * 119 + ["x"]}, target="income"), "row 119: hours is 'x', not a number; add 'x' to missing"),
    "tensors with a target": (dict(data=torch.zeros(3), target="income"), "data: Tensor given with target"),
    "a frame as a split": (dict(data=dict.fromkeys(("train", "val", "test"), typed())), r"data\['train'\]: a mapping with age"),
    "a list of frames": (dict(data=dict.fromkeys(("train", "val", "test"), ([object()], [0]))), r"data\['train'\]: list given, which torch cannot take"),
    "objects": (dict(data=dict.fromkeys(("train", "val", "test"), (np.array([[{}]]), [0]))), "array of object given, which torch cannot take"),
    "a scalar column": (dict(data={"x": 1, "y": [1, 2]}, target="y"), "column 'x' is a single value; give a list"),
    "ragged examples": (dict(data={name: [(torch.zeros(2), 0), (torch.zeros(3), 1)] for name in ("train", "val", "test")}), "whose examples cannot be joined"),
    "texts in one split": (dict(data={"train": (np.zeros((2, 1)), ["a", "b"]), "val": (np.zeros((2, 1)), [0, 1]), "test": (np.zeros((2, 1)), [0, 1])}), "targets are texts, but those of another split are not"),
    "a label without value": (dict(data=dict.fromkeys(("train", "val", "test"), (np.zeros((2, 1)), ["a", None]))), r"data\['train'\]: targets have no value in row 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_data_of_a_program_is_one_line(config, case):
    arguments, message = WRONG[case]
    with pytest.raises(BadInput, match=message) as error:
        imbalance.run(config, **arguments)
    assert "\n" not in str(error.value) and "config.data." not in str(error.value)


def test_whole_numbers_are_one_category_in_all_splits_of_any_type():
    """Object columns have floats such as 1.0 where another split of the same table has the integer 1."""
    whole = {"x": np.arange(8.0), "y": np.array([0, 1] * 4), "sex": np.array([1, 1, 2, 2] * 2)}
    other = {name: np.array([float(v) for v in values], dtype=object) for name, values in whole.items()}
    data = frame_dataset({"train": whole, "val": other, "test": whole}, 0, target="y", attributes="sex")
    assert data.class_names == ("0", "1") and data.group_names == ("0, 1", "0, 2", "1, 1", "1, 2")
    assert torch.equal(data.val.groups, data.train.groups) and torch.equal(data.val.inputs, data.train.inputs)


def test_a_typed_category_stays_one_if_each_split_has_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"code": pandas.Categorical([3, 7] * 4), "y": [0, 1] * 4})
    data = frame_dataset({"train": frame, "val": frame, "test": frame}, 0, target="y")
    assert data.train.inputs.tolist() == [[1, 0], [0, 1]] * 4


def test_masked_values_of_a_frame_are_missing_values():
    columns = {
        "age": np.arange(8),
        "pay": np.arange(8.0),
        "work": np.array(list("abababab")),
        "y": np.array([0, 1] * 4),
    }
    masked = {name: np.ma.masked_array(values, np.arange(8) == 5) for name, values in columns.items()}
    written = {name: [None if i == 5 else value for i, value in enumerate(v.tolist())] for name, v in columns.items()}
    inputs = ("age", "pay", "work")

    def three(table):
        frames = dict.fromkeys(("train", "val", "test"), {name: table[name] for name in inputs} | {"y": columns["y"]})
        return frame_dataset(frames, 0, target="y")

    data = three(masked)
    same(data, three(written))
    assert data.preprocessing["features"]["numeric"][0]["gaps"] == [True]
    with pytest.raises(BadInput, match="y has no value in 1 of 8 rows"):
        frame_dataset(masked, 0, target="y")


def test_an_attribute_of_hundreds_of_values_is_said_to_make_too_many_groups():
    columns = {"x": np.arange(600.0), "y": np.arange(600) % 2, "id": np.arange(600) // 2}
    with pytest.raises(BadInput, match=r"600 rows make 600 groups.*too many groups; take attributes with few values"):
        frame_dataset(columns, 0, target="y", attributes="id")

"""Arrays and columns of one's own: every file format, features as scikit-learn has them, runs on them."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.data_files import people, write_csv
from helpers.pages import blocks, page
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from imbalance.config.resolve import load
from imbalance.data.sets.arrays import arrays, input_array
from imbalance.data.tables.columns import Columns, frame_columns, read_columns
from imbalance.data.tables.encoding import fit_features, transform
from imbalance.errors import BadInput
from imbalance.training.loop import train
from imbalance.training.stacked.train import train_stacked
from imbalance.utils.package import process_environment

PEOPLE = dict(file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("", "?"), target="income",
              classes=("low", "high"), attributes=("sex",), split="split", val_fraction=0.0, test_fraction=0.0)  # fmt: skip


def test_features_are_those_of_scikit_learns_transformers(tmp_path):
    write_csv(tmp_path / "people.csv", people())
    dataset = arrays(str(tmp_path), 0, **PEOPLE)
    columns = people()
    gone = {name: columns[name] == "?" for name in ("age", "work")}
    numeric = np.array([[float(a) if a != "?" else np.nan, float(h)] for a, h in zip(columns["age"], columns["hours"])])
    work = np.where(gone["work"], "", columns["work"])[:, None]
    numbers = make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True))
    theirs = ColumnTransformer(
        [("numbers", numbers, [0, 1]), ("work", OneHotEncoder(handle_unknown="ignore"), [2])], sparse_threshold=0
    )
    table = np.concatenate([numeric.astype(object), work], axis=1)
    is_train = columns["split"] == "train"
    theirs.fit(table[is_train])
    for name in ("train", "val", "test"):
        expected = theirs.transform(table[columns["split"] == name]).astype(np.float64)
        ours = getattr(dataset, name).inputs.numpy()[:, [0, 2, 1, 3, 4, 5]]  # an indicator stands beside its column
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert dataset.group_names == ("low, man", "low, woman", "high, man", "high, woman")
    missing = {name: int((gone[name] & is_train).sum()) for name in gone}
    expected = f"2 numeric and 1 categorical columns → 6 features; missing values in train: age {missing['age']}, work {missing['work']}"
    assert dataset.notes == (f"inputs: {expected}",)


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "npz", "npy", "folder"])
def test_every_format_gives_the_same_data_set(tmp_path, kind):
    columns = people()
    write_csv(tmp_path / "people.csv", columns)
    typed = columns | {
        "age": np.array([np.nan if a == "?" else float(a) for a in columns["age"]]),
        "hours": columns["hours"].astype(float),
    }
    texts = {name: values.astype(str) if values.dtype == object else values for name, values in typed.items()}
    file = f"people.{kind}"
    if kind == "csv.gz":
        (tmp_path / file).write_bytes(gzip.compress((tmp_path / "people.csv").read_bytes()))
    elif kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        nulls = typed | {name: [None if v == "?" else v for v in typed[name]] for name in ("work",)}
        parquet.write_table(pyarrow.table(nulls), tmp_path / file)
    elif kind == "npz":
        np.savez(tmp_path / file, **texts)
    elif kind == "npy":
        record = np.empty(len(texts["age"]), dtype=[(name, values.dtype) for name, values in texts.items()])
        for name, values in texts.items():
            record[name] = values
        np.save(tmp_path / file, record)
    else:
        (tmp_path / file).mkdir()
        for name, values in texts.items():
            np.save(tmp_path / file / f"{name}.npy", values)
    choice = dict(numeric=("age", "hours"), categorical=("work",))
    ours = arrays(str(tmp_path), 0, **PEOPLE | choice)
    theirs = arrays(str(tmp_path), 0, **PEOPLE | choice | dict(file=file))
    for name in ("train", "val", "test"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert all(torch.equal(getattr(one, key), getattr(other, key)) for key in ("inputs", "targets", "groups"))


def test_new_rows_are_transformed_as_training_was_and_new_categories_are_nothing(tmp_path):
    write_csv(tmp_path / "people.csv", people())
    columns = read_columns(tmp_path / "people.csv")
    features = fit_features(columns, np.arange(60), ["age"], ["work"], ["?"])
    new = frame_columns({"age": ["30", "?"], "work": ["abroad", "state"], "unused": [1, 2]})
    age, gap, *work = transform(new, features).T
    expected = (30 - features["numeric"][0]["mean"][0]) / features["numeric"][0]["std"][0]
    np.testing.assert_allclose(age, [expected, 0], rtol=1e-6)
    assert gap.tolist() == [0, 1]
    assert features["categorical"][0]["values"] == ["", "private", "state"]
    assert np.array(work).T.tolist() == [[0, 0, 0], [0, 0, 1]]
    pandas = pytest.importorskip("pandas")
    frame = frame_columns(pandas.DataFrame({"age": ["30", "?"], "work": ["abroad", "state"]}))
    assert (transform(frame, features) == transform(new, features)).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(missing=(), numeric=("age",)), r"people.csv line 2: age is '\?', not a number; .*config.data.missing"),
        (dict(missing=()), r"people.csv line 2: age is '\?', not a number; .*config.data.missing"),
        (dict(numeric=("sex",)), r"people.csv line 2: sex is '.*', not a number"),
        (dict(target="wealth"), r"people.csv: no column 'wealth', which is needed; the columns are age, hours"),
        (
            dict(classes=("low", "middle")),
            r"line \d+: income is 'high', not one of low, middle; all values of the column are high,low: list in `classes`",
        ),
        (dict(classes=("low", "low")), r"config.data.classes"),
        (dict(attributes=("sex", "sex")), r"config.data.attributes"),
        (dict(categorical=("work", "work")), r"'work' appears twice"),
        (dict(categorical=("work", "income")), r"'income' is the target, which must not be an input"),
        (dict(split=""), r"config.data.val_fraction: 0.0 given"),
        (
            dict(split="", val_fraction=0.2, test_fraction=0.2),
            r"column 'split' holds the splits .* set config.data.split=split",
        ),
        (dict(split="sex"), r"sex is '.*', not one of train, val, test \(and"),
        (dict(file="none.csv"), r"none.csv: No such file"),
        (dict(file="none.npz"), r"none.npz: No such file"),
        (dict(file="people.xls"), r"people.xls: no such file"),
        (
            dict(delimiter=";"),
            r"no column 'income', which is needed; the only column is 'age,hours,work.*', or set config.data.delimiter=','",
        ),
    ],
)
def test_what_is_wrong_with_columns_is_one_line(tmp_path, change, reason):
    write_csv(tmp_path / "people.csv", people())
    with pytest.raises(BadInput, match=reason) as error:
        arrays(str(tmp_path), 0, **PEOPLE | change)
    assert "\n" not in str(error.value)


def test_objects_and_arrays_of_other_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "b.npz", x=np.zeros(3), y=np.zeros(4))
    for name, reason in (("a.npz", "holds Python objects, which are never loaded"), ("b.npz", "x 3, y 4")):
        with pytest.raises(BadInput, match=reason):
            read_columns(tmp_path / name)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_arrays_of_images_are_normalised_by_their_channels(tmp_path, layout):
    rng = np.random.default_rng(0)
    shape = {"NCHW": (12, 3, 8, 9), "NHWC": (12, 8, 9, 3), "NHW": (12, 8, 9)}[layout]
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    part = np.resize(["train", "train", "val", "test"], 12)
    target = np.repeat([0, 1, 0], 4)
    np.savez(tmp_path / "images.npz", inputs=images, target=target, split=part)
    values = PEOPLE | dict(file="images.npz", target="target", classes=("0", "1"), attributes=(), missing=())
    dataset = arrays(str(tmp_path), 0, **values)
    first = np.moveaxis(images, -1, 1) if layout == "NHWC" else images.reshape(12, -1, 8, 9)
    assert (dataset.test.inputs.numpy() == first[part == "test"]).all()
    pixels = first[part == "train"] / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 8, 3, 3), (2, 3, 8, 3)),
        ((2, 3, 8, 3), (2, 3, 8, 3)),
        ((2, 8, 9, 1), (2, 1, 8, 9)),
        ((2, 8, 9), (2, 1, 8, 9)),
    ],
)
def test_images_keep_their_channels_first_where_that_is_possible(shape, expected):
    assert input_array(Columns("file", {"image": np.zeros(shape, np.uint8)}), "image").shape == expected


def test_the_documented_command_goes_from_a_csv_file_to_a_comparison_by_worst_group(tmp_path):
    """Two of its four methods, for two seeds and an epoch each."""
    (text,) = [block for block in blocks(page("how-to/data.md"), "sh") if "data.file=people.csv" in block]
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "people.csv", {key: values for key, values in people().items() if key != "split"})
    command = text.replace("arrays_ce,arrays_poly,", "").replace("--seeds=5", "--seeds=2 --jobs=1")
    command = command.replace("imbalance compare", f"{sys.executable} -m imbalance compare --config.trainer.epochs=1")
    env = process_environment(OMP_NUM_THREADS="1")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test/worst_group_accuracy" in done.stdout and "| arrays_dro |" in done.stdout
    summaries = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert len(summaries) == 4
    for summary in summaries:
        groups = [key for key in summary["metrics"] if key.startswith("test/group_accuracy/")]
        assert len(groups) == 4 and summary["metrics"]["test/worst_group_accuracy"] is not None


def test_seeds_whose_train_has_other_categories_are_trained_at_once_with_their_like(tmp_path):
    """A value that is there once is in train for some seeds only, and so one column more."""
    columns = {key: values for key, values in people().items() if key != "split"}
    columns["work"][3] = "rare"
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "people.csv", columns)
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.update(data_dir=str(tmp_path / "data"), work_dir=str(tmp_path))
    config.data.update({key: PEOPLE[key] for key in ("file", "missing", "target", "classes", "attributes")})
    config.trainer.epochs = 2
    runs = [(config.copy_and_resolve_references(), tmp_path / str(seed)) for seed in range(6)]
    for seed, (of_seed, _) in enumerate(runs):
        of_seed.seed = seed
    together = train_stacked(runs)
    widths = [json.loads((directory / "model.json").read_text())["input_shape"][0] for _, directory in runs]
    assert len(set(widths)) == 2, widths
    for (of_seed, directory), summary in zip(runs, together):
        alone = train(of_seed, tmp_path / "alone" / directory.name)
        assert alone["metrics"]["test/accuracy"] == summary["metrics"]["test/accuracy"]


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e39, "f8"), (np.nan, "f8"), (-np.inf, "f8"), (np.inf, "f4"), (np.inf, "f2"), (np.nan, "f2")]
)
def test_an_array_with_a_value_that_float32_has_not_names_its_row(value, dtype):
    array = np.zeros((4, 2, 2), dtype)
    array[2, 1, 0] = value
    with pytest.raises(BadInput, match="^x.npz row 2: inputs has a value that is not finite, or too large for float32"):
        input_array(Columns("x.npz", {"inputs": array}), "inputs")


def test_the_largest_numbers_of_a_type_are_finite():
    for dtype in (np.float16, np.float32):
        array = np.full((2, 2, 2), np.finfo(dtype).max, dtype)
        assert (input_array(Columns("x.npz", {"inputs": array}), "inputs").numpy() == array).all()


@pytest.mark.parametrize("shape", [(12, 4), (12, 2, 2)])
def test_numbers_in_the_byte_order_of_another_machine_are_the_same_data(tmp_path, shape):
    rng, values = np.random.default_rng(0), PEOPLE | dict(target="target", classes=("0", "1"), attributes=())
    columns = {"inputs": rng.normal(size=shape), "target": np.repeat([0, 1, 0], 4)}
    part = np.resize(["train", "train", "val", "test"], 12)
    for name, order in (("own", "="), ("other", ">")):
        swapped = {key: array.astype(array.dtype.newbyteorder(order)) for key, array in columns.items()}
        np.savez(tmp_path / f"{name}.npz", split=part, **swapped)
    own, other = (arrays(str(tmp_path), 0, **values | dict(file=f"{name}.npz")) for name in ("own", "other"))
    for split in ("train", "val", "test"):
        one, two = getattr(own, split), getattr(other, split)
        assert torch.equal(one.inputs, two.inputs) and torch.equal(one.targets, two.targets)


@pytest.mark.parametrize("kind", ["list", "fixed-size list"])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_lists_of_numbers_in_a_file_or_frame_are_the_array_of_a_npz_file(tmp_path, ending, kind):
    import pyarrow
    import pyarrow.parquet

    rng, values = np.random.default_rng(0), PEOPLE | dict(target="target", classes=("0", "1"), attributes=())
    inputs, target = rng.normal(size=(12, 4)).astype(np.float32), np.repeat([0, 1, 0], 4)
    part = np.resize(["train", "train", "val", "test"], 12)
    np.savez(tmp_path / "x.npz", embedding=inputs, target=target, split=part)
    lists = pyarrow.array(inputs.tolist(), pyarrow.list_(pyarrow.float32(), 4 if kind == "fixed-size list" else -1))
    table = pyarrow.table({"embedding": lists, "target": target, "split": part})
    if ending == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    else:
        with pyarrow.ipc.new_file(tmp_path / "x.arrow", table.schema) as file:
            file.write_table(table)
    own, other = (arrays(str(tmp_path), 0, **values | dict(file=f"x.{end}")) for end in ("npz", ending))
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(own, split).inputs, getattr(other, split).inputs)
    for frame in (table, table.to_pandas(), {"embedding": list(inputs)}):
        np.testing.assert_array_equal(frame_columns(frame)["embedding"], inputs)


@pytest.mark.parametrize("lists", [[[1.0], [1.0, 2.0]], [["a"], ["b"]], [[1.0], None]], ids=["lengths", "texts", "gap"])
def test_lists_that_are_no_rows_of_numbers_are_refused(lists):
    column = np.empty(2, object)
    column[:] = lists
    with pytest.raises(BadInput, match="column 'x' has values of type list; a row must have a single value"):
        frame_columns({"x": column})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (dict(inputs=np.zeros((0, 3, 3)), target=np.zeros(0, int), split=np.zeros(0, "U5")), r"column 'inputs' has values of shape \(3, 3\) in each row"),
        (dict(inputs=np.zeros(0), target=np.zeros(0, int), split=np.zeros(0, "U5")), "the train split has no example"),
        (dict(inputs=np.float32(3), target=np.zeros(4, int)), r"inputs a single value, target 4\); all must have the same"),
        ({}, "no column 'target', which is needed; there is no column at all"),
    ],
)  # fmt: skip
def test_arrays_without_rows_or_columns_are_one_line(tmp_path, columns, words):
    np.savez(tmp_path / "x.npz", **columns)
    values = PEOPLE | dict(file="x.npz", target="target", classes=("0", "1"), attributes=())
    with pytest.raises(BadInput, match=words):
        arrays(str(tmp_path), 0, **values)

"""Which columns become inputs: row numbers and identifiers do not, and numbers in other forms are refused."""

from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from helpers.data_files import people, write_csv

from imbalance.data.problems import DataProblems
from imbalance.data.sets.arrays import arrays
from imbalance.data.tables.columns import frame_columns, join_columns, read_columns
from imbalance.data.tables.encoding import (
    decode_row,
    encoding_notes,
    fit_features,
    means_and_deviations,
    transform,
    unfamiliar_values,
)
from imbalance.data.tables.input_columns import choose_inputs
from imbalance.data.tables.values import as_categories
from imbalance.errors import BadInput

SECTION = dict(file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("?",), target="income",
               classes=("low", "high"), attributes=(), split="split", val_fraction=0.0, test_fraction=0.0)  # fmt: skip


def dataset(folder, extra, **changes):
    write_csv(folder / "people.csv", extra | people() | extra)
    return arrays(str(folder), 0, **SECTION | changes)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_the_index_of_a_data_frame_is_no_input(tmp_path, name):
    """It leaks the class where the rows are sorted by it: 99 % test accuracy on noise."""
    plain = dataset(tmp_path, {})
    indexed = dataset(tmp_path, {name: np.arange(120).astype(str).astype(object)})
    assert (indexed.train.inputs == plain.train.inputs).all()
    assert indexed.notes[0].startswith(f"column {name!r} is left out, as the row numbers of a data frame; to use it")
    named = dataset(tmp_path, {name or "x": np.arange(120).astype(str).astype(object)}, numeric=(name or "x", "hours"))
    assert named.train.inputs.shape[1] == 2  # a column that the config names is used


@pytest.mark.parametrize("codes", [("1_1", "10_20"), ("2021_03", "2021_04"), ("1-1", "2-2")])
def test_codes_are_categories(tmp_path, codes):
    made = dataset(tmp_path, {"code": np.resize(codes, 120).astype(object)})
    features = made.preprocessing["features"]["categorical"]
    assert [column["values"] for column in features if column["column"] == "code"] == [sorted(codes)]


@pytest.mark.parametrize("has_pyarrow", [True, False])
def test_codes_with_leading_zeros_are_told_by_column(tmp_path, has_pyarrow, monkeypatch):
    """The codes 007 and 7 became one number, and nothing was said."""
    if not has_pyarrow:
        monkeypatch.setattr("imbalance.data.tables.csv_columns.find_spec", lambda name: None)
    text = {"zip": ["10001", "00123"], "rate": ["00.5", "1"], "zero": ["0", "10"], "small": ["0.5", "-0"]}
    extra = {name: np.resize(np.array(values, dtype=object), 120) for name, values in text.items()}
    made = dataset(tmp_path, extra)
    told = [note for note in made.notes if "codes" in note]
    assert told == [
        "column 'zip' has codes such as 00123, which are read as numbers; to keep the codes, name all inputs in "
        "config.data.numeric and config.data.categorical"
    ]
    kept = dataset(tmp_path, extra, numeric=("hours",), categorical=("zip",))
    assert kept.preprocessing["features"]["categorical"][0]["values"] == ["00123", "10001"]
    assert not [note for note in kept.notes if "codes" in note]
    told = choose_inputs(frame_columns(extra), list(extra), ()).notes  # pyright: ignore[reportArgumentType]
    assert [note.partition(";")[0] for note in told] == [
        "column 'zip' has codes such as 00123, which are read as numbers"
    ]


def test_durations_are_seconds_in_every_kind_of_table(tmp_path):
    """They were left out as identifiers, or were categories, and no config could make them numbers."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    waits = [timedelta(seconds=90 * i) if i != 2 else None for i in range(6)]
    expected = np.array([0, 90, np.nan, 270, 360, 450])
    frame = pandas.DataFrame({"wait": waits})
    table = pyarrow.table({"wait": waits})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    np.savez(tmp_path / "a.npz", wait=np.array(waits, dtype="timedelta64[ms]"))
    kinds = {f"pandas {unit}": frame_columns(frame.astype(f"timedelta64[{unit}]")) for unit in ("ns", "us", "s")}
    kinds |= {"objects": frame_columns({"wait": np.array(waits, dtype=object)})}
    kinds |= {"polars": frame_columns(polars.DataFrame({"wait": waits})), "pyarrow": frame_columns(table)}
    kinds |= {suffix: read_columns(tmp_path / f"a.{suffix}") for suffix in ("parquet", "arrow", "npz")}
    for kind, columns in kinds.items():
        assert np.array_equal(np.asarray(columns["wait"], float), expected, equal_nan=True), kind
        assert choose_inputs(columns, ["wait"], ("", "nan")).numeric == ("wait",), kind


def test_dates_and_times_are_told_by_column_with_what_to_write():
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("2020-01-30", periods=40)
    frame = pandas.DataFrame({
        "day": days, "ns": days.astype("datetime64[ns]"), "month": days.to_period("M"), "zone": days.tz_localize("UTC"),
        "hour": [f"{i % 24:02}:00" for i in range(40)], "text": days.astype(str), "day_of_week": days.day_name(),
    })  # fmt: skip
    chosen = choose_inputs(frame_columns(frame), list(frame.columns), ("", "nan"))
    assert chosen.numeric == () and chosen.categorical == ("month", "hour", "day_of_week")
    told = {note.split("'")[1]: note for note in chosen.notes}
    assert told.keys() == {"day", "ns", "month", "zone", "hour", "text"}
    assert all("write these in their place, such as the days since a fixed day" in note for note in told.values())


def test_columns_of_a_type_of_categories_are_categories(tmp_path):
    """Categories that are numbers became numbers."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    frame = pandas.DataFrame({"ward": pandas.Categorical([3, 1, 2] * 5), "id": pandas.Categorical(range(15)), "n": 1.0})
    table = pyarrow.Table.from_pandas(frame)
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    text = polars.DataFrame({name: frame[name].astype(str).to_list() for name in ("ward", "id")})
    kinds = {"pandas": frame_columns(frame), "pyarrow": frame_columns(table)}
    kinds |= {"polars": frame_columns(text.cast(polars.Categorical))}
    parquet.write_table(text.cast(polars.Categorical).to_arrow(), tmp_path / "a.parquet")
    kinds |= {suffix: read_columns(tmp_path / f"a.{suffix}") for suffix in ("parquet", "arrow")}
    kinds |= {"joined": join_columns([frame_columns(frame), frame_columns(frame)])}
    for kind, columns in kinds.items():
        assert choose_inputs(columns, ["ward", "id"], ("", "nan")).categorical == ("ward", "id"), kind


@pytest.mark.parametrize("form", ['"{0},5"', '"1,{0:03}"', "{0}%", "{0} %", "${0}", '"1.{0:03},5"', "€{0}"])
def test_numbers_in_another_form_are_refused_with_what_to_write(tmp_path, form):
    cells = np.array([form.format(i) for i in range(120)], dtype=object)
    with pytest.raises(
        BadInput, match=r"people.csv line 2: price is '.*', a number in a form that is not read; write"
    ) as error:
        dataset(tmp_path, {"price": cells})
    assert "\n" not in str(error.value)
    named = dataset(tmp_path, {"price": cells}, numeric=("hours",), categorical=("price",))
    assert named.train.inputs.shape[1] == 61  # 60 training rows with a price each, because the config asks for it


def test_identifiers_are_no_inputs_and_many_categories_are_told(tmp_path):
    names = np.array([f"person {i}" for i in range(120)], dtype=object)
    made = dataset(tmp_path, {"id": names, "street": np.where(np.arange(120) < 90, names, "none")})
    assert made.train.inputs.shape[1] == dataset(tmp_path, {"street": np.where(np.arange(120) < 90, names, "none")}).train.inputs.shape[1]  # fmt: skip
    assert "column 'id' is left out: each of its 120 values is different" in made.notes[0]
    assert made.notes[1].startswith("column 'street' has 91 categories in 120 rows and becomes as many features")


def big_integers():
    """Return 120 different integers, of which float64 has 61 only."""
    return 2**53 + np.arange(120)


@pytest.mark.parametrize(("named", "told"), [("numeric", True), ("categorical", False), ("", True)])
def test_rounded_integers_are_told_by_column_and_categories_of_a_csv_file_are_exact(tmp_path, named, told):
    numbers = big_integers()
    extra = {"id": numbers, "small": numbers - 2**53, "huge": np.full(120, 1e20), "half": np.linspace(0.5, 1e16, 120)}
    inputs = {named: ("id",)} if named else {}
    made = dataset(tmp_path, {name: values.astype(str).astype(object) for name, values in extra.items()}, **inputs)
    notes = [note for note in made.notes if "2**53" in note]
    assert ["column 'id' has integers above 2**53, which are rounded" in note for note in notes] == [True] * told
    if named == "categorical":
        (feature,) = made.preprocessing["features"]["categorical"]
        assert feature["values"] == sorted(str(number) for i, number in enumerate(numbers) if i % 4 < 2)  # of train


@pytest.mark.parametrize("kind", ["int64", "uint64", "float64", "object"])
def test_integers_of_a_frame_stay_exact_as_categories_or_are_told(kind):
    ids = big_integers().astype(kind)
    columns = frame_columns({"id": ids})
    features = fit_features(columns, np.arange(120), (), ("id",), ())
    assert len(features["categorical"][0]["values"]) == (61 if kind == "float64" else 120)
    notes = encoding_notes(columns, np.arange(120), features, 1)[1:]
    assert ["'id' has integers above 2**53" in note for note in notes] == [True] * (kind == "float64")


def test_every_bad_cell_is_a_problem_of_its_own(tmp_path):
    columns = people()
    columns["income"][[3, 5]], columns["hours"][[7, 9]] = "rich", ("many", '"7,5"')
    with pytest.raises(DataProblems) as error:
        dataset(tmp_path, columns)
    found = {
        (str(problem.place).rpartition(" ")[2], problem.cause.partition(",")[0]) for problem in error.value.problems
    }
    assert found == {
        ("5", "income is 'rich'"),
        ("7", "income is 'rich'"),
        ("9", "hours is 'many'"),
        ("11", "hours is '7"),
    }
    assert "(and 3 more)" in str(error.value)


@pytest.mark.parametrize("missing", [(), ("nan",)])
def test_a_matrix_with_nan_names_the_row_or_marks_the_gap(tmp_path, missing):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 3))
    matrix[[4, 6], 1] = np.nan
    split = np.resize(["train", "train", "val", "test"], 40)
    np.savez(tmp_path / "m.npz", x=matrix, income=np.resize(["low", "high", "high"], 40), split=split)
    if not missing:
        message = r"m.npz row 4: x is nan at position 1, not a number; add 'nan' to config.data.missing .*\(and 1 more"
        with pytest.raises(BadInput, match=message):
            arrays(str(tmp_path), 0, **SECTION | dict(file="m.npz", missing=missing))
    else:
        made = arrays(str(tmp_path), 0, **SECTION | dict(file="m.npz", missing=missing))
        rows = np.flatnonzero(split == "train")
        assert (made.train.inputs[:, 3].numpy() == np.isnan(matrix[rows, 1])).all()


def test_columns_together_have_the_statistics_of_each_alone():
    """Bit for bit, because older runs computed one column at a time."""
    rng = np.random.default_rng(0)
    for rows in (1, 7, 129, 5000):
        values = rng.normal(size=(rows, 12)) * 10.0 ** rng.integers(-3, 6, 12) + 3
        values[:, 3], values[1:, 4] = 7.1, np.nan
        parts = [values[:, [i]].copy() for i in range(12)]
        assert means_and_deviations(parts) == [means_and_deviations([part])[0] for part in parts]


def test_values_that_predictions_ignore_are_counted():
    train = frame_columns({"age": ["30", "40", "?"], "hours": [1.0, 2.0, 4.0], "work": ["state", "private", "state"]})
    features = fit_features(train, np.arange(3), ["age", "hours"], ["work"], ["?", "nan"])
    new = frame_columns({"age": ["?", "1"], "hours": [np.nan, 1.0], "work": ["abroad", "state"]})
    assert unfamiliar_values(train, features) == []
    assert unfamiliar_values(new, features) == [
        "work: 1 of 2 rows have a category that train has not, such as 'abroad' (data frame row 0); it is encoded as no category",
        "hours: 1 of 2 rows have no value (data frame row 0 is the first), which no row of train lacks; the mean of train stands for it",
    ]
    assert transform(new, features)[0].tolist()[-2:] == [0, 0]
    with pytest.raises(BadInput, match="data frame: no columns 'age', 'work', which are needed; the columns are hours"):
        transform(frame_columns({"hours": [1.0]}), features)


def test_a_column_is_numeric_if_most_values_are_numbers():
    columns = frame_columns({"a": ["1", "2", "x"], "b": ["1", "x", "y"], "c": ["", "", ""], "d": [1.0, np.nan, np.nan]})
    chosen = choose_inputs(columns, list(columns.values), ("",))
    assert chosen.numeric == ("a", "d") and chosen.categorical == ("c",) and "'b' is left out" in chosen.notes[0]


@pytest.mark.parametrize("kind", [np.float32, np.int64, str])
def test_a_number_may_stand_for_missing_values(kind):
    values = np.array([-999, 1, 2, -999, 3]).astype(kind)
    if kind is str:
        values = np.array(["-999", "1", "2", "-999", "3"], dtype=object)
    columns = frame_columns({"x": values})
    features = fit_features(columns, np.arange(5), ["x"], [], ["-999"])
    assert features["numeric"][0]["mean"] == [2.0] and features["numeric"][0]["gaps"] == [True]
    assert transform(columns, features)[:, 1].tolist() == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("kind", ["f4", "f8", object])
def test_the_text_of_a_value_does_not_depend_on_other_rows(kind):
    """A fraction or a missing value in one row must not change the category of another row."""
    for other in (2.5, np.nan, np.inf, 3.0, *([None] if kind is object else [])):
        texts = as_categories(np.array([1.0, -2.0, other], dtype=kind), "x").texts().tolist()
        assert texts == ["1", "-2", {3.0: "3", 2.5: "2.5", np.inf: "inf"}.get(other, "")]
    trained = frame_columns({"code": np.array([1.0, 2.0, 1.0])})
    features = fit_features(trained, np.arange(3), (), ("code",), ("", "nan"))
    for other in ([1.0, 2.5], [1, 7]):
        encoded = transform(frame_columns({"code": np.array(other, dtype=kind)}), features)
        assert encoded.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("missing", [(), ("",), ("nan",), ("", "nan")])
@pytest.mark.parametrize("null", [None, np.nan, "category", "float"])
def test_every_null_of_a_frame_is_the_missing_category(null, missing):
    """pandas writes a null in text as nan; a frame whose only value is a null has a column of floats."""
    trained = frame_columns({"work": np.array(["a", None, "b"], dtype=object)})
    features = fit_features(trained, np.arange(3), (), ("work",), missing)
    assert features["categorical"][0]["values"] == ["", "a", "b"]
    pandas = pytest.importorskip("pandas") if isinstance(null, str) else None
    works = [np.nan, np.nan] if null == "float" else ["b", null if pandas is None else None]
    frame = {"work": np.array(works, dtype=object)}
    if pandas is not None:
        frame = pandas.DataFrame({"work": pandas.Series(works, dtype=null)})
    expected = [[0, 0, 1], [1, 0, 0]] if null != "float" else [[1, 0, 0]] * 2
    assert transform(frame_columns(frame), features).tolist() == expected


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
def test_complex_numbers_are_refused_as_such(shape):
    with pytest.raises(BadInput, match="column 'x' has complex numbers; make the real and the imaginary parts columns"):
        frame_columns({"x": np.ones(shape, dtype=complex)}).categories("x")


def test_nan_among_objects_is_a_missing_number_where_missing_names_it():
    columns = frame_columns({"age": np.array([1, np.nan, 3], dtype=object)})
    for missing in (("nan",), ("",), ("", "nan")):
        assert fit_features(columns, np.arange(3), ("age",), (), missing)["numeric"][0]["mean"] == [2.0]
    with pytest.raises(BadInput, match="row 1: age is nan, not a number"):
        fit_features(columns, np.arange(3), ("age",), (), ())


def test_values_too_large_for_float32_are_refused_with_their_column(tmp_path):
    extra = {"huge": np.where(np.arange(120) % 2, "1e200", "-1e200")}
    with pytest.raises(BadInput, match=r"people.csv line 2: column 'huge' has a value that is too large for float32"):
        dataset(tmp_path, extra)
    trained = frame_columns({"x": np.array([0.0, 1.0, 3.0])})
    features = fit_features(trained, np.arange(3), ("x",), (), ("", "nan"))
    with pytest.raises(BadInput, match=r"^data frame row 1: column 'x' has a value that is too large for float32"):
        transform(frame_columns({"x": np.array([0.0, 1e300])}), features)


def test_large_values_that_standardise_well_stay(tmp_path):
    columns = frame_columns({"x": np.array([1e39, -1e39, 0.0, 0.0])})
    encoded = transform(columns, fit_features(columns, np.arange(4), ("x",), (), ()))
    np.testing.assert_allclose(encoded[:, 0], [2**0.5, -(2**0.5), 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        1e-200 * np.arange(-200, 200),
        1e12 + 0.01 * np.arange(400),
        2.0**63 + 2048 * np.arange(400),  # steps of float64
        1e18 + 1024 * np.resize([0.0, 1.0], 400),
        -5e15 + np.resize([0.0, 1.0, 2.0], 400),
    ],
)
def test_values_that_differ_in_their_last_digits_are_standardised(values):
    """scikit-learn takes some of these columns for constants, and leaves their differences undivided."""
    columns = frame_columns({"x": values})
    encoded = transform(columns, fit_features(columns, np.arange(400), ("x",), (), ()))[:, 0]
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / 400
    centred = np.array([float((value - mean) / Fraction(np.spacing(np.abs(values).max()))) for value in exact])
    # The mean is rounded to float64, so the result may be shifted by half the spacing of the values.
    np.testing.assert_allclose(encoded, centred / centred.std(), atol=0.6 / centred.std() + 1e-5)


@pytest.mark.parametrize("value", [5.0, 1e20, 2.0**63, 1e-200])
def test_a_constant_column_becomes_zero(value):
    columns = frame_columns({"x": np.full(400, value)})
    assert np.abs(transform(columns, fit_features(columns, np.arange(400), ("x",), (), ()))).max() == 0


def test_an_encoded_row_is_shown_as_it_was():
    """Zeros stay zeros, although float32 does not hold the mean of a column exactly."""
    columns = frame_columns(
        {
            "gain": np.array([0.0, 0.0, 12345.0, 99999.0]),
            "gap": np.array(["1.5", "?", "2", "3"], dtype=object),
            "job": np.array(["cook", "?", "dean", "cook"], dtype=object),
            "pair": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.25, 8.0]]),
        }
    )
    features = fit_features(columns, np.arange(4), ("gain", "gap", "pair"), ("job",), ("?",))
    rows = [decode_row(row, features) for row in transform(columns, features).tolist()]
    assert [row["gain"] for row in rows] == ["0", "0", "12345", "99999"]
    assert [row["gap"] for row in rows] == ["1.5", "missing", "2", "3"]
    assert [row["job"] for row in rows] == ["cook", "missing", "dean", "cook"]
    assert [row["pair"] for row in rows] == ["1, 2", "3, 4", "5, 6", "0.25, 8"]
    new = frame_columns({"gain": [1.0], "gap": ["1"], "job": ["smith"], "pair": np.array([[1.0, 1.0]])})
    assert decode_row(transform(new, features)[0].tolist(), features)["job"] == "not in train"

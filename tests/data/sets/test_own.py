"""One's own data: folders of images, arrays and columns in files, tensors and torch data sets."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.data_files import make_folder, people, save_image, write_csv
from helpers.pages import blocks, page
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import imbalance
from imbalance.config.resolve import load
from imbalance.data import LISTINGS, as_dataset
from imbalance.data.images.decode import Recipe, decode
from imbalance.data.sets.arrays import arrays
from imbalance.data.sets.folder import folder
from imbalance.data.sets.table import table
from imbalance.data.tables.columns import frame_columns, read_columns
from imbalance.data.tables.encoding import fit_features, transform
from imbalance.errors import BadInput
from imbalance.training.loop import train
from imbalance.training.stacked.train import train_stacked
from imbalance.utils.torchvision_import import import_torchvision

# Folders of images

FOLDER = dict(
    folder="birds", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=False, resize=20, size=16, augment=()
)


@pytest.mark.parametrize(
    ("parts", "fractions", "sizes"),
    [
        (("train", "val", "test"), dict(), [8, 8, 8]),
        (("train", "val"), dict(test_fraction=0.25), [6, 8, 2]),
        (("training", "test"), dict(val_fraction=0.5), [4, 4, 8]),
        ((".",), dict(val_fraction=0.25, test_fraction=0.5), [2, 2, 4]),
    ],
)
def test_a_folder_of_classes_is_a_data_set_with_or_without_folders_of_splits(tmp_path, parts, fractions, sizes):
    make_folder(tmp_path, parts)
    (tmp_path / "birds" / parts[0] / "land" / "notes.txt").write_text("no image")
    (tmp_path / "birds" / ".thumbnails").mkdir()
    dataset = folder(str(tmp_path), 0, **FOLDER | fractions)
    assert dataset.class_names == dataset.group_names == ("land", "water")
    for name, size in zip(("train", "val", "test"), sizes):
        assert dataset.class_counts(getattr(dataset, name)).tolist() == [size // 2] * 2
    (tmp_path / "birds" / ".thumbnails").rmdir()
    theirs = import_torchvision().datasets.ImageFolder(tmp_path / "birds" / parts[0])
    listing = LISTINGS["folder"](str(tmp_path), 0, **FOLDER | fractions)
    ours = {str(listing.folder / path): target for path, target in zip(listing.paths, listing.targets)}
    assert tuple(theirs.classes) == dataset.class_names
    assert theirs.samples == [(path, ours[path]) for path, _ in theirs.samples]


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (dict(classes=("land",)), dict(), r"config.data.folder: only the folder land in .*birds"),
        (dict(), dict(folder="cats"), r"config.data.folder: .*cats: No such file"),
        (dict(parts=("train", "val")), dict(), r"config.data.test_fraction: 0.0 given; it must be above 0"),
        (dict(), dict(val_fraction=0.1), r"config.data.val_fraction: 0.1 given; it must be 0.0, because .* has val examples"),
        (dict(parts=("train", "val", "test", "more")), dict(), r"folders of splits \(test, train, val\) beside another folder, more"),
        (dict(), dict(mode="L"), r"birds: test/land/0.png: an image of mode RGB, not L; convert it"),
        (dict(), dict(size=21), r"config.data.size: 21 given"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, make, change, reason):
    make_folder(tmp_path, **make)
    with pytest.raises(BadInput, match=reason) as error:
        folder(str(tmp_path), 0, **FOLDER | change)
    assert "\n" not in str(error.value)


def test_a_class_without_images_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "birds" / "val" / "sea").mkdir()
    (problem,) = LISTINGS["folder"](str(tmp_path), 0, **FOLDER).problems
    assert "val/sea: no image" in str(problem)


# Modes

CONVERT = (("convert", 0), ("shorter", 20), ("crop", 16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "RGB"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_images_of_other_modes_are_converted_on_request_only(tmp_path, mode, wanted):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    save_image(path, mode=mode)
    with Image.open(path) as image:
        expected = save_as(image.convert(wanted), tmp_path / "converted.png")
    assert (decode(path, Recipe(wanted, CONVERT)) == decode(expected, Recipe(wanted, CONVERT[1:]))).all()
    if mode != wanted:
        with pytest.raises(ValueError, match=f"an image of mode {mode}, not {wanted}; convert it"):
            decode(path, Recipe(wanted, CONVERT[1:]))


def save_as(image, path):
    image.save(path)
    return path


def test_sixteen_bits_are_not_cut_to_eight_unseen(tmp_path):
    Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="an image of mode I;16, not L"):
        decode(tmp_path / "deep.png", Recipe("L", CONVERT))


# Tables of images: names of columns, delimiter, no groups


def test_a_table_says_which_columns_it_means_and_needs_no_groups(tmp_path):
    lines = ["file;kind;part"]
    for part in ("train", "val", "test"):
        for label in ("b", "a"):
            save_image(tmp_path / f"{part}{label}.png")
            lines.append(f"{part}{label}.png;{label};{part}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    values = dict(file="list.csv", delimiter=";", folder="", path="file", target="kind", classes=("a", "b"), groups=(),
                  split="part", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=False, resize=20, size=16,
                  augment=())  # fmt: skip
    dataset = table(str(tmp_path), 0, **values)
    assert dataset.class_names == dataset.group_names == ("a", "b")
    assert dataset.train.targets.tolist() == dataset.train.groups.tolist() == [1, 0]


def test_table_small_learns_in_a_moment_from_scratch(tmp_path):
    """Light against dark noise, grey and with transparency too."""
    lines, rng = ["path,target"], np.random.default_rng(0)
    for i in range(80):
        pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8) + np.uint8(127 * (i % 2))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(("RGB", "L", "RGBA")[i % 3]).save(tmp_path / "images" / f"{i}.png")
        lines.append(f"{i}.png,{('negative', 'positive')[i % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    config = load(ROOT / "configs" / "table_small.py")
    config.update(data_dir=str(tmp_path), work_dir=str(tmp_path / "runs"))
    config.trainer.update(epochs=6, batch_size=16)
    assert train(config)["metrics"]["test/balanced_accuracy"] > 0.9


# Arrays and columns

PEOPLE = dict(file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("", "?"), target="income",
              classes=("low", "high"), groups=("sex", "income"), split="split", val_fraction=0.0, test_fraction=0.0)  # fmt: skip


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
    assert dataset.group_names == ("man, low", "man, high", "woman, low", "woman, high")
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
        (dict(target="wealth"), r"people.csv: no column 'wealth'; there are age, hours"),
        (dict(classes=("low", "middle")), r"people.csv line \d+: income is 'high', not one of low, middle"),
        (dict(classes=("low", "low")), r"config.data.classes"),
        (dict(groups=("sex", "sex")), r"config.data.groups"),
        (dict(categorical=("work", "work")), r"'work' appears twice"),
        (dict(categorical=("work", "income")), r"'income' is the target, which must not be an input"),
        (dict(split=""), r"config.data.val_fraction: 0.0 given"),
        (
            dict(split="", val_fraction=0.2, test_fraction=0.2),
            r"column 'split' holds the splits .* set config.data.split=split",
        ),
        (dict(split="sex"), r"sex is '.*', not one of train, val, test"),
        (dict(file="none.csv"), r"none.csv: No such file"),
        (dict(file="none.npz"), r"none.npz: No such file"),
        (dict(file="people.xls"), r"people.xls: no such file"),
        (dict(delimiter=";"), r"no column 'income'; there are age,hours,work"),
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
    values = PEOPLE | dict(file="images.npz", target="target", classes=("0", "1"), groups=(), missing=())
    dataset = arrays(str(tmp_path), 0, **values)
    first = np.moveaxis(images, -1, 1) if layout == "NHWC" else images.reshape(12, -1, 8, 9)
    assert (dataset.test.inputs.numpy() == first[part == "test"]).all()
    pixels = first[part == "train"] / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)), rtol=1e-12)


# Data of a program


def parts(n=12, groups=False, dtype=torch.float32):
    def one(seed):
        inputs = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
        targets = torch.arange(n) % 3
        return (inputs, targets, targets // 2) if groups else (inputs, targets)

    return {name: one(seed) for seed, name in enumerate(("train", "val", "test"))}


def test_tensors_arrays_and_torch_data_sets_are_the_same_data():
    data = parts(groups=True)
    ours = as_dataset(data, group_names=("a", "b"))
    arrays = as_dataset({name: tuple(np.asarray(v) for v in values) for name, values in data.items()})
    of_torch = as_dataset({name: torch.utils.data.TensorDataset(*values) for name, values in data.items()})
    for other in (arrays, of_torch):
        for name in ("train", "val", "test"):
            one, two = getattr(ours, name), getattr(other, name)
            assert torch.equal(one.inputs, two.inputs) and torch.equal(one.groups, two.groups)
    assert ours.class_names == ("0", "1", "2") and ours.group_names == ("a", "b")
    assert as_dataset(parts()).group_names == ("0", "1", "2")
    assert as_dataset(ours) is ours


def changed(change):
    data = parts()
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([1, 2], "list given; a Dataset, or a mapping with just train, val, test, is needed"),
        (changed(lambda d: d.pop("val")), "a mapping with train, test given"),
        (
            changed(lambda d: d.update(val=(torch.zeros(12, 4), torch.arange(12) % 3))),
            r"data\['val'\]: inputs have shape and type \(\(4,\)",
        ),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5), torch.rand(12)))), "targets must be 12 whole numbers"),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5), torch.arange(11)))), "targets must be 12 whole numbers"),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5).long(), torch.arange(12)))), "int64 of shape"),
        (changed(lambda d: d.update(val=(torch.full((12, 5), torch.nan), torch.arange(12)))), "not finite"),
        (changed(lambda d: d.update(test=(*d["test"], d["test"][1]))), r"data\['train'\]: no groups given"),
        (changed(lambda d: d.update(test=3)), r"data\['test'\]: int given; a tuple or a map-style torch data set"),
    ],
)
def test_what_is_wrong_with_given_data_is_one_line(data, reason):
    with pytest.raises(BadInput, match=reason):
        as_dataset(data)


def test_a_run_takes_the_data_of_a_program_and_says_so(config):
    """It is trained, evaluated and loaded like any other, and cannot be run from its config alone."""
    data, directory = parts(n=30), Path(config.work_dir) / "given"
    config.model = dict(name="linear", init="default")
    result = imbalance.run(config, directory=directory, data=data)
    assert result.directory == directory
    assert load(directory / "config.json").data.to_dict() == {"name": "in_memory"} and config.data.name == "digits"
    with np.load(directory / "predictions" / "test.npz") as saved:
        expected = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    found = imbalance.load(directory).predict(data["test"][0])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert imbalance.run(config, directory=directory, data=data).score == result.score
    with pytest.raises(
        BadInput, match="config.data.name: 'in_memory' means data that a program passed to imbalance.run"
    ):
        imbalance.run(directory / "config.json", directory=directory.with_name("again"))


def test_the_first_run_of_two_has_the_data_of_the_program_too(config):
    config.model = dict(name="linear", init="default")
    config.weights = dict(name="just_train_twice", first_epochs=1, upweight=5.0)
    directory = Path(config.work_dir) / "given"
    imbalance.run(config, directory=directory, data=parts(n=30))
    assert (directory / "first" / "summary.json").is_file()


def test_the_documented_command_goes_from_a_csv_file_to_a_comparison_by_worst_group(tmp_path):
    """Two of its four methods, for two seeds and an epoch each."""
    (text,) = [block for block in blocks(page("how-to/data.md"), "sh") if "data.file=people.csv" in block]
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "people.csv", {key: values for key, values in people().items() if key != "split"})
    command = text.replace("arrays_ce,arrays_poly,", "").replace("--seeds=5", "--seeds=2 --jobs=1")
    command = command.replace("imbalance compare", f"{sys.executable} -m imbalance compare --config.trainer.epochs=1")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test/worst_group_accuracy" in done.stdout and "| arrays_dro |" in done.stdout
    summaries = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert len(summaries) == 4
    for summary in summaries:
        groups = [key for key in summary["metrics"] if key.startswith("test/group_accuracy/")]
        assert len(groups) == 4 and summary["metrics"]["test/worst_group_accuracy"] is not None


def test_other_data_of_a_program_do_not_go_on_in_the_directory(config):
    config.model = dict(name="linear", init="default")
    directory, data = Path(config.work_dir) / "given", parts(n=30)
    imbalance.run(config, directory=directory, data=data)
    data["val"] = (data["val"][0] + 1, data["val"][1])
    with pytest.raises(BadInput, match=r"these are not the data that .*summary.json is of \(val"):
        imbalance.run(config, directory=directory, data=data)


def test_seeds_whose_train_has_other_categories_are_trained_at_once_with_their_like(tmp_path):
    """A value that is there once is in train for some seeds only, and so one column more."""
    columns = {key: values for key, values in people().items() if key != "split"}
    columns["work"][3] = "rare"
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "people.csv", columns)
    config = load(ROOT / "configs" / "arrays_erm.py")
    config.update(data_dir=str(tmp_path / "data"), work_dir=str(tmp_path))
    config.data.update({key: PEOPLE[key] for key in ("file", "missing", "target", "classes", "groups")})
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

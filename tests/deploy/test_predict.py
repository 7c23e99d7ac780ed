"""What was trained, used: loaded from its run directory alone, predicting, exported, the start of another run."""

import csv
import json
import os
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.data_files import save_image
from helpers.pages import blocks, page
from helpers.texts import text_config
from PIL import Image

import imbalance
from imbalance.cli.main import call
from imbalance.config.resolve import load as load_config
from imbalance.config.schema import build
from imbalance.data import frame_dataset
from imbalance.deploy import export
from imbalance.deploy.predict import export_file, headings, predict_files
from imbalance.errors import BadInput
from imbalance.models import MODELS
from imbalance.models.artifact import check_same_inputs, prepared_as_in_run
from imbalance.training.loop import train


def trained(folder, name, **data):
    """The directory of a short run of configs/<name>, whose data is then gone."""
    config = load_config(ROOT / "configs" / f"{name}.py")
    config.update(data_dir=str(folder / "data"), work_dir=str(folder / "runs"))
    config.data.update(data)
    config.trainer.update(epochs=2, batch_size=32)
    if config.head.name == "dpe":
        config.head.update(members=3, epochs=5)
    if config.model.name.startswith("resnet1"):
        config.model = dict(name="resnet18", pretrained="", frozen=False)
    return config, train(config)["run_directory"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run on a folder of images of all sizes, and the test images, elsewhere."""
    folder = tmp_path_factory.mktemp("pictures")
    for part in ("train", "val", "test"):
        for label in ("land", "water"):
            for i in range(6):
                path = folder / "data" / "images" / part / label / f"{i}.png"
                save_image(path, size=(40 + i, 32 + 3 * i), seed=len(part + label) + i, mode="LA" if i == 3 else "RGB")
    sizes = dict(
        convert=True,
        reduce=False,
        resize=24,
        size=20,
        val_fraction=0.0,
        test_fraction=0.0,
        images_from="store",
        augment=("flip",),
    )
    _, directory = trained(folder, "folder_ce", **sizes)
    shutil.move(folder / "data" / "images" / "test", folder / "test")
    shutil.rmtree(folder / "data")
    return directory, folder / "test"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A run on columns with gaps, and the file of its test rows, without their target."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    rows = [
        dict(age=("" if i % 5 == 0 else str(rng.integers(18, 90))), work=rng.choice(["a", "b", "c"]), target=str(i % 2))
        for i in range(120)
    ]
    for i, row in enumerate(rows):
        row["split"] = ("train", "train", "train", "val", "test")[i * 5 // 120]
    (folder / "data").mkdir()
    write(folder / "data" / "table.csv", rows)
    _, directory = trained(folder, "arrays_erm", missing=("",), split="split", val_fraction=0.0, test_fraction=0.0)
    shutil.rmtree(folder / "data")
    test = [{key: row[key] for key in ("work", "age")} for row in rows if row["split"] == "test"]
    write(folder / "test.csv", test)
    return directory, folder / "test.csv"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("digits"), "digits_poly")[1]


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("prototypes"), "colored_digits_dpe")[1]


def write(path, rows):
    with open(path, "w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def of_run(directory, split="test"):
    """(N, K) probabilities that the run itself saved, and the rows of the data set."""
    with np.load(f"{directory}/predictions/{split}.npz") as saved:
        return torch.from_numpy(saved["logits"]).softmax(1).numpy(), saved["indices"]


def test_a_loaded_model_predicts_image_files_as_its_run_did_without_its_data(pictures):
    directory, folder = pictures
    model = imbalance.load(directory)
    paths = [path for label in ("land", "water") for path in sorted((folder / label).iterdir())]
    found = model.predict(paths, batch_size=5)
    np.testing.assert_allclose(found.probabilities, of_run(directory)[0], atol=1e-6)
    assert found.classes == [model.class_names[i] for i in found.probabilities.argmax(1)]
    images = [Image.open(path) for path in paths]
    np.testing.assert_allclose(model.predict(images).probabilities, found.probabilities, atol=1e-6)
    np.testing.assert_allclose(model.predict(str(paths[2])).probabilities, found.probabilities[2:3], atol=1e-6)
    np.testing.assert_allclose(model.predict(images[2]).probabilities, found.probabilities[2:3], atol=1e-6)
    pixels = np.stack([model.pixels(path) for path in paths])
    np.testing.assert_allclose(model.predict(pixels).probabilities, found.probabilities, atol=1e-6)
    np.testing.assert_allclose(
        model.predict(torch.from_numpy(pixels)[1]).probabilities, found.probabilities[1:2], atol=1e-6
    )


@pytest.mark.parametrize("column", ["series", "index", "array", "objects", "polars", "pyarrow"])
def test_a_column_of_image_files_is_predicted_as_a_list_of_them(pictures, column):
    directory, folder = pictures
    paths = [str(path) for path in sorted((folder / "land").iterdir())]
    if column in ("polars", "pyarrow"):
        library = pytest.importorskip(column)
        names = library.Series(paths) if column == "polars" else library.array(paths)
    elif column in ("series", "index"):
        pandas = pytest.importorskip("pandas")
        names = pandas.Series(paths, index=range(5, 5 + len(paths))) if column == "series" else pandas.Index(paths)
    else:
        names = np.array(paths) if column == "array" else np.array([Path(path) for path in paths])
    model = imbalance.load(directory, "cpu")
    np.testing.assert_array_equal(model.predict(names).probabilities, model.predict(paths).probabilities)


def test_a_folder_is_predicted_as_its_images(pictures, tmp_path):
    directory, folder = pictures
    model = imbalance.load(directory)
    paths = sorted((folder / "land").iterdir())
    np.testing.assert_array_equal(model.predict(folder / "land").probabilities, model.predict(paths).probabilities)
    with pytest.raises(BadInput, match="a folder without image files; this model takes image files"):
        model.predict(str(tmp_path))


def test_a_model_converts_images_as_its_training_did(pictures, tmp_path):
    """Of a run with convert=True; the images are the middle grey in four modes, and transparent."""
    model = imbalance.load(pictures[0])
    model = replace(model, about=model.about | {"preprocessing": model.about["preprocessing"] | {"steps": []}})
    grey = {"L": 128, "LA": (128, 0), "RGBA": (128, 128, 128, 0), "I;16": 128 * 257}
    images = [Image.new(mode, (20, 20), value) for mode, value in grey.items()]
    with pytest.raises(BadInput, match="image of mode L, not RGB; convert it, or set config.data.convert=True"):
        model.predict(images)
    model.about["preprocessing"]["steps"].append(("convert", 0))
    expected = model.predict(np.full((4, 3, 20, 20), 128, dtype=np.uint8)).probabilities
    np.testing.assert_array_equal(model.predict(images).probabilities, expected)


def test_an_image_without_pixels_is_refused(pictures):
    with pytest.raises(BadInput, match="0×5 pixels; an image has at least one"):
        imbalance.load(pictures[0]).predict([Image.new("RGB", (0, 5))])


def test_a_model_of_arrays_converts_images_of_other_modes(pictures):
    """Training on arrays has no config value that could refuse them."""
    model = imbalance.load(pictures[0])
    model = replace(model, about=model.about | {"preprocessing": {}})
    expected = model.predict(np.full((1, 3, 20, 20), 7, dtype=np.uint8)).probabilities
    np.testing.assert_array_equal(model.predict(Image.new("LA", (20, 20), (7, 9))).probabilities, expected)


def test_a_loaded_model_predicts_arrays_as_its_run_did(digits):
    from imbalance.data import DATASETS

    config = load_config(f"{digits}/config.json")
    test = build(DATASETS, config.data, data_dir="", seed=config.seed).test
    model = imbalance.load(digits)
    assert model.class_names == tuple("0123456789") and not model.network.training
    found = model.predict(test.inputs, batch_size=100)
    np.testing.assert_allclose(found.probabilities, of_run(digits)[0], atol=1e-6)
    np.testing.assert_allclose(model.predict(test.inputs[3].numpy()).probabilities, found.probabilities[3:4], atol=1e-6)
    assert model.predict([]).probabilities.shape == (0, 10)


@pytest.mark.parametrize("method", ["lff", "irm", "dfr", "dpe"])
def test_models_of_methods_that_wrap_them_or_change_their_head_are_loaded(method, tmp_path):
    from imbalance.data import DATASETS

    config, directory = trained(tmp_path, f"colored_digits_{method}")
    test = build(DATASETS, config.data, data_dir="", seed=config.seed).test
    found = imbalance.load(directory).predict(test.inputs)
    np.testing.assert_allclose(found.probabilities, of_run(directory)[0], atol=1e-6)


def test_a_loaded_model_predicts_tables_as_its_run_did(people):
    directory, file = people
    model = imbalance.load(directory)
    with open(file) as text:
        rows = list(csv.DictReader(text))
    columns = {name: [row[name] for row in rows] for name in ("age", "work")}
    expected, _ = of_run(directory)
    np.testing.assert_allclose(model.predict(columns).probabilities, expected, atol=1e-6)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_allclose(model.predict(pandas.DataFrame(columns)).probabilities, expected, atol=1e-6)
    numbers = pandas.DataFrame(columns).assign(age=[float(age or "nan") for age in columns["age"]])
    np.testing.assert_allclose(model.predict(numbers).probabilities, expected, atol=1e-6)


def test_an_array_is_encoded_as_the_column_of_a_table(tmp_path):
    """The run reads one column of vectors, far from mean 0; `predict` standardises a plain array of it as the run did."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 90)
    vectors = 50 + 7 * rng.normal(size=(90, 3)) + 9 * targets[:, None]
    split = np.repeat(["train", "val", "test"], 30)
    np.savez(tmp_path / "vectors.npz", vectors=vectors, target=targets, split=split)
    overrides = {"data.file": "vectors.npz", "data.split": "split", "data.val_fraction": 0.0, "data.test_fraction": 0.0}
    overrides |= {"data_dir": str(tmp_path), "trainer.epochs": 1}
    imbalance.run("arrays_erm", overrides, directory=tmp_path / "run")
    expected, model = of_run(tmp_path / "run")[0], imbalance.load(tmp_path / "run", "cpu")
    structured = np.zeros(30, dtype=[("vectors", float, (3,))])
    structured["vectors"] = vectors[60:]
    for examples in (vectors[60:], torch.from_numpy(vectors[60:]), structured, {"vectors": vectors[60:]}):
        np.testing.assert_allclose(model.predict(examples).probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(vectors[60]).probabilities, expected[:1], atol=1e-6)
    np.save(tmp_path / "plain.npy", vectors[60:])
    np.testing.assert_allclose(
        model.predict(model.read_columns(tmp_path / "plain.npy")).probabilities, expected, atol=1e-6
    )
    for wrong in (vectors[:, :2], vectors[None]):
        with pytest.raises(BadInput, match=r"an array of float64 of shape .* given; this model takes tables"):
            model.predict(wrong)


def test_an_array_is_never_taken_for_encoded_columns(people):
    model = imbalance.load(people[0], "cpu")
    with pytest.raises(
        BadInput, match=r"an array of float64 of shape \(4, \d+\) given; this model takes tables with col"
    ):
        model.predict(np.zeros((4, *model.input_shape)))


def test_a_pillow_image_is_turned_by_its_exif_data_as_its_file_is(pictures, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 22, 3), dtype=np.uint8)
    model, exif = imbalance.load(pictures[0], "cpu"), Image.Exif()
    for orientation in (1, 3, 6, 7):
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        expected = model.pixels(tmp_path / "turned.png")
        np.testing.assert_array_equal(model.pixels(Image.open(tmp_path / "turned.png")), expected)
    assert (expected != model.pixels(Image.fromarray(pixels))).any()


def test_another_separator_is_told_without_a_config_which_predict_does_not_have(people, tmp_path):
    (tmp_path / "t.csv").write_text("age;work;sex\n30;clerk;f\n")
    with pytest.raises(
        BadInput, match="the only column is 'age;work;sex'; separate the columns by commas as in the training data$"
    ):
        model = imbalance.load(people[0], "cpu")
        model.predict(model.read_columns(tmp_path / "t.csv"))


def test_a_model_of_arrays_reads_no_table(digits, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 1, 8, 8)))
    with pytest.raises(BadInput, match=r"a table given; this model takes arrays \(N, 1, 8, 8\)"):
        imbalance.load(digits).read_columns(tmp_path / "a.npy")


def test_what_a_model_does_not_take_is_one_line(pictures, people, digits, tmp_path):
    picture, table, digit = (imbalance.load(directory) for directory in (pictures[0], people[0], digits))
    (tmp_path / "text.png").write_text("no image")
    for model, examples, words in [
        (picture, [tmp_path / "none.png"], r"none.png: no such file"),
        (picture, [tmp_path / "text.png"], r"text.png: not an image"),
        (
            picture,
            torch.zeros(2, 3, 20, 20),
            r"float32 of shape \(2, 3, 20, 20\) given; .* image files or arrays \(N, 3, 20",
        ),
        (picture, np.zeros((2, 20, 20, 3), dtype=np.uint8), r"shape \(2, 20, 20, 3\) given"),
        (picture, {"age": [1]}, r"a table given; this model takes image files"),
        (picture, [3], r"int given"),
        (digit, torch.tensor([1.0, torch.nan]).view(2, 1, 1, 1).expand(2, 1, 8, 8), r"row 1: a value is not finite"),
        (digit, np.array(["a", "b"]), r"<U1 given; this model takes arrays \(N, 1, 8, 8\) of floats"),
        (digit, 3, r"shape \(\) given"),
        (digit, None, r"NoneType given"),
        (digit, "a.png", r"a.png: the name of a file given; this model takes arrays \(N, 1, 8, 8\) of floats"),
        (table, {"age": ["1"]}, r"no column 'work', which is needed; the columns are age"),
        (table, {"age": ["x"], "work": ["a"]}, r"row 0: age is 'x', not a number"),
    ]:
        with pytest.raises(BadInput, match=words):
            model.predict(examples)


def test_a_run_that_is_not_done_or_damaged_is_one_line(digits, tmp_path):
    with pytest.raises(BadInput, match=r"nothing: no trained model: model.json is missing; this is no run directory"):
        imbalance.load(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file: no trained model"):
        imbalance.load(tmp_path / "file")
    for device in ("gpu", "cuda:99", "meta"):
        with pytest.raises(
            BadInput, match=rf"device: '{device}' given, which this machine cannot use \(.*\); use 'cpu'$"
        ):
            imbalance.load(digits, device)
    copy = shutil.copytree(digits, tmp_path / "copy")
    (copy / "checkpoints" / "selected.pt").unlink()
    (copy / "summary.json").write_text(json.dumps({"status": "diverged"}))
    with pytest.raises(BadInput, match=r"selected.pt is missing; the run is diverged"):
        imbalance.load(copy)
    (copy / "checkpoints" / "selected.pt").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"selected.pt: damaged"):
        imbalance.load(copy)


# Commands


def predicted(run, *files, output, batch_size=256):
    """What the command line calls."""
    return predict_files(run=run, files=list(map(str, files)), output=str(output), batch_size=batch_size, device=None)


def test_predict_writes_a_line_an_example(pictures, people, tmp_path):
    directory, folder = pictures
    output = tmp_path / "predictions.csv"
    one, rest = sorted((folder / "land").iterdir())[0], folder / "water"
    assert predicted(directory, one, rest, output=output, batch_size=4) == f"{output}: 7 predictions"
    with open(output) as text:
        rows = list(csv.DictReader(text))
    expected = of_run(directory)[0][[0, *range(6, 12)]]
    assert [row["file"] for row in rows] == [str(one), *map(str, sorted(rest.iterdir()))]
    np.testing.assert_allclose([[float(row["land"]), float(row["water"])] for row in rows], expected, atol=1e-5)
    assert [row["class"] for row in rows] == [("land", "water")[i] for i in expected.argmax(1)]

    directory, file = people
    predicted(directory, file, output=output)
    with open(output) as text:
        rows = list(csv.DictReader(text))
    assert [row["row"] for row in rows] == [str(i) for i in range(24)]
    np.testing.assert_allclose([float(row["1"]) for row in rows], of_run(directory)[0][:, 1], atol=1e-5)


def test_predict_takes_array_files_for_models_of_arrays(digits, tmp_path):
    np.save(tmp_path / "new.npy", np.zeros((3, 1, 8, 8), dtype=np.float32))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    output = tmp_path / "out.csv"
    predicted(digits, tmp_path / "new.npy", output=output)
    assert len(output.read_text().splitlines()) == 4
    np.save(tmp_path / "number.npy", 3.0)
    with pytest.raises(BadInput, match="number.npy: a single number; this model takes arrays"):
        predicted(digits, tmp_path / "number.npy", output=output)
    with pytest.raises(BadInput, match="FILE: '' given"):
        predicted(digits, "", output=output)
    with pytest.raises(BadInput, match="two.npz: 2 arrays; this model takes a single one"):
        predicted(digits, tmp_path / "two.npz", output=output)


def test_a_prediction_that_fails_leaves_what_was_there(pictures, tmp_path):
    directory, folder = pictures
    bad, output = tmp_path / "bad.png", tmp_path / "predictions.csv"
    bad.write_text("no image")
    output.write_text("file,row,class\n")
    with pytest.raises(BadInput, match="bad.png: not an image"):
        predicted(directory, folder, bad, output=output, batch_size=2)
    with pytest.raises(BadInput, match="none: no such file"):
        predicted(directory, tmp_path / "none", output=output)
    with pytest.raises(BadInput, match="--output: .*in a folder that does not exist"):
        predicted(directory, folder, output=tmp_path / "no" / "p.csv")
    assert output.read_text() == "file,row,class\n" and sorted(p.name for p in tmp_path.iterdir()) == [
        "bad.png",
        "predictions.csv",
    ]


# Export


@pytest.mark.parametrize("which", ["pictures", "people", "digits", "prototypes"])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".safetensors"])
def test_an_exported_model_has_the_models_outputs_at_any_batch_size(which, suffix, request, tmp_path):
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="the extra 'onnx' is not installed")
    directory = request.getfixturevalue(which)
    directory = directory if isinstance(directory, str) else directory[0]
    model, path = imbalance.load(directory), tmp_path / f"model{suffix}"
    assert export_file(run=directory, file=str(path)).startswith(str(path))
    batch = export.random_inputs(model, 7)
    about = json.loads(json.dumps(model.about))
    if suffix == ".pt2":
        extra = {"model.json": ""}
        outputs = torch.export.load(path, extra_files=extra).module()(batch)
        assert json.loads(extra["model.json"]) == about
    elif suffix == ".onnx":
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        outputs = torch.from_numpy(session.run(["logits"], {"inputs": batch.numpy()})[0])
        (saved,) = onnx.load(path).metadata_props
        assert json.loads(saved.value) == about
    else:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            assert json.loads(file.metadata()["model"]) == about
        selected = torch.load(f"{directory}/checkpoints/selected.pt", weights_only=True)
        assert state.keys() == selected.keys() and all(torch.equal(state[key], selected[key]) for key in state)
        return
    torch.testing.assert_close(outputs, model.logits(batch), rtol=1e-4, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_export_that_computes_something_else_is_not_kept(digits, tmp_path, monkeypatch):
    def wrong(model, path, about):
        path.write_text("")
        return lambda batch: model.logits(batch) + 0.1

    monkeypatch.setitem(export.WRITERS, ".pt2", wrong)
    with pytest.raises(ArithmeticError, match="the logits of the exported model differ by"):
        imbalance.load(digits).export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path / "file" / "model.pt2", "in a folder that does not exist; make the folder first"),
        (tmp_path, "the name must end in one of"),
    ]:
        with pytest.raises(BadInput, match=words):
            imbalance.load(digits).export(path)
    with pytest.raises(BadInput, match=r"model.h5: the name must end in one of .pt2, .onnx, .safetensors"):
        imbalance.load(digits).export(tmp_path / "model.h5")


# One run from another


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_starts_from_the_features_of_another(pictures, frozen):
    directory, _ = pictures
    section = dict(name="resnet18", pretrained=directory, frozen=frozen)
    torch.manual_seed(1)
    model = build(MODELS, section, input_shape=(3, 20, 20), num_classes=4).eval()
    images = torch.randn(2, 3, 20, 20)
    with torch.inference_mode():
        assert torch.equal(model.features(images), imbalance.load(directory).network.features(images))
    assert model(images).shape == (2, 4)


def test_a_run_starts_only_from_a_run_on_the_same_columns(people):
    rows = {"age": ["1", "2", ""] * 20, "work": ["a", "b", "c"] * 20, "target": ["0", "1"] * 30}
    section = dict(name="pretrained", pretrained=str(people[0]))

    def prepared(**changes):
        numeric, categorical = changes.pop("numeric", ("age",)), changes.pop("categorical", ("work",))
        return prepared_as_in_run(
            section, frame_dataset(rows | changes, 0, target="target", numeric=numeric, categorical=categorical)
        )

    assert prepared().input_shape == imbalance.load(people[0], "cpu").input_shape
    assert prepared(age=["5", "7", ""] * 20).num_classes == 2  # other numbers are standardised anew
    for changes, words in (
        (dict(years=rows["age"], numeric=("years",)), "where it has age, config.data has years"),
        (dict(work=["a", "b", "d"] * 20), r"where it has work \(a b c\), config.data has work \(a b d\)"),
        (dict(categorical=()), r"where it has work \(a b c\), config.data has no column"),
    ):
        with pytest.raises(BadInput, match=f"^config.model.pretrained: .* was trained on other inputs: {words}"):
            prepared(**changes)


def test_a_run_starts_only_from_a_run_with_the_same_tokenizer():
    """A number of a token means another word in a vocabulary of the same size that was learnt on other texts."""
    one, other = ({"kind": "texts", "tokenizer": f'{{"good": {number}}}'} for number in (1, 2))
    check_same_inputs("--run", "run", one, dict(one))
    with pytest.raises(BadInput, match="^--run: run was trained with another tokenizer"):
        check_same_inputs("--run", "run", one, other)


def test_images_are_normalised_as_in_the_run_that_a_run_starts_from(tmp_path):
    def images(low, high):
        rng = np.random.default_rng(low)
        targets = np.arange(12) % 2
        return {
            name: (rng.integers(low, high, (12, 3, 4, 4), dtype=np.uint8), targets) for name in ("train", "val", "test")
        }

    short, dark = {"trainer.epochs": 1}, images(0, 60)
    first = imbalance.run("arrays_erm", short, data=images(150, 255), directory=tmp_path / "first").directory
    config = load_config(ROOT / "configs" / "arrays_erm.py")
    config.model = dict(name="pretrained", pretrained=str(first))
    config.optim.lr, config.trainer.epochs = 1e-12, 1  # the features stay those of the first run
    second = imbalance.run(config, data=dark, directory=tmp_path / "second").directory
    one, two = imbalance.load(first, "cpu"), imbalance.load(second, "cpu")
    assert (two.about["mean"], two.about["std"]) == (one.about["mean"], one.about["std"])
    torch.testing.assert_close(two.features(dark["test"][0]), one.features(dark["test"][0]))


def test_a_run_of_another_network_is_no_start(digits):
    with pytest.raises(
        BadInput, match=r"^config.model.pretrained: no weights from .*or the directory of a run that trained it"
    ):
        build(MODELS, dict(name="resnet18", pretrained=digits, frozen=False), input_shape=(3, 20, 20), num_classes=2)


def test_the_documented_example_predicts_and_exports(pictures, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    directory, _ = pictures
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png"):
        save_image(tmp_path / name)
    with_package, _, without = blocks(page("how-to/predict.md"), "python")
    names = {}
    exec(with_package.replace("runs/folder_ce/default/seed=0", directory), names)
    assert names["probabilities"].shape == (2, 2) and set(names["classes"]) <= {"land", "water"}
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (31, 47), dtype=np.uint16))
    for image in (Image.open(tmp_path / "a.jpg"), grey, Image.new("RGBA", (30, 40), (7, 80, 200, 0))):
        image.save(tmp_path / "a.jpg", format="PNG")
        exec(without, names)
        of_logits = torch.from_numpy(names["logits"]).softmax(0)
        np.testing.assert_allclose(of_logits, names["model"].predict("a.jpg").probabilities[0], atol=1e-4)


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory):
    config = load_config(ROOT / "configs" / "digits_ce.py")
    config.data.update(total=60, imbalance_ratio=2.0)
    config.model = dict(name="linear", init="default")
    config.trainer.epochs = 1
    return imbalance.load(imbalance.run(config, directory=tmp_path_factory.mktemp("digits") / "run").directory)


ARRAY = np.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (None, "^NoneType given; this model takes arrays"),
        ({}, "^a table given; this model takes arrays"),
        (ARRAY + 0j, "^complex128 given"),
        (torch.from_numpy(ARRAY).to_sparse(), "given; this model takes arrays"),
        (ARRAY * 1e300, "^row 0: a value is not finite, or too large for float32"),
        (np.ma.masked_array(ARRAY, ARRAY > 0), "^a masked array given"),
    ],
    ids=["None", "empty mapping", "complex", "sparse", "too large", "masked"],
)
def test_examples_that_a_model_of_arrays_cannot_take_are_one_line(digits_model, examples, words):
    with pytest.raises(BadInput, match=words):
        digits_model.predict(examples)


def test_arrays_in_another_order_of_memory_are_the_same_examples(digits_model):
    expected = digits_model.predict(ARRAY).probabilities
    for same in (ARRAY[::-1].copy()[::-1], ARRAY.astype(">f8"), np.asfortranarray(ARRAY), np.ma.masked_array(ARRAY)):
        np.testing.assert_array_equal(digits_model.predict(same).probabilities, expected)


@pytest.mark.parametrize("size", [0, -1, None, 2.5, True, "a", 10**30])
def test_a_wrong_batch_size_is_one_line(digits_model, size):
    with pytest.raises(BadInput, match="^batch_size: .* given; an integer from 1 on is needed$"):
        digits_model.predict(ARRAY, size)


def test_logits_and_features_take_arrays_and_refuse_what_is_no_batch(digits_model, people):
    expected = digits_model.logits(torch.from_numpy(ARRAY).float())
    assert digits_model.logits(ARRAY).equal(expected)  # pyright: ignore[reportArgumentType]
    table = imbalance.load(people[0], "cpu")
    for model, batch, words in (
        (
            digits_model,
            torch.zeros(2, 8, 8),
            r"inputs of float32 of shape \(2, 8, 8\) given; this network takes floats",
        ),
        (digits_model, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "inputs of uint8"),
        (digits_model, "a.png", "given; this model takes arrays"),
        (table, {"age": ["1"], "work": ["a"]}, "dict given; give a batch that `batches` yields"),
    ):
        for method in (model.logits, model.features):
            with pytest.raises(BadInput, match=words):
                method(batch)


def test_the_methods_of_tables_take_frames_and_paths_and_refuse_other_kinds(people, digits_model):
    table, rows = imbalance.load(people[0], "cpu"), {"age": ["1", "2"], "work": ["a", "new"]}
    assert table.unfamiliar_values(rows)[0].startswith("work: 1 of 2 rows")  # pyright: ignore[reportArgumentType]
    assert torch.cat(list(table.encoded_parts(rows))).equal(table.encode_columns(rows))  # pyright: ignore[reportArgumentType]
    assert list(table.read_columns(str(people[1])).values) == list(table.read_columns(people[1]).values)
    with pytest.raises(BadInput, match="^file: 3 given; the path of a file is needed$"):
        table.read_columns(3)  # pyright: ignore[reportArgumentType]
    for model in (table, digits_model):
        for method in (model.as_texts, model.empty_texts):
            with pytest.raises(BadInput, match="^texts given; this model takes"):
                method(["a text"])


@pytest.mark.parametrize("path", [None, 3, b"run", "a\0b", []])
def test_what_is_no_path_is_one_line(digits_model, path):
    with pytest.raises(BadInput, match="^run_directory: .* given; the path of a run directory is needed$"):
        imbalance.load(path)
    with pytest.raises(BadInput, match="^path: .* given; the path of a file is needed$"):
        digits_model.export(path)


def test_a_model_on_a_gpu_that_computes_in_tf32_is_exported(digits, tmp_path, standin):
    """Its own outputs differ from those of the file by more than is allowed; those of a copy on the CPU do not."""
    on_cpu, path = imbalance.load(digits, device="cpu"), tmp_path / "model.pt2"
    batch = export.random_inputs(on_cpu, 5)
    with standin(tf32=True):
        model = imbalance.load(digits, device="standin:0")
        difference = (model.logits(batch).cpu() - on_cpu.logits(batch)).abs().max()
        model.export(path)
        assert model.device.type == next(model.network.parameters()).device.type == "standin"
    assert difference > export.TOLERANCE * on_cpu.logits(batch).abs().max().clamp(min=1)
    torch.testing.assert_close(torch.export.load(path).module()(batch), on_cpu.logits(batch))


def test_values_that_train_had_not_are_counted_and_said(people, tmp_path, capsys):
    directory, _ = people
    (tmp_path / "new.csv").write_text("age,work\n30,a\n,=1+1\n40,abroad\n")
    text = "work: 2 of 3 rows have a category that train has not, such as '=1+1'"
    predict_files(run=directory, files=[str(tmp_path / "new.csv")], output=str(tmp_path / "out.csv"), batch_size=2, device="cpu")  # fmt: skip
    assert f"warning: {text} ({tmp_path / 'new.csv'} line 3)" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="work: 1 of 1 rows have a category"):
        imbalance.load(directory, "cpu").predict({"age": ["30"], "work": ["abroad"]})
    for content, message in (
        ("work\na\n", "no column 'age', which is needed; the columns are work"),
        ("a,b\n1,2\n", "no columns 'age', 'work', which are needed; the columns are a, b"),
        (
            "age,work\n30,a\ninf,b\nold,c\n",
            "line 3: age is 'inf', not a number; 2 of 3 rows have a value that is no finite",
        ),
    ):
        (tmp_path / "bad.csv").write_text(content)
        with pytest.raises(BadInput, match=re.escape(message)):
            predict_files(run=directory, files=[str(tmp_path / "bad.csv")], output=str(tmp_path / "x.csv"), batch_size=2, device="cpu")  # fmt: skip
        assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("value", ["1e300", "-1e45"])
def test_a_value_beyond_float32_is_refused_with_its_row(people, tmp_path, capsys, value):
    """Such a value gave the probabilities nan and a class."""
    directory, _ = people
    with pytest.raises(BadInput, match=r"^data frame row 5: column 'age' has a value that is too large for float32"):
        imbalance.load(directory, "cpu").predict({"age": ["30"] * 5 + [value], "work": ["a"] * 6}, batch_size=2)
    (tmp_path / "new.csv").write_text(f"age,work\n{value},a\n")
    with pytest.raises(BadInput, match=r"line 2: column 'age' has a value that is too large"):
        predict_files(run=directory, files=[str(tmp_path / "new.csv")], output=str(tmp_path / "out.csv"), batch_size=2, device="cpu")  # fmt: skip
    assert not (tmp_path / "out.csv").exists()


def test_an_array_that_is_finite_in_float64_only_is_refused(digits):
    model = imbalance.load(digits, "cpu")
    examples = np.zeros((3, *model.input_shape))
    examples[2].flat[0] = 1e300
    with pytest.raises(BadInput, match=r"^row 2: a value is not finite, or too large for float32"):
        model.predict(examples)
    assert len(model.predict(examples[:2]).classes) == 2


def test_empty_texts_are_counted_and_said(tmp_path, capsys):
    config = text_config(tmp_path)
    directory = train(config)["run_directory"]
    with pytest.warns(UserWarning, match=r"^2 of 3 rows have an empty text \(row 1 is the first\)"):
        imbalance.load(directory, "cpu").predict(["a word", "", " \t"])
    (tmp_path / "new.csv").write_text('text,other\na word,1\n"",2\n')
    predict_files(run=directory, files=[str(tmp_path / "new.csv")], output=str(tmp_path / "out.csv"), batch_size=2, device="cpu")  # fmt: skip
    assert f"warning: {tmp_path / 'new.csv'}: 1 of 2 rows have an empty text (row 1 is" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, texts = imbalance.load(directory, "cpu"), ["a word", "another", "yes no", "a", "no"]
        together = model.predict(texts).probabilities
    assert together.shape == (5, 2)
    np.testing.assert_array_equal(model.predict(iter(texts)).probabilities, together)
    for size in (1, 2, 4):
        np.testing.assert_allclose(model.predict(texts, batch_size=size).probabilities, together, rtol=1e-5)


def test_no_name_in_the_predictions_is_a_formula(people, tmp_path, monkeypatch):
    directory, _ = people
    monkeypatch.chdir(tmp_path)
    (tmp_path / "=cmd.csv").write_text("age,work\n30,a\n")
    predict_files(run=directory, files=["=cmd.csv"], output="out.csv", batch_size=2, device="cpu")
    with open("out.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["file", "'=cmd.csv"]


@pytest.mark.parametrize("name", ["in.csv", "folder/link.csv"])
def test_the_output_is_none_of_the_inputs(people, tmp_path, name):
    directory, _ = people
    content = "file,row,class,age,work\n,,,30,a\n"  # a table that could be one of predictions
    (tmp_path / "in.csv").write_text(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.csv").symlink_to(tmp_path / "in.csv")
    with pytest.raises(BadInput, match="--output: .* is one of the files to predict, and would be lost"):
        predict_files(run=directory, files=[str(tmp_path / "in.csv")], output=str(tmp_path / name), batch_size=2, device="cpu")  # fmt: skip
    assert (tmp_path / "in.csv").read_text() == content


def test_the_output_is_no_image_of_a_folder_to_predict(pictures):
    directory, folder = pictures
    image = next(folder.rglob("*.png"))
    before = image.read_bytes()
    with pytest.raises(BadInput, match="exists, and this command did not write it"):
        predict_files(run=directory, files=[str(folder)], output=str(image), batch_size=2, device="cpu")
    assert image.read_bytes() == before


@pytest.mark.parametrize("name", ["model.json", "summary.json", "checkpoints/last.pt"])
def test_no_file_of_a_run_is_replaced(digits, tmp_path, name):
    np.save(tmp_path / "new.npy", np.zeros((1, 1, 8, 8), np.float32))
    before = (Path(digits) / name).read_bytes()
    with pytest.raises(BadInput, match="--output: .* is inside the run directory"):
        predicted(digits, tmp_path / "new.npy", output=Path(digits) / name)
    with pytest.raises(BadInput, match="is inside the run directory"):
        export_file(run=digits, file=f"{digits}/model.pt2")
    assert (Path(digits) / name).read_bytes() == before


def test_predictions_and_exports_are_written_through_links(digits, tmp_path):
    np.save(tmp_path / "new.npy", np.zeros((2, 1, 8, 8), np.float32))
    for name in ("out.csv", "model.safetensors"):
        (tmp_path / f"link-{name}").symlink_to(tmp_path / name)
    predicted(digits, tmp_path / "new.npy", output=tmp_path / "link-out.csv")
    export_file(run=digits, file=str(tmp_path / "link-model.safetensors"))
    for name in ("out.csv", "model.safetensors"):
        assert (tmp_path / f"link-{name}").is_symlink() and (tmp_path / name).stat().st_size
    with pytest.raises(BadInput, match="a device, not a file"):
        predicted(digits, tmp_path / "new.npy", output="/dev/full")


def test_a_file_name_that_is_not_utf8_keeps_its_bytes(digits, tmp_path):
    file, output = os.fsencode(tmp_path) + b"/caf\xe9.npy", tmp_path / "out.csv"
    np.save(tmp_path / "new.npy", np.zeros((2, 1, 8, 8), np.float32))
    (tmp_path / "new.npy").rename(os.fsdecode(file))
    predicted(digits, os.fsdecode(file), output=output)
    lines = output.read_bytes().splitlines()
    assert len(lines) == 3 and all(line.startswith(file + b",") for line in lines[1:])


@pytest.mark.parametrize("name", ["out.csv", "model.safetensors", "model.pt2"])
def test_an_output_replaces_an_earlier_one_and_nothing_else(digits, tmp_path, name):
    np.save(tmp_path / "new.npy", np.zeros((1, 1, 8, 8), np.float32))
    file = tmp_path / name

    def write_output() -> None:
        if name == "out.csv":
            predicted(digits, tmp_path / "new.npy", output=file)
        else:
            export_file(run=digits, file=str(file))

    file.write_text("the work of a week\n")
    with pytest.raises(BadInput, match=f"{name} exists, and this command did not write it; name another file"):
        write_output()
    assert file.read_text() == "the work of a week\n"
    file.write_text("")  # as mktemp makes it
    for _ in range(2):
        write_output()
        assert file.stat().st_size > 100
    with pytest.raises(BadInput, match="is in a folder that does not exist; make the folder first"):
        export_file(run=digits, file=str(tmp_path / "no" / "model.safetensors"))
    assert not (tmp_path / "no").exists()


def test_every_column_of_the_predictions_has_a_name_of_its_own():
    assert headings(("land", "water")) == ["file", "row", "class", "land", "water"]
    names = ("row", "file", "probability of file", "class", "other")
    assert headings(names)[:3] == ["file", "row", "class"] and headings(names)[-1] == "other"
    assert headings(names)[3:5] == ["probability of row", "probability of file"]
    assert len(set(headings(names))) == 3 + len(names)


def test_an_image_of_a_format_that_is_not_read_is_said(pictures, tmp_path, capsys):
    shutil.copytree(pictures[1], tmp_path / "new")
    (tmp_path / "new" / "phone.heic").touch()
    arguments = dict(files=[str(tmp_path / "new")], output=str(tmp_path / "out.csv"), batch_size=64, device="cpu")
    predict_files(run=str(pictures[0]), **arguments)
    assert "warning: " in (line := capsys.readouterr().err) and "1 image left out" in line and "phone.heic" in line
    with pytest.warns(UserWarning, match=r"1 image left out.* such as phone.heic"):
        imbalance.load(pictures[0], "cpu").predict(tmp_path / "new")


def test_a_link_that_leads_nowhere_is_named_with_what_to_do(pictures, tmp_path, capsys):
    directory, folder = pictures
    shutil.copytree(folder, tmp_path / "new")
    (tmp_path / "new" / "gone.png").symlink_to("nowhere")
    assert call(["predict", str(directory), str(tmp_path / "new"), f"--output={tmp_path / 'out.csv'}"]) == 2
    message = capsys.readouterr().err
    assert "gone.png: a link to a file that does not exist; restore that file, or remove the link" in message

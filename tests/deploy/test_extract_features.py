"""Features extracted once: what they are, how they are kept, and what is refused."""

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.jobs import at_call
from sklearn.preprocessing import StandardScaler

import imbalance
from imbalance.config.resolve import load as load_config
from imbalance.config.schema import build
from imbalance.data import load
from imbalance.data.identity import digest
from imbalance.deploy import extract_features as extract
from imbalance.errors import BadInput
from imbalance.models import MODELS
from imbalance.training import loop
from imbalance.training.stacked import train as batched

OVERRIDES = {
    "data.train_per_group": (50, 20, 10, 20),
    "model.hidden": (8, 6),
    "trainer.eval_batch_size": 60,
    "trainer.epochs": 2,
}


def extracted(folder: Path, config: str | None = "colored_digits_erm", run: Path | None = None, **more: Any) -> str:
    overrides = OVERRIDES | {key.replace("__", "."): value for key, value in more.items()}
    run = str(run) if run else None
    return extract.features(config=config, run=run, output=str(folder), overrides=overrides if config else {})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "digits"
    assert extracted(folder).endswith(f"--config=features_erm --config.data.folder={folder}")
    return folder


def source():
    config = load_config(ROOT / "configs" / "colored_digits_erm.py")
    config.data.train_per_group = (50, 20, 10, 20)
    return load(config.data, "data", 0)


def section(folder: Path, standardise: bool = False) -> dict:
    return dict(name="features", folder=str(folder), standardise=standardise)


def test_they_are_what_the_network_makes_of_each_example_whose_labels_they_keep(made):
    data, features = source(), load(section(made), "data", 0)
    torch.manual_seed(0)
    network = build(MODELS, dict(name="mlp", hidden=(8, 6)), input_shape=data.input_shape, num_classes=2).eval()
    for name in ("train", "val", "test"):
        ours, theirs = getattr(features, name), getattr(data, name)
        torch.testing.assert_close(ours.inputs, network.features(theirs.inputs).detach())
        assert ours.targets.equal(theirs.targets) and ours.groups.equal(theirs.groups)
        assert ours.indices.equal(theirs.indices)
    assert (features.class_names, features.group_names) == (data.class_names, data.group_names)
    assert isinstance(np.load(made / "features.npy", mmap_mode="r"), np.memmap)


def test_what_is_known_of_them_is_what_would_be_computed(made):
    features = load(section(made), "data", 0)
    rows = [zlib.crc32(row) for row in features.val.inputs.numpy()]
    assert features.val.checksums.tolist() == rows
    assert digest(features) == digest(load(section(shutil.copytree(made, made.with_name("copy"))), "data", 0))


def test_standardised_as_scikit_learn_does(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "constant")
    raw = load(section(folder), "data", 0)
    scaler = StandardScaler().fit(raw.train.inputs.double().numpy())
    for name in ("train", "test"):
        expected = scaler.transform(getattr(raw, name).inputs.double().numpy())
        found = getattr(load(section(folder, True), "data", 0), name).inputs
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_constant_feature_stays_finite():
    inputs = np.full((1000, 2), 0.1, dtype=np.float32)
    inputs[:, 1] = np.linspace(0, 1e-3, 1000)
    from imbalance.data.sets.features import column_statistics, standardised

    mean, std = column_statistics(inputs)
    scaler = StandardScaler().fit(inputs.astype(np.float64))
    np.testing.assert_allclose((mean, std), (scaler.mean_, scaler.scale_), rtol=1e-9)
    assert np.abs(standardised(inputs, mean, std)).max() < 2


@pytest.fixture
def partial(tmp_path, monkeypatch) -> Path:
    """The folder of an extraction that was stopped after five batches of 60 rows."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract, "SAVE_SECONDS", 0)
        at_call(patch, extract.TrainedModel, "features", 7, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        extracted(tmp_path / "digits")
    folder = tmp_path / "digits.partial"
    assert json.loads((folder / "done.json").read_text())["done"] > 100
    return folder


@pytest.mark.parametrize("size", [7, 59, 61, 1000])
def test_resumed_with_another_batch_size_no_row_is_left_out(made, partial, size):
    extracted(partial.with_name("digits"), trainer__eval_batch_size=size)
    ours, theirs = (np.load(folder / "features.npy") for folder in (partial.with_name("digits"), made))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (np.abs(ours).sum(1) > 0).all()


def change_a_row(partial: Path) -> None:
    array = np.load(partial / "features.npy", mmap_mode="r+")
    array[3, 2] += 1
    array.flush()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change_a_row, "features.npy is damaged"),
        (lambda partial: (partial / "features.npy").write_bytes(b"x"), "damaged"),
        (lambda partial: (partial / "done.json").write_text("[1]"), "damaged .no JSON object"),
        (
            lambda partial: (partial / "done.json").write_text(
                (partial / "done.json").read_text().replace('"done": ', '"done": 1')
            ),
            "its content is not the one that was written",
        ),
    ],
)
def test_a_damaged_part_is_extracted_anew(made, partial, damage, reason, capsys):
    damage(partial)
    extracted(partial.with_name("digits"))
    assert re.search(f"starting anew, because .*{reason}", capsys.readouterr().err)
    ours, theirs = (np.load(folder / "features.npy") for folder in (partial.with_name("digits"), made))
    assert (ours == theirs).all()


def test_stopped_and_gone_on_with_they_are_the_same(made, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "digits"
    monkeypatch.setattr(extract, "SAVE_SECONDS", 0)
    forward, calls = extract.TrainedModel.features, []

    def stopped(model, batch):
        calls.append(len(batch))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return forward(model, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract.TrainedModel, "features", stopped)
        extracted(folder)
    with pytest.raises(BadInput, match=r"no store.json; repeat the command that was writing it"):
        load(section(folder), "data", 0)
    monkeypatch.setattr(extract.TrainedModel, "features", lambda m, b: calls.append(len(b)) or forward(m, b))
    before = len(calls)
    extracted(folder)
    examples = sum(json.loads((folder / "store.json").read_text())["examples"].values())
    assert "digits.partial: resuming after" in capsys.readouterr().err
    assert sum(calls[before:]) < examples and not folder.with_name("digits.partial").exists()
    ours, theirs = (
        {path.name: path.read_bytes() for path in one.iterdir() if path.name != "checked.json"}
        for one in (folder, made)
    )
    assert ours == theirs


def test_the_same_command_has_nothing_left_to_do_and_another_is_refused(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "digits")
    with monkeypatch.context() as patch:
        patch.setattr(extract, "extract", lambda *_: pytest.fail("they are extracted again"))
        assert "done before" in extracted(folder)
        with pytest.raises(
            BadInput, match=r"holds other features: other network weights \(before: mlp \(hidden.*8, 6.*; now: .*7"
        ):
            extracted(folder, model__hidden=(8, 7))
        with pytest.raises(BadInput, match="holds other features: other network weights.*train: other inputs"):
            extracted(folder, seed=1)
        with pytest.raises(BadInput, match="train: now 99 examples, before 100; name another folder"):
            extracted(folder, data__train_per_group=(49, 20, 10, 20))
        with pytest.raises(BadInput, match="another mixed_precision"):
            extracted(folder, trainer__mixed_precision="bf16")
        (tmp_path / "else").mkdir()
        (tmp_path / "else" / "thesis.tex").touch()
        with pytest.raises(BadInput, match="else already holds other files, and no features"):
            extracted(tmp_path / "else")


def test_in_bfloat16_they_differ_by_its_rounding_and_are_kept_as_float32(made, tmp_path):
    extracted(tmp_path / "half", trainer__mixed_precision="bf16")
    half, whole = (np.load(folder / "features.npy") for folder in (tmp_path / "half", made))
    assert half.dtype == np.float32 and not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, rtol=0.1, atol=0.02)


def test_of_a_run_they_are_its_own_network_s(tmp_path):
    config = load_config(ROOT / "configs" / "colored_digits_erm.py")
    config.data.train_per_group, config.model.hidden, config.trainer.epochs = (50, 20, 10, 20), (8, 6), 2
    loop.train(config, tmp_path / "run")
    extracted(tmp_path / "features", config=None, run=tmp_path / "run")
    found = load(section(tmp_path / "features"), "data", 0)
    model = imbalance.load(tmp_path / "run", "cpu")
    torch.testing.assert_close(found.test.inputs, model.features(source().test.inputs))
    with pytest.raises(BadInput, match=r"--run: .* was trained on images of size \(.*\), but those of config.data are"):
        extract.features(config="digits_erm", run=str(tmp_path / "run"), output=str(tmp_path / "b"), overrides={})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(run=None, output="a"), "^--config: missing; name a config, or give --run=<run directory> to"),
        (dict(run=None, output="", config="digits_erm"), "^--output: '' given; name a folder"),
        (dict(run="nowhere", output="a"), "^--run: nowhere: this is no run directory"),
        (dict(run=None, output="a", config="digits_erm", overrides={"debug": True}), "^config.debug: True given"),
    ],
)
def test_what_cannot_be_extracted_is_one_line(values, message):
    with pytest.raises(BadInput, match=message):
        extract.features(**dict(config=None, overrides={}) | values)


@pytest.mark.parametrize("name", ["targets", "store", "features", "checksums"])
def test_a_damaged_folder_is_refused(made, tmp_path, name):
    folder = shutil.copytree(made, tmp_path / "digits")
    file = folder / (f"{name}.json" if name == "store" else f"{name}.npy")
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content if name != "store" else content[:-30])
    with pytest.raises(
        BadInput, match=r"digits: damaged: .*; remove .*digits and write it again with imbalance features"
    ):
        load(section(folder), "data", 0)
    with pytest.raises(BadInput, match="no features, because there is no store.json; write it with imbalance features"):
        load(section(tmp_path / "nowhere"), "data", 0)


def test_what_is_not_finite_is_refused_with_its_row(tmp_path, monkeypatch):
    forward = extract.TrainedModel.features
    monkeypatch.setattr(extract.TrainedModel, "features", lambda m, b: forward(m, b).index_fill(0, torch.tensor(3), torch.nan))  # fmt: skip
    with pytest.raises(BadInput, match=r"the features of row \d+ of the data are not finite"):
        extracted(tmp_path / "digits")


def test_the_network_of_a_run_is_a_model_like_any_other(tmp_path):
    """On other data than it was trained on, as `--config.model.name=pretrained` has it."""
    config = load_config(ROOT / "configs" / "colored_digits_erm.py")
    config.data.train_per_group = OVERRIDES["data.train_per_group"]
    config.trainer.epochs = 1
    loop.train(config, tmp_path / "run")
    network = load_config(tmp_path / "run" / "config.json").model.to_dict()
    overrides = {key: value for key, value in OVERRIDES.items() if not key.startswith("model.")}
    overrides |= {"model.name": "pretrained", "model.pretrained": str(tmp_path / "run"), "seed": 5}
    extract.features(config="colored_digits_erm", run=None, output=str(tmp_path / "features"), overrides=overrides)
    made = load(section(tmp_path / "features"), "data", 0)
    data = load(config.data, "data", 5)
    model = imbalance.load(tmp_path / "run", "cpu")
    torch.testing.assert_close(made.val.inputs, model.features(data.val.inputs[:]))
    assert made.val.inputs.shape[1] == network["hidden"][-1]


def test_every_seed_can_have_its_own_folder(made, tmp_path):
    for seed in (3, 4):
        extracted(tmp_path / f"of_{seed}", seed=seed)
    of = {"name": "features", "folder": f"{tmp_path}/of_{{seed}}", "standardise": False}
    for seed in (3, 4):
        expected = load(section(tmp_path / f"of_{seed}"), "data", 0)
        assert load(of, "data", seed).train.inputs.equal(expected.train.inputs)
    with pytest.raises(BadInput, match="of_5: no features"):
        load(of, "data", 5)


@pytest.mark.parametrize("name, times", [("same", 1), ("of_{seed}", 2)])
def test_heads_that_are_trained_at_once_read_a_folder_once(made, tmp_path, monkeypatch, name, times):
    config = load_config(ROOT / "configs" / "features_erm.py")
    config.data.folder, config.trainer.epochs = str(tmp_path / name), 1
    for seed in (0, 1):
        shutil.copytree(made, tmp_path / name.replace("{seed}", str(seed)), dirs_exist_ok=True)
    configs = [config.copy_and_resolve_references() for _ in range(4)]
    for i, of_one in enumerate(configs):
        of_one.seed, of_one.optim.lr = i // 2, 0.001 * (1 + i % 2)
    read = at_call(monkeypatch, batched, "load_dataset", 0, lambda: None)
    batched.train_stacked([(of_one, tmp_path / f"run {i}") for i, of_one in enumerate(configs)])
    assert len(read) == times


def test_a_head_predicts_from_a_folder_of_features_and_arrays_reads_one(made, tmp_path):
    config = load_config(ROOT / "configs" / "features_erm.py")
    config.data.folder, config.trainer.epochs, config.callbacks.select = str(made), 1, "last"
    loop.train(config, tmp_path / "run")
    model, logits = imbalance.load(tmp_path / "run", "cpu"), np.load(tmp_path / "run" / "predictions" / "test.npz")
    from imbalance.data.tables.columns import read_columns

    found = model.predict(read_columns(made)).probabilities[-len(logits["logits"]) :]
    np.testing.assert_allclose(found, torch.tensor(logits["logits"]).softmax(1).numpy(), atol=1e-6)
    arrays = load_config(ROOT / "configs" / "arrays_erm.py").data
    arrays.update(file=str(made), numeric=("features",), target="targets", attributes=("groups",), split="splits", val_fraction=0.0, test_fraction=0.0)  # fmt: skip
    ours, theirs = load(section(made, True), "data", 0), load(arrays, "data", 0)
    torch.testing.assert_close(ours.val.inputs, theirs.val.inputs)
    assert ours.val.groups.equal(theirs.val.groups)

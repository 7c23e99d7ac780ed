"""A cut has all that a run reads of its data set: the run is the same, and so is the digest."""

import json
from dataclasses import fields
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.resolve import load as load_config
from imbalance.data import DATASETS, cut, load
from imbalance.data.cut import cut_path, find_cut, write_cut
from imbalance.data.identity import digest
from imbalance.data.sets.drawn import pooled
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput
from imbalance.training import loop

TWO = dict(name="digits", imbalance="step", imbalance_ratio=4.0, val_fraction=0.2, test_fraction=0.2)


def section(name: str):
    return validate(load_config(ROOT / "configs" / f"{name}.py")).data


def assert_equal(one: Dataset, two: Dataset) -> None:
    """Every field, one by one; tensors have the same type and the same bits."""
    for field in fields(Dataset):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, Dataset):
            assert_equal(a, b)
        elif isinstance(a, Split):
            for part in fields(Split):
                left, right = getattr(a, part.name), getattr(b, part.name)
                if isinstance(left, torch.Tensor):
                    assert left.dtype == right.dtype and torch.equal(left, right)
                elif isinstance(left, np.ndarray):
                    assert left.dtype == right.dtype and (left == right).all()
                else:
                    assert left is None and right is None
        else:
            assert a == b and type(a) is type(b), field.name


@pytest.mark.parametrize("name", ["digits_poly", "colored_digits_erm", "gaussian_ce"])
def test_a_cut_is_the_data_set(name, tmp_path):
    """uint8 images with means, groups beside the classes, float64."""
    dataset = load(section(name), "", 3)
    write_cut(dataset, cut_path(section(name), tmp_path, 3))
    again = find_cut(section(name), str(tmp_path), 3)
    assert_equal(dataset, again)
    assert digest(again) == digest(dataset)
    assert find_cut(section(name), str(tmp_path), 4) is None


def test_a_cut_has_evaluation_groups_new_classes_and_checksums_too(tmp_path):
    def split(seed: int) -> Split:
        random = torch.Generator().manual_seed(seed)
        return Split(
            torch.rand(6, 2, generator=random), torch.arange(6) % 2, torch.arange(6) % 2, torch.arange(6),
            known_checksums=np.arange(6, dtype=np.uint32), eval_group_mask=torch.rand(6, 3, generator=random) > 0.5,
        )  # fmt: skip

    names = dict(class_names=("a", "b"), group_names=("a", "b"), evaluation_names=("x", "y", "z"))
    probe = Dataset(split(3), split(4), split(5), **names)
    dataset = Dataset(
        split(0), split(1), split(2), **names, mean=(0.5,), std=(0.25,), augmentations=("flip",), probe=probe,
        probe_strength=2.0, preprocessing={"kind": "table", "columns": ["u", "v"]}, notes=("a note",),
    )  # fmt: skip
    write_cut(dataset, cut_path(TWO, tmp_path, None))
    for seed in (0, 7):
        again = find_cut(TWO, str(tmp_path), seed)
        assert_equal(dataset, again)
        assert digest(again) == digest(dataset)


def test_a_run_from_a_cut_is_the_run_from_the_files(config, tmp_path, monkeypatch, capsys):
    """To the byte; a run that was begun with the files goes on with the cut, and neither reads the data set again."""
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(config.to_dict()))
    assert call(["data", "cut", f"--config={path}", f"--output={tmp_path / 'cut'}"]) == 0
    (file,) = (tmp_path / "cut").iterdir()
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: ") and "seed 0" in out and f"--config.data_dir={tmp_path / 'cut'}" in out
    files = loop.train(config, tmp_path / "files")
    read = DATASETS["digits"]
    monkeypatch.setitem(DATASETS, "digits", wraps(read)(lambda *_, **__: pytest.fail("not read from the cut")))
    config.data_dir = str(tmp_path / "cut")
    from_cut = loop.train(config, tmp_path / "from_cut")
    assert from_cut["data"] == files["data"]
    metrics, others = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("files", "from_cut"))
    assert metrics == others
    weights, other_weights = (
        torch.load(tmp_path / name / "checkpoints" / "selected.pt", weights_only=True) for name in ("files", "from_cut")
    )
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)
    assert loop.train(config, tmp_path / "files")["data"] == files["data"]  # done already, and of the same data
    assert f"{tmp_path / 'files'}: this run was done before, so nothing was trained" in capsys.readouterr().out


def test_a_data_set_that_is_the_same_at_every_seed_has_one_cut(tmp_path, capsys, monkeypatch):
    draw = DATASETS["digits"]
    monkeypatch.setitem(DATASETS, "digits", wraps(draw)(lambda seed, **values: draw(0, **values)))
    assert call(["data", "cut", "--config=digits_poly", f"--output={tmp_path}", "--config.seed=5"]) == 0
    assert "every seed" in capsys.readouterr().out
    assert find_cut(section("digits_poly"), str(tmp_path), 11)


def test_permission_to_download_is_no_part_of_the_data(tmp_path):
    one, two = (cut_path(dict(name="cifar10", draw="published", download=allowed), tmp_path, 0) for allowed in (0, 1))
    assert one == two
    assert cut_path(dict(name="cifar10", draw="stratified", download=False), tmp_path, 0) != one


def test_a_data_set_made_of_another_has_a_cut_too(tmp_path):
    """Its section has the other's section in it."""
    digits = dict(section("digits_poly"))
    mapped = [validate(config_of_new_classes(digits | {"total": total})).data for total in (0, 0, 40)]
    one, same, other = (cut_path(data, tmp_path, 0) for data in mapped)
    assert one == same != other
    assert find_cut(mapped[0], str(tmp_path), 0) is None


def test_the_cut_of_a_drawn_data_set_is_its_source_and_serves_every_seed(tmp_path, capsys, monkeypatch):
    config = load_config(ROOT / "configs" / "drawn_erm.py").to_dict()
    config["data"] |= {"source": dict(section("digits_poly")), "train_counts": (20,), "val_counts": (4,), "test_counts": (6,),
                       "standardise": False}  # fmt: skip
    (path := tmp_path / "drawn_digits.py").write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({config!r})\n"
    )
    assert call(["data", "cut", f"--config={path}", f"--output={tmp_path / 'cut'}"]) == 0
    assert "every seed" in capsys.readouterr().out
    drawn = validate(config).data
    before = [digest(load(drawn, "", seed)) for seed in (0, 7)]
    pooled.cache_clear()
    monkeypatch.setitem(
        DATASETS, "digits", wraps(DATASETS["digits"])(lambda *_, **__: pytest.fail("not read from the cut"))
    )
    assert [digest(load(drawn, str(tmp_path / "cut"), seed)) for seed in (0, 7)] == before
    pooled.cache_clear()


def config_of_new_classes(source: dict) -> dict:
    config = load_config(ROOT / "configs" / "cifar10_new_classes.py").to_dict()
    config["data"]["source"] = source
    return config


def test_a_cut_that_is_damaged_or_of_another_version_is_refused(tmp_path):
    dataset = load(digits := section("digits_poly"), "", 0)
    path = cut_path(digits, tmp_path, 0)
    write_cut(dataset, path)
    content = dict(np.load(path))
    changed = content["train/targets"].copy()
    changed[0] += 1
    about = json.loads(content["about"].item())
    no_targets = {key: array for key, array in content.items() if key != "train/targets"}
    for arrays, words in (
        (
            content | {"train/targets": changed},
            "its content differs from its digest; write it again by imbalance data cut",
        ),
        (content | {"about": np.array(json.dumps(about | {"format": 9}))}, "format 9, but this version reads 1"),
        (no_targets, "not a cut"),
        ({"about": np.array("[]")}, "not a cut"),
    ):
        np.savez(path, **arrays)
        cut._read.cache_clear()
        with pytest.raises(BadInput, match=words) as raised:
            load(digits, str(tmp_path), 0)
        assert "\n" not in str(raised.value)
    path.write_bytes(b"no archive")
    cut._read.cache_clear()
    with pytest.raises(BadInput, match=path.name):
        load(digits, str(tmp_path), 0)


def test_images_in_a_store_have_no_cut_and_an_output_that_is_no_folder_is_refused(tmp_path):
    class Stored:
        pass

    dataset = load(section("digits_poly"), "", 0)
    with pytest.raises(BadInput, match="copy the folder config.data_dir instead"):
        write_cut(Dataset(Split(Stored(), *[torch.arange(4)] * 3), dataset.val, dataset.test, ("a",), ("a",)), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="--output: .* name a folder that can be written"):
        write_cut(dataset, Path(tmp_path) / "file" / "cut.npz")

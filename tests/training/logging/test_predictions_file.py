"""The file of predictions that grows while a split is evaluated."""

import io

import numpy as np
import pytest
import torch

from imbalance.errors import Damaged
from imbalance.training import evaluate
from imbalance.training.logging.predictions_file import PredictionsFile
from imbalance.training.loop import train
from imbalance.utils.read import map_npz, read_npz

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
LABELS = {"targets": torch.arange(7), "members": torch.eye(7, 2) > 0}


def of_numpy() -> bytes:
    file = io.BytesIO()
    np.savez(file, logits=LOGITS.numpy(), **{name: tensor.numpy() for name, tensor in LABELS.items()})
    return file.getvalue()


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1,) * 7])
def test_its_bytes_are_those_of_numpy_however_the_logits_come(sizes):
    file = io.BytesIO()
    predictions = PredictionsFile(file, 7)
    predictions.append(LOGITS[:2])  # and then memory runs out
    predictions.clear()
    for block in LOGITS.split(sizes):
        predictions.append(block)
    predictions.complete(**LABELS)
    assert file.getvalue() == of_numpy()


def test_logits_can_be_read_before_the_file_is_complete(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        predictions = PredictionsFile(file, 7)
        for block in LOGITS.split(2):
            predictions.append(block)
        assert torch.equal(predictions.joined(), LOGITS)
        predictions.complete(**LABELS)
    assert (tmp_path / "file").read_bytes() == of_numpy()


def test_blocks_change_no_byte_of_a_run_and_no_more_than_a_block_is_in_memory(config, tmp_path, monkeypatch):
    config.model = dict(name="linear", init="zeros")
    config.trainer.update(epochs=1, eval_batch_size=50)
    train(config, tmp_path / "one")
    sizes, append = [], PredictionsFile.append
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 1)
    monkeypatch.setattr(PredictionsFile, "append", lambda file, block: sizes.append(len(block)) or append(file, block))
    train(config, tmp_path / "blocks")
    for path in (tmp_path / "one" / "predictions").iterdir():
        assert path.read_bytes() == (tmp_path / "blocks" / "predictions" / path.name).read_bytes()
    assert max(sizes) == 50 and sum(sizes) == 287 + 362 + 359


def test_mapped_arrays_are_those_that_are_read_and_a_write_stays_in_memory(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, a=LOGITS.numpy(), b=np.asfortranarray(LOGITS.numpy()), none=np.empty((0, 3), np.int64))
    before, mapped, expected = path.read_bytes(), map_npz(path), read_npz(path)
    assert mapped.keys() == expected.keys() and isinstance(mapped["a"], np.memmap)
    for name, array in expected.items():
        assert np.array_equal(mapped[name], array) and mapped[name].dtype == array.dtype
    mapped["a"][0] = 5
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["byte", "digest", "compressed", "objects", "cut"])
def test_what_cannot_be_mapped_is_said(tmp_path, damage):
    path = tmp_path / "file.npz"
    array = np.array([{}]) if damage == "objects" else LOGITS.numpy()
    (np.savez_compressed if damage == "compressed" else np.savez)(path, a=array)
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[200] ^= 1
    path.write_bytes(content[: 150 if damage == "cut" else None])
    with pytest.raises(Damaged, match="file.npz"):
        map_npz(path, "0" * 16 if damage == "digest" else None)

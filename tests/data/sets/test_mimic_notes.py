"""MIMICNotes in the files that SubpopBench writes."""

import csv

import numpy as np
import pytest

from imbalance.data import load
from imbalance.data.problems import DataProblems
from imbalance.errors import BadInput


def write_files(root, rows: int = 60, **changes) -> np.ndarray:
    folder = root / "mimic_notes" / "subpop_bench_meta"
    folder.mkdir(parents=True, exist_ok=True)
    features = np.random.default_rng(0).random((rows, 7))
    np.save(folder.parent / "features.npy", features)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "subject_id", "gender", "y", "a", "filename", "split"])
        for i in range(rows):  # the table is not in the order of the features
            values = {"y": i % 5 == 0, "a": i % 2 == 0, "filename": rows - 1 - i, "split": i // 2 % 3} | (
                changes if i == 3 else {}
            )
            writer.writerow([i, 100 + i, "FM"[i % 2], int(values["y"]) if i != 3 else values["y"], values["a"], values["filename"], values["split"]])  # fmt: skip
    return features


def test_rows_of_the_table_get_their_features(tmp_path):
    features = write_files(tmp_path)
    dataset = load({"name": "mimic_notes"}, str(tmp_path), 0)
    assert dataset.group_names == ("survives, woman", "survives, man", "dies, woman", "dies, man")
    for number, split in enumerate((dataset.train, dataset.val, dataset.test)):
        rows = [i for i in range(60) if i // 2 % 3 == number]
        assert split.indices.tolist() == [59 - i for i in rows]
        np.testing.assert_allclose(split.inputs.numpy(), features[split.indices.numpy()], rtol=1e-6)
        assert split.groups.tolist() == [2 * (i % 5 == 0) + (i % 2 == 0) for i in rows]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(split="5"), "split is '5', not from 0 to 2"),
        (dict(a="M"), "a is 'M', not from 0 to 1"),
        (dict(filename=60), "filename is '60', not from 0 to 59"),
    ],
)
def test_bad_cells_are_named(tmp_path, changes, message):
    write_files(tmp_path, **changes)
    with pytest.raises(DataProblems, match=f"metadata.csv line 5: {message}"):
        load({"name": "mimic_notes"}, str(tmp_path), 0)


def test_missing_files_and_pickled_features_are_refused(tmp_path):
    with pytest.raises(BadInput, match="the table of MIMICNotes is not in .*data download mimic_notes"):
        load({"name": "mimic_notes"}, str(tmp_path), 0)
    write_files(tmp_path)
    np.save(tmp_path / "mimic_notes" / "features.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(BadInput, match="features.npy"):
        load({"name": "mimic_notes"}, str(tmp_path), 0)
    np.save(tmp_path / "mimic_notes" / "features.npy", np.arange(4.0))
    with pytest.raises(BadInput, match="not an array of floats with a row for each stay"):
        load({"name": "mimic_notes"}, str(tmp_path), 0)

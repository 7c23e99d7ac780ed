"""CIFAR-10: the paper's counts of cats and dogs, and the images that Wang et al. drew, from made-up files in the published layout."""

import hashlib
import io
import pickle
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from imbalance.bench.timing import python
from imbalance.cli.main import call
from imbalance.data import load
from imbalance.data.identity import digest
from imbalance.data.images.normalise import normaliser
from imbalance.data.sets import cifar_files
from imbalance.data.sets.cifar10 import CLASSES, cifar10
from imbalance.data.sets.cifar_files import Published, published
from imbalance.errors import BadInput
from imbalance.utils.torchvision_import import import_torchvision


@pytest.fixture
def fake_cifar10(monkeypatch):
    """Labels as the real one has them, 5000/1000 of each class; an image's first pixel says which row it is."""

    def part(n: int) -> Published:
        data = np.zeros((n, 32, 32, 3), dtype=np.uint8)
        data[:, 0, 0, :] = np.stack([np.arange(n) >> 8 & 255, np.arange(n) & 255, np.full(n, 7)], 1)
        return Published(data, (np.arange(n) % 10).tolist(), list(CLASSES))

    module = sys.modules[cifar10.__module__]
    monkeypatch.setattr(module, "published", lambda name, data_dir, download: (part(50000), part(10000)))
    return cifar10


CATS_AND_DOGS = dict(
    classes=("cat", "dog"), imbalance="step", imbalance_ratio=10.0, total=0, val_fraction=0.2, draw="stratified",
    download=False,
)  # fmt: skip


def test_cats_and_dogs_have_the_papers_counts(fake_cifar10):
    data = fake_cifar10("anywhere", 0, **CATS_AND_DOGS)
    counts = [data.class_counts(split).tolist() for split in (data.train, data.val, data.test)]
    assert counts == [[4000, 400], [1000, 100], [1000, 1000]]
    assert not set(data.train.indices.tolist()) & set(data.val.indices.tolist())
    row = data.train.indices[123].item()
    assert row % 10 == [3, 5][data.train.targets[123]]
    assert data.train.inputs[123, :, 0, 0].tolist() == [row >> 8, row & 255, 7]
    assert data.input_shape == (3, 32, 32) and data.train.inputs.dtype == torch.uint8


def test_images_are_normalised_per_channel(fake_cifar10):
    data = fake_cifar10("anywhere", 0, **CATS_AND_DOGS)
    batch = data.train.inputs[:4]
    found = normaliser(data, torch.device("cpu"), torch.float32)(batch)
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (data.mean, data.std))
    np.testing.assert_allclose(found, (batch.numpy() / 255 - mean) / std, atol=1e-5)


def test_missing_files_are_one_line():
    with pytest.raises(BadInput, match=r"empty/cifar-10-batches-py.*download=True") as raised:
        cifar10("empty", 0, **CATS_AND_DOGS)
    assert "\n" not in str(raised.value)


def test_unknown_classes_are_refused(fake_cifar10):
    with pytest.raises(BadInput, match="airplane"):
        fake_cifar10("anywhere", 0, **CATS_AND_DOGS | dict(classes=("cat", "dgo")))


PAPERS = dict(classes=("cat", "dog"), imbalance="step", imbalance_ratio=10.0, total=0, val_fraction=0.2, download=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder that holds cifar-10-batches-py/: 5,000 and 1,000 images a class, which say their row in two bytes."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    # Cats come before dogs, as in the published files.
    train = next(
        labels
        for seed in range(9)
        if (labels := np.random.default_rng(seed).permutation(np.arange(50000) % 10).tolist())
        and labels.index(3) < labels.index(5)
    )
    parts = {f"data_batch_{i + 1}": train[i * 10000 : (i + 1) * 10000] for i in range(5)}
    for i, (name, labels) in enumerate((parts | {"test_batch": (np.arange(10000) % 10).tolist()}).items()):
        images, rows = np.zeros((10000, 3072), np.uint8), np.arange(i * 10000, (i + 1) * 10000)
        images[:, 0], images[:, 1] = rows >> 8, rows & 255
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels}, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    return root


@pytest.fixture
def checksums(files, monkeypatch):
    """Let the reader expect the checksums of these files."""
    folder, expected = files / "cifar-10-batches-py", cifar_files.FILES["CIFAR10"]

    def own(part: Mapping[str, str]) -> dict[str, str]:
        return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in part}

    changed = replace(expected, train=own(expected.train), test=own(expected.test), meta=own(expected.meta))
    monkeypatch.setitem(cifar_files.FILES, "CIFAR10", changed)
    published.cache_clear()


def test_the_reader_gives_what_torchvision_gives_and_knows_its_checksums(files, checksums, monkeypatch):
    ours = cifar_files.FILES["CIFAR10"]
    kind = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", list(ours.train.items()))
    monkeypatch.setattr(kind, "test_list", list(ours.test.items()))
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": ours.meta["batches.meta"]})
    for part, theirs in zip(
        published("CIFAR10", str(files), False), (kind(files, train=True), kind(files, train=False))
    ):
        assert np.array_equal(part.data, theirs.data) and part.targets == theirs.targets
        assert part.classes == theirs.classes


def test_the_checksums_are_torchvisions():
    for name, files in cifar_files.FILES.items():
        kind = getattr(import_torchvision().datasets, name)
        assert list(files.train.items()) == [tuple(pair) for pair in kind.train_list]
        assert list(files.test.items()) == [tuple(pair) for pair in kind.test_list]
        assert files.meta == {kind.meta["filename"]: kind.meta["md5"]} and files.classes == kind.meta["key"]
        assert files.folder == kind.base_folder


def test_a_changed_file_is_named(files, checksums, tmp_path):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(BadInput, match="the checksum of data_batch_3 is not the published one"):
        published("CIFAR10", str(tmp_path), False)


def test_no_code_of_a_pickle_is_run():
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(pickle.UnpicklingError, match="builtins.print is refused"):
        cifar_files.ArrayUnpickler(io.BytesIO(pickle.dumps({"data": Evil()}))).load()


def test_a_run_on_cifar_imports_no_torchvision(files):
    code = "import sys, imbalance.data.sets.cifar10; print('torchvision' in sys.modules)"
    assert python("-c", code).split()[-1] == "False"


def drawn_anew(folder) -> tuple[set[int], set[int]]:
    """Rows of train and of val, as the authors' steps say, one label and one row at a time."""
    labels = []
    for i in range(1, 6):
        labels += pickle.loads((folder / f"data_batch_{i}").read_bytes())["labels"]
    torch_generator, seen, cats, dogs = torch.Generator().manual_seed(0), [], [], []
    for label in labels:
        if label in seen:
            continue
        seen.append(label)
        order = torch.randperm(5000, generator=torch_generator).tolist()  # drawn for all ten, also those not used
        rows = [row for row, other in enumerate(labels) if other == label]
        if label == 3:
            cats = [rows[place] for place in order]
        if label == 5:
            dogs = [rows[place] for place in order[:500]]
    both = cats + dogs
    places = np.random.default_rng(0).permutation(5500).tolist()
    return {both[place] for place in places[:4400]}, {both[place] for place in places[4400:]}


def test_the_published_draw_is_the_authors(files, checksums):
    train, val = drawn_anew(files / "cifar-10-batches-py")
    for seed in (0, 3):
        data = cifar10(str(files), seed, **PAPERS, draw="published")
        counts = [data.class_counts(split).tolist() for split in (data.train, data.val, data.test)]
        assert counts == [[3990, 410], [1010, 90], [1000, 1000]]
        assert set(data.train.indices.tolist()) == train and set(data.val.indices.tolist()) == val
    rows = data.train.inputs[:, 0, 0, 0].long() * 256 + data.train.inputs[:, 0, 0, 1].long()
    assert torch.equal(rows, data.train.indices)


def test_a_stratified_draw_is_the_seeds_own(files, checksums):
    first, second = (cifar10(str(files), seed, **PAPERS, draw="stratified") for seed in (0, 1))
    assert first.class_counts(first.train).tolist() == [4000, 400]
    assert set(first.train.indices.tolist()) != set(second.train.indices.tolist())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", ("dog", "cat")),
        ("imbalance_ratio", 100.0),
        ("total", 2200),
        ("val_fraction", 0.1),
        ("imbalance", "exp"),
    ],
)
def test_no_other_setting_has_a_published_draw(files, key, value):
    with pytest.raises(BadInput, match="config.data.draw: 'published' given"):
        cifar10(str(files), 0, **PAPERS | {key: value}, draw="published")


def test_the_published_images_have_one_small_cut_which_needs_no_files(files, checksums, tmp_path, monkeypatch):
    """Of 60,000 images it holds the 7,500 that are used; the files are not needed to read it."""
    section = dict(name="cifar10", **PAPERS, draw="published")
    options = [f"--config.data_dir={files}", "--config.seed=3"]
    assert call(["data", "cut", "--config=cifar_poly", f"--output={tmp_path}", *options]) == 0
    expected = load(section, str(files), 3)
    published.cache_clear()
    monkeypatch.setattr(cifar_files, "read_checked", lambda *_: pytest.fail("not from the cut"))
    for seed in (0, 8):
        data = load(section, str(tmp_path), seed)
        assert digest(data) == digest(expected)
        assert sum(len(split) for split in data.splits.values()) == 7500

"""Corrupted CIFAR-10 and colored Fashion-MNIST: published shares, the corruptions against brute force, files in LfF's layout."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from test_fashion import write_fashion

from imbalance.data.images.corruptions import TYPE_1, corrupted, defocus_blur, glass_blur, motion_blur
from imbalance.data.sets import biased, fashion
from imbalance.data.sets.biased import COLOURS, assign_attributes, colored_fashion, corrupted_cifar10
from imbalance.errors import BadInput

SECTION = dict(conflicting=0.05, severity=4, draw_seed=0, val_fraction=0.1, augment=())
CIFAR = SECTION | dict(source="made", download=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def parts(per_class: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and labels for training and evaluation, the classes in turn."""
    labels = [np.arange(10 * n) % 10 for n in per_class]
    return [(IMAGES[np.arange(len(part)) % 6], part) for part in labels]


@pytest.mark.parametrize(
    "share, aligned, others", [(0.05, 4750, 28), (0.02, 4900, 11), (0.01, 4950, 6), (0.005, 4975, 3)]
)
def test_shares_are_those_of_learning_from_failure(share, aligned, others):
    targets = np.arange(50_000) % 10
    attributes = assign_attributes(targets, share)
    counts = np.bincount(10 * targets + attributes, minlength=100).reshape(10, 10)
    assert (counts.sum(1) == 5000).all()
    assert np.abs(np.diag(counts) - aligned).max() <= 1
    off = counts[~np.eye(10, dtype=bool)]
    assert others in off and np.abs(off - 5000 * share / 9).max() < 1 and off.min() > 0
    # The first images of a class have attribute 0, the last attribute 9.
    of_class = attributes[targets == 4]
    assert (np.diff(of_class) >= 0).all() and set(of_class) == set(range(10))
    evaluated = assign_attributes(np.arange(10_000) % 10, None)
    assert (np.bincount(10 * (np.arange(10_000) % 10) + evaluated) == 100).all()


def test_zoom_blur_is_the_mean_of_enlargements():
    image = IMAGES[0] / 255
    total, factors = image.copy(), np.arange(1, 1.26, 0.01)
    for factor in factors:
        size = int(np.ceil(32 / factor))
        start = (32 - size) // 2
        larger = zoom(image[start : start + size, start : start + size], (factor, factor, 1), order=1)
        trim = (larger.shape[0] - 32) // 2
        total += larger[trim : trim + 32, trim : trim + 32]
    expected = np.clip(total / (len(factors) + 1), 0, 1) * 255
    result = corrupted(IMAGES, "zoom blur", 5, np.random.default_rng(0))[0]
    assert np.abs(result - expected).max() <= 1


def test_defocus_blur_of_a_point_is_the_softened_disk():
    point = np.zeros((1, 32, 32, 3), dtype=np.float32)
    point[0, 10, 20] = 1
    kernel = defocus_blur(point, 5, np.random.default_rng(0))[0, 8:13, 18:23, 0]
    # The disk of radius 1.5 is a square of 3×3, and a kernel of deviation 0.1 changes nothing.
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1 / 9
    np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_motion_blur_keeps_flat_images_and_smears_along_a_line():
    flat = np.full((3, 32, 32, 3), 0.4, dtype=np.float32)
    np.testing.assert_allclose(motion_blur(flat, 5, np.random.default_rng(0)), flat, atol=1e-6)
    point = np.zeros((40, 32, 32, 3), dtype=np.float32)
    point[:, 16, 16] = 1
    smeared = motion_blur(point, 5, np.random.default_rng(0))[..., 0]
    np.testing.assert_allclose(smeared.sum((1, 2)), 1, atol=1e-5)
    for image in smeared:
        rows, columns = np.nonzero(image)
        assert columns.max() == 16 and np.abs(rows - 16).max() <= 16 - columns.min()  # at most 45° from horizontal
        assert 0.15 < image.max() < 0.6
        centre = (np.indices(image.shape) * image).sum((1, 2)) - 16
        assert 1.2 < np.hypot(*centre) < 2.4  # half a normal distribution of deviation 2.5 has the mean 2.0


def test_glass_blur_takes_each_pixel_from_a_neighbour():
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[:, None, None] / 255, (5, 32, 32, 3)).copy()
    moved = (glass_blur(ramp, 1, np.random.default_rng(0)) - ramp)[:, 3:-1, 3:-1] * 255
    assert -1.01 <= moved.min() < -0.9 and moved.max() < 0.01  # one up or none; sigma 0.05 blurs nothing
    assert 0.4 < (moved < -0.5).mean() < 0.6


@pytest.mark.parametrize(
    "name, deviation",
    [("Gaussian noise", 0.10), ("shot noise", (0.5 / 50) ** 0.5), ("speckle noise", 0.5 * 0.2), ("original", 0.0)],
)
def test_noise_has_the_published_strength(name, deviation):
    grey = np.full((20, 32, 32, 3), 128, dtype=np.uint8)
    noise = corrupted(grey, name, 5, np.random.default_rng(0)).astype(float) - 128
    assert abs(noise.std() / 255 - deviation) < 0.03 * deviation + 1e-9


def test_impulses_are_black_or_white():
    changed = corrupted(np.full((20, 32, 32, 3), 100, dtype=np.uint8), "impulse noise", 5, np.random.default_rng(0))
    assert set(np.unique(changed)) == {0, 100, 255}
    assert abs((changed != 100).mean() - 0.07) < 0.005


@pytest.fixture
def small_cifar(monkeypatch):
    train, test = (SimpleNamespace(data=images, targets=labels.tolist()) for images, labels in parts((180, 20)))
    monkeypatch.setattr(biased, "published", lambda *args: (train, test))
    biased.make_corrupted.cache_clear()
    yield
    biased.make_corrupted.cache_clear()


def test_made_images_have_the_corruption_of_their_group(small_cifar):
    dataset = corrupted_cifar10("", 0, **CIFAR)
    assert dataset.group_names[11] == "automobile, shot noise" and dataset.num_groups == 100
    assert dataset.group_counts(dataset.train).reshape(10, 10).diag().tolist() == [171] * 10
    assert dataset.group_counts(dataset.test).tolist() == [2] * 100  # a tenth of two val images is none
    for label, untouched in ((9, True), (0, False)):
        split = dataset.train.subset((dataset.train.groups == 11 * label).nonzero()[:, 0])
        same = [
            np.array_equal(image, IMAGES[i % 6].transpose(2, 0, 1)) for image, i in zip(split.inputs, split.indices)
        ]
        assert all(same) if untouched else not any(same)


def test_the_draw_seed_decides_the_noise_and_the_seed_does_not(small_cifar):
    first = corrupted_cifar10("", 0, **CIFAR | dict(val_fraction=0.5))
    other_seed = corrupted_cifar10("", 1, **CIFAR | dict(val_fraction=0.5))
    assert torch.equal(first.train.inputs, other_seed.train.inputs)
    assert not torch.equal(first.val.indices, other_seed.val.indices)
    assert not torch.equal(first.train.inputs, corrupted_cifar10("", 0, **CIFAR | dict(draw_seed=1)).train.inputs)


def write_published(root, conflicting=0.05) -> None:
    for part, share, (images, labels) in zip(("train", "valid"), (conflicting, None), parts((180, 20))):
        folder = root / f"CorruptedCIFAR10-Type0-Skewed{conflicting:g}-Severity4" / part
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", images)
        np.save(folder / "attrs.npy", np.stack([labels, assign_attributes(labels, share)], 1))


def test_published_files_are_read_and_their_counts_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(biased, "PER_CLASS", {"train": 180, "valid": 20})
    write_published(tmp_path)
    dataset = corrupted_cifar10(str(tmp_path), 0, **CIFAR | dict(source="type0", val_fraction=0.5))
    assert dataset.group_names[3] == "airplane, brightness"
    assert dataset.group_counts(dataset.val).tolist() == dataset.group_counts(dataset.test).tolist() == [1] * 100
    labels = tmp_path / "CorruptedCIFAR10-Type0-Skewed0.05-Severity4" / "train" / "attrs.npy"
    wrong = np.load(labels)
    wrong[:40, 1] = 5
    np.save(labels, wrong)
    with pytest.raises(
        BadInput,
        match=r"train: class 0: numbers of examples with the attributes 0 to 9: .*, but .* needs .*config.data.source='made'",
    ):
        corrupted_cifar10(str(tmp_path), 0, **CIFAR | dict(source="type0"))


@pytest.mark.parametrize("change, words", [
    (dict(source="type1"), "CorruptedCIFAR10-Type1-Skewed0.05-Severity4 in this folder"),
    (dict(val_fraction=0.0), "config.data.val_fraction: 0 given"),
])  # fmt: skip
def test_missing_files_and_no_val_are_one_line(small_cifar, tmp_path, change, words):
    with pytest.raises(BadInput, match=words):
        corrupted_cifar10(str(tmp_path), 0, **CIFAR | change)


def test_fashion_images_have_the_colour_of_their_group(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "PER_CLASS", {"train": 90, "t10k": 20})
    write_fashion(tmp_path / "fashion-mnist", zipped=False, per_class={"train": 90, "t10k": 20})
    for path in (tmp_path / "fashion-mnist").glob("*images*"):
        path.write_bytes(path.read_bytes()[:16] + b"\xff" * (len(path.read_bytes()) - 16))
    dataset = colored_fashion(str(tmp_path), 0, **SECTION | dict(severity=1, val_fraction=0.5))
    assert dataset.group_counts(dataset.val).tolist() == [1] * 100
    assert dataset.group_names[10] == "trouser, red"
    means = dataset.train.inputs.float().mean((2, 3))
    expected = torch.tensor(list(COLOURS.values())).float()[dataset.train.groups % 10]
    assert (means - expected).abs().max() < 5 * 0.05 * 255
    inner = (expected > 0) & (expected < 255)
    assert abs((means - expected)[inner].std() / 255 - 0.05) < 0.01


def test_the_names_of_both_types_are_ten():
    assert len(TYPE_1) == len(biased.TYPE_0) == len(COLOURS) == 10

"""Data sets in the loop: trained from a store, augmented, evaluated on other classes."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.data_files import make_waterbirds
from helpers.images import assert_images_live_where_they_fit
from ml_collections.config_dict import create

from imbalance.config.resolve import load
from imbalance.config.schema import Fraction
from imbalance.config.tags import tagged
from imbalance.data import as_dataset, new_classes
from imbalance.data.sets.class_map import class_map
from imbalance.errors import BadInput
from imbalance.methods.heads.probe import fit_head
from imbalance.methods.heads.registry import HEADS
from imbalance.models import MODELS
from imbalance.training.loop import train

COUNTS = ((20, 6, 4, 10), (4, 4, 4, 4), (4, 4, 4, 4))
DIGITS = dict(
    name="digits",
    classes=tuple(range(10)),
    imbalance="none",
    imbalance_ratio=1.0,
    total=0,
    val_fraction=0.2,
    test_fraction=0.2,
)
LATER = ("rand_augment", "color_jitter", "cutout")


@pytest.fixture
def birds(config, tmp_path):
    """A config for 40 training images of Waterbirds' layout."""
    make_waterbirds(tmp_path, counts=COUNTS, images=True)
    config.data_dir, config.score = str(tmp_path), "val/worst_group_accuracy"
    config.data = create(
        name="waterbirds",
        size=16,
        regenerated=True,
        images_from="store",
        augment=("random_resized_crop", "flip", "pad_crop", *LATER),
    )
    config.model = create(name="resnet20", frozen=False)
    config.weights = create(name="importance", by="group", exponent=1.0)
    config.trainer.update(epochs=2, batch_size=16, eval_batch_size=8)
    config.callbacks.monitor = "val/group_accuracy/landbird on water"
    return config


def test_images_that_live_on_the_device_are_the_same_batches(birds, tmp_path, capsys):
    for on_device in (False, True):
        birds.trainer.images_on_device = on_device
        train(birds, tmp_path / str(on_device))
    lines = [(tmp_path / str(on_device) / "metrics.jsonl").read_text() for on_device in (False, True)]
    assert lines[0] == lines[1]
    logits = [np.load(tmp_path / str(kept) / "predictions" / "test.npz")["logits"] for kept in (False, True)]
    assert (logits[0] == logits[1]).all()
    assert capsys.readouterr().out.count(f"images: {72 * 3 * 16 * 16 / 1e6:.1f} MB, all on cpu\n") == 1


def test_images_that_do_not_fit_on_the_device_are_one_line(birds, monkeypatch):
    assert_images_live_where_they_fit("cpu")
    monkeypatch.setattr("imbalance.data.images.stored_images.free_memory", lambda device: 30_000)
    birds.trainer.images_on_device = True
    with pytest.raises(
        BadInput,
        match=r"images_on_device: 40 images need 0\.0 GB, and cpu has 0\.0 GB free; set config.trainer.images_on_device=False",
    ):
        train(birds)
    monkeypatch.setattr("imbalance.data.images.stored_images.free_memory", lambda device: 30_720)
    assert train(birds)["status"] == "done"


def test_a_run_from_a_store_reports_its_groups(birds):
    summary = train(birds)
    assert summary["groups"]["train"] == {
        "landbird on land": 20, "landbird on water": 6, "waterbird on land": 4, "waterbird on water": 10,
    }  # fmt: skip
    assert 0 <= summary["metrics"]["test/group_accuracy/waterbird on land"] <= 1


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("where", ["store", "memory"])
def test_the_model_gets_images_in_the_layout_of_the_config(birds, monkeypatch, where, channels_last):
    """Augmented and not, in training and in evaluation."""
    layout, seen = torch.channels_last if channels_last else torch.contiguous_format, []

    def model(input_shape, num_classes: int) -> torch.nn.Module:
        network = MODELS["resnet20"](input_shape, num_classes, frozen=False)
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=layout)))
        return network

    monkeypatch.setitem(MODELS, "watched", model)
    birds.model = create(name="watched")
    birds.trainer.update(channels_last=channels_last, epochs=1)
    dataset = None
    if where == "memory":
        images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
        split = images, torch.arange(40) % 2, torch.arange(40) % 4
        names = ("landbird", "waterbird"), tuple(f"landbird on {place}" for place in ("land", "water", "sea", "ice"))
        dataset = as_dataset(dict.fromkeys(("train", "val", "test"), split), *names)
    train(birds, dataset=dataset)
    assert len(seen) > 6 and all(seen)


def test_augmentation_reaches_training_alone_and_follows_the_seed(birds, tmp_path, monkeypatch):
    seen, epochs, examples = [], [], []

    def drawn(indices, when, names, seed):
        epochs.append((tuple(names), seed, when[0].item() >> 32))
        examples.append(indices)
        return []

    def note(images, names, uniforms):
        seen.append(len(images))
        return images

    monkeypatch.setattr("imbalance.training.step.draws", drawn)
    monkeypatch.setattr("imbalance.training.step.augment", note)
    train(birds)
    assert seen == [16, 16, 8] * 2  # the training batches, not those of val and test
    assert examples[0].sort().values.equal(torch.arange(40))
    assert set(epochs) == {(tuple(birds.data.augment), 0, 0), (tuple(birds.data.augment), 0, 1)}


def test_augmented_runs_repeat_and_differ_from_plain_ones(birds, tmp_path):
    losses = []
    for i, augment in enumerate([birds.data.augment, birds.data.augment, ()]):
        birds.data.augment = augment
        losses.append(train(birds, tmp_path / str(i))["metrics"]["test/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_both_ways_of_evaluating_on_other_classes_train_and_score(config):
    even_odd = (("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd"))
    config.data = create(
        name="class_map", source=create(**DIGITS), train_map=even_odd, eval_map=(("4", "even"), ("5", "odd"))
    )
    config.weights = create(name="uniform")
    summary = train(config)
    assert set(summary["classes"]["test"]) == {"even", "odd"} and summary["groups"]["train"]["4"] == 0
    assert summary["groups"]["test"]["4"] > 0 and summary["metrics"]["test/group_accuracy/0"] != 0
    config.data = create(
        name="new_classes",
        source=create(**DIGITS),
        train_map=even_odd,
        eval_map=(("6", "six"), ("7", "seven"), ("8", "eight")),
        head_strength=1.0,
    )
    config.score = config.callbacks.monitor = "val/recall/seven"
    summary = train(config)
    assert set(summary["classes"]["train"]) == {"even", "odd"} and set(summary["classes"]["val"]) == {
        "six",
        "seven",
        "eight",
    }
    assert summary["metrics"]["test/balanced_accuracy"] > 0.8  # a head on almost any features tells these apart


@pytest.mark.parametrize("eval_map", [(("6", "six"), ("7", "seven")), (("6", "six"), ("7", "seven"), ("8", "eight"))])
def test_the_new_head_is_scikit_learns(eval_map):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dataset = new_classes(
        "", 0, source=DIGITS, train_map=(("0", "a"), ("1", "b")), eval_map=eval_map, head_strength=0.5
    )
    torch.manual_seed(0)
    features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU())
    with torch.inference_mode():
        train_features, test_features = (features(split.inputs) for split in (dataset.probe.train, dataset.probe.test))
        head = fit_head(train_features, dataset.probe.train.targets, dataset.probe_strength)
        ours = head(test_features).softmax(1).numpy()
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
    theirs.fit(train_features.numpy(), dataset.probe.train.targets)
    np.testing.assert_allclose(ours, theirs.predict_proba(test_features.numpy()), atol=0.01)


def test_a_class_map_of_a_class_map_and_of_stored_images(tmp_path):
    make_waterbirds(tmp_path, counts=COUNTS, images=True)
    birds = dict(name="waterbirds", size=16, regenerated=True, images_from="store", augment=())
    swapped = (("waterbird", "a"), ("landbird", "b"))
    dataset = class_map(str(tmp_path), 0, source=birds, train_map=swapped, eval_map=swapped)
    assert dataset.class_counts(dataset.train).tolist() == [14, 26]
    assert dataset.group_counts(dataset.train).tolist() == list(COUNTS[0])
    assert dataset.val.inputs[0:3].shape == (3, 3, 16, 16)


def test_what_a_head_keeps_for_later_no_step_sees(tmp_path, monkeypatch):
    """A quarter of every class; without it the counts that a method is given are smaller."""
    seen = {}

    @tagged(held_out=lambda section: section.fraction)
    def kept(head, dataset, features, group_counts, *, fraction: Fraction):
        seen.update(features=features("held_out"), counts=group_counts, dataset=dataset)
        return head

    monkeypatch.setitem(HEADS, "kept", kept)
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    config.head = create(name="kept", fraction=0.25)
    config.trainer.epochs = 1
    train(config, tmp_path)
    of_train, held_out = seen["dataset"].train, seen["dataset"].held_out
    assert seen["counts"].tolist() == torch.bincount(of_train.groups).tolist()
    assert torch.bincount(of_train.targets).tolist() == [331, 100]
    assert torch.bincount(held_out.targets).tolist() == [111, 34]
    assert not set(of_train.indices.tolist()) & set(held_out.indices.tolist())
    assert seen["features"].shape == (145, 128)
    assert len(np.load(tmp_path / "predictions" / "train.npz")["targets"]) == 431

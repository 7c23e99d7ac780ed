"""Batch normalisation that cannot take one example: decided before the first step, and no traceback after it."""

from types import SimpleNamespace

import pytest
import torch
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import nn

from imbalance.config.experiment import validate
from imbalance.errors import BadInput
from imbalance.models import MODELS
from imbalance.training import loop
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import Learner, make_learner
from imbalance.training.oom_retry import oom_retry
from imbalance.training.step import count_batches, draw_epoch


@pytest.fixture
def sizes(config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the config a model with batch normalisation of vectors; return the sizes of all batches that train it."""
    batches = []

    class Recorded(nn.BatchNorm1d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if self.training:
                batches.append(len(input))
            return super().forward(input)

    def normalised(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        inputs = torch.Size(input_shape).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), Recorded(8), nn.Linear(8, num_classes))

    monkeypatch.setitem(MODELS, "normalised", normalised)
    config.model = create(name="normalised")
    config.trainer.epochs = 2
    return batches


def learner_of(config: ConfigDict, tmp_path) -> Learner:
    return make_learner(validate(config), start_accelerator(validate(config)), tmp_path)


def batch_size_with_rest(length: int, rest: int) -> int:
    """Return a batch size between 20 and 100 that leaves a last batch of `rest` examples."""
    return next(size for size in range(20, 100) if length % size == rest)


def test_a_last_batch_of_one_is_left_out(config, tmp_path, sizes):
    length = len(learner_of(config, tmp_path).dataset.train)
    config.trainer.batch_size = batch_size_with_rest(length, 1)
    learner = learner_of(config, tmp_path)
    rows = [draw_epoch(learner, number).rows for number in range(2)]
    assert [len(set(drawn.tolist())) for drawn in rows] == [length - 1] * 2
    assert set(range(length)) - set(rows[0].tolist()) != set(range(length)) - set(rows[1].tolist())
    assert count_batches(validate(config), draw_epoch(learner, 0)) == length // config.trainer.batch_size
    sizes.clear()
    assert loop.train(config, tmp_path / "run")["status"] == "done"
    assert sizes[0] == 1 and set(sizes[1:]) == {config.trainer.batch_size}  # the first is the trial before training
    assert "a last batch of one is left out of its epoch" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("rest", [0, 2, 3])
def test_other_batches_stay_and_the_trial_moves_no_running_mean(config, tmp_path, sizes, rest):
    length = len(learner_of(config, tmp_path).dataset.train)
    config.trainer.batch_size = batch_size_with_rest(length, rest)
    learner = learner_of(config, tmp_path)
    assert len(draw_epoch(learner, 0).rows) == length
    assert all(buffer.equal(new) for buffer, new in zip(learner.model.buffers(), nn.BatchNorm1d(8).buffers()))


def test_no_micro_batch_is_a_single_example(config, tmp_path, sizes):
    length = len(learner_of(config, tmp_path).dataset.train)
    config.trainer.batch_size = batch_size_with_rest(length, 3)
    config.trainer.accumulation = config.trainer.batch_size // 2
    sizes.clear()
    assert loop.train(config, tmp_path)["status"] == "done"
    assert set(sizes[1:]) == {2, 3}  # the last batch of three has one micro-batch, and odd batches have one of three


@pytest.mark.parametrize(("batch_size", "accumulation", "words"), [
    (64, 64, r"^config\.trainer\.accumulation: 64 given; it must be at most 32, "),
    (9, 5, r"^config\.trainer\.accumulation: 5 given; it must be at most 4, "),
    (1, 1, r"^config\.trainer\.batch_size: 1 given; it must be at least 2, "),
])  # fmt: skip
def test_batches_of_one_by_config_are_refused_before_the_first_step(
    config, tmp_path, sizes, batch_size, accumulation, words
):
    config.trainer.update(batch_size=batch_size, accumulation=accumulation)
    with pytest.raises(BadInput, match=words):
        loop.dry_run(validate(config), tmp_path)


def test_a_model_that_can_take_one_example_does(config, tmp_path):
    """ResNets of 8 × 8 images have several positions at every batch normalisation."""
    config.model = create(name="resnet32", frozen=False)
    config.trainer.batch_size = batch_size_with_rest(len(learner_of(config, tmp_path).dataset.train), 1)
    learner = learner_of(config, tmp_path)
    assert learner.smallest_batch == 1 and len(draw_epoch(learner, 0).rows) == len(learner.dataset.train)


def test_out_of_memory_ends_at_micro_batches_of_two(config, tmp_path, sizes):
    config.trainer.batch_size = 65
    learner = learner_of(config, tmp_path)
    learner.micro_batches = 32
    run = SimpleNamespace(learner=learner, config=validate(config))
    with pytest.raises(BadInput, match="not enough memory for the two examples that batch normalisation needs"):
        oom_retry(run)

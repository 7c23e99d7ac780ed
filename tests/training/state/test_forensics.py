import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.jobs import Job, dropout
from ml_collections.config_dict import create
from torch import nn

import imbalance
from imbalance.errors import BadInput, Diverged
from imbalance.methods.losses import LOSSES
from imbalance.methods.margins import soft_margins
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.models import MODELS
from imbalance.training import loop
from imbalance.training.state import forensics


def diverge(config, directory: Path) -> dict:
    """What a run that must diverge leaves, loaded as anyone may."""
    with pytest.raises(Diverged, match=f"imbalance forensics {directory}"):
        loop.train(config, directory)
    return torch.load(directory / "divergence.pt", weights_only=True)


def test_a_divergence_is_reported_in_full_and_can_be_replayed(config, tmp_path, monkeypatch):
    """Also with dropout, whose random numbers must be those of the step, and in parts."""
    monkeypatch.setitem(MODELS, "dropout", dropout)
    config.model = create(name="dropout")
    config.optim.lr = 1e20
    config.trainer.accumulation = 2
    saved = diverge(config, tmp_path)
    assert (saved["step"], saved["epoch"], saved["batch"], saved["learning_rate"]) == (1, 0, 1, 1e20)
    assert saved["targets"].shape == saved["weights"].shape == saved["losses"].shape == saved["indices"].shape == (64,)
    assert torch.equal(soft_margins(saved["logits"], saved["targets"]).isfinite(), saved["margins"].isfinite())
    assert not saved["losses"].isfinite().all()
    told = re.search(r"after step (\d+); repeating the last (\d+) steps to find", (tmp_path / "log.txt").read_text())
    last, repeated = map(int, told.groups())
    assert last - repeated < saved["step"] <= last
    report = forensics.replay(tmp_path)
    assert "the losses are the same, bit for bit" in report
    assert f"first non-finite: {saved['first_nonfinite']}" in report
    assert str(saved["indices"][saved["losses"].isnan()][0].item()) in report

    saved["random"][0]["cpu"] = torch.Generator().manual_seed(1).get_state()
    torch.save(saved, tmp_path / "divergence.pt")
    assert "NOT the same" in forensics.replay(tmp_path)


def test_a_step_of_scaled_gradients_is_replayed_with_its_scale(config, tmp_path, monkeypatch):
    """As of fp16: gradients are unscaled before the step, which the first replay did not do. The loss is finite."""
    make = loop.make_learner

    def with_scaler(*arguments):
        learner = make(*arguments)
        learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
        return learner

    monkeypatch.setattr(loop, "make_learner", with_scaler)
    monkeypatch.setattr(forensics, "make_learner", with_scaler)
    monkeypatch.setattr(OBJECTIVES["average"], "forward", lambda _, losses, *__: 1e6 * losses.mean())
    config.optim.lr = 1e38
    config.trainer.update(epochs=40, batch_size=512)
    saved = diverge(config, tmp_path)
    assert saved["value"].isfinite() and 1 < saved["scaler"]["scale"] < 2.0**127  # some steps were skipped before
    report = forensics.replay(tmp_path)
    assert "the losses are the same, bit for bit" in report
    rows = (re.fullmatch(r" +(\S+)  (\S.*)", line) for line in report.splitlines())
    lines = {row[2]: row[1] for row in rows if row}
    gradients = [float(value) for name, value in lines.items() if name.startswith("gradient of ")]
    assert gradients and 0 < max(gradients) < 1e8  # times the scale it would exceed 1e30
    after = {
        name for name, value in lines.items() if name.endswith(", after the step") and not math.isfinite(float(value))
    }
    assert saved["first_nonfinite"] in {name.removesuffix(", after the step") for name in after}


def test_no_replay_is_advised_where_only_the_program_has_the_data(tmp_path):
    inputs, targets = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2
    data = dict.fromkeys(("train", "val", "test"), (inputs, targets))
    with pytest.raises(Diverged, match=r"first non-finite: .*examples with a non-finite loss") as error:
        imbalance.run("arrays_erm", {"optim.lr": 1e30, "trainer.batch_size": 8}, data=data, directory=tmp_path)
    assert "imbalance forensics" not in str(error.value)


class Root(nn.Module):
    """Not a number for negative inputs."""

    def forward(self, x):
        return (x - 0.5).sqrt()


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Root()), "output of 2 (Root)"),
        (lambda: nn.Sequential(nn.Flatten(), Root(), nn.Linear(64, 10)), "output of 1 (Root)"),
        (lambda: nn.Sequential(nn.Flatten(), spoiled(nn.Linear(64, 10))), "parameter 1.bias"),
    ],
)
def test_the_first_module_that_is_not_finite_is_named(config, tmp_path, monkeypatch, model, first):
    monkeypatch.setitem(MODELS, "spoiled", lambda input_shape: model())
    config.model = create(name="spoiled")
    assert diverge(config, tmp_path)["first_nonfinite"] == first


def spoiled(linear: nn.Linear) -> nn.Linear:
    nn.init.constant_(linear.bias, math.inf)
    return linear


def test_where_every_logit_is_finite_it_is_the_loss_or_the_objective(config, tmp_path, monkeypatch):
    monkeypatch.setattr(OBJECTIVES["average"], "forward", lambda self, losses, *_: (losses * 0).mean().log())
    assert diverge(config, tmp_path / "objective")["first_nonfinite"].startswith("the objective")
    monkeypatch.setattr(LOSSES["poly"], "forward", lambda self, logits, *_: (logits * 0).sum(1).log())
    assert diverge(config, tmp_path / "loss")["first_nonfinite"].startswith("the loss")


def test_the_examples_of_all_processes_are_reported_in_the_order_of_the_batch(config, tmp_path):
    config.optim.lr = 1e20
    config.trainer.batch_size = 63  # uneven shares
    alone = diverge(config, tmp_path / "alone")
    config.work_dir = str(tmp_path / "together")
    job = Job(config, world=2)
    assert job.wait() == [3, 3]
    together = torch.load(job.directory / "divergence.pt", weights_only=True)
    for key in ("rows", "indices", "targets", "groups", "weights"):
        assert torch.equal(alone[key], together[key])
    assert torch.equal(alone["logits"].isfinite(), together["logits"].isfinite())
    assert len(together["random"]) == 2
    assert "the losses are the same, bit for bit" in forensics.replay(job.directory)


def test_a_config_with_a_wrong_letter_is_named_with_its_file(config, tmp_path):
    config.optim.lr = 1e20
    diverge(config, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"digits"', '"dights"'))
    with pytest.raises(BadInput, match=r"config.json: config.data.name: 'dights' given"):
        forensics.replay(tmp_path)


def test_a_run_that_did_not_diverge_has_nothing_to_replay(tmp_path):
    with pytest.raises(BadInput, match="no step of a run diverged there"):
        forensics.replay(tmp_path)


def test_a_run_that_diverged_in_an_evaluation_has_no_step_to_replay(config, tmp_path):
    """The weights are finite after each step, and the logits of val are not."""
    config.loss = create(name="cross_entropy")
    config.optim.lr = 1e30
    config.trainer.update(epochs=1, batch_size=1000)
    with pytest.raises(Diverged, match="non-finite l.* on "):
        loop.train(config, tmp_path)
    with pytest.raises(BadInput, match="diverged outside a training step, so there is no step to replay: non-finite"):
        forensics.replay(tmp_path)


def test_a_step_is_not_replayed_with_an_edited_config(config, tmp_path):
    config.optim.lr = 1e20
    diverge(config, tmp_path)
    path = tmp_path / "config.json"
    original = path.read_text()
    for edit, key in (('"batch_size": 64', '"batch_size": 7'), ('"lr": 1e+20', '"lr": 0.1')):
        assert edit in original
        path.write_text(original.replace(edit, key))
        with pytest.raises(
            BadInput,
            match=r"config.json: config.(trainer.batch_size is 7|optim.lr is 0.1), but the step was taken with (64|1e\+20); restore",
        ):
            forensics.replay(tmp_path)
    path.write_text(original.replace('"data_dir": "', '"data_dir": "elsewhere/'))  # the data may move
    assert "bit for bit" in forensics.replay(tmp_path)


def test_a_step_is_not_replayed_on_other_data(config, tmp_path, monkeypatch):
    config.optim.lr = 1e20
    saved = diverge(config, tmp_path)
    make = forensics.make_learner

    def with_other_inputs(*arguments):
        learner = make(*arguments)
        learner.data["train"]["inputs"] = "0" * 16
        return learner

    with monkeypatch.context() as patch:
        patch.setattr(forensics, "make_learner", with_other_inputs)
        with pytest.raises(BadInput, match=r"not the data with which .* diverged \(train: other inputs\); restore"):
            forensics.replay(tmp_path)
    # A file of an older version holds neither the config nor the digest of the data.
    old = {key: value for key, value in saved.items() if key not in ("config", "data")}
    torch.save(old, tmp_path / "divergence.pt")
    assert "bit for bit" in forensics.replay(tmp_path)
    torch.save(old | {"rows": saved["rows"].flip(0)}, tmp_path / "divergence.pt")
    with pytest.raises(
        BadInput, match="draws other examples than in the run; restore the config.json and the data of the run"
    ):
        forensics.replay(tmp_path)


def test_a_missing_file_of_the_step_is_not_called_a_divergence_outside_a_step(config, tmp_path):
    config.optim.lr = 1e20
    diverge(config, tmp_path)
    (tmp_path / "divergence.pt").unlink()
    with pytest.raises(
        BadInput, match="in a training step, but divergence.pt is missing.*--config.work_dir="
    ) as raised:
        forensics.replay(tmp_path)
    assert "no step to replay" not in str(raised.value)
    with pytest.raises(BadInput, match="no such folder"):
        forensics.replay(tmp_path / "nope")

"""No state that is not finite is saved, selected, tested or called done, and the step that made it is named."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from helpers.jobs import Job, at_call
from ml_collections import ConfigDict
from ml_collections.config_dict import create
from torch import Tensor, nn

from imbalance.config.resolve import load
from imbalance.errors import BadInput, Diverged
from imbalance.methods.losses import LOSSES
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.models import MODELS, with_head
from imbalance.training import loop
from imbalance.training.stacked.train import train_stacked
from imbalance.training.state import forensics

CONFIGS = ROOT / "configs"
STEP = 7  # in the second epoch of five batches


class Spoiler(nn.Module):
    """Passes its inputs on, and at the step `STEP` spoils what `kind` says."""

    def __init__(self, kind: str, parts: int):
        super().__init__()
        self.kind, self.parts = kind, parts
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("spoiled", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs / 0 * 0 if self.kind == "logits" and self.calls > self.parts * STEP else inputs
        self.calls += 1
        if self.calls == self.parts * STEP + 1:
            if self.kind == "buffer":
                self.spoiled.fill_(torch.inf)
            if self.kind == "gradient":
                return inputs + (inputs.sum() * 0).sqrt() * 0  # 0, and its gradient is inf · 0
        return inputs


def spoiled(kind: str, parts: int, input_shape, num_classes: int) -> nn.Module:
    return with_head(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), Spoiler(kind, parts)), 16, num_classes)


@pytest.fixture
def spoil(config, monkeypatch):
    """Makes the config's model one that is spoiled at `STEP`, in one way or another."""

    def into(kind: str, parts: int = 1) -> None:
        monkeypatch.setitem(
            MODELS, "spoiled", lambda input_shape, num_classes: spoiled(kind, parts, input_shape, num_classes)
        )
        config.model = create(name="spoiled")
        config.trainer.accumulation = parts
        config.callbacks.update(select="best", monitor="val/balanced_accuracy")

    return into


def ends_with_3(config: ConfigDict, directory: Path, match: str) -> str:
    """The message of a run that leaves nothing behind that is not finite, and no result."""
    with pytest.raises(Diverged, match=match) as error:
        loop.train(config, directory)
    assert_diverged(directory)
    assert json.loads((directory / "summary.json").read_text())["reason"] == str(error.value)
    return str(error.value)


def assert_diverged(directory: Path) -> None:
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "diverged" and summary["score"] is None
    assert not (directory / "checkpoints" / "selected.pt").exists()
    for path in directory.glob("checkpoints/*.pt"):
        state = torch.load(path, weights_only=True)
        assert all_finite([state[key] for key in ("model", "optimizer", "objective")]), path
        assert all_finite(state["progress"]["best_weights"]), path


def all_finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(all_finite, value))
    return not isinstance(value, Tensor) or bool(value.isfinite().all())


@pytest.mark.parametrize("every_step_saved", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["gradient", "buffer"])
def test_the_step_that_made_it_is_named_though_its_loss_is_finite(
    config, tmp_path, spoil, kind, parts, every_step_saved
):
    first = {"gradient": "gradient of features.1.weight", "buffer": "buffer features.2.spoiled"}[kind]
    spoil(kind, parts)
    if every_step_saved:
        config.callbacks.checkpoint_minutes = 1e-9
    ends_with_3(config, tmp_path, rf"non-finite update by step {STEP}, .*\(epoch 1\).*first non-finite: {first}")
    saved = torch.load(tmp_path / "divergence.pt", weights_only=True)
    assert saved["step"] == STEP and all_finite([saved[key] for key in ("model", "optimizer", "losses", "logits")])
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert last["progress"]["step"] == (STEP if every_step_saved else 5)  # the last before it, and nothing later
    report = forensics.replay(tmp_path).splitlines()
    assert any(line.startswith(f"step {STEP} (epoch 1") for line in report)
    (found,) = (line.split()[0] for line in report if line.endswith((f"  {first}", f"  {first}, after the step")))
    assert found in ("inf", "nan")


@pytest.mark.parametrize("rate", [1e39, 1e300])
def test_an_update_that_overflows(config, tmp_path, rate):
    """In the only step there is: no loss ever sees what it made."""
    config.trainer.update(epochs=1, batch_size=100_000)
    config.optim.lr = rate
    ends_with_3(config, tmp_path, "non-finite update by step 0, whose loss is .*first non-finite: parameter")
    assert not list(tmp_path.glob("checkpoints/*"))
    assert "parameter features.1.weight, after the step" in forensics.replay(tmp_path)


def test_the_optimiser_s_state_though_every_weight_is_finite(config, tmp_path, monkeypatch):
    """Adam divides by the root of squares that overflowed: a step of 0."""
    monkeypatch.setattr(OBJECTIVES["average"], "forward", lambda _, losses, *__: 1e25 * losses.mean())
    config.optim = create(
        name="adam", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, decayed="all", schedule=config.optim.schedule
    )
    ends_with_3(config, tmp_path, "by step 0, .*first non-finite: the optimiser's exp_avg_sq of features.1.weight")


def test_what_a_method_has_learned(config, tmp_path, monkeypatch):
    class Counts(OBJECTIVES["average"]):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.ones(()))

        def forward(self, losses, weights, groups):
            self.seen *= 1e10
            return super().forward(losses, weights, groups)

    monkeypatch.setitem(OBJECTIVES, "average", Counts)
    ends_with_3(config, tmp_path, "by step 3, .*first non-finite: the objective's seen")


@pytest.mark.parametrize("kind", ["logits", "loss"])
def test_what_finite_weights_make_of_val_is_never_selected(config, tmp_path, spoil, kind, monkeypatch):
    """Logits that are nan have an argmax too. A loss may overflow where the training losses do not."""
    step = 10
    if kind == "logits":
        spoil(kind)
    else:
        step, forward = 5, LOSSES["poly"].forward
        infinite = lambda self, *given: forward(self, *given) / (not torch.is_inference_mode_enabled())  # noqa: E731
        monkeypatch.setattr(LOSSES["poly"], "forward", infinite)
    ends_with_3(config, tmp_path, rf"non-finite {kind} on val after step {step}, .*data\): \d+, \d+.* and \d+ more; ")


def test_a_head_that_is_not_finite(tmp_path):
    for name, values, match in (
        ("crt", {"lr": 1e30}, r"'crt' gave the last layer NaN or infinite weights at its step \d+ \(epoch 0,"),
        ("crt", {"lr": 1e39}, r"'crt' gave the last layer NaN or infinite weights at its step 0 \(epoch 0,"),
        ("crt", {"weight_decay": 1e39}, r"'crt' gave the last layer NaN or infinite weights at its step 0 \(epoch 0,"),
        ("dpe", {"lr": 1e39}, "'dpe' gave ensemble member 1 of 15 NaN or infinite prototypes"),
        (
            "erm",
            {"name": "logit_adjusted", "tau": 1e39},
            "'logit_adjusted' gave the last layer NaN or infinite weights",
        ),
    ):
        config = load(CONFIGS / f"colored_digits_{name}.py")
        config.trainer.epochs = 1
        config.head = ConfigDict(config.head.to_dict() | values)
        directory = tmp_path / f"{name} {values}"
        ends_with_3(config, directory, match)
        assert (directory / "checkpoints" / "last.pt").exists()  # training itself was whole


class Late(nn.Module):
    """Not finite in evaluation mode, for batches of 64: the second one of train."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs / (self.training or len(inputs) != 64)


@pytest.mark.parametrize("head", ["dfr", "crt"])
def test_features_that_are_not_finite(tmp_path, head, monkeypatch):
    """They are the input of a head's fit, and scikit-learn's complaint about them would be a traceback."""

    def model(input_shape, num_classes: int) -> nn.Module:
        return with_head(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), Late()), 8, num_classes)

    monkeypatch.setitem(MODELS, "late", model)
    config = load(CONFIGS / f"colored_digits_{head}.py")
    config.model = create(name="late")
    config.trainer.epochs = 1
    ends_with_3(
        config,
        tmp_path,
        r"non-finite features, although the weights are finite; examples \(row numbers in the data\): \d+, ",
    )


def test_float16_gradients_that_are_never_finite(config, tmp_path, spoil, monkeypatch):
    """The scaler skips every step; in a run of a few it has not yet come down far enough to show."""
    make = loop.make_learner

    def with_scaler(*args):
        learner = make(*args)
        learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
        return learner

    def never(self, losses, *_):
        return losses.mean() + (losses.sum() * 0).sqrt() * 0

    monkeypatch.setattr(loop, "make_learner", with_scaler)
    monkeypatch.setattr(OBJECTIVES["average"], "forward", never)
    ends_with_3(config, tmp_path / "short", "non-finite float16 gradients in all 15 steps")
    config.trainer.epochs = 8
    ends_with_3(config, tmp_path / "long", "by step 28, .*first non-finite: float16 gradients, down to a scale of 3.05")


def test_a_step_of_group_dro_is_replayed_with_its_group_weights(config, tmp_path, spoil):
    """What the step minimised is the same again, which with the weights of another step it would not be."""
    spoil("gradient")
    config.objective = create(name="group_dro", step_size=0.5, size_adjustment=0.0, adjust_absent=False)
    config.loss, config.weights, config.optim.lr = create(name="cross_entropy"), create(name="uniform"), 0.01
    ends_with_3(config, tmp_path, f"non-finite update by step {STEP}, ")
    then, again, _ = forensics.replay(tmp_path).splitlines()[1].split("; ")
    assert float(then.removeprefix("objective in the run: ")) == float(again.removeprefix("replayed: "))


def test_a_signal_does_not_save_it(config, tmp_path, spoil, monkeypatch):
    """One that comes in the very step."""
    spoil("buffer")
    at_call(monkeypatch, loop, "take_step", STEP + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    ends_with_3(config, tmp_path, f"by step {STEP}")


def test_a_checkpoint_that_is_not_finite_is_refused(config, tmp_path):
    loop.train(config, tmp_path)
    path = tmp_path / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    state["model"]["head.bias"][3] = torch.nan
    torch.save(state, path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(BadInput, match="last.pt: parameter head.bias is not finite, .*; remove"):
        loop.train(config, tmp_path)


def add_spoiled(kind: str) -> None:
    MODELS["spoiled"] = lambda input_shape, num_classes: spoiled(kind, 1, input_shape, num_classes)


def test_many_processes_end_alike(config, spoil):
    spoil("gradient")
    job = Job(config, world=2, target=partial(add_spoiled, "gradient"))
    assert job.wait() == [3, 3], job.stderr()
    assert job.stderr().startswith(f"non-finite update by step {STEP}, ") and not job.stderr(1)
    assert_diverged(job.directory)
    assert "the losses are the same, bit for bit" in forensics.replay(job.directory)


def test_runs_trained_at_once_end_each_on_its_own(config, tmp_path):
    """By an update that no later loss of the epoch sees: it has one step."""
    config.trainer.update(epochs=3, batch_size=100_000)
    configs = [config.copy_and_resolve_references() for _ in range(3)]
    configs[1].optim.lr = 1e39
    directories = [tmp_path / f"{i}" for i in range(3)]
    summaries = train_stacked(list(zip(configs, directories)))
    assert [summary["status"] for summary in summaries] == ["done", "diverged", "done"]
    assert summaries[1]["reason"].startswith("non-finite update by step 0, ")
    assert_diverged(directories[1])
    assert "parameter features.1.weight, after the step" in forensics.replay(directories[1])


class Loud(nn.Module):
    """Finite in float64 only, in evaluation mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if self.training else inputs * 1e200


def test_logits_beyond_float32_in_which_they_are_kept(config, tmp_path, monkeypatch):
    """They would be inf in predictions/, and the scores made of them nan or a traceback."""
    loud = lambda input_shape, num_classes: with_head(nn.Sequential(nn.Flatten(), Loud()), 64, num_classes)  # noqa: E731
    monkeypatch.setitem(MODELS, "loud", loud)
    config.model = create(name="loud")
    config.trainer.update(dtype="float64", epochs=1)
    ends_with_3(config, tmp_path, "non-finite logits on val after step 5, although the weights are finite")

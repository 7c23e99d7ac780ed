"""What the arithmetic of a step must not change: parts, scaled gradients, layouts."""

import json
import os
import signal
from functools import wraps

import pytest
import torch
from helpers.jobs import at_call, dropout
from ml_collections.config_dict import create
from torch import nn

from imbalance.bench.cases import make
from imbalance.errors import BadInput, Interrupted, is_out_of_memory
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.models import MODELS, with_head
from imbalance.training import evaluate, loop
from imbalance.training.features import features


@pytest.mark.parametrize("parts", [2, 5, 60])
def test_parts_of_a_batch_make_its_step(config, tmp_path, parts):
    """For an objective that mixes examples; 60 parts leave some of the smaller last batch empty."""
    config.objective = create(name="log_average")
    config.trainer.update(epochs=1, dtype="float64")
    whole = loop.train(config, tmp_path / "whole")["metrics"]
    config.trainer.accumulation = parts
    found = loop.train(config, tmp_path / "parts")["metrics"]
    assert found == pytest.approx(whole, rel=1e-10, nan_ok=True)


def test_both_passes_over_the_parts_draw_the_same_and_count_once(config, tmp_path, monkeypatch):
    """The gradient is that of the losses seen: dropout's masks are drawn once, and running means move once a part."""
    passes = []

    class Normalised(nn.BatchNorm1d):
        def forward(self, x):
            passes.append((x.detach().clone(), self.running_mean.clone()))
            return super().forward(x)

    def model(input_shape, num_classes: int) -> nn.Module:
        return nn.Sequential(dropout(input_shape, 16), Normalised(16), nn.Linear(16, num_classes))

    monkeypatch.setitem(MODELS, "both", model)
    config.model = create(name="both")
    config.debug = True
    config.trainer.update(accumulation=2, eval_splits=("val",))
    loop.train(config, tmp_path)
    (a, before), (b, _), (c, again), (d, moved) = passes[1:5]  # before them a trial with one example
    assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, b)
    assert torch.equal(before, again)
    torch.testing.assert_close(moved, 0.1 * c.mean(0))


def test_a_batch_in_one_part_goes_through_the_model_once(config, tmp_path, monkeypatch):
    calls = []
    linear = MODELS["linear"]

    def counted(input_shape, num_classes: int, *, init: str) -> nn.Module:
        model = linear(input_shape, num_classes, init=init)
        model.register_forward_hook(lambda module, *_: calls.append(module.training))
        return model

    monkeypatch.setitem(MODELS, "linear", counted)
    config.model = create(name="linear", init="zeros")
    loop.train(config, tmp_path)
    assert calls.count(True) == 3 * 5


@pytest.fixture
def scaler(monkeypatch) -> torch.amp.GradScaler:
    """fp16's gradient scaler, which works on a CPU too, with a scale that overflows at first."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    make = loop.make_learner

    def with_scaler(*args):
        learner = make(*args)
        learner.accelerator.scaler = scaler
        return learner

    monkeypatch.setattr(loop, "make_learner", with_scaler)
    return scaler


def test_an_overflow_of_scaled_gradients_is_no_divergence(config, tmp_path, scaler, monkeypatch):
    monkeypatch.setattr(OBJECTIVES["average"], "forward", lambda _, losses, *__: 1e6 * losses.mean())
    config.optim.lr = 1e-7
    config.trainer.update(epochs=40, batch_size=512)
    summary = loop.train(config, tmp_path)
    assert summary["status"] == "done" and scaler.get_scale() < 2.0**127
    losses = [json.loads(line)["train/loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] == pytest.approx(losses[5], rel=1e-6) and losses[-1] < losses[0] / 2  # at first no step, then some
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert state["scaler"]["scale"] == scaler.get_scale()


def test_a_resumed_run_has_the_scale_that_it_was_left_with(config, tmp_path, monkeypatch):
    """Not the first one, which would overflow again and skip steps."""
    make = loop.make_learner

    def with_scaler(*args):
        learner = make(*args)
        learner.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=4)
        return learner

    monkeypatch.setattr(loop, "make_learner", with_scaler)
    monkeypatch.setattr(OBJECTIVES["average"], "forward", lambda _, losses, *__: 100 * losses.mean())
    config.optim.lr = 1e-4
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 12, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path / "twice")
    loop.train(config, tmp_path / "twice")
    whole, twice = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True) for name in ("whole", "twice")
    )
    assert twice["scaler"] == whole["scaler"] and twice["scaler"]["scale"] < 2.0**127
    assert all(torch.equal(twice["model"][key], tensor) for key, tensor in whole["model"].items())


def test_fp16_needs_a_gpu(config):
    config.trainer.mixed_precision = "fp16"
    if torch.cuda.is_available():
        assert loop.run(config).score > 0
    else:
        with pytest.raises(BadInput, match="config.trainer.mixed_precision: 'fp16' given; a CPU"):
            loop.run(config)


def test_bf16_is_in_the_model_only(config, tmp_path, monkeypatch):
    """Losses, weights, objective: float32."""
    seen = []
    average = OBJECTIVES["average"]

    class Spy(average):
        def forward(self, losses, weights, groups):
            seen.append((losses.dtype, weights.dtype))
            return super().forward(losses, weights, groups)

    class Inside(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            seen.append(output.dtype)
            return output

    monkeypatch.setitem(OBJECTIVES, "average", Spy)

    def model(input_shape, num_classes: int) -> nn.Module:
        return with_head(nn.Sequential(nn.Flatten(), Inside(64, 8)), 8, num_classes)

    monkeypatch.setitem(MODELS, "inside", model)
    config.model = create(name="inside")
    config.trainer.mixed_precision = "bf16"
    config.head = create(name="temperature")  # of features, which are those of the model as it is evaluated
    loop.train(config, tmp_path)
    assert set(seen) == {torch.bfloat16, (torch.float32, torch.float32)}


def test_channels_last_reaches_the_layers(config, tmp_path, monkeypatch):
    """Of images with one channel the two layouts are one, so it takes a second layer."""
    seen = set()

    def model(input_shape, num_classes: int) -> nn.Module:
        second = nn.Conv2d(3, 2, 3)
        second.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].stride()[1] == 1))
        return with_head(nn.Sequential(nn.Conv2d(1, 3, 3), second, nn.Flatten()), 32, num_classes)

    monkeypatch.setitem(MODELS, "two", model)
    config.model = create(name="two")
    for channels_last in (False, True):
        config.trainer.channels_last = channels_last
        loop.train(config, tmp_path / str(channels_last))
        assert seen == {channels_last}
        seen.clear()


def test_the_arithmetic_of_a_gpu_is_that_of_the_run_not_of_the_one_before(config, tmp_path, monkeypatch):
    """The workspace of deterministic matrix products is asked for before a run needs it."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    config.debug = True
    for deterministic, tf32, allowed in (
        (False, "none", (False, False)),
        (True, "all", (True, True)),
        (False, "convolutions", (False, True)),
    ):
        config.trainer.update(deterministic=deterministic, tf32=tf32)
        seen = []
        with monkeypatch.context() as patch:
            at_call(patch, loop, "take_step", 1, lambda seen=seen: seen.append(arithmetic()))
            loop.train(config, tmp_path / tf32)
        assert seen == [(deterministic, *allowed, ":4096:8", False)]


def arithmetic() -> tuple[bool | str, ...]:
    """Settings of this process in a step."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    workspace, fill = os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.utils.deterministic.fill_uninitialized_memory
    return torch.are_deterministic_algorithms_enabled(), *tf32, workspace, fill


def runs_out_of_memory(monkeypatch, name: str, examples: int, at: int) -> list[int]:
    """Have the model `name` raise in training from its call `at` on, where it is given more examples than so many."""
    make, calls = MODELS[name], []

    def check(module: nn.Module, inputs: tuple) -> None:
        if module.training:
            calls.append(len(inputs[0]))
            if len(calls) >= at and calls[-1] > examples:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    @wraps(make)
    def limited(*args, **kwargs) -> nn.Module:
        model = make(*args, **kwargs)
        model.register_forward_pre_hook(check)
        return model

    monkeypatch.setitem(MODELS, name, limited)
    return calls


@pytest.mark.parametrize("at", [1, 4, 13])
def test_without_memory_for_a_batch_a_run_goes_on_in_parts_to_the_same_numbers(
    config, tmp_path, monkeypatch, at, capsys
):
    """In the first step, in the midst of an epoch, and epochs after the state gone back to, which are trained again."""
    # Which keeps a state of its own
    config.objective = create(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)
    config.optim.update(momentum=0.9)
    config.trainer.update(epochs=4, dtype="float64", eval_every=4)
    config.model = create(name="mlp", hidden=(8,))
    whole = loop.train(config, tmp_path / "whole")["metrics"]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        calls = runs_out_of_memory(patch, "mlp", 20, at)
        found = loop.train(config, tmp_path / "parts")["metrics"]
    assert found == pytest.approx(whole, rel=1e-9, nan_ok=True)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("out of memory")]
    assert len(said) == 2 and "with 4 micro-batches a batch, which changes no result" in said[1]
    assert max(calls[-20:]) <= 20


def test_gradients_are_dropped_before_the_cache_is_emptied(config, tmp_path, monkeypatch):
    """A block of the cache that holds a gradient is not given back to the GPU."""
    learners, held, make = [], [], loop.make_learner
    monkeypatch.setattr(loop, "make_learner", lambda *arguments: learners.append(make(*arguments)) or learners[-1])
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: held.append(any(p.grad is not None for p in learners[0].model.parameters()))
    )
    step, calls = loop.take_step, []

    def fails_after_its_backward_pass(*arguments):
        done = step(*arguments)
        calls.append(None)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return done

    monkeypatch.setattr(loop, "take_step", fails_after_its_backward_pass)
    loop.train(config, tmp_path)
    assert held == [False]


CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        CUBLAS,
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: out of memory",
    ],
)
def test_every_message_of_memory_that_has_run_out_is_known(message):
    """cuBLAS and cuDNN report it by a plain RuntimeError."""
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


def limited_in_evaluation(model: nn.Module, examples: int) -> list[int]:
    """Have a module raise cuBLAS's error in evaluation for more examples than so many; return the sizes it was given."""
    sizes = []

    def check(module: nn.Module, inputs: tuple) -> None:
        if not module.training:
            sizes.append(len(inputs[0]))
            if sizes[-1] > examples:
                raise RuntimeError(CUBLAS)

    model.register_forward_pre_hook(check)
    return sizes


@pytest.mark.parametrize("part", ["take_step", "draw_epoch", "evaluation"])
def test_wherever_memory_runs_out_a_run_goes_on_to_the_same_numbers(config, tmp_path, monkeypatch, part, capsys):
    config.model = create(name="mlp", hidden=(8,))
    config.trainer.update(dtype="float64", epochs=2, eval_batch_size=100)
    whole = loop.train(config, tmp_path / "whole")["metrics"]
    capsys.readouterr()
    make, failed = MODELS["mlp"], []

    def fail() -> None:
        failed.append(None)
        raise RuntimeError(CUBLAS)

    @wraps(make)
    def limited(*args, **kwargs) -> nn.Module:
        model = make(*args, **kwargs)
        failed.append(limited_in_evaluation(model, 30))
        return model

    if part == "evaluation":
        monkeypatch.setitem(MODELS, "mlp", limited)
    else:
        at_call(monkeypatch, loop, part, 2, fail)
    found = loop.train(config, tmp_path / "again")["metrics"]
    assert failed and found == pytest.approx(whole, rel=1e-9, nan_ok=True)
    said = "out of memory: evaluations continue with config.trainer.eval_batch_size=25" in capsys.readouterr().out
    assert said == (part == "evaluation")


def test_features_without_memory_for_a_batch_are_those_of_smaller_ones(config):
    config.trainer.update(dtype="float64", eval_batch_size=200)
    learner = make(config)
    expected = features(learner, learner.dataset.val)
    sizes = limited_in_evaluation(learner.model.features, 60)
    torch.testing.assert_close(features(learner, learner.dataset.val), expected)
    assert sizes[:3] == [200, 100, 50] and learner.eval_batch_size == 200


def test_without_memory_to_evaluate_one_example_or_to_draw_an_epoch_a_run_ends_in_words(config, tmp_path, monkeypatch):
    def fail(*_) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_epoch", fail)
        with pytest.raises(
            BadInput, match="not enough memory to draw the examples of an epoch; use a smaller config.model"
        ):
            loop.train(config, tmp_path / "epoch")
    monkeypatch.setattr(evaluate, "forward_split", fail)
    with pytest.raises(BadInput, match="config.trainer.eval_batch_size: 1 given, .* use a smaller config.model"):
        loop.train(config, tmp_path / "evaluation")


def test_an_error_that_is_none_of_memory_is_raised(config, tmp_path, monkeypatch):
    def fail(*_) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    for place, name in ((loop, "draw_epoch"), (evaluate, "forward_split"), (loop, "take_step")):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="device-side assert"):
            patch.setattr(place, name, fail)
            loop.train(config, tmp_path / name)


def test_without_memory_for_one_example_a_run_ends_in_words(config, tmp_path, monkeypatch):
    runs_out_of_memory(monkeypatch, "mlp", 0, 1)
    with pytest.raises(BadInput, match="64 given, and there is not enough memory for one example"):
        loop.train(config, tmp_path)

"""`trainer.compile`: what is compiled, and that nothing is read from where a CUDA graph writes again."""

import os
import signal
from typing import Any

import pytest
import torch
from helpers.jobs import at_call
from ml_collections.config_dict import create
from torch import Tensor, nn

from imbalance.config.resolve import upgrade_saved_config
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.training import loop


@pytest.fixture
def graphs(monkeypatch) -> list:
    """Every graph that torch compiles, which then runs as it is: what inductor makes of it needs a C++ compiler, and long."""
    found, compile = [], torch.compile

    def keep(graph, inputs):
        found.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile(function, backend=keep))
    return found


def test_a_compiled_run_is_six_graphs_and_learns_the_same(config, tmp_path, graphs):
    """Of full batches and of others each: model and loss, objective, and the evaluated model; none in later epochs."""
    config.model = create(name="mlp", hidden=(8,))
    config.trainer.eval_batch_size = 200
    plain = loop.train(config, tmp_path / "plain")
    config.trainer.compile = "default"
    compiled = loop.train(config, tmp_path / "compiled")
    assert compiled["metrics"] == pytest.approx(plain["metrics"], rel=1e-4, nan_ok=True)
    assert len(graphs) == 6
    assert "'no' is usually faster here" in (tmp_path / "compiled" / "log.txt").read_text()
    assert "usually faster" not in (tmp_path / "plain" / "log.txt").read_text()
    assert "linear" in str(graphs[0].graph) and "threshold" in str(graphs[0].graph)  # the model and the loss in one
    keys = (torch.load(tmp_path / name / "checkpoints" / "selected.pt").keys() for name in ("plain", "compiled"))
    assert len(set(map(tuple, keys))) == 1


class FromGraph(torch.autograd.Function):
    """A parameter as a graph takes it: its gradient lies in memory of the graph, which `returned` lists."""

    @staticmethod
    def forward(ctx, tensor: Tensor, returned: list[Tensor]) -> Tensor:
        ctx.returned = returned
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone()
        ctx.returned.append(gradient.data)
        return gradient, None


def needs_gradient(given: Any) -> bool:
    return isinstance(given, nn.Parameter) and given.requires_grad


@pytest.fixture
def recorded(monkeypatch) -> list[dict[str, Any]]:
    """How each function is compiled. With "reduce-overhead" its graphs do what is a trap of CUDA graphs.

    Without a GPU torch records none. Here, as there, what the graphs of a step return is gone as soon as the next begins:
    when a graph is called and no backward pass is to come of those before it. It becomes nan. The gradients that a graph's
    backward pass returns are among it, and autograd keeps the first ones without a copy.
    """
    calls, returned, to_come, compile = [], [], [], torch.compile

    def record(graph, inputs):
        def replayed(*given: Any) -> Any:
            if not to_come:
                while returned:
                    returned.pop().fill_(torch.nan)
            outputs = graph.forward(
                *(FromGraph.apply(tensor, returned) if needs_gradient(tensor) else tensor for tensor in given)
            )
            for output in outputs:
                if isinstance(output, Tensor) and output.is_floating_point():
                    returned.append(output.data)
                    if output.requires_grad:
                        to_come.append(output.register_hook(lambda _: to_come.clear()))
            return outputs

        return replayed

    def keep(graph, inputs):
        return graph.forward

    def compiled(function, **how):
        calls.append(how)
        graphs = how.get("mode") == "reduce-overhead"
        return compile(function, backend=record if graphs else keep, dynamic=how.get("dynamic"))

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compiled)
    return calls


@pytest.fixture
def in_graphs(config, recorded):
    """A config that is trained with CUDA graphs, with an objective that keeps something."""
    config.objective = create(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)
    config.callbacks.keep_logits = True
    config.trainer.compile = "reduce-overhead"
    return config


def plain(config) -> Any:
    config = config.copy_and_resolve_references()
    config.trainer.compile = "no"
    return config


@pytest.mark.parametrize("parts", [1, 3])
def test_a_run_of_cuda_graphs_keeps_nothing_that_they_overwrite(in_graphs, tmp_path, recorded, parts):
    in_graphs.trainer.accumulation = parts
    expected = loop.train(plain(in_graphs), tmp_path / "plain")
    assert recorded == []
    found = loop.train(in_graphs, tmp_path / "graphs")
    assert recorded == [{}, *[dict(mode="reduce-overhead", dynamic=False)] * 2]  # as it is evaluated; terms and value
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-5, nan_ok=True)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count("nan") for name in ("plain", "graphs")]
    assert lines[0] == lines[1]


def test_a_run_of_cuda_graphs_without_memory_for_a_batch_goes_on_in_micro_batches(in_graphs, tmp_path, monkeypatch):
    expected = loop.train(plain(in_graphs), tmp_path / "plain")["metrics"]
    step, calls = loop.take_step, []

    def short_of_memory(config, learner, *arguments):
        calls.append(learner.micro_batches)
        if len(calls) > 6 and learner.micro_batches == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return step(config, learner, *arguments)

    monkeypatch.setattr(loop, "take_step", short_of_memory)
    found = loop.train(in_graphs, tmp_path / "graphs")["metrics"]
    assert calls[-1] == 2
    assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_run_of_cuda_graphs_is_resumed_within_an_epoch(in_graphs, tmp_path, monkeypatch):
    whole = loop.train(in_graphs, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(in_graphs, tmp_path / "twice")
    found = loop.train(in_graphs, tmp_path / "twice")["metrics"]
    assert found == pytest.approx(whole["metrics"], rel=1e-12, nan_ok=True)


def test_a_run_of_cuda_graphs_ends_where_its_loss_is_not_finite(in_graphs, tmp_path):
    in_graphs.optim.lr = 1e30
    with pytest.raises(Diverged, match="non-finite loss nan at step 1 "):
        loop.train(in_graphs, tmp_path)


def test_texts_and_several_processes_have_no_cuda_graphs(config, tmp_path, monkeypatch):
    from imbalance.training.checks import check_graphs

    class Processes:
        num_processes = 2

    class Texts:
        vocabulary = 100

    config.trainer.compile = "reduce-overhead"
    with pytest.raises(
        BadInput, match="'reduce-overhead' given; CUDA graphs cannot record batches of many lengths.* use 'default'"
    ):
        check_graphs(config, Texts, None)
    Texts.vocabulary = 0
    with pytest.raises(BadInput, match="the exchange of gradients by several processes"):
        check_graphs(config, Texts, Processes)
    config.trainer.compile = "default"
    check_graphs(config, Texts, Processes)


@pytest.mark.parametrize(("before", "now"), [(False, "no"), (True, "default"), ("reduce-overhead", "reduce-overhead")])
def test_what_older_configs_say_of_compilation_is_read(config, before, now):
    saved = config.to_dict()
    saved["trainer"]["compile"] = before
    assert upgrade_saved_config(saved)["trainer"]["compile"] == now

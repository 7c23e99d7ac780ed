import copy
import math
from functools import partial

import pytest
import torch

from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.objectives.base import Pair
from imbalance.models import MODELS, with_head
from imbalance.training.learner import head_parameters
from imbalance.training.optim import OPTIMIZERS, clip, set_rate, sgd
from imbalance.training.schedules import constant, cosine, linear, step, warm_up


def test_warm_up_is_linear_and_then_out_of_the_way():
    assert [warm_up(epoch, 4) for epoch in (0, 1, 2, 4, 9)] == [0, 0.25, 0.5, 1, 1]
    assert warm_up(0, 0) == 1


def test_cosine_is_that_of_pytorch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for epoch in range(30):
        assert cosine(epoch, 30, warmup_epochs=0) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert cosine(30, 30, warmup_epochs=0) == pytest.approx(0)


def test_cosine_starts_where_warm_up_ends():
    values = [cosine(epoch, 25, warmup_epochs=5) for epoch in (4.999, 5, 15, 25)]
    assert values == pytest.approx([1, 1, 0.5, 0], abs=1e-3)


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(1, 0.5), (1, 0.9), (3, 2.25)])
def test_cosine_ends_at_zero_also_if_warm_up_leaves_less_than_an_epoch(epochs: int, warmup_epochs: float):
    assert cosine(epochs, epochs, warmup_epochs=warmup_epochs) == pytest.approx(0)
    assert cosine((epochs + warmup_epochs) / 2, epochs, warmup_epochs=warmup_epochs) == pytest.approx(0.5)
    assert cosine(epochs, epochs, warmup_epochs=epochs) >= 0


def test_linear_is_that_of_a_fine_tuned_bert():
    """max(0, (N − n) / (N − w)) at step n of N, after w of warm-up, which may end within an epoch."""
    steps, warm, of_epoch = 80, 6, 20
    theirs = [n / warm if n < warm else (steps - n) / (steps - warm) for n in range(steps)]
    ours = [linear(n / of_epoch, steps // of_epoch, warmup_epochs=warm / of_epoch) for n in range(steps)]
    assert ours == pytest.approx(theirs)
    assert linear(4, 4, warmup_epochs=4) == linear(9, 4, warmup_epochs=1.5) == 0 and linear(3, 4, warmup_epochs=7) < 1


def test_steps_fall_at_their_milestones():
    factor = partial(step, epochs=200, warmup_epochs=5, milestones=(160, 180), factor=0.01)
    assert [factor(epoch) for epoch in (2.5, 100, 159.99, 160, 180)] == pytest.approx([0.5, 1, 1, 0.01, 1e-4])
    assert constant(7, 10, warmup_epochs=0) == 1 and not math.isnan(constant(0, 10, warmup_epochs=1))


ALIKE = ("sgd", "adam", "adamw")  # the others are these, with two rates


@pytest.mark.parametrize("name", ALIKE)
def test_optimisers_step_and_restore_as_torch_has_them(name):
    """They leave out what torch wraps around them for its compiler, and nothing else."""
    values = {"sgd": dict(momentum=0.9), "adam": dict(betas=(0.9, 0.99)), "adamw": dict(betas=(0.9, 0.99))}[name]
    values |= dict(lr=0.1, weight_decay=0.01)
    decayed = values | dict(decayed="all")
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(3)]
    optimizers = [OPTIMIZERS[name]([weights[0]], **decayed), theirs([weights[1]], **values)]
    hooked = []
    optimizers[0].register_step_post_hook(lambda *_: hooked.append(True))

    def optimizer_step(optimizer, weight):
        (weight**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert weight.grad is None

    for _ in range(3):
        for optimizer, weight in zip(optimizers, weights):
            optimizer_step(optimizer, weight)
    torch.testing.assert_close(weights[0], weights[1])
    weights[2].data.copy_(weights[0].data)
    resumed = OPTIMIZERS[name]([weights[2]], **decayed)
    resumed.load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    optimizer_step(optimizers[0], weights[0])
    optimizer_step(resumed, weights[2])
    assert torch.equal(weights[2], weights[0]) and len(hooked) == 4


@pytest.mark.parametrize("name", ALIKE)
def test_biases_and_normalisations_can_be_left_out_of_the_decay(name):
    """Without a gradient from the loss, only decay moves a parameter (Adam's, which is of the gradient, by its sign)."""
    model = build(MODELS, dict(name="resnet20", frozen=False), input_shape=(3, 32, 32), num_classes=2)
    values = dict(momentum=0.9) if name == "sgd" else dict(betas=(0.9, 0.99))
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.1, weight_decay=0.5, decayed="weights", **values)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, parameter in model.named_parameters() if not parameter.equal(before[key])}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    assert moved == {f"{n}.weight" for n in layers} and len(moved) < len(before) / 2


APART = {
    "sgd": dict(lr=0.1, momentum=0.9, weight_decay=0.2, decayed="weights"),
    "adamw": dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.2, decayed="weights"),
}


def descended(optimizer, model, rates) -> torch.nn.Module:
    """`model` after a step at each of the rates, on losses that both layers have a part in."""
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rate in rates:
        set_rate(optimizer, rate)
        model(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def no_layers() -> dict:
    """Layers are not needed if all layers before the last have the same learning rate."""
    raise AssertionError


def two_layers() -> torch.nn.Module:
    torch.manual_seed(0)
    return with_head(torch.nn.Linear(3, 4), 4, 2).double()


@pytest.mark.parametrize("name", APART)
def test_a_rate_of_its_own_for_the_last_layer_is_a_parameter_group_of_torch_s(name):
    """At rates that a schedule changes, and with the decay left out where it was; head_factor 1 changes no bit."""
    rates, settings, torch_s = (
        (0.0, 0.02, 0.05, 0.01),
        dict(APART[name]),
        dict(sgd=torch.optim.SGD, adamw=torch.optim.AdamW)[name],
    )
    apart = {}
    for factor in (1.0, 7.0):
        model = two_layers()
        optimizer = OPTIMIZERS[f"{name}_apart"](
            model.parameters(), model.head.parameters(), no_layers, head_factor=factor, layer_decay=1.0, **settings
        )
        apart[factor] = descended(optimizer, model, rates)
    plain = two_layers()
    descended(OPTIMIZERS[name](plain.parameters(), **settings), plain, rates)
    assert all(a.equal(b) for a, b in zip(apart[1.0].parameters(), plain.parameters()))
    theirs, own = two_layers(), {key: settings[key] for key in settings.keys() - {"decayed", "weight_decay"}}
    groups = [
        dict(params=[parameter], weight_decay=0.2 * (parameter.dim() > 1), of=7.0 if "head" in key else 1.0)
        for key, parameter in theirs.named_parameters()
    ]
    reference = torch_s(groups, **own)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rate in rates:
        for group in reference.param_groups:
            group["lr"] = rate * group["of"]
        theirs(inputs).square().sum().backward()
        reference.step()
        reference.zero_grad()
    for ours, other in zip(apart[7.0].parameters(), theirs.parameters()):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


def test_the_second_network_s_last_layer_has_that_rate_too():
    pair = Pair(two_layers(), biased=two_layers())
    heads = head_parameters(pair)
    assert [id(p) for p in heads] == [id(p) for layer in (pair.head, pair.biased.head) for p in layer.parameters()]
    alone = torch.nn.Linear(3, 2)
    assert head_parameters(alone) == []
    for model, head, words in (
        (alone, [], "no layer called head"),
        (alone, alone.parameters(), "no layer before its last one"),
    ):
        with pytest.raises(BadInput, match=f"config.optim.head_factor: .* the model has {words}"):
            OPTIMIZERS["sgd_apart"](
                model.parameters(), head, no_layers, head_factor=2.0, layer_decay=1.0, **APART["sgd"]
            )


def test_clipping_is_that_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (4,), ())
    ours = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    for limit in (0.1, 2.0, 1e9):
        mine, theirs = [g.clone() for g in ours], [torch.nn.Parameter(torch.zeros_like(g)) for g in ours]
        for parameter, gradient in zip(theirs, ours):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(theirs, limit)
        clip(mine, limit)
        for one, other in zip(mine, theirs):
            torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=0)  # they add 1e-6 to the norm
        if limit == 1e9:
            assert all(one.equal(gradient) for one, gradient in zip(mine, ours))


def test_clipping_neither_loses_large_gradients_nor_hides_what_is_not_finite():
    large = [torch.tensor([3e30, 4e30]), torch.zeros(2)]  # whose squares are more than float32 has
    clip(large, 1.0)
    torch.testing.assert_close(large[0], torch.tensor([0.6, 0.8]))
    nothing = [torch.zeros(3)]
    clip(nothing, 1.0)
    assert nothing[0].equal(torch.zeros(3))
    bad = [torch.tensor([1.0, torch.inf]), torch.ones(2)]
    clip(bad, 1.0)
    assert not bad[0].isfinite().all()


def test_what_is_frozen_has_no_momentum():
    frozen, trained = torch.nn.Parameter(torch.ones(3), requires_grad=False), torch.nn.Parameter(torch.ones(2))
    optimizer = sgd([frozen, trained], lr=0.1, momentum=0.9, weight_decay=0.0, decayed="all")
    assert list(optimizer.state) == [trained]
    trained.sum().backward()
    optimizer.step()
    assert trained.tolist() == pytest.approx([0.9, 0.9]) and frozen.tolist() == [1.0] * 3

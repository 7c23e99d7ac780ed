import copy
import math
from functools import partial

import pytest
import torch

from imbalance.training.optim import OPTIMIZERS, constant, cosine, step, warm_up


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


def test_steps_fall_at_their_milestones():
    factor = partial(step, epochs=200, warmup_epochs=5, milestones=(160, 180), factor=0.01)
    assert [factor(epoch) for epoch in (2.5, 100, 159.99, 160, 180)] == pytest.approx([0.5, 1, 1, 0.01, 1e-4])
    assert constant(7, 10, warmup_epochs=0) == 1 and not math.isnan(constant(0, 10, warmup_epochs=1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_step_and_restore_as_torch_has_them(name):
    """They leave out what torch wraps around them for its compiler, and nothing else."""
    values = {"sgd": dict(momentum=0.9), "adam": dict(betas=(0.9, 0.99)), "adamw": dict(betas=(0.9, 0.99))}[name]
    values |= dict(lr=0.1, weight_decay=0.01)
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(3)]
    optimizers = [OPTIMIZERS[name]([weights[0]], **values), theirs([weights[1]], **values)]
    hooked = []
    optimizers[0].register_step_post_hook(lambda *_: hooked.append(True))

    def descend(optimizer, weight):
        (weight**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert weight.grad is None

    for _ in range(3):
        for optimizer, weight in zip(optimizers, weights):
            descend(optimizer, weight)
    torch.testing.assert_close(weights[0], weights[1])
    weights[2].data.copy_(weights[0].data)
    resumed = OPTIMIZERS[name]([weights[2]], **values)
    resumed.load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    descend(optimizers[0], weights[0])
    descend(resumed, weights[2])
    assert torch.equal(weights[2], weights[0]) and len(hooked) == 4

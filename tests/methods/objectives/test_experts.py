"""RIDE and SADE: values and gradients of the published code, and the model of experts that they train."""

import pytest
import torch
from helpers.published import assert_published, exact, published
from torch import nn
from torch.nn.functional import cosine_similarity

from imbalance.errors import BadInput
from imbalance.methods.batch import Batch
from imbalance.methods.losses import LDAM, CrossEntropy
from imbalance.methods.objectives.experts import RIDE, SADE, Experts, expert_logits
from imbalance.models import CosineLinear, experts, mlp

PUBLISHED = published("ride_sade")
COUNTS, LABELS = (torch.tensor(PUBLISHED["inputs"][key]) for key in ("cls_num_list", "labels"))
SCALE = 30  # the published logits are multiplied by it already
NETWORK = dict(name="mlp", hidden=(6, 5))


def objective_of(method: Experts, loss: nn.Module, logits: torch.Tensor, weights: torch.Tensor, epoch: int = 0):
    """The value of a method for the (B, E, K) logits of the experts, which a stand-in for the model returns."""
    batch = Batch((torch.zeros(len(logits), 1),), LABELS, torch.zeros_like(LABELS), weights, LABELS, epoch=epoch)
    terms = method.terms(lambda inputs: logits, loss, batch)
    torch.testing.assert_close(terms["logits"], logits.mean(1))
    return method.value(terms, batch)


@pytest.mark.parametrize("case", PUBLISHED["ride"]["results"])
def test_ride_is_the_published_code(case):
    expected = PUBLISHED["ride"]["results"][case]
    logits = exact(PUBLISHED["inputs"]["expert_logits"], requires_grad=True)
    method = RIDE(COUNTS, diversity=0.45, temperature=1.0, tempering=0.05, start_epoch=161, scale=float(SCALE))
    weights, epoch = torch.ones(5, dtype=torch.float64), 0
    if case == "reweight=True epoch=161":
        effective = (1 - 0.9999) / (1 - 0.9999 ** COUNTS.double())
        weights, epoch = effective[LABELS] / effective[LABELS].mean(), 161
    loss = LDAM(COUNTS, max_margin=0.5, scale=float(SCALE))
    value = objective_of(method, loss, logits.transpose(0, 1) / SCALE, weights, epoch)
    value.backward()
    assert_published(value, expected["value"], 1e-7)
    assert_published(logits.grad, expected["grad_expert_logits"], 1e-7)


@pytest.mark.parametrize("tau", PUBLISHED["sade_train"])
def test_sade_is_the_published_code(tau):
    expected = PUBLISHED["sade_train"][tau]
    logits = exact(PUBLISHED["inputs"]["expert_logits"], requires_grad=True)
    method = SADE(COUNTS, tau=float(tau), scale=float(SCALE))
    value = objective_of(method, CrossEntropy(), logits.transpose(0, 1) / SCALE, torch.ones(5, dtype=torch.float64))
    value.backward()
    assert_published(value, expected["value"], 1e-7)
    assert_published(logits.grad, expected["grad_expert_logits"], 1e-7)


@pytest.mark.parametrize("head", [nn.Linear, CosineLinear])
def test_the_experts_share_their_first_layers_and_the_model_averages_their_logits(head):
    torch.manual_seed(0)
    model = experts((4,), 3, head, network=NETWORK, experts=3, shared=3).double()
    inputs = torch.randn(7, 4, dtype=torch.float64)
    features = model.features(inputs)
    logits = expert_logits(model.head, features, 3)
    torch.testing.assert_close(logits.mean(1), model(inputs))
    for e, branch in enumerate(model.features.branches):
        own = branch(model.features.shared(inputs))  # the features of one expert, and its columns of the last layer
        weight = model.head.weight[:, 5 * e : 5 * (e + 1)]
        if head is nn.Linear:
            expected = own @ weight.T + model.head.bias
        else:
            expected = cosine_similarity(own[:, None], weight[None], dim=2)
        torch.testing.assert_close(logits[:, e], expected)
    shared, whole = (sum(p.numel() for p in part.parameters()) for part in (model.features.shared, model.features))
    assert shared == 4 * 6 + 6 and whole == shared + 3 * (6 * 5 + 5)


def test_an_expert_starts_with_the_last_layer_that_its_network_would_have():
    torch.manual_seed(0)
    model = experts((4,), 3, network=NETWORK, experts=2, shared=0)
    torch.manual_seed(0)
    first, second = mlp((4,), 3, hidden=(6, 5)), mlp((4,), 3, hidden=(6, 5))
    assert model.head.weight.equal(torch.cat([first.head.weight, second.head.weight], dim=1))
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(model.features(inputs)[:, 5:], second.features(inputs) / 2)


@pytest.mark.parametrize("model", [mlp((4,), 3, hidden=(5,)), experts((4,), 3, network=NETWORK, experts=2, shared=0)])
def test_sade_needs_three_experts(model):
    method = SADE(COUNTS, tau=2.0, scale=1.0)
    with pytest.raises(
        BadInput, match=r"'sade' needs a model of 3 experts; use config.model.name='experts' with experts=3"
    ):
        method.network(lambda: model)


def test_more_shared_layers_than_there_are_are_refused():
    with pytest.raises(BadInput, match=r"config.model.shared: 5 given; it must be less than 5, the number of layers"):
        experts((4,), 3, network=NETWORK, experts=3, shared=5)

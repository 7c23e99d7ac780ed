"""PaCo and GPaCo: values and gradients of the published code, the queue, and the network that computes keys."""

import re

import pytest
import torch
from helpers.published import assert_published, exact, published
from torch.nn.functional import cross_entropy, normalize

from imbalance.errors import BadInput
from imbalance.methods.batch import Batch
from imbalance.methods.losses import BalancedSoftmax, CrossEntropy
from imbalance.methods.objectives.paco import GPaCo, PaCo, WithKeys, parametric_contrastive
from imbalance.models import mlp

PUBLISHED = published("paco")
INPUTS, COUNTS = PUBLISHED["inputs"], torch.tensor(PUBLISHED["inputs"]["cls_num_list"])
LABELS = torch.tensor(INPUTS["labels"])
WEIGHTS = torch.linspace(0.5, 1.5, 4).double()
SETTINGS = dict(alpha=0.1, beta=1.0, gamma=0.5, temperature=0.2, width=4, queue=6)


@pytest.mark.parametrize("case", PUBLISHED["results"])
def test_the_loss_is_that_of_the_published_code(case):
    """The published code adds 1e-12 within a logarithm, which moves values at the temperature 0.05 by 4e-7, slopes by 4e-6."""
    expected = PUBLISHED["results"][case]
    values = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", case)}
    anchors = 8 if case.startswith("GPaCo") else 4
    logits = exact(INPUTS["logits_query_then_key"][:anchors], requires_grad=True)
    features = exact(INPUTS["features_query_key_queue"], requires_grad=True)
    log_shares = (COUNTS / COUNTS.sum()).double().log()
    value = parametric_contrastive(
        logits + log_shares, features, LABELS, smoothing=values.pop("smooth"), **values
    ).mean()
    value.backward()
    assert_published(value, expected["value"], 1e-7)
    assert_published(logits.grad, expected["grad_logits"], 1e-6)
    assert_published(features.grad, expected["grad_features"], 5e-6)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, dtype=torch.float64, generator=draw), dim=-1)


def columns_of(views: int, seed: int = 0) -> dict[str, torch.Tensor]:
    keys, anchors = unit(4, 4, seed=seed + 1), unit(4, views, 4, seed=seed)
    return dict(
        anchor_logits=2 * unit(4, views, 3, seed=seed + 2), anchors=anchors,
        keys=anchors[:, 1] if views == 2 else keys, targets=torch.tensor([0, 2, 1, 0]),
    )  # fmt: skip


@pytest.mark.parametrize("views", [1, 2])
def test_the_objective_compares_with_keys_and_with_a_queue_of_earlier_keys(views):
    if views == 1:
        method = PaCo(COUNTS, CrossEntropy(), momentum=0.9, **SETTINGS)
    else:
        method = GPaCo(COUNTS, CrossEntropy(), smoothing=0.0, **SETTINGS)
    log_shares, past = (COUNTS / COUNTS.sum()).double().log(), []
    settings = {key: value for key, value in SETTINGS.items() if key not in ("width", "queue")}
    for step in range(3):
        columns = columns_of(views, 10 * step)
        value = method(WEIGHTS, WEIGHTS, None, **columns)
        samples = [(columns["anchors"][i, v], columns["targets"][i]) for i in range(4) for v in range(views)]
        samples += [] if views == 2 else list(zip(columns["keys"], columns["targets"]))
        samples += past[-6:]
        vectors, classes = map(torch.stack, zip(*samples))
        logits = columns["anchor_logits"].flatten(0, 1) + log_shares
        losses = parametric_contrastive(logits, vectors, classes, smoothing=0.0, **settings)
        expected = (WEIGHTS.repeat_interleave(views) * losses).mean()
        torch.testing.assert_close(value, expected)
        past += zip(columns["keys"], columns["targets"])
    assert method.next_place == 12 % 6
    method.eval()(WEIGHTS, WEIGHTS, None, **columns_of(views))
    assert method.next_place == 12 % 6 and len(method.queue) == 6


def test_without_samples_it_is_balanced_softmax():
    logits, classes = torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 2, 0])
    values = parametric_contrastive(
        logits, unit(5, 4), classes, alpha=0.0, beta=1.0, gamma=1e-300, temperature=1.0, smoothing=0.0
    )
    torch.testing.assert_close(values, cross_entropy(logits, classes, reduction="none"))


def test_keys_have_no_gradient_and_follow_the_network():
    torch.manual_seed(0)
    method = PaCo(COUNTS, CrossEntropy(), momentum=0.9, **SETTINGS)
    model = method.network(lambda: mlp((3,), 3, hidden=(5,)))
    assert isinstance(model, WithKeys)
    views = (torch.randn(4, 3), torch.randn(4, 3))
    batch = Batch(views, torch.tensor([0, 2, 1, 0]), torch.zeros(4).long(), torch.ones(4), torch.arange(4))
    terms = method.terms(model, CrossEntropy(), batch)
    torch.testing.assert_close(terms["logits"], model.eval()(views[0]))
    model.train()
    with torch.no_grad():  # the copy starts as the network, so keys are the network's projections of the second view
        torch.testing.assert_close(terms["keys"], model(torch.cat(views[::-1]))[1])
    method.value(terms, batch).backward()
    assert all(p.grad is None for p in model.keys.parameters())
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("keys."))
    first, key = model.projection[0].weight, model.keys["projection"][0].weight
    before = key.clone()
    with torch.no_grad():
        first.add_(1.0)
    method.value(method.terms(model, CrossEntropy(), batch), batch)
    torch.testing.assert_close(key.detach(), before + 0.1)


def test_another_loss_is_refused():
    with pytest.raises(
        BadInput, match="'paco' has a loss of its own, and does not use config.loss; set config.loss.name="
    ):
        PaCo(COUNTS, BalancedSoftmax(COUNTS), momentum=0.9, **SETTINGS)

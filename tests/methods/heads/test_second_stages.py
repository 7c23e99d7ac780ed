"""Weight balancing, LOS and MiSLAS: values of the published code, and whole descents repeated with torch's optimiser."""

import math

import pytest
import torch
from helpers.features import dataset
from helpers.published import assert_published, exact, published
from torch import nn

from imbalance.config.schema import build
from imbalance.errors import Diverged
from imbalance.methods.heads.max_norm import limit_norms, norm_limit
from imbalance.methods.heads.registry import HEADS
from imbalance.methods.losses import LabelAwareSmoothing, smoothed_cross_entropy

MAXNORM, LOS, MISLAS = published("maxnorm"), published("los"), published("mislas_las")
FURTHER = dict(epochs=3, batch_size=100, lr=0.05, momentum=0.9, weight_decay=0.1)
SECTIONS = {
    "weight_balancing": FURTHER | dict(limit=0.1, beta=0.99),
    "los": FURTHER | dict(smoothing=0.9),
    "mislas": FURTHER | dict(by="class", head_smoothing=0.3, tail_smoothing=0.1, layer_factor=0.5),
}


@pytest.mark.parametrize("case", [case for case in MAXNORM["results"] if case["tau"] == 1], ids=str)
def test_weight_vectors_are_projected_as_in_the_published_code(case):
    limit = norm_limit(exact(MAXNORM["inputs"]["weight_when_radius_is_set"]), case["thresh"])
    assert limit.item() == pytest.approx(case["radius"], rel=1e-12)
    weight = exact(MAXNORM["inputs"]["weight_to_project"])
    limit_norms(weight, limit)
    assert_published(weight, case["projected"])


def test_a_weight_vector_of_zeros_stays_zero():
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    limit_norms(weight, torch.tensor(1.0))
    torch.testing.assert_close(weight, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


@pytest.mark.parametrize("smoothing", LOS["by_delta"])
def test_smoothed_cross_entropy_is_that_of_the_published_code(smoothing):
    expected, logits = LOS["by_delta"][smoothing], exact(LOS["inputs"]["logits"], requires_grad=True)
    value = smoothed_cross_entropy(logits, torch.tensor(LOS["inputs"]["labels"]), float(smoothing)).mean()
    value.backward()
    assert_published(value, expected["value"])
    assert_published(logits.grad, expected["grad_logits"])


@pytest.mark.parametrize(("head", "tail"), [(0.3, 0.0), (0.4, 0.1)])
def test_label_aware_smoothing_is_that_of_the_published_code(head, tail):
    expected = MISLAS["results"][f"concave head={head} tail={tail} power=None"]
    loss = LabelAwareSmoothing(torch.tensor(MISLAS["inputs"]["cls_num_list"]), head=head, tail=tail)
    logits = exact(MISLAS["inputs"]["logits"], requires_grad=True)
    value = loss(logits, torch.tensor(MISLAS["inputs"]["labels"])).mean()
    value.backward()
    assert_published(loss.smoothing, expected["epsilon"])
    assert_published(value, expected["value"])
    assert_published(logits.grad, expected["grad_logits"])


def test_label_aware_smoothing_of_equal_counts_is_that_of_the_most_frequent_class():
    assert LabelAwareSmoothing(torch.tensor([7, 7]), head=0.3, tail=0.1).smoothing.tolist() == [0.3, 0.3]


def refit(name: str, **changes: float) -> tuple[nn.Linear, nn.Linear]:
    """Return a random last layer, and the layer that the head `name` makes of it."""
    torch.manual_seed(0)
    data, head = dataset(), nn.Linear(6, 2)
    layer = build(
        HEADS, dict(name=name) | SECTIONS[name] | changes, head=head, dataset=data,
        class_counts=data.class_counts(data.train), features=lambda split: getattr(data, split).inputs,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return head, layer


@pytest.mark.parametrize("name", ["weight_balancing", "los"])
def test_one_batch_an_epoch_is_gradient_descent_on_the_objective_of_all_examples(name):
    """Repeat the descent with other code: torch's losses with class weights or label smoothing, and its optimiser."""
    head, layer = refit(name, batch_size=430)
    data, ours = dataset(), nn.Linear(6, 2)
    ours.load_state_dict(head.state_dict())
    counts = data.class_counts(data.train).double()
    factors = (1 - 0.99) / (1 - 0.99**counts)
    norms = head.weight.norm(dim=1)
    largest = (norms.min() + 0.1 * (norms.max() - norms.min())).item()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * epoch / 3))
        logits, targets = ours(data.train.inputs), data.train.targets
        if name == "los":
            loss = nn.functional.cross_entropy(logits, targets, label_smoothing=0.9)
        else:
            losses = nn.functional.cross_entropy(logits, targets, reduction="none")
            loss = (losses * (factors / factors.mean()).float()[targets]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if name == "weight_balancing":
            ours.weight.data = torch.renorm(ours.weight.data, 2, 0, largest)
    torch.testing.assert_close(layer.weight, ours.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.bias, ours.bias, rtol=1e-5, atol=1e-6)


def test_mislas_learns_factors_at_their_own_rate():
    """At a tiny learning rate of the layer only the factors move, so every weight vector keeps its direction."""
    head, layer = refit("mislas", layer_factor=1e-12, weight_decay=0.0)
    cosines = nn.functional.cosine_similarity(layer.weight, head.weight)
    torch.testing.assert_close(cosines.abs(), torch.ones(2))
    assert not layer.weight.allclose(head.weight, rtol=1e-2)
    _, other = refit("mislas", layer_factor=1.0, weight_decay=0.0)
    assert nn.functional.cosine_similarity(other.weight, head.weight).min() < 0.999


@pytest.mark.parametrize("name", SECTIONS)
def test_a_diverging_second_stage_names_its_step(name):
    with pytest.raises(Diverged, match=f"'{name}' gave the last layer NaN or infinite weights at its step"):
        refit(name, lr=1e30, weight_decay=1e10)

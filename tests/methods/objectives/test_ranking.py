"""Ranking objectives: values and gradients of published code and of brute force over pairs, and their bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from imbalance.errors import BadInput
from imbalance.methods.objectives.ranking import (
    AUCMargin,
    AveragePrecision,
    PartialAUC,
    SmoothAP,
    auc_margin,
    pair_losses,
    smooth_ap,
)

FOLDER = Path(__file__).parent / "published"
AUCM, SMOOTH, PARTIAL = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("aucm", "smooth_ap", "partial_auc_ap")
)


def ranking(published: dict, scores: str = "scores") -> tuple[torch.Tensor, torch.Tensor]:
    """The (1, B) scores, with a gradient, and positives of published inputs."""
    values = torch.tensor(published[scores], dtype=torch.float64)[None].requires_grad_()
    return values, torch.tensor(published["labels"])[None] == 1


def check(value: torch.Tensor, scores: torch.Tensor, expected: float, gradient: list, atol: float = 1e-12) -> None:
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    (ours,) = torch.autograd.grad(value.sum(), scores)
    np.testing.assert_allclose(ours[0], gradient, rtol=1e-8, atol=atol)


@pytest.mark.parametrize("given", AUCM["at_given_a_b_alpha"], ids=lambda g: f"{g['version']}-{g['a']}")
def test_the_margin_loss_at_any_a_b_and_alpha_is_the_corrected_published_one(given):
    """Version 1 is p(1 − p) times version 2, where p is the share of positives; gradients are by differences."""
    scores, positive = ranking(AUCM["inputs"])
    factor = 1.0 if given["version"] == "v2" else AUCM["inputs"]["p"] * (1 - AUCM["inputs"]["p"])
    value = factor * auc_margin(scores, positive, AUCM["inputs"]["margin"], given["a"], given["b"], given["alpha"])
    check(value, scores, given["correct_value"], given["correct_grad_scores"], atol=1e-9)


def test_the_margin_loss_at_its_saddle_is_the_mean_over_pairs():
    scores, positive = ranking(AUCM["inputs"])
    expected = AUCM["brute_force"]
    check(
        auc_margin(scores, positive, 1.0), scores, expected["mean_over_pairs_of_squared"], expected["grad_scores"], 1e-9
    )
    saddle = expected["saddle"]
    at = (saddle[key] for key in ("a", "b", "alpha"))
    assert auc_margin(scores, positive, 1.0, *at).item() == pytest.approx(saddle["value"], rel=1e-14)


def test_the_margin_loss_does_not_push_means_further_apart_than_the_margin():
    active = AUCM["margin_active"]
    scores, positive = ranking(active | {"labels": AUCM["inputs"]["labels"]})
    value = auc_margin(scores, positive, active["margin"])
    assert value.item() == pytest.approx(active["min_max_value"], rel=1e-13)
    assert pair_mean(scores, positive, active["margin"]) == pytest.approx(active["unclipped_pairwise_square"])


def pair_mean(scores: torch.Tensor, positive: torch.Tensor, margin: float) -> float:
    values, chosen = scores.detach()[0].numpy(), positive[0].numpy()
    return float(((margin - (values[chosen][:, None] - values[~chosen])) ** 2).mean())


@pytest.mark.parametrize("temperature", SMOOTH["binary"]["by_temperature"])
def test_smooth_ap_is_the_published_one(temperature):
    expected = SMOOTH["binary"]["by_temperature"][temperature]
    scores, positive = ranking(SMOOTH["binary"])
    value = 1 - smooth_ap(scores, positive, float(temperature))
    check(value, scores, expected["value"], expected["grad_scores"], atol=2e-8)


@pytest.mark.parametrize("temperature", SMOOTH["retrieval"]["by_temperature"])
def test_smooth_ap_of_queries_by_similarity_is_the_published_one(temperature):
    expected = SMOOTH["retrieval"]["by_temperature"][temperature]
    features = torch.tensor(SMOOTH["retrieval"]["features"], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(SMOOTH["retrieval"]["labels"])
    value = 1 - smooth_ap(features @ features.T, labels == labels[:, None], float(temperature)).mean()
    (gradient,) = torch.autograd.grad(value, features)
    assert value.item() == pytest.approx(expected["value"], rel=1e-9)
    np.testing.assert_allclose(gradient, expected["grad_features"], rtol=1e-6, atol=2e-8)


def test_smooth_ap_becomes_average_precision():
    scores, positive = ranking(SMOOTH["binary"])
    exact = SMOOTH["binary"]["exact_average_precision"]
    assert exact == pytest.approx(average_precision_score(positive[0], scores.detach()[0]))
    assert smooth_ap(scores, positive, 1e-5).item() == pytest.approx(exact, rel=1e-12)


METHODS = {
    "pAUC_CVaR beta=0.2 eta=0.1": (PartialAUC, dict(estimator="cvar", level=0.2, step=0.1)),
    "pAUC_DRO_KL gamma=0.9 Lambda=1": (PartialAUC, dict(estimator="kl", level=1.0, step=0.9)),
    "AP_SOAP gamma=0.9": (AveragePrecision, dict(decay=0.1)),
}
LABELS = torch.tensor(PARTIAL["inputs"]["labels"])


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_with_state_are_the_published_ones(name):
    cls, settings = METHODS[name]
    method = cls(LABELS, 2, positives=(1,), share=1.0, margin=1.0, **settings)
    rows, positive = torch.arange(10), LABELS[None] == 1
    for step in PARTIAL["three_steps_with_state"][name]:
        scores = torch.tensor(step["scores"], dtype=torch.float64)[None].requires_grad_()
        check(method.rankings(scores, positive, rows=rows), scores, step["value"], step["grad_scores"])
    assert not method.states[..., LABELS == 0].any()


def test_cvar_at_the_exact_quantile_is_the_mean_over_the_hardest_negatives():
    exact = PARTIAL["exact_one_way_top_k"]
    scores = torch.tensor(exact["scores"], dtype=torch.float64)[None]
    hardest = pair_losses(scores, 1.0)[0][LABELS == 1][:, LABELS == 0].sort(descending=True).values
    assert hardest[:, : exact["k_negatives"]].mean().item() == pytest.approx(
        exact["mean_over_positives_of_the_mean_loss_on_the_k_highest_negatives"], rel=1e-12
    )
    method = PartialAUC(
        LABELS, 2, positives=(1,), share=1.0, margin=1.0, estimator="cvar",
        level=exact["k_negatives"] / 7, step=0.1,
    )  # fmt: skip
    # The threshold of each positive lies between its second and its third hardest negative.
    method.states[LABELS == 1] = hardest[:, 1:3].mean(1)
    value = method.rankings(scores, LABELS[None] == 1, rows=torch.arange(10))
    assert value.item() == pytest.approx(hardest[:, :2].mean().item(), rel=1e-12)


def test_a_batch_gives_the_mean_over_classes_that_have_positives_and_negatives():
    logits = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets, losses, weights = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0]), torch.rand(8).double(), torch.rand(8).double()
    method = AUCMargin(4, positives=(0, 1, 3), share=0.25, margin=0.7)
    value = method(losses, weights, targets, logits=logits, targets=targets)
    scores = logits.softmax(1).T
    expected = [auc_margin(scores[k][None], targets[None] == k, 0.7) for k in (0, 1)]
    torch.testing.assert_close(value, 0.75 * (weights * losses).mean() + 0.25 * torch.cat(expected).mean())
    alone = method(losses, weights, targets, logits=logits, targets=torch.full((8,), 2))
    torch.testing.assert_close(alone, 0.75 * (weights * losses).mean())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_class_has_no_ranking_loss_and_a_finite_gradient(name, label):
    cls, settings = METHODS[name]
    method = cls(LABELS, 2, positives=(1,), share=1.0, margin=1.0, **settings)
    logits = torch.tensor([[0.1, 0.5]], requires_grad=True)
    one = torch.ones(1)
    value = method(one, one, one.long(), logits=logits, targets=torch.tensor([label]), rows=torch.tensor([label]))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("positives", [(), (2,), (1, 1)])
def test_classes_that_are_not_there_are_refused(positives):
    with pytest.raises(BadInput, match=r"^positives: .* given; name at least one class .* 0 to 1"):
        SmoothAP(2, positives=positives, share=1.0, temperature=0.1)


@pytest.mark.parametrize("estimator, level, step", [("cvar", 1.5, 0.1), ("kl", 1.5, 1.5)])
def test_a_share_above_1_is_refused(estimator, level, step):
    with pytest.raises(BadInput, match=f"1.5 given; it must be at most 1 if estimator='{estimator}'"):
        PartialAUC(LABELS, 2, positives=(1,), share=1.0, margin=1.0, estimator=estimator, level=level, step=step)  # fmt: skip

"""Correct-n-contrast: the contrastive loss against loops over its definition, and what it needs."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.objectives.cnc import CorrectNContrast, correct_n_contrast

TARGETS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0])
PREDICTIONS = torch.tensor([0, 1, 1, 1, 0, 1, 2, 0, 0])
FEATURES = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.linspace(0.5, 1.5, 9, dtype=torch.float64)


def by_loops(features: Tensor, targets: list[int], predictions: list[int], weights: list[float], tau: float) -> Tensor:
    """The mean over anchors of the loss of Zhang et al., ICML 2022, equation 6, one pair at a time."""
    losses, examples = [], range(len(targets))
    for a in examples:
        positives = [b for b in examples if targets[b] == targets[a] and predictions[b] != predictions[a]]
        negatives = [b for b in examples if targets[b] != targets[a] and predictions[b] == predictions[a]]
        if targets[a] != predictions[a] or not positives or not negatives:
            continue
        exponentials = {
            b: (cosine_similarity(features[a], features[b], dim=0) / tau).exp() for b in positives + negatives
        }
        whole = sum(exponentials.values())
        losses.append(weights[a] * -sum((exponentials[p] / whole).log() for p in positives) / len(positives))
    return torch.stack(losses).mean()


def test_the_contrastive_loss_and_its_gradient_are_those_of_the_definition():
    ours, theirs = FEATURES.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    value = correct_n_contrast(ours, TARGETS, PREDICTIONS, WEIGHTS, 0.3)
    expected = by_loops(theirs, TARGETS.tolist(), PREDICTIONS.tolist(), WEIGHTS.tolist(), 0.3)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    value.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)


def test_a_step_moves_an_anchor_towards_its_positives_and_away_from_its_negatives():
    """SpuCo's code leaves out the minus of the logarithm, and does the opposite."""
    targets, predictions = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    features = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    correct_n_contrast(features, targets, predictions, torch.ones(3), 1.0).backward()
    assert features.grad is not None
    moved = features.detach() - 0.1 * features.grad
    assert moved[0] @ moved[1] > 0 > moved[0] @ moved[2]


def test_a_batch_without_an_anchor_adds_nothing():
    features = FEATURES.clone().requires_grad_()
    value = correct_n_contrast(features, TARGETS, TARGETS, WEIGHTS, 0.3)  # no wrong prediction, so no positives
    value.backward()
    assert value == 0 and features.grad is not None and not features.grad.any()


def test_the_objective_reads_the_predictions_of_the_first_run_and_weighs_its_two_terms():
    method = CorrectNContrast(
        TARGETS,
        FirstRun({"train": {"logits": torch.eye(3)[PREDICTIONS]}}),
        share=0.75,
        temperature=0.3,
    )
    rows, losses = torch.tensor([8, 1, 3, 4, 0, 6]), torch.arange(6.0, dtype=torch.float64)
    columns = dict(features=FEATURES[rows], targets=TARGETS[rows], rows=rows)
    contrast = correct_n_contrast(FEATURES[rows], TARGETS[rows], PREDICTIONS[rows], WEIGHTS[rows], 0.3)
    expected = 0.75 * contrast.item() + 0.25 * (WEIGHTS[rows] * losses).mean().item()
    assert math.isclose(method(losses, WEIGHTS[rows], None, **columns).item(), expected, rel_tol=1e-14)


def test_without_a_first_run_it_is_refused():
    with pytest.raises(BadInput, match=r"'cnc' needs the predictions of a first run.*use config.groups.name='predic"):
        CorrectNContrast(TARGETS, None, share=0.75, temperature=0.1)

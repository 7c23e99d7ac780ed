"""LADE: values and gradients of the published code."""

import pytest
import torch
from helpers.published import assert_published, exact, published

from imbalance.methods.losses import BalancedSoftmax
from imbalance.methods.objectives.lade import LabelDistributionDisentangling

LADE = published("lade")
COUNTS, TARGETS = torch.tensor(LADE["inputs"]["cls_num_list"]), torch.tensor(LADE["inputs"]["labels"])


def objective(drift: float, penalty: float = 1.0) -> LabelDistributionDisentangling:
    return LabelDistributionDisentangling(COUNTS, penalty=penalty, drift=drift)


@pytest.mark.parametrize("drift", LADE["regularizer_by_remine_lambda"])
def test_the_regulariser_is_that_of_the_published_code(drift):
    """One class has no example in the batch. The published code adds 1e-9 to the shares, so it has 7 exact digits."""
    expected = LADE["regularizer_by_remine_lambda"][drift]
    logits = exact(LADE["inputs"]["logits"], requires_grad=True)
    value = objective(float(drift)).regulariser(logits, TARGETS)
    value.backward()
    assert_published(value, expected["value"], 1e-7)
    assert_published(logits.grad, expected["grad_logits"], 1e-7)


def test_the_objective_is_balanced_softmax_and_the_regulariser():
    logits = exact(LADE["inputs"]["logits"])
    losses, ones, groups = BalancedSoftmax(COUNTS)(logits, TARGETS), torch.ones(8).double(), torch.zeros(8).long()
    value = objective(0.1, penalty=0.1)(losses, ones, groups, logits=logits, targets=TARGETS)
    assert_published(losses.mean(), LADE["prior_ce"]["value"], 1e-7)
    assert_published(value, LADE["total_weight_0p1_lambda_0p1"], 1e-7)


def test_weights_multiply_the_losses_alone():
    logits, groups = exact(LADE["inputs"]["logits"]), torch.zeros(8).long()
    losses, weights = torch.arange(8.0).double(), torch.linspace(0.5, 1.5, 8).double()
    value = objective(0.1)(losses, weights, groups, logits=logits, targets=TARGETS)
    torch.testing.assert_close(value - objective(0.1).regulariser(logits, TARGETS), (weights * losses).mean())

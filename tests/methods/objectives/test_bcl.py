"""Balanced contrastive learning: values and gradients of the published code."""

import pytest
import torch
from helpers.published import assert_published, exact, published
from torch import nn

from imbalance.methods.losses import BalancedSoftmax
from imbalance.methods.objectives.bcl import BalancedContrastive, balanced_contrastive

BCL = published("bcl_supcon")
INPUTS, TARGETS = BCL["inputs"], torch.tensor(BCL["inputs"]["labels"])


@pytest.mark.parametrize("temperature", BCL["balscl"])
def test_the_contrastive_loss_is_that_of_the_published_code(temperature):
    projections, centres = exact(INPUTS["features"], requires_grad=True), exact(INPUTS["centers"], requires_grad=True)
    value = balanced_contrastive(
        projections, projections @ centres.T, TARGETS, torch.ones(6).double(), float(temperature)
    )
    value.backward()
    expected = BCL["balscl"][temperature]
    assert_published(value, expected["value"])
    assert_published(projections.grad, expected["grad_features"], 1e-10)
    assert_published(centres.grad, expected["grad_centers"], 1e-10)


def test_the_objective_is_the_published_sum():
    projections, logits = exact(INPUTS["features"]), exact(INPUTS["logits"])
    losses, ones, groups = BalancedSoftmax(torch.tensor(INPUTS["cls_num_list"]))(logits, TARGETS), torch.ones(6), None
    method = BalancedContrastive(penalty=0.35, temperature=0.1, width=4)
    columns = dict(projections=projections, similarities=projections @ exact(INPUTS["centers"]).T, targets=TARGETS)
    assert_published(method(losses, ones.double(), groups, **columns), BCL["bcl_total_alpha1_beta035_temp01"])


def test_a_class_with_one_view_in_the_batch_has_its_prototype_as_its_positive():
    """With one example of one view the other members are the prototypes; the own prototype counts once."""
    similarities = torch.tensor([[[0.3, -0.2, 0.1]]])
    value = balanced_contrastive(torch.tensor([[[1.0, 0.0]]]), similarities, torch.tensor([1]), torch.ones(1), 0.5)
    torch.testing.assert_close(value, nn.functional.cross_entropy(similarities[0] / 0.5, torch.tensor([1])))

"""ProCo: Bessel functions against SciPy, logits and gradients against exact values, and the running means."""

import pytest
import torch
from helpers.published import assert_published, exact, published
from scipy.special import ive

from imbalance.methods.objectives.proco import ProbabilisticContrastive, contrast_logits, log_bessel

PUBLISHED = published("proco")
INPUTS, LABELS = PUBLISHED["inputs"], torch.tensor(PUBLISHED["inputs"]["labels"])


@pytest.mark.parametrize("width", [3, 5, 8, 16, 32, 128, 1024])
def test_the_bessel_functions_and_their_derivatives_are_those_of_scipy(width):
    order = width / 2 - 1
    kappas = torch.tensor([0.3, 2.0, 10.0, 50.0, 606.0, 2e4, 1e5], dtype=torch.float64)
    values = [ive(order + i, kappas.numpy()) for i in (0, 1)]
    kept = torch.from_numpy((values[0] > 1e-290) & (values[1] > 1e-290))
    squares = (kappas[kept] ** 2).requires_grad_()
    ours = log_bessel(order, squares)
    scaled, next_scaled = (torch.from_numpy(value)[kept] for value in values)
    expected = scaled.log() + kappas[kept] - order * kappas[kept].log()
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-9)
    ours.sum().backward()  # d/dκ² of log(I_ν(κ) κ^-ν) is I_{ν+1}(κ) / I_ν(κ) / (2κ)
    torch.testing.assert_close(squares.grad, next_scaled / scaled / (2 * kappas[kept]), rtol=1e-8, atol=0)


def test_at_zero_the_bessel_functions_are_those_of_the_power_series():
    squares = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = log_bessel(7.0, squares)
    expected = -torch.lgamma(torch.tensor(8.0, dtype=torch.float64)) - 7 * torch.log(torch.tensor(2.0).double())
    torch.testing.assert_close(value[0], expected, rtol=1e-11, atol=0)
    value.backward()
    assert squares.grad is not None and squares.grad.item() == pytest.approx(1 / (4 * 8), rel=1e-8)


def test_logits_loss_and_gradient_are_the_exact_ones():
    """The published code's own values differ from the exact ones by up to 1 %, because of its Bessel functions."""
    prior = exact(INPUTS["prior"])
    method = ProbabilisticContrastive(prior * 1000, penalty=1.0, temperature=INPUTS["temperature"], width=16)
    method.means[0], method.counts[0] = exact(INPUTS["mean_before"]), exact(INPUTS["amount_before"])[:, None]
    features = exact(INPUTS["features"], requires_grad=True)
    # The vectors are six examples of one view; here they are three examples with two views of one class each.
    method.update(features.detach(), LABELS, epoch=0)
    assert_published(method.means[0], PUBLISHED["mean_after"])
    logits = contrast_logits(features, method.means[0], INPUTS["temperature"])
    assert_published(logits, PUBLISHED["exact"]["logits"], 1e-9)
    loss = torch.nn.functional.cross_entropy(logits + method.log_shares, LABELS)
    loss.backward()
    assert_published(loss, PUBLISHED["exact"]["balanced_softmax_loss"], 1e-9)
    assert_published(features.grad, PUBLISHED["exact"]["grad_features"], 1e-6)  # which are central differences


def unit(*shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=draw), dim=-1)


def test_the_objective_is_the_loss_plus_the_mean_contrastive_loss_of_the_views():
    method = ProbabilisticContrastive(torch.tensor([6, 3, 1]), penalty=0.5, temperature=0.2, width=8)
    projections, targets = unit(5, 2, 8), torch.tensor([0, 2, 1, 0, 0])
    weights, losses = torch.linspace(0.5, 1.5, 5).double(), torch.linspace(0, 1, 5).double()
    value = method(losses, weights, None, projections=projections, targets=targets, epoch=0)
    means = torch.stack([projections[targets == k].flatten(0, 1).mean(0) for k in range(3)])
    torch.testing.assert_close(method.means, means.expand(2, 3, 8))
    shift = torch.tensor([0.6, 0.3, 0.1]).double().log()
    logits = [contrast_logits(projections[:, view], means, 0.2) + shift for view in (0, 1)]
    contrast = sum(torch.nn.functional.cross_entropy(z, targets, reduction="none") for z in logits) / 2
    torch.testing.assert_close(value, (weights * (losses + 0.5 * contrast)).mean())


def test_an_epoch_uses_the_means_of_the_epoch_before_and_gathers_new_ones():
    method = ProbabilisticContrastive(torch.tensor([2, 2]), penalty=1.0, temperature=0.2, width=4)
    batches = [(unit(1, 2, 4).roll(i, -1), torch.tensor([i % 2])) for i in range(4)]
    ones = torch.ones(1, dtype=torch.float64)
    for (projections, targets), epoch in zip(batches, (0, 0, 1, 1)):
        method(ones, ones, None, projections=projections, targets=targets, epoch=epoch)
    mean = lambda *numbers: torch.cat([batches[i][0].flatten(0, 1) for i in numbers]).mean(0)  # noqa: E731
    torch.testing.assert_close(method.means[0], torch.stack([mean(0, 2), mean(1, 3)]))
    torch.testing.assert_close(method.means[1], torch.stack([mean(2), mean(3)]))
    before = method.means.clone()
    method.eval()(ones, ones, None, projections=batches[0][0], targets=batches[0][1], epoch=2)
    assert method.means.equal(before)

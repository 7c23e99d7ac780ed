"""DPE against its published algorithm, written anew, and its logits against their closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.features import dataset, worst_group
from sklearn.linear_model import LogisticRegression

from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.heads import dpe as module
from imbalance.methods.heads.dpe import PrototypeEnsemble, dpe

SPLITS = ("train", "val", "test")
SETTINGS = dict(
    by="group", members=3, epochs=5, batch_size=200, lr=0.05, momentum=0.9, entropic_scale=20.0, norm_penalty=0.3,
    similarity_penalty=30.0,
)  # fmt: skip


def fitted(data: Dataset, **settings) -> PrototypeEnsemble:
    """With the inputs as features."""
    return dpe(
        torch.nn.Linear(6, data.num_classes), data, lambda name: getattr(data, name).inputs, 0,
        torch.Generator().manual_seed(0), **SETTINGS | settings,
    )  # fmt: skip


def doubles(**counts) -> Dataset:
    return dataset(**counts).to(torch.device("cpu"), torch.float64)


def test_probabilities_are_the_mean_of_those_of_members_by_distance():
    torch.manual_seed(0)
    ensemble = PrototypeEnsemble(4, 3, 7).double()
    with torch.no_grad():
        ensemble.prototypes.normal_()
        ensemble.scales.copy_(torch.tensor([1.0, -2.0, 0.5, 30.0]))
    features = torch.randn(11, 7, dtype=torch.float64) * 10 + 3
    logits = ensemble(features).detach().numpy()
    expected = np.zeros((11, 3))
    for i, f in enumerate(features.numpy()):
        unit = (f - f.mean()) / np.linalg.norm(f - f.mean())
        for prototypes, scale in zip(ensemble.prototypes.detach().numpy(), ensemble.scales.tolist()):
            far = [np.linalg.norm(unit - p / np.linalg.norm(p)) for p in prototypes]
            odds = np.exp(-abs(scale) * np.array(far))
            expected[i] += odds / odds.sum() / 4
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-9)
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=1e-12)


def test_features_without_a_direction_are_as_far_from_every_prototype():
    ensemble = PrototypeEnsemble(2, 3, 5)
    torch.nn.init.normal_(ensemble.prototypes)
    torch.testing.assert_close(ensemble(torch.full((1, 5), 7.0)), torch.full((1, 3), -math.log(3)))


def published_member(data: Dataset, start: torch.Tensor, before: list[torch.Tensor], s: dict):
    """Prototypes, scale and epoch of one member, on the whole of val at every step.

    As in the released code, of which this has each formula in its form: features divided by their standard deviation,
    `cdist`, the softmax and its logarithm one after the other, and products of all prototypes of a class.
    """
    inputs = data.val.inputs
    inputs = (inputs - inputs.mean(1, keepdim=True)) / inputs.std(1, keepdim=True, correction=0)
    p, scale = start.clone().requires_grad_(), torch.ones(1, dtype=start.dtype, requires_grad=True)
    velocity, best, kept = [torch.zeros_like(p), torch.zeros_like(scale)], 0.0, None
    for epoch in range(s["epochs"]):
        far = scale.abs() * torch.cdist(
            F.normalize(inputs), F.normalize(p), compute_mode="donot_use_mm_for_euclid_dist"
        )
        probabilities = torch.softmax(-s["entropic_scale"] * far, dim=1)
        loss = -torch.log(probabilities[range(len(far)), data.val.targets]).mean()
        loss = loss + (torch.einsum("ijk,ilk->ijl", p[:, None], p[:, None]) * s["norm_penalty"]).squeeze().mean()
        if before:
            every = torch.cat([p[:, None], torch.stack(before, 1)], dim=1)
            products = torch.einsum("ijk,ilk->ijl", every, every) / (every.shape[2] - 1)
            loss = loss + s["similarity_penalty"] * products[:, 0, 1:].sum(1).div(every.shape[1]).mean().abs()
        gradients = torch.autograd.grad(loss, [p, scale])
        with torch.no_grad():
            for i, (value, gradient) in enumerate(zip((p, scale), gradients)):
                velocity[i] = s["momentum"] * velocity[i] + gradient
                value -= s["lr"] * velocity[i]
            nearest = torch.cdist(F.normalize(inputs), F.normalize(p)).argmin(1)
        right = (nearest == data.val.targets).double()
        accuracy = min(right[data.val.groups == group].mean().item() for group in data.val.groups.unique())
        if accuracy >= best:
            best, kept = accuracy, (p.detach().clone(), scale.detach().clone(), epoch)
    return kept


def test_each_member_is_trained_and_kept_as_in_the_published_code():
    """Val is balanced, and a batch is all of it, so that only the prototypes that members start from are left to chance."""
    data = doubles(val=(50, 50, 50, 50))
    starts = fitted(data, lr=1e-300).prototypes.detach()
    assert 0.005 < starts.std() < 0.02
    found, before, epochs = fitted(data), [], []
    for m, start in enumerate(starts):
        prototypes, scale, epoch = published_member(data, start, before, SETTINGS)
        torch.testing.assert_close(found.prototypes[m], prototypes, rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(found.scales[m : m + 1], scale, rtol=1e-7, atol=0)
        before.append(prototypes)
        epochs.append(epoch)
    assert min(epochs) < SETTINGS["epochs"] - 1, epochs  # the last epoch is not always the best


@pytest.mark.parametrize(("by", "counts"), [("group", [10, 10, 10, 10]), ("class", [70, 10, 30, 50])])
def test_draws_are_balanced_by_what_they_are_told_and_differ_between_members(by, counts, monkeypatch):
    """Of 70, 10, 30 and 70 examples: classes of 80 and 100."""
    data, drawn = doubles(val=(70, 10, 30, 70)), []
    real = module.undersample

    def recorded(*given, **settings):
        drawn.append(real(*given, **settings))
        return drawn[-1]

    monkeypatch.setattr(module, "undersample", recorded)
    fitted(data, by=by, batch_size=40, members=4)
    groups = [torch.bincount(data.val.groups[rows], minlength=4).tolist() for rows in drawn]
    assert len({tuple(rows.sort().values.tolist()) for rows in drawn}) == 4
    if by == "group":
        assert groups == [counts] * 4
    else:
        assert all(of[0] + of[1] == of[2] + of[3] == 80 for of in groups)


def test_a_batch_that_is_not_full_is_left_out(monkeypatch):
    sizes = []
    real = module.cross_entropy
    monkeypatch.setattr(module, "cross_entropy", lambda z, y: sizes.append(len(y)) or real(z, y))
    fitted(doubles(val=(25, 25, 25, 25)), members=1, epochs=2, batch_size=30)
    assert sizes == [30] * 6


def test_it_mends_the_worst_group():
    """Of features that a network would make, of 100 directions, on which a linear layer follows train's large groups."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 100), torch.nn.ReLU()).double().requires_grad_(False)
    data = doubles(val=(60, 60, 60, 60))
    made = {name: replace(getattr(data, name), inputs=network(getattr(data, name).inputs)) for name in SPLITS}
    data = replace(data, **made)
    plain = LogisticRegression(max_iter=1000).fit(data.train.inputs, data.train.targets)
    wrong = worst_group(
        (torch.tensor(np.r_[-plain.coef_, plain.coef_]), torch.tensor([-1, 1]) * plain.intercept_[0]), data.test
    )
    ensemble = dpe(
        torch.nn.Linear(100, 2), data, lambda name: getattr(data, name).inputs, 0, torch.Generator().manual_seed(0),
        **SETTINGS | dict(batch_size=32, epochs=40, entropic_scale=30.0, lr=0.01, norm_penalty=0.1),
    )  # fmt: skip
    right = ensemble(data.test.inputs).argmax(1) == data.test.targets
    mended = min(right[data.test.groups == group].double().mean().item() for group in range(4))
    assert mended > wrong + 0.05, (mended, wrong)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(BadInput, match=r"batch_size: 200 given; it must be at most 160, the size of a balanced"):
        fitted(doubles(val=(60, 60, 40, 40)))
    data = doubles()
    with pytest.raises(BadInput, match="'dpe' compares directions of features, .* this model has one"):
        one = torch.nn.Linear(1, 2)
        dpe(one, data, lambda name: data.val.inputs[:, :1], 0, torch.Generator(), **SETTINGS)

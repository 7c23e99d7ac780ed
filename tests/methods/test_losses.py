"""One contract for every loss.

For a new loss, add its example to tests/examples.py, its formula to PUBLISHED, and to NEUTRAL the hyperparameters at which it
is cross-entropy, if there are any.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from examples import advice, changes, each, each_setting, settings
from scipy.special import expit, log_softmax

from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.losses import LDAM, LOSSES, BalancedSoftmax
from imbalance.methods.margins import soft_margins, softplus
from imbalance.utils.torchvision_import import import_torchvision

# The hyperparameters at which a loss is cross-entropy; balanced_softmax, poly and sums of sigmoids have none.
NEUTRAL = {
    "cross_entropy": dict(),
    "vs": dict(gamma=0.0, tau=0.0),
    "smoothed": dict(label_smoothing=0.0, gamma=0.0, tau=0.0),
    "vs_group": dict(gamma=0.0, tau=0.0),
    "cdt": dict(gamma=0.0),
    "logit_adjusted": dict(tau=0.0),
    "ldam": dict(max_margin=0.0, scale=1.0),
    "focal": dict(gamma=0.0),
    "class_balanced": dict(beta=0.0, gamma=0.0),
}
CLASS_COUNTS, GROUP_COUNTS = torch.tensor([400, 90, 10]), torch.tensor([300, 100, 60, 30, 8, 2])


def make(name: str, class_counts=CLASS_COUNTS, **values):
    section = dict(name=name, **values)
    return build(LOSSES, section, class_counts=class_counts, group_counts=GROUP_COUNTS, num_classes=len(class_counts))


def batch(size=64, num_classes=3, scale=2.0, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(size, num_classes, generator=random, dtype=dtype)
    targets = torch.randint(num_classes, (size,), generator=random)
    groups = torch.randint(len(GROUP_COUNTS), (size,), generator=random)
    return logits, targets, groups


def gradient(loss, logits, targets, groups):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, targets, groups).sum(), logits)[0]


def example(name: str, class_counts=CLASS_COUNTS, **changed):
    return make(name, class_counts, **settings("loss", name) | changed)


@each_setting("loss")
def test_every_hyperparameter_changes_the_gradient(name, key):
    before = gradient(example(name), *batch())
    for change in changes("loss", name, key):
        after = gradient(example(name, **change), *batch())
        same = torch.allclose(before, after, rtol=1e-3, atol=1e-5)
        assert not same, advice("loss", name, key, f"changes no gradient as {change}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_classes", [2, 3])
@each("loss")
def test_value_and_gradient_are_finite_at_every_margin(name, num_classes, dtype):
    values = [0.0, 1e-30, -1e-30, 1e-7, 1e-3, 0.68, 1 - 2**-8, 1.0, 1 + 2**-7, 16.0, 88.0, 200.0, 2e4, -1.0, -5.0]
    steep = [-88.0, -200.0, -2e4]  # where a gradient may be finite in float32 and beyond float16's 65504
    values, bounded = values + steep, slice(len(values) if dtype is torch.float16 else None)
    margin = torch.tensor(values).to(dtype)
    rival = torch.zeros_like(margin)
    loss = example(name, CLASS_COUNTS[:num_classes])
    for target in range(num_classes):
        columns = [margin if k == target else rival for k in range(num_classes)]
        logits, targets = torch.stack(columns, 1), torch.full((len(margin),), target)
        for group in range(len(GROUP_COUNTS)):
            groups = torch.full_like(targets, group)
            value = loss(logits, targets, groups)
            assert value.dtype == torch.float32 and value.shape == (len(margin),)
            assert value.isfinite().all(), values
            assert gradient(loss, logits, targets, groups)[bounded].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each("loss")
def test_half_precision_logits_lose_nothing_more_in_the_loss(name, dtype):
    """Cast first, then computed: the value is that of the same logits in float32, to the bit."""
    logits, targets, groups = batch()
    loss, halves = example(name), (5 * logits).to(dtype)
    assert loss(halves, targets, groups).equal(loss(halves.float(), targets, groups))
    assert gradient(loss, halves, targets, groups).equal(gradient(loss, halves.float(), targets, groups).to(dtype))


@each("loss")
def test_a_class_or_group_without_training_examples_can_be_evaluated(name):
    logits, targets, groups = batch()
    counts = dict(class_counts=torch.tensor([400, 90, 0]), group_counts=torch.tensor([300, 100, 60, 30, 8, 0]))
    loss = build(LOSSES, dict(name=name, **settings("loss", name)), num_classes=3, **counts)
    assert loss(logits, targets, groups).isfinite().all()
    assert gradient(loss, logits, targets, groups).isfinite().all()


@each("loss")
def test_a_nan_logit_gives_a_nan_loss(name):
    logits, targets, groups = batch()
    logits[3, 1] = torch.nan
    assert example(name)(logits, targets, groups).isnan().nonzero().tolist() == [[3]]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("name", NEUTRAL, ids=[f"loss-{name}" for name in NEUTRAL])
def test_is_cross_entropy_at_its_neutral_parameters(name, num_classes):
    logits, targets, groups = batch(num_classes=num_classes)
    loss = make(name, CLASS_COUNTS[:num_classes], **NEUTRAL[name])
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(loss(logits, targets, groups), expected, rtol=1e-9, atol=1e-12)


@each("loss")
def test_permuting_classes_permutes_the_result(name):
    logits, targets, groups = batch()
    before = example(name)
    order = torch.tensor([2, 0, 1])  # new class j is old class order[j]
    after = example(name, CLASS_COUNTS[order])
    value = after(logits[:, order], order.argsort()[targets], groups)
    torch.testing.assert_close(value, before(logits, targets, groups))


@pytest.mark.parametrize("num_classes", [2, 3])
@each("loss")
def test_the_gradient_is_that_of_the_value(name, num_classes):
    logits, targets, groups = batch(12, num_classes)
    loss = example(name, CLASS_COUNTS[:num_classes])
    torch.autograd.gradcheck(lambda z: loss(z, targets, groups), logits.requires_grad_())


@each("loss")
def test_an_example_s_loss_does_not_depend_on_the_others(name):
    logits, targets, groups = batch()
    loss = example(name)
    torch.testing.assert_close(
        loss(logits, targets, groups)[5:6], loss(logits[5:6], targets[5:6], groups[5:6]), rtol=1e-12, atol=0
    )


# The published formulas, written anew in NumPy, averaged over a batch.


def of_target(values, targets):
    return np.take_along_axis(values, targets[:, None], 1)[:, 0]


def minus_log(z, y):
    return -of_target(log_softmax(z, axis=1), y)


def poly(e, z, y, g, n, m):
    rivals = np.array([np.log(np.delete(np.exp(row), k).mean()) for row, k in zip(z, y)])
    margin = of_target(z, y) - rivals
    return np.where(margin > 1, np.abs(margin) ** -e["alpha"], np.exp(e["alpha"] * (1 - margin)))


def vs_group(e, z, y, g, n, m):
    delta, iota = ((m / m.max()) ** e["gamma"])[g], e["tau"] * np.log(m.max() / m)[g]
    rivals = [np.exp(i + d * (np.delete(row, k) - row[k])).sum() for i, d, row, k in zip(iota, delta, z, y)]
    return np.log1p(np.array(rivals))


def balanced_softmax(e, z, y, g, n, m):
    weighted = n * np.exp(z)
    return -np.log(of_target(weighted, y) / weighted.sum(1))


def label_aware_smoothing(e, z, y, g, n, m):
    smoothing = e["tail"] + (e["head"] - e["tail"]) * np.sin(np.pi / 2 * (n - n.min()) / (n.max() - n.min()))
    shares = (1 - smoothing[y])[:, None] * np.eye(len(n))[y] + smoothing[y][:, None] / len(n)
    return -(shares * log_softmax(z, axis=1)).sum(1)


def ldam(e, z, y, g, n, m):
    margin = n**-0.25 * e["max_margin"] / (n**-0.25).max()
    return minus_log(e["scale"] * (z - np.eye(len(n))[y] * margin), y)


def focal(e, z, y, g, n, m):
    p = np.exp(-minus_log(z, y))
    return -((1 - p) ** e["gamma"]) * np.log(p)


def class_balanced(e, z, y, g, n, m):
    inverse = (1 - e["beta"]) / (1 - e["beta"] ** n)
    return (inverse / inverse.sum() * len(n))[y] * focal(e, z, y, g, n, m)


def class_balanced_sigmoid(e, z, y, g, n, m):
    inverse = (1 - e["beta"]) / (1 - e["beta"] ** n)
    p = 1 / (1 + np.exp(-np.where(np.eye(len(n))[y] == 1, z, -z)))
    return (inverse / inverse.sum() * len(n))[y] * -((1 - p) ** e["gamma"] * np.log(p)).sum(1)


def smoothed(e, z, y, g, n, m):
    adjusted = (n / n.max()) ** e["gamma"] * z + e["tau"] * np.log(n / n.sum())
    truth = (1 - e["label_smoothing"]) * np.eye(len(n))[y] + e["label_smoothing"] / len(n)
    return -(truth * log_softmax(adjusted, axis=1)).sum(1)


# Functions of hyperparameters e, logits z, targets y, groups g, class counts n and group counts m.
PUBLISHED = {
    "cross_entropy": lambda e, z, y, g, n, m: minus_log(z, y),
    "poly": poly,
    "vs": lambda e, z, y, g, n, m: minus_log((n / n.max()) ** e["gamma"] * z + e["tau"] * np.log(n / n.sum()), y),
    "smoothed": smoothed,
    "vs_group": vs_group,
    "cdt": lambda e, z, y, g, n, m: minus_log(z / (n.max() / n) ** e["gamma"], y),
    "logit_adjusted": lambda e, z, y, g, n, m: minus_log(z + e["tau"] * np.log(n / n.sum()), y),
    "balanced_softmax": balanced_softmax,
    "label_aware_smoothing": label_aware_smoothing,
    "ldam": ldam,
    "focal": focal,
    "class_balanced": class_balanced,
    "class_balanced_sigmoid": class_balanced_sigmoid,
}


@pytest.mark.parametrize("name", LOSSES, ids=[f"loss-{name}" for name in LOSSES])
def test_every_loss_has_a_published_formula(name):
    assert name in PUBLISHED, f"write the formula of {name!r} in NumPy into PUBLISHED in tests/methods/test_losses.py"


def test_every_published_formula_is_of_a_loss():
    unknown = sorted(PUBLISHED.keys() - LOSSES.keys())
    assert not unknown, f"delete {unknown}, which LOSSES lacks, from PUBLISHED in tests/methods/test_losses.py"


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("name", PUBLISHED, ids=[f"loss-{name}" for name in PUBLISHED])
def test_the_mean_is_the_published_formula(name, num_classes):
    logits, targets, groups = batch(num_classes=num_classes)
    counts = CLASS_COUNTS[:num_classes]
    ours = example(name, counts)(logits, targets, groups).mean().item()
    arrays = (a.numpy() for a in (logits, targets, groups, counts.double(), GROUP_COUNTS.double()))
    assert ours == pytest.approx(PUBLISHED[name](settings("loss", name), *arrays).mean(), rel=1e-9)


# What single losses promise beyond the contract


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_torch_s(num_classes, label_smoothing):
    logits, targets, groups = batch(num_classes=num_classes)
    for name, offsets in (("cross_entropy", 0.0), ("balanced_softmax", CLASS_COUNTS[:num_classes].double().log())):
        loss = make("smoothed", CLASS_COUNTS[:num_classes], label_smoothing=label_smoothing, gamma=0.0, tau=float(name != "cross_entropy"))  # fmt: skip
        expected = F.cross_entropy(logits + offsets, targets, reduction="none", label_smoothing=label_smoothing)
        torch.testing.assert_close(loss(logits, targets, groups), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_published_class_balanced_focal_loss_is_torchvision_s_sigmoid_focal_loss(gamma):
    sigmoid_focal_loss = import_torchvision().ops.sigmoid_focal_loss
    logits, targets, groups = batch()
    loss = make("class_balanced_sigmoid", beta=0.0, gamma=gamma)  # β = 0: all factors are 1
    one_hot = F.one_hot(targets, 3).double()
    expected = sigmoid_focal_loss(logits, one_hot, alpha=-1, gamma=gamma).sum(1)
    torch.testing.assert_close(loss(logits, targets, groups), expected, rtol=1e-9, atol=1e-12)


def test_softplus_is_exact_in_float64_and_torch_s_own_in_float32():
    x = torch.cat([torch.linspace(-700, 700, 100_001, dtype=torch.float64), torch.linspace(15, 40, 100_001).double()])
    np.testing.assert_allclose(softplus(x), np.logaddexp(0, x.numpy()), rtol=4e-16)
    points = x.clone().requires_grad_()
    slope = torch.autograd.grad(softplus(points).sum(), points)[0]
    np.testing.assert_allclose(slope, expit(x.numpy()), rtol=1e-14)
    assert softplus(x.float()).equal(F.softplus(x.float()))


def test_poly_s_exponential_left_part_goes_on_as_its_tangent():
    """Changed nowhere where it could be distinguished from the exponential in float32, and C¹ where the tangent begins."""
    loss, one = make("poly", alpha=2.0, left="exponential"), torch.ones(1, dtype=torch.long)
    margins = torch.linspace(-13.9, 0.9, 1000)
    logits = torch.stack([torch.zeros(1000), margins], 1)
    targets, groups = one.expand(1000), one.expand(1000)
    assert loss(logits, targets, groups).equal((2 * (1 - margins)).exp())
    start = 1 - loss.STEEPEST / 2
    around = torch.tensor([[0.0, start + 1e-6], [0.0, start - 1e-6], [0.0, start - 100]], dtype=torch.float64)
    steep = math.exp(loss.STEEPEST)
    slopes = gradient(loss, around, targets[:3], groups[:3])[:, 1]
    np.testing.assert_allclose(slopes, [-2 * steep] * 3, rtol=1e-5)
    np.testing.assert_allclose(loss(around, targets[:3], groups[:3]), [steep, steep, 201 * steep], rtol=1e-5)
    far = torch.tensor([[0.0, -1e9]])
    assert loss(far, one, one).isfinite() and gradient(loss, far, one, one).isfinite().all()


@pytest.mark.parametrize("left", ["logistic", "exponential", "linear"])
def test_poly_s_left_parts_meet_the_tail_at_one(left):
    loss = make("poly", alpha=2.0, left=left)
    logits = torch.tensor([[0.0, 1 - 1e-9], [0.0, 1.0], [0.0, 1 + 1e-9]], dtype=torch.float64)
    values = loss(logits, torch.ones(3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(values, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("left", "slope"), [("logistic", -expit(-1) / math.log1p(math.exp(-1))), ("exponential", -2), ("linear", -2)]
)
def test_poly_has_its_left_part_s_slope_at_a_margin_of_exactly_one(left, slope):
    """Which logits of bfloat16 often have: there it could be neither part's."""
    logits, one = torch.tensor([[0.0, 1.0]]), torch.ones(1, dtype=torch.long)
    assert gradient(make("poly", alpha=2.0, left=left), logits, one, one)[0, 1].item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("left", ["exponential", "linear"])
def test_poly_s_smooth_left_parts_have_the_tail_s_slope_at_one(left):
    loss = make("poly", alpha=2.0, left=left)
    logits = torch.tensor([[0.0, 1 - 1e-9], [0.0, 1 + 1e-9]], dtype=torch.float64)
    slope = gradient(loss, logits, torch.ones(2, dtype=torch.long), torch.zeros(2, dtype=torch.long))[:, 1]
    torch.testing.assert_close(slope, torch.full((2,), -2.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_cross_entropy_keeps_its_tail():
    """At a margin of 50 float32's softmax is exactly 1; the loss is e^−50."""
    logits = torch.tensor([[50.0, 0.0]])
    value = make("cross_entropy")(logits, torch.tensor([0]), torch.tensor([0]))
    assert value.item() == pytest.approx(math.exp(-50), rel=1e-4)


def test_group_vs_demands_a_larger_margin_of_a_smaller_group():
    loss = make("vs_group", gamma=0.0, tau=1.0)
    value = loss(torch.zeros(6, 2), torch.ones(6, dtype=torch.long), torch.arange(6))
    assert (value.diff() > 0).all()


def test_margins_are_zero_where_logits_are_equal_and_the_difference_for_two_classes():
    logits, targets, _ = batch(num_classes=2)
    torch.testing.assert_close(soft_margins(logits, targets), (logits[:, 1] - logits[:, 0]) * (2 * targets - 1))
    assert soft_margins(torch.full((1, 7), 3.0), torch.tensor([2])).abs().item() < 1e-6


@each("loss")
def test_a_single_target_is_not_repeated_for_all_rows(name):
    logits, targets, groups = batch(6)
    for wrong in (targets[:1], targets[:, None], targets[:5]):
        with pytest.raises(
            BadInput, match=r"logits of shape \(6, 3\) and targets of shape .* given; \(B, K\) and \(B,\)"
        ):
            example(name)(logits, wrong, groups)


@pytest.mark.parametrize("name", ["ldam", "class_balanced", "class_balanced_sigmoid", "label_aware_smoothing"])
def test_counts_of_other_classes_than_those_of_the_logits_are_refused(name):
    with pytest.raises(BadInput, match="4 logits for each example given, but class_counts has 3 classes"):
        example(name)(*batch(6, 4))


@pytest.mark.parametrize("counts", [[5, -1, 3], [5, np.nan, 3], [[5, 1, 3]], [0.7, 0.2, 0.1], [0, 0, 0], "abc", None])
@pytest.mark.parametrize("make", [BalancedSoftmax, lambda counts: LDAM(counts, max_margin=0.5, scale=30.0)])
def test_counts_that_are_no_numbers_of_examples_are_refused(make, counts):
    with pytest.raises(
        BadInput, match="^class_counts: .* given; the number of training examples of each class is needed"
    ):
        make(counts)


def test_counts_may_be_a_list_or_an_array():
    expected = BalancedSoftmax(CLASS_COUNTS).offsets
    for counts in (CLASS_COUNTS.tolist(), CLASS_COUNTS.numpy(), CLASS_COUNTS.float()):
        assert torch.equal(BalancedSoftmax(counts).offsets, expected)


@pytest.mark.parametrize("name", ["cross_entropy", "poly", "balanced_softmax", "focal"])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.bool])
def test_targets_of_a_type_that_torch_does_not_index_with_are_refused(name, kind):
    values = dict(poly=dict(alpha=1.0, left="logistic"), focal=dict(gamma=1.0)).get(name, {})
    loss = build(LOSSES, dict(name=name, **values), class_counts=torch.tensor([5, 3, 2]))
    logits, targets = torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(BadInput, match=rf"targets of type {kind} given.*targets.long\(\)"):
        loss(logits, targets.to(kind), None)
    with pytest.raises(BadInput, match=r"logits of type torch.int64 .*logits.float\(\)"):
        loss(logits.long(), targets, None)
    assert torch.equal(loss(logits, targets.int(), None), loss(logits, targets, None))


def test_a_margin_needs_two_classes():
    with pytest.raises(BadInput, match="logits of one class"):
        soft_margins(torch.randn(2, 1), torch.tensor([0, 0]))

"""The effective prior of training, and predictions for other class shares, against Bayes' rule and independent numbers.

prior_vectors.json has numbers of a second implementation in NumPy, which its author checked with scikit-learn and BFGS.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from examples import EXAMPLES, each, settings

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.context import RunContext
from imbalance.methods.losses import LOSSES, CrossEntropy
from imbalance.methods.prior import bbse_prior, class_shares, effective_prior, em_prior, log_ratio, training_prior
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS

VECTORS = json.loads((Path(__file__).parent / "prior_vectors.json").read_text())
TARGETS = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)


def labels(by, groups=TARGETS):
    example_labels = TARGETS if by == "class" else groups
    return example_labels, torch.bincount(example_labels)


def corrected(logits, target, prior):
    return (logits + log_ratio(torch.tensor(target), torch.tensor(prior))).softmax(1).numpy()


def test_correction_gives_the_posteriors_of_bayes_rule():
    vectors = VECTORS["prior_correction"]
    logits = torch.tensor(vectors["inputs"]["logits"], dtype=torch.float64)
    data, even = np.array(vectors["inputs"]["data_prior"]), np.full(3, 1 / 3)
    weights = torch.tensor(vectors["inputs"]["class_weights"])[TARGETS]
    weighted = effective_prior(TARGETS, 3, CrossEntropy(), weights).numpy()
    drawn = effective_prior(
        TARGETS, 3, CrossEntropy(), draws=SAMPLERS["balanced"].tags.chance(labels, 0, 1, by="class")
    )
    np.testing.assert_allclose(weighted, vectors["effective_prior"], rtol=1e-12)
    np.testing.assert_allclose(drawn, even, rtol=1e-12)
    for key, target, prior in (
        ("trained_on_pi_to_uniform", even, data),
        ("weighted_training_back_to_pi", data, weighted),
        ("resampled_uniform_back_to_pi", data, drawn.numpy()),
    ):
        np.testing.assert_allclose(corrected(logits, target, prior), vectors[key], rtol=1e-12)


def test_em_takes_the_published_steps_and_ends_at_the_largest_likelihood():
    vectors = VECTORS["saerens_em"]
    probabilities, prior = (np.array(vectors["inputs"][key]) for key in ("posteriors", "train_prior"))
    for steps, expected in enumerate(vectors["first_three"], 1):
        np.testing.assert_allclose(em_prior(probabilities, prior, most=steps), expected["prior"], rtol=1e-12)
    shares = em_prior(probabilities, prior, tolerance=1e-13)
    np.testing.assert_allclose(shares, vectors["limit_prior"], atol=1e-9)
    posteriors = corrected(torch.tensor(probabilities).log(), shares, prior)
    np.testing.assert_allclose(posteriors, vectors["limit_posteriors"], atol=1e-8)
    assert np.abs(em_prior(probabilities, prior) - shares).max() < 1e-6


def test_em_leaves_out_a_class_without_training_examples_and_needs_an_example():
    probabilities = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    shares = em_prior(probabilities, [0.5, 0.5, 0.0])
    assert shares[2] == 0 and shares[:2] == pytest.approx(em_prior(probabilities[:, :2], [0.5, 0.5]))
    with pytest.raises(BadInput, match="'estimated' given, and no examples"):
        em_prior(np.empty((0, 2)), [0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[0.5, math.nan]], [0.5, 0.5]), "probabilities: a value is not finite"),
        (([[0.5, 0.6]], [0.5, 0.5]), r"probabilities\[0\] sums to 1.1; "),
        (([[5.0, -4.0]], [0.5, 0.5]), r"probabilities\[0\] sums to 1; probabilities are at least 0"),
        (([0.5, 0.5], [0.5, 0.5]), "probabilities: float64 of shape .* 2 dimensions"),
        (([[0.5, 0.5]], [0.5, 0.6]), "prior: 0.5, 0.6 given; class shares must be at least 0 and sum to 1"),
        (([[0.5, 0.5]], [0.5, 0.3, 0.2]), "prior: 3 class shares given; give 2"),
        (([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [0.5, 0.5, 0.0]), "example 1 has the probability 0 for each class with"),
        (([[0.5, 0.5]], [0.5, 0.5], -1.0), "tolerance, most: -1.0 and 10000 given"),
        (([[0.5, 0.5]], [0.5, 0.5], 0.1, 2.5), "tolerance, most: 0.1 and 2.5 given"),
    ],
)
def test_em_refuses_arguments_that_give_no_shares(arguments, words):
    with pytest.raises(BadInput, match=words):
        em_prior(*arguments)


def test_weights_and_draws_that_do_not_fit_the_targets_are_refused():
    for factor in ([1.0], [1.0, -1.0, 1.0], [0.0] * 3, [math.nan] * 3):
        for name in ("weights", "draws"):
            with pytest.raises(BadInput, match=f"^{name}: "):
                effective_prior(torch.tensor([0, 1, 1]), 2, CrossEntropy(), **{name: torch.tensor(factor)})


def test_bbse_solves_for_the_ratios_of_the_class_shares():
    vectors = VECTORS["bbse"]
    val, targets, test = (vectors["inputs"][key] for key in ("val_predictions", "val_labels", "test_predictions"))
    np.testing.assert_allclose(
        bbse_prior(val, targets, test), vectors["hard"]["test_prior_clipped_renormalised"], atol=1e-12
    )
    soft = [vectors["inputs"][f"{part}_probabilities"] for part in ("val", "test")]
    clipped = np.array(vectors["soft"]["test_prior"]).clip(min=0)
    np.testing.assert_allclose(bbse_prior(soft[0], targets, soft[1]), clipped / clipped.sum(), rtol=1e-9)
    well = vectors["well_behaved"]
    shares = bbse_prior(well["val_predictions"], well["val_labels"], well["test_predictions"])
    np.testing.assert_allclose(shares, well["test_prior"], rtol=1e-9)
    with pytest.raises(BadInput, match="BBSE: the confusion matrix on val cannot be inverted"):
        bbse_prior([0, 0, 1], [0, 1, 1], [0, 2])
    for arrays, words in (
        (([], [], [0]), "BBSE: 0 val_predictions, 0 val_targets and 1 predictions given"),
        (([0, 1], [0, 1], []), "2 val_targets and 0 predictions given"),
        (([0, 1], [0, 1, 1], [0]), "2 val_predictions, 3 val_targets"),
        (([[0.5, 0.5]], [0], [[0.2, 0.3, 0.5]]), "of 2 classes in val and 3 classes in predictions"),
        (([0, 1], [0, 1], [[0.5, 0.5]]), "predictions: float64 of shape .* with 1 dimension is needed"),
        ((["a", "b"], [0, 1], [0]), "val_predictions: .* an array of numbers"),
        (([0, 1], [0, 1], [-1, -1]), "predictions: class numbers are needed, whole numbers from 0 on"),
        (([0.5, 1], [0, 1], [1]), "val_predictions: class numbers are needed"),
        (([0, 1], [0, math.nan], [1]), "val_targets: class numbers are needed"),
        (([[0.5, 0.6], [0.1, 0.9]], [0, 1], [[0.5, 0.5]]), r"val_predictions\[0\] sums to 1.1"),
    ):
        with pytest.raises(BadInput, match=words):
            bbse_prior(*arrays)


def test_both_estimates_find_the_shares_of_a_shifted_sample():
    """With exact posteriors of two Gaussian classes; the tolerance is four standard errors of 20,000 examples."""
    rng = np.random.default_rng(0)

    def draw(share, n=20_000):
        targets = (rng.random(n) < share).astype(int)
        return rng.standard_normal(n) + 2 * targets, targets

    def posteriors(inputs, share):
        odds = 2 * inputs - 2 + np.log(share / (1 - share))
        return np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], 1)

    val, targets = draw(0.1)
    test, _ = draw(0.6)
    before, after = posteriors(val, 0.1), posteriors(test, 0.1)
    for shares in (
        em_prior(after, [0.9, 0.1]),
        bbse_prior(before, targets, after),
        bbse_prior(before.argmax(1), targets, after.argmax(1)),
    ):
        assert shares[1] == pytest.approx(0.6, abs=0.04)


@each("sampler")
def test_the_expected_draws_of_a_sampler_are_those_that_it_draws(name):
    """Averaged over 400 epochs of 100 rows, the share of a class has a standard error below 0.003."""
    section, groups = (
        dict(name=name) | settings("sampler", name),
        torch.tensor([0] * 40 + [1] * 30 + [2] * 20 + [3] * 10),
    )
    expected, drawn, epochs = torch.zeros(100).double(), torch.zeros(100).double(), 400
    for epoch in range(epochs):
        provided = dict(
            labels=lambda by: labels(by, groups), groups=groups, targets=TARGETS, seed=epoch, epoch=epoch, epochs=epochs,
            powers=torch.tensor([2.0, 0.5, 1.0]), generator=torch.Generator().manual_seed(epoch),
        )  # fmt: skip
        chance = build({name: SAMPLERS[name].tags.chance}, section, **provided)
        rows = build(SAMPLERS, section, **provided)
        expected += chance / chance.sum() / epochs
        drawn += torch.bincount(rows, minlength=100) / len(rows) / epochs
    for example_labels in (TARGETS, groups):
        shares = [torch.zeros(4).double().index_add(0, example_labels, values) for values in (expected, drawn)]
        torch.testing.assert_close(shares[0], shares[1], atol=0.02, rtol=0)


def minimiser(loss, shares, groups=TARGETS):
    """The logits at which the expected loss of one input with these class probabilities is smallest."""
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    classes = torch.arange(3)

    def closure():
        optimizer.zero_grad()
        value = (shares * loss(logits.expand(3, 3), classes, classes)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()[0]


SHARES = torch.tensor([[0.5, 0.3, 0.2], [0.15, 0.25, 0.6]], dtype=torch.float64)


def softmax_losses():
    """Each loss in the values of its example, and in those that make it a loss of class probabilities."""
    plain = {
        "vs": dict(gamma=0.0),
        "smoothed": dict(label_smoothing=0.0, gamma=0.0),
        "cdt": dict(gamma=0.0),
        "focal": dict(gamma=0.0),
        "class_balanced": dict(gamma=0.0),
        "label_aware_smoothing": dict(head=0.0, tail=0.0),
        "ldam": dict(max_margin=0.0, scale=1.0),
    }
    sections = {name: [settings("loss", name)] for name in EXAMPLES["loss"]}
    for name, values in plain.items():
        sections[name].append(settings("loss", name) | values)
    return [(name, values) for name, several in sections.items() for values in several]


@pytest.mark.parametrize(("name", "values"), softmax_losses(), ids=str)
def test_the_shift_of_a_loss_is_that_of_its_minimiser_and_others_have_no_single_shift(name, values):
    counts = torch.bincount(TARGETS)
    loss = build(LOSSES, dict(name=name) | values, class_counts=counts, group_counts=counts, num_classes=3)
    shifts = [minimiser(loss, shares) - shares.log() for shares in SHARES]
    shifts = [shift - shift.mean() for shift in shifts]
    told = loss.log_prior_shift() if hasattr(loss, "log_prior_shift") else None
    if told is None:
        assert (shifts[0] - shifts[1]).abs().max() > 0.01
        return
    expected = told.expand(3) - told.expand(3).mean()
    for shift in shifts:
        torch.testing.assert_close(shift, expected, atol=1e-5, rtol=0)


def test_balanced_softmax_expects_equal_shares_and_logit_adjustment_a_power_of_them():
    counts = torch.bincount(TARGETS)
    assert effective_prior(TARGETS, 3, LOSSES["balanced_softmax"](counts)).tolist() == pytest.approx([1 / 3] * 3)
    root = counts.double().sqrt()
    half = effective_prior(TARGETS, 3, LOSSES["logit_adjusted"](counts, tau=0.5))
    torch.testing.assert_close(half, root / root.sum())


def prior_of(**sections):
    """`training_prior` of a run on 70, 20 and 10 examples of classes 0, 1 and 2; the groups cut the first two."""
    config = load(ROOT / "configs" / "gaussian_erm.py")
    config.objective = dict(name="average")
    config.trainer.epochs = 10
    for key, value in sections.items():
        setattr(config, key, value)
    config = validate(config)
    groups = TARGETS + (torch.arange(100) >= 97)
    context = RunContext(
        TARGETS, groups, 3, 4, torch.bincount(TARGETS), torch.bincount(groups), lambda by: labels(by, groups), (2,), 0, 10,
        config.sampler, None,
    )  # fmt: skip
    loss = build(LOSSES, config.loss, **vars(context))
    return training_prior(
        config, context, lambda epoch: build(WEIGHTS, config.weights, epoch=epoch, **vars(context)), loss
    )


def test_weights_sampler_and_loss_of_a_run_multiply():
    counts = torch.bincount(TARGETS).double()
    q = prior_of(
        weights=dict(name="given", by="class", values=(1.0, 2.0, 5.0)),
        sampler=dict(name="resample", by="class", exponent=0.5),
        loss=dict(name="logit_adjusted", tau=0.25),
    )
    expected = counts * torch.tensor([1.0, 2.0, 5.0]) * counts**-0.5 * counts**-0.25
    torch.testing.assert_close(q, expected / expected.sum())
    for sections in (
        dict(weights=dict(name="residual"), sampler=dict(name="annealed_linear", by="class")),
        dict(weights=dict(name="deferred", by="class", beta=0.99999999, start_epoch=0)),
        dict(weights=dict(name="importance", by="class", exponent=1.0), objective=dict(name="average")),
        dict(sampler=dict(name="undersample", by="class", redraw=False)),
    ):
        torch.testing.assert_close(prior_of(**sections), torch.full((3,), 1 / 3).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        (dict(loss=dict(name="poly", alpha=1.0, left="exponential")), "'poly'.*is not the class probabilities"),
        (dict(loss=dict(name="focal", gamma=2.0)), "'focal'.*is not the class probabilities"),
        (dict(loss=dict(name="ldam", max_margin=0.5, scale=30.0)), "'ldam'.*is not the class probabilities"),
        (dict(objective=dict(name="cvar", level=0.3)), "no weighted mean"),
        (dict(mix=dict(name="mixup", alpha=0.2)), "'mixup' trains on mixtures"),
        (
            dict(weights=dict(name="importance", by="group", exponent=1.0)),
            "examples of one class count unequally.*sampler by=.class.$",
        ),
        (dict(sampler=dict(name="balanced", by="group")), "examples of one class count unequally"),
        (dict(sampler=dict(name="annealed_step", by="class")), "change the class shares from epoch to epoch"),
        (
            dict(weights=dict(name="deferred", by="class", beta=0.9, start_epoch=5)),
            "change the class shares from epoch to epoch",
        ),
    ],
)
def test_a_training_without_an_effective_prior_gets_the_reason(sections, reason):
    result = prior_of(**sections)
    assert isinstance(result, str) and re.search(reason, result), result


def test_shares_that_are_none_are_refused():
    natural = torch.tensor([0.9, 0.1, 0.0])
    assert class_shares([0.333, 0.333, 0.333], natural).sum() == 1
    for given, words in (
        ("even", "'even' given; it must be 'natural', 'uniform' or 3 class shares"),
        ([0.5, 0.5], "2 class shares given; give 3"),
        ([[0.5, 0.3, 0.2]], r"shares of shape \(1, 3\) given; give shape \(3,\)"),
        ([0.9, 0.9, -0.8], "at least 0 and sum to 1"),
        ([0.5, 0.5, 0.5], "at least 0 and sum to 1"),
        ([float("nan")] * 3, "at least 0 and sum to 1"),
        ({"a": 1}, "{'a': 1} given; it must be 'natural', 'uniform' or 3 class shares"),
        (["a", "b"], r"\['a', 'b'\] given; it must be"),
        (set(), r"set\(\) given; it must be"),
        (None, "None given; it must be 'natural', 'uniform' or 3 class shares"),
    ):
        with pytest.raises(BadInput, match=words):
            class_shares(given, natural)
    assert log_ratio(natural, natural).tolist() == [0, 0, 0]
    for shares in (natural[:2], torch.tensor([-0.1, 1.0, 0.1]), torch.tensor([math.nan, 1.0, 0.0]), natural[None]):
        with pytest.raises(BadInput, match="give two vectors with a share from 0 on for each class"):
            log_ratio(shares, natural)
    with pytest.raises(BadInput, match="class number 2 .counted from 0.; the model was trained on no example"):
        log_ratio(class_shares("uniform", natural), natural)


@pytest.mark.parametrize(
    "natural", [[90, 10], np.array([90, 10]), "natural", None, 0.5, [], [[0.9, 0.1]], torch.tensor([9, 1])]
)
def test_shares_of_training_that_are_no_shares_are_refused_with_what_to_pass(natural):
    """Counts came back as if they were shares, and other kinds raised errors of torch."""
    for prior in ("natural", "uniform", [0.5, 0.5]):
        with pytest.raises(BadInput, match="^natural: .*counts / counts.sum()"):
            class_shares(prior, natural)


def test_shares_may_be_any_kind_of_numbers_and_a_ratio_needs_tensors():
    for natural in ([0.9, 0.1], np.array([0.9, 0.1]), torch.tensor([0.9, 0.1])):
        assert class_shares("natural", natural).tolist() == pytest.approx([0.9, 0.1])
        assert class_shares("uniform", natural).tolist() == [0.5, 0.5]
    with pytest.raises(BadInput, match=r"^prior: \[0.5, 0.5\] given; a tensor \(K,\) is needed, such as "):
        log_ratio(torch.tensor([0.9, 0.1]), [0.5, 0.5])  # pyright: ignore[reportArgumentType]

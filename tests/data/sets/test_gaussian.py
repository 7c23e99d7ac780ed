"""The Gaussian mixture against its distribution and its closed-form error."""

import numpy as np
import pytest
from scipy import stats

from imbalance.data.sets.gaussian import balanced_error, gaussian, truncated_normal
from imbalance.errors import BadInput


@pytest.mark.parametrize(("dim", "radius"), [(2, 1.0), (2, 5.0), (500, 23.0), (500, 5.0)])
def test_truncated_lengths_follow_the_truncated_chi_distribution(dim, radius):
    lengths = np.linalg.norm(truncated_normal(4000, dim, radius, np.random.default_rng(0)), axis=1)
    chi = stats.chi(dim)
    assert lengths.max() <= radius
    if dim == 500 and radius == 5.0:  # beyond what cdf ratios can express: the density near R grows as r^(d-1)
        assert (
            stats.kstest(
                lengths, lambda r: (r / radius) ** dim * np.exp((radius**2 - r**2) / 2 * dim / (dim + 2))
            ).pvalue
            > 1e-4
        )
    else:
        assert stats.kstest(lengths, lambda r: chi.cdf(r) / chi.cdf(radius)).pvalue > 1e-3


def test_directions_stay_uniform_and_no_radius_cuts_nothing():
    x = truncated_normal(20000, 3, 1.5, np.random.default_rng(0))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), np.eye(3) * x.var(), atol=0.02)
    free = truncated_normal(20000, 3, 0, np.random.default_rng(0))
    assert stats.kstest(free.ravel(), stats.norm.cdf).pvalue > 1e-3


GAUSSIAN = dict(
    dim=5, means=((3.0,), (0.0, 3.0)), scale=2.0, radius=0.0,
    train_per_class=(200, 20), val_per_class=(10, 10), test_per_class=(40000, 40000),
)  # fmt: skip


def test_gaussian_has_the_means_and_scale_it_is_given():
    data = gaussian(0, **GAUSSIAN)
    assert data.class_counts(data.train).tolist() == [200, 20]
    for k, mean in enumerate([[3, 0, 0, 0, 0], [0, 3, 0, 0, 0]]):
        x = data.test.inputs[data.test.targets == k].numpy()
        np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(x.T), 4 * np.eye(5), atol=0.1)


def test_the_closed_form_error_is_what_a_large_sample_shows():
    data = gaussian(0, **GAUSSIAN)
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, 5)), rng.standard_normal(2)
    weight[1] += [-1, 1, 0, 0, 0]
    predictions = (data.test.inputs.numpy() @ weight.T + bias).argmax(1)
    wrong = predictions != data.test.targets.numpy()
    sampled = np.mean([wrong[data.test.targets == k].mean() for k in (0, 1)])
    means = np.array([[3, 0, 0, 0, 0], [0, 3, 0, 0, 0]])
    assert balanced_error(weight, bias, means, 2.0) == pytest.approx(sampled, abs=4 * np.sqrt(0.25 / 80000))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(train_per_class=(200,)), "train_per_class: .* needs a number for each of the 2 classes"),
        (dict(means=((3.0,) * 6, (1.0,))), "a mean of 6 coordinates given"),
        (
            dict.fromkeys(("train_per_class", "val_per_class", "test_per_class"), (9,)) | dict(means=((3.0,),)),
            "of two classes",
        ),
    ],
)
def test_gaussian_refuses_what_does_not_fit_together(values, words):
    with pytest.raises(BadInput, match=f"config.data.*{words}"):
        gaussian(0, **GAUSSIAN | values)

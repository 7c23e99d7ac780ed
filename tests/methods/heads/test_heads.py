from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.features import dataset, worst_group
from sklearn.linear_model import LogisticRegression

from imbalance.config.schema import build
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.heads.calibration import best_offset
from imbalance.methods.heads.dfr import l1_logistic_regression
from imbalance.methods.heads.registry import HEADS

DFR = dict(name="dfr", inverse_penalties=(1.0, 0.1), fits=5)
CRT = dict(name="crt", by="class", epochs=30, batch_size=32, lr=0.5, momentum=0.9, weight_decay=0.0)
LWS = CRT | dict(name="lws", weight_decay=0.001)


def make(section, data, head=None):
    head = head or torch.nn.Linear(6, data.num_classes)
    layer = build(
        HEADS, section, head=head, dataset=data, class_counts=data.class_counts(data.train),
        features=lambda name: getattr(data, name).inputs, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return layer.weight.detach(), layer.bias.detach()


def trained() -> torch.nn.Linear:
    """A layer that looks at feature 0, and a little at the others."""
    head = torch.nn.Linear(6, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 0.1, 0.2, -0.1, 0.3, 0.1], [0.5, 0.2, -0.3, 0.1, 0.1, -0.2]]))
        head.bias.copy_(torch.tensor([1.5, -0.7]))
    return head


def test_none_is_the_trained_layer():
    data, head = dataset(), torch.nn.Linear(6, 2)
    weight, bias = make(dict(name="none"), data, head)
    assert weight.equal(head.weight) and bias.equal(head.bias)


def test_logit_adjustment_takes_the_prior_s_logarithm_from_the_logits():
    data, head = dataset(), torch.nn.Linear(6, 2)
    weight, bias = make(dict(name="logit_adjusted", tau=2.0), data, head)
    prior = np.array([315, 115]) / 430
    np.testing.assert_allclose((bias - head.bias).detach(), -2 * np.log(prior), rtol=1e-5)
    assert weight.equal(head.weight)


def test_tau_normalisation_keeps_a_vector_of_zeros():
    """0/0 made its weights nan."""
    head = torch.nn.Linear(2, 2)
    head.weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    weight = HEADS["tau_normalised"](head, tau=1.0).weight
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_tau_normalisation_makes_norms_equal_at_one():
    data, head = dataset(), torch.nn.Linear(6, 2)
    weight, bias = make(dict(name="tau_normalised", tau=1.0), data, head)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(2))
    assert bias.tolist() == [0, 0]
    assert make(dict(name="tau_normalised", tau=0.0), data, head)[0].equal(head.weight)


def test_crt_balances_what_it_is_told_to():
    """On a class that is rare, recall rises against a layer fitted to all; by group the worst group's accuracy does."""
    data = dataset()
    plain = LogisticRegression(C=1e6).fit(data.train.inputs, data.train.targets)
    plain = (
        torch.from_numpy(np.stack([-plain.coef_[0], plain.coef_[0]]) / 2),
        torch.from_numpy(np.array([-1, 1]) * plain.intercept_ / 2),
    )
    by_class, by_group = make(CRT, data), make(CRT | {"by": "group"}, data)
    assert worst_group(by_group, data.test) > worst_group(by_class, data.test) > worst_group(plain, data.test) - 0.05
    assert worst_group(by_group, data.test) > worst_group(plain, data.test) + 0.05


@pytest.mark.parametrize("name", ["vanilla_crt", "reweight_crt"])
def test_crt_without_balanced_draws_is_scikit_learn_s_fit_with_the_weights_of_the_name(name):
    """Full batches with weight decay converge to the minimum of the penalised loss, which scikit-learn finds."""
    data, decay = dataset(), 0.1
    section = dict(name=name, epochs=400, batch_size=len(data.train), lr=1.0, momentum=0.9, weight_decay=decay)
    weight, bias = make(section | (dict(by="group") if name == "reweight_crt" else {}), data)
    sizes = data.train.groups.bincount().double()
    factors = (1 / sizes)[data.train.groups] if name == "reweight_crt" else torch.ones(len(data.train))
    inputs = np.c_[data.train.inputs, np.ones(len(data.train))]  # SGD's weight decay acts on the bias, too
    model = LogisticRegression(C=2 / (decay * len(data.train)), fit_intercept=False, tol=1e-10, max_iter=10000)
    model.fit(inputs, data.train.targets, sample_weight=factors / factors.mean())
    np.testing.assert_allclose(weight.detach()[1] - weight.detach()[0], model.coef_[0, :-1], atol=2e-4)
    np.testing.assert_allclose(bias.detach()[1] - bias.detach()[0], model.coef_[0, -1], atol=2e-4)


def test_crt_is_a_function_of_its_generator_alone():
    data = dataset()
    torch.manual_seed(3)
    first = make(CRT, data)
    torch.manual_seed(4)
    assert first[0].equal(make(CRT, data)[0])


def test_dfr_mends_the_worst_group_with_val_s_groups():
    data = dataset()
    plain = l1_logistic_regression(data.train.inputs.numpy(), data.train.targets, 2, 1e3)
    plain = tuple(torch.from_numpy(part) for part in plain)
    assert worst_group(make(DFR, data), data.test) > worst_group(plain, data.test) + 0.05


@pytest.mark.parametrize("constant", [False, True])
def test_dfr_is_scikit_learn_s_fit_on_standardised_features(constant):
    """With val balanced already, one fit and one penalty, only the order of its rows is left to chance.

    A feature that is constant in training and not on val is only centred: divided by a standard deviation of almost
    nothing, it would be free of the penalty.
    """
    data = dataset(val=(50, 50, 50, 50))
    if constant:
        data.train.inputs[:, 5] = 1.0
    weight, bias = make(DFR | dict(inverse_penalties=(0.3,), fits=1), data)
    mean, std = data.train.inputs.mean(0), data.train.inputs.std(0, correction=0)
    if constant:
        std[5] = 1.0
    model = LogisticRegression(l1_ratio=1.0, C=0.3, solver="liblinear", tol=1e-8, max_iter=10000)
    model.fit((data.val.inputs - mean) / std, data.val.targets)
    expected = model.decision_function((data.test.inputs - mean) / std)
    logits = data.test.inputs.double() @ weight.T + bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=0.02)


def test_dfr_takes_more_than_two_classes():
    data = dataset((300, 15, 15, 100, 60, 60), (40,) * 6, num_classes=3)
    weight, bias = make(DFR, data)
    assert weight.shape == (3, 6) and bias.shape == (3,)
    assert worst_group((weight, bias), data.test) > 0.6


def test_dfr_needs_every_group_in_both_halves_of_val():
    with pytest.raises(BadInput, match="config.head.name: 'dfr' needs each group of val in both of its random halves"):
        make(DFR, dataset(val=(60, 60, 60, 1)))


def only_column(column: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A layer that predicts class 1 where a feature is positive."""
    weight = np.zeros((2, columns))
    weight[1, column] = 1.0
    return weight, np.zeros(2)


def right_on(share: dict[int, float], groups: torch.Tensor) -> torch.Tensor:
    """A feature whose sign is right on that share of each group's examples, the first of every ten in turn."""
    sign = 2.0 * (groups // 2) - 1
    for group, part in share.items():
        rows = torch.nonzero(groups == group)[:, 0]
        wrong = torch.arange(len(rows)) % 10 >= round(10 * part)
        sign[rows[wrong]] *= -1
    return sign


def with_val_features(*columns: torch.Tensor, val=(40, 400, 400, 40)) -> Dataset:
    """A data set whose val has just these features, and whose train leaves them as they are when it standardises."""
    data = dataset(val=val)
    train = torch.ones(len(data.train) // 2)
    train = torch.cat([train, -train])[:, None].expand(-1, len(columns))
    assert len(train) == len(data.train)
    return replace(data, train=replace(data.train, inputs=train), val=replace(data.val, inputs=torch.stack(columns, 1)))


def chosen_penalty(data: Dataset, layers, monkeypatch) -> float:
    """Which penalty DFR chooses, where `layers(penalty, inputs)` stands for the fit."""
    last = []

    def fit(inputs, targets, num_classes, penalty):
        last.append(penalty)
        return layers(penalty, inputs)

    monkeypatch.setattr("imbalance.methods.heads.dfr.l1_logistic_regression", fit)
    make(DFR | dict(inverse_penalties=(0.1, 1.0), fits=1), data)
    assert last[:2] == [0.1, 1.0]
    return last[2]


def test_dfr_chooses_its_penalty_by_accuracy_and_not_by_how_many_are_right(monkeypatch):
    """Of 0.1: 60 % of every group. Of 1.0: more of the small groups' examples, and a tenth of a large one's."""
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor((40, 400, 400, 40)))
    even = right_on({0: 0.6, 1: 0.6, 2: 0.6, 3: 0.6}, groups)
    uneven = right_on({0: 0.9, 1: 0.1, 2: 0.9, 3: 0.9}, groups)
    data = with_val_features(even, uneven)
    assert chosen_penalty(data, lambda c, x: only_column(0 if c == 0.1 else 1, 2), monkeypatch) == 0.1


def test_dfr_judges_a_penalty_on_examples_that_it_was_not_fitted_to(monkeypatch):
    """Of 0.1: a fifth of every group is right. Of 1.0: all that it was fitted to, and nothing else."""
    counts = (40, 40, 40, 40)
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    sign = 2.0 * (groups // 2) - 1
    poor = right_on(dict.fromkeys(range(4), 0.2), groups)
    data = with_val_features(poor, sign, *torch.eye(160), val=counts)

    def layers(penalty, inputs):
        if penalty == 0.1:
            return only_column(0, 162)
        weight = np.zeros((2, 162))
        weight[1, 1] = -1.0  # wrong on everything, but for what is learnt by heart
        weight[1, 2:] = 10 * (inputs[:, 2:] * inputs[:, 1:2]).sum(0)
        return weight, np.zeros(2)

    assert chosen_penalty(data, layers, monkeypatch) == 0.1


@pytest.mark.parametrize(
    ("key", "value"),
    [("by", "group"), ("epochs", 29), ("batch_size", 31), ("lr", 0.4), ("momentum", 0.8), ("weight_decay", 0.01)],
)
@pytest.mark.parametrize("section", [CRT, LWS], ids=["crt", "lws"])
def test_every_setting_of_a_layer_trained_anew_acts(section, key, value):
    data, head = dataset(), trained()
    before, after = make(section, data, head)[0], make(section | {key: value}, data, head)[0]
    assert not before.allclose(after, rtol=1e-4)


def test_lws_scales_each_class_s_logits_by_one_factor():
    """Directions stay, and the bias goes with its row."""
    data, head = dataset(), trained()
    weight, bias = make(LWS, data, head)
    factors = weight / head.weight
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    torch.testing.assert_close(bias, head.bias * factors[:, 0])
    assert (factors[:, 0] - 1).abs().min() > 0.01


def test_lws_is_gradient_descent_on_the_factors_alone():
    """Batches of all rows, each once as the classes are as large as one another: by hand, in NumPy."""
    data, head = dataset(train=(60, 40, 70, 30)), trained()
    weight, bias = make(LWS | dict(epochs=5, batch_size=200, lr=0.3, momentum=0.5, weight_decay=0.1), data, head)
    z = (data.train.inputs @ head.weight.T + head.bias).detach().double().numpy()
    of_class, f, velocity = np.eye(2)[data.train.targets], np.ones(2), np.zeros(2)
    for epoch in range(5):
        odds = np.exp(f * z - (f * z).max(1, keepdims=True))
        gradient = ((odds / odds.sum(1, keepdims=True) - of_class) * z).mean(0) + 0.1 * f
        velocity = 0.5 * velocity + gradient
        f = f - 0.3 * (1 + np.cos(np.pi * epoch / 5)) / 2 * velocity
    np.testing.assert_allclose(weight.detach(), f[:, None] * head.weight.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(bias.detach(), f * head.bias.detach().numpy(), rtol=1e-4)


def test_crt_s_learning_rate_falls_as_half_a_cosine(monkeypatch):
    rates = []

    class Recorded(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Recorded)
    data = dataset()
    make(CRT | dict(epochs=4, batch_size=len(data.train)), data)
    np.testing.assert_allclose(rates, [0.5 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)])


def test_the_temperature_is_that_of_the_largest_likelihood_and_no_prediction_changes():
    torch.manual_seed(0)
    data, head = dataset(), torch.nn.Linear(6, 2)
    with torch.no_grad():
        head.weight[:, 0] += torch.tensor([-10.0, 10.0])  # of the feature that tells, and far too sure
        head.bias += torch.tensor([20.0, -20.0])
    weight, bias = make(dict(name="temperature"), data, head)
    logits, targets = head(data.val.inputs).detach().double(), data.val.targets
    found = (weight / head.weight).detach()
    assert found.min() == pytest.approx(found.max().item(), rel=1e-5)
    np.testing.assert_allclose((bias / head.bias).detach(), found[0, 0], rtol=1e-5)

    def likelihood(inverse):
        return torch.nn.functional.cross_entropy(inverse * logits, targets).item()

    grid = np.geomspace(0.01, 100, 2001)
    losses = [likelihood(inverse) for inverse in grid]
    assert likelihood(found[0, 0].item()) <= min(losses) + 1e-9
    assert found[0, 0].item() == pytest.approx(grid[int(np.argmin(losses))], rel=0.01) and found[0, 0] < 1
    # At the optimum the mean logit of the targets is the mean that the probabilities expect.
    probability = (found[0, 0] * logits).softmax(1)
    expected, own = (probability * logits).sum(1).mean(), logits[torch.arange(len(targets)), targets].mean()
    assert expected.item() == pytest.approx(own.item(), abs=1e-3)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "worst_class_recall", "worst_group_accuracy"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_thresholds_are_those_of_brute_force(metric, num_classes):
    torch.manual_seed(1)
    counts = (70, 20, 15, 40, 30, 12)[: 2 * num_classes]
    data = dataset(train=counts, val=counts, num_classes=num_classes)
    head = torch.nn.Linear(6, num_classes)
    weight, bias = make(dict(name="thresholds", metric=metric, rounds=20), data, head)
    assert weight.equal(head.weight)
    logits, val = head(data.val.inputs).detach().double(), data.val
    labels = val.groups if metric == "worst_group_accuracy" else val.targets
    summary = np.mean if metric == "balanced_accuracy" else np.min

    def value(offsets):
        right = (logits + torch.as_tensor(offsets)).argmax(1) == val.targets
        return summary([right[labels == label].double().mean().item() for label in labels.unique()])

    found = value((bias - head.bias).detach().double())
    assert found >= value(np.zeros(num_classes)) - 1e-12
    once = value((make(dict(name="thresholds", metric=metric, rounds=1), data, head)[1] - head.bias).detach().double())
    assert once == found if num_classes == 2 else once <= found
    steps = np.linspace(-4, 4, 801)
    if num_classes == 2:
        assert found >= max(value([0.0, offset]) for offset in steps) - 1e-12
    else:  # no single class's offset can make it better
        at = (bias - head.bias).detach().double().numpy()
        assert all(found >= value(at + offset * np.eye(3)[k]) - 1e-12 for k in range(3) for offset in steps[::8])


def test_more_rounds_of_thresholds_find_better_ones():
    """Of three classes a threshold can move again once another has."""
    torch.manual_seed(1)
    data = dataset(train=(70, 20, 15, 40, 30, 12), val=(70, 20, 15, 40, 30, 12), num_classes=3)
    head = torch.nn.Linear(6, 3)
    one, many = (make(dict(name="thresholds", metric="worst_class_recall", rounds=n), data, head)[1] for n in (1, 20))
    right = [
        [
            ((head(data.val.inputs) + bias - head.bias).argmax(1) == k)[data.val.targets == k].double().mean()
            for k in range(3)
        ]
        for bias in (one, many)
    ]
    assert min(right[0]) < min(right[1])


@pytest.mark.parametrize(
    ("sign", "words"), [(1, "temperature 0.01 .* every val prediction is right"), (-1, "temperature 100 ")]
)
def test_a_temperature_at_the_end_of_its_search_is_told(sign, words):
    data, head = dataset(), torch.nn.Linear(6, 2)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:, 0] = sign * torch.tensor([-1.0, 1.0])
    inputs = torch.zeros_like(data.val.inputs)
    inputs[:, 0] = 2.0 * data.val.targets - 1
    val = replace(data.val, inputs=inputs)
    with pytest.warns(UserWarning, match=words):
        make(dict(name="temperature"), replace(data, val=val), head)


@pytest.mark.parametrize(("targets", "expected"), [([1, 1], 2.0), ([0, 0], -1.0), ([1, 0], 0.5)])
def test_the_offset_is_the_middle_of_the_widest_best_interval(targets, expected):
    """Class 1 needs an offset above 0 in the first row and above 1 in the second."""
    logits, targets = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor(targets)
    assert best_offset(logits, 1, targets, targets, torch.mean) == (1.0, expected)

import numpy as np
import pytest
import torch

from imbalance.config.experiment import check_balanced_once
from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS, effective_sample_size

TARGETS = torch.repeat_interleave(torch.tensor([0, 1]), torch.tensor([80, 20]))
GROUPS = torch.repeat_interleave(torch.tensor([0, 1, 2, 3]), torch.tensor([60, 20, 15, 5]))
CLASS_COUNTS, GROUP_COUNTS = np.array([80, 20]), np.array([60, 20, 15, 5])


def labels(by):
    chosen = TARGETS if by == "class" else GROUPS
    return chosen, torch.bincount(chosen)


def first_run(predictions):
    return FirstRun({"train": {"logits": torch.eye(2)[predictions]}})


def weights(name, epoch=0, epochs=10, sampler=None, **section):
    return build(
        WEIGHTS, dict(name=name, **section), labels=labels, targets=TARGETS, groups=GROUPS, epoch=epoch, epochs=epochs,
        sampler=sampler, first=first_run(torch.where(GROUPS == 3, 1 - TARGETS, TARGETS)),
    )  # fmt: skip


def normal(values):
    return values / values.mean()


EXPECTED = [
    (dict(name="uniform"), np.ones(100)),
    (dict(name="importance", by="class", exponent=1.5), normal(CLASS_COUNTS[TARGETS] ** -1.5)),
    (dict(name="importance", by="group", exponent=1.0), normal(1 / GROUP_COUNTS[GROUPS])),
    (dict(name="square_root", by="group"), normal(1 / np.sqrt(GROUP_COUNTS[GROUPS]))),
    (dict(name="effective_number", by="class", beta=0.9), normal(0.1 / (1 - 0.9 ** CLASS_COUNTS[TARGETS]))),
    (dict(name="deferred", by="class", beta=0.9, start_epoch=1), np.ones(100)),
    (dict(name="given", by="group", values=(1.0, 2.0, 3.0, 4.0)), normal(np.array([1.0, 2, 3, 4])[GROUPS])),
    (dict(name="just_train_twice", first_epochs=3, upweight=20.0), normal(np.where(GROUPS == 3, 20.0, 1.0))),
]


@pytest.mark.parametrize("section, expected", EXPECTED, ids=lambda value: value["name"] if type(value) is dict else "")
def test_weights_are_their_formula_with_mean_one(section, expected):
    found = weights(**section)
    assert found.dtype == torch.float64 and found.mean().item() == pytest.approx(1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_truncated_weights_are_importance_weights_up_to_the_ceiling():
    full = weights("importance", by="group", exponent=1.0)
    cut = weights("truncated", by="group", exponent=1.0, ceiling=2.0)
    np.testing.assert_allclose(cut, normal(full.clamp(max=2.0)), rtol=1e-12)
    assert cut.max() < full.max()
    np.testing.assert_allclose(weights("truncated", by="group", exponent=1.0, ceiling=100.0), full)


def test_deferred_weights_start_at_their_epoch():
    section = dict(by="class", beta=0.9, start_epoch=4)
    late = weights("effective_number", by="class", beta=0.9)
    assert weights("deferred", epoch=3, **section).equal(weights("uniform"))
    assert weights("deferred", epoch=4, **section).equal(late)


def test_effective_number_runs_from_uniform_to_inverse_counts():
    assert weights("effective_number", by="group", beta=0.0).equal(weights("uniform"))
    near = weights("effective_number", by="group", beta=1 - 1e-7)
    np.testing.assert_allclose(near, weights("importance", by="group", exponent=1.0), rtol=1e-4)


@pytest.mark.parametrize("sampler", [
    dict(name="annealed_linear", by="group"),
    dict(name="annealed_sigmoid", by="group", steepness=8.0),
    dict(name="annealed_step", by="class"),
], ids=lambda section: section["name"])  # fmt: skip
@pytest.mark.parametrize("epoch", [0, 3, 9])
def test_residual_weights_make_up_for_what_the_annealed_sampler_drops(sampler, epoch):
    """Over many seeds, an example's mean weight, 0 where it is not drawn, is that of importance weights."""
    found = weights("residual", epoch=epoch, sampler=sampler)
    total, draws = torch.zeros(100, dtype=torch.float64), 600
    for seed in range(draws):
        rows = build(SAMPLERS, sampler, labels=labels, seed=seed, generator=torch.Generator(), epoch=epoch, epochs=10)
        total[rows] += found[rows]
    by_group = torch.zeros(4, dtype=torch.float64).index_add(0, GROUPS, total) / torch.from_numpy(GROUP_COUNTS)
    expected = weights("importance", by=sampler["by"], exponent=1.0)
    expected = torch.zeros(4, dtype=torch.float64).index_add(0, GROUPS, expected) / torch.from_numpy(GROUP_COUNTS)
    np.testing.assert_allclose(by_group / by_group[0], expected / expected[0], rtol=0.1)


@pytest.mark.parametrize("epoch", [0, 3, 9])
def test_residual_weights_have_mean_one_over_what_is_drawn(epoch):
    """So the learning rate means the same at every epoch, however much is drawn."""
    sampler = dict(name="annealed_linear", by="group")
    chance = SAMPLERS["annealed_linear"].tags.chance(labels, epoch, 10, by="group")
    found = weights("residual", epoch=epoch, sampler=sampler)
    assert (chance * found).sum().item() == pytest.approx(chance.sum().item())


def test_effective_sample_size():
    assert effective_sample_size(torch.ones(7)) == 7
    assert effective_sample_size(torch.tensor([1.0, 0, 0])) == 1
    assert effective_sample_size(torch.tensor([3.0, 1.0])) == pytest.approx(16 / 10)


def test_given_values_are_one_for_each_label():
    with pytest.raises(BadInput, match=r"^values: .* these data have 4 groups"):
        weights("given", by="group", values=(1.0, 2.0))


@pytest.mark.parametrize("sampler, weighting, said", [
    ("undersample", "importance", "config.weights.name: 'importance' given, but config.sampler.name='undersample'"),
    ("balanced", "deferred", "config.weights.name: 'deferred'"),
    ("annealed_step", "square_root", "config.weights.name: 'square_root'"),
    ("shuffle", "residual", "config.weights.name: 'residual' given, which needs config.sampler.name"),
    ("undersample", "residual", "config.weights.name: 'residual' given, which needs config.sampler.name"),
])  # fmt: skip
def test_an_imbalance_is_not_corrected_twice_by_accident(sampler, weighting, said):
    with pytest.raises(BadInput) as error:
        check_balanced_once(sampler, weighting)
    assert str(error.value).startswith(said)


def test_it_is_corrected_twice_if_asked_for():
    for sampler, weighting in (("undersample", "given"), ("shuffle", "importance"), ("annealed_linear", "residual")):
        check_balanced_once(sampler, weighting)


def test_a_weight_may_be_more_than_float32_has_and_no_mean_is_0_or_infinite():
    """By an infinite mean all weights would become 0, and a run would be done that never trained."""
    first, targets = first_run(torch.tensor([0, 0, 1])), torch.tensor([0, 1, 1])  # the second is wrong
    found = WEIGHTS["just_train_twice"](targets, first, first_epochs=1, upweight=1e39)
    assert found.tolist() == pytest.approx([3e-39, 3, 3e-39])

    def labels(by):
        return torch.tensor([0, 0, 1]), torch.tensor([2, 1])

    for name, values in (("given", {"values": (1e308, 1e308)}), ("importance", {"exponent": 1e5})):
        counts = labels if name == "given" else lambda by: (torch.tensor([0, 0, 0, 0]), torch.tensor([4, 0]))
        with pytest.raises(BadInput, match="^weights: the mean of the weights is (inf|0); it must be positive"):
            WEIGHTS[name](counts, by="class", **values)

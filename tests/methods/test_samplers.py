from itertools import pairwise

import numpy as np
import pytest
import torch
from examples import names, settings
from scipy.stats import chisquare

from imbalance.config.schema import build
from imbalance.methods.samplers import SAMPLERS, expanding_chance
from imbalance.utils.seeds import generator

# Groups in no order, classes of two groups each; class 2 and groups 4 and 5 have no example.
COUNTS = [120, 40, 30, 10]
GROUPS = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))[torch.randperm(200, generator=generator(0, ""))]
TARGETS = GROUPS // 2
SECTIONS = [dict(name=name) | settings("sampler", name) for name in names("sampler")]
SECTIONS += [
    dict(name="undersample", by="class", redraw=False),
    dict(name="reject", by="group", redraw=True),
    dict(name="reject", by="group", redraw=False),
    dict(name="oversample", by="group"),
]
each = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"sampler-{section['name']}")


def labels(by):
    return (TARGETS, torch.tensor([160, 40, 0])) if by == "class" else (GROUPS, torch.tensor([*COUNTS, 0, 0]))


def draw(section, epoch=0, seed=0, epochs=10):
    return build(
        SAMPLERS, section, labels=labels, targets=TARGETS, groups=GROUPS, powers=None, seed=seed, epoch=epoch,
        epochs=epochs, generator=generator(seed, "sampler", epoch),
    )  # fmt: skip


def group_counts(rows):
    return torch.bincount(GROUPS[rows], minlength=4)


@each
def test_an_epoch_s_draw_is_a_function_of_seed_and_epoch(section):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(section, epoch=3)
    assert first.equal(draw(section, epoch=3)) and torch.get_rng_state().equal(before)
    assert not first.equal(draw(section, epoch=4))
    assert not first.equal(draw(section, epoch=3, seed=1))
    assert first.dtype == torch.int64 and first.min() >= 0 and first.max() < len(GROUPS)


@each
def test_groups_come_in_random_order(section):
    """No half of an epoch is richer in the majority than chance (or, balanced, an equal share) allows."""
    rows = draw(section)
    share = (GROUPS[rows] == 0).double()
    halves = share[: len(rows) // 2].mean(), share[len(rows) // 2 :].mean()
    assert abs(halves[0] - halves[1]) < 5 * (share.std(correction=0) + 1e-9) * 2 / len(rows) ** 0.5


def test_shuffle_draws_every_example_once():
    assert draw(dict(name="shuffle")).sort().values.equal(torch.arange(200))


@pytest.mark.parametrize("redraw", [True, False])
def test_undersampling_draws_as_many_of_each_group_without_repeats(redraw):
    section = dict(name="undersample", by="group", redraw=redraw)
    first, second = (draw(section, epoch) for epoch in (0, 1))
    assert group_counts(first).tolist() == [10, 10, 10, 10] and len(first.unique()) == 40
    assert first.sort().values.equal(second.sort().values) is not redraw
    assert group_counts(draw(dict(name="undersample", by="class", redraw=redraw)))[:2].sum() == 40


def test_redrawn_undersampling_reaches_every_example_equally_often():
    section = dict(name="undersample", by="group", redraw=True)
    drawn = torch.bincount(torch.cat([draw(section, epoch) for epoch in range(1200)]), minlength=200)
    assert chisquare(drawn[GROUPS == 0]).pvalue > 1e-3


def test_rejection_keeps_the_smallest_group_whole_and_the_others_as_large_on_average():
    counts = torch.stack([group_counts(draw(dict(name="reject", by="group", redraw=True), e)) for e in range(400)])
    assert (counts[:, 3] == 10).all()
    expected_error = np.sqrt(10 / 400)
    np.testing.assert_allclose(counts.double().mean(0), [10, 10, 10, 10], atol=4 * expected_error)
    fixed = dict(name="reject", by="group", redraw=False)
    assert draw(fixed, 0).sort().values.equal(draw(fixed, 1).sort().values)


def test_oversampling_keeps_every_example_and_repeats_each_equally_often():
    rows = draw(dict(name="oversample", by="group"))
    assert group_counts(rows).tolist() == [120] * 4
    times = torch.bincount(rows, minlength=200)
    for group, size in enumerate(COUNTS):
        of_group = times[group == GROUPS]
        assert of_group.min() == 120 // size and of_group.max() == -(-120 // size)


def test_balanced_batches_have_every_group():
    rows = draw(dict(name="balanced", by="group"))
    assert len(rows) == 200
    for batch in rows.split(8):
        assert group_counts(batch).tolist() == [2, 2, 2, 2]
    times = torch.bincount(rows, minlength=200)
    assert times[GROUPS == 3].tolist() == [5] * 10 and times[GROUPS == 0].max() == 1


@pytest.mark.parametrize("by, exponent", [("group", 0.0), ("group", 0.5), ("group", 1.0), ("class", 1.0)])
def test_resampling_draws_with_the_stated_frequencies(by, exponent):
    of_example, counts = labels(by)
    expected = counts[of_example].double() ** -exponent
    section = dict(name="resample", by=by, exponent=exponent)
    times = torch.bincount(torch.cat([draw(section, epoch) for epoch in range(300)]), minlength=200)
    assert chisquare(times, expected / expected.sum() * 60000).pvalue > 1e-3


@pytest.mark.parametrize("section, halfway", [
    (dict(name="annealed_linear", by="group"), 0.5),
    (dict(name="annealed_sigmoid", by="group", steepness=6.0), 0.5),
    (dict(name="annealed_step", by="group"), 1.0),
], ids=lambda value: str(value))  # fmt: skip
def test_annealing_goes_from_undersampled_to_all(section, halfway):
    epochs = 21
    for epoch, exponent in ((0, {"annealed_sigmoid": 1 / (1 + np.exp(-3))}.get(section["name"], 1.0)), (10, halfway)):
        counts = torch.stack([group_counts(draw(section, epoch, seed, epochs)) for seed in range(300)]).double()
        expected = np.array(COUNTS) * (10 / np.array(COUNTS)) ** exponent
        np.testing.assert_allclose(counts.mean(0), expected, atol=4 * np.sqrt(expected.max() / 300))
    if section["name"] != "annealed_sigmoid":
        assert len(draw(section, epochs - 1, epochs=epochs)) == 200


def test_a_steep_sigmoid_is_a_step():
    """`math.exp` raises above 709."""
    section = dict(name="annealed_sigmoid", by="group", steepness=1e6)
    sizes = [len(draw(section, epoch, epochs=5)) for epoch in range(5)]
    assert max(sizes[:2]) < 100 and sizes[3:] == [200, 200]


def test_what_annealing_keeps_it_never_drops():
    kept = [set(draw(dict(name="annealed_linear", by="group"), epoch).tolist()) for epoch in range(10)]
    assert all(a <= b for a, b in pairwise(kept))


def test_expansion_starts_balanced_and_adds_unused_examples_until_all_are_used():
    section = dict(name="expanding", by="group", warmup_epochs=3, every=2, added=50)
    epochs = [draw(section, epoch) for epoch in range(12)]
    assert group_counts(epochs[0]).tolist() == [10, 10, 10, 10]
    assert [len(rows) for rows in epochs] == [40] * 3 + [90] * 2 + [140] * 2 + [190] * 2 + [200] * 3
    for earlier, later in pairwise(epochs):
        assert len(later.unique()) == len(later) and set(earlier.tolist()) <= set(later.tolist())
    assert not epochs[0].equal(epochs[1])


@pytest.mark.parametrize("epoch, share", [(2, 0.0), (3, 50 / 160), (8, 150 / 160), (20, 1.0)])
def test_chances_of_an_expansion_are_the_frequencies_over_seeds(epoch, share):
    section = dict(by="group", warmup_epochs=3, every=2, added=50)
    chance = expanding_chance(labels, epoch, 30, **section)
    at_start = 10 / torch.tensor(COUNTS)[GROUPS].double()
    torch.testing.assert_close(chance, at_start + (1 - at_start) * share)
    drawn = [draw(dict(name="expanding") | section, epoch, seed) for seed in range(100)]
    sums = torch.stack([group_counts(rows) for rows in drawn]).double().mean(0)
    expected = torch.zeros(4, dtype=torch.float64).index_add(0, GROUPS, chance)
    torch.testing.assert_close(sums, expected, rtol=0.1, atol=1e-9)

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from imbalance.config.experiment import validate
from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.mixing import MIXINGS, cut_box, mixup
from imbalance.methods.objectives.reductions import Average
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import make_learner
from imbalance.training.step import draw_epoch

GROUPS = torch.tensor([0, 1, 2, 3] * 20 + [0] * 20)
TARGETS = GROUPS // 2


def mix(
    targets=TARGETS,
    groups=GROUPS,
    num_classes=2,
    num_groups=4,
    seed=0,
    class_counts=None,
    input_shape=(3, 24, 32),
    **section,
):
    return build(
        MIXINGS, section, targets=targets, groups=groups, num_classes=num_classes, num_groups=num_groups, class_counts=class_counts,
        generator=torch.Generator().manual_seed(seed), input_shape=input_shape,
    )  # fmt: skip


def test_none_mixes_nothing():
    assert mix(name="none") is None


def test_mixup_pairs_at_random_with_one_share_a_batch():
    partners, shares, *_ = mix(name="mixup", alpha=0.5)
    assert partners.sort().values.equal(torch.arange(100)) and len(shares.unique()) == 1
    drawn = [mix(name="mixup", alpha=0.5, seed=seed)[1][0].item() for seed in range(400)]
    assert kstest(drawn, beta(0.5, 0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "seed, share, box",
    [
        (0, 0.9, (7, 10, 17, 20)), (0, 0.5, (1, 4, 23, 26)), (0, 0.123, (0, 0, 27, 30)), (1, 0.9, (0, 6, 10, 16)),
        (1, 0.5, (0, 0, 16, 22)), (1, 0.123, (0, 0, 20, 26)), (2, 0.9, (3, 10, 13, 20)),
    ],
)  # fmt: skip
def test_cut_box_is_that_of_published_code(seed, share, box):
    """The boxes come from a run of `rand_bbox` of ynu-yangpeng/GLMC on images of 32×32."""
    middle = np.random.RandomState(seed).randint(32, size=2).tolist()
    assert cut_box(share, *middle, 32, 32) == box


def test_cutmix_pastes_one_box_a_batch_and_counts_its_pixels():
    shares = []
    for seed in range(300):
        partners, kept, own, boxes, _ = mix(name="cutmix", alpha=1.0, seed=seed)
        assert partners.sort().values.equal(torch.arange(100)) and own is None
        (box,) = boxes.unique(dim=0)
        top, left, bottom, right = box.tolist()
        assert 0 <= top <= bottom <= 24 and 0 <= left <= right <= 32
        torch.testing.assert_close(kept, torch.full((100,), 1 - (bottom - top) * (right - left) / (24 * 32)))
        shares.append(kept[0].item())
    assert min(shares) < 0.35 and max(shares) > 0.95
    # Cutting the boxes off at the edge leaves more of an image than λ, whose mean is one half.
    assert 0.6 < np.mean(shares) < 0.75


def test_cutmix_needs_images():
    with pytest.raises(BadInput, match=r"config.mix.name: 'cutmix' given, which needs images.* \(5,\); use 'mixup'"):
        mix(name="cutmix", alpha=1.0, input_shape=(5,))


def test_a_cut_mixture_has_the_pixels_and_labels_of_both_images(config, tmp_path):
    config.mix = dict(name="cutmix", alpha=1.0)
    config.trainer.batch_size = 20
    learner = make_learner(validate(config), start_accelerator(config), tmp_path)
    epoch = draw_epoch(learner, 0)
    _, partner_images, shares, boxes, _ = epoch.mixed
    batch_slice = slice(20, 40)
    (own,), (other,), (mixed,) = epoch.images(batch_slice), partner_images(batch_slice), epoch.batch(batch_slice).views
    top, left, bottom, right = boxes[20].tolist()
    expected = own.clone()
    expected[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    assert torch.equal(mixed, expected)
    assert shares[20] == 1 - (bottom - top) * (right - left) / own[0, 0].numel()


@pytest.mark.parametrize("kappa, tau", [(3.0, 0.5), (1.0, 0.9), (1.0, 1.0), (1.5, 1.0), (3.0, 0.0)])
@pytest.mark.parametrize("seed", range(6))
def test_remix_gives_the_label_to_the_rarer_class_by_the_published_rule(kappa, tau, seed):
    counts, targets = [90, 30, 10, 10], torch.arange(4).repeat(25)
    partners, shares, found, *_ = mix(
        targets, targets, 4, seed=seed, name="remix", alpha=1.0, kappa=kappa, tau=tau, class_counts=torch.tensor(counts)
    )
    plain = mix(targets, targets, 4, seed=seed, name="mixup", alpha=1.0)
    assert partners.equal(plain.partners) and shares.equal(plain.shares)
    for i, j in enumerate(partners):
        share, ratio = shares[i].item(), counts[targets[i]] / counts[targets[j]]
        if ratio >= kappa and share < tau:
            expected = 0.0
        elif ratio <= 1 / kappa and 1 - share < tau:
            expected = 1.0
        else:
            expected = share
        assert found[i].item() == expected
    assert tau > 0 or found.equal(shares)


@pytest.mark.parametrize("section", [dict(name="mixup", alpha=1.0), dict(name="remix", alpha=1.0, kappa=2.0, tau=0.5)])
def test_each_part_of_a_mixture_counts_with_its_own_weight(config, tmp_path, section):
    """λ·w_i·ℓ_i + (1 − λ)·w_j·ℓ_j, as in imbalanced-DL's mixup-DRW; by hand, from a batch that an epoch draws."""
    config.mix = section
    config.weights = dict(name="importance", by="class", exponent=1.0)
    config.trainer.dtype = "float64"
    learner = make_learner(validate(config), start_accelerator(config), tmp_path)
    epoch, places = draw_epoch(learner, 0), slice(0, 30)
    chosen = learner.mixing(0, learner.sampler(0))
    others, weights = epoch.rows[chosen.partners], learner.weights(0)
    batch = epoch.batch(places)
    logits = torch.randn(30, learner.dataset.num_classes, dtype=torch.float64)
    value = Average()(batch.losses(CrossEntropy(), logits), batch.weights, batch.groups).item()
    expected = 0.0
    for place in range(30):
        p = logits[place].softmax(0)
        share = chosen.target_shares[place].item()
        for row, part in ((epoch.rows[place], share), (others[place], 1 - share)):
            expected -= part * weights[row].item() * p[learner.dataset.train.targets[row]].log().item() / 30
    assert value == pytest.approx(expected, rel=1e-9)
    assert len(weights.unique()) > 1 and not batch.weights.equal(weights[epoch.rows[places]])


@pytest.mark.parametrize("same_label", [1.0, 0.0])
def test_lisa_s_partners_differ_in_attribute_or_in_class_alone(same_label):
    partners, shares, *_ = mix(name="lisa", alpha=2.0, same_label=same_label)
    same_class = TARGETS[partners] == TARGETS
    same_attribute = GROUPS[partners] % 2 == GROUPS % 2
    assert (same_class == bool(same_label)).all() and (same_attribute == (not same_label)).all()
    assert len(shares.unique()) > 90
    assert kstest(shares.numpy(), beta(2, 2).cdf).pvalue > 1e-3
    assert len(partners.unique()) > 30


def test_lisa_chooses_the_kind_of_a_batch_by_its_probability():
    kinds = [(TARGETS[mix(name="lisa", alpha=2.0, same_label=0.3, seed=s)[0]] == TARGETS).all() for s in range(300)]
    assert 0.2 < sum(kinds) / 300 < 0.4


def test_an_example_without_a_partner_stays_itself():
    partners, *_ = mix(TARGETS[::4], GROUPS[::4], name="lisa", alpha=2.0, same_label=1.0)
    assert GROUPS[::4].unique().tolist() == [0] and partners.equal(torch.arange(25))


def test_lisa_needs_attributes():
    with pytest.raises(
        BadInput, match="config.mix.name: 'lisa' needs a group for each combination of a class and an attribute"
    ):
        mix(TARGETS, TARGETS, num_groups=2, name="lisa", alpha=2.0, same_label=0.5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_above_0(alpha):
    with pytest.raises(BadInput, match="^alpha: .* given; a finite number above 0 is needed$"):
        mixup(torch.tensor([0, 1]), torch.Generator(), alpha=alpha)

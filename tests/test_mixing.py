import pytest
import torch
from scipy.stats import beta, kstest

from imbalance.errors import BadInput
from imbalance.methods.mixing import MIXINGS
from imbalance.schema import build

GROUPS = torch.tensor([0, 1, 2, 3] * 20 + [0] * 20)
TARGETS = GROUPS // 2


def mix(targets=TARGETS, groups=GROUPS, num_classes=2, num_groups=4, seed=0, **section):
    return build(
        MIXINGS, section, targets=targets, groups=groups, num_classes=num_classes, num_groups=num_groups,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def test_none_mixes_nothing():
    assert mix(name="none") is None


def test_mixup_pairs_at_random_with_one_share_a_batch():
    partners, shares, _ = mix(name="mixup", alpha=0.5)
    assert partners.sort().values.equal(torch.arange(100)) and len(shares.unique()) == 1
    drawn = [mix(name="mixup", alpha=0.5, seed=seed)[1][0].item() for seed in range(400)]
    assert kstest(drawn, beta(0.5, 0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("same_label", [1.0, 0.0])
def test_lisa_s_partners_differ_in_attribute_or_in_class_alone(same_label):
    partners, shares, _ = mix(name="lisa", alpha=2.0, same_label=same_label)
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
    with pytest.raises(BadInput, match="config.mix.name: 'lisa' needs groups that are classes times attributes"):
        mix(TARGETS, TARGETS, num_groups=2, name="lisa", alpha=2.0, same_label=0.5)

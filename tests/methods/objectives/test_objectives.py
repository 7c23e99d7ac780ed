import json
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import advice, changes, each, each_setting, settings
from scipy.optimize import linprog
from torch.nn.functional import normalize

from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch
from imbalance.methods.context import FirstRun
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.objectives.alignment import CorrelationAlignment
from imbalance.methods.objectives.base import Objective
from imbalance.methods.objectives.bcl import balanced_contrastive
from imbalance.methods.objectives.cnc import correct_n_contrast
from imbalance.methods.objectives.dro import GroupDRO
from imbalance.methods.objectives.irm import InvariantRisk
from imbalance.methods.objectives.ranking import AUCMargin
from imbalance.methods.objectives.reductions import WorstGroup
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.objectives.supcon import supervised_contrastive
from imbalance.methods.objectives.vrex import RiskExtrapolation

GROUP_COUNTS = torch.tensor([100, 25, 0])
LOSSES = torch.tensor([1.0, 3.0, 0.5, 2.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.5], dtype=torch.float64)
GROUPS = torch.tensor([0, 1, 0, 1])
CLASS_ATTRIBUTE_GROUPS = torch.tensor([0, 1, 2, 1])  # of four groups: two classes × two attributes


def unit_vectors(*shape: int) -> torch.Tensor:
    """Return a tensor of this shape whose last dimension has vectors of length 1, the same in every call."""
    return normalize(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)


TARGETS, ROWS = torch.tensor([0, 1, 1, 0]), torch.tensor([5, 0, 3, 7])
# What some methods compute beside the losses.
COLUMNS = {
    "losses": LOSSES,
    "features": torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.5, 0.1], [0.8, 2.0]], dtype=torch.float64),
    "slopes": torch.tensor([-0.3, 0.7, 0.2, -0.9], dtype=torch.float64),
    "projections": unit_vectors(4, 2, 5),
    "anchors": unit_vectors(4, 2, 5),
    "anchor_logits": torch.tensor(
        [[[0.7, -0.3], [0.4, 0.0]], [[0.2, 0.1], [0.6, -0.5]], [[-1.5, 0.4], [-1.0, 0.8]], [[0.9, 1.3], [0.1, 1.2]]],
        dtype=torch.float64,
    ),
    "keys": unit_vectors(4, 5),
    # The networks of SSA predict attribute 0 for the first example, and attribute 1 for the third.
    "all_logits": torch.tensor(
        [
            [[2.0, -1.0], [1.5, -0.5], [1.0, 0.0]],
            [[0.3, 0.1], [0.2, 0.9], [-0.4, 0.6]],
            [[-1.0, 1.5], [0.0, 2.0], [-0.5, 0.5]],
            [[0.8, -0.7], [0.1, 0.4], [0.6, 0.2]],
        ],
        dtype=torch.float64,
    ),
    "expert_logits": torch.tensor(
        [
            [[0.7, -0.3], [0.2, 0.4], [1.1, -0.9]],
            [[0.2, 0.1], [-0.6, 0.5], [0.3, 0.8]],
            [[-1.5, 0.4], [-0.2, 0.3], [0.1, 0.9]],
            [[0.9, 1.3], [0.4, -0.1], [-0.7, 0.2]],
        ],
        dtype=torch.float64,
    ),
    "other_losses": torch.tensor([0.9, 1.7, 0.4, 2.2], dtype=torch.float64),
    "weighted_losses": torch.tensor([1.3, 0.6, 2.4, 0.2], dtype=torch.float64),
    "consistency": torch.tensor([-1.8, 0.3, -0.7, 0.9], dtype=torch.float64),
    "similarities": torch.tensor(
        [[[0.6, -0.2], [0.5, 0.1]], [[-0.9, 0.3], [0.0, 0.7]], [[0.2, -0.4], [0.8, 0.3]], [[0.1, 0.9], [-0.6, 0.4]]],
        dtype=torch.float64,
    ),
    "logits": torch.tensor([[0.7, -0.3], [0.2, 0.1], [-1.5, 0.4], [0.9, 1.3]], dtype=torch.float64),
    "biased": torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]], dtype=torch.float64),
    "biased_losses": torch.tensor([0.1, 2.0, 1.5, 0.3], dtype=torch.float64),
    "generalised": torch.tensor([0.2, 0.9, 0.4, 0.1], dtype=torch.float64),
    "losses_per_label": torch.tensor([[0.2, 1.9], [0.4, 1.1], [2.0, 0.1], [0.6, 0.7]], dtype=torch.float64),
    "held_out": torch.tensor([[3.0, -1.0], [0.4, 0.1], [2.0, -5.0], [0.6, 0.7]], dtype=torch.float64),
}


FIRST = FirstRun(
    {"train": {"logits": torch.tensor([1.0, -2.0, 0.5, 3.0, -0.5, 2.0, -1.0, 0.2]).outer(torch.tensor([-1.0, 1.0]))}}
)


def make(name, group_counts=GROUP_COUNTS, **section):
    targets = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
    given = dict(group_counts=group_counts, targets=targets, num_classes=2, num_groups=len(group_counts))
    # The groups of the batch's rows: the first run of SSA has labels of the attribute in groups of odd number.
    given |= dict(groups=torch.tensor([1, 0, 0, 0, 0, 0, 0, 1]), epochs=3)
    given |= dict(seed=0, class_counts=torch.bincount(targets), loss=CrossEntropy(), first=FIRST)
    return build(OBJECTIVES, dict(name=name, **section), **given)


def columns_of(name):
    """Return `COLUMNS` for an objective; PaCo has one anchor for each example, GPaCo has two."""
    anchors = {key: COLUMNS[key][:, :1] for key in ("anchors", "anchor_logits")}
    return COLUMNS | anchors if name == "paco" else COLUMNS


def gradients(objective, steps=3):
    """The gradient of the objective in each row of each column, at the last of some steps with the same batch."""
    for _ in range(steps):
        columns = {name: column.clone().requires_grad_() for name, column in COLUMNS.items()}
        value = objective.value(columns, Batch((), TARGETS, CLASS_ATTRIBUTE_GROUPS, WEIGHTS, ROWS))
        found = torch.autograd.grad(value, columns.values(), allow_unused=True, materialize_grads=True)
    return torch.cat([of_column.flatten() for of_column in found]) if objective.columns else found[0]


def has_settings_in_forward(name):
    """Return whether `forward` alone uses the hyperparameters, with no column; `terms` of SADE uses them."""
    return not OBJECTIVES[name].columns and OBJECTIVES[name].terms is Objective.terms


@each_setting("objective", has_settings_in_forward)
def test_every_hyperparameter_changes_the_gradient(name, key):
    example = settings("objective", name)
    counts = torch.tensor([100, 25, 10, 9])  # the batch lacks the last two groups
    before = gradients(make(name, counts, **example))
    for change in changes("objective", name, key):
        after = gradients(make(name, counts, **example | change))
        assert not torch.allclose(before, after, rtol=1e-3), advice(
            "objective", name, key, f"changes no gradient as {change}"
        )


@each("objective")
def test_the_order_of_a_batch_does_not_matter(name):
    order = torch.tensor([2, 3, 1, 0])
    values = [
        make(name, **settings("objective", name)).value(
            {key: column[o] for key, column in columns_of(name).items()},
            Batch((), TARGETS[o], GROUPS[o], WEIGHTS[o], ROWS[o], epoch=1),  # in epoch 0 GLMC ignores a column
        )
        for o in (torch.arange(4), order)
    ]
    torch.testing.assert_close(*values)


def test_average_and_its_logarithm():
    mean = (0.5 * 1 + 1 * 3 + 2 * 0.5 + 0.5 * 2.5) / 4
    assert make("average")(LOSSES, WEIGHTS, GROUPS).item() == pytest.approx(mean)
    assert make("log_average")(LOSSES, WEIGHTS, GROUPS).item() == pytest.approx(np.log(mean))


def test_group_dro_by_hand():
    """Two groups of 100 and 25 with mean losses 1 and 2, step ½, C = 2: adjusted losses 1.2 and 2.4."""
    dro = make("group_dro", torch.tensor([100, 25]), step_size=0.5, size_adjustment=2.0, adjust_absent=False)
    losses, groups = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64), torch.tensor([0, 0, 1])
    assert dro.log_weights.exp().tolist() == [0.5, 0.5]
    value = dro(losses, torch.ones(3, dtype=torch.float64), groups)
    q = 1 / (1 + np.exp(0.5 * (2.4 - 1.2)))  # of the first group
    np.testing.assert_allclose(dro.log_weights.exp(), [q, 1 - q], rtol=1e-12)
    assert value.item() == pytest.approx(q * 1 + (1 - q) * 2)
    dro(losses, torch.ones(3, dtype=torch.float64), groups)
    q = 1 / (1 + np.exp(2 * 0.5 * (2.4 - 1.2)))
    np.testing.assert_allclose(dro.log_weights.exp(), [q, 1 - q], rtol=1e-12)


def test_group_dro_leaves_a_group_that_the_batch_lacks_as_it_was():
    """Relative to one another, the absent groups keep their weights; those of groups without examples stay 0."""
    dro = make("group_dro", torch.tensor([10, 20, 30, 0]), step_size=0.5, size_adjustment=3.0, adjust_absent=False)
    dro(torch.tensor([1.0, 2.0, 4.0]), torch.ones(3), torch.tensor([0, 1, 2]))
    before = dro.log_weights.exp()
    dro(torch.tensor([5.0]), torch.ones(1), torch.tensor([0]))
    after = dro.log_weights.exp()
    assert (after[1] / after[2]).item() == pytest.approx((before[1] / before[2]).item())
    assert after[0] > before[0] and after[3] == 0 and after.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("size_adjustment", [0.0, 2.0])
@pytest.mark.parametrize("adjust_absent", [False, True])
def test_group_dro_is_published_with_either_rule_for_absent_groups(size_adjustment, adjust_absent):
    published = json.loads((Path(__file__).parent / "published" / "group_dro.json").read_text())
    inputs, results = published["inputs"], published["results"][f"C={size_adjustment:g}"]
    dro = GroupDRO(
        torch.tensor(inputs["group_counts"]),
        step_size=inputs["step_size"],
        size_adjustment=size_adjustment,
        adjust_absent=adjust_absent,
    )
    theirs = results["published" if adjust_absent else "absent_groups_left_alone"]
    for step, (rows, labels, groups) in enumerate(zip(inputs["logits"], inputs["labels"], inputs["groups"])):
        logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
        value = dro(losses, torch.ones(len(losses)), torch.tensor(groups))
        weights = torch.tensor(theirs[step]["group_probs"], dtype=torch.float64)
        torch.testing.assert_close(dro.log_weights.exp(), weights, rtol=1e-9, atol=0)
        if adjust_absent:  # the published code adds the adjustment to the value, which changes no gradient
            (gradient,) = torch.autograd.grad(value, logits)
            expected = torch.tensor(theirs[step]["grad_logits"], dtype=torch.float64)
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
        else:
            assert value.item() == pytest.approx(theirs[step]["loss_without_adjustment"])


def test_group_dro_survives_huge_losses_and_is_not_moved_by_evaluation():
    dro = make("group_dro", step_size=1.0, size_adjustment=0.0, adjust_absent=False)
    value = dro(torch.tensor([1e6, 1.0]), torch.ones(2), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(1e6) and dro.log_weights.exp().tolist() == [1, 0, 0]
    dro = make("group_dro", step_size=1.0, size_adjustment=0.0, adjust_absent=False).eval()
    dro(LOSSES, WEIGHTS, GROUPS)
    assert dro.log_weights.exp().tolist() == [0.5, 0.5, 0]


def test_group_dro_s_weights_are_in_its_state():
    dro = make("group_dro", **settings("objective", "group_dro"))
    dro(LOSSES, WEIGHTS, GROUPS)
    other = make("group_dro", **settings("objective", "group_dro"))
    other.load_state_dict(dro.state_dict())
    assert other(LOSSES, WEIGHTS, GROUPS).equal(dro(LOSSES, WEIGHTS, GROUPS))


@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.77, 1.0])
def test_cvar_is_the_maximum_over_its_distributions(level):
    rng = np.random.default_rng(0)
    losses, weights = rng.exponential(size=9), rng.exponential(size=9)
    bounds = [(0, share) for share in weights / weights.sum() / level]
    best = -linprog(-losses, A_eq=np.ones((1, 9)), b_eq=[1], bounds=bounds).fun
    tensors = (torch.from_numpy(values) for values in (losses, weights))
    assert make("cvar", level=level)(*tensors, torch.zeros(9, dtype=torch.long)).item() == pytest.approx(best)


def test_worst_group_is_the_greatest_mean_of_the_groups_that_there_are():
    assert make("worst_group")(LOSSES, WEIGHTS, GROUPS).item() == pytest.approx((3 + 1.25) / 2)
    assert make("worst_group")(-LOSSES, WEIGHTS, GROUPS).item() == pytest.approx(-0.75)
    assert gradients(make("worst_group")).tolist() == [0, 0.5, 0, 0.25]


def test_a_group_without_examples_has_no_weight_and_no_infinity_in_group_dro():
    """Whose state would end the run: -inf is not finite."""
    dro = OBJECTIVES["group_dro"](torch.tensor([3, 0, 5]), step_size=0.5, size_adjustment=1.0, adjust_absent=False)
    losses, groups = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 2])
    for _ in range(50):
        dro(losses, torch.ones(3), groups)
    assert dro.log_weights.isfinite().all() and dro.log_weights.exp()[1] == 0
    assert dro.log_weights.exp().sum().item() == pytest.approx(1)


LABELS = dict(num_classes=2, num_groups=4, environments="group", penalty=1.0)
DRO = dict(step_size=0.1, size_adjustment=0.0, adjust_absent=False)


@pytest.mark.parametrize("group", [4, -1])
@pytest.mark.parametrize(
    "make",
    [
        lambda: InvariantRisk(**LABELS, warmup_steps=0),
        lambda: RiskExtrapolation(**LABELS, warmup_steps=0),
        lambda: CorrelationAlignment(**LABELS),
        lambda: GroupDRO(torch.ones(4), **DRO),
        lambda: WorstGroup([1, 1, 1, 1]),
    ],
)
def test_a_group_that_does_not_exist_is_refused(make, group):
    """Group 4 of 4 was taken for group 0, and -1 for the last, where groups are taken modulo a number."""
    objective, values = make(), torch.ones(3)
    columns = {name: torch.ones(3, 2) if name == "features" else values for name in objective.columns}
    with pytest.raises(BadInput, match="^groups: labels from .* given; they must be 0 to 3$"):
        objective(values, values, torch.tensor([0, 1, group]), **columns)


def test_a_column_with_one_row_is_not_repeated():
    ones, targets = torch.ones(3), torch.tensor([0, 1, 1])
    with pytest.raises(BadInput, match=r"^slopes: a tensor of shape \(1,\) given; it must have 3 rows$"):
        InvariantRisk(**LABELS, warmup_steps=0)(ones, ones, targets, slopes=ones[:1])
    objective = AUCMargin(2, positives=(1,), share=0.5, margin=1.0)
    with pytest.raises(BadInput, match=r"^logits: a tensor of shape \(1, 2\) given; it must have 3 rows$"):
        objective(ones, ones, targets, logits=torch.zeros(1, 2), targets=targets)


def test_contrastive_losses_do_not_repeat_weights():
    points, targets, weights = unit_vectors(3, 2, 4), torch.tensor([0, 1, 1]), torch.ones(3, 1)
    calls = (
        lambda: correct_n_contrast(points[:, 0], targets, targets, weights, 0.1),
        lambda: supervised_contrastive(points, targets, weights, 0.1),
        lambda: balanced_contrastive(points, torch.zeros(3, 2, 2), targets, weights, 0.1),
    )
    for call in calls:
        with pytest.raises(
            BadInput, match=r"^weights: a tensor of shape \(3, 1\) given; it must have the shape \(3,\)$"
        ):
            call()


def test_group_dro_takes_a_list_of_counts_and_checks_it():
    groups, losses = torch.tensor([0, 1]), torch.tensor([1.0, 3.0])
    values = [GroupDRO(counts, **DRO)(losses, torch.ones(2), groups) for counts in ([9, 1], torch.tensor([9, 1]))]
    assert torch.equal(*values)
    for counts in ([-1, 3], [0.7, 0.3], [0, 0]):
        with pytest.raises(BadInput, match="^group_counts: .* given; the number of training examples of each group"):
            GroupDRO(counts, **DRO)

"""Supervised contrastive learning against its authors' code, and against its definition one anchor at a time."""

import pytest
import torch
from conftest import ROOT
from torch import nn

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.objectives.supcon import SupervisedContrastive, supervised_contrastive
from imbalance.models import mlp

# Values of SupContrast's `SupConLoss` (github.com/HobbitLong/SupContrast, losses.py) at τ = 0.1 in float64.
PROJECTIONS = [
    [[0.214244, 0.509361, 0.204854, -0.80789], [0.705903, 0.348037, -0.41866, 0.453096]],
    [[0.505994, 0.40823, 0.039448, 0.75879], [-0.683792, -0.151261, -0.447644, 0.556024]],
    [[0.045426, -0.334452, -0.894187, -0.294124], [0.004897, -0.16577, 0.778354, 0.605525]],
    [[-0.812747, -0.566285, -0.052393, -0.126563], [0.088598, 0.090124, 0.878272, -0.461157]],
    [[-0.166016, 0.898116, 0.284327, 0.29152], [-0.295764, -0.948316, 0.096361, 0.062728]],
    [[-0.724365, -0.40323, -0.042519, -0.557578], [-0.186928, 0.181627, 0.067692, -0.963062]],
]
CLASSES = [0, 0, 0, 1, 0, 2]
PUBLISHED = 9.990436920247996  # with their factor τ / 0.07
VALUE = 6.993305844173597  # without
GRADIENT = [
    [
        [-0.25774890267597045, 0.3587330646788134, 0.819457352230399, -2.311740331779488],
        [0.9031717065822253, 0.6152119965424951, 0.0009008044235830487, 0.9378390195130848],
    ],
    [
        [1.063617433940973, 1.0974933898163788, -0.062316138578715874, 0.9809981009533983],
        [-0.883451867685827, -0.7308957369063527, -0.226463691024968, -0.41154434627465697],
    ],
    [
        [-0.5227452409978206, -0.5002092187213649, -0.2494634727887906, -0.5515640235628436],
        [0.10574621142884127, 0.039477012164257703, 0.618044792951545, -0.045036502861398486],
    ],
    [
        [-1.9244942852041773, -1.7253384625161838, -1.89834518921416, 0.4308977270680212],
        [1.4485185556300908, 1.2850881915189427, 0.5062892294009208, -0.30882949553361155],
    ],
    [
        [0.2746576374257839, 0.3896789267005026, 0.2903470651207132, 0.2567378630882529],
        [-1.00730922476236, -0.976621325882516, 0.004712087612786551, -0.49353064593590634],
    ],
    [
        [-0.8729797134911138, -1.2789356830308751, -0.42995260817143, 1.2682735017191997],
        [1.4737585184677071, 1.3922649315724338, 0.5008167806755207, -0.45274650019009943],
    ],
]


def test_value_and_gradient_are_those_of_the_published_code():
    projections = torch.tensor(PROJECTIONS, dtype=torch.float64, requires_grad=True)
    value = supervised_contrastive(projections, torch.tensor(CLASSES), torch.ones(6, dtype=torch.float64), 0.1)
    value.backward()
    assert value.item() == pytest.approx(VALUE, rel=1e-12)
    assert 0.1 / 0.07 * value.item() == pytest.approx(PUBLISHED, rel=1e-12)
    torch.testing.assert_close(projections.grad, torch.tensor(GRADIENT, dtype=torch.float64), rtol=1e-7, atol=1e-9)


def one_anchor_at_a_time(projections, targets, weights, temperature):
    points = [(i, view) for i in range(len(targets)) for view in range(projections.shape[1])]
    z, total = projections, 0.0
    for i, u in points:
        others = [(j, v) for j, v in points if (j, v) != (i, u)]
        positives = [(j, v) for j, v in others if targets[j] == targets[i]]
        denominator = sum((z[i, u] @ z[j, v] / temperature).exp() for j, v in others)
        of_anchor = [-((z[i, u] @ z[j, v] / temperature).exp() / denominator).log() for j, v in positives]
        total = total + weights[i] * sum(of_anchor) / len(positives)
    return total / len(points)


@pytest.mark.parametrize("views", [2, 3])
def test_it_is_the_definition_one_anchor_at_a_time(views):
    random = torch.Generator().manual_seed(0)
    points = torch.randn(7, views, 5, dtype=torch.float64, generator=random)
    projections = nn.functional.normalize(points, dim=2).requires_grad_()
    targets, weights = torch.tensor([0, 1, 2, 0, 0, 1, 3]), torch.rand(7, dtype=torch.float64, generator=random)
    ours = supervised_contrastive(projections, targets, weights, 0.3)
    theirs = one_anchor_at_a_time(projections, targets, weights, 0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(value, projections)[0] for value in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_one_example_has_its_other_view_as_its_only_positive():
    projections = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert supervised_contrastive(projections, torch.tensor([0]), torch.ones(1), 0.1).item() == 0


def test_one_view_is_refused():
    with pytest.raises(BadInput, match="1 view of each example given; give at least 2"):
        supervised_contrastive(torch.ones(2, 1, 3), torch.tensor([0, 1]), torch.ones(2), temperature=0.1)


def test_half_precision_and_small_temperatures_stay_finite():
    projections = nn.functional.normalize(torch.randn(8, 2, 4), dim=2).bfloat16().requires_grad_()
    value = supervised_contrastive(projections, torch.arange(8) % 2, torch.ones(8), 0.001)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and projections.grad.isfinite().all()


def method_and_model(detached: bool) -> tuple[SupervisedContrastive, nn.Module]:
    torch.manual_seed(0)
    method = SupervisedContrastive(penalty=2.0, temperature=0.2, width=3, detached=detached)
    return method, method.network(lambda: mlp((4,), 3, hidden=(6,)).double()).double()


def examples() -> Batch:
    random = torch.Generator().manual_seed(1)
    views = tuple(torch.randn(5, 4, dtype=torch.float64, generator=random) for _ in range(2))
    targets, weights = torch.tensor([0, 1, 2, 0, 1]), torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    return Batch(views, targets, torch.zeros_like(targets), weights, torch.arange(5))


def test_the_objective_is_the_loss_of_the_first_view_plus_the_contrast_of_both():
    (method, model), batch = method_and_model(detached=False), examples()
    value = method.value(method.terms(model, CrossEntropy(), batch), batch)
    features = torch.stack([model.features(view) for view in batch.views], 1)
    losses = nn.functional.cross_entropy(model.head(features[:, 0]), batch.targets, reduction="none")
    projections = nn.functional.normalize(model.projection(features), dim=2)
    contrast = one_anchor_at_a_time(projections, batch.targets, batch.weights, 0.2)
    torch.testing.assert_close(value, (batch.weights * losses).mean() + 2 * contrast, rtol=1e-10, atol=0)


def test_a_detached_head_learns_and_its_loss_does_not_reach_the_features():
    batch, gradients = examples(), {}
    for detached in (True, False):
        method, model = method_and_model(detached)
        losses = method.terms(model, CrossEntropy(), batch)["losses"]
        gradients[detached] = torch.autograd.grad(losses.sum(), model.parameters(), allow_unused=True)
        reached = [name for (name, _), found in zip(model.named_parameters(), gradients[detached]) if found is not None]
        assert {name.split(".")[0] for name in reached} == ({"head"} if detached else {"features", "head"})
    assert torch.equal(gradients[True][2], gradients[False][2])  # the head's, of the same features


def test_evaluation_returns_logits_alone():
    _, model = method_and_model(detached=True)
    inputs = examples().inputs
    assert torch.equal(model.eval()(inputs), model.head(model.features(inputs)))


def test_texts_are_concatenated_by_name():
    method, (ids, mask) = (
        SupervisedContrastive(penalty=1.0, temperature=0.2, width=3, detached=False),
        torch.ones(2, 5, 4),
    )
    given = []

    def model(inputs):
        given.append(inputs)
        return torch.randn(10, 3), torch.randn(10, 3)

    view = {"input_ids": ids, "attention_mask": mask}
    method.terms(model, CrossEntropy(), examples()._replace(views=(view, view)))
    assert {name: tensor.shape for name, tensor in given[0].items()} == {
        "input_ids": (10, 4),
        "attention_mask": (10, 4),
    }


def test_mixtures_are_refused():
    config = load(ROOT / "configs" / "cifar10lt_supcon.py")
    config.mix = {"name": "mixup", "alpha": 1.0}
    with pytest.raises(BadInput, match=r"config.mix.name: .* a mixture has two classes; use config.mix.name='none'"):
        validate(config)

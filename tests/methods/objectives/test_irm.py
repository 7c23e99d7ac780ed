"""IRM's penalty against its definition, differentiated by autograd."""

import pytest
import torch
from torch import nn

from experiments.colored_digits_methods import METHODS
from imbalance.config.override_flags import split_overrides
from imbalance.config.renamed import RENAMED
from imbalance.config.resolve import resolve
from imbalance.config.schema import build
from imbalance.errors import BadInput
from imbalance.methods.batch import Batch, Partners
from imbalance.methods.losses import LOSSES, CrossEntropy
from imbalance.methods.objectives.irm import InvariantRisk
from imbalance.training.loop import train


def batch(classes: int, groups: int, partners: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    draw = lambda high: torch.randint(high, (12,), generator=generator)  # noqa: E731
    inputs = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    weights = torch.rand(12, dtype=torch.float64, generator=generator)
    mixed = Partners(draw(classes), draw(groups), torch.rand(12, dtype=torch.float64, generator=generator))
    return Batch((inputs,), draw(classes), draw(groups), weights, torch.arange(12), mixed if partners else None)


def model(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, classes)).double()


@pytest.mark.parametrize("partners", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", [dict(name="cross_entropy"), dict(name="poly", alpha=0.7, left="linear")])
def test_it_is_the_published_penalty_in_value_and_in_gradient(loss, classes, partners):
    """(IRMv1): the gradient of each environment's risk by a factor w on the logits, at 1, with w made a tensor."""
    examples, network, loss = batch(classes, 4, partners), model(classes), build(LOSSES, loss)
    method = InvariantRisk(classes, 4, environments="group", penalty=3.0, warmup_steps=0)
    ours = method.value(method.terms(network, loss, examples), examples)

    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = examples.losses(loss, network(examples.inputs) * w)
    penalties = []
    for group in examples.groups.unique():
        of_group = examples.groups == group
        risk = (examples.weights * losses)[of_group].mean()
        penalties.append(torch.autograd.grad(risk, w, create_graph=True)[0] ** 2)
    theirs = ((examples.weights * losses).mean() + 3.0 * torch.stack(penalties).mean()) / 3.0
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for pair in zip(*(torch.autograd.grad(value, network.parameters()) for value in (ours, theirs))):
        torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-14)


def test_an_attribute_is_an_environment_of_all_classes():
    """group = class · attributes + attribute."""
    examples = batch(2, 6)
    of_group, of_attribute = (
        InvariantRisk(2, 6, environments=name, penalty=1.0, warmup_steps=0) for name in ("group", "attribute")
    )
    losses, slopes = torch.rand(2, 12, dtype=torch.float64)
    found = of_attribute(losses, examples.weights, examples.groups, slopes=slopes)
    assert found == of_attribute(losses, examples.weights, examples.groups % 3, slopes=slopes)
    assert found != of_group(losses, examples.weights, examples.groups, slopes=slopes)
    with pytest.raises(BadInput, match="'attribute' needs a group for each combination of a class and an attribute"):
        InvariantRisk(2, 5, environments="attribute", penalty=1.0, warmup_steps=0)


def test_the_penalty_counts_from_the_step_at_which_the_warm_up_ends():
    examples, loss = batch(2, 4), CrossEntropy()
    method = InvariantRisk(2, 4, environments="group", penalty=100.0, warmup_steps=2)
    terms = method.terms(model(2), loss, examples)
    values = [method.value(terms, examples).item() for _ in range(4)]
    risk = (examples.weights * terms["losses"]).mean().item()
    assert values[0] == values[1] and values[2] == values[3]
    assert 100 * values[2] - risk == pytest.approx(100 * (values[0] - risk))
    method.eval()
    method.value(terms, examples)
    assert method.steps.item() == 4


def test_a_predictor_that_is_best_in_every_environment_has_no_penalty():
    """Where the logits are the log-odds of each environment's labels, no factor on them is better than 1."""
    targets, groups = torch.tensor([0, 0, 0, 1, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    logits = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log().expand(8, 2)
    examples = Batch((logits,), targets, groups, torch.ones(8, dtype=torch.float64), torch.arange(8))
    method = InvariantRisk(2, 2, environments="group", penalty=1e6, warmup_steps=0)
    terms = method.terms(nn.Identity(), CrossEntropy(), examples)
    assert 1e6 * method.value(terms, examples).item() == pytest.approx(terms["losses"].mean().item(), abs=1e-9)


def test_a_penalty_beyond_float32_is_no_error():
    """The risk is divided by λ, which is nowhere made a float32."""
    losses, weights, slopes = torch.ones(3, 4)
    method = InvariantRisk(2, 2, environments="group", penalty=1e300, warmup_steps=0)
    assert method(losses, weights, torch.tensor([0, 0, 1, 1]), slopes=slopes) == 1.0


@pytest.mark.parametrize("seed", [0, 3])
def test_eiil_then_irm_does_not_diverge(tmp_path, seed):
    """At these seeds the runs without clipping diverge by epoch 4."""
    (variant,) = (variant for title, variant, _ in METHODS if title == "EIIL, then IRM")
    config = variant.run({"trainer.epochs": 6, "trainer.eval_every": 6}, seed, str(tmp_path)).config
    assert train(config, tmp_path / "run")["status"] == "done"
    flags = split_overrides([f"--config.{value}" for value in RENAMED["colored_digits_eiil_irm"].split()[1:]])[0]
    renamed, _ = resolve("colored_digits_irm", flags)
    assert renamed.trainer.clip_norm == config.trainer.clip_norm and renamed.groups == config.groups

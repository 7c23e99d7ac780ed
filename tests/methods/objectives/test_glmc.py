"""GLMC: the value and gradients of the published code, the mixed views, and the layer that is evaluated."""

import torch
from conftest import ROOT
from helpers.published import assert_published, exact, published
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.methods.batch import Batch, Partners
from imbalance.methods.losses import CrossEntropy
from imbalance.methods.mixing import glmc
from imbalance.methods.objectives.glmc import GlobalLocalMixtureConsistency, TwoHeads
from imbalance.models import mlp
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.learner import make_learner
from imbalance.training.step import draw_epoch

PUBLISHED = published("glmc")
INPUTS = PUBLISHED["inputs"]


def test_the_objective_is_the_published_code():
    views = dict(
        others=("logits_mix", "logits_cut"), logits=("logits_cb_mix", "logits_cb_cut"), projections=("z1", "z2"),
        predictions=("p1", "p2"),
    )  # fmt: skip
    leaves = {key: exact(INPUTS[key], requires_grad=True) for keys in views.values() for key in keys}
    outputs = [torch.cat([leaves[key] for key in keys]) for keys in views.values()]
    own, partner = (torch.tensor(INPUTS[f"labels_{name}"]) for name in ("uniform", "reversed"))
    shares, ones = torch.full((4,), INPUTS["lam"], dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    zeros, inputs = torch.zeros_like(own), torch.zeros(4, 1)
    partners = Partners(partner, zeros, shares)
    batch = Batch((inputs, inputs), own, zeros, ones, own, partners, epoch=INPUTS["epoch"])
    method = GlobalLocalMixtureConsistency(
        torch.tensor(INPUTS["cls_num_list"]),
        INPUTS["epochs"],
        penalty=float(INPUTS["contrast_weight"]),
        exponent=INPUTS["label_weighting"],
        width=5,
    )
    torch.testing.assert_close(method.class_weights, exact(INPUTS["class_weights"]), rtol=1e-12, atol=0)
    value = method.value(method.terms(lambda views: outputs, CrossEntropy(), batch), batch)
    value.backward()
    assert_published(value, PUBLISHED["value"], 1e-7)
    for name in ("logits_mix", "logits_cb_mix", "p1"):
        assert_published(leaves[name].grad, PUBLISHED[f"grad_{name}"], 1e-7)
    assert leaves["z1"].grad is None


def test_partners_of_rare_classes_are_drawn_more_often():
    targets = torch.tensor([0] * 900 + [1] * 100)
    counts = torch.tensor([900, 100])
    for exponent, share in ((0.0, 0.1), (1.0, 0.5), (2.0, 0.9)):
        draw = torch.Generator().manual_seed(0)
        mix = glmc(targets, counts, (1, 8, 8), draw, alpha=1.0, exponent=exponent)
        assert abs(targets[mix.partners].double().mean() - share) < 0.06
        assert mix.target_shares is None and mix.first_box_view == 1 and mix.shares.unique().numel() == 1


def test_the_first_view_is_mixed_and_the_second_has_a_box(tmp_path):
    config = load(ROOT / "configs" / "digits_erm.py")
    config.mix = ConfigDict(dict(name="glmc", alpha=1.0, exponent=0.0))
    config.objective = ConfigDict(dict(name="glmc", penalty=1.0, exponent=1.0, width=4))
    experiment = validate(config)
    learner = make_learner(experiment, start_accelerator(experiment), tmp_path)
    epoch, rows = draw_epoch(learner, 0), slice(0, 8)
    assert epoch.mixed is not None
    _, partner_inputs, shares, boxes, _ = epoch.mixed
    (own, _), (other, _) = epoch.images(rows), partner_inputs(rows)
    first, second = epoch.batch(rows).views
    torch.testing.assert_close(first, torch.lerp(other, own, shares[rows, None, None, None]))
    top, left, bottom, right = boxes[0].tolist()
    expected = own.clone()
    expected[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    assert second.equal(expected) and not second.equal(own)


def test_the_weighted_last_layer_is_evaluated():
    model = TwoHeads(mlp((3,), 4, hidden=(5,)), mlp((3,), 4, hidden=(5,)).head, 2)
    inputs = torch.randn(6, 3)
    others, logits, projections, predictions = model(inputs)
    assert model.eval()(inputs).equal(logits) and not logits.equal(others)
    assert projections.shape == predictions.shape == (6, 2)

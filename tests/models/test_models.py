import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.config.schema import build, keyword_annotations
from imbalance.errors import BadInput
from imbalance.models import COSINE, MODELS, CosineLinear, convnet, lenet, linear, mlp


def test_the_convnet_is_the_papers():
    model = convnet((3, 32, 32), 2)
    sizes = [tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sizes == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3),
                     (512, 2048), (128, 512), (2, 128)]  # fmt: skip
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    assert convnet((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert convnet((1, 20, 21), 10)(torch.zeros(2, 1, 20, 21)).shape == (2, 10)


def test_lenet_is_the_published_one():
    model = lenet((1, 32, 32), 10)
    sizes = [tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sizes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    for shape in ((3, 32, 32), (1, 28, 28), (1, 16, 17)):
        assert lenet(shape, 2)(torch.zeros(2, *shape)).shape == (2, 2)
    with pytest.raises(BadInput, match="16×16"):
        lenet((1, 8, 8), 2)


@pytest.mark.parametrize("shape", [(500,), (3, 19, 32)])
def test_the_convnet_refuses_what_it_cannot_take(shape):
    with pytest.raises(BadInput, match="20×20"):
        convnet(shape, 2)


def test_a_linear_model_can_start_at_zero():
    model = linear((1, 8, 8), 3, init="zeros")
    assert all((p == 0).all() for p in model.parameters()) and model.head.weight.shape == (3, 64)
    assert linear((5,), 3, init="default").head.weight.abs().min() > 0


def test_every_model_has_features_and_a_head():
    for model in (
        linear((5,), 3, init="zeros"),
        mlp((5,), 3, hidden=(7, 4)),
        convnet((3, 32, 32), 3),
        lenet((3, 32, 32), 3),
    ):
        assert [name for name, _ in model.named_children()] == ["features", "head"]
        assert model.head.out_features == 3
    assert {"linear", "mlp", "convnet"} <= MODELS.keys()


SECTIONS = {"linear": {"init": "default"}, "mlp": {"hidden": (7, 4)}, "convnet": {}, "resnet20": {"frozen": False}}


@pytest.mark.parametrize("name", SECTIONS)
def test_with_a_normalised_head_logits_are_cosines_of_the_same_features(name):
    section = dict(name=f"{name}_cosine", **SECTIONS[name])
    assert keyword_annotations(MODELS[f"{name}_cosine"]) == keyword_annotations(MODELS[name])
    model = build(MODELS, section, input_shape=(3, 20, 20), num_classes=5).eval()
    assert type(model.head) is CosineLinear and model.head.bias is None
    torch.testing.assert_close(model.head.weight.norm(dim=1), torch.ones(5))
    inputs = torch.randn(6, 3, 20, 20)
    with torch.no_grad():
        model.head.weight.mul_(torch.rand(5, 1) + 0.5)  # their length must not matter
        features = model.features(inputs)
        expected = F.cosine_similarity(features[:, None], model.head.weight, dim=2)
        torch.testing.assert_close(model(inputs), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert model.head(features).equal(model.head(features.float())) and model(inputs).dtype == torch.float32


def test_a_normalised_head_stays_finite_where_all_features_are_zero():
    head, features = CosineLinear(4, 3), torch.zeros(2, 4, requires_grad=True)
    head(features).square().sum().backward()
    assert head.weight.grad.isfinite().all() and features.grad.isfinite().all()


def test_every_model_has_a_normalised_twin_which_no_head_can_replace():
    assert COSINE.keys() == {f"{name}_cosine" for name in MODELS.keys() - COSINE.keys()}
    config = load(ROOT / "configs" / "digits_poly.py")
    config.model.name = "mlp_cosine"
    validate(config)
    config.head = {"name": "tau_normalised", "tau": 1.0}
    with pytest.raises(
        BadInput, match="config.head.name: 'tau_normalised' given, .* use head.name='none', or model.name='mlp'"
    ):
        validate(config)


def test_a_normalised_head_does_not_start_at_zero():
    with pytest.raises(BadInput, match="config.model.init"):
        linear((5,), 3, CosineLinear, init="zeros")

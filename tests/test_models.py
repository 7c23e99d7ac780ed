import pytest
import torch
from torch import nn

from imbalance.errors import BadInput
from imbalance.models import MODELS, convnet, lenet, linear, mlp


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

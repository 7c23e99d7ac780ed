"""Linear last layers of given values, as heads return them."""

from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The layer z = W f + b of a weight (K, D) and a bias (K,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # which draws no random numbers
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer

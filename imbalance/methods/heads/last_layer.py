"""Linear last layers with given parameters, which heads return."""

from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the layer z = W f + b for `weight` W (K, D) and `bias` b (K,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws no random numbers
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer

"""Exponential moving average of the network weights, which a run evaluates and saves in place of the weights."""

import copy

import torch
from torch import Tensor, nn


def average_weights(network: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> nn.Module:
    """Return a copy of `network` whose weights are the moving average of the weights of `network`.

    Every step of `optimizer` updates the average, by the rule of timm's ModelEmaV3 with `exclude_buffers`: average ←
    decay · average + (1 − decay) · weights. The average starts at the initial weights. Buffers, such as the
    running means of batch normalisation, are copied from `network` in every step.
    """
    averaged = copy.deepcopy(network)
    averages: list[Tensor] = list(averaged.parameters())
    weights: list[Tensor] = list(network.parameters())
    buffers = list(zip(averaged.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(*_: object) -> None:
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage] (torch's stubs lack it)
        for averaged_buffer, buffer in buffers:
            averaged_buffer.copy_(buffer)

    optimizer.register_step_post_hook(update)
    return averaged

"""Heads: what happens to the last layer after training, before it is evaluated.

A head is a function of the trained linear layer, the data set, the features that its model makes of a split
(`features(name) -> (N, D)`, in evaluation mode, computed when asked for), a generator and its section's values; it
returns what takes the layer's place: a module from features (N, D) to logits (N, K). One that is no linear layer is
made anew when its run is loaded, by the tag `module` of its head.
"""

from collections.abc import Mapping
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from imbalance.methods.afr import afr
from imbalance.methods.calibration import temperature, thresholds
from imbalance.methods.decoupling import crt, lws
from imbalance.methods.dfr import dfr
from imbalance.methods.disagreement import disagreement, hold_out
from imbalance.methods.dpe import dpe
from imbalance.methods.last_layer import linear
from imbalance.methods.losses import share
from imbalance.methods.tags import tags_of
from imbalance.schema import NonNegative, entry


def none(head: nn.Linear) -> nn.Module:
    """The layer as it was trained."""
    return head


def logit_adjusted(head: nn.Linear, class_counts: Tensor, *, tau: NonNegative) -> nn.Module:
    """z_j − τ log π_j, π_j = n_j / n in training (Menon et al., ICLR 2021, equation 9). Uses no labels beyond those.

    Args:
        tau: τ; 1.0 in theory, 0.0 leaves the layer as it is.
    """
    return linear(head.weight, head.bias - tau * share(class_counts).log().to(head.bias))


def tau_normalised(head: nn.Linear, *, tau: NonNegative) -> nn.Module:
    """w_j / ‖w_j‖^τ without a bias (Kang et al., ICLR 2020, equation 4).

    Args:
        tau: τ; 1.0 makes all rows unit vectors, 0.0 only drops the bias.
    """
    return linear(head.weight / head.weight.norm(dim=1, keepdim=True) ** tau, torch.zeros_like(head.bias))


HEADS = {
    "none": none,
    "logit_adjusted": logit_adjusted,
    "tau_normalised": tau_normalised,
    "crt": crt,
    "lws": lws,
    "dfr": dfr,
    "dpe": dpe,
    "hold_out": hold_out,
    "afr": afr,
    "self": disagreement,
    "temperature": temperature,
    "thresholds": thresholds,
}


def in_place_of(head: nn.Linear, section: Mapping[str, Any]) -> nn.Module:
    """What the head of `section` leaves where `head` was, of any weights: what a saved state is loaded into."""
    module = tags_of(entry(HEADS, section["name"])).module
    return module(head, ConfigDict(section)).to(head.weight) if module else head

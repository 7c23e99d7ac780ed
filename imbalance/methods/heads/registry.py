"""Heads: what happens to the last layer after training, before it is evaluated.

A head is a function of the trained linear layer, the data set, the features that its model makes of a split
(`features(name) -> (N, D)`, in evaluation mode, computed when asked for), a generator and its section's values; it
returns what takes the layer's place: a module from features (N, D) to logits (N, K). One that is no linear layer is
made anew when its run is loaded, by the tag `module` of its head.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from imbalance.config.schema import Section, look_up
from imbalance.config.tags import tags_of
from imbalance.methods.heads.afr import afr
from imbalance.methods.heads.calibration import temperature, thresholds
from imbalance.methods.heads.closed_form import logit_adjusted, none, tau_normalised
from imbalance.methods.heads.decoupling import crt, lws
from imbalance.methods.heads.dfr import dfr
from imbalance.methods.heads.disagreement import disagreement, hold_out
from imbalance.methods.heads.dpe import dpe

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
    module = tags_of(look_up(HEADS, section["name"])).module
    return module(head, Section(section)).to(head.weight) if module else head

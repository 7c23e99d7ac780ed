"""Heads by name: replacements of the last layer, after training and before evaluation.

A head is a function of the trained linear layer, the data set, the features of a split, a generator, and the values of
its section. `features(name)` computes (N, D) features in evaluation mode. A head returns the module that replaces the
last layer, from features (N, D) to logits (N, K). If that module is not linear, the tag `module` of the head builds it
when a run is loaded.
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


def untrained_head(head: nn.Linear, section: Mapping[str, Any]) -> nn.Module:
    """Return an untrained module of the kind that the head of `section` returns, to load saved weights into."""
    module = tags_of(look_up(HEADS, section["name"])).module
    return module(head, Section(section)).to(head.weight) if module else head

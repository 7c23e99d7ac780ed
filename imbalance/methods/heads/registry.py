"""Heads by name: functions that replace the last layer, after training and before evaluation.

The arguments of such a function come from the run (see `imbalance.methods.context`) and from the section `config.head`:

- `head` is the trained last layer.
- `features(split)` computes the (N, D) features of a split in evaluation mode.
- `augmented_features(split)` computes the features of two augmented views of each example.

The function returns the module that replaces the last layer, from features (N, D) to logits (N, K). If this module is not a
linear layer, the function needs the tag `module`, which builds an untrained module when a run is loaded.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from imbalance.config.schema import Section, look_up
from imbalance.config.tags import tags_of
from imbalance.methods.heads.afr import afr
from imbalance.methods.heads.calibration import temperature, thresholds
from imbalance.methods.heads.closed_form import logit_adjusted, none, tau_normalised
from imbalance.methods.heads.decoupling import crt, lws, reweight_crt, vanilla_crt
from imbalance.methods.heads.dfr import dfr
from imbalance.methods.heads.disagreement import disagreement, hold_out
from imbalance.methods.heads.dpe import dpe
from imbalance.methods.heads.max_norm import weight_balancing
from imbalance.methods.heads.prior import prior
from imbalance.methods.heads.smoothing import los, mislas
from imbalance.methods.heads.test_time import test_time

HEADS = {
    "none": none,
    "logit_adjusted": logit_adjusted,
    "tau_normalised": tau_normalised,
    "prior": prior,
    "crt": crt,
    "vanilla_crt": vanilla_crt,
    "reweight_crt": reweight_crt,
    "lws": lws,
    "weight_balancing": weight_balancing,
    "los": los,
    "mislas": mislas,
    "test_time": test_time,
    "dfr": dfr,
    "dpe": dpe,
    "hold_out": hold_out,
    "afr": afr,
    "self": disagreement,
    "temperature": temperature,
    "thresholds": thresholds,
}


def untrained_head(head: nn.Linear, section: Mapping[str, Any]) -> nn.Module:
    """Return an untrained module into which the saved state of a head can be loaded.

    Args:
        head: the last layer of the model.
        section: the section `config.head` of the run that saved the state.
    """
    module = tags_of(look_up(HEADS, section["name"])).module
    return module(head, Section(section)).to(head.weight) if module else head

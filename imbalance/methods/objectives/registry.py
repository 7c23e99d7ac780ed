"""Objectives: from what a method computes of each example to the scalar that is minimised.

`objective(losses (B,), weights (B,), groups (B,)) -> scalar`, over the whole batch: with several processes the loop
hands every one of them all losses, so nothing here knows of processes. What an objective learns is a buffer, and so
part of a checkpoint; only `forward` in training mode changes it, and the loop calls that once a step.

Those that need more than the losses have a file of their own: see `imbalance.methods.objectives.base.Objective`.
"""

from imbalance.methods.group_inference.xrm import CrossRisk
from imbalance.methods.objectives.alignment import CorrelationAlignment, MaximumMeanDiscrepancy
from imbalance.methods.objectives.dro import GroupDRO
from imbalance.methods.objectives.irm import InvariantRisk
from imbalance.methods.objectives.lff import LearningFromFailure
from imbalance.methods.objectives.reductions import Average, CVaR, LogAverage, WorstGroup

OBJECTIVES = {
    "average": Average,
    "log_average": LogAverage,
    "group_dro": GroupDRO,
    "cvar": CVaR,
    "worst_group": WorstGroup,
    "irm": InvariantRisk,
    "coral": CorrelationAlignment,
    "mmd": MaximumMeanDiscrepancy,
    "lff": LearningFromFailure,
    "xrm": CrossRisk,
}

"""Objectives by name: functions from the losses of a batch to the scalar to minimise.

`objective(losses (B,), weights (B,), groups (B,)) -> scalar` gets the whole batch. With several processes the loop
passes the losses of all processes to the objective on each process, so no objective communicates. The state of an
objective is in buffers, so every checkpoint contains it. Only `forward` in training mode changes the state; the loop
calls `forward` once a step.

An objective that needs more than the losses has a file of its own: see `imbalance.methods.objectives.base.Objective`.
"""

from imbalance.methods.group_inference.george import AverageWithFeatures
from imbalance.methods.group_inference.ssa import AttributeNetworks
from imbalance.methods.group_inference.xrm import CrossRisk
from imbalance.methods.objectives.alignment import CorrelationAlignment, MaximumMeanDiscrepancy
from imbalance.methods.objectives.bcl import BalancedContrastive
from imbalance.methods.objectives.cnc import CorrectNContrast
from imbalance.methods.objectives.dro import GroupDRO
from imbalance.methods.objectives.experts import RIDE, SADE
from imbalance.methods.objectives.glmc import GlobalLocalMixtureConsistency
from imbalance.methods.objectives.irm import InvariantRisk
from imbalance.methods.objectives.lade import LabelDistributionDisentangling
from imbalance.methods.objectives.lff import LearningFromFailure
from imbalance.methods.objectives.logit_shift import LogitCorrection, UnsupervisedLogitAdjustment
from imbalance.methods.objectives.paco import GPaCo, PaCo
from imbalance.methods.objectives.proco import ProbabilisticContrastive
from imbalance.methods.objectives.ranking import AUCMargin, AveragePrecision, PartialAUC, SmoothAP
from imbalance.methods.objectives.reductions import Average, CVaR, LogAverage, WorstGroup
from imbalance.methods.objectives.supcon import SupervisedContrastive
from imbalance.methods.objectives.vrex import RiskExtrapolation

OBJECTIVES = {
    "average": Average,
    "log_average": LogAverage,
    "group_dro": GroupDRO,
    "cvar": CVaR,
    "worst_group": WorstGroup,
    "irm": InvariantRisk,
    "vrex": RiskExtrapolation,
    "coral": CorrelationAlignment,
    "mmd": MaximumMeanDiscrepancy,
    "lade": LabelDistributionDisentangling,
    "lff": LearningFromFailure,
    "ula": UnsupervisedLogitAdjustment,
    "lc": LogitCorrection,
    "aucm": AUCMargin,
    "partial_auc": PartialAUC,
    "smooth_ap": SmoothAP,
    "soap": AveragePrecision,
    "supcon": SupervisedContrastive,
    "bcl": BalancedContrastive,
    "paco": PaCo,
    "gpaco": GPaCo,
    "proco": ProbabilisticContrastive,
    "glmc": GlobalLocalMixtureConsistency,
    "ride": RIDE,
    "sade": SADE,
    "cnc": CorrectNContrast,
    "george": AverageWithFeatures,
    "ssa": AttributeNetworks,
    "xrm": CrossRisk,
}

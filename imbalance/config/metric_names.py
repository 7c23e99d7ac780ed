"""Names of metrics: which there are, and the check of a name before anything is trained."""

import itertools
from collections.abc import Mapping, Sequence

from imbalance.config.registries import registries
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput

SUMMARIES = (
    "accuracy", "balanced_accuracy", "worst_class_recall",
    "worst_group_accuracy", "group_balanced_accuracy", "adjusted_accuracy",
    "g_mean", "mcc", "many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy",
)  # fmt: skip
# Where a data set has evaluation groups apart from those it is trained with, what is over groups is over them, and these
# are over the others.
OF_TRAINING_GROUPS = ("worst_training_group_accuracy", "training_group_balanced_accuracy")
OF_A_GROUP = ("group_accuracy", "training_group_accuracy")
OF_A_CLASS = ("recall", "precision", "f1", "accuracy", "predicted")
RANKINGS = ("auroc", "auprc")  # computed from scores; higher is better
SCORE_SUMMARIES = (*RANKINGS, "nll", "brier", "ece", "ece_equal_mass")


def check_metric_name(key: str, name: str, own: Sequence[str] = ()) -> None:
    """Raise `BadInput` unless `config.<key>` names a val metric; which classes and groups there are comes later.

    Args:
        own: metrics that the run's methods have and others have not, by their full names.
    """
    if name in own:
        return
    split, _, metric = name.partition("/")
    kind, _, label = metric.partition("/")
    of_one = label and kind in (*OF_A_CLASS, *OF_A_GROUP, *RANKINGS)
    if split != "val" or not (metric in (*SUMMARIES, *RANKINGS, *OF_TRAINING_GROUPS) or of_one):
        raise BadInput(
            f"config.{key}: {name!r} given; valid: val/ and one of {', '.join((*SUMMARIES, *RANKINGS))}, "
            f"{', '.join(f'{kind}/<class>' for kind in (*OF_A_CLASS, *RANKINGS))}, group_accuracy/<group>"
            + "".join(f"; {metric}" for metric in own)
        )


def reads_scores(name: str) -> bool:
    """Whether the metric `val/…` is one of scores, for which counts of predictions do not do."""
    return name.partition("/")[2].partition("/")[0] in RANKINGS


def check_labels(
    key: str, name: str, classes: Sequence[str], groups: Sequence[str], judged: Sequence[str] = ()
) -> None:
    """Raise `BadInput` unless the class or group in a metric's name is one that the data set has.

    Args:
        judged: its evaluation groups, where they are not its groups.
    """
    kind, _, label = name.partition("/")[2].partition("/")
    if not judged and kind in (*OF_TRAINING_GROUPS, "training_group_accuracy"):
        instead = name.replace("worst_training_", "worst_").replace("training_group", "group")
        raise BadInput(
            f"config.{key}: {name!r} given; this data set has no evaluation groups: {instead!r} is of its groups"
        )
    names = {"group_accuracy": judged or groups, "training_group_accuracy": groups}.get(kind, classes)
    if label and label not in names:
        raise BadInput(f"config.{key}: {name!r} given; this data set has {', '.join(names)}")


def over_which(metrics: Mapping[str, float], split: str) -> str:
    """Over which groups the metrics of a split are: `8 groups`, `16 evaluation groups`."""
    number = sum(key.startswith(f"{split}/group_accuracy/") for key in metrics)
    return f"{number} {'evaluation ' if f'{split}/{OF_TRAINING_GROUPS[0]}' in metrics else ''}groups"


def check_metric(name: str, flag: str = "--metric", split: str = "") -> None:
    """Raise `BadInput`, before anything is trained, unless a summary has metrics of this name for some class or group.

    Args:
        flag: which said so.
        split: that the metric is of, if the name does not say.
    """
    of_split, _, metric = (f"{split}/{name}" if split else name).partition("/")
    kind, _, label = metric.partition("/")
    scores = () if of_split == "train" else SCORE_SUMMARIES
    of_some = (*OF_TRAINING_GROUPS, *measured_by_some())
    of_all = ("loss", *SUMMARIES, *scores)
    of_one = (*OF_A_CLASS, *OF_A_GROUP, *(RANKINGS if scores else ()))
    if of_split not in ("train", "val", "test") or not (kind in of_one if label else metric in (*of_all, *of_some)):
        raise BadInput(
            f"{flag}: {name!r} given; valid: {'' if split else 'train/, val/ or test/ and '}one of {', '.join(of_all)}, "
            f"{', '.join(f'{kind}/<class>' for kind in OF_A_CLASS)}, group_accuracy/<group>"
        )


def measured_by_some() -> set[str]:
    """The names, without a split, of the metrics that only runs with some method have."""
    entries = itertools.chain.from_iterable(table.values() for table in registries().values())
    return {name.partition("/")[2] for function in entries for name in tags_of(function).measures}


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise `BadInput` unless all are metrics of test."""
    for name in metrics:
        check_metric(name, "--metrics", split="test")

"""Names of metrics, and the check of a name before anything is trained."""

import itertools
import re
from collections.abc import Mapping, Sequence

from imbalance.config.registries import registries
from imbalance.config.tags import tags_of
from imbalance.errors import BadInput

SUMMARY_METRICS = (
    "accuracy", "balanced_accuracy", "worst_class_recall",
    "worst_group_accuracy", "group_balanced_accuracy", "adjusted_accuracy",
    "g_mean", "mcc", "macro_f1", "many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy",
)  # fmt: skip
# Metrics of two classes on data whose groups are class × attribute; other data sets do not have them. Selection takes the
# largest value of a metric. The best difference is the smallest one, so only the ratios can select.
PARITY_RATIOS = ("demographic_parity_ratio", "equalized_odds_ratio")
PARITY_METRICS = ("demographic_parity_difference", PARITY_RATIOS[0], "equalized_odds_difference", PARITY_RATIOS[1])
TOP_K = re.compile(r"top([1-9]\d*)_accuracy")  # computed if config.callbacks.monitor or config.score names it
# On a data set with evaluation groups, metrics called `group` count evaluation groups. These metrics, which no other
# data set has, count the groups that the run trains with.
TRAINING_GROUP_METRICS = ("worst_training_group_accuracy", "training_group_balanced_accuracy")
GROUP_METRICS = ("group_accuracy", "training_group_accuracy")  # one value for each group
CLASS_METRICS = ("recall", "precision", "f1", "accuracy", "predicted")  # one value for each class
RANKING_METRICS = ("auroc", "auprc")  # computed from scores; higher is better
SCORE_METRICS = (*RANKING_METRICS, "nll", "brier", "ece", "ece_equal_mass")
NOT_PERCENT = ("loss", "nll", "brier", "mcc")  # shown as they are; all other metrics are fractions, shown in percent


def in_percent(name: str) -> bool:
    """Return whether the metric `name`, such as "test/recall/cat" or "nll", is shown in percent."""
    return (name.partition("/")[2] or name) not in NOT_PERCENT


def shown(value: float, name: str) -> str:
    """Return the value of the metric `name` as text: in percent or with three decimals; "-" for nan."""
    if value != value:
        return "-"
    return f"{100 * value:.1f} %" if in_percent(name) else f"{value:.3f}"


def check_metric_name(key: str, name: str, own: Sequence[str] = ()) -> None:
    """Raise `BadInput` unless `name`, the value of `config.<key>`, is a metric of the val split.

    The class or group in `name` is not checked. `check_labels` checks it once the data are loaded.

    Args:
        key: key of the config, such as "score", for the message.
        name: full name of the metric, such as "val/accuracy".
        own: full names of the metrics that methods of the config add to the standard metrics.
    """
    if name in own:
        return
    split, _, metric = name.partition("/")
    kind, _, label = metric.partition("/")
    has_label = label and kind in (*CLASS_METRICS, *GROUP_METRICS, *RANKING_METRICS)
    if metric in PARITY_METRICS and metric not in PARITY_RATIOS:
        ratio = metric.replace("difference", "ratio")
        raise BadInput(
            f"config.{key}: {name!r} given, but selection takes the largest value, and smaller values of this metric are "
            f"better; use {f'{split}/{ratio}'!r}"
        )
    names = (*SUMMARY_METRICS, *RANKING_METRICS, *PARITY_RATIOS)
    if split != "val" or not (metric in (*names, *TRAINING_GROUP_METRICS) or TOP_K.fullmatch(metric) or has_label):
        raise BadInput(
            f"config.{key}: {name!r} given; it must be val/ followed by {', '.join(names)}, top<k>_accuracy, "
            f"{', '.join(f'{kind}/<class>' for kind in (*CLASS_METRICS, *RANKING_METRICS))}, group_accuracy/<group>"
            + "".join(f"; or {metric}" for metric in own)
        )


def needs_scores(name: str) -> bool:
    """Return whether the metric `name` needs the class scores of each example; other metrics need confusion counts only."""
    metric = name.partition("/")[2].partition("/")[0]
    return metric in RANKING_METRICS or bool(TOP_K.fullmatch(metric))


def top_k_named(*names: str) -> tuple[int, ...]:
    """Return the numbers k of all metrics `<split>/top<k>_accuracy` among `names`, each once."""
    matches = (TOP_K.fullmatch(name.partition("/")[2]) for name in names)
    return tuple(dict.fromkeys(int(match[1]) for match in matches if match))


def check_labels(
    key: str,
    name: str,
    classes: Sequence[str],
    groups: Sequence[str],
    eval_groups: Sequence[str] = (),
    has_parity: bool = True,
) -> None:
    """Raise `BadInput` if the data set has no metric `name`, for example because it lacks the class or group in the name.

    Args:
        key: key of the config whose value is `name`, such as "score", for the message.
        name: full name of the metric, such as "val/recall/cat".
        classes: names of all classes.
        groups: names of the groups that the methods use in training.
        eval_groups: names of the groups that metrics use, if they differ from `groups`.
        has_parity: whether the data set has the metrics `PARITY_METRICS`: two classes, and groups that are class × attribute.
    """
    if name.partition("/")[2] in PARITY_METRICS and not has_parity:
        raise BadInput(
            f"config.{key}: {name!r} given, which needs two classes and groups that are crossed with attributes, as by "
            f"config.data.attributes; this data set has {len(classes)} classes and the groups {', '.join(groups)}"
        )
    if any(k > len(classes) for k in top_k_named(name)):
        raise BadInput(
            f"config.{key}: {name!r} given; this data set has only {len(classes)} classes, so k must be at most {len(classes)}"
        )
    kind, _, label = name.partition("/")[2].partition("/")
    if not eval_groups and kind in (*TRAINING_GROUP_METRICS, "training_group_accuracy"):
        instead = name.replace("worst_training_", "worst_").replace("training_group", "group")
        raise BadInput(f"config.{key}: {name!r} given; this data set has no evaluation groups, so use {instead!r}")
    names = {"group_accuracy": eval_groups or groups, "training_group_accuracy": groups}.get(kind, classes)
    if label and label not in names:
        raise BadInput(
            f"config.{key}: {name!r} given; {label!r} must be one of {', '.join(names)}, which this data set has"
        )


def describe_groups(metrics: Mapping[str, float], split: str) -> str:
    """Count the groups of a split whose accuracy is in `metrics`, and return the count as text, such as `8 groups`.

    If they are evaluation groups, the text says so: `16 evaluation groups`.

    Args:
        metrics: values of metrics by full name, such as "test/group_accuracy/cat".
    """
    number = sum(key.startswith(f"{split}/group_accuracy/") for key in metrics)
    return f"{number} {'evaluation ' if f'{split}/{TRAINING_GROUP_METRICS[0]}' in metrics else ''}groups"


def check_metric(name: str, flag: str = "--metric", split: str = "") -> None:
    """Raise `BadInput` unless `name` is a metric that a summary.json can have; its class or group is not checked.

    Args:
        name: the metric, such as "val/recall/cat", or "recall/cat" if `split` is "val".
        flag: flag of the command line whose value is `name`; the message starts with it.
        split: split of the metric; "" if `name` starts with the split.
    """
    metric_split, _, metric = (f"{split}/{name}" if split else name).partition("/")
    kind, _, label = metric.partition("/")
    score_metrics = () if metric_split == "train" else SCORE_METRICS
    with_label = (*CLASS_METRICS, *GROUP_METRICS, *(RANKING_METRICS if score_metrics else ()))
    always = ("loss", *SUMMARY_METRICS, *score_metrics)
    known = (*always, *TRAINING_GROUP_METRICS, *PARITY_METRICS, *method_metrics())
    valid = kind in with_label if label else metric in known or bool(score_metrics and TOP_K.fullmatch(metric))
    if metric_split not in ("train", "val", "test") or not valid:
        raise BadInput(
            f"{flag}: {name!r} given; it must be {'' if split else 'train/, val/ or test/ followed by '}one of {', '.join(always)}, "
            f"{', '.join(f'{kind}/<class>' for kind in CLASS_METRICS)}, group_accuracy/<group>"
        )


def method_metrics() -> set[str]:
    """Return the names, without the split, of the metrics that methods add to the standard metrics, such as "flip_rate"."""
    entries = itertools.chain.from_iterable(table.values() for table in registries().values())
    return {name.partition("/")[2] for function in entries for name in tags_of(function).measures}


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise `BadInput` unless each of `metrics` is a metric of the test split, written without `test/`."""
    for name in metrics:
        check_metric(name, "--metrics", split="test")

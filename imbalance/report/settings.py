"""Find the config values that differ between runs, the values that all runs share, and names for the settings.

A setting is a config file with overrides; its runs differ only in the seed.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from imbalance.config.metric_names import PARITY_RATIOS, RANKING_METRICS, SUMMARY_METRICS, top_k_named
from imbalance.report.collect import Row

# Keys that may differ between the runs of one setting
NOT_COMPARED = ("config.seed", "config.work_dir", "config.data_dir", "config.debug")


def selection_rule(row: Row) -> dict[str, str]:
    """Return `name`, the rule that selected a run's checkpoint, and `labels`, the labels of val that the rule reads.

    If `config.head` fits a head to val, the rule includes the head.
    """
    monitor, head = row["config.callbacks.monitor"], row.get("config.head.name", "none")
    last = row["config.callbacks.select"] == "last"
    name = "last epoch" if last else f"best {monitor.removeprefix('val/').replace('_', ' ')}"
    read = [] if last else [monitor]
    read += {
        "dfr": ["groups"],
        "dpe": ["groups"],
        "temperature": ["classes"],
        "thresholds": [str(row.get("config.head.metric"))],
    }.get(head, [])
    if head != "none":
        name += f", head {head}"
    if row.get("config.groups.name") == "ssa":  # its first run learns the groups from those of val
        read.append("groups")
    # Inferred groups are no labels; a metric over them reads the classes.
    words = ("group", "adjusted", "parity", "odds")
    reads_groups = any(word in name for name in read if "inferred" not in name for word in words)
    labels = "val groups" if reads_groups else "val classes" if read else "none"
    return {"name": name, "labels": labels}


def default_metrics(rows: list[Row]) -> list[str]:
    """Return the test metrics to show if the user names none.

    The first is the metric by which most runs select their epoch.
    """
    monitors = Counter(str(row["config.callbacks.monitor"]).removeprefix("val/") for row in rows)
    known = (*SUMMARY_METRICS, *RANKING_METRICS, *PARITY_RATIOS)
    selected_by = [name for name, _ in monitors.most_common(1) if name in known or top_k_named(f"test/{name}")]
    return list(dict.fromkeys([*selected_by, "balanced_accuracy", "worst_group_accuracy"]))


def varying_keys(firsts: list[Row]) -> list[str]:
    """Return the config keys whose values differ between runs of the same config file, apart from the seed.

    Args:
        firsts: one row for each setting (config with overrides): the row of any of its runs.
    """
    by_name: dict[str, list[Row]] = {}
    for row in firsts:
        by_name.setdefault(row["name"], []).append(row)
    varying = {}
    for same_name in by_name.values():
        for key in dict.fromkeys(key for row in same_name for key in row if key.startswith("config.")):
            if (
                key not in NOT_COMPARED
                and not key.startswith("config.logger")
                and len({_hashable(row.get(key)) for row in same_name}) > 1
            ):
                varying[key.removeprefix("config.")] = None
    return list(varying)


def common_values(rows: Sequence[Row], columns: list[str]) -> dict[str, Any]:
    """Return the config values that are equal in all runs, by key, except for the keys in `columns`."""
    keys = [key for key in rows[0] if key.startswith("config.") and key not in NOT_COMPARED]
    return {
        key.removeprefix("config."): rows[0][key]
        for key in keys
        if key.removeprefix("config.") not in columns and len({_hashable(row.get(key)) for row in rows}) == 1
    }


def task_labels(firsts: list[Row]) -> list[str]:
    """Return the task of each setting: the data set's name, with the options in which settings on this data set differ.

    Args:
        firsts: one row for each setting (config with overrides): the row of any of its runs.
    """
    sections = [
        {k.removeprefix("config.data."): v for k, v in row.items() if k.startswith("config.data.")} for row in firsts
    ]
    by_name: dict[Any, list[dict[str, Any]]] = {}
    for section in sections:
        by_name.setdefault(section.get("name"), []).append(section)
    differing = {
        name: {
            key
            for key in {key for section in same for key in section}
            if len({_hashable(section.get(key)) for section in same}) > 1
        }
        for name, same in by_name.items()
    }
    labels = []
    for section in sections:
        differ = [key for key in section if key in differing[section.get("name")]]
        labels.append(" ".join([str(section.get("name")), *(f"{key}={_text(section[key])}" for key in differ)]))
    return labels


def _hashable(value: Any) -> tuple[type, Any]:
    return (type(value), json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value)


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

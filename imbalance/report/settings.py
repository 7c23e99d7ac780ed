"""What distinguishes the settings of many runs: the keys of their configs that differ, and what all of them share."""

import json
from typing import Any

from imbalance.report.collect import Row

APART = ("config.seed", "config.work_dir", "config.data_dir", "config.debug")  # where a run is, not what it is


def own_rule(row: Row) -> dict[str, str]:
    """What chose the weights that a run was tested with, the head included, and which labels of val that reads."""
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
    labels = (
        "val groups" if any("group" in of or "adjusted" in of for of in read) else "val classes" if read else "none"
    )
    return {"name": name, "labels": labels}


def varying(firsts: list[Row]) -> list[str]:
    """The keys of the config that differ between settings of one config file, the data's among them."""
    by_name: dict[str, list[Row]] = {}
    for row in firsts:
        by_name.setdefault(row["name"], []).append(row)
    found = {}
    for same in by_name.values():
        for key in dict.fromkeys(key for row in same for key in row if key.startswith("config.")):
            if (
                key not in APART
                and not key.startswith("config.logger")
                and len({_hashable(row.get(key)) for row in same}) > 1
            ):
                found[key.removeprefix("config.")] = None
    return list(found)


def common(rows: list[Row], columns: list[str]) -> dict[str, Any]:
    """What every run's config says."""
    keys = [key for key in rows[0] if key.startswith("config.") and key not in APART]
    return {
        key.removeprefix("config."): rows[0][key]
        for key in keys
        if key.removeprefix("config.") not in columns and len({_hashable(row.get(key)) for row in rows}) == 1
    }


def task_labels(firsts: list[Row]) -> list[str]:
    """What each setting was trained on: the data set's name, with the keys of its section in which tasks differ."""
    sections = [
        {k.removeprefix("config.data."): v for k, v in row.items() if k.startswith("config.data.")} for row in firsts
    ]
    labels = []
    for section in sections:
        same = [other for other in sections if other.get("name") == section.get("name")]
        differ = [k for k in section if len({_hashable(other.get(k)) for other in same}) > 1]
        labels.append(" ".join([str(section.get("name")), *(f"{k}={_text(section[k])}" for k in differ)]))
    return labels


def label(row: Row, columns: list[str]) -> str:
    """A setting in words: its config file's name and what differs between the settings of that file."""
    return ", ".join(
        [
            row["name"],
            *(f"{key.rpartition('.')[2]}={_text(row[f'config.{key}'])}" for key in columns if f"config.{key}" in row),
        ]
    )


def _hashable(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

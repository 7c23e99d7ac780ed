"""Run directory: its path, made from a config and the overrides of its file."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imbalance.config.experiment import Experiment
from imbalance.config.schema import flatten, own_module

# Where a run keeps its files, and where it reports, does not change what it computes.
NOT_THE_EXPERIMENT = ("work_dir", "data_dir", "logger")


def defining_values(config: ConfigDict | Experiment) -> dict[str, Any]:
    """Return the values of a config that decide what its run computes, as JSON has them (tuples as lists).

    A section that names a function in a file of the user's keeps the name of the file, without its folder.
    """

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return Path(value).name if isinstance(value, str) and own_module(value) else value

    return json.loads(json.dumps({k: named(v) for k, v in config.to_dict().items() if k not in NOT_THE_EXPERIMENT}))


def origin(path: Path) -> tuple[str, tuple[str, ...]]:
    """The name and the overrides that a config file stands for: its stem and none, or those of the run that wrote it."""
    parts = path.resolve().parts
    if path.name != "config.json" or len(parts) < 4 or not parts[-2].startswith("seed="):
        return path.stem, ()
    return parts[-4], () if parts[-3] == "default" else (parts[-3],)


def run_directory(
    config: ConfigDict | Experiment, name: str = "", base: ConfigDict | None = None, overrides: tuple[str, ...] = ()
) -> Path:
    """`<work_dir>/<name>/<overrides, or "default">/seed=<n>/`.

    Args:
        config: the config to run.
        name: the config file's stem.
        base: the config as its file has it. Without one (a config made in Python) its data and loss stand in for the
            name, and a hash of it for the overrides.
        overrides: of the run whose config.json the file is; see `origin`.
    """
    if base is None:
        same = {key: value for key, value in defining_values(config).items() if key != "seed"}
        name = name or "_".join(_as_file_name(same[section]["name"]) for section in ("data", "loss"))
        folder = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
    else:
        before, after = flatten(defining_values(base)), flatten(defining_values(config))
        changed = (key for key in sorted(after) if key != "seed" and (key not in before or after[key] != before[key]))
        changes = (f"{key}={_as_file_name(after[key])}" for key in changed)
        folder = ",".join([*overrides, *changes]) or "default"
        written = folder.encode(errors="surrogateescape")
        if len(folder) > 200 or len(written) > 255:  # file systems end names at 255 bytes
            folder = written[:180].decode(errors="ignore") + "-" + hashlib.sha256(written).hexdigest()[:12]
    return Path(config.work_dir) / name / folder / f"seed={config.seed}"


def _as_file_name(value: Any) -> str:
    """`0.1`, `cat+dog` for `("cat", "dog")`, and no character that a shell or a file system minds.

    What this drops is distinguished by a hash: `a_b.csv` is `a_b.csv`, and `a b.csv` is `a_b.csv-` and eight digits.
    """
    text = str(value).replace(", ", "+") if isinstance(value, list) else str(value)
    text = re.sub(r"[^\w.+-]+", "_", re.sub(r"[][()'\"]", "", text))
    plain = _plain(value, r"[\w.+-]*")
    if isinstance(
        value, list
    ):  # whose items are joined by +; a list of lists shows where each ends if all have one item
        items = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in value]
        plain = all(_plain(item, r"[\w.-]+") for item in items)
        plain &= len({isinstance(item, list) for item in value}) <= 1
    return text if plain else f"{text}-{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]}"


def _plain(value: Any, characters: str) -> bool:
    return re.fullmatch(characters, value) is not None if isinstance(value, str) else not isinstance(value, list)

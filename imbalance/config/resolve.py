"""Resolve a config file and flags into a validated config and its run directory.

The functions stand in the order in which they are called: find the file, load it, apply the overrides, validate, name
the run directory. `resolve` calls all of them; the command line, sweeps and `imbalance.run` call `resolve`.
"""

import copy
import dis
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from ml_collections import ConfigDict

from imbalance.config.experiment import Experiment, check_whole, plain_annotations, validate
from imbalance.config.files import config_file
from imbalance.config.override_flags import OverrideText
from imbalance.config.overrides import (
    KIND_NAMES,
    key_suggestion,
    read_by_annotation,
    read_like_file,
    section_given_value,
    value_at,
    with_type,
)
from imbalance.config.registries import ENTRY_POINTS, is_annotated, registries
from imbalance.config.schema import flatten, keyword_annotations, look_up, plain, short_repr
from imbalance.config.user_modules import user_code_error, user_module_file
from imbalance.errors import BadInput, Damaged
from imbalance.utils.read import read_json, read_text

# These sections say where a run reads and writes, which does not change the results.
STORAGE_KEYS = ("work_dir", "data_dir", "logger")


def resolve(config: str | Path | Mapping[str, Any] | Experiment, changes: Mapping[str, Any]) -> tuple[Experiment, Path]:
    """Return the validated config to run, and its run directory.

    Args:
        config: the path of a config file, the name of a file in configs/ without .py, or the config itself.
        changes: new values by key, such as `{"optim.lr": 0.1}`; see `override`.

    Raises:
        BadInput: the file or a key does not exist, or a value is missing, of the wrong type or out of range.
    """
    if not isinstance(changes, Mapping):
        raise BadInput(
            f"overrides: {short_repr(changes)} given; a dictionary of values by key is needed, such as {{'optim.lr': 0.1}}"
        )
    if not isinstance(config, str | Path):
        experiment = validate(override(config, changes))
        return experiment, run_directory(experiment)
    file = config_file(config)
    loaded = load(file)
    base = defining_values(loaded)
    experiment = validate(_apply(loaded, changes))
    name, earlier_overrides = config_name_and_overrides(file)
    return experiment, run_directory(experiment, name, base, earlier_overrides)


# Step 2: load the file


def load(path: str | Path) -> ConfigDict:
    """Load a config: call `get_config()` of a .py file, or read the config.json that a run has saved.

    Raises:
        BadInput: the file cannot be read or executed, or contains no config.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            return _saved_config(read_json(path, unique_keys=True), path.parent / "modules")
        code = _compiled(read_text(path), str(path))
    except OSError as error:
        raise BadInput(
            f"config: cannot read {path}: {error.strerror}; make it readable, or name another file"
        ) from None
    except Damaged as error:
        raise BadInput(f"config: {path} is no config: {error.reason}; mend the file, or name another") from None
    except SyntaxError as error:
        raise BadInput(f"config: {path}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # deep nesting raises the last two
        raise BadInput(f"config: {path} is no config: {error}; mend the file, or name another") from None
    # The file may be any program, so look for get_config() before running it.
    no_function = BadInput(
        f"config: {path} is no config: it has no get_config(); define this function, which returns a ConfigDict"
    )
    if not any(map(_may_define_get_config, dis.get_instructions(code))):
        raise no_function
    namespace: dict[str, Any] = {"__name__": "<config>", "__file__": str(path)}
    try:
        exec(code, namespace)
        config = namespace["get_config"]() if "get_config" in namespace else None
    except (Exception, SystemExit) as error:
        raise user_code_error(path, error) from error
    if "get_config" not in namespace:
        raise no_function
    if not isinstance(config, ConfigDict):
        raise BadInput(
            f"config: get_config() of {path} returns {type(config).__name__}, not a ConfigDict; return ml_collections.ConfigDict(…)"
        )
    return config


def _saved_config(values: dict[str, Any], modules: Path) -> ConfigDict:
    """Return the config that a run has saved in config.json, with each JSON list as a tuple.

    Args:
        values: the parsed content of config.json.
        modules: folder with the run's copies of the user's modules; a copy is used if the original file is gone.
    """

    def restored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restored(item) for key, item in value.items()}
        if isinstance(value, list):
            return tuple(map(restored, value))
        if isinstance(value, str) and (file := user_module_file(value)):
            kept = modules / Path(file).name
            return f"{kept}:{value.rpartition(':')[2]}" if kept.is_file() and not Path(file).is_file() else value
        return value

    return ConfigDict(restored(upgrade_saved_config(values)))


def upgrade_saved_config(saved: dict[str, Any]) -> dict[str, Any]:
    """Translate the content of a config.json that an older version wrote into the keys and values of this version.

    A key that the older version lacked gets the value that gives the same results as the older version. In older versions
    `trainer.compile` was true or false, and the data set "in_memory" was called "given". Instead of `data.attributes` they had
    `data.groups`. `data.groups` is translated if its first column is the target or if it names no columns. Any other
    `data.groups` stays, and `validate` refuses it, because a translation would change the groups. Older versions refused empty
    texts, which is `data.skip_empty=False` now, and decoded all pixels of images, which is `data.reduce=False`.
    """
    trainer, optim = saved.get("trainer"), saved.get("optim")
    if not isinstance(trainer, dict) or not isinstance(optim, dict):
        return saved  # no config: `validate` says what is missing
    decayed = {} if user_module_file(str(optim.get("name"))) else {"decayed": "all"}
    by_depth = {"layer_decay": 1.0} if optim.get("name") in ("sgd_apart", "adamw_apart") else {}
    without = {"clip_norm": 0.0, "ema_decay": 0.0, "tf32": "convolutions", "images_on_device": False}
    trainer = without | {"shard": False, "activation_checkpointing": False} | trainer
    if isinstance(trainer.get("compile"), bool):
        trainer["compile"] = "default" if trainer["compile"] else "no"
    data: Any = saved.get("data")
    if data == {"name": "given"}:
        data = {"name": "in_memory"}
    if isinstance(data, dict) and data.get("name") == "text":
        data = {"skip_empty": False} | data
    if isinstance(data, dict) and data.get("name") in ("folder", "table"):
        data = {"reduce": False} | data
    data = _with_image_source(data)
    if (
        isinstance(data, dict)
        and isinstance(data.get("groups"), list)
        and data["groups"][:1] in ([], [data.get("target")])
    ):
        data = {("attributes" if key == "groups" else key): value for key, value in data.items()}
        data["attributes"] = data["attributes"][1:]
    upgraded = {"trainer": trainer, "optim": decayed | by_depth | optim} | ({"data": data} if "data" in saved else {})
    objective = saved.get("objective")
    if isinstance(objective, dict) and objective.get("name") == "group_dro":
        upgraded["objective"] = {"adjust_absent": False} | objective
    return {"groups": {"name": "data"}, "adapter": {"name": "none"}} | saved | upgraded


def _with_image_source(data: Any) -> Any:
    """Return `data`, a section `config.data` of an older version; add `images_from="store"` if its data set needs the key."""
    if not isinstance(data, dict):
        return data
    if isinstance(data.get("source"), dict):  # the section of another data set
        return data | {"source": _with_image_source(data["source"])}
    function = registries()["data"].get(str(data.get("name")))
    takes_source = function is not None and "images_from" in keyword_annotations(function)
    return {"images_from": "store"} | data if takes_source else data


def _may_define_get_config(line: dis.Instruction) -> bool:
    """Return whether an instruction stores the name get_config, or imports all names of another module."""
    return (
        (line.opname.startswith("STORE") and line.argval == "get_config")
        or line.argrepr == "INTRINSIC_IMPORT_STAR"
        or (
            line.opname == "IMPORT_STAR"  # before Python 3.12
        )
    )


@functools.lru_cache(maxsize=64)
def _compiled(text: str, path: str) -> CodeType:
    """Compile the text of a config file; cached, because a sweep loads the same text for each of its runs.

    Args:
        path: path of the file, for error messages.
    """
    return compile(text, path, "exec")


# Step 3: apply the overrides


def override(config: Mapping[str, Any] | ConfigDict | Experiment, changes: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of `config` with new values for some keys.

    If `changes` names another function for a section, the old arguments of the section are removed first. Sections inside
    this section, such as "optim.schedule", stay.

    Args:
        changes: new values by key, such as `{"optim.lr": 0.1}`. An `OverrideText` is converted to the type of the old
            value. If the section names another function now, the text is converted to the type of its argument.

    Raises:
        BadInput: the config has no such key, or the value does not fit it.
    """
    if not isinstance(config, Mapping | ConfigDict | Experiment):
        raise BadInput(
            f"config: {short_repr(config)} given; give a config, the name of a config, or the path of a config file"
        )
    return _apply(ConfigDict(plain(config)), changes)


def _apply(changed: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Apply `changes`, new values by key, to a config in place, as `override` does to a copy, and return the config."""
    changes = plain(changes, "overrides")
    emptied = set()
    for key, value in changes.items():  # names first, because an argument may come before the name of its section
        path, _, last = key.rpartition(".")
        section = value_at(changed, path)
        if last == "name" and isinstance(section, ConfigDict) and "name" in section and value != section.name:
            # Subsections stay: another optimiser takes the same schedule.
            subsections = {key: item for key, item in section.items() if isinstance(item, ConfigDict)}
            _replace_section(changed, path, {"name": str(value)} | subsections)
            emptied.add(path)
    for key, value in changes.items():
        path, _, last = key.rpartition(".")
        section = value_at(changed, path)
        if path in emptied and last not in section:
            _add_value(section, last, value, _annotation(path, section, last))
        else:
            _set_value(changed, section, key, value)
    return changed


def _add_value(section: ConfigDict, key: str, value: Any, annotation: Any) -> None:
    """Add a key to a section that lacks it, because the section names another function now or a config file left it out.

    Args:
        annotation: the type annotation of the key.
    """
    with section.ignore_type():
        convert = read_by_annotation if isinstance(value, OverrideText) else with_type
        section[key] = convert(value, annotation)


def _set_value(config: ConfigDict, section: Any, key: str, value: Any) -> None:
    """Replace a value of `config`, or add one that a config file left out; a mapping replaces a whole section.

    Args:
        section: the value of the section that contains the key (for the key "optim.lr", that of "optim"); None if the config
            has no such section.
        key: the full key, such as "optim.lr".
    """
    path, _, last = key.rpartition(".")
    current = value_at(config, key)
    is_section = key in ENTRY_POINTS or isinstance(current, ConfigDict)
    if is_section and isinstance(value, Mapping | ConfigDict) and isinstance(section, ConfigDict):
        _replace_section(config, key, value)
    elif isinstance(section, ConfigDict) and last not in section and (annotation := _annotation(path, section, last)):
        _add_value(section, last, value, annotation)  # the config file left the key out
    elif not isinstance(section, ConfigDict) or last not in section:
        check_whole(plain(config))
        raise BadInput(f"config.{key}: no such key{key_suggestion(key, config)}")
    elif isinstance(value, OverrideText):
        read_like_file(config, key, value)
    elif isinstance(current, ConfigDict):
        raise section_given_value(key, current)
    else:
        try:
            section[last] = value
        except (TypeError, OverflowError):  # 10**400 is no number of 64 bits
            kind = next((name for kind, name in KIND_NAMES if isinstance(current, kind)), "a text")
            raise BadInput(
                f"config.{key}: {short_repr(value)} given; it should be {kind}, as in the config file"
            ) from None


def _replace_section(config: ConfigDict, path: str, values: Mapping[str, Any] | ConfigDict) -> None:
    parent, _, last = path.rpartition(".")
    section, new = value_at(config, parent), dict(values)
    for key, value in new.items():
        if not isinstance(value, Mapping | ConfigDict | OverrideText):
            new[key] = with_type(value, _annotation(path, new, key))
    with section.ignore_type():
        section[last] = ConfigDict(new)


def _annotation(path: str, section: Mapping[str, Any] | ConfigDict, key: str) -> Any:
    """Return the type annotation of a key of the section at `path`; "" is the whole config.

    Return None if the section has no such key, if the key is a section that names a function, or if the section cannot name
    the function that it names.
    """
    if (annotations := plain_annotations(path)) is not None:
        return None if key in ENTRY_POINTS else annotations.get(key)
    if not user_module_file(str(section.get("name"))) and not is_annotated(key):
        return None
    try:
        return keyword_annotations(look_up(registries().get(path, {}), section.get("name"))).get(key)
    except BadInput:  # `validate` raises the error for an unknown name
        return None


# Step 4: validate, see `imbalance.config.experiment`


# Step 5: name the run directory


def config_name_and_overrides(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a config's name, and the overrides that come before any new ones in the name of a run directory.

    For the config.json of an earlier run, return the config name and the overrides of that run. For any other file,
    return the file name without its suffix, and no overrides.

    Args:
        path: the config file.
    """
    parts = path.resolve().parts
    if path.name != "config.json" or len(parts) < 4 or not parts[-2].startswith("seed="):
        return path.stem, ()
    return parts[-4], () if parts[-3] == "default" else (parts[-3],)


def run_directory(
    config: ConfigDict | Experiment,
    name: str = "",
    base: Mapping[str, Any] | ConfigDict | None = None,
    earlier_overrides: tuple[str, ...] = (),
) -> Path:
    """Return the run directory of `config`: `<work_dir>/<name>/<overrides, or "default">/seed=<n>/`.

    Args:
        config: the config to run.
        name: name of the config; "" to join the names of its data set and its loss, such as `digits_poly`.
        base: the config without the overrides; None for a config that was made in Python. Then a hash of the config
            replaces the overrides.
        earlier_overrides: overrides that the name of the run directory has before the new overrides; the second result
            of `config_name_and_overrides`.
    """
    if base is None:
        values = {key: value for key, value in without_added_keys(defining_values(config)).items() if key != "seed"}
        name = name or "_".join(as_file_name(values[section]["name"]) for section in ("data", "loss"))
        folder = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    else:
        before, after = flatten(defining_values(base)), flatten(defining_values(config))
        changed = (key for key in sorted(after) if key != "seed" and (key not in before or after[key] != before[key]))
        overrides = (override_text(key, after[key]) for key in changed)
        folder = short_folder_name(",".join([*earlier_overrides, *overrides])) or "default"
    return Path(str(config.work_dir)) / name / folder / f"seed={config.seed}"


def without_added_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config without each key that `upgrade_saved_config` would add again with the same value.

    A hash of the result stays the same when a version adds a key, so that a run is found in its old directory.

    Args:
        values: result of `defining_values`.
    """
    kept = copy.deepcopy(values)
    sections = [kept, *(value for value in kept.values() if isinstance(value, dict))]
    for section in sections:
        for key in list(section):
            value = section.pop(key)
            if upgrade_saved_config(kept) != values:
                section[key] = value
    return kept


def defining_values(config: Mapping[str, Any] | ConfigDict | Experiment) -> dict[str, Any]:
    """Return the values of a config that decide what its run computes, with tuples as lists, to compare with JSON.

    A name such as `/folder/my_module.py:MyLoss` loses its folder, which does not change the result.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return Path(value).name if isinstance(value, str) and user_module_file(value) else value

    values = config.to_dict() if isinstance(config, Experiment) else config
    return {key: plain(value) for key, value in values.items() if key not in STORAGE_KEYS}


def first_difference(config: Experiment, saved: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return the key of a value that decides the result and differs between two configs, with both values as text.

    The name of a section comes before other keys, because another name explains why the section has other keys. Return
    None if all these values are equal.

    Args:
        saved: the other config, read from a file that an older version may have written.
    """
    now, before = defining_values(config), defining_values(upgrade_saved_config(saved))
    now, before = flatten(now), flatten({key: value for key, value in before.items() if key in now})

    def text(values: Mapping[str, Any], key: str) -> str:
        return short_repr(values[key]) if key in values else "no value"

    keys = sorted(now.keys() | before.keys(), key=lambda key: (not key.endswith(".name"), key))
    changed = next((key for key in keys if (key in now, now.get(key)) != (key in before, before.get(key))), None)
    return (changed, text(now, changed), text(before, changed)) if changed else None


def override_text(key: str, value: Any) -> str:
    """Return an override as part of a file name: `optim.lr=0.1`."""
    return f"{key}={as_file_name(json.loads(json.dumps(value)))}"


def short_folder_name(name: str) -> str:
    """Return the name of a folder; if it is too long for a file system, cut it and append a hash."""
    encoded = name.encode(errors="surrogateescape")
    if len(name) <= 200 and len(encoded) <= 255:
        return name
    return encoded[:180].decode(errors="ignore") + "-" + hashlib.sha256(encoded).hexdigest()[:12]


def as_file_name(value: Any) -> str:
    """Return `value` as text without characters that are special to a shell or a file system: `0.1`, or `cat+dog`.

    A hash distinguishes values that lose characters: `a_b.csv` stays, and `a b.csv` becomes `a_b.csv-` and eight
    hexadecimal digits.
    """
    text = str(value).replace(", ", "+") if isinstance(value, list) else str(value)
    text = re.sub(r"[^\w.+-]+", "_", re.sub(r"[][()'\"]", "", text))
    is_exact = _has_only(value, r"[\w.+-]*")
    if isinstance(value, list):
        # A + joins the items. In a list of lists the + shows where each list ends only if every list has one item.
        items = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in value]
        is_exact = all(_has_only(item, r"[\w.-]+") for item in items)
        is_exact &= len({isinstance(item, list) for item in value}) <= 1
    return text if is_exact else f"{text}-{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]}"


def _has_only(value: Any, characters: str) -> bool:
    return re.fullmatch(characters, value) is not None if isinstance(value, str) else not isinstance(value, list)

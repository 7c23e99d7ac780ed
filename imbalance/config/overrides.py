"""What a command line changes in a config: `--config.optim.lr=0.05 --config.loss.name=poly …`.

A value is read as what the config file has in its place, by absl and ml_collections: a number, a name, `8,8` or `cat,dog`
for a tuple. A section whose name changes starts afresh, for its keys are those of another function: what the new one asks
for must be said as well, and is read as its signature says, by pydantic, since the file has nothing in its place.
"""

import ast
import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from imbalance.config.experiment import Experiment, validate
from imbalance.config.load import config_file, load
from imbalance.config.registries import registries
from imbalance.config.run_directory import origin, run_directory
from imbalance.config.schema import entry, fields, flatten, parse
from imbalance.errors import BadInput

PREFIX = "--config."


class Written(str):
    """A value as a command line has it, still to be read."""


def split(argv: Sequence[str]) -> tuple[dict[str, Written], list[str]]:
    """The overrides of a command line, the last of each key, and its other arguments."""
    overrides, others, rest = {}, [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith(PREFIX):
            others.append(argument)
            continue
        key, equals, text = argument.removeprefix(PREFIX).partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise BadInput(f"{argument}: lacks a value; an override reads {PREFIX}<key>=<value>")
            text = rest.pop(0)
        overrides[key] = Written(text)
    return overrides, others


def override(config: Mapping[str, Any] | Experiment, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of `config` with `changes`, by key such as "optim.lr"; those that are `Written` are read.

    Raises:
        BadInput: there is no such key, or it has no such value.
    """
    try:
        values = config.to_dict() if isinstance(config, Experiment) else copy.deepcopy(config)
        config, fresh = ConfigDict(values), set()
    except (AttributeError, TypeError, ValueError) as error:  # of a config that Python gave
        raise BadInput(f"config: {error}") from None
    for key, value in changes.items():
        path, _, last = key.rpartition(".")
        section = find(config, path)
        if last == "name" and isinstance(section, ConfigDict) and "name" in section and value != section.name:
            # Its own sections stay: another optimiser has the same schedule.
            kept = {k: v for k, v in section.items() if isinstance(v, ConfigDict)}
            replace(config, path, {"name": str(value)} | kept)
            fresh.add(path)
    for key, value in changes.items():
        path, _, last = key.rpartition(".")
        section = find(config, path)
        if path in fresh and last not in section:
            if isinstance(value, Written):
                value = parse(value, annotation(path, section.name, last))
            with section.ignore_type():
                section[last] = value
            continue
        whole = key in registries() or (isinstance(section, ConfigDict) and isinstance(section.get(last), ConfigDict))
        if whole and isinstance(value, Mapping) and section is not None:
            replace(config, key, value)
            continue
        if not isinstance(section, ConfigDict) or last not in section:
            raise BadInput(f"config.{key}: no such key{nearest_keys(key, config)}")
        if isinstance(value, Written):
            read(config, key, value)
            continue
        if isinstance(section[last], ConfigDict):
            raise not_a_section(key, section[last])
        try:
            section[last] = value
        except TypeError:
            kind = "a number" if isinstance(section[last], float) else f"of type {type(section[last]).__name__}"
            raise BadInput(f"config.{key}: {value!r} given; it should be {kind}, as in the config file") from None
    return config


def resolve(config: str | Path | Mapping[str, Any] | Experiment, changes: Mapping[str, Any]) -> tuple[Experiment, Path]:
    """What to run, checked, and its run directory: one way for the command line, sweeps and Python.

    Args:
        config: a config file, or the name of one in configs/; or a config itself.
        changes: see `override`.

    Raises:
        BadInput: there is no such file or key, or a value is missing, of the wrong type or out of range.
    """
    if not isinstance(config, str | Path):
        resolved = validate(override(config, changes))
        return resolved, run_directory(resolved)
    file = config_file(config)
    base = load(file)
    resolved = validate(override(base, changes))
    name, before = origin(file)
    return resolved, run_directory(resolved, name, base, before)


def find(config: ConfigDict, path: str) -> Any:
    """The section at `path`, or None."""
    for part in path.split(".") if path else ():
        config = config[part] if isinstance(config, ConfigDict) and part in config else None
    return config


def replace(config: ConfigDict, path: str, section: Mapping[str, Any]) -> None:
    above, _, last = path.rpartition(".")
    above = find(config, above)
    with above.ignore_type():
        above[last] = ConfigDict(dict(section))


def annotation(path: str, name: str, key: str) -> Any:
    """What a function that the section at `path` could name asks for under `key`; None where it asks for no such thing."""
    try:
        return fields(entry(registries().get(path, {}), name)).get(key)
    except BadInput:  # which `validate` will say
        return None


KINDS = ((bool, "True or False"), (int, "an integer"), (float, "a number"), (tuple, "values with commas between them"))


def read(config: ConfigDict, key: str, text: str) -> None:
    """Let ml_collections and absl read what the command line says of a key that there is, and set it."""
    before, values = find(config, key), flags.FlagValues()
    refusal = (
        f"{PREFIX}{key}={text}: not {next((words for kind, words in KINDS if isinstance(before, kind)), 'a value')}"
    )
    if isinstance(before, tuple) and not is_literal(text):  # to them, `cat,dog` is one name, and so is `(8,`
        if set("()[]{}'\"") & set(text):
            raise BadInput(refusal)
        text = str(tuple(name.strip() for name in text.split(",")))
    argv = ["", f"{PREFIX}{key}={text}"]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=False, sys_argv=argv)
    try:
        values(argv)
    except flags.Error:
        if isinstance(before, ConfigDict):
            raise not_a_section(key, before) from None
        raise BadInput(refusal) from None


def not_a_section(key: str, section: ConfigDict) -> BadInput:
    """What to say of a plain value in place of a section, which may have no name."""
    first = "name" if "name" in section else next(iter(section), "<key>")
    return BadInput(f"config.{key}: a section, not a value; say {PREFIX}{key}.{first}=…, and so on")


def is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


def nearest_keys(key: str, config: ConfigDict) -> str:
    """What to say instead: the name of a section whose function has such a key, or keys that end or are spelt alike."""
    path, _, last = key.rpartition(".")
    having = [name for name, function in registries().get(path, {}).items() if last in fields(function)]
    having = [name for name in having if not name.endswith("_cosine")]
    if having:
        return f"; {', '.join(having)} {'have' if having[1:] else 'has'} it: say {PREFIX}{path}.name={having[0] if not having[1:] else '<one of them>'} too"
    keys = list(flatten(config))
    last = last.lower()
    found = [k for k in keys if k.rpartition(".")[2].lower() == last]
    found += difflib.get_close_matches(key, keys, n=3) if not found else []
    return f"; did you mean {' or '.join(PREFIX + k for k in found[:3])}?" if found else ""

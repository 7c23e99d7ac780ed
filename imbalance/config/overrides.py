"""Read the overrides of a command line: `--config.optim.lr=0.05 --config.loss.name=poly …`.

A value is read as the type of the value in the config file, by absl and ml_collections: a number, a name, or `8,8` or
`cat,dog` for a tuple. If an override changes the name of a section, the file has no value for the keys of the new
function. Such a value is read by the annotation of the function's argument, by pydantic.
"""

import ast
import difflib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from pydantic import ValidationError

from imbalance.config.registries import registries
from imbalance.config.renamed import renamed_key
from imbalance.config.schema import adapter, flatten, keyword_annotations
from imbalance.errors import BadInput

PREFIX = "--config."


# Words that other programs use, and the last parts of our keys.
WORDS = {
    "learning_rate": "lr",
    "rate": "lr",
    "l2": "weight_decay",
    "batchsize": "batch_size",
    "num_epochs": "epochs",
    "random_state": "seed",
}


class OverrideText(str):
    """Text of a value on a command line, still to be read as a number, a name or a tuple."""


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, OverrideText], list[str]]:
    """Split a command line into its overrides, such as `{"optim.lr": "0.1"}`, and its other arguments.

    If a key is given several times, its last value counts.

    Raises:
        BadInput: an override lacks a value.
    """
    overrides, others, rest = {}, [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith(PREFIX):
            others.append(argument)
            continue
        key, equals, text = argument.removeprefix(PREFIX).partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise BadInput(f"{argument}: lacks a value; type {PREFIX}<key>=<value>")
            text = rest.pop(0)
        overrides[key] = OverrideText(text)
    return overrides, others


def value_at(config: ConfigDict, path: str) -> Any:
    """Return the section or value at `path`, such as "optim.lr"; None if the config has no such key."""
    value: Any = config
    for part in path.split(".") if path else ():
        value = value[part] if isinstance(value, ConfigDict) and part in value else None
    return value


KIND_NAMES = (
    (bool, "True or False"), (int, "an integer"), (float, "a number"), (tuple, "values with commas between them"),
)  # fmt: skip


def read_like_file(config: ConfigDict, key: str, text: str) -> None:
    """Set `config` at `key` to `text`, after converting the text to the type of the present value.

    Raises:
        BadInput: the text cannot be converted to this type.
    """
    before, values = value_at(config, key), flags.FlagValues()
    kind = next((name for kind, name in KIND_NAMES if isinstance(before, kind)), "a value")
    refusal = f"{PREFIX}{key}={text}: not {kind}"
    if isinstance(before, tuple):  # absl would read `cat,dog` and `(8,` as one name each, and `0,1` as numbers
        is_literal, has_marks = _is_literal(text), bool(set("()[]{}'\"") & set(text))
        if has_marks and not is_literal:
            raise BadInput(refusal)
        if not is_literal or (holds_names(config, key) and not has_marks):
            text = str(tuple(name.strip() for name in text.split(",")))
    argv = ["", f"{PREFIX}{key}={text}"]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=False, sys_argv=argv)
    try:
        values(argv)
    except flags.Error:
        if isinstance(before, ConfigDict):
            raise section_given_value(key, before) from None
        raise BadInput(refusal) from None


def holds_names(config: ConfigDict, key: str) -> bool:
    """Return True if the function of the section takes names, and no numbers, at `key`."""
    path, _, last = key.rpartition(".")
    function = registries().get(path, {}).get(value_at(config, f"{path}.name"))
    annotation = keyword_annotations(function).get(last) if function else None
    return annotation is not None and _fits(("x",), annotation) and not _fits((1,), annotation)


def _fits(value: Any, annotation: Any) -> bool:
    try:
        adapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


def read_by_annotation(text: Any, annotation: Any) -> Any:
    """Convert the text of an override to a value that fits the type annotation of an argument.

    `True`, `8`, `0.1`, `cat`, `8,8` and `cat,dog` need no quotes. `1` stays a text if the annotation is a text. If no
    conversion fits the annotation, return `text` as a Python literal, or unchanged if it is no literal.
    """
    text = str(text)
    candidates = [text, {"true": True, "false": False}.get(text.lower()), tuple(map(str.strip, text.split(",")))]
    try:
        literal = ast.literal_eval(text)
        literal = tuple(literal) if isinstance(literal, list) else literal
        candidates = [literal, (literal,), *candidates]
    except (ValueError, SyntaxError):
        literal = text
    if annotation is not None:
        for candidate in candidates:
            try:
                return adapter(annotation).validate_python(candidate, strict=True)
            except ValidationError:
                continue
    return literal


def section_given_value(key: str, section: ConfigDict) -> BadInput:
    """Return the error for an override that gives a plain value to `key`, which is a section."""
    first = "name" if "name" in section else next(iter(section), "<key>")
    return BadInput(f"config.{key}: a section, not a value; type {PREFIX}{key}.{first}=…, and so on")


def key_suggestion(key: str, config: ConfigDict) -> str:
    """Return the end of the message that `config` has no key `key`: what to type instead, or "".

    If other functions that the section can name take this key, suggest these functions. Otherwise suggest keys of
    `config` with the same last word, such as "lr" in "optim.lr", or with a similar spelling.
    """
    if hint := renamed_key(key, flatten(config)):
        return hint
    path, _, last = key.rpartition(".")
    names = [name for name, function in registries().get(path, {}).items() if last in keyword_annotations(function)]
    names = [name for name in names if not name.endswith("_cosine")]
    if names:
        have, name = ("have", "<one of them>") if len(names) > 1 else ("has", names[0])
        return f"; {', '.join(names)} {have} it: type {PREFIX}{path}.name={name} too"
    keys = list(flatten(config))
    last = WORDS.get(last.lower(), last.lower())
    alike = [other for other in keys if other.rpartition(".")[2].lower() == last]
    alike = [other for other in alike if other.rpartition(".")[0] == path] or alike
    if not alike:  # compare last parts first, because all keys of a section share the beginning
        siblings = {other.rpartition(".")[2]: other for other in keys if other.rpartition(".")[0] == path}
        alike = [siblings[name] for name in difflib.get_close_matches(last, siblings, n=3)]
    alike = alike or difflib.get_close_matches(key, keys, n=3, cutoff=0.75)
    return f"; did you mean {' or '.join(PREFIX + other for other in alike[:3])}?" if alike else ""

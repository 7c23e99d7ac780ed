"""Read the overrides of a command line: `--config.optim.lr=0.05 --config.loss.name=poly …`.

A value is read as the type of the value in the config file, by absl and ml_collections: a number, a name, or `8,8` or
`cat,dog` for a tuple. If an override changes the name of a section, the file has no value for the keys of the new
function. Such a value is read by the annotation of the function's argument, by pydantic.
"""

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from pydantic import ValidationError

from imbalance.config.override_flags import PREFIX
from imbalance.config.registries import ENTRY_POINTS, is_annotated, registries
from imbalance.config.renamed import renamed_key
from imbalance.config.schema import adapter, flatten, keyword_annotations
from imbalance.errors import BadInput

# Words that other programs use, and the last parts of our keys.
WORDS = {
    "learning_rate": "lr",
    "rate": "lr",
    "l2": "weight_decay",
    "batchsize": "batch_size",
    "num_epochs": "epochs",
    "random_state": "seed",
}


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
    """Replace the value of `config` at `key` by `text`, converted to the type of the present value.

    Raises:
        BadInput: the text cannot be converted to this type.
    """
    before, values = value_at(config, key), flags.FlagValues()
    kind = next((name for kind, name in KIND_NAMES if isinstance(before, kind)), "a value")
    refusal = f"{PREFIX}{key}={text}: not {kind}"
    if isinstance(before, int | float) and "_" in text:  # absl would read `1_0` as 10
        raise BadInput(refusal)
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
    """Return True if the value of `key` may be a tuple of names, but not of numbers."""
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
        parse_literal(text)
    except (ValueError, SyntaxError):
        return False
    return True


def parse_literal(text: str) -> Any:
    """Return the value of a Python literal, as `ast.literal_eval` does, but refuse numbers with an underscore.

    `ast.literal_eval` reads `1_0` as 10.

    Raises:
        ValueError, SyntaxError: the text is no literal, or a number in it has an underscore.
    """
    if re.search(r"\d_\d", re.sub(r"'[^']*'|\"[^\"]*\"", "", text)):
        raise ValueError("an underscore in a number")
    return ast.literal_eval(text)


def read_by_annotation(text: Any, annotation: Any) -> Any:
    """Convert the text of an override to a value that fits the type annotation of an argument.

    `True`, `8`, `0.1`, `cat`, `8,8` and `cat,dog` need no quotes. `1` stays a text if the annotation is a text. If no
    conversion fits the annotation, return `text` as a Python literal, or unchanged if it is no literal.
    """
    text = str(text)
    candidates = [text, {"true": True, "false": False}.get(text.lower()), tuple(map(str.strip, text.split(",")))]
    try:
        literal = parse_literal(text)
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


def with_type(value: Any, annotation: Any) -> Any:
    """Return a value from Python with the type that `read_by_annotation` gives to its text, such as 1.0 for 1.

    So the run directory of a value is the same as on the command line. Return a value that does not fit unchanged.
    """
    if annotation is None:
        return value
    try:
        return adapter(annotation).validate_python(value, strict=True)
    except ValidationError:  # `validate` raises the error
        return value


def section_given_value(key: str, section: ConfigDict) -> BadInput:
    """Return the error for an override that gives a plain value to `key`, which is a section."""
    first = "name" if "name" in section else next(iter(section), "<key>")
    return BadInput(f"config.{key}: a section, not a value; set its keys one by one, such as config.{key}.{first}")


def key_suggestion(key: str, config: ConfigDict) -> str:
    """Return the end of the message that `config` has no key `key`: what to type instead, or "".

    If the section has a key with a similar spelling, suggest that key. If other functions that the section can name take
    `key`, suggest these functions. Otherwise suggest keys of `config` with the same last word, such as "lr" in "optim.lr",
    or with a similar spelling.
    """
    if hint := renamed_key(key, flatten(config)):
        return hint
    path, _, last = key.rpartition(".")
    keys, word = list(flatten(config)), WORDS.get(last.lower(), last.lower())
    siblings = {other.rpartition(".")[2]: other for other in keys if other.rpartition(".")[0] == path}
    alike = [word] if word in siblings else difflib.get_close_matches(last, siblings, n=1, cutoff=0.75)
    if alike or path not in ENTRY_POINTS or not is_annotated(last):
        return _did_you_mean([siblings[name] for name in alike] or _keys_alike(key, word, keys, siblings))
    names = [name for name, function in registries()[path].items() if last in keyword_annotations(function)]
    names = [name for name in names if not name.endswith("_cosine")]
    if names:
        have, name = ("have", "<one of them>") if len(names) > 1 else ("has", names[0])
        return f"; {', '.join(names)} {have} it: set config.{path}.name={name} too"
    return _did_you_mean(_keys_alike(key, word, keys, siblings))


def _keys_alike(key: str, word: str, keys: Sequence[str], siblings: Mapping[str, str]) -> list[str]:
    """Return up to three of `keys` that end in `word`, or else have a similar spelling.

    Args:
        key: the full key that is unknown, such as "optim.rl".
        word: its last part, "rl".
        siblings: the keys in the same section as `key`, by their last parts. They are compared first, by these parts,
            because all keys of a section share the beginning.
    """
    same = [other for other in keys if other.rpartition(".")[2].lower() == word]
    near = [siblings[name] for name in difflib.get_close_matches(word, siblings)]
    return (same or near or difflib.get_close_matches(key, keys, cutoff=0.75))[:3]


def _did_you_mean(keys: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(f'config.{key}' for key in keys)}?" if keys else ""

"""Split a command line into overrides of the config and other arguments. This module imports nothing slow."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from imbalance.errors import BadInput

PREFIX = "--config."
FLAG = re.compile(
    r"--config\.([\w.<>]+)(?:=(<[^<>]*>|…|[^\s;,)?]+(?:,[^\s;,)?]+)*))?"
)  # key, and value if there is one
FLAGS = re.compile(rf"(?P<shell>(?:imbalance [a-z]+|main\.py)(?: --\S+)+)|{FLAG.pattern}(?: {FLAG.pattern})*")


class OverrideText(str):
    """Text of a value on a command line, still to be read as a number, a name or a tuple."""


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, OverrideText], list[str]]:
    """Split a command line into its overrides, such as `{"optim.lr": "0.1"}`, and its other arguments.

    Raises:
        BadInput: an override lacks a value, or a key is given twice.
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
        if key in overrides:
            raise BadInput(
                f"{PREFIX}{key}={text}: {PREFIX}{key}={overrides[key]} was given before it; leave one of them out"
            )
        overrides[key] = OverrideText(text)
    return overrides, others


def overrides_in_python(values: Mapping[str, str]) -> str:
    """Return the argument `overrides` of `imbalance.run`, as written in Python.

    Args:
        values: the values by key, as written in Python.
    """
    return "overrides={" + ", ".join(f"{key!r}: {value}" for key, value in values.items()) + "}"


def in_python(text: str, write: Callable[[Mapping[str, str]], str] = overrides_in_python) -> str:
    """Return a message of the command line with Python in place of its flags `--config…`.

    A whole command, such as `imbalance train --config=…`, stays as it is.

    Args:
        write: function that writes values by key as an argument in Python.
    """

    def translated(match: re.Match[str]) -> str:
        if match["shell"]:
            return match[0]
        pairs = FLAG.findall(match[0])
        valued = {key: _literal(value) for key, value in pairs if value}
        return write(valued) if valued else ", ".join(repr(key) for key, _ in pairs)

    def named(match: re.Match[str]) -> str:
        return match[0] if match["shell"] else f"config={match[2]!r}"

    text = FLAGS.sub(translated, re.sub(r"--config: ", "config: ", text))
    return re.sub(r"(?P<shell>(?:imbalance [a-z]+|main\.py) --config=\S+)|--config=([^\s;]+)", named, text)


def _literal(text: str) -> str:
    """Return the value of a flag as Python writes it; `<…>` and `…` stand for a value, and stay."""
    if text[0] in "<…":
        return text
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return repr(tuple(text.split(","))) if "," in text else repr(text)


@contextmanager
def python_messages(write: Callable[[Mapping[str, str]], str] = overrides_in_python) -> Iterator[None]:
    """Return a context manager in which a `BadInput` says what to write in Python, not which flags to type.

    Args:
        write: as for `in_python`.
    """
    try:
        yield
    except BadInput as error:
        text = in_python(str(error), write)
        if text == str(error):
            raise
        raise BadInput(text) from error.__cause__

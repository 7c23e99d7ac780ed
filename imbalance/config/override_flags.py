"""Split a command line into overrides of the config and other arguments. This module imports nothing slow."""

from collections.abc import Sequence

from imbalance.errors import BadInput

PREFIX = "--config."


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

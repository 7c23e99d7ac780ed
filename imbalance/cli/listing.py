"""List configs, methods, data sets and models, with one line for each."""

import ast
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imbalance.config.files import config_files_by_name
from imbalance.config.registries import registries
from imbalance.utils.output import one_line


def configs() -> str:
    """Return a line for every file of configs/: its name and the first line of its docstring. The files are not executed."""
    return _lines({name: _docstring(path) for name, path in config_files_by_name().items()})


def _docstring(path: Path) -> str | None:
    """Return the docstring of a Python file without executing it.

    If the file cannot be parsed, return a text that says why, because a user may put any file in configs/.
    """
    try:
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    except (SyntaxError, ValueError) as error:
        return f"(not Python: {one_line(str(error))})"


def methods() -> str:
    """Return a line for every method, such as a sampler or a loss, that a config can name."""
    sections = ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    return _lines({f"{section}.name={name}": about for section in sections for name, about in _about(section).items()})


def data() -> str:
    """Return a line for every data set."""
    return _lines(_about("data"))


def models() -> str:
    """Return a line for every network."""
    return _lines(_about("model"))


def forensics(*, run: str) -> str:
    """Replay the step at which the run in the run directory `run` diverged, and return a report."""
    from imbalance.training.state.forensics import replay

    return replay(Path(run))


def _about(section: str) -> dict[str, str | None]:
    return {name: _documented(entry).__doc__ for name, entry in registries()[section].items()}


def _documented(entry: Any) -> Any:
    """Return the function inside a `functools.partial`, however deeply nested; only the function has a docstring."""
    while isinstance(entry, partial):
        entry = entry.func
    return entry


def _lines(about: Mapping[str, Any]) -> str:
    width = max(map(len, about)) + 2
    return "\n".join(f"{name:{width}}{(text or '').strip().partition(chr(10))[0]}".rstrip() for name, text in about.items())  # fmt: skip

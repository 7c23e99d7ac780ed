"""List configs, methods, data sets and models, with one line each."""

import ast
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imbalance.config.registries import registries
from imbalance.config.resolve import CONFIGS
from imbalance.utils.output import one_line


def configs() -> str:
    """Return every file of configs/ by name, with the first line of its docstring; none of them is run."""
    return _lines({path.stem: _docstring(path) for path in sorted(CONFIGS.rglob("*.py"))})


def _docstring(path: Path) -> str | None:
    """Return the docstring of a Python file, or a note on why the file is none: a user may put any file there."""
    try:
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, ValueError) as error:
        return f"(not Python: {one_line(str(error))})"


def methods() -> str:
    """Return the entries of every section that is a method."""
    sections = ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    return _lines({f"{section}.name={name}": about for section in sections for name, about in _about(section).items()})


def data() -> str:
    """Return every data set."""
    return _lines(_about("data"))


def models() -> str:
    """Return every network."""
    return _lines(_about("model"))


def forensics(*, run: str) -> str:
    """Repeat the step at which `run` diverged; see `imbalance.training.state.forensics.replay`."""
    from imbalance.training.state.forensics import replay

    return replay(Path(run))


def _about(section: str) -> dict[str, str | None]:
    return {name: _documented(entry).__doc__ for name, entry in registries()[section].items()}


def _documented(entry: Any) -> Any:
    """Return the function that has the docstring: that of a partial, or of a partial of one, is the wrapped function."""
    while isinstance(entry, partial):
        entry = entry.func
    return entry


def _lines(about: Mapping[str, Any]) -> str:
    width = max(map(len, about)) + 2
    return "\n".join(f"{name:{width}}{(text or '').strip().partition(chr(10))[0]}".rstrip() for name, text in about.items())  # fmt: skip

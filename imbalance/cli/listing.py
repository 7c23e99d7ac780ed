"""What there is to choose from, with a line each."""

import ast
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imbalance.config.registries import registries
from imbalance.config.resolve import CONFIGS


def configs() -> str:
    """Every file of configs/, by name, and what its first line says; none of them is run."""
    return _lines({path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(CONFIGS.rglob("*.py"))})  # fmt: skip


def methods() -> str:
    """What each section that is a method can name."""
    sections = ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    return _lines({f"{section}.name={name}": about for section in sections for name, about in _about(section).items()})


def data() -> str:
    return _lines(_about("data"))


def models() -> str:
    return _lines(_about("model"))


def forensics(*, run: str) -> str:
    """See `imbalance.training.state.forensics.replay`."""
    from imbalance.training.state.forensics import replay

    return replay(Path(run))


def _about(section: str) -> dict[str, str | None]:
    return {name: _documented(entry).__doc__ for name, entry in registries()[section].items()}


def _documented(entry: Any) -> Any:
    """What is behind an entry that is a partial, or a partial of one."""
    while isinstance(entry, partial):
        entry = entry.func
    return entry


def _lines(about: Mapping[str, Any]) -> str:
    width = max(map(len, about)) + 2
    return "\n".join(f"{name:{width}}{(text or '').strip().partition(chr(10))[0]}".rstrip() for name, text in about.items())  # fmt: skip

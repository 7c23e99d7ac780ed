"""A config with overrides: a cell of a grid, where the cells differ in too little to be files of their own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imbalance.metrics.selection import KEPT
from imbalance.sweep.runs import Run, configured

RowT = TypeVar("RowT", bound=Mapping[str, str])  # a row of results/


@dataclass(frozen=True)
class Variant:
    """A config by name, and what is overridden in it, such as {"weights.exponent": 1.5}."""

    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def run(self, common: Mapping[str, Any], seed: int, work_dir: str) -> Run:
        """Return the run of this variant with the overrides that are `common` to all variants of an experiment."""
        return configured(self.config, {**self.overrides, **common}, seed, work_dir)

    def folder(self) -> str:
        """Return the overrides as the name of a run directory has them, "default" for none."""
        return self.run({}, 0, "runs").directory.parts[-2]

    def rows(self, rows: Iterable[RowT]) -> list[RowT]:
        """Return the rows of this variant; it does not count that logits are kept and that test is evaluated."""
        folder = self.folder()
        return [row for row in rows if row["name"] == self.config and _without_kept(row["overrides"]) == folder]

    def __str__(self) -> str:
        folder = self.folder()
        return self.config if folder == "default" else f"{self.config}, {folder.replace(',', ', ')}"


def _without_kept(overrides: str) -> str:
    parts = [part for part in overrides.split(",") if part.partition("=")[0] not in KEPT]
    return ",".join(parts) or "default"

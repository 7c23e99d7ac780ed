"""Variants of a config: a config with overrides, for experiments that need no config file for each variant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imbalance.metrics.selection import KEPT
from imbalance.sweep.runs import Run, make_run

RowT = TypeVar("RowT", bound=Mapping[str, str])  # a row of kept results


@dataclass(frozen=True)
class Variant:
    """Config of configs/, given by its name, with overrides such as {"weights.exponent": 1.5}."""

    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def run(self, common: Mapping[str, Any], seed: int, work_dir: str) -> Run:
        """Return the run of this variant with a seed, and with the overrides that are `common` to all variants."""
        return make_run(self.config, {**self.overrides, **common}, seed, work_dir)

    def folder(self) -> str:
        """Return the overrides as in the path of a run directory, such as "weights.exponent=1.5"; "default" if none."""
        return self.run({}, 0, "runs").directory.parts[-2]

    def rows(self, rows: Iterable[RowT]) -> list[RowT]:
        """Return the rows of this variant's runs, out of the rows of a table of results.

        The overrides in KEPT are ignored: they only make a run save more, and change no result.
        """
        folder = self.folder()
        return [row for row in rows if row["name"] == self.config and _without_kept(row["overrides"]) == folder]

    def __str__(self) -> str:
        folder = self.folder()
        return self.config if folder == "default" else f"{self.config}, {folder.replace(',', ', ')}"


def _without_kept(overrides: str) -> str:
    parts = [part for part in overrides.split(",") if part.partition("=")[0] not in KEPT]
    return ",".join(parts) or "default"

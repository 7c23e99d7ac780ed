"""What is wrong with data: one line for each cause."""

from collections.abc import Sequence
from typing import NamedTuple

from imbalance.errors import BadInput


class Problem(NamedTuple):
    """Something that is wrong, and where; problems of one `cause` are printed as one."""

    place: str
    cause: str

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


def raise_first(problems: Sequence[Problem]) -> None:
    """Raise `BadInput` with the first of `problems`, saying how many there are; none is fine."""
    if problems:
        more = f" (and {len(problems) - 1:,} more: imbalance data verify lists them)" if problems[1:] else ""
        raise BadInput(f"{problems[0]}{more}")


def grouped(problems: Sequence[Problem], shown: int) -> list[str]:
    """A line for each of the first `shown` causes, with the first place that has it and how many more there are."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        places.setdefault(problem.cause, []).append(problem.place)
    lines = []
    for cause, found in list(places.items())[:shown]:
        more = f" (and {len(found) - 1:,} more like it; --all lists each)" if found[1:] else ""
        lines.append(f"{found[0]}: {cause}{more}")
    if places.keys() and len(places) > shown:
        rest = sum(map(len, list(places.values())[shown:]))
        lines.append(f"and {rest:,} problems of {len(places) - shown:,} other kinds; --all lists each")
    return lines

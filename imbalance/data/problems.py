"""Describe problems of data files, one line for each cause."""

from collections.abc import Sequence
from typing import NamedTuple

from imbalance.errors import BadInput
from imbalance.utils.output import counted


class Problem(NamedTuple):
    """A problem of a data file: its `place` (a file, a line or a row) and its `cause`."""

    place: str
    cause: str

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


class DataProblems(BadInput):
    """Error with all problems of a data set; its message has the first one and the number of further problems."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        rest = len(self.problems) - 1
        return f"{self.problems[0]}" + (f" (and {rest:,} more)" if rest else "")


def raise_first(problems: Sequence[Problem]) -> None:
    """Raise `DataProblems` if there are `problems`; its message has the first problem and the number of further ones."""
    if problems:
        raise DataProblems(problems)


def problem_lines(problems: Sequence[Problem], max_causes: int) -> list[str]:
    """Return one line of text for each cause: the cause, the first place with it, and the number of further places.

    If there are more than `max_causes` causes, a last line counts the problems of all causes that are left out.
    """
    places_by_cause: dict[str, list[str]] = {}
    for problem in problems:
        places_by_cause.setdefault(problem.cause, []).append(problem.place)
    lines = []
    for cause, places in list(places_by_cause.items())[:max_causes]:
        more = f" (and {len(places) - 1:,} more like it; --all lists each)" if places[1:] else ""
        lines.append(f"{places[0]}: {cause}{more}")
    if len(places_by_cause) > max_causes:
        rest = sum(map(len, list(places_by_cause.values())[max_causes:]))
        lines.append(
            f"and {counted(rest, 'problem')} of {counted(len(places_by_cause) - max_causes, 'other kind')}; --all lists each"
        )
    return lines

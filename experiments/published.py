"""Published values: the numbers of papers that experiments print beside their own."""

import csv
from pathlib import Path
from typing import NamedTuple

PUBLISHED = Path(__file__).parent / "published.csv"


class Published(NamedTuple):
    value: float
    standard_deviation: float  # over n seeds; nan and 0 where the value is no mean
    n: int


def published(source: str, name: str) -> Published | None:
    """What published.csv has for `name` of `source`, if anything.

    Of figures 3 to 5 the paper's runs; of figures 1 and 2, which the paper draws, numbers computed independently.
    """
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["source"], row["name"]) == (source, name):
                return Published(float(row["value"]), float(row["standard_deviation"] or "nan"), int(row["n"] or 0))
    return None

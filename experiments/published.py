"""Read published values, which experiments print beside their own results."""

import csv
from pathlib import Path
from typing import NamedTuple

PUBLISHED = Path(__file__).parent / "published.csv"


class Published(NamedTuple):
    value: float
    standard_deviation: float  # over n seeds; nan if the value is not a mean over seeds
    n: int  # number of seeds; 0 if the value is not a mean over seeds


def published(source: str, name: str) -> Published:
    """Return the value in the line of published.csv with this source and name, such as "figure3 cifar" and "ce IW".

    The values for figures 3 to 5 are those of Wang et al. (ICLR 2022). Figures 1 and 2 of the paper have no numbers, so the
    values for them come from an independent computation.

    Raises:
        KeyError: published.csv has no such line.
    """
    value = find_published(source, name)
    if value is None:
        raise KeyError(f"{PUBLISHED.name} has no {name!r} of {source!r}")
    return value


def find_published(source: str, name: str) -> Published | None:
    """Return the value that `published` returns, or None if published.csv has no such line.

    Args:
        source, name: as for `published`, such as "figure3 cifar" and "ce IW".
    """
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["source"], row["name"]) == (source, name):
                return Published(float(row["value"]), float(row["standard_deviation"] or "nan"), int(row["n"] or 0))
    return None

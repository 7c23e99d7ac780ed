"""The tables of how often intervals cover, from few draws."""

import re

import numpy as np
import pytest

from imbalance.experiments import interval_coverage as experiment
from imbalance.metrics.intervals import Interval, wilson


def test_every_situation_has_a_row_and_the_intervals_here_cover(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(experiment, "DRAWS", 40)
    experiment.interval_coverage()
    worst, means, seeds = (
        [line.split(" | ") for line in table.splitlines() if re.search(r"\d%", line)]
        for table in re.split(r"\n(?=Mean|Interq)", capsys.readouterr().out)
    )
    assert len(worst) == len(means) == len(experiment.SITUATIONS) == 10 and len(seeds) == 6
    covered = np.array([[float(re.match(r"[\d.]+", cell)[0]) for cell in row[1:]] for row in worst])
    assert covered[:, 2].min() >= 90 and covered[:, 0].min() < 10  # the bootstrap covers almost never in one


def test_coverage_counts_the_intervals_that_contain_the_value():
    intervals = [Interval(0.1, 0.3), Interval(0.3, 0.4), Interval(0.31, 0.4)]
    assert experiment.coverage(intervals, 0.3) == "66.7% (13.0)"
    assert experiment.corrected_wilson(np.array([7]), np.array([10])) == pytest.approx(wilson(7, 10))

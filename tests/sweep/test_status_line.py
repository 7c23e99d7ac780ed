"""How runs stand while they are trained."""

from math import nan

import pytest

from imbalance.sweep.status_line import StatusLine, status_text
from imbalance.sweep.study import Outcome
from imbalance.sweep.sweep import best_setting


def test_a_line_says_what_is_done_what_is_best_and_how_long_it_takes():
    scores = {"lr=0.1": [0.9, 0.5], "lr=0.3": [0.8, nan, 0.7]}
    found = status_text(total=40, done=12, done_before=3, running=4, scores=scores, seconds=90)
    assert found == (
        "12 of 40 runs done (3 before this command), 4 running; best so far lr=0.3: 0.750 over 2 runs; 6.0 runs a minute, 4m40s left"
    )
    assert status_text(5, 5, 5, 0, {"a": [1.0]}, 0) == "5 of 5 runs done (5 before this command)"


def test_without_a_terminal_there_are_plain_lines_and_always_the_last(capsys):
    with StatusLine() as line:
        for i in range(100):
            line.show(f"{i} of 99 runs", last=i == 99)
    assert capsys.readouterr().err == "0 of 99 runs\n99 of 99 runs\n"


@pytest.mark.parametrize("order", [1, -1])
def test_the_best_setting_is_that_of_the_best_mean_not_of_the_luckiest_seed(order):
    def trial(score: float | None, directory: str) -> Outcome:
        return Outcome("diverged" if score is None else "done", score, directory)

    steady = ((("optim.lr", 0.1),), [trial(0.8, "a"), trial(0.82, "b"), trial(None, "c")])
    lucky = ((("optim.lr", 0.3),), [trial(0.95, "d"), trial(0.5, "e")])
    found = best_setting(dict([steady, lucky][::order]))
    assert found["setting"] == {"optim.lr": 0.1} and found["best"] == "b" and found["seeds"] == 2
    assert found["score"] == pytest.approx(0.81)
    assert best_setting({(): [trial(None, "f")]})["setting"] is None

"""How runs stand while they are trained."""

from concurrent.futures import Future
from math import nan
from types import SimpleNamespace

from imbalance.sweep import launch
from imbalance.sweep.status_line import StatusLine, status_text


def test_a_line_says_what_is_done_what_is_best_and_how_long_it_takes():
    scores = {"lr=0.1": [0.3, 0.5], "lr=0.3": [0.8, nan, 0.7], "lr=1": [nan, nan, 0.95], "lr=3": [nan]}
    found = status_text(total=40, done=12, done_before=3, running=4, scores=scores, seconds=90)
    assert found == (
        "12 of 40 runs done (3 before this command), 4 running; highest mean so far lr=0.3: 0.750 over 2 runs, 1 diverged; "
        "6.0 runs a minute, 4m40s left"
    )
    assert status_text(5, 5, 5, 0, {"a": [1.0]}, 0) == "5 of 5 runs done (5 before this command)"


def test_a_line_says_where_to_look_if_no_run_is_done_after_a_minute():
    assert status_text(2, 0, 0, 2, {}, 59) == "0 of 2 runs done, 2 running"
    assert status_text(2, 0, 0, 2, {}, 3700) == (
        "0 of 2 runs done, 2 running; 1h01m so far; every run directory has a log.txt with the epochs"
    )


def test_without_a_terminal_there_are_plain_lines_and_always_the_last(capsys):
    with StatusLine() as line:
        for i in range(100):
            line.show(f"{i} of 99 runs", i, last=i == 99)
    assert capsys.readouterr().err == "0 of 99 runs\n99 of 99 runs\n"


def test_the_status_tells_runs_of_this_command_from_those_done_before(monkeypatch):
    """Of four runs one is done at first, then three; the worker ends."""
    worker, shown, readings = Future(), [], []

    class State:
        def __init__(self, is_done):
            self.is_finished = lambda: is_done

    def points_of(study):
        readings.append(study)
        if len(readings) == 2:
            worker.set_result(None)
        done = [True, len(readings) > 1, len(readings) > 1, False]
        point = {"config": "digits_ce", "score": "val/accuracy"}
        return [(point, SimpleNamespace(state=State(it), value=0.5, number=i)) for i, it in enumerate(done)]

    monkeypatch.setattr(launch, "INTERVAL", 0.01)
    monkeypatch.setattr(launch, "open_study", lambda location: None)
    monkeypatch.setattr(launch.studies, "points_of", points_of)
    monkeypatch.setattr(launch.studies, "status", lambda trial: "done" if trial.state.is_finished() else "unfinished")
    monkeypatch.setattr(StatusLine, "show", lambda line, text, done, last: shown.append(text))
    launch.show_status(None, [worker], jobs=2, done_before=1, left=3)
    assert shown[0] == "1 of 4 runs done (1 before this command), 2 running"
    assert shown[-1].startswith("3 of 4 runs done (1 before this command)") and "runs a minute" in shown[-1]


def test_a_trial_that_ends_before_the_first_look_is_of_this_command_and_a_lost_one_is_not_done(monkeypatch):
    """Of three trials, one was done before, one is done at the first look, and the worker of the third died."""
    worker, shown, point = Future(), [], {"config": "digits_ce", "score": "val/accuracy"}
    worker.set_result(None)
    monkeypatch.setattr(launch, "open_study", lambda location: None)
    states = ("done", "done", "lost")
    monkeypatch.setattr(
        launch.studies, "points_of", lambda _: [(point, SimpleNamespace(s=s, value=0.5)) for s in states]
    )
    monkeypatch.setattr(launch.studies, "status", lambda trial: trial.s)
    monkeypatch.setattr(StatusLine, "show", lambda line, text, done, last: shown.append(text))
    launch.show_status(None, [worker], jobs=1, done_before=1, left=2)
    assert shown[0].startswith("2 of 3 runs done (1 before this command)")


def test_without_a_terminal_a_status_with_no_other_run_done_is_printed_once_a_minute(capsys, monkeypatch):
    """The text says how much time is left, so it differs every two seconds."""
    now = 0.0
    monkeypatch.setattr("imbalance.sweep.status_line.time.monotonic", lambda: now)
    with StatusLine() as line:
        for now in range(0, 200, 2):
            line.show(f"{now // 100} runs done, {now} seconds", now // 100)
    printed = [int(text.split()[-2]) for text in capsys.readouterr().err.splitlines()]
    assert printed == [0, 60, 100, 160]

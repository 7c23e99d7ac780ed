"""Storages of studies: who gets a trial, and when a worker counts as dead."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers.server import SERVER

from imbalance.errors import BadInput
from imbalance.sweep import lease
from imbalance.sweep import study as studies
from imbalance.sweep import worker as workers
from imbalance.sweep.storage import StudyLocation, open_storage, open_study

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")  # Optuna needs it
STATES = optuna.trial.TrialState


@pytest.fixture(params=["journal", "sqlite"])
def place(request, tmp_path):
    url = {"journal": f"journal:{tmp_path / 'study.log'}", "sqlite": f"sqlite:///{tmp_path / 'study.sqlite'}"}
    return StudyLocation("test", str(tmp_path / "runs"), url[request.param])


def add_trials(place, number):
    """Add trials whose runs nobody resolves."""
    study = open_study(place)
    for seed in range(number):
        point = {"config": "digits_ce", "seed": seed}
        study.add_trial(studies._waiting_trial(point, str(seed), 0, None, studies._distributions([point])))


def test_of_two_workers_that_read_a_trial_as_waiting_one_gets_it(tmp_path, monkeypatch):
    """SQLite has no lock on a row: the second worker is let in between the first one's SELECT and UPDATE."""
    place = StudyLocation("test", str(tmp_path), f"sqlite:///{tmp_path / 'study.sqlite'}")
    add_trials(place, 1)
    one, two = open_storage(place), open_storage(place)
    won, check = [], one._backend.check_trial_is_updatable
    second = threading.Thread(target=lambda: won.append(two.set_trial_state_values(1, STATES.RUNNING)))

    def let_in(*arguments):
        second.start()
        second.join(0.5)
        check(*arguments)

    monkeypatch.setattr(one._backend, "check_trial_is_updatable", let_in)
    won.append(one.set_trial_state_values(1, STATES.RUNNING))
    second.join()
    assert sorted(won) == [False, True]


def test_a_torn_line_of_a_journal_costs_that_line_only(tmp_path):
    place = StudyLocation("test", str(tmp_path), f"journal:{tmp_path / 'journal'}")
    add_trials(place, 2)
    whole = (tmp_path / "journal").read_bytes()
    storage = open_storage(place)
    with open(tmp_path / "journal", "ab") as file:
        file.write(b'{"op_code":4,"wor')
    storage.set_study_user_attr(0, "key", "value")  # by a process that had the journal open
    add_trials(place, 1)
    assert (tmp_path / "journal").read_bytes().startswith(whole + b'{"op_code":2')
    assert len(open_study(place).get_trials()) == 3 and open_study(place).user_attrs["key"] == "value"


def test_a_journal_is_free_as_soon_as_its_process_is_killed(tmp_path):
    place = StudyLocation("test", str(tmp_path), f"journal:{tmp_path / 'journal'}")
    add_trials(place, 1)
    code = f"from imbalance.sweep.storage import *; JournalLock(Path({str(tmp_path / 'journal')!r})).acquire(); print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    process.kill()
    process.wait()
    began = time.monotonic()
    add_trials(place, 1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "url", ["journal:/dev/null/x", "mongodb://me:secret@localhost", "sqlite:////nowhere/at/all.db"]
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path, url):
    with pytest.raises(BadInput, match=r"--storage=.* cannot be opened: .*type journal:<file>") as error:
        open_storage(StudyLocation("test", str(tmp_path), url))
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:"])
def test_a_database_in_the_memory_of_one_process_is_refused(tmp_path, url):
    with pytest.raises(BadInput, match=f"--storage={re.escape(url)} is a database in the memory of this process"):
        open_storage(StudyLocation("test", str(tmp_path), url))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("line", [b"garbage\n", b"[]\n", b'{"op_code": 0}\n', b'"text"\n', b"\xff\n"])
def test_a_damaged_line_of_a_journal_is_one_line(tmp_path, line, alone):
    """Optuna passes over a last line that is no JSON, and fails once another one follows."""
    place = StudyLocation("test", str(tmp_path), "")
    add_trials(place, 1)
    file = place.folder / "study.journal"
    file.write_bytes(line + (b"" if alone else file.read_bytes()))
    with pytest.raises(
        BadInput, match=r"^--storage=journal:.* (is damaged \(.*\); restore the file|cannot be opened: .*;)"
    ) as error:
        open_study(place)
    assert "\n" not in str(error.value)


def states(place):
    return [trial.state.name for trial in open_study(place).get_trials()]


def hold_one(place, ready):
    """Take a trial, and hold it until this process is killed."""
    with workers.Worker(place, None, 1, 1) as worker:
        worker.take()
        ready.set()
        time.sleep(600)


def test_a_killed_workers_trial_goes_to_another_at_once_on_one_machine(place):
    add_trials(place, 2)
    ready = SERVER.Event()
    process = SERVER.Process(target=hold_one, args=(place, ready))
    process.start()
    assert ready.wait(60)
    with workers.Worker(place, None, 1, 1) as worker:
        assert [trial.number for trial in worker.take()] == [1]
        worker.held = []
        assert not worker.take() and worker.others == 2 and not worker.undecided
        os.kill(process.pid or 0, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not (taken := worker.take()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [trial.number for trial in taken] == [2]
    assert states(place) == ["FAIL", "RUNNING", "WAITING"]
    trials = open_study(place).get_trials()
    assert trials[2].user_attrs["point"] == trials[0].user_attrs["point"]
    assert [trial.number for trial, _ in studies.attempts_in(trials).newest.values()] == [2, 1]
    process.join()


def test_a_worker_that_dies_between_the_result_and_the_score_loses_its_trial_to_another(place):
    """Found by killing workers at random: such a trial counted as done, and its setting lacked the score of one seed."""
    add_trials(place, 1)
    with workers.Worker(place, None, 1, 1) as dying:
        (taken,) = dying.take()
        dying.storage.set_trial_user_attr(taken.id, "result", {"status": "done", "run_directory": "x", "seconds": 1.0})
        dying.held = []
    assert studies.count_ended_and_left(place, None)[1] == 1
    with workers.Worker(place, None, 1, 1) as worker:
        (again,) = worker.take()
        assert again.number == 1
        worker._end(again, STATES.COMPLETE, 0.5, status="done")
        worker.held = []
    ((_, outcome),) = studies.outcomes(open_study(place), lambda point: True)
    assert (outcome.status, outcome.score, states(place)) == ("done", 0.5, ["FAIL", "COMPLETE"])


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def test_on_another_machine_a_worker_is_dead_once_its_heartbeat_stands_still(place, monkeypatch):
    add_trials(place, 1)
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    first = workers.Worker(place, None, 1, 1)
    first.lease._record["machine"] = "another machine"
    first.lease._write()  # without the thread: this test is the heart
    assert [trial.number for trial in first.take()] == [0]
    with workers.Worker(place, None, 1, 1) as second:
        assert not second.take() and second.undecided == 1
        clock.now += lease.GRACE - 1
        assert not second.take() and second.undecided == 1
        first.lease._record["beat"] += 1
        first.lease._write()
        clock.now += 2
        assert not second.take() and second.others == 1 and not second.undecided  # known to live
        clock.now += lease.GRACE + 1
        assert [trial.number for trial in second.take()] == [1]
        first._end(first.held[0], STATES.COMPLETE, 0.5, status="done")  # too late
        assert states(place) == ["FAIL", "RUNNING"]
        second._end(second.held[0], STATES.COMPLETE, 0.6, status="done")
        second.held = []
    ((_, trial),) = studies.points_of(open_study(place))
    assert trial.value == 0.6


def test_a_worker_that_died_while_it_took_a_trial_loses_it_after_the_grace(place, monkeypatch):
    add_trials(place, 1)
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    storage = open_storage(place)
    number = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name("test"), 0)
    assert storage.set_trial_state_values(number, STATES.RUNNING)  # and died, before it wrote its name
    with workers.Worker(place, None, 1, 1) as worker:
        assert not worker.take() and worker.undecided == 1
        clock.now += lease.GRACE + 1
        assert [trial.number for trial in worker.take()] == [1]


def test_twins_of_an_attempt_count_once(place):
    """As two machines add them that begin the same sweep at the same moment."""
    for _ in range(2):
        add_trials(place, 3)
    with workers.Worker(place, None, 1, 16) as worker:
        for number in range(3):
            assert [trial.number for trial in worker.take()] == [number]
            worker._end(worker.held[0], STATES.COMPLETE, 0.5, status="done")
            worker.held = []
        assert not worker.take() and not worker.others
    assert states(place) == ["COMPLETE"] * 3 + ["FAIL"] * 3
    assert len(studies.points_of(open_study(place))) == 3


def test_workers_that_ask_at_once_do_not_exceed_the_number_of_trials(place, monkeypatch):
    space = {"config": ["digits_ce"], "optim.lr": {"low": 0.1, "high": 1.0, "log": True}, "seed": [0]}
    search = studies.Search("random", 2, space)
    with workers.Worker(place, search, 2, 1) as one, workers.Worker(place, search, 2, 1) as two:
        two._read()  # there is no trial yet
        attempts = two.attempts
        assert [trial.number for trial in one.take()] == [0]
        one._end(one.held[0], STATES.COMPLETE, 0.5, status="done")
        one.held = []
        assert [trial.number for trial in one.take()] == [1]
        two.attempts = attempts
        two._ask()
        assert not two.held and two.others
        one._end(one.held[0], STATES.COMPLETE, 0.6, status="done")
        one.held = []
        assert not one.take() and not two.take()
    assert states(place) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_trial_costs_few_commits(tmp_path, monkeypatch):
    """Each of them waits for the disk. They were 14.5 a trial."""
    place = StudyLocation("test", str(tmp_path), f"sqlite:///{tmp_path / 'study.sqlite'}")
    add_trials(place, 20)
    summary = {"status": "done", "score": 0.5, "seconds": 1.0}
    monkeypatch.setattr(workers, "train_quietly", lambda runs, *_: [summary] * len(runs))
    with workers.Worker(place, None, 1, 1) as worker:
        commits = []
        sqlalchemy.event.listen(worker.storage._backend.engine, "commit", lambda connection: commits.append(1))
        while taken := worker.take():
            worker.train(taken)
    assert 0 < len(commits) / 20 <= 8

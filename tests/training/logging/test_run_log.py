"""Lines of a run's log, on the console and in log.txt."""

from contextlib import ExitStack

import pytest

from imbalance.errors import BadInput
from imbalance.training.logging.run_log import RunLog


def test_lines_that_follow_at_once_are_in_the_file_and_the_last_is_on_the_console_too(config, tmp_path, capsys):
    with RunLog(tmp_path, config, writes=True) as log:
        log.claim()
        for number in range(4):
            log.progress(f"evaluation {number}", last=number == 3)
    assert capsys.readouterr().out.split("\n") == ["evaluation 0", "evaluation 3", ""]
    assert [line[-12:] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        f"evaluation {n}" for n in range(4)
    ]


def test_runs_that_are_refused_together_leave_no_folder(config, tmp_path):
    (tmp_path / "work").mkdir()  # not made by this process, so it stays
    with pytest.raises(BadInput, match="refused"), ExitStack() as logs:
        for seed in range(2):
            directory = tmp_path / "work" / "name" / "default" / f"seed={seed}"
            logs.enter_context(RunLog(directory, config, writes=True)).claim()
        raise BadInput("refused")
    assert list(tmp_path.rglob("*")) == [tmp_path / "work"]

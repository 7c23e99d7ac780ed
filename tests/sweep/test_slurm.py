"""On a real Slurm, where there is one; two jobs of one core and a few minutes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from imbalance.report.saved_runs import summary_of
from imbalance.sweep.storage import StudyLocation, open_study
from imbalance.sweep.study import points_of, result

STUDY = f"test_{os.getpid()}"  # the jobs' name too


def slurm_is_there() -> bool:
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not slurm_is_there(), reason="no Slurm here: sinfo does not answer")


def done(folder: Path) -> dict[Path, int]:
    found = folder.rglob("summary.json")
    return {path: path.stat().st_mtime_ns for path in found if summary_of(path.parent)["status"] == "done"}


def running() -> set[str]:
    command = ["squeue", "-h", "-r", "-t", "RUNNING", "-n", STUDY, "-o", "%F_%K"]
    return set(subprocess.run(command, capture_output=True, text=True).stdout.split())


def test_a_stopped_command_waits_again_and_a_cancelled_and_a_requeued_job_lose_nothing_and_repeat_nothing(tmp_path):
    work_dir = tmp_path / "runs"
    command = [
        sys.executable, "-m", "imbalance", "sweep", "--config=configs/digits_ce.py", "--grid=trainer.epochs=300",
        "--grid=optim.lr=0.02,0.05,1e30", "--seeds=4", "--jobs=2", "--launcher=slurm", f"--work_dir={work_dir}", f"--study={STUDY}",
    ]  # fmt: skip

    def start():
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )

    process = start()
    deadline = time.monotonic() + 600

    def wait_for(condition: Callable[[], object]) -> None:
        while not condition():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)

    wait_for(lambda: running() and done(work_dir))
    process.send_signal(signal.SIGINT)  # as Ctrl-C does; the jobs go on
    assert "submitted Slurm array" in process.communicate(timeout=60)[1]
    process = start()
    wait_for(lambda: running())
    cancelled = min(running())
    subprocess.run(["scancel", cancelled], check=True)
    wait_for(lambda: running() - {cancelled})  # Slurm may have kept it waiting
    subprocess.run(["scontrol", "requeue", *(running() - {cancelled})], check=True)
    written = done(work_dir)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0 and json.loads(output.splitlines()[-1])["trials"] == {"done": 8, "diverged": 4}
    assert "of this study is not finished, so this command waits for it" in errors and "submitted" not in errors

    trials = points_of(open_study(StudyLocation(STUDY, str(work_dir), "")))
    assert len({json.dumps(point, sort_keys=True) for point, _ in trials}) == len(trials) == 12
    assert len(done(work_dir)) == 8 and written.items() <= done(work_dir).items()
    for _, trial in trials:
        lines = Path(result(trial)["run_directory"], "metrics.jsonl").read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines]
        assert epochs == sorted(set(epochs))  # none missing or written twice

"""The script for several nodes, as the page prints it, by stand-ins for `srun` and `scontrol`."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.pages import blocks, page


@pytest.mark.parametrize(
    ("last", "status", "requeued"),
    [
        ('{"run_directory": "runs/x", "status": "done", "score": 0.5}', 0, False),
        ('{"run_directory": "runs/x", "status": "interrupted", "score": null}', 1, True),
        ('{"run_directory": "runs/x", "status": "diverged", "score": null}', 1, False),
        ("", 1, False),  # a mistake in the config: one line on stderr, and nothing on stdout
    ],
)
def test_the_script_requeues_a_job_whose_run_was_interrupted_whatever_the_status_of_torchrun(
    tmp_path, last, status, requeued
):
    (script,) = blocks(page("how-to/cluster.md"), "bash")
    (tmp_path / "train.sbatch").write_text(script)
    stand_in(tmp_path / "srun", f"echo 'epoch 1'; echo '{last}'; echo \"$@\" > {tmp_path}/srun.log; exit 1")
    stand_in(
        tmp_path / "scontrol", f'[ "$1" = show ] && printf \'node7\\nnode8\\n\' || echo "$@" >> {tmp_path}/scontrol.log'
    )
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[7-8]",
    }
    command = ["bash", str(tmp_path / "train.sbatch"), "--config=a b"]
    output = tmp_path / "train.out"
    output.write_text("of the job before it was requeued\n")
    with output.open("a") as file:  # as Slurm does by --open-mode=append
        done = subprocess.run(command, stdout=file, stderr=file, env=env)
    assert done.returncode == status
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 42\n" if requeued else "")
    assert output.read_text() == f"of the job before it was requeued\nepoch 1\n{last}\n"
    assert (tmp_path / "srun.log").read_text().endswith("train --config=a b\n")


def test_torchrun_is_told_the_nodes_and_ignores_the_signal(tmp_path):
    (script,) = blocks(page("how-to/cluster.md"), "bash")
    (tmp_path / "train.sbatch").write_text(script)
    stand_in(tmp_path / "srun", 'exec "$@"')
    stand_in(tmp_path / "scontrol", "printf 'node7\\nnode8\\n'")
    stand_in(
        tmp_path / "torchrun",
        f'printf \'%s\\n\' "$@" > {tmp_path}/torchrun.log; kill -USR1 $$; echo \'{{"status": "done"}}\'',
    )
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[7-8]",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(tmp_path / "train.sbatch"), "--config=a b"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    given = (tmp_path / "torchrun.log").read_text().splitlines()
    options = dict(zip(given[:-4:2], given[1:-4:2]))
    assert options == {
        "--nnodes": "2", "--nproc_per_node": "8", "--rdzv_backend": "c10d", "--rdzv_id": "42-0", "--rdzv_endpoint": "node7:29500",
    }  # fmt: skip
    assert given[-4:] == ["-m", "imbalance", "train", "--config=a b"]


def stand_in(path: Path, code: str) -> None:
    """Write a program that a script finds in its PATH."""
    path.write_text(f"#!/bin/bash\n{code}\n")
    path.chmod(0o755)

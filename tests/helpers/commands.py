"""Commands of another environment, which share one process, because a process takes seconds to import torch."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = """
import contextlib, io, json, sys
from imbalance.cli.main import call

for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = call(argv)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def call_all(
    python: Path, folder: Path, env: Mapping[str, str], commands: Sequence[Sequence[str]]
) -> list[tuple[int, str, str]]:
    """Run `imbalance …` for each command in one process of `python`, and return exit statuses, stdout and stderr."""
    call = [str(python), "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))

"""Worker processes and the stop signals that a terminal sends to all processes of a command."""

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import signal, sys, time
from imbalance.utils.workers import WorkerPool

def begin():
    print("begun", flush=True)

def main():
    with WorkerPool(1, begin) as pool:
        pool.submit(time.sleep, 0.3).result()
        pool.submit(print, "still working", flush=True).result()
        time.sleep(float(sys.argv[1]))

time.sleep(0.5 * (__name__ == "__mp_main__"))  # a worker's slow imports
if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: print("stopped", flush=True))
    print("started", flush=True)
    main()
"""


@pytest.mark.parametrize("moment", ["starting", "working", "idle"])
def test_ctrl_c_for_all_processes_prints_no_traceback_of_a_worker(moment, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), "0.4"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in {"starting": ["started"], "working": ["started", "begun"], "idle": ["started", "begun", "still working"]}[moment]:  # fmt: skip
        assert process.stdout.readline() == f"{line}\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert errors == "" and process.returncode == 0 and "stopped" in output
    assert moment == "idle" or "still working" in output

"""What becomes of stdout and stderr changes neither a run nor its exit status."""

import io
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from imbalance.utils.output import counted, one_line, print_safely

CONFIG = "--config=configs/digits_ce.py"
SAID = "import sys; from imbalance.utils.output import guard_streams; guard_streams(); "


@pytest.mark.parametrize(
    "redirection",
    [" | head -1 > /dev/null; exit ${PIPESTATUS[0]}", ">/dev/full", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"],
)  # fmt: skip
def test_no_stdout_changes_the_status(redirection):
    program = SAID + "[print('größe', i) for i in range(9999)]; sys.stderr.write('end'); sys.exit(3)"
    command = f'{sys.executable} -c "{program}" {redirection}'
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 3


@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        (">/dev/full", "stdout: No space left on device; a part of the output is lost\n"),
        ("| head -1 >/dev/null", ""),  # a closed pipe is what the reader wanted
        (">&-", ""),
    ],
)
def test_output_that_a_full_disk_loses_is_told_on_stderr_once(redirection, told):
    program = SAID + "[print('größe', i, flush=i % 1000 == 0) for i in range(9999)]"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}" {redirection}'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == told


def test_a_file_opened_while_stdout_is_closed_does_not_get_what_is_printed(tmp_path):
    program = SAID + f"file = open({str(tmp_path / 'file')!r}, 'w'); print('lost', flush=True); file.write('kept')"
    subprocess.run(["bash", "-c", f'{sys.executable} -c "{program}" >&-'], cwd=ROOT, check=True)
    assert (tmp_path / "file").read_text() == "kept"


def test_unbuffered_output_is_written_at_once():
    """PYTHONUNBUFFERED is what clusters set, to see the log of a job while it runs."""
    program = SAID + "import os; print('printed'); sys.stdout.write('written'); os._exit(0)"
    for buffered, written in (("", b""), ("1", b"printed\nwritten")):
        environment = os.environ | {"PYTHONUNBUFFERED": buffered}
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, env=environment)
        assert done.stdout == written


def test_an_ascii_terminal_shows_what_it_can():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", SAID + "print('größe')"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, env=environment).stdout == b"gr\\xf6\\xdfe\n"


def test_a_finished_run_ends_with_0_without_stdout_in_a_locale_of_ascii(tmp_path):
    """The whole of main.py: the run's own lines, the result line and log.txt."""
    text = (ROOT / "configs" / "digits_ce.py").read_text()
    path = tmp_path / "größe.py"
    path.write_text(text)
    command = f"{sys.executable} main.py --config={path} --config.debug=True --config.work_dir={tmp_path} >&-"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    (log,) = tmp_path.rglob("log.txt")
    assert "score: val/balanced_accuracy" in log.read_text()


def test_saying_something_never_fails(tmp_path):
    closed = open(tmp_path / "closed", "w")
    closed.close()
    for stream in (None, closed, open("/dev/full", "w", buffering=1)):
        print_safely("größe", stream)
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_safely("größe \udcff", ascii_only)
    assert ascii_only.buffer.getvalue() == b"gr\\xf6\\xdfe \\udcff\n"


def test_one_line_shows_what_a_terminal_would_act_on():
    assert one_line("a\nb\x1b[31m\x9b größe  x") == "a\\nb\\x1b[31m\\x9b größe  x"


def test_one_is_counted_in_the_singular():
    assert [counted(n, "run") for n in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]

"""The server of `imbalance watch`: the page as the runs are, to this machine alone, and nothing else."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from imbalance.errors import BadInput
from imbalance.report.watch import HOST, serve
from imbalance.sweep.runs import make_run
from imbalance.training.loop import train

pytest.importorskip("jinja2")
METRICS = ["balanced_accuracy"]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        train(*make_run("digits_erm", {"trainer.epochs": 2, "trainer.eval_every": 1}, seed, str(folder)))
    return folder


@pytest.fixture
def ask(request, work_dir):
    """Ask a server that follows `work_dir`: status, headers and text of its answer."""
    server = serve([work_dir, *getattr(request, "param", [])], 0, METRICS, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]

    def call(path="/", method="GET", host=f"{HOST}:{port}", body=None):
        connection = http.client.HTTPConnection(HOST, port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name in host if isinstance(host, list) else [host] if host else []:
            connection.putheader("Host", name)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    call.port, call.server = port, server
    yield call
    server.shutdown()
    server.server_close()


def test_it_serves_the_page_and_its_stamp_and_writes_nothing(ask, work_dir):
    before = {path: path.stat().st_mtime_ns for path in work_dir.rglob("*")}
    status, headers, text = ask()
    assert status == 200 and "2 runs of 1 setting<" in text
    stamp = re.search(r'<body data-live="(\w+)">', text)[1]
    assert ask("/stamp")[2] == stamp
    assert headers["Cache-Control"] == "no-store" and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    status, headers, nothing = ask(method="HEAD")
    assert status == 200 and nothing == "" and int(headers["Content-Length"]) == len(text.encode())
    assert {path: path.stat().st_mtime_ns for path in work_dir.rglob("*")} == before


def test_it_listens_on_this_machine_alone(ask):
    assert ask.server.server_address[0] == HOST
    assert ask.server.socket.getsockname()[0] == "127.0.0.1"


def test_another_sites_name_for_this_machine_is_refused(ask):
    """DNS rebinding: a page of evil.example, whose name now leads here, is of the same origin to its browser."""
    for host in ("evil.example", f"evil.example:{ask.port}", f"localhost:{ask.port + 1}", "", "localhost",
                 f"localhost:{ask.port}.evil.example", [f"localhost:{ask.port}", "evil.example"]):  # fmt: skip
        status, _, text = ask(host=host)
        assert status == 403 and "digits" not in text, host
    assert ask(host=f"localhost:{ask.port}")[0] == 200


def test_no_file_can_be_asked_for(ask, work_dir):
    run = next(work_dir.rglob("config.json"))
    for path in ("/config.json", f"/{run}", f"/{run.relative_to(work_dir)}", "/../../../../../../etc/passwd", "//etc/passwd",
                 "/%2e%2e/%2e%2e/etc/passwd", "/stamp/../", "/?", "/index.html", f"file://{run}"):  # fmt: skip
        status, _, text = ask(path)
        assert status == 404 and "seed" not in text and "root:" not in text, path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_it_takes_no_other_method(ask, method):
    status, headers, _ = ask(method=method, body=b"x" * 1000)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_what_is_no_request_does_not_end_it(ask):
    for sent in (
        b"\0\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"",
    ):
        with socket.create_connection((HOST, ask.port)) as connection:
            connection.sendall(sent)
    assert ask()[0] == 200


def test_the_page_follows_runs_while_they_are_written(ask, work_dir):
    """A run that has begun, whose last line is half written, whose config is; and one that is gone again."""
    stamp = ask("/stamp")[2]
    run = work_dir / "digits_erm" / "trainer.epochs=9" / "seed=0"
    run.mkdir(parents=True)
    source = next(work_dir.rglob("config.json"))
    (run / "config.json").write_text(source.read_text()[:100])
    assert ask()[0] == 200 and ask("/stamp")[2] != stamp
    (run / "config.json").write_text(source.read_text())
    line = (source.parent / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f'{line}\n{{"epoch": 2, "val/acc')
    text = ask()[2]
    assert "3 runs of 2 settings" in text and "1 incomplete" in text
    (run / "metrics.jsonl").write_text(f"{line}\nno JSON\n{line}\n")
    status, _, text = ask()
    assert status == 200 and "metrics.jsonl is damaged" in text
    for name in ("config.json", "metrics.jsonl"):
        (run / name).unlink()
    assert "2 runs of 1 setting<" in ask()[2]


def test_several_folders_and_none_with_runs(work_dir, tmp_path):
    from imbalance.report.watch import WatchedRuns

    inner = next(work_dir.rglob("config.json")).parent
    watched = WatchedRuns([inner, work_dir, tmp_path], METRICS, 0)
    assert [(folder / row["run"]).resolve() for folder, rows in watched.rows().items() for row in rows] == [
        path.parent.resolve() for path in sorted(work_dir.rglob("config.json"))
    ]
    assert "2 runs of 1 setting<" in watched.page()
    assert "No runs yet" in WatchedRuns([tmp_path], METRICS, 0).page()
    with serve([tmp_path / "later"], 0, METRICS, 0) as server:  # a sweep may make the folder after this command
        later = server.RequestHandlerClass.args[0]  # pyright: ignore[reportAttributeAccessIssue]
        assert "No runs yet" in later.page()
        shutil.copytree(work_dir, tmp_path / "later")
        assert "2 runs of 1 setting<" in later.page()


def test_runs_of_one_seed_in_two_folders_are_two_settings(work_dir, tmp_path, capsys):
    """They counted as two seeds."""
    from imbalance.report.watch import WatchedRuns

    for folder in ("a", "b"):
        shutil.copytree(work_dir, tmp_path / folder)
    watched = WatchedRuns([tmp_path / "a", tmp_path / "b"], METRICS, 0)
    assert "4 runs of 2 settings<" in watched.page()
    assert capsys.readouterr().err.count("have the same config name, overrides and seed") == 1


def test_a_folder_or_port_that_cannot_be_is_one_line(ask, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is not a folder"):
        serve([tmp_path / "file"], 0, METRICS, 0)
    for port in (ask.port, 70_000):
        with pytest.raises(BadInput, match=f"--port={port} cannot be used: .*; type --port=0 for any free port"):
            serve([tmp_path], port, METRICS, 0)


def test_ctrl_c_ends_it(work_dir):
    command = [sys.executable, "-m", "imbalance", "watch", str(work_dir), "--port=0"]
    # A shell's background job would ignore SIGINT.
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                           env=os.environ | {"PYTHONUNBUFFERED": "1"})  # fmt: skip
    first = job.stdout.readline()
    assert re.match(r"http://127\.0\.0\.1:\d+/ shows the runs under ", first), first
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, out, err) == (0, "stopped\n", "")

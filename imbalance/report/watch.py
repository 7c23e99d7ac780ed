"""The page of `imbalance report` in a browser on this machine, made anew as runs go on.

    imbalance watch runs                     # then open the address that it prints
    imbalance watch runs other/runs --port=0

It reads run directories while they are written, and writes nothing. Only this machine can connect, and only by its own
name: a page of another site that gets a browser to ask here is refused, so that it cannot read what the runs say.
"""

import hashlib
import html
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from imbalance.config.metric_names import check_metrics
from imbalance.errors import BadInput
from imbalance.report.collect import Row, collect
from imbalance.report.page import page

HOST = "127.0.0.1"
FILES = ("config.json", "metrics.jsonl", "summary.json")  # of a run, whose change changes the page
PATIENCE = 10.0  # seconds for which a connection may say nothing
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Followed:
    """Run directories, and the newest page about them."""

    def __init__(self, folders: Sequence[Path], metrics: Sequence[str], pictured: int):
        self.folders, self.metrics, self.pictured = [folder.resolve() for folder in folders], metrics, pictured
        self.root = Path(os.path.commonpath(self.folders))
        self._making = threading.Lock()
        self._made: tuple[str, str] = ("", "")  # a stamp, and the page that shows what it is the stamp of

    def stamp(self) -> str:
        """Another one whenever a file of a run has changed."""
        seen = hashlib.sha256()
        for folder in self.folders:
            for directory in sorted(path.parent for path in folder.rglob("config.json")):
                for name in FILES:
                    try:
                        found = (directory / name).stat()
                    except FileNotFoundError:
                        continue
                    seen.update(f"{directory / name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        return seen.hexdigest()[:16]

    def page(self) -> str:
        """The page as the runs are now, or, where they cannot be read at this moment, why."""
        stamp = self.stamp()
        with self._making:
            if self._made[0] != stamp:
                rows = self.rows()
                text = page(self.root, rows, self.metrics, pictured=self.pictured, live=stamp) if rows else self.empty()
                self._made = stamp, text
            return self._made[1]

    def rows(self) -> list[Row]:
        """Of all folders, each run once, `run` being its path under `root`."""
        found = {}
        for folder in self.folders:
            for row in collect(folder):
                run = os.path.normpath((folder / row["run"]).relative_to(self.root))
                found[run] = row | {"run": run}
        return list(found.values())

    def empty(self) -> str:
        return waiting(f"No runs yet under {', '.join(map(str, self.folders))}")


def waiting(text: str) -> str:
    """A page that is loaded again every two seconds."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f'<link rel="icon" href="data:,"><title>imbalance watch</title><h1>imbalance watch</h1><p>{html.escape(text)}</p></html>'
    )


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of two paths: `/`, the page, and `/stamp`, by which it sees that it is out of date."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "imbalance", ""
    timeout = PATIENCE

    def __init__(self, followed: Followed, *args):
        self.followed = followed
        super().__init__(*args)

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        # A browser that another site's name led here (DNS rebinding) says that name.
        if self.headers.get_all("Host") not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            return self.answer(HTTPStatus.FORBIDDEN, "text/plain", f"say http://{HOST}:{port}/\n")
        if self.path not in ("/", "/stamp"):
            return self.answer(HTTPStatus.NOT_FOUND, "text/plain", "nothing here but / and /stamp\n")
        try:
            if self.path == "/stamp":
                return self.answer(HTTPStatus.OK, "text/plain", self.followed.stamp())
            return self.answer(HTTPStatus.OK, "text/html", self.followed.page())
        except (BadInput, OSError) as error:  # a run that is being removed, a folder without permission
            return self.answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/html", waiting(str(error)))

    do_HEAD = do_GET

    def refuse(self) -> None:
        self.close_connection = True  # what else was sent is not read
        self.answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "GET and HEAD only\n", Allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = refuse

    def answer(self, status: HTTPStatus, kind: str, text: str, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: requests come every few seconds."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing of a browser that has gone; a traceback of what is our mistake."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def serve(folders: Sequence[Path], port: int, metrics: Sequence[str], pictured: int) -> Server:
    """A server that listens; `serve_forever` answers.

    Args:
        port: 0 for any that is free.

    Raises:
        BadInput: a folder is none, or the port is taken.
    """
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no folder; give one that run directories are in, such as runs")
    try:
        return Server((HOST, port), partial(Handler, Followed(folders, metrics, pictured)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "from 0 to 65535"
        raise BadInput(f"--port={port}: {reason}; --port=0 takes one that is free") from None


def watch(*, folders: Sequence[str], port: int, metrics: Sequence[str], pictured: int) -> int:
    """Serve until Ctrl-C."""
    check_metrics(metrics)
    with serve([Path(folder) for folder in folders], port, metrics, pictured) as server:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and not what ends a command that could go on
        try:
            print(f"http://{HOST}:{server.server_address[1]}/ follows {', '.join(folders)}; Ctrl-C ends it", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", flush=True)
    return 0

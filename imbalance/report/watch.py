"""Serve the page of `imbalance report` to a browser on this machine, and update it while runs train.

    imbalance watch runs                     # then open the address that the command prints
    imbalance watch runs other/runs --port=0

The command reads run directories while they are written, and writes no file but the index of many runs. Only a browser on this
machine can connect, and only under the name localhost or 127.0.0.1. Requests under another name are refused, so no page of
another site can read the runs through the browser.
"""

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
from imbalance.report.collect import Row, collect, separate_repeated
from imbalance.report.page import page
from imbalance.report.page.contents import FILES, PageSize, page_contents
from imbalance.report.page.examples import Example
from imbalance.report.page.run_details import TaskKey
from imbalance.report.run_index import runs_stamp
from imbalance.report.settings import default_metrics
from imbalance.utils.read import short_hash

HOST = "127.0.0.1"
CONNECTION_TIMEOUT = 10.0  # seconds without a request, after which a connection is closed
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WatchedRuns:
    """Runs under `folders`, and the HTML page about them, which is cached until a file of a run changes."""

    def __init__(self, folders: Sequence[Path], metrics: Sequence[str], pictured: int):
        self.folders, self.metrics, self.pictured = [folder.resolve() for folder in folders], metrics, pictured
        self.root = Path(os.path.commonpath(self.folders))
        self._lock = threading.Lock()
        self._cached: tuple[str, str] = ("", "")  # the stamp and the text of the newest page
        self._warning = ""  # printed last
        self._rendered: dict[TaskKey, dict[int, Example]] = {}

    def stamp(self) -> str:
        """Return a digest of the sizes and times of the runs' files; any change of a file changes it."""
        return short_hash(" ".join(runs_stamp(folder, FILES)[0] for folder in self.folders).encode())

    def page(self) -> str:
        """Return the HTML of the page about the runs as they are now."""
        stamp = self.stamp()
        with self._lock:
            if self._cached[0] != stamp:
                self._cached = stamp, self._new_page(stamp)
            return self._cached[1]

    def _new_page(self, stamp: str) -> str:
        rows_by_folder = self.rows()
        rows = [row for rows in rows_by_folder.values() for row in rows]
        if not rows:
            return self.empty()
        size, contents = PageSize.of(rows), []
        for folder, rows_of_folder in rows_by_folder.items():
            contents += page_contents(folder, rows_of_folder, size)
            for row in rows_of_folder:
                row["run"] = os.path.normpath((folder / row["run"]).relative_to(self.root))
        rows, warning = separate_repeated(rows)
        if warning and warning != self._warning:
            print(warning, file=sys.stderr, flush=True)
        self._warning = warning
        metrics = self.metrics or default_metrics(rows)
        return page(
            self.root, rows, metrics, pictured=self.pictured, live=stamp, contents=contents, rendered=self._rendered
        )

    def rows(self) -> dict[Path, list[Row]]:
        """Return the rows of the runs in each folder; a run in several folders has a row in the first."""
        rows_by_folder, listed = {}, set()
        for folder in self.folders:
            rows = [row for row in collect(folder) if os.path.normpath(folder / row["run"]) not in listed]
            listed |= {os.path.normpath(folder / row["run"]) for row in rows}
            rows_by_folder[folder] = rows
        return rows_by_folder

    def empty(self) -> str:
        return reloading_page(f"No runs yet under {', '.join(map(str, self.folders))}")


def reloading_page(text: str) -> str:
    """Return the HTML of a page that shows `text`, and that the browser reloads every two seconds."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f'<link rel="icon" href="data:,"><title>imbalance watch</title><h1>imbalance watch</h1><p>{html.escape(text)}</p></html>'
    )


class Handler(BaseHTTPRequestHandler):
    """Handler of GET and HEAD requests: `/` is the page, and `/stamp` a text that changes when a file of a run does."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "imbalance", ""
    timeout = CONNECTION_TIMEOUT

    def __init__(self, watched: WatchedRuns, *args):
        self.watched = watched
        super().__init__(*args)

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        port = self.server.server_port
        # With DNS rebinding, another site's name leads to this server, and the browser sends that name as the host.
        if self.headers.get_all("Host") not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            return self.answer(
                HTTPStatus.FORBIDDEN, "text/plain", f"this name is not served; open http://{HOST}:{port}/\n"
            )
        if self.path not in ("/", "/stamp"):
            return self.answer(
                HTTPStatus.NOT_FOUND, "text/plain", f"only / and /stamp are served; open http://{HOST}:{port}/\n"
            )
        try:
            if self.path == "/stamp":
                return self.answer(HTTPStatus.OK, "text/plain", self.watched.stamp())
            return self.answer(HTTPStatus.OK, "text/html", self.watched.page())
        except (BadInput, OSError) as error:  # a run is being removed, or a folder cannot be read
            return self.answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/html", reloading_page(str(error)))

    do_HEAD = do_GET

    def refuse(self) -> None:
        self.close_connection = True  # leave the request's body unread
        self.answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD are served\n", Allow="GET, HEAD")

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
        """Log nothing: requests come every few seconds."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Print the traceback of an error, unless the error is that the browser closed the connection."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def serve(folders: Sequence[Path], port: int, metrics: Sequence[str], pictured: int) -> Server:
    """Return a server that listens on the port; its method `serve_forever` answers requests.

    Args:
        folders: folders of run directories; a folder that does not exist yet may be made later.
        port: 0 for any free port.
        metrics: test metrics that the page shows.
        pictured: number of runs for which the page shows misclassified examples.

    Raises:
        BadInput: one of `folders` is a file, or the port is taken.
    """
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise BadInput(
                f"{folder} is not a folder; type a folder that holds run directories, for example: imbalance watch runs"
            )
    try:
        return Server((HOST, port), partial(Handler, WatchedRuns(folders, metrics, pictured)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it is not from 0 to 65535"
        raise BadInput(f"--port={port} cannot be used: {reason}; type --port=0 for any free port") from None


def watch(*, folders: Sequence[str], port: int, metrics: Sequence[str], pictured: int) -> int:
    """Serve the page until Ctrl-C, and return the exit status.

    Args:
        folders: folders of run directories.
        port: 0 for any free port.
        metrics: test metrics; () for `default_metrics`. The page ranks methods by the first until its reader chooses
            another.
        pictured: number of runs for which the page shows misclassified examples; their data sets are read.
    """
    check_metrics(metrics)
    with serve([Path(folder) for folder in folders], port, metrics, pictured) as server:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # replaces the handler that saves a checkpoint
        try:
            address = f"http://{HOST}:{server.server_address[1]}/"
            print(f"{address} shows the runs under {', '.join(folders)}; press Ctrl-C to stop", flush=True)
            for folder in folders:
                if not Path(folder).exists():
                    print(f"waiting for the folder {Path(folder).absolute()}, which does not exist yet", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", flush=True)
    return 0

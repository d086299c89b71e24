"""The demo's task tracker: a REST server on the loopback interface, with pages, a token and two bad moments.

``GET /tasks?page=1&per_page=100`` with ``Authorization: Bearer demo-token`` answers
``{"tasks": [...], "page": 1, "total": 601}``; a page beyond the last is empty. The first request for
page 2 gets 429 with ``Retry-After: 0``, the first for page 3 gets 503; both go well when asked again.

``python -m engine.demo.server demo-out/data/tasks.json --port 8765`` serves until interrupted. It needs
nothing but the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from engine.errors import UsageError

HOST = "127.0.0.1"
PORT = 8765
TOKEN = "demo-token"  # noqa: S105 - a token for show, written into the demo's pipeline file
_MAX_PER_PAGE = 1000


@dataclass(frozen=True)
class Tracker:
    """A running server.

    Attributes:
        url: of its tasks, such as ``http://127.0.0.1:8765/tasks``.
        port: it listens on, on the loopback interface.
    """

    url: str
    port: int


@contextlib.contextmanager
def serve(tasks_file: Path, port: int = 0) -> Iterator[Tracker]:
    """Serves the records of a JSON file in the background until the block ends.

    Args:
        tasks_file: a JSON list of objects, read once, now.
        port: 0 takes any free one.

    Raises:
        UsageError: the file cannot be read or the port cannot be had.
    """
    try:
        tasks = json.loads(tasks_file.read_text(encoding="utf-8"))
        if not isinstance(tasks, list):
            raise ValueError("expected a JSON list")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the tasks cannot be read: {error}",
            code="demo.tasks",
            where=str(tasks_file),
            fix="name the data/tasks.json of a folder that `maestro demo` made",
        ) from None
    try:
        server = _Server(tasks, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror}",
            code="demo.port",
            fix="end what listens there, or choose another port (also in pipeline.yaml)",
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Tracker(f"http://{HOST}:{server.server_port}/tasks", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port(preferred: int = PORT) -> int:
    """``preferred`` where nothing listens on it, else any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise UsageError("no free port on the loopback interface", code="demo.port", fix="end some servers")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tasks: list[dict[str, Any]], port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.tasks = tasks
        self.bad_moments = {2: HTTPStatus.TOO_MANY_REQUESTS, 3: HTTPStatus.SERVICE_UNAVAILABLE}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together

    def do_GET(self) -> None:
        self._answer(*self._reply())

    def _reply(self) -> tuple[HTTPStatus, dict[str, Any]]:
        location = urlsplit(self.path)
        if location.path != "/tasks":
            return HTTPStatus.NOT_FOUND, {"error": "only /tasks is served"}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return HTTPStatus.UNAUTHORIZED, {"error": f"send the header Authorization: Bearer {TOKEN}"}
        query = {"page": ["1"], "per_page": ["100"]} | parse_qs(location.query)
        try:
            page, size = int(query["page"][0]), int(query["per_page"][0])
        except ValueError:
            page = size = 0
        if page < 1 or not 1 <= size <= _MAX_PER_PAGE:
            return HTTPStatus.BAD_REQUEST, {"error": f"page is 1 or more, per_page 1 to {_MAX_PER_PAGE}"}
        if bad := self.server.bad_moments.pop(page, None):
            return bad, {"error": "try again"}
        tasks = self.server.tasks
        return HTTPStatus.OK, {
            "tasks": tasks[(page - 1) * size : page * size],
            "page": page,
            "total": len(tasks),
        }

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        content = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        """Nothing: the demo's output is the engine's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until interrupted; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.demo.server", description="The REST server of the demo's tasks."
    )
    parser.add_argument("tasks", type=Path, help="the data/tasks.json of a demo folder")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        with serve(options.tasks, options.port) as tracker:
            sys.stderr.write(f"serving {options.tasks} at {tracker.url} until you press Ctrl-C\n")
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

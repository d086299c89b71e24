"""A REST server in a thread, whose answers a test writes as a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str] = field(default_factory=dict)  # of a POST
    body: str = ""


@dataclass(frozen=True)
class Answer:
    """What the server says: ``body`` as JSON, bytes as they are; ``length`` where it says a wrong one."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class Rest:
    """A running server and what it was asked, in order."""

    url: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def running(answer: Callable[[Request], Answer]) -> Iterator[Rest]:
    """A server that answers every GET and POST with ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            posted = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            request = Request(
                parts.path, dict(parse_qsl(parts.query)), dict(self.headers), dict(parse_qsl(posted)), posted
            )
            rest.requests.append(request)
            said = answer(request)
            body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            try:
                self.send_response_only(said.status)
                for name, value in ({"Date": self.date_time_string()} | said.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if said.length is None else said.length))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    rest = Rest(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield rest
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

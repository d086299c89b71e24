"""An HTTP gateway in front of an object store that fails requests where a test says; what it does is counted.

Requests go on as they came, the Host header among them, so that their signatures stay right.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

Fault = Callable[[int, str, str], str | None]
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>not now</Message></Error>"
BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>"


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        fault: of a request's number (from 1), method and path: ``deny`` (403), ``busy`` (503), ``lose`` (the store does
            it, the reply never comes), or None.
        calls: every request, in order.
        fired: how often each fault happened.
    """

    url: str
    fault: Fault = lambda *_: None
    calls: list[tuple[str, str]] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gateway: ClassVar[Gateway]
    port: ClassVar[int]
    lock: ClassVar[threading.Lock]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            self.gateway.calls.append((self.command, self.path))
            fault = self.gateway.fault(len(self.gateway.calls), self.command, self.path)
            if fault:
                self.gateway.fired[fault] += 1
        if fault in ("deny", "busy"):
            self._answer(403 if fault == "deny" else 503, {}, DENIED if fault == "deny" else BUSY)
            return
        status, headers, content = self._ask(body)
        if fault == "lose":
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, headers, content)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        there = HTTPConnection("127.0.0.1", self.port, timeout=60)
        there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                there.putheader(name, value)
        there.endheaders(body)
        said = there.getresponse()
        content = said.read()
        there.close()
        return said.status, dict(said.getheaders()), content

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815

    def handle(self) -> None:
        with suppress(ConnectionError, ValueError):  # the client, or a lost reply, has closed it
            super().handle()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def running(port: int) -> Iterator[Gateway]:
    """A gateway to the store on ``port``."""
    handler = type("Handler", (_Handler,), {"port": port, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    gateway = handler.gateway = Gateway(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

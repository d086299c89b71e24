"""The pages served to this machine alone: loopback, GET, and nothing but pages."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from engine.errors import UsageError
from engine.page.archive import INDEX, Archive
from engine.page.run import policy

HOST = "127.0.0.1"
_PATH = re.compile(r"^/(?:([0-9A-Za-z][0-9A-Za-z._-]*)\.html)?$")


class PageServer(ThreadingHTTPServer):
    """Serves an archive's pages, each made when it is asked for, so that new runs are there at once.

    Raises:
        UsageError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, archive: Archive, port: int = 0) -> None:
        self.archive = archive
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be listened on: {error.strerror}",
                code="report.port",
                where="--port",
                allowed="a free port from 1024 to 65535; 0: any",
                fix="name another, or leave it out",
            ) from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def is_meant(self, host: str | None) -> bool:
        """Whether a request names this server: a page elsewhere could have its own name lead here."""
        return host in (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "maestro", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer(*self._found())

    def do_HEAD(self) -> None:
        self._answer(*self._found(), body=False)

    def _found(self) -> tuple[int, str]:
        if self.headers.get_all("Host") is None or len(self.headers.get_all("Host") or ()) != 1:
            return 400, "one Host, please"
        if not self.server.is_meant(self.headers["Host"]):
            return 421, "this server has another name"
        match = _PATH.match(self.path.partition("?")[0])
        page = self.server.archive.html(match[1] or INDEX) if match else None
        return (200, page) if page else (404, "there is no such page")

    def _answer(self, status: int, text: str, *, body: bool = True) -> None:
        data = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        kind = "text/html" if status == 200 else "text/plain"
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", f"{policy()}; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nobody reads along."""

"""The pages over HTTP: to this machine, under its own name, GET only, nothing but pages."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.page.archive import Archive
from engine.page.run import policy
from engine.page.server import PageServer
from tests.page.reports import everything
from tests.servers.chromium import Browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    archive = Archive(tmp_path / "reports" / "shop", "shop")
    for i in range(3):
        archive.keep(everything() | {"run_id": f"run-{i}", "created_timestamp": f"2025-10-0{i + 1}T00:00:00Z"})
    (tmp_path / "reports" / "secret.html").write_text("secret")
    with PageServer(archive) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(5)


def asked(
    server: PageServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_it_serves_the_index_and_the_pages(server: PageServer, tmp_path: Path) -> None:
    status, index, headers = asked(server, "/")
    assert (status, index) == (200, (tmp_path / "reports/shop/index.html").read_text())
    status, page, _ = asked(server, "/run-1.html?x=1")
    assert (status, page) == (200, (tmp_path / "reports/shop/run-1.html").read_text())
    assert headers["Content-Security-Policy"] == f"{policy()}; frame-ancestors 'none'"
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert (headers["Cache-Control"], headers["Content-Type"]) == ("no-store", "text/html; charset=utf-8")
    assert asked(server, "/run-1.html", "HEAD")[:2] == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/..%2fsecret.html",
        "/%2e%2e/secret.html",
        "//secret.html",
        "/shop/run-1.html",
        "/run-1.json",
        "/index.json",
        "/run-9.html",
        "/run-1.html/",
        "/.html",
        "/..html",
        "http://127.0.0.1/run-1.html",
        "/" + "a" * 5000 + ".html",
    ],
)
def test_nothing_else_is_there(server: PageServer, path: str) -> None:
    status, text, _ = asked(server, path)
    assert (status, text) == (404, "there is no such page")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_only_get(server: PageServer, method: str) -> None:
    assert asked(server, "/", method)[0] == 501


@pytest.mark.parametrize(
    "host", ["evil.example.com", "evil.example.com:80", "127.0.0.1", "127.0.0.2", "127.0.0.1.evil.example"]
)
def test_another_name_does_not_lead_here(server: PageServer, host: str) -> None:
    """A page of another site could make its own name lead to 127.0.0.1, and read what is served there."""
    status, text, _ = asked(server, "/", host=host)
    assert (status, text) == (421, "this server has another name")
    assert asked(server, "/", host="")[0] == 400
    assert asked(server, "/", host=f"localhost:{server.server_port}")[0] == 200


def test_it_listens_on_loopback_only(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UsageError) as raised:
        PageServer(server.archive, server.server_port)
    assert raised.value.code == "report.port"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", server.server_port)) != 0


def test_a_browser_walks_through_it(server: PageServer, browser: Browser) -> None:
    with browser.tab() as tab:
        tab.open(server.url)
        tab.value("document.querySelector('.verdict a').click()")
        tab.browser.wait("Page.loadEventFired", tab.session)
        assert tab.value("location.pathname") == "/run-2.html"
        tab.value("document.querySelector('header a').click()")
        tab.browser.wait("Page.loadEventFired", tab.session)
        assert tab.value("document.querySelectorAll('.runs tbody tr').length") == 3
        assert tab.complaints() == []
        assert {url.removeprefix(server.url) for url in tab.asked()} == {"", "run-2.html", "index.html"}

"""The fault-injecting proxy, before a plain server that streams and echoes."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.servers import proxy
from tests.servers.postgres import Postgres
from tests.servers.process import run

STREAM = random.Random(7).randbytes(2**20)


@contextmanager
def streaming(data: bytes) -> Iterator[int]:
    """The port of a server that sends ``data`` to every client, then echoes what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(data)
                while got := connection.recv(2**16):
                    connection.sendall(got)
            except OSError:
                pass  # what the tests are about

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    threads = [threading.Thread(target=accept, daemon=True)]
    threads[0].start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(10)


def connected(port: int, seconds: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def drained(client: socket.socket) -> tuple[bytes, str]:
    """All that comes, and how it ended: ``end``, ``reset`` or ``silence``."""
    parts: list[bytes] = []
    try:
        while part := client.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        return b"".join(parts), "reset"
    except TimeoutError:
        return b"".join(parts), "silence"
    return b"".join(parts), "end"


@pytest.fixture
def p() -> Iterator[proxy.Proxy]:
    """A proxy before a server that sends ``STREAM``."""
    with streaming(STREAM) as port, proxy.running(port) as p:
        yield p


def whole(p: proxy.Proxy) -> tuple[bytes, str]:
    """What a new client reads that sends nothing."""
    try:
        client = connected(p.port)
    except ConnectionResetError:  # before its own side knew that it was there
        return b"", "reset"
    with client:
        with suppress(OSError):  # it may be reset already
            client.shutdown(socket.SHUT_WR)
        return drained(client)


def test_clean_passage_is_exact_both_ways() -> None:
    down, up = random.Random(1).randbytes(20 * 2**20), random.Random(2).randbytes(2**20)
    with streaming(down) as port, proxy.running(port) as p, connected(p.port) as client:

        def send() -> None:
            client.sendall(up)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got, end = drained(client)
        sender.join()
        assert (len(got), end) == (21 * 2**20, "end")
        assert hashlib.sha256(got).digest() == hashlib.sha256(down + up).digest()
        assert (p.passed, p.connections, dict(p.fired)) == (21 * 2**20, 1, {})


def test_a_reset_hits_as_many_connections_as_asked(p: proxy.Proxy) -> None:
    p.reset_after(300_000, times=2)
    for fired in (1, 2):
        got, end = whole(p)
        assert end == "reset"
        assert len(got) <= 300_000
        assert got == STREAM[: len(got)]
        assert dict(p.fired) == {"reset": fired}
    assert whole(p) == (STREAM, "end")
    assert dict(p.fired) == {"reset": 2}


@pytest.mark.parametrize("size", [0, 1, 65_536, 300_001, len(STREAM)])
def test_a_close_comes_after_exactly_so_many_bytes(p: proxy.Proxy, size: int) -> None:
    p.close_after(size)
    assert whole(p) == (STREAM[:size], "end")
    assert dict(p.fired) == {"close": 1}
    assert whole(p) == (STREAM, "end")


def test_a_black_hole_is_silent_and_swallows(p: proxy.Proxy) -> None:
    p.black_hole_after(1000)
    with connected(p.port, seconds=0.3) as client:
        assert drained(client) == (STREAM[:1000], "silence")
        client.settimeout(10)
        client.sendall(b"x" * 4_000_000)  # more than buffers hold: it is read, and goes nowhere
        client.settimeout(0.3)
        assert drained(client) == (b"", "silence")
    assert dict(p.fired) == {"black_hole": 1}
    assert whole(p) == (STREAM, "end")


def test_a_drip_is_slow_and_complete() -> None:
    with streaming(STREAM[:3000]) as port, proxy.running(port) as p:
        p.drip_after(1000, bytes_per_second=4000)
        began = time.monotonic()
        assert whole(p) == (STREAM[:3000], "end")
        assert 0.5 <= time.monotonic() - began < 5
        assert dict(p.fired) == {"drip": 1}
        assert p.passed == 3000


def test_refused_connections_reach_no_server(p: proxy.Proxy) -> None:
    p.refuse(2)
    assert [whole(p) for _ in range(3)] == [(b"", "end"), (b"", "end"), (STREAM, "end")]
    assert dict(p.fired) == {"refuse": 2}
    assert p.connections == 3


def test_the_connection_waits_for_a_callback(p: proxy.Proxy) -> None:
    called: list[int] = []
    received = threading.Event()

    def call() -> None:
        assert received.wait(10)  # the client has all before, and nothing after
        called.append(p.passed)

    p.on_bytes(50_000, call)
    with connected(p.port) as client:
        got = b""
        while len(got) < 50_000:
            got += client.recv(2**16)
        assert len(got) == 50_000
        client.settimeout(0.2)
        assert drained(client) == (b"", "silence")
        assert (called, dict(p.fired)) == ([], {})
        received.set()
        client.settimeout(10)
        client.shutdown(socket.SHUT_WR)
        rest, end = drained(client)
    assert (got + rest, end) == (STREAM, "end")
    assert (called, dict(p.fired)) == ([50_000], {"on_bytes": 1})


def test_what_a_callback_raises_reaches_the_test() -> None:
    with pytest.raises(ZeroDivisionError), streaming(STREAM) as port, proxy.running(port) as p:  # noqa: PT012
        p.on_bytes(10, lambda: 1 // 0)
        assert whole(p) == (STREAM, "end")


def test_several_faults_in_their_order_and_one_per_connection(p: proxy.Proxy) -> None:
    order: list[str] = []
    p.on_bytes(20, lambda: order.append("b"))
    p.on_bytes(10, lambda: order.append("a"))
    p.close_after(30)
    assert whole(p) == (STREAM[:30], "end")
    assert order == ["a", "b"]
    assert dict(p.fired) == {"on_bytes": 2, "close": 1}


def test_clear_disarms(p: proxy.Proxy) -> None:
    p.refuse(5)
    p.reset_after(10, times=5)
    p.clear()
    assert whole(p) == (STREAM, "end")
    assert dict(p.fired) == {}


def test_a_fault_never_reached_never_fires(p: proxy.Proxy) -> None:
    p.reset_after(len(STREAM) + 1)
    assert whole(p) == (STREAM, "end")
    assert dict(p.fired) == {}


def test_a_server_that_is_not_there(p: proxy.Proxy) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with proxy.running(probe.getsockname()[1]) as other:
            assert whole(other) == (b"", "end")
            assert other.connections == 1


def test_a_url_keeps_all_but_its_port(p: proxy.Proxy) -> None:
    assert p.url("mysql://u:p%40s@127.0.0.1:3306/shop?x=1") == f"mysql://u:p%40s@127.0.0.1:{p.port}/shop?x=1"


def test_a_database_behind_it(postgres_server: Postgres) -> None:
    with proxy.running(postgres_server.port) as p:
        url = p.url(postgres_server.url)
        query = ("-At", url, "-c", "SELECT string_agg(i::text, '') FROM generate_series(1, 100000) i")
        assert run(postgres_server.psql, *query) == "".join(map(str, range(1, 100_001))) + "\n"
        clean = p.passed
        assert clean > 488_889
        p.close_after(clean // 2)
        with pytest.raises(AssertionError, match="server closed the connection unexpectedly"):
            run(postgres_server.psql, *query)
        assert dict(p.fired) == {"close": 1}

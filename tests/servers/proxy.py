"""A TCP proxy on loopback that breaks connections where a test says: after so many bytes from the server.

A fault is armed by a method, hits the next connections whose count of bytes from the server reaches its own, and is
counted in ``Proxy.fired`` before the client can see it. Bytes from the client never count.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

HOST = "127.0.0.1"
PIECE = 64 * 2**10
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
DRIPS_PER_SECOND = 20


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    passed: int = 0
    rate: float | None = None
    hole: bool = False
    met: list[_Fault] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        """Pass bytes of the server on; returns when the operating system has them."""
        piece = len(data) if self.rate is None else max(1, int(self.rate / DRIPS_PER_SECOND))
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            if self.rate is not None:
                await asyncio.sleep(len(part) / self.rate)
            self.to_client.write(part)
            await self.to_client.drain()
            self.passed += len(part)

    def abort(self) -> None:
        for writer in (self.to_client, self.to_server):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.transport.abort()

    def close(self) -> None:
        self.to_client.close()
        self.to_server.close()


@dataclass(eq=False)
class _Fault:
    kind: str
    at: int
    times: int
    act: Callable[[_Link], Awaitable[bool]]
    """Does it; whether the connection goes on."""


class Proxy:
    """A running proxy; see `running`.

    Attributes:
        port: where it listens.
        fired: how often each kind of fault really happened: ``reset``, ``close``, ``black_hole``, ``drip``,
            ``refuse``, ``on_bytes``.
        connections: how many were accepted, refused ones among them.
        passed: how many bytes of the server were passed on, over all connections.
    """

    def __init__(self, target_port: int) -> None:
        self.fired: Counter[str] = Counter()
        self.connections = 0
        self._closed_passed = 0
        self._target = target_port
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._refusals = 0
        self._faults: list[_Fault] = []
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def passed(self) -> int:
        return self._closed_passed + sum(link.passed for link in list(self._links))

    def url(self, server_url: str) -> str:
        """The URL with the proxy's port.

        connectorx leaves it for the server's own Unix socket, past the proxy, unless told ``prefer_socket=false``.
        """
        parts = urlsplit(server_url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{HOST}:{self.port}"))

    def reset_after(self, size: int, times: int = 1) -> None:
        """A reset (RST) to both sides; what was passed last may be lost with it."""

        async def act(link: _Link) -> bool:
            link.abort()
            return False

        self._arm("reset", size, times, act)

    def close_after(self, size: int, times: int = 1) -> None:
        """An orderly end of the connection: the client reads exactly ``size`` bytes, then the end."""

        async def act(link: _Link) -> bool:
            link.close()
            return False

        self._arm("close", size, times, act)

    def black_hole_after(self, size: int, times: int = 1) -> None:
        """Nothing is passed on any more, either way, though all is acknowledged; it ends when the client hangs up."""

        async def act(link: _Link) -> bool:
            link.hole = True
            return True

        self._arm("black_hole", size, times, act)

    def drip_after(self, size: int, bytes_per_second: float, times: int = 1) -> None:
        """What the server sends from then on is slow."""

        async def act(link: _Link) -> bool:
            link.rate = bytes_per_second
            return True

        self._arm("drip", size, times, act)

    def on_bytes(self, size: int, call: Callable[[], object], times: int = 1) -> None:
        """Calls ``call`` in a thread; the connection waits for it. What it raises, `running` raises at its end."""

        async def act(_: _Link) -> bool:
            try:
                await asyncio.get_running_loop().run_in_executor(None, call)
            except Exception as error:  # noqa: BLE001 - it is the test's, and goes back there
                self._failures.append(error)
            return True

        self._arm("on_bytes", size, times, act)

    def refuse(self, times: int = 1) -> None:
        """The next connections are closed at once; the server sees nothing of them."""
        self._refusals = times

    def clear(self) -> None:
        """Disarm all that has not happened yet; black holes and slow connections stay what they are."""
        self._faults = []
        self._refusals = 0

    def _arm(self, kind: str, size: int, times: int, act: Callable[[_Link], Awaitable[bool]]) -> None:
        self._faults = [*self._faults, _Fault(kind, size, times, act)]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener, limit=PIECE)
        await self._stopped.wait()
        server.close()
        if self._serving:  # what was accepted last is not cut off while connecting: a driver's request to cancel
            await asyncio.wait(self._serving, timeout=0.2)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for _ in range(5):  # what was just ending is closed
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            if self._refusals > 0:
                self._refusals -= 1
                self.fired["refuse"] += 1
            else:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side is gone, or the proxy stops
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(HOST, self._target, limit=PIECE)
        link = _Link(reader, writer, from_server, to_server)
        for end in (writer, to_server):
            end.transport.set_write_buffer_limits(0)  # so that drain waits for all of it
        self._links.add(link)
        up, down = asyncio.create_task(self._up(link)), asyncio.create_task(self._down(link))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if not up.done() or (up.exception() is None and not link.hole):
                await down  # a client may end its half of the connection and still read
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            link.close()
            with suppress(OSError, asyncio.CancelledError):
                await to_server.wait_closed()
            self._links.discard(link)
            self._closed_passed += link.passed

    async def _up(self, link: _Link) -> None:
        """From the client to the server, to the client's end."""
        while data := await link.from_client.read(PIECE):
            if not link.hole:
                link.to_server.write(data)
                await link.to_server.drain()
        if not link.hole and link.to_server.can_write_eof():
            link.to_server.write_eof()

    async def _down(self, link: _Link) -> None:
        """From the server to the client, to the server's end or a fault that ends it."""
        while await self._fire(link) and (data := await link.from_server.read(PIECE)):
            while data:
                if not await self._fire(link):
                    return
                if link.hole:
                    break
                near = min((fault.at - link.passed for fault in self._ahead(link)), default=len(data))
                await link.send(data[:near])
                data = data[near:]
        if link.hole:
            await asyncio.Event().wait()  # the server hung up: the client must not see it

    def _ahead(self, link: _Link) -> list[_Fault]:
        """The armed faults that this connection has yet to meet."""
        return [f for f in self._faults if f.times > 0 and f not in link.met and f.at >= link.passed]

    async def _fire(self, link: _Link) -> bool:
        """Do what is due at this byte; whether the connection goes on."""
        for fault in self._ahead(link):
            if fault.at != link.passed or link.hole:
                continue
            fault.times -= 1
            link.met.append(fault)
            if fault.kind == "on_bytes":
                await fault.act(link)
                self.fired[fault.kind] += 1
                continue
            self.fired[fault.kind] += 1
            if not await fault.act(link):
                return False
        return True


@contextmanager
def running(target_port: int) -> Iterator[Proxy]:
    """A proxy before the server at a loopback port; at its end all its connections are closed."""
    proxy = Proxy(target_port)
    proxy._thread.start()
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(proxy._stopped.set)
        proxy._thread.join(30)
        proxy._listener.close()
    assert not proxy._thread.is_alive(), "the proxy did not stop"
    if proxy._failures:
        raise proxy._failures[0]

"""Reading pieces in threads: bounded in memory, under a deadline, given up at once.

No more pieces are begun than there are threads (and some ahead, where asked for), until the caller has done with one:
so many at most has the next run to read again, should this one be killed.

A native driver that waits for a dead connection can be neither interrupted nor told to stop. So no driver runs in the
caller's thread: the caller waits for chunks, can be interrupted there, and leaves a thread behind that does not answer.
"""

from __future__ import annotations

import ctypes
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from engine.sources import Chunk
from engine.stopwatch import waiting

Session = TypeVar("Session")
Piece = TypeVar("Piece")
T = TypeVar("T")

JOIN_SECONDS = 2.0  # for threads to close what they have open, once they were told to stop


@dataclass(frozen=True)
class _End:
    """A thread has ended; with the error it ended by."""

    error: BaseException | None


class Stalled(Exception):  # noqa: N818 - what happened, for the caller to word
    """Nothing arrived within the deadline."""


def begin(function: Callable[[], T]) -> Future[T]:
    """What ``function`` will give; it runs in a thread of its own, which nothing waits for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - a panic of native code is none; raised again by `result`
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Workers:
    """Threads that run one function after the other; nothing waits for them when they are left."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = threading.Semaphore(0)

    def begin(self, function: Callable[[], T]) -> Future[T]:
        """What ``function`` will give; a thread more is started where none is free."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - as in `begin`
                future.set_exception(error)

        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"page-{self._count}", daemon=True).start()
        self._tasks.put(run)
        return future

    def leave(self) -> None:
        """Lets the threads end, each after what it is doing."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # what it gave, while the next one is waited for
            self._idle.release()


def result(future: Future[T], deadline: float) -> T:
    """What a begun function gives, or the error it ended by.

    Raises:
        Stalled: it has not ended within ``deadline`` seconds.
    """
    try:
        with waiting("source"):
            return future.result(deadline)
    except TimeoutError:
        if future.done():
            raise
        raise Stalled from None


def give_back() -> None:
    """Returns freed memory to the system, of which glibc keeps some for every thread that ever had any."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def within(seconds: float, call: Callable[[], T]) -> T:
    """What ``call`` gives, run in a thread that is left behind if it takes longer.

    Raises:
        Stalled: it took longer.
    """
    return result(begin(call), seconds)


class Threads(Generic[Session, Piece]):
    """Reads pieces with some sessions at a time.

    Args:
        session: opens a session (a connection) in its thread.
        read: reads one piece with a session.
        cancel: makes a session's current call fail soon, from another thread; may itself hang.
        workers: how many sessions.
        deadline: seconds that the caller waits for one chunk.
        ahead: so many pieces more may be begun.
    """

    def __init__(
        self,
        session: Callable[[], AbstractContextManager[Session]],
        read: Callable[[Session, Piece], Iterator[Chunk]],
        *,
        cancel: Callable[[Session], object] = lambda _: None,
        workers: int = 2,
        deadline: float,
        ahead: int = 0,
    ) -> None:
        self._session, self._read, self._cancel = session, read, cancel
        self._workers, self._deadline, self._ahead = workers, deadline, ahead

    def chunks(self, pieces: Sequence[Piece]) -> Iterator[Chunk]:
        """The chunks of all pieces, as they come. The first error of a thread is raised here.

        Raises:
            Stalled: nothing came within the deadline.
        """
        tasks: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        for piece in pieces:
            tasks.put(piece)
        ready: queue.Queue[Chunk | _End] = queue.Queue(maxsize=1)
        stop = threading.Event()
        sessions: dict[int, Session] = {}
        count = min(self._workers, len(pieces))
        turn = threading.Semaphore(count + self._ahead)
        work = (tasks, ready, turn, stop, sessions)
        threads = [threading.Thread(target=self._work, args=work, name=f"read-{i}", daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        answering = True
        running = count
        try:
            while running:
                try:
                    with waiting("source"):
                        item = ready.get(timeout=self._deadline)
                except queue.Empty:
                    answering = False
                    raise Stalled from None
                if isinstance(item, Chunk):
                    last = item.last
                    yield item
                    del item  # its rows, while the next ones are waited for
                    if last:
                        turn.release()
                        give_back()
                    continue
                running -= 1
                if item.error is not None:
                    raise item.error
        finally:
            stop.set()
            turn.release(max(1, count))  # nobody waits for it any more
            for session in list(sessions.values()):
                threading.Thread(target=self._cancel, args=(session,), daemon=True).start()
            _let_end(threads, JOIN_SECONDS if answering else 0.0)

    def _work(
        self,
        tasks: queue.SimpleQueue[Piece],
        ready: queue.Queue[Chunk | _End],
        turn: threading.Semaphore,
        stop: threading.Event,
        sessions: dict[int, Session],
    ) -> None:
        error: BaseException | None = None
        try:
            with self._session() as session:
                sessions[threading.get_ident()] = session
                try:
                    while not stop.is_set():
                        try:
                            piece = tasks.get_nowait()
                        except queue.Empty:
                            break
                        turn.acquire()
                        if stop.is_set():
                            break
                        with closing(cast("Generator[Chunk, None, None]", self._read(session, piece))) as chunks:
                            for chunk in chunks:
                                if not _hand_on(chunk, ready, stop):
                                    return
                finally:
                    del sessions[threading.get_ident()]
        except BaseException as raised:  # noqa: BLE001 - a panic of native code is none; raised again by the caller
            error = raised
        _hand_on(_End(error), ready, stop)


def _hand_on(item: Chunk | _End, ready: queue.Queue[Chunk | _End], stop: threading.Event) -> bool:
    """Whether somebody still took ``item``."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


def _let_end(threads: Sequence[threading.Thread], seconds: float) -> None:
    """Waits for stopped threads; those that do not end within ``seconds`` in all are left to themselves."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))

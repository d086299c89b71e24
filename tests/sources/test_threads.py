"""Reading pieces in threads: every chunk once, bounded, errors passed on, nothing waited for that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl
import pytest

from engine.sources import Chunk
from engine.sources.threads import Stalled, Threads, begin, result, within


@dataclass
class Driver:
    """What a native driver does to threads: it opens, reads, blocks and closes."""

    opened: int = 0
    closed: int = 0
    live: int = 0
    most: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def session(self) -> Iterator[int]:
        with self.lock:
            self.opened += 1
        try:
            yield self.opened
        finally:
            with self.lock:
                self.closed += 1

    def read(self, _: int, piece: int) -> Iterator[Chunk]:
        for part in range(3):
            with self.lock:
                self.live += 1
                self.most = max(self.most, self.live)
            yield Chunk(piece, "here", pl.LazyFrame({"piece": [piece], "part": [part]}), 1, part=part, last=part == 2)

    def blocked(self, session: int, piece: int) -> Iterator[Chunk]:
        self.released.wait(60)
        yield from self.read(session, piece)


def chunks(driver: Driver, pieces: int, workers: int = 2, deadline: float = 10) -> Iterator[Chunk]:
    return Threads(driver.session, driver.read, workers=workers, deadline=deadline).chunks(range(pieces))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("pieces", [0, 1, 2, 40])
def test_every_part_of_every_piece_arrives_once_and_in_order(workers: int, pieces: int) -> None:
    driver = Driver()
    parts: dict[int, list[int]] = {}
    for chunk in chunks(driver, pieces, workers):
        parts.setdefault(chunk.number, []).append(chunk.part)
    assert parts == {piece: [0, 1, 2] for piece in range(pieces)}
    assert driver.opened == driver.closed == min(workers, pieces)


def test_what_is_read_ahead_is_bounded() -> None:
    """One chunk for each thread, one between, one with the caller."""
    driver = Driver()
    for _ in chunks(driver, 40):
        threading.Event().wait(0.002)
        with driver.lock:
            driver.live -= 1
    assert driver.most <= 4


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_pieces_are_begun_than_there_are_threads(workers: int) -> None:
    """What is begun and has not been used is what a killed run's next one reads again."""
    driver, begun = Driver(), []

    def read(session: int, piece: int) -> Iterator[Chunk]:
        begun.append(piece)
        yield from driver.read(session, piece)

    used = 0
    for chunk in Threads(driver.session, read, workers=workers, deadline=10).chunks(range(20)):
        threading.Event().wait(0.005)
        assert len(begun) <= used + workers
        used += chunk.last
    assert (used, sorted(begun)) == (20, list(range(20)))


@pytest.mark.parametrize("where", ["session", "read"])
def test_an_error_of_a_thread_is_the_callers(where: str) -> None:
    class Panic(BaseException):
        """Native code raises what is no Exception."""

    driver = Driver()

    def session() -> Iterator[int]:
        raise Panic
        yield 0  # type: ignore[unreachable]

    def read(session: int, piece: int) -> Iterator[Chunk]:
        yield from driver.read(session, piece)
        if piece == 2:
            raise Panic

    opened = contextmanager(session) if where == "session" else driver.session
    with pytest.raises(Panic):
        list(Threads(opened, read, deadline=10).chunks(range(5)))
    assert driver.opened == driver.closed


def test_leaving_cancels_what_goes_on_and_closes_it() -> None:
    driver, cancelled, waiting = Driver(), [], threading.Event()

    def read(session: int, piece: int) -> Iterator[Chunk]:
        if piece == 1:
            waiting.set()
            driver.released.wait(60)
        yield from driver.read(session, piece)

    def cancel(session: int) -> None:
        cancelled.append(session)
        driver.released.set()

    reading = Threads(driver.session, read, cancel=cancel, deadline=10).chunks(range(2))
    next(reading)
    waiting.wait(10)
    reading.close()  # type: ignore[attr-defined]
    assert cancelled
    assert driver.opened == driver.closed == 2


def test_a_thread_that_does_not_answer_is_left_behind() -> None:
    driver = Driver()
    hanging = threading.Event()

    def cancel(_: int) -> None:
        hanging.wait(60)  # also this may hang

    with pytest.raises(Stalled):
        list(Threads(driver.session, driver.blocked, cancel=cancel, deadline=0.1).chunks(range(3)))
    assert driver.closed == 0
    driver.released.set()
    hanging.set()


def test_one_call() -> None:
    def fails() -> None:
        raise TimeoutError("its own")

    assert within(10, lambda: 7) == 7
    with pytest.raises(TimeoutError, match="its own"):
        within(10, fails)
    released = threading.Event()
    with pytest.raises(Stalled):
        within(0.05, lambda: released.wait(60))
    released.set()
    future = begin(lambda: threading.current_thread())
    assert result(future, 10) is not threading.main_thread()

"""The pages of a REST source, in order, some of them asked for ahead; what cannot be the whole of it is an error.

The pages of a counted style (page, offset) end with an empty one, or with a 404 after the first. A page shorter than
the one before it ends them too when the next request brings nothing new, which is how servers behave that answer every
number beyond the last page with the last page. A page shorter than ``size`` ends nothing: servers cap sizes; the next
offset is counted by what came. An empty page, or a 404, that a page with records follows is asked for again, and if it
stays so, an error. The pages of the other styles end where the answer names no next one; empty ones may lie between.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import polars as pl

from engine.errors import SourceError, TransientSourceError
from engine.sources import answer as answers
from engine.sources.answer import Answer, NotRecords, Shape, plain
from engine.sources.http import Fetcher, Reply
from engine.sources.paging import Odd, Paging, Place
from engine.sources.threads import Workers
from engine.spec import ApiSpec
from engine.stopwatch import waiting

FLIGHT_BYTES = 32 * 2**20  # of the pages that are asked for at a time, as far as can be told
MOST_EMPTY = 100  # pages one after the other, where they need not be the end

Read = tuple[Reply, Answer] | None


@dataclass(frozen=True)
class Page:
    """A page with records.

    Attributes:
        next: the page that follows; None: this is the last one.
        total: how many records there are, as the server says.
        shorter: whether the page before has more records.
    """

    place: Place
    answer: Answer
    next: Place | None
    total: int | None
    shorter: bool = False

    @property
    def rows(self) -> int:
        return self.answer.records.height


class Pages:
    """The pages of a source, all or from one on.

    Args:
        rows: how many the pages before have.
        before: the page before; None: there is none.
    """

    def __init__(
        self, spec: ApiSpec, name: str, fetcher: Fetcher, paging: Paging, rows: int = 0, before: Page | None = None
    ) -> None:
        self._spec, self._name, self._fetcher, self._paging = spec, name, fetcher, paging
        self._key = tuple(spec.data_key.split(".")) if spec.data_key else ()
        self.rows, self.total = rows, before.total if before else None
        self._shape: Shape | None = None
        self._flight: deque[tuple[Place, Future[Read]]] = deque()
        self._ahead: Place | None = None
        self._window = 1
        self._slowed = 0
        self._first: Answer | None = None
        self._previous = before.answer if before else None
        self._shorter = before.shorter if before else False
        self._seen: set[str] = set()
        self._workers = Workers()

    def read(self, place: Place) -> Read:
        """One page; None: there is no such page.

        Raises:
            SourceError: it cannot be had, or is none.
        """
        reply = self._paging.fetched(self._fetcher, place)
        if reply is None:
            return None
        try:
            found = answers.read(
                reply.body,
                self._key,
                self._shape,
                texts=self._spec.nested == "json",
                where=f"sources.{self._name}",
                origin="the answer" if self._spec.pagination.style == "none" else f"page {place.number}",
            )
        except NotRecords as error:
            fixes = {
                "not_json": "check the url: does it answer with JSON?",
                "data_key": "set data_key to where the records are; data_key: null is the body itself",
                "not_records": "set data_key to where the records are",
            }
            allowed = "a list of objects" if error.kind == "not_records" else error.allowed
            raise self._error(str(error), f"source.{error.kind}", fixes[error.kind], allowed) from None
        return reply, found

    def facts(self, place: Place, read: tuple[Reply, Answer]) -> Page:
        """What a page that has been read says."""
        reply, answer = read
        try:
            following = self._paging.after(place, self._fetcher, reply, answer)
            return Page(place, answer, following, self._paging.total(answer))
        except Odd as error:
            raise self._error(
                f"page {place.number}: {error}",
                "source.next_page",
                "correct pagination.next_key or pagination.total_key",
                "a text or a number; null or nothing at the last page",
            ) from None

    def run(self, start: Place) -> Iterator[Page]:
        """The pages with records, in order.

        Raises:
            TransientSourceError: the records changed while they were read.
            SourceError: a page cannot be had, or the pages cannot be all there are.
        """
        try:
            yield from self._run(start)
        finally:
            self._workers.leave()

    def _run(self, start: Place) -> Iterator[Page]:
        self._ahead = start
        empty = 0
        while True:
            self._launch()
            if not self._flight:
                break
            place, future = self._flight.popleft()
            with waiting("source"):
                read = future.result()
            page = self.facts(place, read) if read else None
            if self._spec.pagination.counted and (page is None or page.rows == 0):
                page = self._after_empty(place)
            if page is None:
                break
            if page.rows == 0:
                empty += 1
                self._counted(page)
                self._lead_on(page, empty)
                continue
            empty = 0
            if self._is_repeated(page):
                break
            done = self._counted(page)
            self._lead_on(page, 0)
            if done:
                self._ahead = None
                self._flight.clear()
                yield replace(page, next=None, shorter=self._shorter)
                break
            self._launch()
            yield replace(page, shorter=self._shorter)
        if self.total is not None and self.rows != self.total:
            raise self._transient(f"the server counts {self.total} records, but {self.rows} came", "count_mismatch")

    def _launch(self) -> None:
        """Asks for pages ahead."""
        typical = self._previous.records.height if self._previous else 0
        while self._ahead is not None and len(self._flight) < self._window:
            if self._flight and self.total is not None and self.rows + typical * len(self._flight) >= self.total:
                break
            place = self._ahead
            self._flight.append((place, self._workers.begin(lambda place=place: self.read(place))))  # type: ignore[misc]
            self._ahead = self._paging.ahead(place, typical)

    def _lead_on(self, page: Page, empty: int) -> None:
        """Learns from a page how to ask for the ones after it."""
        answer, spec = page.answer, self._spec.pagination
        if answer.shape is not None and answer.shape is not self._shape:
            self._shape = answer.shape if self._shape is None else self._shape.wider(answer.shape)
        if not spec.counted:
            self._follow(page, empty)
        elif spec.style == "offset" and (self._previous is None or page.rows != self._previous.records.height):
            self._flight.clear()  # asked for by another size
            self._ahead = page.next
        self._shorter = self._previous is not None and page.rows < self._previous.records.height
        self._first = self._first or answer
        self._previous = answer
        slowed, self._slowed = self._fetcher.slowed > self._slowed, self._fetcher.slowed
        self._window = max(1, self._window // 2) if slowed else self._window * 2
        fits = FLIGHT_BYTES // max(1, answer.bytes)
        self._window = max(1, min(self._window, spec.in_flight, fits))

    def _follow(self, page: Page, empty: int) -> None:
        self._seen.add(str(page.place.at))
        self._ahead = page.next
        if page.next is not None and str(page.next.at) in self._seen:
            raise self._error(
                f"page {page.place.number} names as the next one a page that has been read already",
                "source.repeated_page",
                "look at the server: its pages lead in a circle",
                "a next page that has not been read",
            )
        if empty >= MOST_EMPTY:
            raise self._error(
                f"{empty} pages in a row are empty, and each names a next one",
                "source.empty_page",
                "look at the server: its pages may never end",
            )

    def _after_empty(self, place: Place) -> Page | None:
        """An empty page, read again, if it is not the end; None: it is.

        Raises:
            SourceError: it stays empty, but one with records follows.
        """
        ahead = self._flight.popleft() if self._flight else None
        if ahead is None and self._previous is not None:
            following = self._paging.ahead(place, self._previous.records.height)
        elif ahead is None:
            following = self._paging.ahead(place, self._spec.pagination.size)
        else:
            following = ahead[0]
        self._flight.clear()
        if following is None:
            return None
        try:
            read = ahead[1].result() if ahead else self.read(following)
        except SourceError:  # how some servers answer what lies beyond the end
            return None
        if read is None or read[1].records.height == 0:
            return None
        if self._previous is not None and same(read[1].records, self._previous.records):
            return None
        again = self.read(place)
        if again is None or again[1].records.height == 0:
            raise self._error(
                f"page {place.number} is empty, but page {following.number} has records",
                "source.empty_page",
                "look at the server; where it hides records of full pages, ask for a style of pages that has no gaps",
                "empty pages only after the last one",
            )
        self._ahead = following
        return self.facts(place, again)

    def _is_repeated(self, page: Page) -> bool:
        """Whether this is the last page over again.

        Raises:
            SourceError: it is an earlier page over again, but not at the end.
        """
        before = [(self._previous, page.place.number - 1), (self._first, "one")]
        for answer, which in before:
            if answer is None or answer.head != page.answer.head or not same(answer.records, page.answer.records):
                continue
            if self._shorter and answer is self._previous:
                return True
            raise self._error(
                f"page {page.place.number} repeats the records of page {which}",
                "source.repeated_page",
                "correct pagination.param, or write pagination: {style: none}",
                "a query parameter that the server counts pages by",
            )
        return False

    def _counted(self, page: Page) -> bool:
        """Whether all records are there, by the server's own count."""
        self.rows += page.rows
        if page.total is None:
            return False
        if self.total is not None and page.total != self.total:
            raise self._transient(
                f"the server counted {self.total} records, and {page.total} when asked for page {page.place.number}",
                "changed_total",
            )
        self.total = page.total
        if self.rows > self.total:
            raise self._transient(f"the server counts {self.total} records, but {self.rows} came", "count_mismatch")
        return self.rows == self.total

    def _transient(self, message: str, code: str) -> SourceError:
        return TransientSourceError(
            f"{self._fetcher.location}: {message}",
            code=f"source.{code}",
            where=f"sources.{self._name}",
            fix="records came or went while they were read: run again; where that never ends, remove total_key",
        )

    def _error(self, message: str, code: str, fix: str, allowed: str | None = None) -> SourceError:
        return self._fetcher.error(message, code=code, fix=fix, allowed=allowed)


def same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Whether two pages have the same records; absent and null are the same here, and so are 1 and 1.0."""
    if one.height != other.height:
        return False
    return bool(plain(one.to_dicts()) == plain(other.to_dicts()))


def digest(frame: pl.DataFrame) -> str:
    """Equal for pages that are the `same`."""
    text = json.dumps(plain(frame.to_dicts()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

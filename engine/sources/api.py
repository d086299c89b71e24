"""REST resources that answer with JSON, in one request or page by page; a stopped reading goes on from its pages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from engine.errors import SourceError
from engine.sources import Chunk, CursorValue, Promise, Reading, Request, Span
from engine.spec import ApiSpec, secrets_of
from engine.types import redact

if TYPE_CHECKING:
    import polars as pl

    from engine.sources.http import Fetcher
    from engine.sources.pages import Page
    from engine.sources.paging import Place

CHUNK_BYTES = 64 * 2**20
ZONED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9]{2}:?[0-9]{2})$"
UNZONED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+$"
GONE = range(400, 500)  # what a server says of a page that it no longer knows


class ApiSource:
    """Reads records page by page. A piece is a run of whole pages, of ``batch_size`` records or about 64 MB of JSON."""

    kind = "api"

    def __init__(self, name: str, spec: ApiSpec, *, sleep: Callable[[float], object] | None = None) -> None:
        from engine.sources.http import location

        self._name = name
        self._spec = spec
        self._sleep = sleep
        self.location = location(spec.url)

    @contextmanager
    def open(self, request: Request) -> Iterator[Reading]:
        """See `engine.sources.Source.open`."""
        from engine.sources.http import Fetcher

        with Fetcher(self._name, self._spec, self._sleep) as fetcher:
            yield _Reading(self._name, self._spec, fetcher, request)


class _Reading:
    """See `engine.sources.Reading`.

    A piece's mark names its last page with a digest of its records, and the page that follows. The page is read again
    before a later reading goes on from there: where it is another now, records have moved, and all is read anew.
    """

    def __init__(self, name: str, spec: ApiSpec, fetcher: Fetcher, request: Request) -> None:
        from engine.sources.credentials import fixed_params
        from engine.sources.paging import Paging

        self._name, self._spec, self._fetcher = name, spec, fetcher
        self._location = fetcher.location
        params = {key: _text(value) for key, value in spec.params.items()} | fixed_params(spec)
        asked = {key: value for key, value in params.items() if key not in fixed_params(spec)}
        self.trace = request.trace
        if spec.since_param and request.since is not None:
            zone = (request.trace or {}).get("zone", "")
            params[spec.since_param] = asked[spec.since_param] = _since(request.since, zone)
        self._paging = Paging(spec, params)
        self.promise = Promise(late_commits="within_lateness" if spec.cursor else None)
        self.seal: Mapping[str, Any] | None = (
            None if spec.pagination.style == "none" else {"asked": _digest(self._location, spec, asked)}
        )
        self.bound: datetime | None = None
        self._began = datetime.now(UTC).replace(microsecond=0)
        # Columns of lists or objects that have become JSON text, and those of other texts: no column may be both.
        self._texts: set[str] = set()
        self._others: set[str] = set()
        self._before: Page | None = None  # the last page that has landed
        self._mark = self._held(request)
        self._pieces = len(request.landed) if self._mark else 0
        self.kept = frozenset(range(self._pieces))

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Not of these sources."""
        raise NotImplementedError

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        from engine.sources.pages import Pages
        from engine.sources.paging import Place

        mark = self._mark or {}
        pages = Pages(self._spec, self._name, self._fetcher, self._paging, mark.get("rows", 0), self._before)
        if self._spec.pagination.style == "none":
            yield from self._whole(pages)
            self._end(pages.total)
            return
        start = self._paging.first()
        if self._mark:
            following = self._mark["next"]
            if following is None:
                self._end(pages.total)
                return
            start = Place.of(following)
        gathered: list[Page] = []
        number = self._pieces
        rows = before = mark.get("rows", 0)
        for page in pages.run(start):
            so_far = sum(p.rows for p in gathered)
            if gathered and so_far + page.rows > self._spec.batch_size:
                rows += so_far
                yield from self._piece(number, gathered, gathered[-1].next, rows)
                number, gathered = number + 1, []
            gathered.append(page)
            full = sum(p.rows for p in gathered) >= self._spec.batch_size
            if full or sum(p.answer.bytes for p in gathered) >= CHUNK_BYTES:
                rows += sum(p.rows for p in gathered)
                yield from self._piece(number, gathered, page.next, rows)
                number, gathered = number + 1, []
        if gathered:
            rows += sum(p.rows for p in gathered)
            yield from self._piece(number, gathered, None, rows)
        if rows != pages.rows:
            raise AssertionError(f"{pages.rows - before} records were read, but {rows - before} handed on")
        self._end(pages.total)

    def _whole(self, pages: Any) -> Iterator[Chunk]:
        """The records of a source that is not cut into pages."""
        place = self._paging.first()
        read = pages.read(place)
        if read is None:
            return
        page = pages.facts(place, read)
        pages.total = page.total
        if page.total is not None and page.total != page.rows:
            raise self._error(
                f"the server counts {page.total} records, but {page.rows} came",
                "source.count_mismatch",
                "it answers with a part only: declare pagination",
            )
        frame = self._shaped([page], self._location)
        self._tell_zone(frame)
        for number, first in enumerate(range(0, page.rows, self._spec.batch_size)):
            part = frame.slice(first, self._spec.batch_size)
            origin = f"{self._location} records {first}-{first + part.height - 1}"
            spans = [Span(self._location, first, part.height)]
            yield Chunk(number, origin, part.lazy(), part.height, open_schema=True, spans=spans)

    def _end(self, total: int | None) -> None:
        """All is read. What has changed meanwhile may have been read before: the next reading begins where this did."""
        self.promise = replace(self.promise, counted=total is not None)
        self.bound = self._start() if self._spec.cursor else None

    def _start(self) -> datetime:
        """When this reading began, by the earlier one of two clocks."""
        return min(self._began, self._fetcher.date or self._began)

    # --- pieces -----------------------------------------------------------------------------------------------------

    def _piece(self, number: int, pages: Sequence[Page], following: Place | None, rows: int) -> Iterator[Chunk]:
        """Pages as a piece, in parts of ``batch_size`` records.

        Args:
            rows: how many all pages up to here have.
        """
        from engine.sources.pages import digest

        last = pages[-1]
        origin = f"{self._location} pages {pages[0].place.number}-{last.place.number}"
        frame = self._shaped(pages, origin)
        self._tell_zone(frame)
        mark = {
            "last": last.place.to_dict(),
            "digest": digest(last.answer.records),
            "next": following.to_dict() if following else None,
            "rows": rows,
            "total": last.total,
            "shorter": last.shorter,
            "began": self._start().isoformat(),
            "texts": sorted(self._texts),
            "others": sorted(self._others) if self._spec.nested == "json" else [],
            "trace": self.trace,
        }
        spans = [Span(f"{self._location} page {page.place.number}", 0, page.rows) for page in pages]
        size = self._spec.batch_size
        for part, first in enumerate(range(0, frame.height, size)):
            of_part, spans = _split(spans, min(size, frame.height - first))
            piece = frame.slice(first, size)
            end = first + size >= frame.height
            given = mark if end else None
            yield Chunk(
                number,
                origin,
                piece.lazy(),
                piece.height,
                open_schema=True,
                part=part,
                last=end,
                mark=given,
                spans=of_part,
            )

    def _shaped(self, pages: Sequence[Page], origin: str) -> pl.DataFrame:
        """The records of some pages as one frame, nested ones as declared."""
        from engine.sources.nesting import Clash, flat, stacked
        from engine.widening import Inexact, Unfit

        try:
            for page in pages:
                self._tell_texts(page)
            frame = stacked([page.answer.records for page in pages])
            return flat(frame) if self._spec.nested == "flatten" else frame
        except Unfit as error:
            inexact = isinstance(error, Inexact)
            raise self._error(
                f"column {error.path!r} holds integers in one page and fractions, or larger ones, in another; no type "
                f"holds them all exactly ({origin})"
                if inexact
                else f"column {error.path!r} mixes {' and '.join(error.kinds)} ({origin})",
                "source.inexact_number" if inexact else "source.mixed_column",
                "have the source write these numbers as text"
                if inexact
                else "have the source write one kind, for example every value as text",
                "one kind of value per column, integers from -2^63 to 2^64-1; null and absent are always fine",
            ) from None
        except Clash as error:
            raise self._error(
                f"nested: flatten gives two columns the name {str(error)!r} ({origin})",
                "source.flatten_collision",
                "use nested: struct or json",
            ) from None

    def _tell_texts(self, page: Page) -> None:
        """Keeps texts apart from what has become text.

        Raises:
            Unfit: a column has both.
        """
        import polars as pl

        from engine.widening import Unfit

        if self._spec.nested != "json":
            return
        frame, texts = page.answer.records, page.answer.texts
        self._texts |= texts
        self._others |= {c for c, t in frame.schema.items() if t == pl.String and c not in texts}
        for column in sorted(self._texts & self._others):
            raise Unfit(column, pl.String(), pl.List(pl.Null()), pl.Struct([]))

    def _tell_zone(self, frame: pl.DataFrame) -> None:
        """Keeps the time zone that the cursor's texts are written with: positions lose it."""
        import polars as pl

        named = {new: old for old, new in self._spec.column_mapping.items()}
        cursor = named.get(self._spec.cursor or "", self._spec.cursor)
        if cursor is not None and frame.schema.get(cursor) == pl.String:
            zones = frame[cursor].str.extract(ZONED).drop_nulls()
            if zones.len():
                self.trace = {"zone": zones[0]}

    # --- going on ---------------------------------------------------------------------------------------------------

    def _held(self, request: Request) -> Mapping[str, Any] | None:
        """The mark of the last piece that landed, if what lies before it is as it was; None: all is read anew."""
        from engine.sources.http import Refusal
        from engine.sources.pages import Pages, digest
        from engine.sources.paging import Place

        landed = sorted(request.landed, key=lambda piece: piece.number)
        in_order = [piece.number for piece in landed] == list(range(len(landed)))
        if self.seal is None or request.seal != self.seal or not landed or not in_order:
            return None
        mark = landed[-1].mark
        pages = Pages(self._spec, self._name, self._fetcher, self._paging)
        place = Place.of(mark["last"])
        try:
            read = pages.read(place)
        except Refusal as error:
            if error.status in GONE and error.status != 401:
                return None
            raise
        if read is None:
            return None
        page = pages.facts(place, read)
        if digest(page.answer.records) != mark["digest"] or page.total != mark["total"]:
            return None
        self._before = replace(page, shorter=mark["shorter"])
        self._began = datetime.fromisoformat(mark["began"])
        self.trace = mark["trace"]
        self._texts, self._others = set(mark["texts"]), set(mark["others"])
        return mark

    def _error(self, message: str, code: str, fix: str, allowed: str | None = None) -> SourceError:
        text = redact(f"{self._location}: {message}", secrets_of(self._spec))
        return SourceError(text, code=code, where=f"sources.{self._name}", allowed=allowed, fix=fix)


def _split(spans: Sequence[Span], rows: int) -> tuple[list[Span], list[Span]]:
    """The spans of the first ``rows`` rows, and of the others."""
    head, tail = [], []
    for span in spans:
        count = min(span.rows, rows)
        rows -= count
        if count:
            head.append(replace(span, rows=count))
        if count < span.rows:
            tail.append(replace(span, first=(span.first or 0) + count, rows=span.rows - count))
    return head, tail


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _since(value: CursorValue, zone: str) -> str:
    """A cursor's value as a query parameter.

    Args:
        zone: that the source writes moments with; one that has lost it may be of that zone, or of UTC.
    """
    if isinstance(value, str) and zone and re.match(UNZONED, value):
        return min(value + zone, f"{value}Z", key=datetime.fromisoformat)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)


def _digest(location: str, spec: ApiSpec, asked: Mapping[str, str]) -> str:
    """Of all that says which records are asked for, and in which pages."""
    paging = spec.pagination.model_dump(mode="json", exclude={"in_flight"})
    said = [location, spec.url.partition("?")[2], dict(asked), paging, spec.data_key, spec.nested]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

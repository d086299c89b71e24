"""REST resources that answer with JSON, in one request or page by page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import SourceError
from engine.sources import Chunk, Reading, Request, Span, plain
from engine.spec import ApiSpec, secrets_of
from engine.types import redact

if TYPE_CHECKING:
    from engine.sources.http import Fetcher

CHUNK_BYTES = 64 * 2**20
KEYS_SHOWN = 20

Records = list[dict[str, Any]]


class ApiSource:
    """Reads records page by page, gathered to chunks of ``batch_size`` records or about 64 MB of JSON.

    The pages end with an empty one, or with a 404 after the first. A page shorter than the one before it ends them
    too when the next request brings nothing new, which is how servers behave that answer every number beyond the
    last page with the last page. A page shorter than ``size`` ends nothing: servers cap sizes. A full page that
    repeats the page before it, or the first one, is an error: the server does not know the parameter.
    """

    kind = "api"

    def __init__(self, name: str, spec: ApiSpec, *, sleep: Callable[[float], object] = time.sleep) -> None:
        from engine.sources.http import location

        self._name = name
        self._spec = spec
        self._sleep = sleep
        self.location = location(spec.url)

    def open(self, request: Request) -> AbstractContextManager[Reading]:  # noqa: ARG002 - each reads anew
        """See `engine.sources.Source.open`."""
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        from engine.sources.http import Fetcher

        with Fetcher(self._name, self._spec, self._sleep) as fetcher:
            if self._spec.pagination.style == "none":
                records, _ = self._page(fetcher, None)
                for number, start in enumerate(range(0, len(records), self._spec.batch_size)):
                    part = records[start : start + self._spec.batch_size]
                    span = Span(self.location, start, len(part))
                    yield self._chunk(number, f"records {start}-{start + len(part) - 1}", part, [span])
                return
            gathered: Records = []
            spans: list[Span] = []
            size = number = 0
            first = page = self._spec.pagination.start
            for page, records, length in self._pages(fetcher):
                gathered += records
                spans.append(Span(f"{self.location} page {page}", 0, len(records)))
                size += length
                while len(gathered) >= self._spec.batch_size or size >= CHUNK_BYTES:
                    part, gathered = gathered[: self._spec.batch_size], gathered[self._spec.batch_size :]
                    of_part, spans = _split(spans, len(part))
                    yield self._chunk(number, f"pages {first}-{page}", part, of_part)
                    number, size = number + 1, 0
                    first = page if gathered else page + 1
            if gathered:
                yield self._chunk(number, f"pages {first}-{page}", gathered, spans)

    def _pages(self, fetcher: Fetcher) -> Iterator[tuple[int, Records, int]]:
        """Number, records and bytes of each page that is not empty."""
        number = self._spec.pagination.start
        first: Records = []
        previous: Records = []
        shorter = False
        while True:
            records, length = self._page(fetcher, number)
            if not records:
                return
            if records in (previous, first):
                if shorter and records == previous:
                    return
                raise self._error(
                    f"page {number} repeats the records of page {number - 1 if records == previous else 'one'}",
                    code="source.repeated_page",
                    allowed="a query parameter that the server counts pages by",
                    fix="correct pagination.param, or write pagination: {style: none}",
                )
            yield number, records, length
            shorter = bool(previous) and len(records) < len(previous)
            first = first or records
            previous = records
            number += 1

    def _page(self, fetcher: Fetcher, number: int | None) -> tuple[Records, int]:
        """The records of a page, none where it does not exist, and the size of the answer in bytes."""
        params = {name: self._text(value) for name, value in self._spec.params.items()}
        pages = self._spec.pagination
        if number is not None:
            params[pages.param] = str(number)
            if pages.size_param is not None:
                params[pages.size_param] = str(pages.size)
        body = fetcher.get(params, absent=number is not None and number > pages.start)
        if body is None:
            return [], 0
        return self._records(body, "the answer" if number is None else f"page {number}"), len(body)

    @staticmethod
    def _text(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)

    def _records(self, body: bytes, what: str) -> Records:
        from engine.sources import records

        try:
            value = records.parse(body)
        except ValueError as error:
            raise self._error(
                f"{what} is not JSON: {error}",
                code="source.not_json",
                fix="check the url: does it answer with JSON?",
            ) from None
        key = self._spec.data_key
        for step in key.split(".") if key else ():
            if not isinstance(value, dict) or step not in value:
                keys = list(value)[:KEYS_SHOWN] if isinstance(value, dict) else []
                raise self._error(
                    f"{what} has no {key!r}",
                    code="source.data_key",
                    allowed=f"of {step!r}'s level: {', '.join(keys)}" if keys else f"it is a {_kind(value)}",
                    fix="set data_key to where the records are; data_key: null is the body itself",
                )
            value = value[step]
        if value is None:  # how some servers write a list without items
            return []
        if not isinstance(value, list):
            raise self._not_records(f"{what} holds a {_kind(value)} where records should be")
        odd = [item for item in value if type(item) is not dict]
        if odd:
            raise self._not_records(f"{what} holds a list with a {_kind(odd[0])} in it")
        return value

    def _chunk(self, number: int, pages: str, part: Records, spans: Sequence[Span]) -> Chunk:
        from engine.sources import records

        origin = f"{self.location} {pages}"
        frame = records.frame(part, where=f"sources.{self._name}", origin=origin)
        return Chunk(number, origin, frame.lazy(), len(part), open_schema=True, spans=spans)

    def _not_records(self, message: str) -> SourceError:
        return self._error(
            message,
            code="source.not_records",
            allowed="a list of objects",
            fix="set data_key to where the records are",
        )

    def _error(self, message: str, *, code: str, fix: str, allowed: str | None = None) -> SourceError:
        text = redact(f"{self.location}: {message}", secrets_of(self._spec))
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


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")

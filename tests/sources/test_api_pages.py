"""Every style of pages against a real HTTP server, and pages that cannot be the whole of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.sources import Request as Asked
from engine.sources import pages
from engine.sources.api import ApiSource
from tests.servers import rest
from tests.servers.rest import Answer, Request
from tests.sources.reads import chunks_of, collected
from tests.sources.test_api import Sleeps, api

RECORDS = [{"id": i, "name": f"n{i}"} for i in range(95)]
Answering = Callable[[Request], Answer]


def read(url: str, **keys: Any) -> pl.DataFrame:
    return collected(chunks_of(ApiSource("s", api(url, **keys), sleep=Sleeps())))


def fails(answer: Answering, code: str, text: str, **keys: Any) -> SourceError:
    with rest.running(answer) as server, pytest.raises(SourceError, match=text) as caught:
        read(server.url, **keys)
    assert caught.value.code == code
    assert caught.value.fix
    return caught.value


def page(number: int, size: int = 10) -> list[dict[str, Any]]:
    return RECORDS[number * size : (number + 1) * size]


# --- styles ------------------------------------------------------------------------------------------------------


def by_page(request: Request) -> Answer:
    return Answer({"data": page(int(request.params["page"]) - 1), "total": len(RECORDS)})


def by_offset(request: Request) -> Answer:
    start, size = int(request.params["offset"]), int(request.params["limit"])
    return Answer({"data": RECORDS[start : start + size], "total": len(RECORDS)})


def by_cursor(request: Request) -> Answer:
    """The cursor says nothing to the client, is sometimes a number, and leads through empty pages."""
    number = int(request.params.get("cursor", "c0").removeprefix("c"))
    following: Any = None if number == 18 else number + 1 if number % 2 else f"c{number + 1}"
    return Answer({"data": page(number // 2) if number % 2 == 0 else [], "meta": {"next": following}})


def by_link(request: Request) -> Answer:
    number = int(request.params.get("at", 0))
    links = [f'</x?at={number - 1}>; rel="prev"', f'</x?at={number + 1}&q=a,b;c>; rel="next last"']
    return Answer(page(number), headers={"Link": ", ".join(links if number < 9 else links[:1])})


def by_url(request: Request) -> Answer:
    number = int(request.params.get("at", 0))
    return Answer({"data": page(number), "links": {"next": f"?at={number + 1}" if number < 9 else ""}})


STYLES: list[tuple[Answering, dict[str, Any]]] = [
    (by_page, {"pagination": {"style": "page", "size": 10}}),
    (by_page, {"pagination": {"style": "page", "size": 10, "total_key": "total"}}),
    (by_page, {"pagination": {"style": "page", "size": 10, "in_flight": 1}}),
    (by_offset, {"pagination": {"style": "offset", "size": 10}}),
    (by_offset, {"pagination": {"style": "offset", "size": 10, "total_key": "total"}}),
    (by_cursor, {"pagination": {"style": "cursor", "next_key": "meta.next"}}),
    (by_link, {"pagination": {"style": "link"}, "data_key": None}),
    (by_url, {"pagination": {"style": "next_url", "next_key": "links.next"}}),
]


@pytest.mark.parametrize(("answer", "keys"), STYLES)
def test_every_record_in_order(answer: Answering, keys: dict[str, Any]) -> None:
    with rest.running(answer) as server:
        assert read(f"{server.url}/x", **keys).to_dicts() == RECORDS
        assert {request.headers["Authorization"] for request in server.requests} == {"Bearer top-secret-token"}


def test_pages_ahead_come_in_order_though_the_first_one_is_the_last_to_be_answered() -> None:
    """The server holds each page back until three are asked for."""
    waiting = threading.Barrier(3)
    most: Counter[str] = Counter()

    def answer(request: Request) -> Answer:
        number = int(request.params["page"])
        if 4 <= number <= 6:  # by now there are several in flight
            waiting.wait(10)
            most["held"] += 1
        return by_page(request)

    with rest.running(answer) as server:
        assert read(server.url, pagination={"style": "page", "size": 10}).to_dicts() == RECORDS
    assert most["held"] == 3


def test_no_more_in_flight_than_declared() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return by_page(request)
        finally:
            with lock:
                now[0] -= 1

    with rest.running(answer) as server:
        read(server.url, pagination={"style": "page", "size": 10, "in_flight": 2})
        assert most[0] <= 2


def test_the_count_of_the_server_saves_the_requests_beyond_the_end() -> None:
    with rest.running(by_page) as server:
        source = ApiSource("s", api(server.url, pagination={"style": "page", "size": 10, "total_key": "total"}))
        with source.open(Asked()) as opened:
            assert collected(opened.chunks()).height == 95
            assert opened.promise.counted
        assert sorted(int(r.params["page"]) for r in server.requests) == list(range(1, 11))


def test_offsets_go_on_by_what_came_where_the_server_caps_sizes() -> None:
    def answer(request: Request) -> Answer:
        start = int(request.params["offset"])
        return Answer({"data": RECORDS[start : start + 7]})

    with rest.running(answer) as server:
        assert read(server.url, pagination={"style": "offset", "size": 10}).to_dicts() == RECORDS


def test_a_record_alone_on_its_page() -> None:
    with rest.running(lambda r: Answer({"data": page(int(r.params["offset"]), 1)})) as server:
        assert read(server.url, pagination={"style": "offset", "size": 1}).to_dicts() == RECORDS


# --- pages that cannot be all there are --------------------------------------------------------------------------


def without(number: int, times: int) -> Answering:
    """A server that leaves a page empty so many times."""
    left = [times]

    def answer(request: Request) -> Answer:
        if int(request.params["page"]) == number and left[0]:
            left[0] -= 1
            return Answer({"data": []})
        return by_page(request)

    return answer


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("number", [1, 5, 10])
def test_an_empty_page_in_the_middle_is_asked_for_again(number: int, in_flight: int) -> None:
    keys = {"style": "page", "size": 10, "in_flight": in_flight}
    with rest.running(without(number, 1)) as server:
        found = read(server.url, pagination=keys).to_dicts()
    # The last page cannot be told from the end of all, unless the server counts.
    assert found == (RECORDS if number < 10 else RECORDS[:90])


def test_a_page_in_the_middle_that_is_not_found() -> None:
    def answer(request: Request) -> Answer:
        return Answer("", 404) if request.params["page"] == "5" else by_page(request)

    fails(answer, "source.empty_page", "page 5 is empty", pagination={"style": "page", "size": 10})


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_page_in_the_middle_that_stays_empty(in_flight: int) -> None:
    keys = {"style": "page", "size": 10, "in_flight": in_flight}
    error = fails(without(5, 99), "source.empty_page", "page 5 is empty, but page 6 has records", pagination=keys)
    assert error.allowed == "empty pages only after the last one"


def test_a_last_page_that_stays_empty_where_the_server_counts() -> None:
    keys = {"style": "page", "size": 10, "total_key": "total"}
    fails(without(10, 99), "source.count_mismatch", "counts 95 records, but 90 came", pagination=keys)


def test_empty_pages_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_EMPTY", 5)
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.params.get("cursor", ""))
        return Answer({"data": [], "next": len(asked)})

    keys = {"style": "cursor", "next_key": "next"}
    fails(answer, "source.empty_page", "5 pages in a row are empty", pagination=keys)
    assert len(asked) == 5


@pytest.mark.parametrize("style", ["cursor", "link", "next_url"])
def test_pages_in_a_circle(style: str) -> None:
    """a → b → c → a; they hold other records each time."""
    count = [0]

    def answer(request: Request) -> Answer:
        count[0] += 1
        at = request.params.get("cursor", "a")
        following = chr(ord("a") + (ord(at) - ord("a") + 1) % 3)
        url = f"{request.path}?cursor={following}"
        body = {"data": [{"id": count[0]}], "next": following if style == "cursor" else url}
        return Answer(body, headers={"Link": f"<{url}>; rel=next"})

    keys = {"style": style} | ({} if style == "link" else {"next_key": "next"})
    fails(answer, "source.repeated_page", "a page that has been read already", pagination=keys)
    assert count[0] <= 4


@pytest.mark.parametrize("style", ["offset", "cursor", "next_url"])
def test_the_same_records_again(style: str) -> None:
    """The server ignores where it is asked to go on from."""
    count = [0]

    def answer(request: Request) -> Answer:
        count[0] += 1
        following = count[0] if style == "cursor" else f"?at={count[0]}"
        return Answer({"data": RECORDS[:10], "next": following})

    keys = {"style": style, "in_flight": 1} if style == "offset" else {"style": style, "next_key": "next"}
    fails(answer, "source.repeated_page", "page 2 repeats the records of page 1", pagination=keys)
    assert count[0] <= 2


def test_a_total_that_changes() -> None:
    def answer(request: Request) -> Answer:
        number = int(request.params["page"])
        return Answer({"data": page(number - 1), "total": 95 + (number > 4)})

    keys = {"style": "page", "size": 10, "total_key": "total"}
    error = fails(answer, "source.changed_total", "counted 95 records, and 96 when asked for page 5", pagination=keys)
    assert isinstance(error, TransientSourceError)


@pytest.mark.parametrize("total", [None, "many", -1, True, 1.5])
def test_a_total_that_is_none(total: Any) -> None:
    keys = {"style": "page", "size": 10, "total_key": "total"}
    answer = Answer({"data": page(0), "total": total})
    fails(lambda _: answer, "source.next_page", "total is no count of records", pagination=keys)


def test_one_answer_that_is_a_part_only() -> None:
    answer = Answer({"data": page(0), "meta": {"total": "95"}})
    keys = {"style": "none", "total_key": "meta.total"}
    fails(lambda _: answer, "source.count_mismatch", "counts 95 records, but 10 came", pagination=keys)


@pytest.mark.parametrize("following", [{"a": 1}, [1], True, 1.5])
def test_a_next_page_that_is_none(following: Any) -> None:
    answer = Answer({"data": page(0), "next": following})
    keys = {"style": "cursor", "next_key": "next"}
    fails(lambda _: answer, "source.next_page", "page 1: next is a", pagination=keys)


@pytest.mark.parametrize("style", ["link", "next_url"])
def test_a_next_page_of_another_origin(style: str) -> None:
    """It is not asked, with or without credentials."""
    with rest.running(lambda _: Answer({"data": []})) as other:
        body = {"data": page(0), "next": f"{other.url}/x"}
        said = Answer(body, headers={"Link": f"<{other.url}/x>; rel=next"})
        keys = {"style": style} | ({} if style == "link" else {"next_key": "next"})
        error = fails(
            lambda _: said, "source.redirect", "names as the next page one of another origin", pagination=keys
        )
        assert other.requests == []
    assert other.url in error.message


@pytest.mark.parametrize("following", ["http://[::1", "http://h:port/", "x" * 70_000])
def test_a_next_page_that_is_no_url(following: str) -> None:
    answer = Answer({"data": page(0), "next": following})
    keys = {"style": "next_url", "next_key": "next"}
    fails(lambda _: answer, "source.next_page", "next page is no URL", pagination=keys)


def test_the_first_page_may_redirect_and_the_others_stay() -> None:
    def answer(request: Request) -> Answer:
        if request.path == "/old":
            return Answer("", 301, {"Location": f"/new?{'&'.join(f'{k}={v}' for k, v in request.params.items())}"})
        return by_page(request)

    with rest.running(answer) as server:
        found = read(f"{server.url}/old", pagination={"style": "page", "size": 10})
    assert found.to_dicts() == RECORDS


# --- over-large, and what a body is packed in --------------------------------------------------------------------


def test_a_body_that_is_too_large() -> None:
    body = {"data": [{"x": "y" * 1_100_000}]}
    fails(lambda _: Answer(body), "source.too_large", "the answer is larger than 1MB", max_body="1MB")
    with rest.running(lambda _: Answer(body)) as server:
        assert read(server.url, max_body="2MB").height == 1

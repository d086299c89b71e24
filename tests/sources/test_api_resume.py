"""A reading of a REST source that stopped goes on from its pages, unless the records have moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.errors import SourceError
from engine.sources import Request as Asked
from engine.sources.api import ApiSource
from engine.spec import ApiSpec
from tests.servers import rest
from tests.servers.rest import Answer, Request
from tests.sources.interrupted import broken_off, continued
from tests.sources.test_api import api
from tests.sources.test_api_pages import RECORDS, STYLES, Answering, by_page, page

PAGED = {"style": "page", "size": 10, "in_flight": 1}


def source(url: str, **keys: Any) -> ApiSource:
    return ApiSource("s", api(url, **{"batch_size": 20, "pagination": PAGED, **keys}))


@pytest.mark.parametrize("pieces", [1, 3, 5])
@pytest.mark.parametrize(("answer", "keys"), STYLES)
def test_what_has_landed_is_not_read_again(answer: Answering, keys: dict[str, Any], pieces: int) -> None:
    with rest.running(answer) as server:
        asked = broken_off(source(server.url, **keys), pieces)
        before = len(server.requests)
        kept, frame = continued(source(server.url, **keys), asked)
        assert kept == frozenset(range(pieces))
        assert frame.to_dicts() == RECORDS[pieces * 20 :]
        if keys["pagination"].get("in_flight") == 1:  # what the first reading was about to ask for may come late
            again = {int(r.params["page"]) for r in server.requests[before:]}
            assert again == ({10} if pieces == 5 else set(range(pieces * 2, 13)))


def test_a_reading_whose_every_page_landed_asks_for_the_last_one_only() -> None:
    with rest.running(by_page) as server:
        asked = broken_off(source(server.url), 5)
        before = len(server.requests)
        kept, frame = continued(source(server.url), asked)
        assert (len(kept), frame.height) == (5, 0)
        assert [r.params["page"] for r in server.requests[before:]] == ["10"]


def moved(request: Request) -> Answer:
    """A record more, before all others."""
    records = [{"id": -1, "name": "new"}, *RECORDS]
    number = int(request.params["page"])
    return Answer({"data": records[number * 10 - 10 : number * 10], "total": 96})


def appended(request: Request) -> Answer:
    """A record more, after all others."""
    records = [*RECORDS, {"id": 95, "name": "n95"}]
    number = int(request.params["page"])
    return Answer({"data": records[number * 10 - 10 : number * 10], "total": 96})


def read_twice(first: Answering, second: Answering, **keys: Any) -> tuple[int, list[dict[str, Any]]]:
    """How many pieces are kept of two, and all records that then have landed."""
    answering = [first]
    with rest.running(lambda request: answering[0](request)) as server:
        asked = broken_off(source(server.url, **keys), 2)
        answering[0] = second
        kept, frame = continued(source(server.url, **keys), asked)
    return len(kept), [*RECORDS[: 20 * len(kept)], *frame.to_dicts()]


def test_records_that_moved_are_read_anew() -> None:
    assert read_twice(by_page, moved) == (0, [{"id": -1, "name": "new"}, *RECORDS])
    assert read_twice(by_page, appended) == (2, [*RECORDS, {"id": 95, "name": "n95"}])


def test_a_server_that_stays_at_its_last_page() -> None:
    """That page has landed, and nothing said yet that it was the last one."""

    def answer(request: Request) -> Answer:
        return Answer({"data": page(min(int(request.params["page"]), 10) - 1)})

    with rest.running(answer) as server:
        asked = broken_off(source(server.url, batch_size=5), 10)
        assert asked.landed[-1].mark["next"] == {"number": 11, "at": 11}
        kept, frame = continued(source(server.url, batch_size=5), asked)
    assert (len(kept), frame.height) == (10, 0)


def test_another_count_is_read_anew() -> None:
    keys = {"pagination": PAGED | {"total_key": "total"}}
    assert read_twice(by_page, appended, **keys) == (0, [*RECORDS, {"id": 95, "name": "n95"}])


def test_a_cursor_that_has_expired_is_read_anew() -> None:
    expired = []

    def first(request: Request) -> Answer:
        number = int(request.params.get("cursor", "a0")[1:])
        return Answer({"data": page(number), "next": f"a{number + 1}" if number < 9 else None})

    def second(request: Request) -> Answer:
        cursor = request.params.get("cursor", "b0")
        if cursor.startswith("a"):
            expired.append(cursor)
            return Answer("no such cursor", 410)
        number = int(cursor[1:])
        return Answer({"data": page(number), "next": f"b{number + 1}" if number < 9 else None})

    keys = {"pagination": {"style": "cursor", "next_key": "next"}}
    assert read_twice(first, second, **keys) == (0, RECORDS)
    assert "a3" in expired  # the page after it may have been on its way


def test_a_server_that_is_down_forgets_nothing() -> None:
    with pytest.raises(SourceError, match="answers 502"):
        read_twice(by_page, lambda _: Answer("", 502), max_retries=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"params": {"state": "open"}},
        {"pagination": PAGED | {"size": 20}},
        {"nested": "json"},
        {"since_param": "since", "cursor": "id"},
    ],
)
def test_another_question_is_read_anew(changed: dict[str, Any]) -> None:
    with rest.running(by_page) as server:
        asked = broken_off(source(server.url), 2)
        if "cursor" in changed:
            asked = replace(asked, since=3)
        with source(server.url, **changed).open(asked) as opened:
            assert opened.kept == frozenset()
            assert opened.seal != asked.seal


def test_another_token_or_more_in_flight_is_the_same_question() -> None:
    with rest.running(by_page) as server:
        asked = broken_off(source(server.url), 2)
        changed = source(
            server.url, headers={"Authorization": "Bearer another-one"}, pagination=PAGED | {"in_flight": 4}
        )
        with changed.open(asked) as opened:
            assert opened.kept == frozenset({0, 1})


def test_a_piece_that_is_lost_takes_those_after_it_along() -> None:
    with rest.running(by_page) as server:
        asked = broken_off(source(server.url), 3)
        with source(server.url).open(replace(asked, landed=asked.landed[1:])) as opened:
            assert opened.kept == frozenset()
        with source(server.url).open(replace(asked, landed=asked.landed[:2])) as opened:
            assert opened.kept == frozenset({0, 1})


def test_one_request_is_not_resumed() -> None:
    with (
        rest.running(lambda _: Answer({"data": RECORDS})) as server,
        ApiSource("s", ApiSpec(type="api", url=server.url, batch_size=30)).open(Asked()) as opened,
    ):
        assert opened.seal is None
        assert [chunk.mark for chunk in opened.chunks()] == [None] * 4

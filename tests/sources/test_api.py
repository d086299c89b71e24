"""REST sources, against a real HTTP server; no test sleeps."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError
from engine.sources import open_source
from engine.sources.api import ApiSource
from engine.sources.http import retry_after
from engine.spec import ApiSpec
from tests.servers import rest
from tests.servers.rest import Answer, Request
from tests.sources.reads import chunks_of, collected

TOKEN = "Bearer top-secret-token"
PAGES = {"style": "page", "size": 10}
RECORDS = [{"id": i, "name": f"n{i}"} for i in range(25)]


def api(url: str, **keys: Any) -> ApiSpec:
    return ApiSpec(type="api", url=url, **{"headers": {"Authorization": TOKEN}, **keys})


class Sleeps(list[float]):
    """A sleep that only takes notes."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def read(spec: ApiSpec, sleep: Sleeps | None = None) -> pl.DataFrame:
    return collected(chunks_of(ApiSource("s", spec, sleep=Sleeps() if sleep is None else sleep)))


def paged(records: list[dict[str, Any]], cap: int = 1000) -> Callable[[Request], Answer]:
    """A server that cuts pages of at most ``cap`` records."""

    def answer(request: Request) -> Answer:
        size = min(cap, int(request.params["per_page"]))
        start = (int(request.params["page"]) - 1) * size
        return Answer({"data": records[start : start + size]})

    return answer


# --- requests ----------------------------------------------------------------------------------------------------


def test_one_request_with_its_headers_and_params() -> None:
    with rest.running(lambda _: Answer({"data": RECORDS})) as server:
        frame = read(api(f"{server.url}/v1/x?fixed=1", params={"state": "all", "n": 5, "deep": True}))
        (request,) = server.requests
    assert frame.to_dicts() == RECORDS
    assert request.path == "/v1/x"
    assert request.params == {"fixed": "1", "state": "all", "n": "5", "deep": "true"}
    assert request.headers["Authorization"] == TOKEN


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (None, RECORDS),
        ("data", {"data": RECORDS}),
        ("result.items", {"result": {"items": RECORDS, "total": 25}}),
        (None, b"\xef\xbb\xbf" + json.dumps(RECORDS).encode()),
    ],
)
def test_where_the_records_are(key: str | None, body: Any) -> None:
    with rest.running(lambda _: Answer(body)) as server:
        assert read(api(server.url, data_key=key)).to_dicts() == RECORDS


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"items": [], "total": 0}, "source.data_key", "the answer has no 'data'"),
        ([], "source.data_key", "the answer has no 'data'"),
        (b"null", "source.data_key", "the answer has no 'data'"),
        (b"", "source.not_json", "the answer is not JSON"),
        ({"data": {"id": 1}}, "source.not_records", "holds a JSON object where records should be"),
        ({"data": [{"id": 1}, 7]}, "source.not_records", "a list with a number in it"),
        ({"data": [{"id": 1}, None]}, "source.not_records", "a list with a null in it"),
        (b"<html>", "source.not_json", "the answer is not JSON"),
        (b'{"data": [{"x": NaN}]}', "source.not_json", "the answer is not JSON"),
        ({"data": [{"tags": ["a"]}, {"tags": "a,b"}]}, "source.mixed_column", "column 'tags' mixes lists and texts"),
    ],
)
def test_answers_that_are_no_records(body: Any, code: str, text: str) -> None:
    with rest.running(lambda _: Answer(body)) as server, pytest.raises(SourceError, match=text) as caught:
        read(api(server.url))
    assert caught.value.code == code
    if isinstance(body, dict) and "items" in body:
        assert "items, total" in str(caught.value.allowed)


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "numbers"), [(1000, "12345"), (7, "123456"), (25, "12345"), (5, "1234567")])
def test_pages_until_an_empty_one_though_the_server_caps_their_size(cap: int, numbers: str) -> None:
    """And one more, in case the empty one is a gap."""
    with rest.running(paged(RECORDS, cap)) as server:
        assert read(api(server.url, pagination=PAGES | {"in_flight": 1})).to_dicts() == RECORDS
        assert [request.params["page"] for request in server.requests] == list(numbers)
        assert {request.params["per_page"] for request in server.requests} == {"10"}


def test_pages_end_with_a_404() -> None:
    def answer(request: Request) -> Answer:
        return paged(RECORDS)(request) if int(request.params["page"]) <= 3 else Answer("gone", 404)

    with rest.running(answer) as server:
        assert read(api(server.url, pagination=PAGES)).to_dicts() == RECORDS


def test_a_404_for_the_first_page_is_an_error() -> None:
    with rest.running(lambda _: Answer("no", 404)) as server, pytest.raises(SourceError, match="answers 404"):
        read(api(server.url, pagination=PAGES))


def test_a_short_page_in_the_middle_loses_nothing() -> None:
    parts = {"0": RECORDS[:10], "1": RECORDS[10:13], "2": RECORDS[13:]}
    with rest.running(lambda request: Answer({"data": parts.get(request.params["p"], [])})) as server:
        pages = {"style": "page", "param": "p", "size_param": None, "start": 0}
        assert read(api(server.url, pagination=pages)).to_dicts() == RECORDS


def test_a_server_that_stays_at_its_last_page() -> None:
    def answer(request: Request) -> Answer:
        return paged(RECORDS)(Request("", {**request.params, "page": str(min(3, int(request.params["page"])))}, {}))

    with rest.running(answer) as server:
        assert read(api(server.url, pagination=PAGES)).to_dicts() == RECORDS


def test_a_server_that_ignores_the_page_parameter() -> None:
    with (
        rest.running(lambda _: Answer({"data": RECORDS[:10]})) as server,
        pytest.raises(SourceError, match="page 2 repeats the records of page 1") as caught,
    ):
        read(api(server.url, pagination=PAGES))
    assert caught.value.code == "source.repeated_page"


def test_whole_pages_are_gathered_to_pieces() -> None:
    with rest.running(paged(RECORDS)) as server:
        chunks = list(chunks_of(open_source("s", api(server.url, pagination=PAGES, batch_size=20), Path())))
        assert [(chunk.number, chunk.part, chunk.rows) for chunk in chunks] == [(0, 0, 20), (1, 0, 5)]
    assert collected(chunks).to_dicts() == RECORDS


def test_a_page_larger_than_a_batch_comes_in_parts() -> None:
    with rest.running(paged(RECORDS)) as server:
        chunks = list(chunks_of(open_source("s", api(server.url, pagination=PAGES, batch_size=6), Path())))
        assert [(c.number, c.part, c.rows, c.last) for c in chunks] == [
            *((0, 0, 6, False), (0, 1, 4, True)),
            *((1, 0, 6, False), (1, 1, 4, True)),
            (2, 0, 5, True),
        ]
        assert [chunk.mark is not None for chunk in chunks] == [chunk.last for chunk in chunks]
        assert {chunk.origin for chunk in chunks} == {f"{server.url} pages {p}-{p}" for p in (1, 2, 3)}
        spans = [[(s.origin, (s.first or 0) + k) for s in chunk.spans for k in range(s.rows)] for chunk in chunks]
        assert [len(of_chunk) for of_chunk in spans] == [6, 4, 6, 4, 5]
        places = [(f"{server.url} page {i // 10 + 1}", i % 10) for i in range(25)]
        assert [place for of_chunk in spans for place in of_chunk] == places
    assert collected(chunks).to_dicts() == RECORDS


def test_no_records_give_no_chunk() -> None:
    with rest.running(lambda _: Answer({"data": []})) as server:
        assert list(chunks_of(open_source("s", api(server.url, pagination=PAGES), Path()))) == []
        assert list(chunks_of(open_source("s", api(server.url), Path()))) == []


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("data", Answer({"data": None})),
        (None, Answer(b"null")),
        ("a.b", Answer({"a": {"b": None}})),
        ("data", Answer(b"", 204)),
    ],
)
def test_null_and_no_content_are_no_records(key: str | None, answer: Answer) -> None:
    with rest.running(lambda _: answer) as server:
        assert list(chunks_of(open_source("s", api(server.url, data_key=key), Path()))) == []


def test_pages_end_with_null() -> None:
    def answer(request: Request) -> Answer:
        return paged(RECORDS)(request) if int(request.params["page"]) <= 3 else Answer({"data": None})

    with rest.running(answer) as server:
        assert read(api(server.url, pagination=PAGES)).to_dicts() == RECORDS


def test_records_without_fields_keep_their_number() -> None:
    with rest.running(lambda _: Answer({"data": [{}, {}]})) as server:
        (chunk,) = chunks_of(open_source("s", api(server.url), Path()))
    assert (chunk.rows, chunk.open_schema, chunk.frame.collect().shape) == (2, True, (2, 0))


# --- failures ----------------------------------------------------------------------------------------------------


def test_what_may_pass_is_tried_again() -> None:
    said = iter([Answer("busy", 408), Answer("slow down", 429, {"Retry-After": "7"}), Answer("oops", 500)])
    sleep = Sleeps()
    with rest.running(lambda _: next(said, Answer({"data": RECORDS}))) as server:
        assert read(api(server.url), sleep).to_dicts() == RECORDS
        assert len(server.requests) == 4
    assert sleep[1] == 7
    assert 0 <= sleep[0] <= 0.5
    assert 0 <= sleep[2] <= 2


def test_it_gives_up_after_max_retries() -> None:
    sleep = Sleeps()
    with (
        rest.running(lambda _: Answer("still busy", 503)) as server,
        pytest.raises(SourceError, match=r"the server answers 503: .still busy. \(after 3 attempts\)") as caught,
    ):
        read(api(server.url, max_retries=2), sleep)
    assert caught.value.code == "source.http_status"
    assert str(caught.value.fix).startswith("look at the server")
    assert len(sleep) == 2


@pytest.mark.parametrize(
    ("status", "fix"), [(501, "look at the server"), (408, "try again later"), (429, "try again later")]
)
def test_what_to_do_about_an_answer(status: int, fix: str) -> None:
    with rest.running(lambda _: Answer("", status)) as server, pytest.raises(SourceError) as caught:
        read(api(server.url, max_retries=0))
    assert str(caught.value.fix).startswith(fix)
    assert caught.value.message.endswith(" (after 1 attempt)") is (status != 501)


def test_an_answer_that_cannot_be_decoded() -> None:
    garbled = Answer(b"no gzip", headers={"Content-Encoding": "gzip"})
    with rest.running(lambda _: garbled) as server, pytest.raises(SourceError, match="cannot be decoded") as caught:
        read(api(server.url, max_retries=1))
    assert caught.value.code == "source.unreadable"


@pytest.mark.parametrize(
    "keys",
    [
        *(
            {"url": f"http://{host}/x?token=top-secret-token"}
            for host in ("[::1", "h:abc", "a..b", "☃" * 70, "a" * 70, "\x01")
        ),
        *({"headers": {"X": f"top-secret{odd}"}} for odd in ("\n", " ", "☃", "\0", "\r\nY: 1")),
        *({"headers": {name: "top-secret-token"}} for name in ("X Y", "☃", "X:", "X\n")),
        {"params": {"a": "top-secret\ud800"}},
    ],
)
def test_what_no_request_can_be_made_of(keys: dict[str, Any]) -> None:
    spec = api(keys.pop("url", "http://127.0.0.1:1/"), max_retries=5, **keys)
    sleep = Sleeps()
    with pytest.raises(SourceError) as caught:
        list(chunks_of(ApiSource("s", spec, sleep=sleep)))
    assert caught.value.code == "source.invalid_request"
    assert caught.value.fix is not None
    assert "top-secret" not in str(caught.value)
    assert sleep == []


@pytest.mark.parametrize("proxy", ["garbage://x", "socks5://x"])
def test_an_odd_proxy(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(SourceError, match="no request can be made") as caught:
        read(api("http://127.0.0.1:1/", max_retries=0))
    assert "HTTP_PROXY" in str(caught.value.fix)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_a_refusal_is_final(status: int) -> None:
    with (
        rest.running(lambda _: Answer(f"no: top-secret-token {'x' * 500}", status)) as server,
        pytest.raises(SourceError, match=f"answers {status}") as caught,
    ):
        read(api(server.url))
    assert len(server.requests) == 1
    assert "top-secret" not in str(caught.value)
    assert len(caught.value.message) < 300


def test_a_slow_answer_times_out() -> None:
    def answer(_: Request) -> Answer:
        time.sleep(0.3)
        return Answer({"data": []})

    sleep = Sleeps()
    with rest.running(answer) as server, pytest.raises(SourceError, match="no answer") as caught:
        read(api(server.url, timeout_seconds=0.05, max_retries=1), sleep)
    assert caught.value.code == "source.timeout"
    assert len(sleep) == 1


def test_nothing_listens() -> None:
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:1/: no answer: .*Connection refused") as caught:
        read(api("http://127.0.0.1:1/?token=hunter22hunter", max_retries=0))
    assert caught.value.code == "source.no_connection"
    assert "hunter22" not in str(caught.value)


def test_redirects_stay_within_the_origin() -> None:
    def answer(request: Request) -> Answer:
        return Answer({"data": RECORDS}) if request.path == "/new" else Answer("", 307, {"Location": "/new"})

    with rest.running(answer) as server:
        assert read(api(f"{server.url}/old")).to_dicts() == RECORDS

    with rest.running(lambda _: Answer({"data": RECORDS})) as other:
        away = Answer("", 302, {"Location": f"{other.url}/x"})
        with rest.running(lambda _: away) as server, pytest.raises(SourceError, match="redirects to another origin"):
            read(api(server.url))
        assert other.requests == []

    round_and_round = Answer("", 302, {"Location": "/"})
    with rest.running(lambda _: round_and_round) as server, pytest.raises(SourceError, match="in circles"):
        read(api(server.url))


def test_secrets_are_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr+t key/1"
    with rest.running(lambda request: Answer(f"bad key {request.params['key']}", 400)) as server:
        spec = api(f"{server.url}/x?token=in-the-url-1", params={"key": secret, "pin": "1234"})
        source = ApiSource("s", spec, sleep=Sleeps())
        with pytest.raises(SourceError) as caught:
            list(chunks_of(source))
    shown = f"{caught.value} {source.location} {caplog.text}"
    assert "HTTP Request: GET" in caplog.text
    assert "/x" in shown
    for hidden in (secret, "s3cr", "in-the-url-1", "top-secret-token", "pin=1234"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5),
        ("0", 0),
        ("9999", 60),
        ("soon", None),
        ("-1", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 60) == seconds


def test_retry_after_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    wait = retry_after(later, 60)
    assert wait is not None
    assert 25 < wait <= 30

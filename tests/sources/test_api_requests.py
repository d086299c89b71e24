"""Credentials, the budget, and answers that are damaged on their way, against real HTTP servers."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError
from engine.sources.api import ApiSource
from engine.sources.http import Fetcher, Reply
from engine.spec import ApiSpec
from tests.servers import rest
from tests.servers.rest import Answer, Request
from tests.sources.reads import chunks_of, collected
from tests.sources.test_api import RECORDS, Sleeps, paged

BODY = json.dumps({"data": RECORDS}).encode()
PAGES = {"style": "page", "size": 10}


def api(url: str, **keys: Any) -> ApiSpec:
    return ApiSpec(type="api", url=url, **keys)


def read(spec: ApiSpec, sleep: Sleeps | None = None) -> pl.DataFrame:
    return collected(chunks_of(ApiSource("s", spec, sleep=Sleeps() if sleep is None else sleep)))


# --- credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": "top-secret"}, "Authorization", "Bearer top-secret"),
        (
            {"type": "basic", "username": "mé", "password": "top:secret"},
            "Authorization",
            f"Basic {b64encode('mé:top:secret'.encode()).decode()}",
        ),
        ({"type": "api_key", "name": "X-Key", "key": "top-secret"}, "X-Key", "top-secret"),
    ],
)
def test_credentials_in_a_header(auth: dict[str, str], header: str, value: str) -> None:
    with rest.running(paged(RECORDS)) as server:
        assert read(api(server.url, auth=auth, pagination=PAGES)).to_dicts() == RECORDS
        assert {request.headers[header] for request in server.requests} == {value}


def test_a_key_in_the_query_is_in_no_error_and_no_mark() -> None:
    """Also where the server repeats it in the next URL, or leaves it out there."""

    def answer(request: Request) -> Answer:
        assert request.params["key"] == "top-secret"
        assert request.params["state"] == "everything"
        number = int(request.params.get("at", 0))
        echoed = "key=top-secret&state=everything&" if number % 2 else ""
        following = f"?{echoed}at={number + 1}" if number < 2 else None
        return Answer({"data": RECORDS[number * 10 : number * 10 + 10], "next": following})

    auth = {"type": "api_key", "name": "key", "key": "top-secret", "where": "query"}
    paging = {"style": "next_url", "next_key": "next"}
    with rest.running(answer) as server:
        spec = api(server.url, auth=auth, pagination=paging, params={"state": "everything"}, batch_size=10)
        chunks = list(chunks_of(ApiSource("s", spec)))
        assert collected(chunks).to_dicts() == RECORDS
        assert "top-secret" not in json.dumps([chunk.mark for chunk in chunks])
        following = [chunk.mark["next"] for chunk in chunks if chunk.mark]
    assert following == [{"number": n, "at": f"{server.url}?at={n - 1}"} for n in (2, 3)] + [None]
    with rest.running(lambda r: Answer(f"no: {r.params['key']}", 403)) as server:
        with pytest.raises(SourceError, match="answers 403") as caught:
            read(api(server.url, auth=auth))
        assert "top-secret" not in str(caught.value)


class Tokens:
    """A server of tokens and of records; a token is good for so many requests."""

    def __init__(self, uses: int = 10**6, **said: Any) -> None:
        self.uses, self.said = uses, said
        self.given = 0
        self.left = 0
        self.asked: list[Request] = []
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        with self.lock:
            if request.path == "/token":
                self.asked.append(request)
                self.given += 1
                self.left = self.uses
                return Answer({"access_token": f"token-{self.given}-secret", "token_type": "Bearer", **self.said})
            if request.headers.get("Authorization") != f"Bearer token-{self.given}-secret" or not self.left:
                return Answer(f"refused: {request.headers.get('Authorization')}", 401)
            self.left -= 1
        return paged(RECORDS)(request)


def oauth(url: str, **keys: Any) -> dict[str, Any]:
    whole = {"token_url": f"{url}/token", "client_id": "me&you", "client_secret": "top secret/1"}
    return {"type": "oauth2", **whole, **keys}


@pytest.mark.parametrize("send", ["header", "body"])
def test_a_token_is_fetched_once(send: str) -> None:
    tokens = Tokens(expires_in="3600")
    with rest.running(tokens) as server:
        auth = oauth(server.url, send=send, scope="read", params={"audience": "all"})
        spec = api(f"{server.url}/x", auth=auth, headers={"X-Own": "mine"}, pagination=PAGES)
        assert read(spec).to_dicts() == RECORDS
    (asked,) = tokens.asked
    form = {"grant_type": "client_credentials", "scope": "read", "audience": "all"}
    if send == "body":
        assert asked.form == form | {"client_id": "me&you", "client_secret": "top secret/1"}
        assert "Authorization" not in asked.headers
    else:
        assert asked.form == form
        assert asked.headers["Authorization"] == f"Basic {b64encode(b'me%26you:top+secret%2F1').decode()}"
    assert "X-Own" not in asked.headers


def test_a_token_that_is_refused_is_fetched_again() -> None:
    tokens = Tokens(uses=2)
    with rest.running(tokens) as server:
        spec = api(f"{server.url}/x", auth=oauth(server.url), pagination=PAGES | {"in_flight": 1})
        assert read(spec).to_dicts() == RECORDS
        assert len(server.requests) == 5 + 3 + 2  # pages, tokens, refusals
    assert tokens.given == 3


def test_a_token_is_fetched_again_before_it_expires() -> None:
    from engine.sources.credentials import Token
    from engine.spec.rest import OAuth2Auth

    now = [0.0]
    given = iter(range(1, 9))

    def post(*_: Any) -> bytes:
        return json.dumps({"access_token": f"t{next(given)}", "expires_in": 100}).encode()

    auth = OAuth2Auth(type="oauth2", token_url="http://x/", client_id="a", client_secret="b")
    token = Token(auth, post, lambda _: None, clock=lambda: now[0])
    found = []
    for now[0] in (0.0, 69.0, 71.0, 139.0, 142.0):
        found.append(token.header())
    assert found == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]
    assert token.header("Bearer t2") == "Bearer t3", "that one is gone already"
    assert token.header("Bearer t3") == "Bearer t4"


def test_a_token_that_is_refused_twice_is_an_error_that_does_not_show_it() -> None:
    with rest.running(Tokens(uses=0)) as server, pytest.raises(SourceError, match='answers 401: "refused') as caught:
        read(api(f"{server.url}/x", auth=oauth(server.url)))
    for secret in ("token-", "top secret", "top+secret", "bWUlMjZ5b3U6dG9w"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(b"<html>"), "it is not JSON"),
        (Answer({}), "no access_token"),
        (Answer({"access_token": "a\nb"}), "no access_token that could be sent"),
        (Answer({"access_token": "abc", "token_type": "mac"}), "token_type is not bearer"),
        (Answer("bad client top secret/1", 400), "answers 400"),
        (Answer("", 307, {"Location": "http://127.0.0.1:1/"}), "redirects to another origin"),
    ],
)
def test_no_token(answer: Answer, text: str) -> None:
    with rest.running(lambda _: answer) as server, pytest.raises(SourceError, match=text) as caught:
        read(api(f"{server.url}/x", auth=oauth(server.url)))
    assert "top secret" not in str(caught.value)


# --- when and how often ------------------------------------------------------------------------------------------


def test_the_budget_of_requests() -> None:
    with rest.running(paged(RECORDS)) as server:
        spec = api(server.url, pagination=PAGES | {"in_flight": 1}, budget={"requests": 2})
        with pytest.raises(SourceError, match="the budget of 2 requests is spent") as caught:
            read(spec)
        assert len(server.requests) == 2
    assert caught.value.code == "source.budget"


def test_the_budget_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only moves while somebody waits."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sent: list[float] = []

    def answer(request: Request) -> Answer:
        sent.append(now[0])
        return paged(RECORDS)(request)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with rest.running(answer) as server:
        spec = api(server.url, pagination=PAGES | {"in_flight": 1}, budget={"per_second": 4})
        collected(chunks_of(ApiSource("s", spec, sleep=sleep)))
    assert sent == pytest.approx([100, 100.25, 100.5, 100.75, 101])


def test_all_threads_wait_when_the_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with rest.running(lambda _: Answer("slow down", 429, {"Retry-After": "9"})) as server:
        sleeps = Sleeps()
        with Fetcher("s", api(server.url, max_retries=0), sleeps) as fetcher:
            with pytest.raises(SourceError, match="answers 429"):
                fetcher.get({})
            fetcher._hold_off(9)
            with pytest.raises(SourceError, match="answers 429"):
                fetcher.get({})
    assert sleeps == [9]


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_storm_of_refusals(status: int, form: str) -> None:
    """Each page is refused twice, while several are in flight."""
    refused: dict[str, int] = {}
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            count = refused[request.params["page"]] = refused.get(request.params["page"], 0) + 1
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        if count <= 2:
            return Answer("busy", status, {"Retry-After": "3" if form == "seconds" else later})
        return paged(RECORDS)(request)

    sleeps = Sleeps()
    with rest.running(answer) as server:
        assert read(api(server.url, pagination=PAGES), sleeps).to_dicts() == RECORDS
    assert set(refused.values()) == {3}
    waits = [s for s in sleeps if (s == 3 if form == "seconds" else 20 < s <= 31)]
    assert len(waits) >= 2 * 5


def test_leaving_a_reading_ends_it_at_once_though_the_server_is_silent() -> None:
    silent = threading.Event()

    def answer(request: Request) -> Answer:
        if int(request.params["page"]) > 1:
            silent.wait(20)
        return paged(RECORDS)(request)

    with rest.running(answer) as server:
        with ApiSource("s", api(server.url, pagination=PAGES, batch_size=10)).open(_whole()) as opened:
            chunks = opened.chunks()
            assert next(chunks).rows == 10
            assert len([t for t in threading.enumerate() if t.name.startswith("page-")]) > 0
            chunks.close()  # type: ignore[attr-defined]
        assert not silent.is_set()
        silent.set()


def _whole() -> Any:
    from engine.sources import Request as Asked

    return Asked()


# --- bodies ------------------------------------------------------------------------------------------------------


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("gzip", lambda body: gzip.compress(body[:100]) + gzip.compress(body[100:])),
    ],
)
def test_packed_bodies(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    said = Answer(pack(BODY), headers={"Content-Encoding": encoding})
    with rest.running(lambda _: said) as server:
        assert read(api(server.url)).to_dicts() == RECORDS
        assert server.requests[0].headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("broken", "times"),
    [
        (Answer(gzip.compress(BODY)[:-9], headers={"Content-Encoding": "gzip"}), 1),
        (Answer(gzip.compress(BODY)[:-30], headers={"Content-Encoding": "gzip"}), 2),
        (Answer(BODY, length=len(BODY) + 50), 2),
        (Answer(b"", headers={"Content-Encoding": "br"}), 1),
    ],
)
def test_a_damaged_body_is_asked_for_again(broken: Answer, times: int) -> None:
    left = [times]

    def answer(_: Request) -> Answer:
        left[0] -= 1
        return broken if left[0] >= 0 else Answer(BODY)

    sleeps = Sleeps()
    with rest.running(answer) as server:
        assert read(api(server.url), sleeps).to_dicts() == RECORDS
    assert left[0] == -1
    assert len(sleeps) == times


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (Answer(gzip.compress(BODY)[:-9], headers={"Content-Encoding": "gzip"}), "source.unreadable"),
        (Answer(BODY, length=len(BODY) + 50), "source.no_connection"),
        (Answer(BODY, length=len(BODY) - 50), "source.not_json"),
        (Answer(BODY[:-50]), "source.not_json"),
    ],
)
def test_a_body_that_stays_damaged(broken: Answer, code: str) -> None:
    with rest.running(lambda _: broken) as server, pytest.raises(SourceError) as caught:
        read(api(server.url, max_retries=1))
    assert caught.value.code == code


def test_a_bomb_is_not_unpacked() -> None:
    bomb = Answer(gzip.compress(b'{"data":"' + bytes(200_000_000) + b'"}', 9), headers={"Content-Encoding": "gzip"})
    assert len(bomb.body) < 300_000
    with rest.running(lambda _: bomb) as server, pytest.raises(SourceError, match="larger than 2MiB") as caught:
        read(api(server.url, max_body="2MiB"))
    assert caught.value.code == "source.too_large"


def test_deep_nesting_is_an_error() -> None:
    """A known shape first, so that the fast parser meets it as well."""
    deep = b'{"data": [{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"

    def answer(request: Request) -> Answer:
        return Answer({"data": RECORDS[:10]}) if request.params["page"] == "1" else Answer(deep)

    with rest.running(answer) as server, pytest.raises(SourceError, match="recursion limit") as caught:
        read(api(server.url, pagination=PAGES))
    assert caught.value.code == "source.not_json"


def test_links() -> None:
    import httpx

    def link(*values: str) -> str | None:
        return Reply(200, httpx.Headers([("Link", value) for value in values]), b"").link("next")

    assert link('<a>; rel="next"') == "a"
    assert link("<a,b;c>; title=\"x, <y>; rel=next\"; rel='z', <d>;rel=next") == "d"
    assert link('<a>; rel="prev"', '<b>; title=t; REL="last NEXT"') == "b"
    assert link("<a>; rel=nextish, <b>, c; rel=next") is None
    assert link() is None


def test_secrets_of_auth_are_known(tmp_path: Path) -> None:
    from engine.spec import secrets_of

    spec = api("http://x/", auth=oauth("http://y", params={"audience": "hidden-one"}))
    assert {"top secret/1", "me&you", "hidden-one"} <= secrets_of(spec)
    assert "top secret" not in repr(spec)

"""HTTP GET with retries, a deadline per request, redirects that stay at home, and no secret in an error or a log."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, quote_plus, unquote

import httpx

from engine.errors import SourceError
from engine.spec import ApiSpec, secrets_of
from engine.types import redact

RETRIED = frozenset({429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LOGGERS = ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))


@dataclass
class Fetcher:
    """GETs one resource, many times; a context manager that owns one client.

    Attributes:
        name: the source's name, for errors.
        spec: its declaration.
        sleep: how to wait, in seconds.
    """

    name: str
    spec: ApiSpec
    sleep: Callable[[float], object] = time.sleep
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._secrets = _secrets(self.spec)
        self._client = httpx.Client(
            headers={"Accept": "application/json"} | {k: v.get_secret_value() for k, v in self.spec.headers.items()},
            timeout=self.spec.timeout_seconds,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def get(self, params: Mapping[str, str], *, absent: bool = False) -> bytes | None:
        """The body of the answer to one GET.

        Args:
            params: query parameters, added to those of the url.
            absent: whether a 404 means that there is nothing (None) and is no error.

        Raises:
            SourceError: the server refused, sent elsewhere, or still failed after ``max_retries`` further attempts.
        """
        url = httpx.URL(self.spec.url).copy_merge_params(params)
        for attempt in range(self.spec.max_retries + 1):
            last = attempt == self.spec.max_retries
            try:
                status, headers, body = self._once(url)
            except httpx.TransportError as error:
                if last:
                    raise self._error(
                        f"no answer: {str(error) or type(error).__name__}",
                        code="source.timeout" if isinstance(error, httpx.TimeoutException) else "source.no_connection",
                        fix="check the url, and that the server is up; timeout_seconds is the limit of one request",
                        attempts=attempt + 1,
                    ) from None
                self.sleep(_pause(attempt))
                continue
            if status == 404 and absent:
                return None
            if status < 300:
                return body
            if status not in RETRIED or last:
                raise self._refused(status, body, attempt + 1)
            wait = retry_after(headers.get("Retry-After"), self.spec.timeout_seconds)
            self.sleep(_pause(attempt) if wait is None else wait)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, url: httpx.URL) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body, after redirects within the origin; all of it within ``timeout_seconds``."""
        deadline = time.monotonic() + self.spec.timeout_seconds
        for _ in range(MOST_REDIRECTS + 1):
            with _quiet(self._secrets), self._client.stream("GET", url) as response:
                if response.status_code not in REDIRECTS or "Location" not in response.headers:
                    parts = []
                    for part in response.iter_bytes():
                        parts.append(part)
                        if time.monotonic() > deadline:
                            raise httpx.ReadTimeout("the answer took too long")
                    return response.status_code, response.headers, b"".join(parts)
                target = url.join(response.headers["Location"])
            if _origin(target) != _origin(url):
                raise self._error(
                    f"the server redirects to another origin, {'://'.join(map(str, _origin(target)[:2]))}; "
                    "headers and parameters are not sent there",
                    code="source.redirect",
                    fix="if that is where the data is, make it the url",
                )
            url = target
        raise self._error("the server redirects in circles", code="source.redirect", fix="check the url")

    def _refused(self, status: int, body: bytes, attempts: int) -> SourceError:
        excerpt = " ".join(body[:400].decode("utf-8", "replace").split())[:200]
        said = f": {excerpt}" if excerpt else ""
        if status in RETRIED:
            return self._error(
                f"the server answers {status}{said}",
                code="source.http_status",
                fix="try again later, or raise max_retries",
                attempts=attempts,
            )
        hints = {
            401: "check the credentials in headers or params",
            403: "check what the credentials may read",
        }
        return self._error(
            f"the server answers {status}{said}",
            code="source.http_status",
            fix=hints.get(status, "check url and params"),
        )

    def _error(self, message: str, *, code: str, fix: str, attempts: int = 1) -> SourceError:
        """An error without secrets. Never a transient one: what may pass has been tried again already."""
        tried = f" (after {attempts} attempts)" if attempts > 1 else ""
        text = redact(f"{location(self.spec.url)}: {message}{tried}", self._secrets)
        return SourceError(text, code=code, where=f"sources.{self.name}", fix=fix)


def location(url: str) -> str:
    """A url without user, password, query and fragment."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))


def retry_after(value: str | None, most: float) -> float | None:
    """The seconds that a Retry-After header asks for, at most ``most``; None where it asks for nothing clear."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return min(float(value), most)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), most)


def _pause(attempt: int) -> float:
    """Exponential backoff with full jitter."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))  # noqa: S311 - no secret


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _secrets(spec: ApiSpec) -> frozenset[str]:
    """Secret values, those in the url too, and how they look inside a url."""
    url = httpx.URL(spec.url)
    plain = set(secrets_of(spec)) | {unquote(url.password), url.password}
    plain |= {value for _, value in url.params.multi_items() if len(value) >= 8}
    return frozenset(form for s in plain if len(s) >= 4 for form in (s, quote(s, safe=""), quote_plus(s), quote(s)))


@contextmanager
def _quiet(secrets: frozenset[str]) -> Iterator[None]:
    """Keep secrets and query strings out of what httpx and httpcore log."""

    def clean(record: logging.LogRecord) -> bool:
        text = re.sub(r"\?[^\s\"']+", "?***", record.getMessage())
        record.msg, record.args = redact(text, secrets), ()
        return True

    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)

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

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")
# What httpx and the layers below it raise at a url or a header that no request can be made of.
UNSENDABLE = (
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    ValueError,
    OverflowError,
    ImportError,  # of what a SOCKS proxy needs
)
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
        self._secrets: frozenset[str] = frozenset()
        with self._sendable():
            self._url = httpx.URL(self.spec.url)
            self._secrets = _secrets(self.spec)
        headers = {name: value.get_secret_value() for name, value in self.spec.headers.items()}
        for name, value in headers.items():
            if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
                raise self._error(
                    f"the header {name!r} cannot be sent",
                    code="source.invalid_request",
                    allowed="ASCII, without spaces around it, line ends and control characters",
                    fix="correct its name or value; is there a line end in what an environment variable holds?",
                )
        with self._sendable():
            self._client = httpx.Client(
                headers={"Accept": "application/json"} | headers,
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
            absent: whether a 404 means that there is nothing (None, as a 204 always does) and is no error.

        Raises:
            SourceError: the server refused, sent elsewhere, or still failed after ``max_retries`` further attempts.
        """
        with self._sendable():
            url = self._url.copy_merge_params(params)
        for attempt in range(self.spec.max_retries + 1):
            last = attempt == self.spec.max_retries
            try:
                with self._sendable():
                    status, headers, body = self._once(url)
            except httpx.RequestError as error:
                if last:
                    raise self._silent(error, attempt + 1) from None
                self.sleep(_pause(attempt))
                continue
            if status == 204 or (status == 404 and absent):
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
        hints = {
            401: "check the credentials in headers or params",
            403: "check what the credentials may read",
            408: "try again later, or ask for smaller pages",
            429: "try again later, or ask for fewer and larger pages; max_retries is how often to wait and ask again",
        }
        server = "look at the server: its log or status page should tell why; then run again"
        return self._error(
            f"the server answers {status}{said}",
            code="source.http_status",
            fix=server if status >= 500 else hints.get(status, "check url and params"),
            attempts=attempts if status in RETRIED else None,
        )

    def _silent(self, error: httpx.RequestError, attempts: int) -> SourceError:
        """The request brought no answer, or none that can be decoded."""
        garbled = isinstance(error, httpx.DecodingError)
        code = "source.timeout" if isinstance(error, httpx.TimeoutException) else "source.no_connection"
        return self._error(
            f"{'the answer cannot be decoded' if garbled else 'no answer'}: {str(error) or type(error).__name__}",
            code="source.unreadable" if garbled else code,
            fix="look at the server: its Content-Encoding does not fit what it sends"
            if garbled
            else "check the url, and that the server is up; timeout_seconds is the limit of one request",
            attempts=attempts,
        )

    @contextmanager
    def _sendable(self) -> Iterator[None]:
        """Say that no request can be made of what is declared; not in httpx's words, which may quote a secret."""
        try:
            yield
        except UNSENDABLE as error:
            odd = f"no request can be made of url, headers and params ({type(error).__name__})"
            raise self._error(
                "the url is malformed" if isinstance(error, httpx.InvalidURL) else odd,
                code="source.invalid_request",
                allowed="http://host:port/path or https://…, a port up to 65535, params in UTF-8",
                fix="correct the url; where it is right, check params and the proxies of the environment (HTTP_PROXY)",
            ) from None

    def _error(
        self, message: str, *, code: str, fix: str, allowed: str | None = None, attempts: int | None = None
    ) -> SourceError:
        """An error without secrets. Never a transient one: what may pass has been tried again already."""
        tried = f" (after {attempts} attempt{'s' if attempts > 1 else ''})" if attempts else ""
        text = redact(f"{location(self.spec.url)}: {message}{tried}", self._secrets)
        return SourceError(text, code=code, where=f"sources.{self.name}", allowed=allowed, fix=fix)


def location(url: str) -> str:
    """A url without user, password, query and fragment, whether it is well-formed or not."""
    scheme, _, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


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

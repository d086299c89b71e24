"""HTTP GET with retries, a deadline per request, redirects that stay at home, and no secret in an error or a log."""

from __future__ import annotations

import logging
import random
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, quote_plus, unquote
from urllib.request import getproxies

from engine.errors import SourceError
from engine.sources import credentials
from engine.spec import ApiSpec, secrets_of
from engine.spec.rest import OAuth2Auth
from engine.types import redact, size_of

_COMMAND = "httpx._main"  # httpx's command line: not loaded along, for it takes as long as half of the rest
if unknown := _COMMAND not in sys.modules:
    sys.modules[_COMMAND] = None  # type: ignore[assignment]
import httpx  # noqa: E402

if unknown:
    del sys.modules[_COMMAND]

_RANDOM = random.Random()  # noqa: S311 - jitter and names, no secrets; the program's own generator is not touched

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")
# RFC 8288: a target, then parameters; a comma between two, which may also stand inside of either.
LINK = re.compile(r"""<([^>]*)>((?:\s*;\s*[^\s=;,"<]+(?:\s*=\s*(?:"[^"]*"|[^\s;,"]*))?)*)""")
PARAMETER = re.compile(r""";\s*([^\s=;,"<]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;,"]*)))?""")
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


@dataclass(frozen=True)
class Reply:
    """A server's answer to one request."""

    status: int
    headers: httpx.Headers
    body: bytes

    def link(self, relation: str) -> str | None:
        """The target of the header Link with this relation."""
        for target, parameters in LINK.findall(self.headers.get("Link", "")):
            for name, quoted, plain in PARAMETER.findall(parameters):
                if name.lower() == "rel" and relation in (quoted or plain).lower().split():
                    return str(target)
        return None


class Refusal(SourceError):  # noqa: N818 - what the server did
    """The server answers that it will not.

    Attributes:
        status: HTTP's.
    """

    def __init__(self, status: int, error: SourceError) -> None:
        super().__init__(error.message, code=error.code, where=error.where, allowed=error.allowed, fix=error.fix)
        self.status = status


class Stopped(Exception):  # noqa: N818 - what happened
    """Nobody waits for the answer any more."""


@dataclass
class Fetcher:
    """GETs one resource, many times, from several threads; a context manager that owns one client.

    Attributes:
        name: the source's name, for errors.
        spec: its declaration.
        sleep: how to wait, in seconds; default: until the context is left.
        requests: how many were sent, failed ones and those for tokens too.
        slowed: how often the server has asked to be left alone (429, 503).
        date: the server's own, no later than it began with its first answer.
    """

    name: str
    spec: ApiSpec
    sleep: Callable[[float], object] | None = None
    requests: int = field(default=0, init=False)
    slowed: int = field(default=0, init=False)
    date: datetime | None = field(default=None, init=False)
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._earliest = 0.0  # when the server may be asked again, as it says
        self._next = 0.0  # and as the budget says
        self._most = size_of(self.spec.max_body)
        with self._sendable():
            self._url = httpx.URL(self.spec.url)
            self._secrets = _secrets(self.spec)
        headers = {name: value.get_secret_value() for name, value in self.spec.headers.items()}
        headers |= credentials.fixed_headers(self.spec)
        for name, value in headers.items():
            if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
                raise self.error(
                    f"the header {name!r} cannot be sent",
                    code="source.invalid_request",
                    allowed="ASCII, without spaces around it, line ends and control characters",
                    fix="correct its name or value; is there a line end in what an environment variable holds?",
                )
        auth = self.spec.auth
        self._token = credentials.Token(auth, self._post, self._learned) if isinstance(auth, OAuth2Auth) else None
        accepted = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
        with self._sendable():
            self._client = httpx.Client(
                headers=accepted | headers,
                timeout=self.spec.timeout_seconds,
                verify=self._needs_certificates(),
                limits=httpx.Limits(max_connections=None),
                follow_redirects=False,
            )

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._client.__exit__(kind, error, trace)

    def _needs_certificates(self) -> bool:
        """Whether any connection may be encrypted; loading the authorities takes 0.2 s. Origins never change."""
        auth = self.spec.auth
        urls = [self.spec.url, auth.token_url if isinstance(auth, OAuth2Auth) else ""]
        return any(url.startswith("https:") for url in urls) or bool(getproxies())

    @property
    def location(self) -> str:
        """What is read, for people."""
        return location(self.spec.url)

    def get(self, params: Mapping[str, str], *, absent: bool = False, url: str | None = None) -> Reply | None:
        """The answer to one GET.

        Args:
            params: query parameters, added to those of the url.
            absent: whether a 404 means that there is nothing (None, as a 204 always does) and is no error.
            url: default: the declared one; another one must be of its origin.

        Raises:
            SourceError: the server refused, sent elsewhere, or still failed after ``max_retries`` further attempts.
            Stopped: the context was left.
        """
        with self._sendable():
            target = self._url if url is None else self._url.join(url)
            self._at_home(target, "names as the next page one of")
            target = target.copy_merge_params(params)
        reply = self._sent(httpx.Request("GET", target), absent=absent)
        return None if reply.status == 204 or (reply.status == 404 and absent) else reply

    def resolved(self, url: str) -> str:
        """A URL that an answer named, whole.

        Raises:
            SourceError: it is none, or of another origin.
        """
        try:
            target = self._url.join(url)
        except UNSENDABLE:
            raise self.error(
                "what the server names as the next page is no URL",
                code="source.next_page",
                allowed="a URL of the same origin, whole or relative",
                fix="look at the server; is pagination.next_key where it says what comes next?",
            ) from None
        self._at_home(target, "names as the next page one of")
        return str(target)

    def without_secrets(self, url: str) -> str:
        """A URL without the parameters that are a declared secret."""
        known = secrets_of(self.spec)
        with self._sendable():
            parsed = httpx.URL(url)
            for name in {name for name, value in parsed.params.multi_items() if value in known}:
                parsed = parsed.copy_remove_param(name)
        return str(parsed)

    def with_secrets(self, url: str, params: Mapping[str, str]) -> str:
        """A URL with those of ``params`` again that `without_secrets` may have removed."""
        known = secrets_of(self.spec)
        with self._sendable():
            parsed = httpx.URL(url)
            missing = {n: v for n, v in params.items() if v in known and n not in parsed.params}
            return str(parsed.copy_merge_params(missing))

    def _sent(self, request: httpx.Request, *, absent: bool = False, own: bool = True) -> Reply:
        """The final answer to a request, which is tried again while that may help.

        Args:
            own: whether it is sent to the source itself, with its credentials.
        """
        refused: str | None = None
        attempt = 0
        waited = False
        while True:
            last = attempt >= self.spec.max_retries
            self._turn(waited=waited)
            begun = time.monotonic()
            try:
                authorization = self._token.header(refused) if self._token and own else None
            except credentials.Refused as error:
                raise self.error(
                    f"the answer to the request for a token cannot be used: {error}",
                    code="source.token",
                    allowed="a JSON object with access_token, and token_type bearer",
                    fix="check auth.token_url, and what the client may do",
                ) from None
            try:
                with self._sendable():
                    reply = self._once(request, authorization, own=own)
            except httpx.RequestError as error:
                if last:
                    raise self._silent(error, attempt + 1) from None
                self._wait(_pause(attempt))
                attempt += 1
                continue
            said = _moment(reply.headers.get("Date")) if own and self.date is None else None
            if said is not None:
                self.date = said - timedelta(seconds=1 + time.monotonic() - begun)
            if reply.status < 300 or (reply.status == 404 and absent):
                return reply
            if reply.status == 401 and authorization is not None and refused is None:
                refused = authorization  # it has expired early, or was withdrawn
                continue
            if reply.status not in RETRIED or last:
                raise self._refused(reply.status, reply.body, attempt + 1)
            wait = retry_after(reply.headers.get("Retry-After"), self.spec.timeout_seconds)
            if reply.status in (429, 503):
                self.slowed += 1
                self._hold_off(wait)
            self._wait(_pause(attempt) if wait is None else wait)
            waited = True
            attempt += 1

    def _turn(self, *, waited: bool) -> None:
        """Waits until one more request may be sent.

        Args:
            waited: whether the caller has waited as long as the server asked it to.

        Raises:
            SourceError: the budget is spent.
        """
        budget = self.spec.budget
        with self._lock:
            if budget.requests is not None and self.requests >= budget.requests:
                raise self.error(
                    f"the budget of {budget.requests} requests is spent",
                    code="source.budget",
                    fix="run again: it goes on from what has landed; or raise budget.requests, or ask for larger pages",
                )
            self.requests += 1
            now = time.monotonic()
            at = max(now, self._next, 0.0 if waited else self._earliest)
            if budget.per_second is not None:
                self._next = at + 1 / budget.per_second
        if at > now:
            self._wait(at - now)

    def _hold_off(self, seconds: float | None) -> None:
        """The other threads wait as well."""
        if seconds:
            with self._lock:
                self._earliest = max(self._earliest, time.monotonic() + seconds)

    def _wait(self, seconds: float) -> None:
        if self.sleep is not None:
            self.sleep(seconds)
        elif self._stop.wait(seconds):
            raise Stopped
        if self._stop.is_set():
            raise Stopped

    def _once(self, request: httpx.Request, authorization: str | None, *, own: bool) -> Reply:
        """The answer, after redirects within the origin; all of it within ``timeout_seconds``."""
        deadline = time.monotonic() + self.spec.timeout_seconds
        url = request.url
        for _ in range(MOST_REDIRECTS + 1):
            with self._sendable():
                if own:
                    extra = {"Authorization": authorization} if authorization else {}
                    sent = self._client.build_request("GET", url, headers=extra)
                else:
                    sent = request
            with quiet(lambda: self._secrets):
                response = self._client.send(sent, stream=True)
                try:
                    if response.status_code not in REDIRECTS or "Location" not in response.headers:
                        return Reply(response.status_code, response.headers, self._body(response, deadline))
                    target = url.join(response.headers["Location"])
                finally:
                    response.close()
            self._at_home(target, "redirects to", url)
            if not own:
                break  # a form is not sent twice
            url = target
        raise self.error("the server redirects in circles", code="source.redirect", fix="check the url")

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        """The answer's body, unpacked; no more of it than is allowed."""
        unpack = _Unpacked(response.headers.get("Content-Encoding", ""), self._most)
        for part in response.iter_raw():
            unpack.add(part)
            if unpack.size > self._most:
                raise self.error(
                    f"the answer is larger than {self.spec.max_body}",
                    code="source.too_large",
                    allowed=f"max_body: {self.spec.max_body}",
                    fix="ask for smaller pages, or raise max_body if so much is to be expected",
                )
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer took too long")
        return unpack.whole()

    def _at_home(self, target: httpx.URL, what: str, home: httpx.URL | None = None) -> None:
        """Makes sure that a URL is of the origin that credentials are for."""
        if _origin(target) != _origin(home or self._url):
            raise self.error(
                f"the server {what} another origin, {target.scheme}://{target.netloc.decode('ascii', 'replace')}; "
                "headers and parameters are not sent there",
                code="source.redirect",
                fix="if that is where the data is, make it the url",
            )

    def _post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        """The answer to a request for a token, which has none of the source's own headers and parameters."""
        with self._sendable():
            # Not by the client, whose headers are the source's.
            request = httpx.Request(
                "POST",
                url,
                data=dict(form),
                headers={"Accept": "application/json", **headers},
                extensions={"timeout": httpx.Timeout(self.spec.timeout_seconds).as_dict()},
            )
        return self._sent(request, own=False).body

    def _learned(self, secret: str) -> None:
        self._secrets |= {form for form in (secret, quote(secret, safe=""), quote_plus(secret)) if len(form) >= 4}

    def _refused(self, status: int, body: bytes, attempts: int) -> Refusal:
        excerpt = " ".join(body[:400].decode("utf-8", "replace").split())[:200]
        said = f": {excerpt}" if excerpt else ""
        hints = {
            401: "check the credentials in auth, headers or params",
            403: "check what the credentials may read",
            408: "try again later, or ask for smaller pages",
            429: "try again later, or ask for fewer and larger pages; max_retries is how often to wait and ask again",
        }
        server = "look at the server: its log or status page should tell why; then run again"
        error = self.error(
            f"the server answers {status}{said}",
            code="source.http_status",
            fix=server if status >= 500 else hints.get(status, "check url and params"),
            attempts=attempts if status in RETRIED else None,
        )
        return Refusal(status, error)

    def _silent(self, error: httpx.RequestError, attempts: int) -> SourceError:
        """The request brought no answer, or none that can be decoded."""
        garbled = isinstance(error, httpx.DecodingError)
        code = "source.timeout" if isinstance(error, httpx.TimeoutException) else "source.no_connection"
        return self.error(
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
            raise self.error(
                "the url is malformed" if isinstance(error, httpx.InvalidURL) else odd,
                code="source.invalid_request",
                allowed="http://host:port/path or https://…, a port up to 65535, params in UTF-8",
                fix="correct the url; where it is right, check params and the proxies of the environment (HTTP_PROXY)",
            ) from None

    def error(
        self, message: str, *, code: str, fix: str, allowed: str | None = None, attempts: int | None = None
    ) -> SourceError:
        """An error without secrets. Never a transient one: what may pass has been tried again already."""
        tried = f" (after {attempts} attempt{'s' if attempts > 1 else ''})" if attempts else ""
        text = redact(f"{location(self.spec.url)}: {message}{tried}", self._secrets)
        return SourceError(text, code=code, where=f"sources.{self.name}", allowed=allowed, fix=fix)


class _Unpacked:
    """A body as it comes, unpacked; of what is packed a thousandfold no more than can be seen to be too much."""

    def __init__(self, encoding: str, most: int) -> None:
        self._parts: list[bytes] = []
        self._most = most
        self.size = 0
        self._encoding = encoding.strip().lower()
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise httpx.DecodingError(f"its Content-Encoding is {self._encoding!r}, which was not asked for")
        packed = self._encoding not in ("", "identity")
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        self._begun = False

    def add(self, part: bytes) -> None:
        if self._inflate is None:
            self._keep(part)
            return
        if not self._begun and part and self._encoding == "deflate" and part[0] & 0x0F != 8:
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers leave zlib's header out
        self._begun = self._begun or bool(part)
        try:
            while part and self.size <= self._most:
                if self._inflate.eof:  # another member of a gzip stream
                    self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
                self._keep(self._inflate.decompress(part, self._most - self.size + 1))
                part = self._inflate.unconsumed_tail or self._inflate.unused_data
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self.size += len(part)

    def whole(self) -> bytes:
        """All of it.

        Raises:
            httpx.DecodingError: the end is missing.
        """
        if self._inflate is not None and self._begun and not self._inflate.eof:
            raise httpx.DecodingError("its end is missing")
        return b"".join(self._parts)


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
    moment = _moment(value)
    if moment is None:
        return None
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), most)


def _moment(value: str | None) -> datetime | None:
    """What a header says; None where that is no moment."""
    try:
        moment = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _pause(attempt: int) -> float:
    """Exponential backoff with full jitter."""
    return _RANDOM.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _secrets(spec: ApiSpec) -> frozenset[str]:
    """Secret values, those in the url too, and how they look inside a url."""
    url = httpx.URL(spec.url)
    plain = set(secrets_of(spec)) | {unquote(url.password), url.password}
    plain |= {value for _, value in url.params.multi_items() if len(value) >= 8}
    plain |= credentials.forms(spec)
    return frozenset(form for s in plain if len(s) >= 4 for form in (s, quote(s, safe=""), quote_plus(s), quote(s)))


@contextmanager
def quiet(secrets: Callable[[], frozenset[str]]) -> Iterator[None]:
    """Keep secrets and query strings out of what httpx and httpcore log."""

    def clean(record: logging.LogRecord) -> bool:
        text = re.sub(r"\?[^\s\"']+", "?***", record.getMessage())
        record.msg, record.args = redact(text, secrets()), ()
        return True

    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)

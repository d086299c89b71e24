"""A client of S3: the few requests that are needed, signed (version 4).

Not of a library's: those take a second to load, retry and wait in their own ways, and log headers.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import io
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit
from urllib.request import getproxies, proxy_bypass

from engine.s3.keys import environment, keys_of, region_of
from engine.spec import S3Access

_RANDOM = random.Random()  # noqa: S311 - jitter, no secret; the program's own generator is not touched

_CONNECT_SECONDS = 10.0
_PAUSE_SECONDS = 0.2  # before a request is made again; doubled each time
_LONGEST_PAUSE = 5.0
_RANGE_BYTES = 16 * 2**20
_WHOLE_BYTES = 64 * 2**20  # a file that is no larger is put in one request
_PART_BYTES = 32 * 2**20
_MOST_PARTS = 9_000
_BLOCK_BYTES = 2**20
_LISTED = 1_000  # objects of one answer
_EMPTY = hashlib.sha256().hexdigest()
_BUSY = frozenset({429, 500, 502, 503, 504})
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")  # a bucket that may stand before Amazon's host


class Refused(OSError):  # noqa: N818 - what the store did
    """The store's own words for what it does not do."""


def open_client(access: S3Access, *, seconds: float, attempts: int) -> Client:
    """A client of the caller alone; nothing has been asked of the store yet.

    Args:
        seconds: for one request, its answer included.
        attempts: how often one is made at most, where the store is busy or the connection breaks.
    """
    return Client(access, seconds=seconds, attempts=max(1, attempts))


class Client:
    """Requests to a store. Paths are ``bucket/key``. Threads may share one.

    Errors are OSErrors: FileNotFoundError (no such object or bucket), PermissionError, TimeoutError, ConnectionError,
    `Refused`. None tells a secret.
    """

    def __init__(self, access: S3Access, *, seconds: float, attempts: int) -> None:
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._busy: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._region = region_of(access)
        self._endpoint = access.endpoint_url
        self._seconds, self._attempts = seconds, attempts
        self._keys = keys_of(access)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections, also those that wait for an answer."""
        with self._lock:
            self._closed = True
            idle, busy = [c for some in self._idle.values() for c in some], list(self._busy)
            self._idle.clear()
        for connection in idle:
            connection.close()
        for connection in busy:  # its own thread closes it: reading fails there at once
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(2)

    # --- objects ------------------------------------------------------------------------------------------------------

    def info(self, path: str) -> dict[str, Any]:
        """``size``, ``ETag`` and ``LastModified`` of an object."""
        answer = self._ask("HEAD", path)
        found = {"type": "file", "size": int(answer.headers["content-length"]), "ETag": answer.headers.get("etag")}
        return {**found, "LastModified": answer.headers.get("last-modified")}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """An object's bytes, or those of a range."""
        if start is None or end is None:
            return self._ask("GET", path).body
        return self._ask("GET", path, headers={"Range": f"bytes={start}-{end - 1}"}).body if end > start else b""

    def get_file(self, path: str, local: str) -> None:
        """Fetches an object to a file, range by range."""
        facts = self.info(path)
        with Path(local).open("wb") as file:
            for start in range(0, facts["size"], _RANGE_BYTES):
                end = min(start + _RANGE_BYTES, facts["size"])
                answer = self._ask("GET", path, headers={"Range": f"bytes={start}-{end - 1}"})
                if answer.headers.get("etag") != facts["ETag"] or len(answer.body) != end - start:
                    raise Refused(errno.EIO, f"{path} changed while it was fetched")
                file.write(answer.body)

    def put_file(self, local: str, path: str) -> None:
        """Makes a file an object, as a whole; a large one in parts, which become it with the last request."""
        size = Path(local).stat().st_size
        if size <= _WHOLE_BYTES:
            self._ask("PUT", path, content=_Content(Path(local), 0, size))
            return
        upload = _element(self._ask("POST", path, {"uploads": ""}).body, "UploadId")
        each = max(_PART_BYTES, -(-size // _MOST_PARTS))
        tags = []
        try:
            for number, start in enumerate(range(0, size, each), 1):
                content = _Content(Path(local), start, min(each, size - start))
                answer = self._ask("PUT", path, {"partNumber": str(number), "uploadId": upload}, content=content)
                tags.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['etag']}</ETag></Part>")
            whole = f"<CompleteMultipartUpload>{''.join(tags)}</CompleteMultipartUpload>".encode()
            answer = self._ask("POST", path, {"uploadId": upload}, content=whole)
        except BaseException:
            with suppress(OSError):
                self._ask("DELETE", path, {"uploadId": upload})
            raise
        if b"<Error>" in answer.body:  # it may fail after it answered 200
            raise Refused(errno.EIO, _said(answer.body))

    def rm(self, paths: Iterable[str]) -> None:
        """Removes objects; those that are gone are no error."""
        for path in paths:
            with suppress(FileNotFoundError):
                self._ask("DELETE", path)

    # --- listings -----------------------------------------------------------------------------------------------------

    def find(self, folder: str) -> list[str]:
        """The paths of all objects below a folder."""
        return [path for path, _ in self._listed(f"{folder.rstrip('/')}/")]

    def glob(self, pattern: str, *, detail: bool = True) -> dict[str, dict[str, Any]]:  # noqa: ARG002 - as fsspec has it
        """What `info` says of every object whose path matches; wildcards as fsspec has them."""
        from fsspec.utils import glob_translate

        wild = min((pattern.index(mark) for mark in "*?[" if mark in pattern), default=len(pattern))
        matches = re.compile(glob_translate(pattern)).match
        flat = "/" not in pattern[wild:] and "**" not in pattern
        return {path: facts for path, facts in self._listed(pattern[:wild], flat=flat) if matches(path)}

    def _listed(self, prefix: str, *, flat: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects whose paths begin so; flat: without those in folders below."""
        bucket, _, key = prefix.partition("/")
        query = {"list-type": "2", "prefix": key, "encoding-type": "url", "max-keys": str(_LISTED)}
        query |= {"delimiter": "/"} if flat else {}
        while True:
            body = self._ask("GET", bucket, query).body
            for path, facts in _contents(body):
                yield f"{bucket}/{path}", facts
            if (following := _next(body)) is None:
                return
            query = {**query, "continuation-token": following}

    # --- requests -----------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: _Content | bytes = b"",
    ) -> _Answer:
        """A request, made again where the store is busy or the connection breaks."""
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                answer = self._once(method, path, query or {}, headers or {}, content)
            except (OSError, HTTPException) as error:
                if last or self._closed or not isinstance(error, (ConnectionError, TimeoutError, HTTPException)):
                    raise _worded(error, self._target(path)[1]) from None
            else:
                if answer.status < 300:
                    return answer
                region = answer.headers.get("x-amz-bucket-region")
                if answer.status in (301, 307, 400) and region and region != self._region:
                    self._region = region  # where the bucket is; known from now on
                    return self._ask(method, path, query, headers=headers, content=content)
                if last or answer.status not in _BUSY:
                    raise _refusal(answer, path)
            pause = min(_LONGEST_PAUSE, _PAUSE_SECONDS * 2 ** (attempt - 1))
            threading.Event().wait(pause * _RANDOM.uniform(0.5, 1.0))
        raise AssertionError("unreachable")  # pragma: no cover

    def _once(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], content: _Content | bytes
    ) -> _Answer:
        """One request; a connection kept from an earlier one may have ended since, which a fresh one makes good."""
        scheme, host, target = self._target(path)
        line = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(query.items()))
        signed = self._signed(method, host, target, line, content) | dict(headers)
        url = f"{target}?{line}" if line else target
        deadline = time.monotonic() + self._seconds
        _check_host(host)
        while True:
            connection, fresh = self._connection(scheme, host)
            try:
                answer, reusable = _exchange(connection, method, url, signed, content, deadline)
            except BaseException as error:
                self._give_back(scheme, host, connection, reusable=False)
                if fresh or self._closed or not isinstance(error, (ConnectionError, HTTPException)):
                    raise
            else:
                self._give_back(scheme, host, connection, reusable=reusable)
                return answer

    def _target(self, path: str) -> tuple[str, str, str]:
        """Scheme, host and path of a request."""
        bucket, _, key = path.partition("/")
        if self._endpoint:
            parts = urlsplit(self._endpoint)
            return parts.scheme, parts.netloc, quote(f"/{bucket}/{key}" if key else f"/{bucket}", safe="/-_.~")
        host = f"s3.{self._region}.amazonaws.com" + (".cn" if self._region.startswith("cn-") else "")
        if _HOST_NAME.fullmatch(bucket):
            return "https", f"{bucket}.{host}", quote(f"/{key}", safe="/-_.~")
        return "https", host, quote(f"/{bucket}/{key}" if key else f"/{bucket}", safe="/-_.~")

    def _signed(self, method: str, host: str, target: str, query: str, content: _Content | bytes) -> dict[str, str]:
        """The headers of a request, with its signature; without one where there are no keys."""
        digest = content.digest if isinstance(content, _Content) else hashlib.sha256(content).hexdigest()
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": moment}
        keys = self._keys()
        if keys is None:
            return headers
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        names = ";".join(sorted(headers))
        listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        request = hashlib.sha256(f"{method}\n{target}\n{query}\n{listed}\n{names}\n{digest}".encode()).hexdigest()
        key = f"AWS4{keys.secret}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{request}"):
            key = hmac.digest(key, part.encode(), "sha256")
        credential = f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}"
        return {**headers, "Authorization": f"{credential}, SignedHeaders={names}, Signature={key.hex()}"}

    def _connection(self, scheme: str, host: str) -> tuple[HTTPConnection, bool]:
        """A connection, and whether it is a new one."""
        with self._lock:
            if self._closed:
                raise ConnectionError("the client is closed")
            idle = self._idle.get((scheme, host))
            connection, fresh = (idle.pop(), False) if idle else (None, True)
            if connection is None:
                connection = _opened(scheme, host, min(_CONNECT_SECONDS, self._seconds))
            self._busy.add(connection)
        return connection, fresh

    def _give_back(self, scheme: str, host: str, connection: HTTPConnection, *, reusable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if reusable and not self._closed:
                self._idle.setdefault((scheme, host), []).append(connection)
                return
        connection.close()


class _Response(HTTPResponse):
    """An answer whose headers came to their end; the library takes those that were cut off for all."""

    def begin(self) -> None:
        source = self.fp
        lines = self.fp = _Lines(source)  # type: ignore[assignment]
        super().begin()
        if self.fp is not None:
            self.fp = source
        if lines.last not in (b"\r\n", b"\n"):
            raise ConnectionError("the connection ended in the middle of an answer")


class _Lines:
    """What lines are read from, with the last of them."""

    def __init__(self, source: Any) -> None:
        self._source, self.last = source, b""

    def readline(self, limit: int) -> bytes:
        self.last = self._source.readline(limit)
        return self.last

    def close(self) -> None:
        self._source.close()

    def flush(self) -> None:
        self._source.flush()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]  # by names in lower case
    body: bytes


@dataclass(frozen=True)
class _Content:
    """Some bytes of a file."""

    path: Path
    start: int
    size: int

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for block in self.blocks():
            found.update(block)
        return found.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.size
            while left and (block := file.read(min(_BLOCK_BYTES, left))):
                left -= len(block)
                yield block


def _exchange(
    connection: HTTPConnection,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: _Content | bytes,
    deadline: float,
) -> tuple[_Answer, bool]:
    """The answer to a request, and whether the connection can serve another; TimeoutError after the deadline."""
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    sock.settimeout(_left(deadline))
    sending = method in ("PUT", "POST")
    connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if sending:
        connection.putheader("Content-Length", str(content.size if isinstance(content, _Content) else len(content)))
    try:
        connection.endheaders()
        for block in (content.blocks() if isinstance(content, _Content) else (content,)) if sending else ():
            sock.settimeout(_left(deadline))
            connection.send(block)
    except (BrokenPipeError, ConnectionResetError):  # it may have said why it does not want the rest
        answer, _ = _received(connection.getresponse(), sock, deadline)
        return answer, False
    sock.settimeout(_left(deadline))
    return _received(connection.getresponse(), sock, deadline)


def _received(response: HTTPResponse, sock: Any, deadline: float) -> tuple[_Answer, bool]:
    body = io.BytesIO()
    length = response.length
    if length is None and not response.chunked:
        raise ConnectionError("the answer does not say how long it is")
    while block := response.read1(_BLOCK_BYTES):
        body.write(block)
        sock.settimeout(_left(deadline))
    if length is not None and body.tell() != length:
        raise ConnectionError(f"the connection ended after {body.tell():,} of {length:,} bytes")
    headers = {name.lower(): value for name, value in response.getheaders()}
    response.close()  # the connection stays
    return _Answer(response.status, headers, body.getvalue()), not response.will_close


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the store took too long to answer")
    return left


def _check_host(host: str) -> None:
    """Raises ValueError where no host is named like that."""
    parts = urlsplit(f"//{host}")
    if not parts.hostname or parts.port == 0 or ".." in host:
        raise ValueError(f"{host!r} is no host")


def _worded(error: Exception, host: str) -> OSError:
    """The error with the host that was asked."""
    if isinstance(error, TimeoutError):
        return TimeoutError(f"{host} took too long to answer")
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return ConnectionError(f"{host}: {text}")


def _opened(scheme: str, host: str, seconds: float) -> HTTPConnection:
    """A connection, by the proxy that the environment names, if any."""
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    options: dict[str, Any] = {"timeout": seconds, "blocksize": _BLOCK_BYTES}
    at = urlsplit(proxy).netloc.rpartition("@")[2] if proxy else host
    if scheme == "http" and not proxy:
        return _using(HTTPConnection(at, **options))
    if scheme == "http":
        raise Refused(errno.EPROTO, "a proxy is asked only for https; add the store's host to no_proxy")
    import ssl

    connection = HTTPSConnection(at, context=ssl.create_default_context(cafile=environment("AWS_CA_BUNDLE")), **options)
    if proxy:
        connection.set_tunnel(host)
    return _using(connection)


def _using(connection: HTTPConnection) -> HTTPConnection:
    connection.response_class = _Response
    return connection


# --- what the store says ------------------------------------------------------------------------------------------


def _refusal(answer: _Answer, path: str) -> OSError:
    text = _said(answer.body) or f"HTTP status {answer.status}"
    if answer.status == 404:
        return FileNotFoundError(errno.ENOENT, f"no such bucket: {text}" if "NoSuchBucket" in text else text, path)
    if answer.status in (401, 403):
        return PermissionError(errno.EACCES, text)
    return Refused(errno.EIO, text)


def _said(body: bytes) -> str:
    """Code and message of an error."""
    return ": ".join(text for name in ("Code", "Message") if (text := _element(body, name)))[:300]


def _element(body: bytes, name: str) -> str:
    """The text of the first element of a name; blank where there is none."""
    found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), body)
    return unescape(found[1].decode(errors="replace")) if found else ""


def _contents(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a listing: key and facts. Its keys are percent-encoded."""
    for found in re.finditer(rb"<Contents>(.*?)</Contents>", body, re.DOTALL):
        key = unquote_plus(_element(found[1], "Key"))
        if key and not key.endswith("/"):
            facts = {"ETag": _element(found[1], "ETag"), "LastModified": _element(found[1], "LastModified")}
            yield key, {"type": "file", "size": int(_element(found[1], "Size")), **facts}


def _next(body: bytes) -> str | None:
    """What asks for the listing's next page."""
    return _element(body, "NextContinuationToken") or None if _element(body, "IsTruncated") == "true" else None

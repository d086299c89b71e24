"""Files: local ones, and those behind http(s), gs and abfs by their fsspec drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from engine.errors import MaestroError, MissingExtra, SourceError, TransientSourceError
from engine.sources import Chunk, Reading, Request
from engine.sources.file_reading import FileReading
from engine.sources.store import LocalStore, RemoteStore, Store
from engine.spec import FileSpec, location_of, secrets_of
from engine.types import redact

_DRIVERS = {
    **dict.fromkeys(("http", "https"), ("aiohttp", "http")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("abfs", "abfss", "az"), ("adlfs", "azure")),
}


class FileSource:
    """Reads files in the order of their paths: small ones together, large Parquet files by row groups.

    ``*``, ``?``, ``[…]`` and ``**`` are expanded; hidden files and what lies in hidden folders are left out.
    """

    kind = "file"

    def __init__(self, name: str, spec: FileSpec, base: Path) -> None:
        self._name, self._spec, self._base = name, spec, base
        self._texts: set[str] = set()
        self._refused: SourceError | None = None  # a redirect, which fsspec would tell as a missing file
        self.location = location_of(spec, base) if spec.scheme else LocalStore(name, spec, base).location

    def open(self, request: Request) -> AbstractContextManager[Reading]:
        """See `engine.sources.Source.open`."""
        return FileReading(self._name, self._spec, self._spec.path, self._store(), request, self._texts)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        with self.open(Request()) as opened:
            yield from opened.chunks()

    def _store(self) -> Store:
        spec = self._spec
        if not spec.scheme:
            return LocalStore(self._name, spec, self._base)
        import fsspec

        options: dict[str, Any] = {
            key: value.get_secret_value() if hasattr(value, "get_secret_value") else value
            for key, value in spec.storage_options.items()
        }
        web = spec.scheme in ("http", "https")
        if web:
            options |= self._web()
        try:
            files = fsspec.filesystem(spec.scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        except ImportError:
            driver, extra = _DRIVERS[spec.scheme]
            raise MissingExtra(driver, extra, f"reading {spec.scheme}://") from None
        except Exception as error:  # noqa: BLE001 - a driver raises what it likes
            raise self._worded(error) from None
        pattern = spec.path if web else spec.path.partition("://")[2]
        return RemoteStore(
            self._name,
            files,
            pattern,
            "" if web else f"{spec.scheme}://",
            retries=spec.max_retries,
            timeout=spec.timeout_seconds,
            worded=self._worded,
            limit=spec.limits.bytes,
            globs="?" not in spec.path if web else True,
        )

    def _web(self) -> dict[str, Any]:
        """Options of fsspec's HTTP: time-outs, headers, and no redirect that would carry them to another origin."""
        import aiohttp

        spec = self._spec
        headers = {name: value.get_secret_value() for name, value in spec.headers.items()}
        trace = aiohttp.TraceConfig()
        name = self._name

        async def redirected(_: Any, __: Any, params: Any) -> None:
            there = urlsplit(urljoin(str(params.url), params.response.headers.get("Location", "")))
            here = urlsplit(spec.path)
            if headers and (there.scheme, there.netloc) != (here.scheme, here.netloc):
                self._refused = SourceError(
                    f"{self.location}: the server redirects to {there.scheme}://{there.netloc}",
                    code="source.redirect",
                    where=f"sources.{name}",
                    allowed="redirects within the origin that the headers are for",
                    fix="write the URL that it redirects to, or leave out headers",
                )
                raise self._refused

        trace.on_request_redirect.append(redirected)
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=min(10, spec.timeout_seconds), sock_read=spec.timeout_seconds
        )
        return {"client_kwargs": {"headers": headers, "timeout": limits, "trace_configs": [trace]}}

    def _worded(self, error: BaseException) -> BaseException:
        """Words what a file system and the way to it say."""
        if self._refused is not None:
            return self._refused
        if isinstance(error, MaestroError) or not isinstance(error, Exception):
            return error
        status = getattr(error, "status", None)
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return self._error(
                "nothing is there", code="source.no_match", fix="correct the path; * ? [] and ** are expanded"
            )
        if isinstance(error, PermissionError) or status in (401, 403):
            return self._error(f"access was refused: {text}", code="source.access_denied", fix="check the credentials")
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
            return self._error(f"the server answers {status}", code="source.unreadable", fix="check the URL")
        if isinstance(error, ValueError | TypeError | NotImplementedError):
            return self._error(
                f"no request can be made: {text}", code="source.invalid_request", fix="check path and storage_options"
            )
        return self._error(
            f"it cannot be read: {text}", code="source.unreadable", fix="check that the store is up", transient=True
        )

    def _error(self, message: str, *, code: str, fix: str, transient: bool = False) -> SourceError:
        kind = TransientSourceError if transient else SourceError
        text = redact(f"{self.location}: {message}", secrets_of(self._spec))
        return kind(text, code=code, where=f"sources.{self._name}", fix=fix)

"""Objects in S3 or a store that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from engine.errors import MaestroError, SourceError, TransientSourceError
from engine.s3 import is_of_the_store, open_client
from engine.sources import Chunk, Reading, Request
from engine.sources.file_reading import FileReading
from engine.sources.store import RemoteStore
from engine.spec import S3Spec, secrets_of
from engine.types import redact


class S3Source:
    """Reads objects in the order of their keys: small ones together, large Parquet objects by row groups.

    In a key ``*``, ``?``, ``[…]`` and ``**`` are expanded; hidden keys are left out.
    """

    kind = "s3"

    def __init__(self, name: str, spec: S3Spec) -> None:
        self._name = name
        self._spec = spec
        self._texts: set[str] = set()
        self.location = f"s3://{spec.bucket}/{spec.key}"

    def open(self, request: Request) -> AbstractContextManager[Reading]:
        """See `engine.sources.Source.open`."""
        spec = self._spec
        store = RemoteStore(
            self._name,
            open_client(spec, "reading S3", seconds=spec.timeout_seconds, attempts=0),  # RemoteStore calls again
            f"{spec.bucket}/{spec.key}",
            "s3://",
            retries=spec.max_retries,
            timeout=spec.timeout_seconds,
            worded=self._worded,
            limit=spec.limits.bytes,
        )
        return FileReading(self._name, spec, spec.key, store, request, self._texts)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        with self.open(Request()) as opened:
            yield from opened.chunks()

    def _worded(self, error: BaseException) -> BaseException:
        """Words what the store and the way to it say."""
        if isinstance(error, FileNotFoundError):
            return self._error(
                "nothing is there" if "bucket" not in str(error) else "there is no such bucket",
                code="source.no_match",
                fix="correct bucket and key; * ? [] and ** are expanded in a key",
            )
        if isinstance(error, PermissionError):
            return self._error(
                f"the store refused access: {error}",
                code="source.access_denied",
                fix="check access_key, secret_key, and what they may read",
            )
        if isinstance(error, MaestroError) or not isinstance(error, Exception):
            return error
        if isinstance(error, ValueError) or "not a valid URI" in str(error):
            return self._error(
                f"no request can be made: {' '.join(str(error).split())[:300]}",
                code="source.invalid_request",
                fix="check endpoint_url, region, bucket and key for characters that do not belong there",
            )
        if not is_of_the_store(error):
            return error
        return self._error(
            f"the store cannot be read: {' '.join(str(error).split())[:300] or type(error).__name__}",
            code="source.unreadable",
            fix="check endpoint_url and region, and that the store is up",
            transient=True,
        )

    def _error(self, message: str, *, code: str, fix: str, transient: bool = False) -> SourceError:
        kind = TransientSourceError if transient else SourceError
        text = redact(f"{self.location}: {message}", secrets_of(self._spec))
        return kind(text, code=code, where=f"sources.{self._name}", fix=fix)

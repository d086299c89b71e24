"""Objects in S3 or a store that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from engine.errors import MaestroError, SourceError, TransientSourceError
from engine.s3 import Bucket
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
        # RemoteStore calls again where a call fails.
        bucket = Bucket(spec, spec.bucket, "reading S3", seconds=spec.timeout_seconds, retries=0)
        store = RemoteStore(
            self._name,
            bucket,
            spec.key,
            f"s3://{spec.bucket}/",
            retries=spec.max_retries,
            timeout=spec.timeout_seconds,
            worded=self._worded,
            limit=spec.limits.bytes,
            read=bucket.read,
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
                "nothing is there" if "NoSuchBucket" not in str(error) else "there is no such bucket",
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
        if isinstance(error, ValueError):
            return self._error(
                f"no request can be made: {' '.join(str(error).split())[:300]}",
                code="source.invalid_request",
                fix="check endpoint_url, region, bucket and key for characters that do not belong there",
            )
        if not isinstance(error, OSError):
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

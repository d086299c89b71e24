"""Objects in S3 or a store that speaks its protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from engine.errors import MaestroError, MissingExtra, SourceError, TransientSourceError
from engine.sources import Chunk, Reading, Request
from engine.sources.file_reading import FileReading
from engine.sources.store import RemoteStore
from engine.spec import S3Spec, secrets_of
from engine.types import redact

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 10


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
            self._open(),
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

    def _open(self) -> Any:
        try:
            import s3fs
        except ImportError:
            raise MissingExtra("s3fs", "s3", "reading S3") from None
        for noisy in ("botocore", "aiobotocore"):  # at DEBUG they log request headers, access keys among them
            if logging.getLogger(noisy).level == logging.NOTSET:
                logging.getLogger(noisy).setLevel(logging.INFO)
        spec = self._spec
        files = s3fs.S3FileSystem(
            key=spec.access_key.get_secret_value() if spec.access_key else None,
            secret=spec.secret_key.get_secret_value() if spec.secret_key else None,
            endpoint_url=spec.endpoint_url,
            client_kwargs={"region_name": spec.region or DEFAULT_REGION},
            config_kwargs={
                "connect_timeout": min(CONNECT_SECONDS, spec.timeout_seconds),
                "read_timeout": spec.timeout_seconds,
                "retries": {"max_attempts": 0, "mode": "standard"},  # RemoteStore makes calls again
            },
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        files.retries = 1
        return files

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
        network = type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")
        if not network and not isinstance(error, OSError | TimeoutError):
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

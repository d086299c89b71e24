"""Objects in S3 or a store that speaks its protocol.

Parquet is scanned where it lies; the text formats are fetched to a temporary file first, so that they go through the
same checks as local files.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from engine.errors import MissingExtra, SourceError, TransientSourceError
from engine.sources import Chunk, Reading, Request, plain, reading
from engine.sources.file import is_hidden, split_glob
from engine.spec import S3Spec, file_format, secrets_of
from engine.types import redact

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 10


class S3Source:
    """Reads objects in the order of their keys, each as one chunk (NDJSON: as several).

    In a key ``*``, ``?``, ``[…]`` and ``**`` are expanded; hidden keys are left out.
    """

    kind = "s3"

    def __init__(self, name: str, spec: S3Spec) -> None:
        self._name = name
        self._spec = spec
        self.location = f"s3://{spec.bucket}/{spec.key}"

    def open(self, request: Request) -> AbstractContextManager[Reading]:  # noqa: ARG002 - each reads anew
        """See `engine.sources.Source.open`."""
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        number = 0
        with self._failures():
            store = self._open()
            for path in self._paths(store):
                with reading(f"s3://{path}", self._name, secrets_of(self._spec)):
                    for chunk in self._pieces(store, path, number):
                        yield chunk
                        number += 1

    def _pieces(self, store: Any, path: str, number: int) -> Iterator[Chunk]:
        from engine.sources import formats

        origin = f"s3://{path}"
        form = self._spec.format or file_format(self._spec.key) or ""
        if form == "parquet":
            import pyarrow.parquet

            with store.open(path, "rb") as stream:
                rows = pyarrow.parquet.ParquetFile(stream).metadata.num_rows
            piece = formats.parquet(origin, rows, origin, self._scan_options())
            yield piece.chunk(number, origin)
            return
        with tempfile.TemporaryDirectory(prefix="maestro-s3-") as folder:
            copy = Path(folder) / path.rpartition("/")[2]
            store.get_file(path, str(copy))
            found = formats.pieces(copy, form, name=self._name, origin=origin, batch_size=self._spec.batch_size)
            for i, piece in enumerate(found, number):
                yield piece.chunk(i, origin)

    def _open(self) -> Any:
        try:
            import s3fs
        except ImportError:
            raise MissingExtra("s3fs", "s3", "reading S3") from None
        for noisy in ("botocore", "aiobotocore"):  # at DEBUG they log request headers, access keys among them
            if logging.getLogger(noisy).level == logging.NOTSET:
                logging.getLogger(noisy).setLevel(logging.INFO)
        spec = self._spec
        return s3fs.S3FileSystem(
            key=spec.access_key.get_secret_value() if spec.access_key else None,
            secret=spec.secret_key.get_secret_value() if spec.secret_key else None,
            endpoint_url=spec.endpoint_url,
            client_kwargs={"region_name": spec.region or DEFAULT_REGION},
            config_kwargs={
                "connect_timeout": min(CONNECT_SECONDS, spec.timeout_seconds),
                "read_timeout": spec.timeout_seconds,
                "retries": {"max_attempts": spec.max_retries + 1, "mode": "standard"},
            },
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def _scan_options(self) -> dict[str, Any]:
        spec = self._spec
        options: dict[str, Any] = {
            "aws_region": spec.region or DEFAULT_REGION,
            "max_retries": spec.max_retries,
            "timeout": f"{spec.timeout_seconds:g}s",
        }
        if spec.access_key and spec.secret_key:
            options["aws_access_key_id"] = spec.access_key.get_secret_value()
            options["aws_secret_access_key"] = spec.secret_key.get_secret_value()
        if spec.endpoint_url:
            options["aws_endpoint_url"] = spec.endpoint_url.rstrip("/")
            options["aws_allow_http"] = str(spec.endpoint_url.startswith("http://")).lower()
        return options

    def _paths(self, store: Any) -> list[str]:
        pattern = f"{self._spec.bucket}/{self._spec.key}"
        if not any(mark in pattern for mark in "*?["):
            store.info(pattern)
            return [pattern]
        folder, _ = split_glob(pattern)
        details = store.glob(pattern, detail=True)
        found = [path for path, facts in details.items() if facts["type"] == "file" and not is_hidden(path, folder)]
        if not found:
            store.ls(self._spec.bucket)  # tells a missing bucket from a missing key
            raise FileNotFoundError(pattern)
        return sorted(found)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Word what the store and the way to it say."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._error(
                "nothing is there" if "bucket" not in str(error) else "there is no such bucket",
                code="source.no_match",
                fix="correct bucket and key; * ? [] and ** are expanded in a key",
            ) from None
        except PermissionError as error:
            raise self._error(
                f"the store refused access: {error}",
                code="source.access_denied",
                fix="check access_key, secret_key, and what they may read",
            ) from None
        except (SourceError, MissingExtra):
            raise
        except Exception as error:
            if isinstance(error, ValueError) or "not a valid URI" in str(error):
                raise self._error(
                    f"no request can be made: {' '.join(str(error).split())[:300]}",
                    code="source.invalid_request",
                    fix="check endpoint_url, region, bucket and key for characters that do not belong there",
                ) from None
            network = type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")
            if not network and not isinstance(error, OSError):
                raise
            raise self._error(
                f"the store cannot be read: {' '.join(str(error).split())[:300]}",
                code="source.unreadable",
                fix="check endpoint_url and region, and that the store is up",
                transient=True,
            ) from None

    def _error(self, message: str, *, code: str, fix: str, transient: bool = False) -> SourceError:
        kind = TransientSourceError if transient else SourceError
        text = redact(f"{self.location}: {message}", secrets_of(self._spec))
        return kind(text, code=code, where=f"sources.{self._name}", fix=fix)

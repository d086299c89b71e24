"""The decompressed bytes of a text file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from engine.sources.formats import Job, Meter, fault

_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException)


class Decoded(io.RawIOBase):
    """What a stream holds, counted against the limits; a stream that breaks off is an error that says so."""

    def __init__(self, job: Job, stream: IO[bytes]) -> None:
        self._job, self._stream, self._meter = job, stream, Meter(job)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (*_BROKEN, OSError) as error:
            if self._job.compression == "none" or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise fault(
                self._job,
                f"its {self._job.compression} data is damaged or cut short: {' '.join(str(error).split())[:200]}",
                fix="have it written again, or correct compression",
            ) from None
        self._meter.add(0, len(data))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def opened(job: Job) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed."""
    with _raw(job) as stream:
        yield cast(IO[bytes], io.BufferedReader(Decoded(job, stream), 2**20))


@contextmanager
def _raw(job: Job) -> Iterator[IO[bytes]]:
    body = job.body
    if job.compression == "zstd":
        source = pa.BufferReader(body) if isinstance(body, bytes) else pa.OSFile(str(body))
        with pa.CompressedInputStream(source, "zstd") as compressed:
            yield cast(IO[bytes], compressed)
        return
    with io.BytesIO(body) if isinstance(body, bytes) else Path(body).open("rb") as stream:
        if job.compression == "none":
            yield stream
        else:
            openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
            with openers[job.compression](stream) as decompressed:
                yield decompressed

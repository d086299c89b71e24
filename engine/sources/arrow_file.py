"""Arrow IPC: files and streams, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from engine.sources.formats import Job, Part, check_shape, fault, gathered

MAGIC = b"ARROW1"
END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream


def parts(job: Job) -> Iterator[Part]:
    """The rows of all record batches."""
    with pa.BufferReader(job.body) if isinstance(job.body, bytes) else pa.OSFile(str(job.body)) as source:
        start = source.read(len(MAGIC))
        source.seek(0)
        if start == MAGIC:
            file = pa.ipc.open_file(source)
            batches: Iterator[pa.RecordBatch] = map(file.get_batch, range(file.num_record_batches))
            schema = file.schema
        else:
            stream = pa.ipc.open_stream(source)
            batches, schema = _to_the_end(job, stream, source), stream.schema
        check_shape(job, schema)
        yield from gathered(job, batches, schema)


def _to_the_end(job: Job, stream: Any, source: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a stream, which without its end mark may have been cut off between two of them."""
    yield from stream
    at = source.tell()
    source.seek(max(0, at - len(END)))
    if source.read(len(END)) != END:
        raise fault(
            job,
            "the stream has no end mark, so that rows may be missing",
            fix="have it written again, or as an Arrow file instead of a stream",
        )

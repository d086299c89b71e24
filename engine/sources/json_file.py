"""NDJSON, line by line, and JSON, as a whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from engine.sources import records
from engine.sources.compression import opened
from engine.sources.formats import PART_BYTES, Job, Part, beyond, fault


def parts(job: Job) -> Iterator[Part]:
    """The records of a file."""
    yield from _ndjson(job) if job.form == "ndjson" else _json(job)


def _ndjson(job: Job) -> Iterator[Part]:
    """A JSON object per line; blank lines do not count."""
    first = 1
    before = 0
    with opened(job) as stream:
        while lines := _lines(job, stream, first):
            if first == 1:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            found = _objects(job, lines, first)
            last = first + len(lines) - 1
            if found:
                place = f" lines {first}-{last}"
                yield Part(_frame(job, found, place), before, place, open_schema=True)
            first, before = last + 1, before + len(found)
            if before > job.limits.rows:
                raise beyond(job, f"it has more than {job.limits.rows:,} rows", "rows")


def _lines(job: Job, stream: IO[bytes], first: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    most = job.limits.value_bytes
    for line in islice(iter(lambda: stream.readline(most + 1), b""), job.batch):
        if len(line) > most:
            raise beyond(job, f"line {first + len(lines)} is longer than {most:,} bytes", "value_bytes")
        lines.append(line)
        size += len(line)
        if size >= PART_BYTES // 3:  # values take more room than their text
            break
    return lines


def _objects(job: Job, lines: list[bytes], first: int) -> list[dict[str, Any]]:
    filled = [text for line in lines if (text := line.strip())]
    try:  # all at once is twice as fast; what two lines share then shows by how they begin and end, and their number
        if all(line[0] == b"{"[0] and line[-1] == b"}"[0] for line in filled):
            found = records.parse(b"[" + b",".join(filled) + b"]")
            if len(found) == len(filled) and all(type(r) is dict for r in found):
                return list(found)
    except ValueError:
        pass
    alone = []
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            alone.append(records.parse(line))
            if type(alone[-1]) is not dict:
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise fault(
                job,
                f"line {number} cannot be read: {error}{_encoding(line)}",
                allowed="one JSON object per line",
                fix="correct that line",
            ) from None
    return alone  # one begins with a byte order mark, as where files were put together


def _json(job: Job) -> Iterator[Part]:
    """One JSON array of objects, held in memory as a whole; a blank file is an empty one."""
    most = job.limits.whole_bytes
    with opened(job) as stream:
        body = stream.read(most + 1).removeprefix(codecs.BOM_UTF8)
    if len(body) > most:
        raise beyond(job, f"it is more than {most:,} bytes of JSON in one piece", "whole_bytes")
    if not body.strip():
        return
    try:
        found = records.parse(body)
    except ValueError as error:
        raise fault(
            job,
            f"it is not JSON: {error}{_encoding(body)}",
            fix="correct it, or write format: ndjson for one object per line",
        ) from None
    if not isinstance(found, list) or not all(type(r) is dict for r in found):
        raise fault(job, "it is not a list of objects", allowed="[{…}, {…}]", fix="wrap the objects in a list")
    if len(found) > job.limits.rows:
        raise beyond(job, f"it has {len(found):,} rows", "rows")
    size = job.batch
    for first in range(0, len(found), size):
        some = found[first : first + size]
        place = f" records {first}-{first + len(some) - 1}" if len(found) > size else ""
        yield Part(_frame(job, some, place), first, place, open_schema=True)


def _frame(job: Job, found: list[dict[str, Any]], place: str) -> Any:
    deep = _depth(found, job.limits.nesting)
    if deep is not None:
        number, _ = deep
        raise beyond(job, f"record {number}{place} is nested more than {job.limits.nesting} levels deep", "nesting")
    return records.frame(found, where=f"sources.{job.name}", origin=job.origin + place)


def _depth(found: list[dict[str, Any]], most: int) -> tuple[int, int] | None:
    """The first record that is nested more than ``most`` levels deep."""
    for number, record in enumerate(found):
        level: list[Any] = [v for v in record.values() if type(v) in (dict, list)]
        depth = 0
        while level:
            depth += 1
            if depth > most:
                return number, depth
            inner = (v.values() if type(v) is dict else v for v in level)
            level = [v for values in inner for v in values if type(v) in (dict, list)]
    return None


def _encoding(text: bytes) -> str:
    """A hint, where the text is in no encoding that JSON may have."""
    return (
        "; it is not UTF-8, which JSON has to be" if b"\0" in text[:4] or text[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    )

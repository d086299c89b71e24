"""File formats: one local file as lazy frames, with what Polars would read wrong in silence refused.

Parquet and CSV are one lazy scan per file; NDJSON and JSON are records (`engine.sources.records`), NDJSON in pieces.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from engine.errors import SourceError
from engine.sources import Chunk, Span
from engine.sources.csv_types import Column

PIECE_BYTES = 64 * 2**20
BLOCK_BYTES = (4 * 2**20, 16 * 2**20)  # of CSV; Arrow holds some forty at once, and a row has to fit into one


@dataclass(frozen=True)
class Piece:
    """A file or a part of it, of which ``rows`` records from number ``first`` on."""

    origin: str
    frame: pl.LazyFrame
    rows: int
    open_schema: bool = False
    first: int = 0

    def chunk(self, number: int, path: str) -> Chunk:
        """What a reading of the file ``path`` gives of it."""
        span = Span(path, self.first, self.rows)
        return Chunk(number, self.origin, self.frame, self.rows, self.open_schema, spans=[span])


def pieces(path: Path, form: str, *, name: str, origin: str, batch_size: int) -> Iterator[Piece]:
    """The rows of one local file, in order; none for NDJSON or JSON without records, whose columns nobody knows.

    Args:
        path: the file; ``.gz`` and ``.zst`` are looked through, except for Parquet.
        form: ``parquet``, ``csv``, ``ndjson`` or ``json``.
        name: the source's name, for errors.
        origin: what to call the file.
        batch_size: most records of an NDJSON piece.

    Raises:
        SourceError: the file is not of its format, or is so in a way that would lose or change values.
        polars and pyarrow errors: see `engine.sources.reading`.
    """
    fault = Fault(name, origin)
    if form == "parquet":
        yield parquet(str(path), pyarrow.parquet.ParquetFile(path).metadata.num_rows, origin)
    elif form == "csv":
        yield _csv(path, fault)
    elif form == "ndjson":
        yield from _ndjson(path, fault, batch_size)
    else:
        yield from _json(path, fault)


def parquet(location: str, rows: int, origin: str, options: Mapping[str, Any] | None = None) -> Piece:
    """A Parquet file; ``rows`` as its footer says. Folders named ``key=value`` add no columns."""
    frame = pl.scan_parquet(
        location, hive_partitioning=False, glob=False, storage_options=dict(options) if options else None
    )
    return Piece(origin, frame, rows)


@dataclass(frozen=True)
class Fault:
    """Words the errors of one file."""

    name: str
    origin: str

    def __call__(
        self, message: str, *, code: str = "source.malformed", allowed: str | None = None, fix: str
    ) -> SourceError:
        text = f"{self.origin}: {message}"
        return SourceError(text, code=code, where=f"sources.{self.name}", allowed=allowed, fix=fix)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    elif path.suffix.lower() == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as compressed:
            yield io.BufferedReader(pa.PythonFile(compressed, "r"))
    else:
        with path.open("rb") as stream:
            yield stream


# --- CSV ---------------------------------------------------------------------------------------------------------


def _csv(path: Path, fault: Fault) -> Piece:
    """A CSV file: a comma, UTF-8, one line of column names; the types rest on all rows.

    An empty field is null, an empty text in quotes is the empty text, a blank line is a row of nulls. Dates stay
    text, and so does a column of numbers of which an integer is beyond int64 or not written as integers are (007,
    -0): it holds codes. A column with a fraction somewhere is Float64, unless an integer in it is beyond 2**53.
    """
    only_header = _check_header(path, fault)
    names = list(pl.scan_csv(path, infer_schema_length=0, glob=False).collect_schema())
    rows, columns = (0, [Column() for _ in names]) if only_header else _count_rows(path, fault, len(names))
    schema = {name: (column.type or pl.String)() for name, column in zip(names, columns, strict=True)}
    return Piece(fault.origin, pl.scan_csv(path, schema=schema, glob=False), rows)  # a schema: nothing is inferred anew


def _check_header(path: Path, fault: Fault) -> bool:
    """Whether the file ends with its first line, which has to name the columns."""
    with _opened(path) as stream:
        raw = stream.readline()
    if not raw.strip():
        raise fault(
            "there is no line of column names",
            fix="write the column names as the first line, or leave the file out",
        )
    try:
        line = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fault("the column names are not UTF-8", fix="save the file as UTF-8") from None
    if "\0" in line or "\r" in line.rstrip("\r\n"):
        raise fault(
            "the first line holds a NUL or a bare carriage return",
            allowed="lines that end in \\n or \\r\\n",
            fix="save the file as UTF-8 text with \\n line ends",
        )
    names = next(csv.reader([line.rstrip("\r\n")]))
    repeated = [n for i, n in enumerate(names) if n in names[:i]]
    if repeated:
        raise fault(
            f"the column {repeated[0]!r} is there twice",
            code="source.repeated_column",
            fix="rename one of them",
        )
    return not raw.endswith(b"\n")


def _count_rows(
    path: Path, fault: Fault, width: int, blocks: tuple[int, ...] = BLOCK_BYTES
) -> tuple[int, list[Column]]:
    """The number of rows and the columns' types. Every row must have ``width`` fields: Polars pads short ones."""
    names = [str(i) for i in range(width)]
    options: dict[str, Any] = {
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        "read_options": pyarrow.csv.ReadOptions(block_size=blocks[0], column_names=names, skip_rows_after_names=1),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }
    rows, columns = 0, [Column() for _ in names]
    last = pl.Series(dtype=pl.Binary)  # the last field of all, kept back
    try:
        with pyarrow.csv.open_csv(str(path), **options) as reader:
            for batch in filter(len, reader):
                rows += batch.num_rows
                *others, fields = (pl.Series(batch[name]) for name in names)
                columns[-1].add(last)
                last = fields[-1:]
                for column, block in zip(columns, [*others, fields[:-1]], strict=True):
                    column.add(block)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) and blocks[1:]:
            return _count_rows(path, fault, width, blocks[1:])
        counts = re.search(r"Expected (\d+) columns, got (\d+)", str(error))
        raise fault(
            f"a row has {counts[2]} fields where {counts[1]} are named" if counts else str(error).partition("\n")[0],
            allowed="as many fields in every row as there are column names",
            fix="correct that row, or put quotes around texts that hold commas or line breaks",
        ) from None
    if last.to_list() != [b""] or columns[-1].type is pl.String or not _ends_with_a_comma(path):
        columns[-1].add(last)
    return rows, columns


def _ends_with_a_comma(path: Path) -> bool:
    """Then the last field is null, yet Arrow gives it as an empty text when the field before it is in quotes."""
    end = b""
    with _opened(path) as stream:
        while block := stream.read(2**20):
            end = block[-1:]
    return end == b","


# --- JSON --------------------------------------------------------------------------------------------------------


def _ndjson(path: Path, fault: Fault, batch_size: int) -> Iterator[Piece]:
    """A JSON object per line; blank lines do not count."""
    from engine.sources import records

    first = 1
    before = 0
    with _opened(path) as stream:
        while lines := _lines(stream, batch_size):
            if first == 1:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            found = _objects(lines, first, fault)
            last = first + len(lines) - 1
            if found:
                origin = f"{fault.origin} lines {first}-{last}"
                frame = records.frame(found, where=f"sources.{fault.name}", origin=origin)
                yield Piece(origin, frame.lazy(), len(found), open_schema=True, first=before)
            first, before = last + 1, before + len(found)


def _lines(stream: IO[bytes], most: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    for line in islice(stream, most):
        lines.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            break
    return lines


def _objects(lines: list[bytes], first: int, fault: Fault) -> list[dict[str, Any]]:
    from engine.sources import records

    filled = [line for line in lines if line.strip()]
    try:
        found = records.parse(b"[" + b",".join(filled) + b"]")
        if len(found) == len(filled) and all(type(r) is dict for r in found):
            return list(found)
    except ValueError:
        pass
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            if type(records.parse(line)) is not dict:
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise fault(
                f"line {number} cannot be read: {error}",
                allowed="one JSON object per line",
                fix="correct that line",
            ) from None
    raise AssertionError("every line is an object, yet together they are not")


def _json(path: Path, fault: Fault) -> Iterator[Piece]:
    """One JSON array of objects, held in memory as a whole; a blank file is an empty one."""
    from engine.sources import records

    with _opened(path) as stream:
        body = stream.read().removeprefix(codecs.BOM_UTF8)
    if not body.strip():
        return
    try:
        found = records.parse(body)
    except ValueError as error:
        raise fault(
            f"it is not JSON: {error}", fix="correct it, or write format: ndjson for one object per line"
        ) from None
    if not isinstance(found, list) or not all(type(r) is dict for r in found):
        raise fault("it is not a list of objects", allowed="[{…}, {…}]", fix="wrap the objects in a list")
    if found:
        frame = records.frame(found, where=f"sources.{fault.name}", origin=fault.origin)
        yield Piece(fault.origin, frame.lazy(), len(found), open_schema=True)

"""CSV: Arrow cuts the text into fields, the types rest on all of them, and nothing is padded, guessed or left out.

An empty field is null, an empty text in quotes is the empty text, a blank line is a row of nulls. Dates stay text, and
so does a column of numbers of which an integer is beyond int64 or not written as integers are (007, -0): it holds
codes. A column with a fraction somewhere is Float64, unless an integer in it is beyond 2**53.
"""

from __future__ import annotations

import codecs
import csv
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv

from engine.errors import SourceError
from engine.sources.compression import opened
from engine.sources.csv_types import Column, typed
from engine.sources.formats import PART_BYTES, PART_ROWS, Job, Meter, Part, beyond, fault

_LIMIT = threading.Lock()  # of Python's reader: it is the whole process's
_NAME_LINES = 100  # of the column names, at most
BLOCK_BYTES = 4 * 2**20  # Arrow holds some forty at once, and a row has to fit into one
HELD_BYTES = (
    24 * 2**20
)  # a text that is no larger is cut into fields once, and held between finding types and using them


def parts(job: Job) -> Iterator[Part]:
    """The rows of a file: cut into fields to find the types, and once more to use them, unless it is small."""
    names, start = _header(job)
    if len(names) > job.limits.columns:
        raise beyond(job, f"it has {len(names):,} columns", "columns")
    columns, rows, held, block = _looked_through(job, names, start)
    kinds = {name: column.kind for name, column in zip(names, columns, strict=True)}
    types = {name: column.type or pl.String for name, column in zip(names, columns, strict=True)}
    if held is None or not all(_serves(frame, types) for frame in held):
        held = None
    blocks = _blocks(job, names, start, block, checked=False) if held is None else iter(held)
    first = 0
    for frames in _grouped(_typed(fields, types) for fields in blocks):
        frame = pl.concat(frames)
        yield Part(frame, first, kinds=kinds)
        first += frame.height
    if first != rows:
        raise fault(
            job, f"{rows} rows were read, then {first}", code="source.changed", fix="run again while nobody writes it"
        )
    if not rows:
        yield Part(pl.DataFrame(schema={name: kind() for name, kind in types.items()}), kinds=kinds)


def _looked_through(
    job: Job, names: Sequence[str], start: int, block: int | None = None
) -> tuple[list[Column], int, list[pl.DataFrame] | None, int]:
    """The columns' types, how many rows there are, the fields of a small file, and the size of block that it takes."""
    block = block or min(BLOCK_BYTES, job.limits.value_bytes)
    held: list[pl.DataFrame] | None = []
    size = rows = 0
    columns = [Column(text=name in job.texts) for name in names]
    try:
        for batch in _batches(job, names, start, block, checked=True):
            rows += batch.num_rows
            if rows > job.limits.rows:
                raise beyond(job, f"it has more than {job.limits.rows:,} rows", "rows")
            taken = [c.take(name, of) for c, name, of in zip(columns, names, batch.columns, strict=True)]
            size += sum(int(fields.estimated_size()) for fields, _ in taken)
            if held is not None:
                known = (fields if values is None else values for fields, values in taken)
                frame = pl.DataFrame(dict(zip(names, known, strict=True)))
                held = [*held, frame] if size <= HELD_BYTES else None
    except _Straddling:
        if block >= job.limits.value_bytes:
            message = f"a row is longer than {job.limits.value_bytes:,} bytes"
            raise beyond(job, message, "value_bytes") from None
        return _looked_through(job, names, start, job.limits.value_bytes)
    return columns, rows, held, block


def _serves(frame: pl.DataFrame, types: dict[str, type[pl.DataType]]) -> bool:
    """Whether its fields, of which some are values already, can still become the types found since."""
    return all(frame.schema[name] in (pl.String, kind) or kind == pl.Float64 for name, kind in types.items())


def _grouped(blocks: Iterator[pl.DataFrame]) -> Iterator[list[pl.DataFrame]]:
    group: list[pl.DataFrame] = []
    rows = size = 0
    for block in blocks:
        group.append(block)
        rows, size = rows + block.height, size + int(block.estimated_size())
        if rows >= PART_ROWS or size >= PART_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _typed(frame: pl.DataFrame, types: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Fields as values."""
    return pl.DataFrame(
        {n: frame[n] if frame.schema[n] == kind else typed(frame[n], kind) for n, kind in types.items()}
    )


def _check_encoding(job: Job, names: Sequence[str], start: int, block: int) -> None:
    """Finds the field that is not text of the declared encoding.

    Raises:
        SourceError: there is one.
    """
    first = 0
    for frame in _blocks(job, names, start, block, checked=False, raw=True):
        for name in names:
            row = next((i for i, field in enumerate(frame[name]) if field is not None and not _is_utf8(field)), None)
            if row is not None:
                raise fault(
                    job,
                    f"row {first + row + 1}, column {name!r}: the text is not {job.csv.encoding}: invalid utf-8",
                    code="source.encoding",
                    allowed=f"{job.csv.encoding}, as declared",
                    fix="set csv.encoding to what it is written in, such as latin-1 or cp1252",
                )
        first += frame.height


def _is_utf8(field: bytes) -> bool:
    try:
        field.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- the text ----------------------------------------------------------------------------------------------------


@contextmanager
def _text(job: Job) -> Iterator[IO[bytes]]:
    """The file as UTF-8, without a byte order mark and the lines to leave out."""
    with opened(job) as stream:
        text: IO[bytes] = stream
        if not _is_plain(job):
            text = cast(IO[bytes], io.BufferedReader(_Recoded(job, stream), 2**20))
        head = text.peek(3)[:3]  # type: ignore[attr-defined]
        if head == codecs.BOM_UTF8:
            text.read(3)
        for _ in range(job.csv.skip_lines):
            _line(job, text)
        yield text


class _Recoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, job: Job, stream: IO[bytes]) -> None:
        self._job, self._stream = job, stream
        self._decoder = codecs.getincrementaldecoder(job.csv.encoding)("strict")
        self._rest = b""
        self._lines = 1
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            data = self._stream.read(2**18)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=self._ended)
            except UnicodeError as error:
                raise fault(
                    self._job,
                    f"line {self._lines} or after it: the text is not {self._job.csv.encoding}: {error}",
                    code="source.encoding",
                    fix="set csv.encoding to what it is written in",
                ) from None
            self._lines += text.count("\n")
            self._rest = text.encode("utf-8", "surrogatepass")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _line(job: Job, text: IO[bytes]) -> bytes:
    """One line; blank at the end."""
    line = text.readline(job.limits.value_bytes + 1)
    if len(line) > job.limits.value_bytes:
        raise beyond(job, f"a line is longer than {job.limits.value_bytes:,} bytes", "value_bytes")
    return line


def _header(job: Job) -> tuple[list[str], int]:
    """The names of the columns, and how many bytes of the text they take."""
    with _text(job) as text:
        raw = _line(job, text)
        if not raw.strip():
            raise fault(
                job,
                "there is no line of column names" if job.csv.header else "there is no line",
                fix="write the column names as the first line, or leave the file out",
            )
        line = _name_line(job, raw)
        names = _names(job, line)
        for _ in range(_NAME_LINES):  # a name in quotes may hold a line break
            if names is not None or not (more := _line(job, text)):
                break
            raw += more
            names = _names(job, _name_line(job, raw))
    if names is None:
        message = "line 1 cannot be read: a quote is not closed, or followed by something else"
        raise fault(job, message, fix="correct the quotes of the column names")
    if not job.csv.header:
        return [f"column_{i}" for i in range(1, len(names) + 1)], 0
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise fault(
                job, f"the column {name!r} is there twice", code="source.repeated_column", fix="rename one of them"
            )
        seen.add(name)
    return names, len(raw)


def _name_line(job: Job, raw: bytes) -> str:
    """The text of the first line."""
    try:
        line = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        utf16 = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        guess = "utf-16" if utf16 else "latin-1 or cp1252"
        raise fault(
            job,
            f"line 1: the column names are not {job.csv.encoding.upper()}",
            code="source.encoding",
            fix=f"save the file as UTF-8, or set csv.encoding to what it is written in, such as {guess}",
        ) from None
    if "\0" in line or "\r" in line.replace("\r\n", ""):
        raise fault(
            job,
            "the first line holds a NUL or a bare carriage return",
            allowed="lines that end in \\n or \\r\\n",
            fix="save the file as UTF-8 text with \\n line ends, or set csv.encoding to utf-16 if it is",
        )
    return line


def _names(job: Job, line: str) -> list[str] | None:
    """Its fields; None where its quotes do not close."""
    try:
        found: list[str] = next(_python(job, [line]), [])
    except csv.Error:
        return None
    return found


def _python(job: Job, lines: Any) -> Any:
    """Python's reader of the same dialect: slow, strict, and it counts lines."""
    quoting: dict[str, Any] = {"quotechar": job.csv.quote} if job.csv.quote else {"quoting": csv.QUOTE_NONE}
    return csv.reader(
        lines,
        delimiter=job.csv.delimiter,
        escapechar=job.csv.escape,
        strict=True,
        **quoting,
    )


# --- fields ------------------------------------------------------------------------------------------------------


class _Ended(io.RawIOBase):
    """Text that ends with a line break, which Arrow needs to tell an empty last field; its quotes looked through."""

    def __init__(self, text: IO[bytes], quotes: _Quotes | None, broken: list[BaseException]) -> None:
        self._text, self._quotes, self._broken = text, quotes, broken
        self._last = b"\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._text.read(len(buffer))
        except BaseException as error:  # Arrow would word it anew
            self._broken.append(error)
            raise
        if not data and self._last != b"\n":
            data = b"\n"
        if data:
            self._last = data[-1:]
            buffer[: len(data)] = data
        if self._quotes:
            if data:
                self._quotes.add(data)
            else:
                self._quotes.end()
        return len(data)


class _Quotes:
    """Whether all quotes open or close a field, or stand for one inside it; Arrow takes any, also none to close one."""

    def __init__(self, job: Job) -> None:
        self.quote = (job.csv.quote or "").encode()
        self._ends = {*job.csv.delimiter.encode(), *b"\r\n"}
        self._inside = False
        self._outside = b"\n"  # of the text since the last closing quote, its first and last character
        self.regular = job.csv.escape is None

    def add(self, data: bytes) -> None:
        """More text."""
        if not self.regular:
            return
        if self.quote not in data:
            if not self._inside:
                self._outside = (self._outside + data)[:1] + data[-1:]
            return
        first, *middle, last = data.split(self.quote)
        if not self._inside:
            self.regular = self._fits(self._outside + first)
        outside = middle if self._inside else middle[1:]
        self.regular = self.regular and all(map(self._fits, outside[::2] if self._inside else middle[1::2]))
        self._inside ^= (len(middle) + 1) % 2 == 1
        if not self._inside:
            self._outside = last[:1] + last[-1:]

    def end(self) -> None:
        """There is no more."""
        self.regular = self.regular and not self._inside and self._fits(self._outside + b"\n")

    def _fits(self, piece: bytes) -> bool:
        """Whether text between a closing and an opening quote is the end of a field, and the beginning of another."""
        return not piece or (piece[0] in self._ends and piece[-1] in self._ends)


class _Straddling(Exception):  # noqa: N818 - never leaves this module
    """A row does not fit into a block."""


def _blocks(
    job: Job, names: Sequence[str], start: int, block: int, *, checked: bool, raw: bool = False
) -> Iterator[pl.DataFrame]:
    """The fields as texts, empty ones as null; or raw, as bytes."""
    for batch in _batches(job, names, start, block, checked=checked, raw=raw):
        yield pl.DataFrame({n: pl.Series(n, c) for n, c in zip(names, batch.columns, strict=True)})


def _batches(
    job: Job, names: Sequence[str], start: int, block: int, *, checked: bool, raw: bool = False
) -> Iterator[pa.RecordBatch]:
    """The same, as Arrow has them."""
    options: dict[str, Any] = {
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=job.csv.delimiter,
            quote_char=job.csv.quote or False,
            escape_char=job.csv.escape or False,
            newlines_in_values=True,
            ignore_empty_lines=False,
        ),
        "read_options": pyarrow.csv.ReadOptions(block_size=block, column_names=[str(i) for i in range(len(names))]),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={str(i): pa.large_binary() if raw else pa.large_string() for i in range(len(names))},
            null_values=["", *job.csv.null_values],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }
    quotes = _Quotes(job) if checked and job.csv.quote else None
    broken: list[BaseException] = []
    with _source(job, start, quotes, broken) as source:
        if source is None:
            return
        try:
            with pyarrow.csv.open_csv(source, **options) as reader:
                yield from filter(len, reader)
        except (pa.ArrowException, SourceError) as error:
            if broken:
                raise broken[0] from None
            if "straddling" in str(error):
                raise _Straddling from None
            if "UTF8" in str(error) and not raw:
                _check_encoding(job, names, start, block)
            _check_rows(job, len(names), start)
            raise fault(job, str(error).partition("\n")[0], fix="correct that row") from None
    if quotes and not quotes.regular:
        _check_rows(job, len(names), start)


@contextmanager
def _source(job: Job, start: int, quotes: _Quotes | None, broken: list[BaseException]) -> Iterator[Any]:
    """The text after the column names, for Arrow; None where there is none."""
    body = job.body
    if isinstance(body, bytes) and job.compression == "none" and _is_plain(job):  # as it is, without a copy
        Meter(job).add(0, len(body))
        at = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
        for _ in range(job.csv.skip_lines):
            at = body.find(b"\n", at) + 1 or len(body)
        at += start
        if quotes:
            if body.find(quotes.quote, at) >= 0:
                quotes.add(body[at:])
            quotes.end()
        if at >= len(body):
            yield None
        else:
            yield pa.BufferReader(pa.py_buffer(body).slice(at) if body.endswith(b"\n") else body[at:] + b"\n")
        return
    with _text(job) as text:
        text.read(start)
        if text.peek(1):  # type: ignore[attr-defined]
            yield pa.PythonFile(_Ended(text, quotes, broken), "r")
        else:
            yield None


def _is_plain(job: Job) -> bool:
    return codecs.lookup(job.csv.encoding).name in ("utf-8", "utf-8-sig")


def _check_rows(job: Job, width: int, start: int) -> None:
    """Finds the row that cannot be right, with a slower reader.

    Raises:
        SourceError: there is one.
    """
    with _LIMIT, _text(job) as text:
        before = csv.field_size_limit(job.limits.value_bytes)
        try:
            head = text.read(start).count(b"\n") + job.csv.skip_lines
            reader = _python(job, io.TextIOWrapper(text, "utf-8", "surrogateescape", newline=""))
            line = 1
            while True:
                line = reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                if fields and len(fields) != width:
                    raise fault(
                        job,
                        f"line {head + line}: a row has {len(fields)} fields where {width} are named",
                        allowed="as many fields in every row as there are column names",
                        fix="correct that row, or put quotes around texts that hold commas or line breaks",
                    )
        except csv.Error as error:
            raise fault(
                job,
                f"line {head + line} cannot be read: {error}",
                allowed='fields in quotes as a whole, with "" for a quote inside',
                fix="correct the quotes of that row, or set csv.quote: null if they have no meaning",
            ) from None
        finally:
            csv.field_size_limit(before)

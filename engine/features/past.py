"""Published views as they stood at given moments: of each row, the newest one of its key that is not younger.

Entity rows pass a view's files once, both in time order: a file puts its rows in the places of their keys, and an
entity row finds there where its values lie. Values are read afterwards, and of files that have some only. So what is
held is a number per key and per entity row, whatever the number of files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from engine.frames import column, exactly, reading
from engine.moments import to_moment

CREATED = "created_timestamp"
ROW, TIME, CODE, AT = "_row", "_time", "_code", "_at"  # columns of our own; keys are 0, 1 …
BATCH = 1_000_000  # rows of files that are looked at together
_THREADS = 2  # files that are read at the same time
_SHIFT = 1 << 32  # a place is the file's number × this + the row's number in it
_NO_TTL = 1 << 62


@dataclass(frozen=True)
class Part:
    """A published file: the rows of one as-of.

    Attributes:
        as_of: microseconds since 1970.
        fetch: gives its path, once it is there, and makes sure that it is still the same file.
        alike: whether all its rows have one ``created_timestamp``; else of two rows of a key the later created counts,
            and then the one that comes later in the file.
        marks: column: a fingerprint of the fit that it was made with, none for raw ones; None: not known.
    """

    as_of: int
    rows: int
    fetch: Callable[[], Path]
    alike: bool = True
    marks: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Past:
    """A view and its files.

    Attributes:
        keys: the key columns, with the types that hold the keys of all files.
        features: those that are wanted, likewise.
        parts: earliest first.
        ttl: microseconds that a row holds, both ends included; None: until a newer one.
        columns: key column: the column of entity rows that holds it, where that has another name.
        used: the numbers of the parts that something was found in.
    """

    name: str
    keys: Mapping[str, pl.DataType]
    features: Mapping[str, pl.DataType]
    parts: Sequence[Part]
    ttl: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    used: set[int] = field(default_factory=set, compare=False)

    def fits(self) -> dict[str, dict[str, int]]:
        """feature: the fits that what was found of it was made with, and the first as-of of each; "" is none."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.features}
        for part in (self.parts[number] for number in sorted(self.used)):
            if part.marks is not None:
                for name, marks in found.items():
                    marks.setdefault(part.marks.get(name, ""), part.as_of)
        return found


class Keyed(Protocol):
    """What has keys that entity rows are looked up by."""

    @property
    def keys(self) -> Mapping[str, pl.DataType]: ...

    @property
    def columns(self) -> Mapping[str, str]: ...


_Piece = tuple[int, Part, int, int]  # of a file: its number, itself, the first row, how many


def narrow(past: Keyed, schema: pl.Schema, timestamp: str) -> list[pl.Expr]:
    """Of entity rows, what a view is looked up by: keys that compare with its own, and the moment."""
    keys = [
        comparable(column(own), schema[own], dtype).alias(str(i))
        for i, (own, dtype) in enumerate((past.columns.get(name, name), dtype) for name, dtype in past.keys.items())
    ]
    return [*keys, to_moment(column(timestamp), schema[timestamp]).to_physical().alias(TIME)]


def comparable(expr: pl.Expr, dtype: pl.DataType, other: pl.DataType) -> pl.Expr:
    """``expr`` of type ``dtype`` in the type that it is compared in with values of type ``other``.

    Texts and numbers compare as the number is written; a float that is whole is that number, another one equals no
    integer and no text.
    """
    kinds = {_kind(dtype), _kind(other)}
    if _kind(dtype) == "float" and kinds != {"float"}:
        expr = pl.when(expr == expr.floor()).then(expr).cast(pl.Int64, strict=False)
    if dtype == other and kinds == {"other"}:
        return expr
    if kinds == {"moment"}:
        return expr if dtype == other else to_moment(expr, dtype)
    if kinds == {"float"}:
        return expr.cast(pl.Float64)
    if kinds <= {"int", "float"} and not {pl.UInt64, pl.Int128, pl.UInt128} & {dtype, other}:
        return expr.cast(pl.Int64)
    return expr.cast(pl.String, strict=False)


def _kind(dtype: pl.DataType) -> str:
    if dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return "text"
    if dtype.is_integer():
        return "int"
    if dtype.is_float():
        return "float"
    return "moment" if dtype == pl.Date or isinstance(dtype, pl.Datetime) else "other"


def looked_up(rows: pl.DataFrame, past: Past, schema: pl.Schema) -> tuple[pl.DataFrame, int]:
    """The features of the rows that `narrow` gives, in their order, null where nothing held; and for how many some did.

    Args:
        schema: of the entity rows that they come from.
    """
    keys = list(map(str, range(len(past.keys))))
    known = rows.with_row_index(ROW).drop_nulls()
    codes = known.select(keys).unique().with_row_index(CODE)
    known = known.join(codes, on=keys).select(ROW, CODE, TIME).sort(TIME)
    at = Sweep(past, codes, schema).places(known[CODE], known[TIME])
    return values(past, at, known[ROW], rows.height), at.count()


class Sweep:
    """A view's files on their way past entity rows that come in time order.

    Args:
        codes: the keys that will be asked for, and a number for each, from 0.
        schema: of the entity rows.
    """

    def __init__(self, past: Past, codes: pl.DataFrame, schema: pl.Schema) -> None:
        self._past, self._codes = past, codes
        self._keys = [
            comparable(column(name), dtype, schema[past.columns.get(name, name)]) for name, dtype in past.keys.items()
        ]
        self._as_of = [part.as_of for part in past.parts]
        self._state = pl.repeat(None, codes.height, dtype=pl.Int64, eager=True)
        self._next = 0

    def places(self, codes: pl.Series, moments: pl.Series) -> pl.Series:
        """Where the values of each row lie; null where nothing held.

        Args:
            moments: microseconds, ascending, and none before those of an earlier call.
        """
        found, done = [], 0
        for part, places in self._matched(moments):
            start = int(moments.search_sorted(self._as_of[part], side="left"))
            found.append(self._state.gather(codes[done:start]))
            done = max(done, start)
            self._state = self._state.scatter(places[CODE], places[AT])
        found.append(self._state.gather(codes[done:]))
        at = pl.concat(found)
        if self._past.ttl is None or not self._as_of:
            return at
        since = pl.Series(self._as_of, dtype=pl.Int64).gather(at // _SHIFT)
        return at.set(moments - since > min(self._past.ttl, _NO_TTL), None)

    def _matched(self, moments: pl.Series) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of files, by file, that have one of the keys; each file that can matter, once."""
        if moments.is_empty():
            return
        end = bisect_right(self._as_of, moments[-1])
        needed = [i for i in range(self._next, end) if self._can_match(i, moments)]
        self._next = max(self._next, end)
        keys = list(map(str, range(len(self._keys))))
        last = None  # keys, and where they are among the codes: often those of the next file too
        with ThreadPoolExecutor(_THREADS) as pool:
            for pieces in _batches([(i, self._past.parts[i]) for i in needed]):
                reads = list(pool.map(lambda piece: self._read(*piece), pieces))
                same = [
                    read.select(keys).equals(before.select(keys)) if before is not None else False
                    for before, read in zip([last[0] if last else None, *reads], reads, strict=False)
                ]
                fresh = [read for read, is_same in zip(reads, same, strict=True) if not is_same]
                joined = iter(self._joined(fresh, keys))
                for (number, *_), read, is_same in zip(pieces, reads, same, strict=True):
                    if not is_same or last is None:
                        last = read, next(joined)
                    yield number, last[1].select(CODE, read[AT].gather(last[1][ROW]))

    def _joined(self, reads: Sequence[pl.DataFrame], keys: list[str]) -> list[pl.DataFrame]:
        """Of each frame the rows that have one of the keys: their numbers in it, and the codes."""
        if not reads:
            return []
        ends = pl.Series([0, *(read.height for read in reads)], dtype=pl.UInt32).cum_sum().to_list()
        whole = pl.concat([read.select(keys) for read in reads]).with_row_index(ROW)
        found = whole.join(self._codes, on=keys, maintain_order="left").select(ROW, CODE)
        bounds = [int(found[ROW].search_sorted(end, side="left")) for end in ends]
        starts = zip(ends, bounds, bounds[1:], strict=False)
        return [found[low:high].with_columns(pl.col(ROW) - end) for end, low, high in starts]

    def _can_match(self, part: int, moments: pl.Series) -> bool:
        """Whether a row lies within the ttl of a file; also one to come, which is not before the last."""
        if self._past.ttl is None:
            return True
        first = int(moments.search_sorted(self._as_of[part], side="left"))
        until = self._as_of[part] + self._past.ttl
        return bool(until >= moments[first] or until >= moments[-1])

    def _read(self, number: int, part: Part, start: int, count: int) -> pl.DataFrame:
        with reading_part(part) as path:
            frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
            frame = frame.with_columns(column(name).cast(dtype) for name, dtype in self._past.keys.items())
            keys = [key.alias(str(i)) for i, key in enumerate(self._keys)]
            place = (pl.int_range(pl.len(), dtype=pl.Int64) + (number * _SHIFT + start)).alias(AT)
            if part.alike:
                return frame.slice(start, count).select(*keys, place).collect(engine="in-memory")
            created = column(CREATED).alias(TIME)
            read = frame.select(*keys, place, created).collect(engine="in-memory")
            return read.sort(TIME, maintain_order=True).drop(TIME)


def values(past: Past, at: pl.Series, rows: pl.Series, count: int) -> pl.DataFrame:
    """``count`` rows of features; what lies at the place ``at[i]`` stands in row ``rows[i]``, others are null."""
    hits = pl.DataFrame({ROW: rows, AT: at}).drop_nulls()
    parts = hits[AT] // _SHIFT
    if not parts.is_sorted():  # it is where entity rows in the order of time find all in the newest file
        hits = hits.sort(AT)
        parts = hits[AT] // _SHIFT
    wanted, placed, start = [], [], 0
    for length, number in parts.rle().struct.unnest().iter_rows():
        part, mine = past.parts[number], hits[start : start + length]
        past.used.add(number)
        start += length
        for _, _, first, size in _pieces(number, part):
            inside = mine.with_columns(pl.col(AT) % _SHIFT - first)
            if size < part.rows:
                inside = inside.filter(pl.col(AT).is_between(0, size - 1))
            if inside.height:
                wanted.append((part, first, size, inside[AT]))
                placed.append(inside[ROW])
    if not wanted:
        return pl.DataFrame(schema=dict(past.features)).clear(count)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda piece: _read_values(past, *piece), wanted))
    table = pl.concat(found, rechunk=True)  # gathering from pieces is slower than putting them together
    found.clear()
    order = pl.repeat(None, count, dtype=pl.UInt32, eager=True)
    order = order.scatter(pl.concat(placed), pl.int_range(table.height, dtype=pl.UInt32, eager=True))
    return table.select(column(name).gather(order) for name in past.features)


def _read_values(past: Past, part: Part, start: int, count: int, rows: pl.Series) -> pl.DataFrame:
    """Of a piece of a file the features of some rows."""
    with reading_part(part) as path:
        frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
        schema = frame.collect_schema()
        wanted = [
            pl.lit(None, dtype).alias(name)
            if name not in schema
            else column(name)
            if schema[name] == dtype
            else exactly(name, dtype)
            for name, dtype in past.features.items()
        ]
        found: pl.DataFrame = frame.slice(start, count).select(wanted).collect(engine="in-memory")[rows]
        return found


@contextmanager
def reading_part(part: Part) -> Iterator[Path]:
    """The path of a file, while it is read.

    Raises:
        DataError: it cannot be read.
        SinkError: another one has taken its place.
    """
    path = part.fetch()
    with reading(f"the published file {path}", "`maestro verify` names what is amiss; publish that as-of again"):
        yield path
    part.fetch()


def _pieces(number: int, part: Part) -> list[_Piece]:
    size = BATCH if part.alike else max(1, part.rows)
    return [(number, part, start, min(size, part.rows - start)) for start in range(0, part.rows, size)]


def _batches(parts: Sequence[tuple[int, Part]]) -> Iterator[list[_Piece]]:
    """Pieces of files, such as are looked at together."""
    before = 0
    batch: list[_Piece] = []
    for piece in (piece for number, part in parts for piece in _pieces(number, part)):
        if batch and before + piece[3] > BATCH:
            yield batch
            before, batch = 0, []
        batch.append(piece)
        before += piece[3]
    if batch:
        yield batch

"""Published views as they stood at given moments: of each row, the newest one of its key that is not younger.

Entity rows pass a view's files once, both in time order: a file puts its rows in the places of their keys, and an
entity row finds there where its values lie. Values are read afterwards, and of files that have some only. So what is
held is a number per key and per entity row, whatever the number of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from engine.features.placed import Placed
from engine.frames import column, exactly, reading
from engine.moments import to_moment

CREATED = "created_timestamp"
ROW, TIME, CODE, AT = "_row", "_time", "_code", "_at"  # columns of our own; keys are 0, 1 …
BATCH = 500_000  # rows of files that are looked at together, while as many are being read
_THREADS = 2  # files that are read at the same time
_BITS = 32
_SHIFT = 1 << _BITS  # a place is the file's number × this + the row's number in it
_NO_TTL = 1 << 62
NOWHERE = np.int64(-1)  # the place where nothing held
Places = npt.NDArray[np.int64]


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
_Joined = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # rows of it, and their codes


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
    known = rows.drop_nulls()
    with ThreadPoolExecutor(1) as beside:
        moments = beside.submit(Moments, past, known[TIME].to_numpy())
        numbered = known.select(keys).with_row_index(ROW).group_by(keys).agg(ROW).with_row_index(CODE)
        codes = np.empty(known.height, np.int64)
        codes[numbered[ROW].explode().to_numpy()] = np.repeat(
            np.arange(numbered.height), numbered[ROW].list.len().to_numpy()
        )
        places = Sweep(past, numbered.drop(ROW), schema).places(codes, moments.result())
    if known.height < rows.height:
        every = np.full(rows.height, NOWHERE)
        every[rows.select(pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()] = places
        places = every
    return values(past, places), int(np.count_nonzero(places != NOWHERE))


class Moments:
    """Moments of entity rows, by the files that they lie between.

    Attributes:
        moments: microseconds.
        order: of the rows, such that those before the first file come first, then those before the second one …
        ends: per number of files, how many rows have no more than that before them.
    """

    def __init__(self, past: Past, moments: npt.NDArray[np.int64]) -> None:
        self.moments = moments
        before = np.searchsorted([part.as_of for part in past.parts], moments, side="right")
        self.order = _by_number(before)
        self.ends = np.bincount(before, minlength=len(past.parts) + 1).cumsum()

    def firsts(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        """The numbers of files that rows have before them, ascending, and the first moment of each."""
        starts = np.concatenate([[0], self.ends[:-1]])
        numbers = np.flatnonzero(self.ends > starts)
        return numbers, np.minimum.reduceat(self.moments[self.order], starts[numbers])


class Sweep:
    """A view's files on their way past entity rows.

    Args:
        codes: the keys that will be asked for, and a number for each, from 0.
        schema: of the entity rows.
    """

    def __init__(self, past: Past, codes: pl.DataFrame, schema: pl.Schema) -> None:
        self._past, self._codes = past, codes
        self._keys = [
            comparable(column(name), dtype, schema[past.columns.get(name, name)]) for name, dtype in past.keys.items()
        ]
        self._as_of = np.array([part.as_of for part in past.parts], np.int64)
        self._state = np.full(codes.height, NOWHERE)
        self._next = 0

    def places(self, codes: npt.NDArray[np.int64], passing: Moments) -> Places:
        """Where the values of each row lie.

        Args:
            passing: the rows' moments, none before those of an earlier call.
        """
        mine = codes[passing.order]
        found, done = [], 0
        for part, held, at in self._matched(passing):
            start = int(passing.ends[part])
            found.append(self._state[mine[done:start]])
            done = max(done, start)
            self._state[held] = at
        found.append(self._state[mine[done:]])
        places = np.empty(len(codes), np.int64)
        places[passing.order] = np.concatenate(found)
        ttl = self._past.ttl
        if ttl is not None and len(places) and len(self._as_of) and passing.moments.max() - self._as_of[0] > ttl:
            since = self._as_of[places >> _BITS]
            places[passing.moments - since > min(ttl, _NO_TTL)] = NOWHERE
        return places

    def _matched(self, passing: Moments) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """By file the codes that it has, and the places of their rows; each file that can matter, once."""
        if not len(passing.moments):
            return
        needed = self._needed(passing)
        keys = list(map(str, range(len(self._keys))))
        last: tuple[pl.DataFrame, _Joined] | None = None  # the keys of a file are often those of the next one too
        for pieces, reads in _read_ahead(_batches([(i, self._past.parts[i]) for i in needed]), self._read):
            same = [
                read.select(keys).equals(before.select(keys)) if before is not None else False
                for before, read in zip([last[0] if last else None, *reads], reads, strict=False)
            ]
            fresh = [read for read, is_same in zip(reads, same, strict=True) if not is_same]
            joined = iter(self._joined(fresh, keys))
            for (number, _, start, _), read, is_same in zip(pieces, reads, same, strict=True):
                if not is_same or last is None:
                    last = read, next(joined)
                rows, held = last[1]
                if AT in read.columns:
                    rows = read[AT].to_numpy()[rows]
                yield number, held, rows + (number * _SHIFT + start)

    def _needed(self, passing: Moments) -> list[int]:
        """The files, from where the last call ended, that rows of this one or of later ones can have values in."""
        last = passing.moments.max()
        end = int(np.searchsorted(self._as_of, last, side="right"))
        needed = range(self._next, end)
        self._next = max(self._next, end)
        ttl = self._past.ttl
        if ttl is None or not needed or last - self._as_of[0] <= ttl:
            return list(needed)
        numbers, firsts = passing.firsts()
        return [
            part
            for part in needed
            if int(self._as_of[part]) + ttl >= min(last, firsts[np.searchsorted(numbers, part + 1)])
        ]

    def _joined(self, reads: Sequence[pl.DataFrame], keys: list[str]) -> list[_Joined]:
        """Of each frame the rows that have one of the keys: their numbers in it, and the codes."""
        if not reads:
            return []
        ends = np.cumsum([0, *(read.height for read in reads)])
        whole = pl.concat([read.select(keys) for read in reads]).with_row_index(ROW)
        found = whole.join(self._codes, on=keys, maintain_order="left").select(pl.col(ROW, CODE).cast(pl.Int64))
        rows, codes = found[ROW].to_numpy(), found[CODE].to_numpy()
        bounds = np.searchsorted(rows, ends)
        starts = zip(ends, bounds, bounds[1:], strict=False)
        return [(rows[low:high] - end, codes[low:high]) for end, low, high in starts]

    def _read(self, piece: _Piece) -> pl.DataFrame:
        """The keys of a piece of a file, and the numbers of the rows where their order is another one."""
        _, part, start, count = piece
        with reading_part(part) as path:
            frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
            frame = frame.with_columns(column(name).cast(dtype) for name, dtype in self._past.keys.items())
            keys = [key.alias(str(i)) for i, key in enumerate(self._keys)]
            if part.alike:
                return frame.slice(start, count).select(keys).collect(engine="in-memory")
            place = pl.int_range(pl.len(), dtype=pl.Int64).alias(AT)
            read = frame.select(*keys, place, column(CREATED).alias(TIME)).collect(engine="in-memory")
            return read.sort(TIME, maintain_order=True).drop(TIME)


def values(past: Past, places: Places) -> pl.DataFrame:
    """The features that lie at the places, null where there is none."""
    numbers = (places >> _BITS) + 1
    order, counts = _by_number(numbers), np.bincount(numbers)
    wanted: list[tuple[Part, int, int, Places, npt.NDArray[np.intp]]] = []
    placed = Placed(past.features, len(places))
    start = 0
    for number, count in enumerate(counts.tolist(), start=-1):
        mine = order[start : start + count]
        start += count
        if number < 0 or not count:
            continue
        part, at = past.parts[number], places[mine] - number * _SHIFT
        past.used.add(number)
        for _, _, first, size in _pieces(number, part):
            inside = np.flatnonzero((at >= first) & (at < first + size)) if size < part.rows else slice(None)
            if len(at[inside]):
                wanted.append((part, first, size, at[inside] - first, mine[inside]))
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda piece: _put_values(past, *piece, placed=placed), wanted))
    return placed.frame()


def _put_values(
    past: Past, part: Part, start: int, count: int, at: Places, rows: npt.NDArray[np.intp], *, placed: Placed
) -> None:
    """Puts the features of some rows of a piece of a file in the places of the rows that want them."""
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
        placed.put(frame.slice(start, count).select(wanted).collect(engine="in-memory"), at, rows)


def _by_number(numbers: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
    """The order that brings equal numbers together, lower ones first, and changes nothing else."""
    small = numbers.astype(np.uint16) if not len(numbers) or numbers.max() < 2**16 else numbers  # sorted by radix
    return np.argsort(small, kind="stable")


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


def _read_ahead(
    batches: Iterator[list[_Piece]], read: Callable[[_Piece], pl.DataFrame]
) -> Iterator[tuple[list[_Piece], list[pl.DataFrame]]]:
    """Batches and what was read of them, while the next one is being read."""
    waiting: list[tuple[list[_Piece], list[Future[pl.DataFrame]]]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for pieces in batches:
            waiting.append((pieces, [pool.submit(read, piece) for piece in pieces]))
            if len(waiting) > 1:
                earlier, futures = waiting.pop(0)
                yield earlier, [future.result() for future in futures]
        for pieces, futures in waiting:
            yield pieces, [future.result() for future in futures]

"""Entity rows joined to views as of the rows' own moments, slice by slice in bounded memory and in their order."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from engine.errors import DataError, UsageError, did_you_mean, nearest
from engine.features.asof import AsOf, Table
from engine.features.past import Past, looked_up, narrow
from engine.features.past_on_disk import LookUp
from engine.frames import column, reading
from engine.moments import readable, unreadable
from engine.types import EPOCH, iso, size_of

_SAMPLE = 1_000  # entity rows that tell how wide the others are
_TEXT_BYTES = 40
_FEWEST, _MOST = 1_000, 4_000_000  # entity rows at once


@dataclass(frozen=True)
class View:
    """Where a view's rows are looked up, and the names of its features in the result."""

    past: Past | Table
    names: Mapping[str, str]


class Join:
    """What is asked for, once it is known to make sense.

    Attributes:
        schema: of the entity rows.
        names: of the features in the result.
        rows, matched: how many there were, and for how many each view held something, once they have been read.

    Args:
        pasts: what is joined; features are named as they are, or ``view__feature`` where a name is there twice, or
            where all are to be named so (``full``). Or `View`, whose names stand.
        kept: whether the entity rows can be read repeatedly, and in one order.
        mixed: whether the values of a feature may have been made with several fits.

    Raises:
        UsageError: a column is not there, holds no moments, or would be there twice.
    """

    def __init__(
        self,
        frame: pl.LazyFrame,
        pasts: Sequence[Past | Table | View],
        *,
        timestamp: str,
        memory_limit: str,
        spill: Path,
        full: bool = False,
        kept: bool = True,
        mixed: bool = False,
    ) -> None:
        self.frame, self.timestamp, self.kept, self.mixed = frame, timestamp, kept, mixed
        self.memory_limit, self.spill = memory_limit, spill
        with reading("the entity rows"):
            self.schema = self.frame.collect_schema()
        self._check([past.past if isinstance(past, View) else past for past in pasts])
        self.views = _named(pasts, list(self.schema), full)
        self.rows, self.matched = 0, dict.fromkeys((view.past.name for view in self.views), 0)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for view in self.views for name in view.names.values())

    @property
    def fits(self) -> dict[str, dict[str, str]]:
        """view: feature: the fit that its values were made with, once they have been read; "" is none."""
        pasts = [view.past for view in self.views if isinstance(view.past, Past)]
        found = {p.name: {n: next(iter(since)) for n, since in p.fits().items() if len(since) == 1} for p in pasts}
        return {view: marks for view, marks in found.items() if marks}

    @property
    def types(self) -> dict[str, pl.DataType]:
        """Of the columns of the result."""
        features = {view.names[name]: dtype for view in self.views for name, dtype in view.past.features.items()}
        return {**self.schema, **features}

    def lazy(self) -> pl.LazyFrame:
        return register_io_source(self._read, schema=self.types, is_pure=True)

    def begin(self, folder: Path) -> None:
        """Hears of a folder that lasts as long as rows are read."""

    def _read(
        self, columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        """The rows in slices, as Polars asks for them."""
        wanted = [*self.schema, *self.names] if columns is None else columns
        self.rows, self.matched = 0, dict.fromkeys(self.matched, 0)
        for frame in self.slices(wanted, limit):
            self.rows += frame.height
            chosen = frame.select(map(column, wanted))
            yield chosen if predicate is None else chosen.filter(predicate)

    def slices(self, wanted: Sequence[str], limit: int | None = None) -> Iterator[pl.DataFrame]:
        """The rows, with at least the columns that are wanted."""
        views = [chosen for view in self.views if (chosen := _only(view, wanted))]
        needed = {view.past.columns.get(key, key) for view in views for key in view.past.keys}
        used = {*wanted, self.timestamp, *needed}
        with ExitStack() as held:
            folder = held.enter_context(_folder(self.spill))
            self.begin(folder)
            with reading("the entity rows"):
                frame = self.frame.select(column(name) for name in self.schema if name in used)
                if not self.kept:  # read once, and in one order
                    frame.sink_parquet(folder / "entities.parquet", compression="lz4", maintain_order=True)
                    frame = pl.scan_parquet(folder / "entities.parquet", hive_partitioning=False, glob=False)
                count = int(frame.select(pl.len()).collect().item())
                count = count if limit is None else min(count, limit)
                size = self._size(frame.head(_SAMPLE).collect(), views)
            if count > size:
                size = max(1, size // 2)  # what was looked up is still being written when more is
            found: list[LookUp | AsOf | None] = [
                self._on_disk(frame.head(count), view, size, folder / str(i))
                if count > size or isinstance(view.past, Table)
                else None
                for i, view in enumerate(views)
            ]
            for table in found:
                if isinstance(table, AsOf):
                    held.callback(table.close)
            for start in range(0, count, size) if count else [0]:
                with reading("the entity rows"):
                    rows = frame.slice(start, min(size, count - start)).collect(engine="in-memory")
                yield self._joined(rows, start // size, views, found)

    def _joined(
        self, rows: pl.DataFrame, number: int, views: Sequence[View], found: Sequence[LookUp | AsOf | None]
    ) -> pl.DataFrame:
        self._check_moments(rows)
        for view, on_disk in zip(views, found, strict=True):
            if on_disk is not None:
                features, matched = on_disk.slice(number, rows.height)
            elif isinstance(view.past, Past):
                keys = rows.select(narrow(view.past, self.schema, self.timestamp))
                features, matched = looked_up(keys, view.past, self.schema)
            self.matched[view.past.name] += matched
            if isinstance(view.past, Past) and not self.mixed:
                _check_fits(view.past)
            rows = rows.hstack(features.rename(dict(view.names)))
        return rows

    def _on_disk(self, frame: pl.LazyFrame, view: View, size: int, folder: Path) -> LookUp | AsOf:
        rows = frame.select(narrow(view.past, self.schema, self.timestamp))
        memory = size_of(self.memory_limit) // 4
        with reading("the entity rows"):
            if isinstance(view.past, Table):
                return AsOf(rows, view.past, self.schema, size=size, memory=memory // len(self.views), folder=folder)
            return LookUp(rows, view.past, self.schema, size=size, memory=memory, folder=folder)

    def _size(self, sample: pl.DataFrame, views: Sequence[View]) -> int:
        """How many entity rows are looked at together."""
        own = sample.estimated_size() / max(1, sample.height)
        features = sum(_width(dtype) for view in views for dtype in view.past.features.values())
        size = size_of(self.memory_limit) / (3 * (own + features) + 64 * len(views))
        return int(min(max(size, _FEWEST), _MOST))

    def _check(self, pasts: Sequence[Past | Table]) -> None:
        names, kind = list(self.schema), self.schema.get(self.timestamp)
        keys = {past.columns.get(key, key): past.name for past in pasts for key in past.keys}
        needed = {self.timestamp: "the moments", **{key: f"the key of {name}" for key, name in keys.items()}}
        for name, what in needed.items():
            if name not in names:
                fix = did_you_mean(name, names, f"add it, or rename the column that holds {what}")
                if name == self.timestamp and not nearest(name, names):
                    fix = "name the column of moments with --timestamp, or timestamp= in Python"
                raise UsageError(
                    f"the entity rows have no column {name!r}, {what}",
                    code="training.column",
                    where="entities",
                    allowed=", ".join(names),
                    fix=fix,
                )
        if kind is not None and not readable(kind):
            raise UsageError(
                f"the column {self.timestamp!r} of the entity rows is {kind}, which holds no moments",
                code="training.timestamp",
                where="entities",
                allowed="timestamps, dates, or ISO 8601 text",
                fix="cast it, or name another with --timestamp, or timestamp= in Python",
            )

    def _check_moments(self, rows: pl.DataFrame) -> None:
        name, dtype = self.timestamp, self.schema[self.timestamp]
        wrong = rows.filter(unreadable(column(name), dtype))
        if wrong.height:
            raise DataError(
                f"{wrong[name][0]!r} is no moment",
                code="training.moment",
                where=f"entities, column {name!r}",
                allowed="ISO 8601 text",
                fix="correct it, or make it null to have no features there",
            )


def _check_fits(past: Past) -> None:
    mixed = {name: since for name, since in past.fits().items() if len(since) > 1}
    if not mixed:
        return
    first = next(iter(mixed.values()))
    moments = ", ".join(iso(EPOCH + timedelta(microseconds=at)) for at in sorted(first.values()))
    raise DataError(
        f"{past.name} was refitted in between: the values of {', '.join(mixed)} were made with {len(first)} fits, "
        f"first as of {moments}",
        code="training.fits",
        where=past.name,
        fix="run the earlier as-ofs again, which gives them the newest fit; or take moments within one; or allow it: "
        "--mixed-fits, mixed_fits=True",
    )


def _named(pasts: Sequence[Past | Table | View], own: Sequence[str], full: bool) -> tuple[View, ...]:
    """The views with the names of their features: as they are, or ``view__feature`` where one is there twice."""
    times = Counter([*own, *(name for past in pasts if not isinstance(past, View) for name in past.features)])
    views = tuple(
        past
        if isinstance(past, View)
        else View(past, {n: f"{past.name}__{n}" if full or times[n] > 1 else n for n in past.features})
        for past in pasts
    )
    given = Counter([*own, *(name for view in views for name in view.names.values())])
    for name, count in given.items():
        if count > 1:
            raise UsageError(
                f"two columns of the result would be named {name!r}",
                code="training.name",
                where="entities",
                fix="rename the column of the entity rows",
            )
    return views


def _only(view: View, columns: Sequence[str]) -> View | None:
    """The view with those features alone that stand among columns; None where there are none."""
    names = {name: given for name, given in view.names.items() if given in columns}
    return View(replace(view.past, features={n: view.past.features[n] for n in names}), names) if names else None


def _width(dtype: pl.DataType) -> int:
    return 8 if dtype.is_numeric() or dtype.is_temporal() else 1 if dtype == pl.Boolean else _TEXT_BYTES


@contextmanager
def _folder(spill: Path) -> Iterator[Path]:
    spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="training-", dir=spill) as folder:
        yield Path(folder)

"""Training sets: published features joined to entity rows as of the rows' own moments, never of a later one."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from engine.checks.result import json_ready
from engine.errors import DataError, SinkError, UsageError, did_you_mean, nearest
from engine.features.past import Past, looked_up, narrow
from engine.features.past_on_disk import LookUp
from engine.frames import column, parquet_files, reading, scan, to_lazy, to_rows
from engine.moments import readable, unreadable
from engine.plan import Plan, compile_plan
from engine.published import Published
from engine.spec import Pipeline
from engine.types import size_of

TIMESTAMP = "event_timestamp"
_SAMPLE = 1_000  # entity rows that tell how wide the others are
_TEXT_BYTES = 40
_FEWEST, _MOST = 1_000, 4_000_000  # entity rows at once


@dataclass(frozen=True)
class Written:
    """A training set in a file.

    Attributes:
        matched: view: rows for which it held something.
        features: the columns that were added.
    """

    path: str
    rows: int
    matched: Mapping[str, int]
    features: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"file": self.path, "rows": self.rows, "matched": dict(self.matched), "features": list(self.features)}


def training_set(
    pipeline: Pipeline,
    entities: Any,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
) -> pl.LazyFrame:
    """The entity rows, each with the newest published features of its keys that are not younger than its moment.

    All rows come back in the order given, with all their columns; features are null where nothing held, where a key or
    the moment is null, or where what is newest is older than the view's ``ttl`` (both ends included). Of two rows of a
    key and as-of the one created later counts, then the one that comes later in its file. Nothing is read before the
    frame is, and then only the files, and columns, that are needed.

    Args:
        entities: a Parquet file, a folder of such, a glob, or a frame (polars, pyarrow, pandas), with the key columns
            of the views and a moment per row.
        features: ``view:feature`` and ``view:*``, as a list or parted by commas.
        timestamp: the column of moments; UTC where they carry no zone, nanoseconds are floored.
        full_names: names all features ``view__feature``; else only those whose name is there twice.

    Raises:
        ConfigError, UsageError: a view, a feature or a column is not there; nothing is published of a view.
        DataError: the entity rows, or a published file, cannot be read.
    """
    return _TrainingSet(compile_plan(pipeline, history=False), entities, features, timestamp, full_names).lazy()


def write_training_set(
    pipeline: Pipeline,
    entities: Any,
    out: str | Path,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
) -> Written:
    """Writes `training_set` to the Parquet file ``out``, which appears as a whole, in memory within ``memory_limit``.

    Raises:
        ConfigError, UsageError, DataError: as there.
        SinkError: the file cannot be written.
    """
    target = Path(out)
    if target.suffix != ".parquet" or target.is_dir():
        raise UsageError(
            f"{out} would be a Parquet file", code="training.out", where="out", fix="name a file that ends in .parquet"
        )
    local = isinstance(entities, str | Path) and "://" not in str(entities)
    if target.exists() and local and any(target.samefile(file) for file in parquet_files(entities)):
        raise UsageError(
            f"{out} is a file of entities", code="training.out", where="out", fix="name another file for the result"
        )
    made = _TrainingSet(compile_plan(pipeline, history=False), entities, features, timestamp, full_names)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        made.lazy().sink_parquet(staged, compression="snappy", maintain_order=True)
        with staged.open("rb") as handle:
            os.fsync(handle.fileno())
        staged.replace(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SinkError(
            f"cannot write: {getattr(error, 'strerror', None) or error}",
            code="training.unwritable",
            where=str(target),
            fix="free disk space, or name another file",
        ) from None
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(target), made.rows, made.matched, made.names)


def first_rows(
    pipeline: Pipeline,
    entities: Any,
    count: int,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
) -> list[dict[str, Any]]:
    """The first rows of `training_set` as JSON-ready values.

    Raises:
        ConfigError, UsageError, DataError: as there.
    """
    made = _TrainingSet(compile_plan(pipeline, history=False), entities, features, timestamp, full_names)
    found = pl.concat(made.slices([*made.schema, *made.names], count))
    return [json_ready(row) for row in to_rows(found)]


@dataclass(frozen=True)
class _View:
    """A view's past, and the names of its features in the result."""

    past: Past
    names: Mapping[str, str]


class _TrainingSet:
    """What is asked for, once it is known to make sense."""

    def __init__(self, plan: Plan, entities: Any, features: str | Sequence[str], timestamp: str, full: bool) -> None:
        self.timestamp, self.spill, self.memory_limit = timestamp, plan.workdir / "spill", plan.memory_limit
        wanted = _wanted(plan, features)
        self.published = Published(plan, wanted)
        plans = {view.name: view for view in plan.views}
        pasts = [self.published.past(plans[view], names) for view, names in wanted.items()]
        self.kept = isinstance(entities, str | Path | pl.DataFrame)
        self.frame = scan(entities) if isinstance(entities, str | Path) else to_lazy(entities)
        with reading("the entity rows"):
            self.schema = self.frame.collect_schema()
        self._check(pasts)
        self.views = _named(pasts, list(self.schema), full)
        self.rows, self.matched = 0, dict.fromkeys(wanted, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features in the result."""
        return tuple(name for view in self.views for name in view.names.values())

    def lazy(self) -> pl.LazyFrame:
        features = {view.names[name]: dtype for view in self.views for name, dtype in view.past.features.items()}
        return register_io_source(self._read, schema={**self.schema, **features}, is_pure=True)

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

    def slices(self, wanted: Sequence[str], limit: int | None) -> Iterator[pl.DataFrame]:
        views = [chosen for view in self.views if (chosen := _only(view, wanted))]
        used = {*wanted, self.timestamp}.union(*(view.past.keys for view in views))
        with _folder(self.spill) as folder:
            self.published.folder = folder / "published"
            with reading("the entity rows"):
                frame = self.frame.select(column(name) for name in self.schema if name in used)
                if not self.kept:  # read once, and in one order
                    frame.sink_parquet(folder / "entities.parquet", compression="lz4", maintain_order=True)
                    frame = pl.scan_parquet(folder / "entities.parquet", hive_partitioning=False, glob=False)
                count = int(frame.select(pl.len()).collect().item())
                count = count if limit is None else min(count, limit)
                size = self._size(frame.head(_SAMPLE).collect(), views)
            found: list[LookUp] = []
            if count > size:
                size = max(1, size // 2)  # what was looked up is still being written when more is
                found = [self._on_disk(frame.head(count), v, size, folder / v.past.name) for v in views]
            for start in range(0, count, size) if count else [0]:
                with reading("the entity rows"):
                    rows = frame.slice(start, min(size, count - start)).collect(engine="in-memory")
                yield self._joined(rows, start // size, views, found)

    def _joined(self, rows: pl.DataFrame, number: int, views: Sequence[_View], found: Sequence[LookUp]) -> pl.DataFrame:
        self._check_moments(rows)
        for i, view in enumerate(views):
            if found:
                features, matched = found[i].slice(number, rows.height)
            else:
                keys = rows.select(narrow(view.past, self.schema, self.timestamp))
                features, matched = looked_up(keys, view.past, self.schema)
            self.matched[view.past.name] += matched
            rows = rows.hstack(features.rename(dict(view.names)))
        return rows

    def _on_disk(self, frame: pl.LazyFrame, view: _View, size: int, folder: Path) -> LookUp:
        rows = frame.select(narrow(view.past, self.schema, self.timestamp))
        memory = size_of(self.memory_limit) // 4
        with reading("the entity rows"):
            return LookUp(rows, view.past, self.schema, size=size, memory=memory, folder=folder)

    def _size(self, sample: pl.DataFrame, views: Sequence[_View]) -> int:
        """How many entity rows are looked at together."""
        own = sample.estimated_size() / max(1, sample.height)
        features = sum(_width(dtype) for view in views for dtype in view.past.features.values())
        size = size_of(self.memory_limit) / (3 * (own + features) + 64 * len(views))
        return int(min(max(size, _FEWEST), _MOST))

    def _check(self, pasts: Sequence[Past]) -> None:
        names, kind = list(self.schema), self.schema.get(self.timestamp)
        needed = {self.timestamp: "the moments", **{key: f"the key of {p.name}" for p in pasts for key in p.keys}}
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


def _wanted(plan: Plan, features: str | Sequence[str]) -> dict[str, tuple[str, ...] | None]:
    """view: the features of it that are wanted, None for all, in the order they are named."""
    known = {view.name for view in plan.views}
    wanted: dict[str, tuple[str, ...] | None] = {}
    for text in ",".join([features] if isinstance(features, str) else features).split(","):
        view, parted, name = text.strip().partition(":")
        if not parted or not view or not name:
            raise UsageError(
                f"{text.strip()!r} names no feature",
                code="training.reference",
                where="features",
                allowed="view:feature, or view:* for all of a view",
                fix=f"write {view}:*" if view in known else "write for example user_features:*",
            )
        if view not in known:
            raise UsageError(
                f"there is no view {view!r}",
                code="training.view",
                where="features",
                allowed=", ".join(sorted(known)),
                fix=did_you_mean(view, known, "use one of the names above"),
            )
        before = wanted.get(view, ())
        wanted[view] = None if name == "*" or before is None else tuple(dict.fromkeys((*before, name)))
    return wanted


def _named(pasts: Sequence[Past], own: Sequence[str], full: bool) -> tuple[_View, ...]:
    """The views with the names of their features: as they are, or ``view__feature`` where one is there twice."""
    times = Counter([*own, *(name for past in pasts for name in past.features)])
    views = tuple(
        _View(past, {n: f"{past.name}__{n}" if full or times[n] > 1 else n for n in past.features}) for past in pasts
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


def _only(view: _View, columns: Sequence[str]) -> _View | None:
    """The view with those features alone that stand among columns; None where there are none."""
    names = {name: given for name, given in view.names.items() if given in columns}
    return _View(replace(view.past, features={n: view.past.features[n] for n in names}), names) if names else None


def _width(dtype: pl.DataType) -> int:
    return 8 if dtype.is_numeric() or dtype.is_temporal() else 1 if dtype == pl.Boolean else _TEXT_BYTES


@contextmanager
def _folder(spill: Path) -> Iterator[Path]:
    spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="training-", dir=spill) as folder:
        yield Path(folder)

"""The rows of one set, read once: whose they are, when, and what the aggregates over them look at, spilled by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from engine.duck import identifier
from engine.features.definition import Aggregate, FeatureView, Rows
from engine.features.history.channels import Texts, can_carry, channels_of
from engine.features.history.spans import Intervals, Span
from engine.features.history.spill import Spill, together
from engine.features.inputs import Inputs
from engine.features.query import entity_ctes, moment_literal, rows_query

Array = npt.NDArray[Any]
BATCH = 262_144  # rows
_BITS = 30  # flags per column


@dataclass(frozen=True)
class Carried:
    """Aggregates of a set of event rows that are computed for many as-ofs at once.

    Attributes:
        view: that the rows belong to; not always the one asked for: a view may look features up in another.
        alias: of that view's names in the query.
        aggregates: those that can be carried.
        kinds: by SQL, the DuckDB types of the values that they look at.
        state: where those over the whole history begin, if not with the first row: its name.
    """

    view: FeatureView
    rows: Rows
    alias: str
    aggregates: tuple[Aggregate, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None

    @property
    def keys(self) -> str:
        """The name of the table of entities and their numbers."""
        return f"{self.alias}keys"

    @property
    def timestamp(self) -> str:
        found = self.view.role(self.rows.role).timestamp
        assert found is not None  # noqa: S101 - only events are carried
        return found


def value_kinds(
    inputs: Inputs, view: FeatureView, rows: Rows, alias: str, aggregates: Sequence[Aggregate]
) -> dict[str, str]:
    """By SQL, the DuckDB types of the values that aggregates over ``rows`` look at."""
    values = sorted({a.value for a in aggregates if a.value is not None})
    if not values:
        return {}
    columns = [f"({value}) AS v{i}" for i, value in enumerate(values)]
    described = inputs.connection.execute(f"DESCRIBE {_query(view, rows, alias, columns, [])}").fetchall()
    return {value: str(row[1]) for value, row in zip(values, described, strict=True)}


def carriable(aggregates: Sequence[Aggregate], kinds: Mapping[str, str]) -> tuple[Aggregate, ...]:
    """Those aggregates whose values can be carried as numbers."""
    return tuple(a for a in aggregates if can_carry(a, kinds[a.value] if a.value else None))


class Events:
    """The rows of a set as numbers on disk, by stripe of entities and interval of time.

    Attributes:
        intervals: of time.
        stripes: how many: entity ``id`` belongs to stripe ``id % stripes``.
        channels: by SQL; ``texts`` those of them that are texts.
    """

    def __init__(
        self,
        carried: Carried,
        as_ofs: Sequence[int],
        *,
        entities: int,
        stripes: int,
        path: Path,
        budget: int,
        also: Sequence[int] = (),
    ) -> None:
        self.carried, self.entities, self.stripes = carried, entities, stripes
        self.intervals = Intervals({Span.of(a) for a in carried.aggregates}, as_ofs, also)
        self.channels = channels_of(carried.aggregates, carried.kinds)
        self.texts = {sql: Texts() for sql, channel in self.channels.items() if channel.is_text and channel.is_read}
        self._conditions = sorted({a.where for a in carried.aggregates if a.where is not None})
        flags = [c.is_there for c in self.channels.values()]
        flags += [f"coalesce(({sql}), false)" for sql in self._conditions]
        self._flags = flags
        self._flag_of = {sql: i for i, sql in enumerate(self.channels)}
        self._flag_of |= {f"where {sql}": len(self.channels) + i for i, sql in enumerate(self._conditions)}
        self._names = {sql: f"c{i}" for i, sql in enumerate(self.channels) if self.channels[sql].is_read}
        columns: dict[str, npt.DTypeLike] = {"id": np.int32, "ts": np.int64}
        columns |= {f"f{i}": _width(len(flags) - _BITS * i) for i in range(-(-len(flags) // _BITS))}
        columns |= {name: np.float64 if self.channels[sql].is_float else np.int64 for sql, name in self._names.items()}
        self.spill = Spill(path, columns, stripes * len(self.intervals), budget)

    def scan(self, inputs: Inputs) -> None:
        """Reads the rows; each is read once."""
        columns = ["k._id AS id", f"epoch_us(x.{identifier(self.carried.timestamp)}) AS ts"]
        for i in range(0, len(self._flags), _BITS):
            bits = [f"(({flag})::UINTEGER << {j})" for j, flag in enumerate(self._flags[i : i + _BITS])]
            columns.append(f"({' | '.join(bits)}) AS f{i // _BITS}")
        for sql, name in self._names.items():
            channel = self.channels[sql]
            number = channel.number if channel.is_text else f"coalesce({channel.number}, 0)"
            columns.append(f"{number} AS {name}")
        carried = self.carried
        query = _query(carried.view, carried.rows, carried.alias, columns, self._bounds())
        query += f"\nJOIN {identifier(carried.keys)} AS k ON k._key = x._key"
        for batch in inputs.connection.sql(query).to_arrow_reader(BATCH):
            self._add(pl.DataFrame(batch))
        self.spill.flush()

    def _bounds(self) -> list[str]:
        column = f"r.{identifier(self.carried.timestamp)}"
        bounds = [f"{column} <= {moment_literal(int(self.intervals.ends[-1]))}"]
        if self.intervals.start is not None:
            bounds.append(f"{column} > {moment_literal(self.intervals.start)}")
        return bounds

    def _add(self, frame: pl.DataFrame) -> None:
        found = {name: frame[name].to_numpy() for name in frame.columns if frame[name].dtype != pl.String}
        found |= {self._names[sql]: texts.codes(frame[self._names[sql]]) for sql, texts in self.texts.items()}
        cells = self.intervals.of(found["ts"])
        if self.stripes > 1:
            cells = cells + (found["id"] % self.stripes) * len(self.intervals)
        self.spill.add(cells, found)

    def read(self, stripe: int, first: int, last: int) -> Records:
        """The rows of a stripe in the intervals from ``first`` on and before ``last``."""
        base = stripe * len(self.intervals)
        return Records(self, self.spill.read(base + first, base + last))

    def parts(self, stripes: tuple[int, int], interval: int) -> Iterator[Records]:
        """The rows of stripes, from the first on and before the last, in one interval, some at a time."""
        held: list[Mapping[str, Array]] = []
        rows = 0
        for stripe in range(*stripes):
            cell = stripe * len(self.intervals) + interval
            for columns in self.spill.parts(cell, cell + 1, BATCH):
                held.append(columns)
                rows += len(columns["id"])
                if rows >= BATCH:
                    yield Records(self, together(held))
                    held, rows = [], 0
        if rows:
            yield Records(self, together(held))

    def flag(self, sql: str, *, where: bool) -> int:
        """The number of the flag of a channel or of a condition."""
        return self._flag_of[f"where {sql}" if where else sql]

    def name(self, sql: str) -> str:
        return self._names[sql]


class Records:
    """Rows in memory."""

    def __init__(self, events: Events, columns: Mapping[str, Array]) -> None:
        self._events, self.columns = events, columns
        self._chosen: dict[tuple[str | None, str | None], Array | None] = {}

    def __len__(self) -> int:
        return len(self.columns["id"])

    def chosen(self, aggregate: Aggregate) -> Array | None:
        """Which rows an aggregate looks at; None: all."""
        subject = aggregate.value, aggregate.where
        if subject not in self._chosen:
            flags = [(aggregate.value, False), (aggregate.where, True)]
            masks = [self._set(self._events.flag(sql, where=where)) for sql, where in flags if sql is not None]
            self._chosen[subject] = masks[0] & masks[1] if len(masks) == 2 else masks[0] if masks else None
        return self._chosen[subject]

    def _set(self, flag: int) -> Array:
        column = self.columns[f"f{flag // _BITS}"]
        chosen: Array = (column & column.dtype.type(1 << flag % _BITS)) != 0
        return chosen

    def values(self, aggregate: Aggregate) -> Array:
        """What it looks at in every row, as numbers in the order of the values; where it only counts, anything."""
        if aggregate.value is None or aggregate.function == "count":
            return self.columns["id"]
        numbers = self.columns[self._events.name(aggregate.value)]
        texts = self._events.texts.get(aggregate.value)
        return texts.ranks(numbers) if texts else numbers


def _query(view: FeatureView, rows: Rows, alias: str, columns: Sequence[str], bounds: Sequence[str]) -> str:
    entities = ",\n".join(entity_ctes(view, alias))
    found = rows_query(view, rows, bounds, alias)
    return f"WITH {entities}\nSELECT {', '.join(columns)}\nFROM (\n{found}\n) AS x"


def _width(flags: int) -> npt.DTypeLike:
    return np.uint8 if flags <= 8 else np.uint16 if flags <= 16 else np.uint32

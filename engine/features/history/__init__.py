"""A view at many as-ofs: its events are read once, whatever the number of as-ofs and windows.

Which plan an aggregate over events is computed by:

- *running*: those that add up (count, sum, mean, min, max, std, var, first, last), and those with a stated error. The
  events are spilled by elementary interval of time and walked in order, with running state per entity; windows slide
  over the states of intervals.
- *by entity*: those that need the rows (count_distinct, quantile, mode, last_n). The events are spilled by stripe of
  entities, and one stripe at a time gives the values at all as-ofs.
- *per as-of*: all that is not over events, or asks for the as-of itself: one query for each as-of, over tables that
  were read once.

The numbers are those of the query for a single as-of (`engine.features.query`), which takes the first two as given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from engine.duck import identifier
from engine.features.approximate import most, seen
from engine.features.compute import written
from engine.features.definition import Aggregate, FeatureView, Rows, mentions
from engine.features.history import buckets
from engine.features.history.channels import to_series
from engine.features.history.kept import kept
from engine.features.history.results import Results
from engine.features.history.rows import Carried, Events, carriable, value_kinds
from engine.features.history.saved import Begun, Saved, merged_entities
from engine.features.history.spans import Span
from engine.features.history.walk import Result, Walk
from engine.features.inputs import Inputs, as_data_error
from engine.features.query import as_of_macro, entity_ctes, given_name, known_entities, lookup_alias, view_query
from engine.features.raw import Raw
from engine.features.ways import MANY, adds_up, is_carried, runs
from engine.types import epoch_microseconds

_LEAST = 64  # MiB that DuckDB has
_STATE_BYTES = 16  # of one entity in one state, about
_ROW_BYTES = 120  # of one row while its stripe is at work, about


class History:
    """The raw features of a view at many as-ofs.

    Args:
        inputs: the view's tables; they may not be used for anything else meanwhile.
        as_ofs: ascending.
        folder: for what does not fit into ``budget`` bytes; beside what `inputs` itself holds.
        saved: what the aggregates over the whole history go on from; then the view's events are only those after it.

    Raises:
        DataError, SinkError: while iterating too.
    """

    def __init__(
        self,
        inputs: Inputs,
        view: FeatureView,
        as_ofs: Sequence[datetime],
        *,
        folder: Path,
        budget: int,
        saved: Saved | None = None,
    ) -> None:
        self._inputs, self._as_ofs, self._folder, self._budget = inputs, list(as_ofs), folder, budget
        self._moments = [epoch_microseconds(t) for t in as_ofs]
        self._carried: list[Carried] = []
        self._name = view.name
        self._saved = saved
        folder.mkdir(parents=True, exist_ok=True)
        self._view = self._split(self._with_entities(view), "")

    def __iter__(self) -> Iterator[tuple[datetime, pa.Table]]:
        """Each as-of and its rows, as `engine.features.compute.compute` gives them."""
        with self._worded():
            for as_of, query in self._queries():
                yield as_of, cast("pa.Table", self._inputs.connection.sql(query).to_arrow_table())

    def raw(self) -> Iterator[tuple[datetime, Raw]]:
        """Each as-of and its rows, in a file that whoever takes it removes."""
        with self._worded():
            for number, (as_of, query) in enumerate(self._queries()):
                yield as_of, written(self._inputs, query, self._folder / f"raw-{number}.arrow")

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise as_data_error(error, self._name) from error

    def _with_entities(self, view: FeatureView) -> FeatureView:
        """The view with a table of its entities, where they are known by their events: these are read once for it."""
        if view.known_by is None or mentions(view.known_by.where or "", "as_of"):
            return view
        found, execute = identifier(f"{view.entity.name} found"), self._inputs.connection.execute
        query = f"SELECT * FROM {known_entities(view, view.known_by)}"
        if self._saved and self._saved.entities:
            query = merged_entities(view, query, self._saved.entities)
        execute(f"CREATE OR REPLACE TEMP TABLE {found} AS {query}")
        execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view.entity.name)} AS SELECT * FROM {found}")
        return replace(view, known_by=None)

    def _split(self, view: FeatureView, alias: str) -> FeatureView:
        """The view with its carried aggregates in sets of rows of their own, which are noted down."""
        rows: list[Rows] = []
        aggregates: list[Aggregate] = []
        for r in view.rows:
            looked_up = (self._split(r.lookup[0], lookup_alias(r)), r.lookup[1]) if r.lookup else None
            own = view.over(r)
            timeless = [replace(a, value=seen(a)) for a in own if is_carried(view, r, a)]
            kinds = value_kinds(self._inputs, view, r, alias, timeless) if timeless else {}
            carried = carriable(timeless, kinds)
            state = f"{alias}{r.name}" if self._saved and f"{alias}{r.name}" in self._saved.states else None
            if self._saved and len(self._as_ofs) < MANY:  # only what has state is not queried
                carried = tuple(a for a in carried if state and a.window is None)
            if carried:
                rows.append(replace(r, name=f"{r.name}_carried"))
                moved = tuple(replace(a, rows=rows[-1].name) for a in carried)
                aggregates += moved
                alone = replace(view, rows=(rows[-1],), aggregates=moved)
                self._carried.append(Carried(alone, rows[-1], alias, moved, kinds, state))
            names = {a.name for a in carried}
            if left := [a for a in own if a.name not in names]:
                rows.append(replace(r, lookup=looked_up))
                aggregates += left
        return replace(view, rows=tuple(rows), aggregates=tuple(aggregates))

    def _queries(self) -> Iterator[tuple[datetime, str]]:
        """Each as-of and what asks for its rows, before the next is come to."""
        connection = self._inputs.connection
        connection.execute(as_of_macro(self._as_ofs[-1]))
        with ExitStack() as stack:
            stack.callback(connection.execute, f"SET memory_limit = '{self._inputs.memory_limit}'")
            connection.execute(f"SET memory_limit = '{max(self._budget // 2**20, _LEAST)}MiB'")
            view = self._keep_tables(stack)
            carriers = [stack.enter_context(_Carrier(self, c, i)) for i, c in enumerate(self._carried)]
            given = [c.relation for c in carriers if not c.is_beside]
            beside = [c.relation for c in carriers if c.is_beside]
            for i, as_of in enumerate(self._as_ofs):
                for carrier in carriers:
                    connection.register(carrier.relation, carrier.at(i))
                connection.execute(as_of_macro(as_of))
                yield as_of, view_query(view, as_of, given=given, beside=beside, in_order=not view.known_by)

    def _keep_tables(self, stack: ExitStack) -> FeatureView:
        """Reads the tables that are asked at each as-of, and gives the view over them; what is only carried is read by
        its carrier."""
        asked: set[str] = set()
        views = [self._view, *(r.lookup[0] for r in self._view.rows if r.lookup)]
        carried = {c.rows.name for c in self._carried}
        for view in views:
            asked |= {view.known_by.role if view.known_by else view.entity.name} | {
                r.role for r in view.rows if r.name not in carried
            }
        execute, over = self._inputs.connection.execute, self._view
        for name in sorted(asked):
            table, query = identifier(f"{name} kept"), f"SELECT * FROM {identifier(name)}"
            if name == self._view.entity.name and not self._view.known_by:
                query, over = kept(self._view)
            execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}")
            stack.callback(execute, f"DROP TABLE {table}")
            before = self._inputs.define(name, f"SELECT * FROM {table}")
            if before is not None:
                stack.callback(self._inputs.define, name, before)
        return over


class _Carrier:
    """The values of a set's carried aggregates at one as-of after the other, as a relation."""

    def __init__(self, history: History, carried: Carried, number: int) -> None:
        self._history, self._carried = history, carried
        self.relation = given_name(carried.rows, carried.alias)
        self.is_beside = not carried.alias and not carried.view.known_by
        self._keys = self._numbered(carried)
        self._stack = ExitStack()
        folder = history._folder
        entities = len(self._keys)
        moments = history._moments
        stripes, self._groups = self._divided(entities)
        events = Events(
            carried,
            moments,
            entities=entities,
            stripes=stripes,
            path=folder / f"events-{number}",
            budget=history._budget // 2,
            also=[history._saved.upto] if history._saved and carried.state else [],
        )
        self._events = events
        self._stack.enter_context(events.spill)
        self._results = self._stack.enter_context(Results(folder / f"results-{number}", len(moments), entities))
        self._walk: Walk | None = None
        self._begun: tuple[Begun, int] | None = None

    def __enter__(self) -> _Carrier:
        try:
            with ThreadPoolExecutor(1) as pool:
                if not all(map(runs, self._carried.aggregates)):
                    pool.submit(buckets.load)  # while the rows are read
                self._events.scan(self._history._inputs)
            self._begin()
            self._compute()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _numbered(self, carried: Carried) -> pa.ChunkedArray:
        """Gives the entities numbers; the keys in the order of these."""
        connection = self._history._inputs.connection
        table, entity = identifier(carried.keys), carried.view.entity
        if self.is_beside:
            numbered = f"SELECT {identifier(entity.key)} AS _key, rowid::INTEGER AS _id FROM "
            numbered += identifier(f"{entity.name} kept")
        else:
            numbered = f"WITH {', '.join(entity_ctes(carried.view, carried.alias))} SELECT _key, "
            numbered += f"(row_number() OVER (ORDER BY _key) - 1)::INTEGER AS _id FROM {carried.alias}entity"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {numbered}")
        return connection.sql(f"SELECT _key FROM {table} ORDER BY _id").to_arrow_table()["_key"]

    def _divided(self, entities: int) -> tuple[int, list[tuple[int, int]]]:
        """Into how many stripes the entities go, and which of them are walked together."""
        history, aggregates = self._history, self._carried.aggregates
        subjects = {(a.value, a.where, a.function, Span.of(a)) for a in aggregates if adds_up(a)}
        running = sum((_kept(span, history._moments) + 3) * _STATE_BYTES for *_, span in subjects)
        rows = history._inputs.counts[self._carried.rows.role].rows
        for a in (a for a in aggregates if a.error is not None):
            numbers = min(most(a), rows / max(entities, 1))  # an entity has as many as it has rows, or fewer
            running += math.ceil((_kept(Span.of(a), history._moments) + 3) * _STATE_BYTES * (1 + numbers))
        groups = max(1, math.ceil(entities * running / history._budget))
        stripes = 1
        if by_entity := [a for a in aggregates if not runs(a)]:
            values = len(history._moments) * entities * 24 * max(a.n or 1 for a in by_entity)
            stripes = math.ceil((rows * _ROW_BYTES + values) / (history._budget // 2))
        stripes = min(max(stripes, groups), max(entities, 1), 4096)
        groups = min(groups, stripes)
        edges = [stripes * g // groups for g in range(groups + 1)]
        return stripes, list(itertools.pairwise(edges))

    def _begin(self) -> None:
        """What there is of the time before the events."""
        saved, state = self._history._saved, self._carried.state
        if saved and state:
            self._begun = Begun(self._history._inputs, self._events, saved.states[state]), saved.upto

    def _compute(self) -> None:
        """All that is not computed while the as-ofs are walked."""
        moments, events = self._history._moments, self._events
        if not all(map(runs, self._carried.aggregates)):
            with ThreadPoolExecutor(2) as pool:
                for done in [
                    pool.submit(buckets.compute, events, stripe, moments, self._results)
                    for stripe in range(events.stripes)
                ]:
                    done.result()
        if len(self._groups) == 1:
            self._walk = Walk(events, moments, self._groups[0], self._begun)
            return
        for group in self._groups:
            walk = Walk(events, moments, group, self._begun)
            parts = {}
            for i, moment in enumerate(moments):
                for name, (values, there) in walk.at(moment).items():
                    if name not in parts:
                        parts[name] = self._results.part(name, walk.ids, values.dtype)
                    self._results.put(parts[name], i, values, there)

    def at(self, number: int) -> pa.Table:
        """The relation at the as-of of this number: ``_key``, and each aggregate."""
        walked = self._walk.at(self._history._moments[number]) if self._walk else {}
        columns: dict[str, Any] = {} if self.is_beside else {"_key": self._keys}
        for aggregate in self._carried.aggregates:
            result = walked[aggregate.name] if aggregate.name in walked else self._results.get(aggregate.name, number)
            columns[aggregate.name] = self._series(aggregate, result).to_arrow()
        return pa.table(columns)

    def _series(self, aggregate: Aggregate, found: Result) -> pl.Series:
        values, there = found
        if aggregate.function.startswith("count"):
            return pl.Series(aggregate.name, values.astype(np.int64, copy=False))
        channel = self._events.channels[aggregate.value or ""]
        texts = self._events.texts.get(aggregate.value or "")
        dtype: Any = channel.dtype
        if aggregate.function in ("mean", "std", "var", "quantile"):
            dtype = pl.Float64
        elif aggregate.function == "sum":
            dtype = pl.Int64 if values.dtype.kind == "i" else pl.Float64
        if aggregate.function != "last_n":
            return to_series(aggregate.name, values, None if there is None else there > 0, dtype, texts)
        assert there is not None  # noqa: S101 - says how many there are
        values = values.reshape(len(there), aggregate.n or 1)
        held = np.arange(values.shape[1]) < there[:, None]
        flat = to_series("", values[held], None, dtype, texts)
        number = pl.Series("id", np.repeat(np.arange(len(there)), there))
        lists = pl.DataFrame([number, flat.alias("v")]).group_by("id", maintain_order=True).agg("v")
        everyone = pl.DataFrame({"id": pl.Series(np.arange(len(there)))})
        return everyone.join(lists, on="id", how="left", maintain_order="left")["v"].alias(aggregate.name)


def _kept(span: Span, as_ofs: Sequence[int]) -> int:
    """How many states a window of ``span`` holds at most."""
    bounds = [span.bounds(t) for t in as_ofs]
    starts = np.array(sorted({start for start, _ in bounds if start is not None}), np.int64)
    if not len(starts):
        return 1
    return 1 + max(
        int(np.searchsorted(starts, end) - np.searchsorted(starts, start)) for start, end in bounds if start is not None
    )

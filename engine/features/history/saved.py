"""State that outlives a run: what the aggregates over the whole history up to a moment come to, per entity, on disk.

A file per set of rows, with ``_key`` and the columns of each state; and one of the entities, where they are known by
their rows. DuckDB makes and merges them, spilling what does not fit; a walk begins with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from engine.duck import identifier, literal
from engine.features.definition import FeatureView
from engine.features.history.channels import Channel, can_carry, channels_of
from engine.features.history.states import KINDS, State, nothing
from engine.features.inputs import Inputs
from engine.features.query import known_entities, moment_literal, rows_query
from engine.features.reach import Stateful, same_states, stateful
from engine.features.ways import shown

if TYPE_CHECKING:
    from engine.features.history.rows import Events

Array = npt.NDArray[Any]
_BATCH = 262_144  # rows


@dataclass(frozen=True)
class Saved:
    """The state of a view's events up to a moment.

    Attributes:
        upto: in microseconds: rows up to it are in the state, and none after it.
        states: by name, as `engine.features.reach.stateful` gives them.
        entities: those that are known by their rows up to then.
    """

    upto: int
    states: Mapping[str, Path] = field(default_factory=dict)
    entities: Path | None = None


def needs_rows(inputs: Inputs) -> str | None:
    """Why the view turns out to need all its rows, once their types are known; None: it does not."""
    return next((why for part in stateful(inputs.view) if (why := _State(inputs, part).needs_rows())), None)


def advance(inputs: Inputs, upto: int, folder: Path, saved: Saved | None = None) -> Saved:
    """The state up to ``upto``: of ``saved`` and the rows after it."""
    after = [] if saved is None else [saved.upto]
    return _made(inputs, upto, folder, saved, after)


def taken_in(inputs: Inputs, saved: Saved, late: Mapping[str, Sequence[Path]], folder: Path) -> Saved:
    """The state with rows that came after it had been saved, though they belong to the time before.

    Args:
        late: role: files of rows.
    """
    with ExitStack() as stack:
        for role, files in late.items():
            stack.enter_context(inputs.over(role, files))
        return _made(inputs, saved.upto, folder, saved, [], set(late))


def _made(
    inputs: Inputs, upto: int, folder: Path, saved: Saved | None, after: Sequence[int], roles: set[str] | None = None
) -> Saved:
    """
    Args:
        roles: those whose rows there are; the state over others stays. None: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    view, states = inputs.view, dict(saved.states) if saved else {}
    for part in stateful(view):
        if roles is None or part.rows.role in roles:
            before = states.get(part.name)
            query = _State(inputs, part).query(upto, after, before)
            states[part.name] = _written(inputs, query, folder, f"state-{len(states)}", before)
    entities = saved.entities if saved else None
    if view.known_by and (roles is None or view.known_by.role in roles):
        query = _entities(view, upto, entities)
        entities = _written(inputs, query, folder, "entities", entities)
    return Saved(upto, states, entities)


def _written(inputs: Inputs, query: str, folder: Path, name: str, before: Path | None) -> Path:
    path = folder / f"{name}.parquet"
    if path == before:
        path = folder / f"{name}-again.parquet"
    inputs.connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    return path


def _entities(view: FeatureView, upto: int, before: Path | None) -> str:
    """Of the rows after the state only those up to ``upto`` count; an entity is created with its first row."""
    assert view.known_by is not None  # noqa: S101 - for type checkers
    created = identifier(view.created_at)
    found = f"SELECT * FROM {known_entities(view, view.known_by)} WHERE {created} <= {moment_literal(upto)}"
    return merged_entities(view, found, before) if before else found


def merged_entities(view: FeatureView, found: str, before: Path) -> str:
    """The entities of a query and those of a state."""
    columns = [f"any_value({identifier(part)}) AS {identifier(part)}" for part in view.entity.parts]
    columns += ["min(_source_key) AS _source_key"]
    columns += [f"min({identifier(view.created_at)}) AS {identifier(view.created_at)}"]
    key = identifier(view.entity.key)
    union = f"({found}) UNION ALL BY NAME SELECT * FROM read_parquet({literal(str(before))})"
    return f"SELECT {key}, {', '.join(columns)} FROM ({union}) GROUP BY {key}"


class _State:
    """The states of one set of rows, in SQL."""

    def __init__(self, inputs: Inputs, part: Stateful) -> None:
        self._part = part
        values = sorted({a.value for a in part.aggregates if a.value is not None})
        kinds: dict[str, str] = {}
        if values:
            columns = [f"({value}) AS v{i}" for i, value in enumerate(values)]
            described = inputs.connection.execute(f"DESCRIBE {self._over(columns, [])}").fetchall()
            kinds = {value: str(row[1]) for value, row in zip(values, described, strict=True)}
        self._uncarried = {a: kinds[v] for a in part.aggregates if (v := a.value) and not can_carry(a, kinds[v])}
        self._channels = channels_of(part.aggregates, kinds)

    def needs_rows(self) -> str | None:
        """See the function of this name."""
        for aggregate, kind in self._uncarried.items():
            name, kind = shown(self._part.view, aggregate), kind.partition("(")[0].lower()
            return f"{name} is a {aggregate.function} of {kind} values over the whole history, which needs all rows"
        return None

    def _over(self, columns: Sequence[str], conditions: Sequence[str]) -> str:
        rows = rows_query(self._part.view, self._part.rows, conditions)
        return f"SELECT {', '.join(columns)} FROM (\n{rows}\n) AS x"

    def query(self, upto: int, after: Sequence[int], before: Path | None) -> str:
        """The states of the rows after some moment (or all) and up to another, merged with those of a file."""
        timestamp = self._part.view.role(self._part.rows.role).timestamp or ""
        conditions = [f"r.{identifier(timestamp)} <= {moment_literal(upto)}"]
        conditions += [f"r.{identifier(timestamp)} > {moment_literal(moment)}" for moment in after]
        wanted = list(enumerate(same_states(self._part.aggregates)))
        columns = [c for i, state in wanted for c in self._of_rows(i, *state, f"epoch_us(x.{identifier(timestamp)})")]
        found = f"{self._over(['_key', *columns], conditions)} GROUP BY _key"
        if before is None:
            return found
        columns = [c for i, state in wanted for c in self._of_both(i, *state)]
        union = f"{found} UNION ALL BY NAME SELECT * FROM read_parquet({literal(str(before))})"
        return f"SELECT {', '.join(['_key', *columns])} FROM ({union}) GROUP BY _key"

    def _of_rows(self, i: int, function: str, value: str | None, where: str | None, moment: str) -> Iterator[str]:
        channel = self._channels[value] if value is not None else None
        conditions = [f"coalesce(({where}), false)"] if where is not None else []
        conditions += [channel.is_there] if channel else []
        only = f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""
        if function == "count":
            yield f"count(*){only} AS n{i}"
            return
        assert channel is not None  # noqa: S101 - only counts do without a value
        number = channel.number
        if function == "std":
            finite = " AND ".join([*conditions, f"isfinite(CAST({number} AS DOUBLE))"])
            only = f" FILTER (WHERE {finite})"
            yield f"count(*){only} AS n{i}"
            yield f"avg(CAST({number} AS DOUBLE)){only} AS a{i}"
            yield f"coalesce(var_pop(CAST({number} AS DOUBLE)){only}, 0) * count(*){only} AS q{i}"
        elif function == "sum":
            yield f"count(*){only} AS n{i}"
            yield f"CAST(coalesce(sum({number}){only}, 0) AS {_sum_type(channel)}) AS s{i}"
        elif function in ("min", "max"):
            yield f"{function}({number}){only} AS v{i}"
        else:
            pick = "min" if function == "first" else "max"
            yield f"{pick}(struct_pack(t := {moment}, v := {number})){only} AS e{i}"

    def _of_both(self, i: int, function: str, value: str | None, _where: str | None) -> Iterator[str]:
        if function in ("count", "sum", "std"):
            yield f"CAST(sum(n{i}) AS BIGINT) AS n{i}"
        if function == "sum":
            yield f"CAST(sum(s{i}) AS {_sum_type(self._channels[value or ''])}) AS s{i}"
        elif function == "std":  # of two: Chan, Golub and LeVeque (1979); n1 * n2 = (sum(n)^2 - sum(n^2)) / 2
            both = f"((sum(n{i}) * sum(n{i}) - sum(n{i} * n{i})) // 2)::DOUBLE"
            yield f"sum(n{i} * a{i}) / nullif(sum(n{i}), 0) AS a{i}"
            yield f"sum(q{i}) + coalesce((max(a{i}) - min(a{i})) ** 2 * {both} / nullif(sum(n{i}), 0), 0) AS q{i}"
        elif function in ("min", "max"):
            yield f"{function}(v{i}) AS v{i}"
        elif function != "count":
            yield f"{'min' if function == 'first' else 'max'}(e{i}) AS e{i}"


def _sum_type(channel: Channel) -> str:
    return "DOUBLE" if channel.is_float else "BIGINT"


class Begun:
    """The states that a walk over some events begins with."""

    def __init__(self, inputs: Inputs, events: Events, path: Path) -> None:
        self._inputs, self._events, self._path = inputs, events, path
        whole = [a for a in events.carried.aggregates if a.window is None]
        self._numbers = {state: i for i, state in enumerate(same_states(whole))}
        for (function, value, _), i in self._numbers.items():
            if function != "count" and (texts := events.texts.get(value or "")):
                for batch in self._batches(f"{_value(function, i)} AS v", ""):
                    texts.codes(batch["v"])  # told apart now: their order is made once all have been seen

    def _batches(self, columns: str, where: str) -> Iterator[pl.DataFrame]:
        query = f"SELECT {columns} FROM read_parquet({literal(str(self._path))}) AS s "
        query += f"JOIN {identifier(self._events.carried.keys)} AS k ON k._key = s._key{where}"
        for batch in self._inputs.connection.sql(query).to_arrow_reader(_BATCH):
            yield pl.DataFrame(batch)

    def states(self, stripes: tuple[int, int], ids: Array) -> dict[tuple[str, str | None, str | None], State]:
        """The states of the entities of some stripes, in the order of ``ids``."""
        count = self._events.stripes
        where = f" WHERE k._id % {count} >= {stripes[0]} AND k._id % {count} < {stripes[1]}" if count > 1 else ""
        found = {}
        for state, i in self._numbers.items():
            columns = _columns(state[0], i)
            begun: State | None = None
            for batch in self._batches(", ".join(["k._id AS id", *columns]), where):
                places = np.searchsorted(ids, batch["id"].to_numpy())
                parts = list(self._there(state[0], batch, self._arrays(state, batch.drop("id"))))
                if begun is None:
                    empty = nothing(KINDS[state[0]], len(ids), parts[-1][1].dtype)
                    begun = tuple(e.astype(values.dtype) for e, (_, values) in zip(empty, parts, strict=True))
                for whole, (there, values) in zip(begun, parts, strict=True):
                    whole[places[there]] = values[there]
            if begun is not None:
                found[state] = begun
        return found

    def _arrays(self, state: tuple[str, str | None, str | None], batch: pl.DataFrame) -> list[Array]:
        function, value, _ = state
        texts = self._events.texts.get(value or "") if function != "count" else None
        arrays = []
        for name in batch.columns:
            series = batch[name]
            if texts and name == "v":
                arrays.append(texts.ranks(texts.codes(series)))
            else:
                arrays.append(series.fill_null(0).to_numpy())
        return arrays

    @staticmethod
    def _there(function: str, batch: pl.DataFrame, parts: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
        """Of each array of the state, where there is a value, and the values."""
        if function in ("min", "max"):
            there = batch["v"].is_not_null().to_numpy()
            yield there, there
            yield there, parts[-1]
            return
        there = batch["t" if function in ("first", "last") else "n"].is_not_null().to_numpy()
        for values in parts:
            yield there, values


def _value(function: str, i: int) -> str:
    return f"s.e{i}.v" if function in ("first", "last") else f"s.v{i}"


def _columns(function: str, i: int) -> list[str]:
    """The columns of a state, as its arrays are."""
    if function == "count":
        return [f"s.n{i} AS n"]
    if function == "sum":
        return [f"s.n{i} AS n", f"s.s{i} AS s"]
    if function == "std":
        return [f"s.n{i} AS n", f"s.a{i} AS a", f"s.q{i} AS q"]
    if function in ("min", "max"):
        return [f"s.v{i} AS v"]
    return [f"s.e{i}.t AS t", f"s.e{i}.v AS v"]

"""Whether a view as of T depends on anything later than T: everything later is changed, and nothing may move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import ShapeError
from polars.testing import assert_series_equal

from engine.duck import identifier
from engine.features.compute import compute
from engine.features.definition import Column, FeatureView, Role
from engine.features.history import History
from engine.features.inputs import Inputs
from engine.features.query import timestamp
from engine.types import iso

_TOLERANCE = 1e-9  # sums of floats differ in their last digits from run to run
_BUDGET = 256 * 2**20
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Leakage:
    """What was shown of a view at one as-of.

    Attributes:
        changed: role: rows and values later than the as-of that were changed, removed or added.
        rows: of the view, as of it.
        moved: feature: rows in which it moved; nothing should.
    """

    view: str
    as_of: datetime
    changed: Mapping[str, int]
    rows: int
    moved: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing moved."""
        return not self.moved

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "view": self.view,
            "as_of": iso(self.as_of),
            "ok": self.ok,
            "changed": dict(self.changed),
            "rows": self.rows,
            "moved": dict(self.moved),
        }


def find_leakage(view: FeatureView, name: str, inputs: Inputs, as_of: datetime, folder: Path) -> Leakage:
    """Computes ``view`` as of ``as_of``, changes all that is later, and computes it again, in both plans.

    Events after the as-of are moved, changed, removed and doubled, rows that were created after it are changed as a
    whole, values that were set after it are set otherwise.

    Args:
        name: of the view, as it is published.
        inputs: with the view's tables; they are as they were afterwards.
        folder: for what does not fit into memory.
    """
    before = _computed(view, inputs, as_of, folder)
    with _changed(view, inputs, as_of) as changed:
        after = _computed(view, inputs, as_of, folder)
    moved: dict[str, int] = {}
    for one, other in zip(before, after, strict=True):
        for name, count in _differences(one, other, view.keys):
            moved[name] = max(moved.get(name, 0), count)
    return Leakage(name, as_of, changed, before[0].height, moved)


def moments_within(view: FeatureView, inputs: Inputs, count: int = 3) -> list[datetime]:
    """Moments evenly over the time that the view's tables tell of, with facts on both sides; none: of no time."""
    found: list[datetime] = []
    for role in view.roles:
        for column in _later(view, role):
            bounds = f"min({identifier(column)}), max({identifier(column)})"
            row = inputs.connection.execute(f"SELECT {bounds} FROM {identifier(role.name)}").fetchone() or ()
            found += [moment for moment in row if moment is not None]
    if not found:
        return []
    first, last = min(found), max(found)
    step = (last - first) / (count + 1)
    return [(first + (i + 1) * step).replace(tzinfo=UTC) for i in range(count)]


def _computed(view: FeatureView, inputs: Inputs, as_of: datetime, folder: Path) -> list[pl.DataFrame]:
    several = [as_of - 2 * _DAY, as_of - _DAY, as_of]
    many = [pl.DataFrame(table) for _, table in History(inputs, view, several, folder=folder, budget=_BUDGET)]
    return [pl.DataFrame(compute(inputs, view, as_of)), *many]


@contextmanager
def _changed(view: FeatureView, inputs: Inputs, as_of: datetime) -> Iterator[dict[str, int]]:
    execute = inputs.connection.execute
    changed: dict[str, int] = {}
    with ExitStack() as stack:
        for role in view.roles:
            if not _later(view, role):
                continue
            name, kept = identifier(role.name), identifier(f"{role.name} as it was")
            execute(f"CREATE OR REPLACE TEMP TABLE {kept} AS SELECT *, row_number() OVER () AS _row FROM {name}")
            stack.callback(execute, f"DROP TABLE {kept}")
            columns = [str(row[0]) for row in execute(f"DESCRIBE {kept}").fetchall()]
            count, query = _perturbed(role, _since(view, role), kept, columns, as_of)
            changed[role.name] = (execute(count).fetchone() or (0,))[0]
            if before := inputs.define(role.name, query):
                stack.callback(inputs.define, role.name, before)
        yield changed


def _since(view: FeatureView, role: Role) -> str | None:
    """The column that says since when a row is there."""
    created = view.created_at if role == view.entity else "created_at"
    return role.timestamp or next((c.name for c in role.columns if c.name == created), None)


def _later(view: FeatureView, role: Role) -> list[str]:
    """The columns that say since when a row, or a value of it, is known."""
    names = {c.known_at for c in role.columns if c.known_at}
    return sorted(names | ({since} if (since := _since(view, role)) else set()))


def _perturbed(role: Role, since: str | None, table: str, columns: Sequence[str], as_of: datetime) -> tuple[str, str]:
    """SQL that counts what will be changed, and that gives the changed rows."""
    moment = timestamp(as_of)
    is_later = f"coalesce({identifier(since)} > {moment}, false)" if since else "false"
    later, made = {is_later}, []
    for column in role.columns:
        name = identifier(column.name)
        if column.name == since:
            other = f"{name} + INTERVAL 3 DAY"
        else:
            other = name if column.name == role.key else _other(column, moment)
        cases = f"WHEN {is_later} THEN {other}"
        if column.known_at:
            known = f"coalesce({identifier(column.known_at)} > {moment}, false)"
            later.add(known)
            cases += f" WHEN {known} THEN "
            cases += f"{name} + INTERVAL 5 DAY" if column.kind == "moment" else _other(column, moment)
        made.append(f"CASE {cases} ELSE {name} END AS {name}")
    known_names = {c.name for c in role.columns} | {"_row"}
    made += [identifier(name) for name in columns if name not in known_names]
    rows = f"SELECT {', '.join(made)} FROM {table}"
    query = f"{rows} WHERE NOT ({is_later} AND _row % 3 = 0)"
    if not role.unique:
        query += f" UNION ALL {rows} WHERE {is_later} AND _row % 3 = 1"
    return f"SELECT count(*) FROM {table} WHERE {' OR '.join(sorted(later))}", query


def _other(column: Column, moment: str) -> str:
    """SQL: another value than the column's, of its kind; a moment that would count, if the row did."""
    name = identifier(column.name)
    return {
        "key": name,
        "moment": f"{moment} - INTERVAL 1 SECOND",
        "number": f"coalesce({name}, 1) * -3 + 1017",
        "text": f"coalesce({name}, '') || '~'",
        "any": "NULL",
    }.get(column.kind, f"list_append({name}, '~')" if column.kind in ("list", "labels") else name)


def _differences(one: pl.DataFrame, other: pl.DataFrame, keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    if one.height != other.height or not one.select(keys).equals(other.select(keys)):
        yield ", ".join(keys), abs(one.height - other.height) or 1
        return
    for name in one.columns:
        try:
            assert_series_equal(one[name], other[name], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        except (AssertionError, ShapeError):
            yield name, int((one[name].ne_missing(other[name])).sum())

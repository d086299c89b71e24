"""What a feature view is: plain data, in the terms that a user's own views will be written in.

A view has one row per entity and as-of. It names the *roles* it reads (tables with known columns), the related
*rows* that aggregates run over, the aggregates, and the features: SQL expressions over the entity's columns and the
aggregates. Nothing here imports an engine; `engine.features.query` turns a view into one SQL query.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.types import Duration

Kind = Literal["key", "moment", "number", "text", "list", "labels", "any"]
Function = Literal[
    "count", "count_distinct", "sum", "mean", "min", "max", "std", "var", "first", "last", "last_n", "quantile", "mode"
]
DType = str  # of Polars: Int64, Float64, String, Boolean, Binary, DATETIME, or a List of one of these
DATETIME = "Datetime(time_unit='us', time_zone='UTC')"


@dataclass(frozen=True)
class Column:
    """A column that a role is read with.

    Attributes:
        kind: how it is read. ``key``: text; ``moment``: UTC microseconds; ``number``: a double, NaN is null;
            ``text``; ``list``: texts, also from comma-separated text, stripped, empty ones dropped, null is empty;
            ``labels``: a lower-case ``list``; ``any``: as it stands, for users' SQL (a float NaN is null, a timestamp
            UTC microseconds), its name matched as SQL does.
        presence: what its absence means. ``required``: an error; ``expected``: nulls, and a warning;
            ``optional``: nulls.
        known_at: the column that says since when the value is what it is; None: since the row is there, or always.
    """

    name: str
    kind: Kind
    presence: Literal["required", "expected", "optional"] = "optional"
    known_at: str | None = None


@dataclass(frozen=True)
class Role:
    """A table that a view reads: its name in the view, its key and its columns.

    Attributes:
        key: the column that names its rows or links them to the entity; rows with a null key take part in nothing.
        parts: of a compound key, the columns that `key` is made of; then `key` is a name for all of them.
        timestamp: the column that makes its rows events; null for tables of things.
        unique: whether two rows with one key are an error.
        optional: whether the view can do without the table.
    """

    name: str
    key: str
    columns: tuple[Column, ...]
    timestamp: str | None = None
    unique: bool = False
    optional: bool = False
    parts: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's own columns."""
        return self.parts or (self.key,)


@dataclass(frozen=True)
class Rows:
    """The rows of a role that belong to an entity; aggregates run over them.

    Attributes:
        role: the table the rows come from.
        via: a list column of the entity whose distinct elements are matched with the role's key;
            None matches the key with the entity's own.
        where: SQL condition that the rows must meet; it may use ``as_of()``.
        columns: further columns as SQL over the role's own.
        unnest: a list column that gives one row per element, under the name ``element``.
        lookup: features of another view on the same key, as of the same moment, as further columns.
    """

    name: str
    role: str
    via: str | None = None
    where: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    unnest: str | None = None
    lookup: tuple[FeatureView, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Aggregate:
    """A named aggregate over rows.

    Attributes:
        function: ``count``, ``count_distinct``, ``sum``, ``mean``, ``min``, ``max``; ``std``, ``var`` (n - 1);
            ``first``, ``last`` (by timestamp; of equal ones the smallest, the largest value); ``last_n`` (a list, the
            latest first, in the same order); ``quantile`` (linear between neighbours); ``mode`` (of equally frequent
            values the smallest).
        value: SQL over the rows' columns; nulls are left out. None counts rows.
        window: only rows with ``as_of - window < timestamp <= as_of``; None is the whole history up to as_of.
        offset: moves the window, or the end of the history, so far back.
        tumbling: the window is the last whole one of those that follow one another since 1970-01-01 UTC (weeks: since
            Monday, 1969-12-29), its start included and its end not.
        timestamp: the column that window and history go by; default: the role's own.
        where: SQL condition, true for the rows that count.
        n: of ``last_n``: at most so many values.
        q: of ``quantile``: 0 to 1.
        error: of ``count_distinct`` and ``quantile``: how far they may be off; see `engine.features.approximate`.

    An entity without rows has 0 for the counts and null for everything else.
    """

    name: str
    function: Function
    rows: str
    value: str | None = None
    window: Duration | None = None
    timestamp: str | None = None
    where: str | None = None
    offset: Duration | None = None
    tumbling: bool = False
    n: int | None = None
    q: float | None = None
    error: float | None = None

    def bounds(self, as_of: int) -> tuple[int | None, int]:
        """The rows that count: later than the first moment (None: all) and not later than the second.

        Moments are microseconds since 1970 UTC.
        """
        end = as_of - (self.offset.microseconds if self.offset else 0)
        if self.window is None:
            return None, end
        length = self.window.microseconds
        if self.tumbling:
            start = _MONDAY if self.window.text.endswith("w") else 0
            end = start + (end - start) // length * length - 1
        return end - length, end


@dataclass(frozen=True)
class Feature:
    """A published column: SQL over the entity's columns, the aggregates and ``as_of()``.

    Attributes:
        dtype: None: as the data have it; `engine.features.inputs` finds out.
    """

    name: str
    sql: str
    dtype: DType | None
    description: str


@dataclass(frozen=True)
class FeatureView:
    """One row per entity that exists at the as-of.

    Attributes:
        entity: the role with one row per entity; a row whose ``created_at`` is after the as-of does not exist yet.
        known_by: where no table says which entities there are: rows whose keys are the entities, each from its first
            row on; then `entity` is not among the roles.
        settings: the constants that went into the definitions, by name.
    """

    name: str
    entity: Role
    roles: tuple[Role, ...]
    rows: tuple[Rows, ...]
    aggregates: tuple[Aggregate, ...]
    features: tuple[Feature, ...]
    settings: Mapping[str, str | int | float]
    created_at: str = "created_at"
    known_by: Rows | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that the entity's key is published as."""
        return self.entity.keys

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    def select(self, names: Iterable[str]) -> FeatureView:
        """This view with only the named features, and only the rows and aggregates that they need."""
        wanted = set(names)
        features = tuple(f for f in self.features if f.name in wanted)
        aggregates = tuple(a for a in self.aggregates if any(mentions(f.sql, a.name) for f in features))
        rows = tuple(r for r in self.rows if any(a.rows == r.name for a in aggregates))
        return replace(self, rows=rows, aggregates=aggregates, features=features)

    def fingerprint(self, feature: str) -> str:
        """A short hash of all that one feature's raw values rest on: its SQL, its rows, its aggregates."""
        alone = self.select([feature])
        rows = [
            replace(r, lookup=(replace(r.lookup[0].select(r.lookup[1]), settings={}), r.lookup[1])) if r.lookup else r
            for r in alone.rows
        ]
        roles = tuple(narrow for role in alone.roles if (narrow := alone._narrowed(role)))
        entity = alone._narrowed(alone.entity)
        parts = (alone.features, alone.aggregates, rows, entity, roles, alone.created_at, alone.known_by)
        text = repr(parts).replace(", error=None", "")  # so that what is exact has the hash that it had before
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _narrowed(self, role: Role) -> Role | None:
        """A role without what users' SQL reads of it for other features; None, where it is read for these only."""
        if all(c.kind != "any" for c in role.columns):
            return role
        read = {self.entity.name, *(r.role for r in self.rows)} | ({self.known_by.role} if self.known_by else set())
        if role.name not in read:
            return None
        used = self.used(role)
        return replace(role, columns=tuple(c for c in role.columns if c.kind != "any" or c in used))

    def over(self, rows: Rows) -> tuple[Aggregate, ...]:
        """The aggregates over a set of rows."""
        return tuple(a for a in self.aggregates if a.rows == rows.name)

    def role(self, name: str) -> Role:
        return next(r for r in self.roles if r.name == name)

    def used(self, role: Role) -> tuple[Column, ...]:
        """The columns of ``role`` that the features rest on, besides its key and timestamp."""
        related = (*self.rows, self.known_by) if self.known_by else self.rows
        mine = [r for r in related if r.role == role.name]
        texts = [a.value or "" for a in self.aggregates] + [a.where or "" for a in self.aggregates]
        texts += [a.timestamp or "" for a in self.aggregates]
        texts += [text for r in mine for text in (r.where or "", r.unnest or "", *r.columns.values())]
        if role == self.entity:
            texts += [f.sql for f in self.features] + [r.via or "" for r in self.rows]
        names = {c.name for c in role.columns if any(mentions(text, c.name) for text in texts)}
        looked_up = [r.lookup[0] for r in mine if r.lookup]
        names |= {c.name for view in looked_up for c in view.used(view.entity)}
        return tuple(c for c in role.columns if c.name in names)

    def timeless(self, role: Role) -> tuple[str, ...]:
        """Used columns that say how things are, not when: they are taken as they stand, whatever the as-of."""
        if role.timestamp:
            return ()
        return tuple(c.name for c in self.used(role) if c.kind not in ("key", "moment"))


_MONDAY = -3 * 86_400_000_000  # 1969-12-29T00:00:00Z
WEEK = Duration("7d")


@dataclass(frozen=True)
class Settings:
    """The constants of the built-in sets, with their defaults."""

    aggregation_window: Duration = WEEK
    min_data_points: int = 0
    hours_per_activity: float = 2.0
    default_availability_hours: float = 40.0


def mentions(sql: str, name: str) -> bool:
    """Whether ``name`` stands in ``sql`` as a word, in quotes or not, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sql, re.IGNORECASE) is not None

"""Small worlds for the property tests: every table as plain rows (for the oracle) and as a polars frame.

A world clusters its timestamps around the as-of, where windows open and close, and draws nulls, NaN, blanks,
repeats and strangers everywhere. How a column is *stored* (int or text keys, lists or comma-separated text,
zones and units of timestamps, an absent or an all-null column) is drawn apart from what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

PROPERTY = settings(deadline=None, max_examples=60)
QUICK = settings(deadline=None, max_examples=25)

US = timedelta(microseconds=1)
DAY = timedelta(days=1)
UTC_US = pl.Datetime("us", "UTC")

AS_OFS = [
    datetime(2025, 10, 4, tzinfo=UTC),
    datetime(2024, 2, 29, 13, 37, 0, 1, tzinfo=UTC),
    datetime(2025, 3, 30, 1, 0, tzinfo=UTC),  # the hour that Berlin skips
    datetime(1970, 1, 3, 0, 0, 0, 999_999, tzinfo=UTC),  # windows reach across the epoch
]
WINDOWS = ["7d", "7d", "14d", "14d", "30d", "4w", "36h", "90s"]
SKILLS = ["backend", "frontend", "database", "devops", "testing"]


@dataclass(frozen=True)
class Table:
    """Rows as the oracle reads them, and the polars dtype of each column."""

    rows: list[dict[str, Any]]
    dtypes: dict[str, pl.DataType | type[pl.DataType]]

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame([column(name, self.rows, dtype) for name, dtype in self.dtypes.items()])

    def with_rows(self, rows: list[dict[str, Any]]) -> Table:
        return Table(rows, self.dtypes)

    def without(self, *columns: str) -> Table:
        rows = [{k: v for k, v in row.items() if k not in columns} for row in self.rows]
        return Table(rows, {k: v for k, v in self.dtypes.items() if k not in columns})


def column(name: str, rows: list[dict[str, Any]], dtype: Any) -> pl.Series:
    """One column; datetimes, which rows hold as aware UTC, are stored in the zone and unit of the dtype."""
    values = [row[name] for row in rows]
    if not isinstance(dtype, pl.Datetime):
        return pl.Series(name, values, dtype=dtype)
    series = pl.Series(name, values, dtype=UTC_US)
    if dtype.time_zone is None:
        series = series.dt.replace_time_zone(None)
    elif dtype.time_zone != "UTC":
        series = series.dt.convert_time_zone(dtype.time_zone)
    return series.cast(dtype)


# What a cell says --------------------------------------------------------------


def sometimes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The values, and now and then a null."""
    return st.integers(0, 7).flatmap(lambda n: st.none() if n == 7 else values)


def moments(as_of: datetime, window: str = "7d") -> st.SearchStrategy[datetime]:
    """Moments at, just inside and just outside every border, and anywhere near or far."""
    borders = [as_of - span for span in (0 * DAY, 7 * DAY, 30 * DAY, 3 * DAY, -3 * DAY, duration(window))]
    edges = [border + step for border in borders for step in (-US, 0 * US, US)]
    near = st.integers(-40 * 86_400, 5 * 86_400).map(lambda s: as_of + timedelta(seconds=s))
    far = st.sampled_from([as_of - 3000 * DAY, as_of + 3000 * DAY])
    return st.one_of(st.sampled_from(edges), near, near, far)


def duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Quarters, whole numbers and odd fractions in a range, and NaN; exact enough for a relative 1e-9."""
    return st.one_of(
        st.integers(int(low) * 4, int(high) * 4).map(lambda n: n / 4),
        st.floats(low, high, allow_subnormal=False).map(lambda x: round(x, 6)),
        st.sampled_from([float("nan"), float(low), float(high), 0.0]),
    )


def lists_of(words: list[str]) -> st.SearchStrategy[list[str | None]]:
    """Lists with repeats, blanks, nulls and white space around the words."""
    padded = st.sampled_from(words).flatmap(lambda w: st.sampled_from([w, w, w, f" {w}", f"{w} ", f"\t{w}\n"]))
    blank = st.sampled_from(["", "  ", None])
    return st.lists(st.one_of(padded, padded, padded, blank), max_size=5) | st.lists(padded, min_size=2, max_size=6)


def skill_words() -> list[str]:
    return [*SKILLS, "Backend", "FRONTEND", "DevOps", "back-end", "ünïcode", "ÜNÏCODE", "データ"]


# How a column is stored --------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column as drawn: its dtype, what its cells may hold, and how a cell is stored."""

    dtype: Any
    cells: st.SearchStrategy[Any]
    store: Callable[[Any], Any] = lambda value: value


def keys(draw: st.DrawFn, pool: list[str], *, null: bool = True) -> Column:
    """Keys of the pool, as integers where the pool allows and the draw says so."""
    cells = st.sampled_from(pool)
    if all(key.isdigit() for key in pool) and draw(st.booleans()):
        dtype = draw(st.sampled_from([pl.Int64, pl.Int32, pl.UInt16]))
        return Column(dtype, sometimes(cells) if null else cells, lambda k: None if k is None else int(k))
    return Column(pl.String, sometimes(cells) if null else cells)


def times(draw: st.DrawFn, cells: st.SearchStrategy[datetime]) -> Column:
    """Timestamps of any zone and unit, or dates."""
    dtype = draw(
        st.sampled_from(
            [UTC_US, pl.Datetime("us"), pl.Datetime("ns", "UTC"), pl.Datetime("us", "Europe/Berlin"), pl.Date]
        )
    )
    if dtype == pl.Date:
        return Column(dtype, sometimes(cells), lambda t: None if t is None else t.date())
    return Column(dtype, sometimes(cells))


def numbers(draw: st.DrawFn, low: float, high: float) -> Column:
    if draw(st.booleans()):
        return Column(draw(st.sampled_from([pl.Int64, pl.Int32])), sometimes(st.integers(int(low), int(high))))
    return Column(pl.Float64, sometimes(floats(low, high)))


def lists(draw: st.DrawFn, words: list[str]) -> Column:
    """A list column (of integers where all the words are numbers) or comma-separated text."""
    cells = sometimes(lists_of(words))
    how = draw(st.sampled_from(["text", "list", "integers"]))
    if how == "integers" and all(word.isdigit() for word in words):
        return Column(pl.List(pl.Int64), cells, whole_numbers)
    if how == "text":
        return Column(pl.String, cells, lambda c: None if c is None else ",".join(x or "" for x in c))
    return Column(pl.List(pl.String), cells)


def whole_numbers(cell: list[str | None] | None) -> list[int | None] | None:
    if cell is None:
        return None
    return [int(x) if x is not None and x.strip() else None for x in cell]


def words(*values: str) -> Column:
    return Column(pl.String, sometimes(st.sampled_from(values)))


def table(
    draw: st.DrawFn,
    columns: dict[str, Column],
    *,
    size: int,
    optional: tuple[str, ...] = (),
    key: str | None = None,
) -> Table:
    """Rows of the columns; optional columns may be absent, the column ``key`` is unique.

    A column that turned out all null may be stored with the dtype Null.
    """
    absent = draw(st.sets(st.sampled_from(optional))) if optional and draw(st.booleans()) else set()
    columns = {name: column for name, column in columns.items() if name not in absent}
    drawn = draw(
        st.lists(
            st.fixed_dictionaries({name: column.cells for name, column in columns.items()}),
            min_size=draw(st.sampled_from([size // 2, size // 3, size // 3, 0])),
            max_size=size,
            unique_by=(lambda row: row[key]) if key else None,
        )
    )
    rows = [{name: column.store(row[name]) for name, column in columns.items()} for row in drawn]
    dtypes = {name: column.dtype for name, column in columns.items()}
    for name in dtypes:
        if name != key and all(row[name] is None for row in rows) and draw(st.booleans()):
            dtypes[name] = pl.Null
    return Table(rows, dtypes)


def key_pool(draw: st.DrawFn) -> list[str]:
    """The names of the entities of a world: numbers (stored as integers or text), or text of any script."""
    return draw(st.sampled_from([["1", "2", "3", "4", "10"], ["u1", "U1", "u 2", "ü", "ユーザー", "0"]]))


# Worlds ------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """An as-of and the tables of one feature set, by role."""

    as_of: datetime
    tables: dict[str, Table]
    window: str = "7d"
    min_data_points: int = 0

    def __getattr__(self, role: str) -> Table:
        try:
            return self.tables[role]
        except KeyError:
            raise AttributeError(role) from None


def users_table(draw: st.DrawFn, as_of: datetime, pool: list[str]) -> Table:
    columns = {
        "user_id": keys(draw, pool, null=False),
        "experience_years": numbers(draw, -1, 50),
        "availability_hours_per_week": numbers(draw, -5, draw(st.sampled_from([5, 60]))),
        "skills": lists(draw, skill_words()),
        "created_at": times(draw, moments(as_of)),
        "current_workload_hours": numbers(draw, 0, 60),
    }
    optional = ("experience_years", "availability_hours_per_week", "created_at", "current_workload_hours")
    return table(draw, columns, size=6, optional=optional, key="user_id")


def activities_table(draw: st.DrawFn, as_of: datetime, pool: list[str], window: str) -> Table:
    actors = draw(st.sampled_from([[*pool, "99"], pool[:3], pool[:1]]))
    columns = {
        "user_id": keys(draw, actors),
        "timestamp": times(draw, moments(as_of, window)),
        "task_type": words("backend", "frontend", "database", "devops", "backend", "Backend", " backend", ""),
        "completion_time": numbers(draw, 0, 1_000_000),
        "collaborators": lists(draw, [*pool, "99"]),
        "bugs_introduced": numbers(draw, 0, 9),
    }
    return table(draw, columns, size=25, optional=("collaborators", "bugs_introduced"))


@st.composite
def user_worlds(draw: st.DrawFn) -> World:
    as_of, window, pool = draw(st.sampled_from(AS_OFS)), draw(st.sampled_from(WINDOWS)), key_pool(draw)
    tables = {
        "users": users_table(draw, as_of, pool),
        "activities": activities_table(draw, as_of, pool, window),
    }
    return World(as_of, tables, window, min_data_points=draw(st.sampled_from([0, 0, 1, 2, 5])))


@st.composite
def task_worlds(draw: st.DrawFn) -> World:
    as_of = draw(st.sampled_from(AS_OFS))
    levels = ["low", "medium", "high", "critical", " High ", "LOW\n", "CRITICAL", "urgent", "", "4", "hig h"]
    texts = st.one_of(st.text(max_size=12), st.sampled_from([0, 1, 999, 1000, 1001]).map(lambda n: "é" * n))
    columns = {
        "task_id": keys(draw, [str(n) for n in range(1, 9)], null=False),
        "description": Column(pl.String, sometimes(texts)),
        "priority": words(*levels),
        "estimated_hours": numbers(draw, -1, 200),
        "required_skills": lists(draw, skill_words()),
        "dependencies": lists(draw, ["1", "2", "3"]),
        "deadline": times(draw, moments(as_of)),
        "created_at": times(draw, moments(as_of)),
    }
    optional = tuple(name for name in columns if name != "task_id")
    return World(as_of, {"tasks": table(draw, columns, size=8, optional=optional, key="task_id")})


@st.composite
def project_worlds(draw: st.DrawFn) -> World:
    as_of, pool = draw(st.sampled_from(AS_OFS)), key_pool(draw)
    projects = {
        "project_id": keys(draw, pool, null=False),
        "team_members": lists(draw, pool),
        "budget": numbers(draw, -10, 10_000),
        "spent": numbers(draw, -10, 20_000),
        "created_at": times(draw, moments(as_of)),
    }
    tasks = {
        "project_id": keys(draw, draw(st.sampled_from([[*pool[:3], "99"], pool[:2]]))),
        "status": words("completed", "in_progress", "blocked", "in_progress", "blocked", "Completed", ""),
        "completed_at": times(draw, moments(as_of)),
        "deadline": times(draw, moments(as_of)),
        "created_at": times(draw, moments(as_of)),
        "updated_at": times(draw, moments(as_of)),
    }
    tables = {
        "projects": table(draw, projects, size=5, optional=("created_at",), key="project_id"),
        "tasks": table(draw, tasks, size=25, optional=("created_at", "updated_at")),
    }
    return World(as_of, tables)


@st.composite
def team_worlds(draw: st.DrawFn) -> World:
    """``activities`` may be missing from the tables: then the library call is made without them."""
    as_of, pool, window = draw(st.sampled_from(AS_OFS)), key_pool(draw), draw(st.sampled_from(WINDOWS))
    teams = {
        "team_id": keys(draw, ["1", "2", "3", "4"], null=False),
        "members": lists(draw, [*pool, "99"]),
    }
    tables = {
        "teams": table(draw, teams, size=4, key="team_id"),
        "users": users_table(draw, as_of, pool),
    }
    if draw(st.booleans()):
        tables["activities"] = activities_table(draw, as_of, pool, window)
    return World(as_of, tables, window)


# Frames of features, for missing values and normalisation ----------------------


@st.composite
def feature_tables(draw: st.DrawFn, *, infinite: bool = False) -> Table:
    """A key, the two timestamps, and feature columns of whole numbers, fractions and text."""
    floating = floats(-1000, 1000)
    if infinite:
        floating = st.one_of(floating, floating, st.sampled_from([float("inf"), float("-inf")]))
    stamp = st.sampled_from(AS_OFS)
    columns = {
        draw(st.sampled_from(["user_id", "task_id", "project_id", "team_id"])): Column(
            pl.Int64, sometimes(st.integers(0, 5))
        ),
        "event_timestamp": Column(UTC_US, sometimes(stamp)),
        "whole": Column(pl.Int64, sometimes(st.integers(-5, 5))),
        "fraction": Column(pl.Float64, sometimes(floating)),
        "constant": Column(pl.Float64, sometimes(st.just(2.5))),
        "empty": Column(pl.Float64, st.none()),
        "word": Column(pl.String, sometimes(st.sampled_from(["a", "B", "b", "ä", ""]))),
        "created_timestamp": Column(UTC_US, sometimes(stamp)),
    }
    return table(draw, columns, size=8)

"""A feature view and a moment, as one SQL query (DuckDB's dialect).

Shape of the query: the entities that exist at T, one grouped query per set of rows with every aggregate as a
filtered column, joined by key; then the features. Roles are read through views whose columns have been normalised
(see `engine.features.inputs`), so an expression can rely on their kinds: keys are texts, moments are UTC
timestamps without a zone, numbers are doubles without NaN, lists are never null.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.duck import identifier
from engine.features.definition import Aggregate, FeatureView, Role, Rows, mentions

# Unicode white space, as str.strip knows it, in a form for regular expressions.
_WHITESPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
_DAY = 86_400_000_000
# Functions that feature expressions may use besides DuckDB's own.
MACROS = (
    # trim(x, characters) knows more than ASCII too, at seven times the cost
    f"CREATE OR REPLACE TEMP MACRO strip(x) AS regexp_replace(x, '^{_WHITESPACE}|{_WHITESPACE}$', '', 'g')",
    # floor((later − earlier) / 1 day) in integers; // alone would round towards zero
    "CREATE OR REPLACE TEMP MACRO whole_days(later, earlier) AS "
    f"((epoch_us(later) - epoch_us(earlier)) - (((epoch_us(later) - epoch_us(earlier)) % {_DAY} + {_DAY}) % {_DAY}))"
    f" // {_DAY}",
)


def as_of_macro(as_of: datetime) -> str:
    """The statement that fixes ``as_of()`` for the queries that follow."""
    return f"CREATE OR REPLACE TEMP MACRO as_of() AS {timestamp(as_of)}"


def timestamp(moment: datetime) -> str:
    """A moment as a SQL timestamp without a zone, in UTC."""
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"


def view_query(view: FeatureView, as_of: datetime, *, alias: str = "") -> str:
    """The rows of ``view`` as of ``as_of``.

    Columns: the entity's key as its source has it, ``event_timestamp``, the features; ordered by key. Roles are
    expected as relations under their names, ``as_of()`` as a macro.

    Args:
        alias: a prefix for the query's own names, where it stands inside another.
    """
    parts = _with(view, as_of, alias)
    moment = f"{timestamp(as_of)} AT TIME ZONE 'UTC' AS event_timestamp"
    columns = ",\n  ".join([f"_source_key AS {identifier(view.entity.key)}", moment, *_features(view)])
    return f"{parts}\nSELECT {columns}\n{_joined(view, alias)}\nORDER BY _source_key"


def _lookup_query(view: FeatureView, as_of: datetime, alias: str) -> str:
    columns = ",\n  ".join(["_key", *_features(view)])
    return f"{_with(view, as_of, alias)}\nSELECT {columns}\n{_joined(view, alias)}"


def _with(view: FeatureView, as_of: datetime, alias: str) -> str:
    key = identifier(view.entity.key)
    exists = f"({identifier(view.created_at)} IS NULL OR {identifier(view.created_at)} <= as_of())"
    ctes = [
        f"{alias}entity AS (\n  SELECT *, {key} AS _key FROM {identifier(view.entity.name)}\n"
        f"  WHERE {key} IS NOT NULL AND {exists})"
    ]
    lists = sorted({r.via for r in view.rows if r.via})
    ctes += [
        f"{alias}{name}_bridge AS (\n  SELECT DISTINCT _key, unnest({identifier(name)}) AS _member FROM {alias}entity)"
        for name in lists
    ]
    for rows in view.rows:
        aggregates = [a for a in view.aggregates if a.rows == rows.name]
        ctes.append(_rows_cte(view, rows, aggregates, as_of, alias))
    return "WITH " + ",\n".join(ctes)


def _rows_cte(view: FeatureView, rows: Rows, aggregates: list[Aggregate], as_of: datetime, alias: str) -> str:
    role = view.role(rows.role)
    columns = ",\n    ".join(f"{_aggregate(a, role, as_of)} AS {identifier(a.name)}" for a in aggregates)
    return (
        f"{alias}agg_{rows.name} AS (\n  SELECT _key,\n    {columns}\n  FROM (\n"
        f"{_rows_query(view, rows, aggregates, as_of, alias)}\n  ) GROUP BY _key)"
    )


def _rows_query(view: FeatureView, rows: Rows, aggregates: list[Aggregate], as_of: datetime, alias: str) -> str:
    role = view.role(rows.role)
    key = identifier(role.key)
    derived = [f"({sql}) AS {identifier(name)}" for name, sql in rows.columns.items()]
    if rows.unnest:
        derived.append(f"unnest({identifier(rows.unnest)}) AS element")
    source, conditions = f"{identifier(role.name)} AS r", [f"r.{key} IS NOT NULL"]
    if rows.where:
        conditions.append(f"({rows.where})")
    if role.timestamp:
        conditions += _time_bounds(role.timestamp, aggregates, as_of)
    columns = ["r.*", *derived]
    if rows.via is None:
        columns.append(f"r.{key} AS _key")
    else:
        source += f" JOIN {alias}{rows.via}_bridge AS b ON b._member = r.{key}"
        columns.append("b._key AS _key")
    inner = f"    SELECT {', '.join(columns)}\n    FROM {source}\n    WHERE {' AND '.join(conditions)}"
    if rows.lookup:
        looked_up, names = rows.lookup
        other = _lookup_query(looked_up, as_of, f"{rows.name}_")
        chosen = ", ".join(f"f.{identifier(n)}" for n in names)
        inner = (
            f"    SELECT x.*, {chosen}\n    FROM (\n{inner}) AS x\n    LEFT JOIN (\n{other}) AS f ON f._key = x.{key}"
        )
    if any(mentions(a.where or "", "entity") or mentions(a.value or "", "entity") for a in aggregates):
        inner = f"    SELECT x.*, entity FROM (\n{inner}) AS x JOIN {alias}entity AS entity USING (_key)"
    return inner


def _time_bounds(column: str, aggregates: list[Aggregate], as_of: datetime) -> list[str]:
    """No row after the as-of; none before the longest window, where every aggregate has one."""
    name = f"r.{identifier(column)}"
    bounds = [f"{name} <= as_of()"]
    if aggregates and all(a.window and a.timestamp is None for a in aggregates):
        longest = max((a.window for a in aggregates if a.window), key=lambda w: w.microseconds)
        bounds.append(f"{name} > {timestamp(_before(as_of, longest.microseconds))}")
    return bounds


def _aggregate(aggregate: Aggregate, role: Role, as_of: datetime) -> str:
    conditions = [f"({aggregate.where})"] if aggregate.where else []
    column = aggregate.timestamp or role.timestamp
    if aggregate.window and column:
        since = timestamp(_before(as_of, aggregate.window.microseconds))
        conditions.append(f"{identifier(column)} > {since} AND {identifier(column)} <= as_of()")
    value = aggregate.value or "*"
    if aggregate.function == "std":
        # DuckDB raises on infinite values; their deviation is undefined, which is null here.
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    calls = {
        "count": "count({})",
        "count_distinct": "count(DISTINCT {})",
        "sum": "sum({})",
        "mean": "avg({})",
        "min": "min({})",
        "max": "max({})",
        "std": "stddev_samp({})",
    }
    call = calls[aggregate.function].format(value)
    return f"{call} FILTER (WHERE {' AND '.join(conditions)})" if conditions else call


def _features(view: FeatureView) -> list[str]:
    columns = []
    for feature in view.features:
        sql = f"CAST({feature.sql} AS {'BIGINT' if feature.dtype == 'Int64' else 'DOUBLE'})"
        if feature.dtype == "Float64":
            sql = f"nullif({sql}, 'NaN'::DOUBLE)"
        columns.append(f"{sql} AS {identifier(feature.name)}")
    return columns


def _joined(view: FeatureView, alias: str) -> str:
    """The entities with their aggregates; where an entity has no rows, its counts are 0."""
    counts = [a.name for a in view.aggregates if a.function.startswith("count")]
    replaced = ", ".join(f"coalesce({identifier(n)}, 0) AS {identifier(n)}" for n in counts)
    star = f"* REPLACE ({replaced})" if replaced else "*"
    joins = "".join(f"\n  LEFT JOIN {alias}agg_{rows.name} USING (_key)" for rows in view.rows)
    return f"FROM (SELECT {star}\n  FROM {alias}entity{joins})"


def _before(moment: datetime, microseconds: int) -> datetime:
    try:
        return moment - timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime(1, 1, 1, tzinfo=UTC)

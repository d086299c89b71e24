"""A feature view and a moment, as one SQL query (DuckDB's dialect).

Shape of the query: the entities that exist at T, one grouped query per set of rows with every aggregate as a
filtered column, joined by key; then the features. Roles are read through views whose columns have been normalised
(see `engine.features.inputs`), so an expression can rely on their kinds: keys are texts, moments are UTC
timestamps without a zone, numbers are doubles without NaN, lists are never null.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from engine.duck import identifier
from engine.features.approximate import call
from engine.features.definition import DATETIME, Aggregate, Feature, FeatureView, Role, Rows, mentions
from engine.types import EPOCH, FIRST_MOMENT, LAST_MOMENT, epoch_microseconds

# Unicode white space, as str.strip knows it, in a form for regular expressions.
WHITESPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_DAY = 86_400_000_000
# Functions that feature expressions may use besides DuckDB's own.
MACROS = (
    # trim(x, characters) knows more than ASCII too, at seven times the cost
    f"CREATE OR REPLACE TEMP MACRO strip(x) AS regexp_replace(x, '^{WHITESPACE}+|{WHITESPACE}+$', '', 'g')",
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


def view_query(
    view: FeatureView,
    as_of: datetime,
    *,
    given: Collection[str] = (),
    beside: Collection[str] = (),
    in_order: bool = False,
) -> str:
    """The rows of ``view`` as of ``as_of``.

    Columns: the entity's key as its source has it, ``event_timestamp``, the features; ordered by key. Roles are
    expected as relations under their names, ``as_of()`` as a macro.

    Args:
        given: names of relations that hold the aggregates of a set of rows (``_key``, then each by its name), which
            are then not computed; see `given_name`.
        beside: such relations without ``_key``, whose rows are in the order of the entities', which is that of their
            keys; they are laid beside them, which costs less than a join.
        in_order: whether the table of entities is in the order of their keys.
    """
    parts = _with(view, as_of, "", given, beside)
    moment = f"{timestamp(as_of)} AT TIME ZONE 'UTC' AS event_timestamp"
    columns = ",\n  ".join([*key_columns(view), moment, *_features(view)])
    whole = _both(view, "", given, beside)
    joined = [rows for rows in view.rows if given_name(rows) not in beside and rows != whole]
    order = "\nORDER BY _source_key" if joined or not (beside or in_order) else ""
    return f"{parts}\nSELECT {columns}\n{_joined(view, '', joined)}{order}"


def key_columns(view: FeatureView) -> list[str]:
    """What gives the entity's key as its source has it, from ``_source_key``."""
    if not view.entity.parts:
        return [f"_source_key AS {identifier(view.entity.key)}"]
    return [f"_source_key.{identifier(part)} AS {identifier(part)}" for part in view.entity.parts]


def given_name(rows: Rows, alias: str = "") -> str:
    """What a relation with the aggregates of ``rows`` is called; ``alias``: of the query that they belong to."""
    return f"{alias}given_{rows.name}"


def lookup_alias(rows: Rows) -> str:
    """The prefix of the names in the query that ``rows`` look features up in."""
    return f"{rows.name}_"


def _lookup_query(view: FeatureView, as_of: datetime, alias: str, given: Collection[str]) -> str:
    columns = ",\n  ".join(["_key", *_features(view)])
    return f"{_with(view, as_of, alias, given)}\nSELECT {columns}\n{_joined(view, alias, view.rows)}"


def _with(view: FeatureView, as_of: datetime, alias: str, given: Collection[str], beside: Collection[str] = ()) -> str:
    exists = f"({identifier(view.created_at)} IS NULL OR {identifier(view.created_at)} <= as_of())"
    whole = _both(view, alias, given, beside)
    ctes = [_entities_cte(view, whole, as_of, alias)] if whole else entity_ctes(view, alias, exists, beside)
    for rows in view.rows:
        if rows == whole or (relation := given_name(rows, alias)) in beside:
            continue
        if relation in given:
            ctes.append(f"{alias}agg_{rows.name} AS (\n  SELECT * FROM {identifier(relation)})")
        else:
            ctes.append(_rows_cte(view, rows, as_of, alias, given))
    return "WITH " + ",\n".join(ctes)


def _both(view: FeatureView, alias: str, given: Collection[str], beside: Collection[str]) -> Rows | None:
    """The rows that entities are known by, where they are aggregated too: one look at them gives both."""
    name = view.known_by.name if view.known_by and not beside else None
    return next((r for r in view.rows if r.name == name and given_name(r, alias) not in given), None)


def _entities_cte(view: FeatureView, rows: Rows, as_of: datetime, alias: str) -> str:
    """The entities that have rows, with the aggregates over them."""
    role = view.role(rows.role)
    bounds = [f"r.{identifier(role.timestamp or '')} <= as_of()"]
    columns = [
        f"_key, _key AS {identifier(view.entity.key)}",
        *_entity_columns(view, role),
        *_aggregates(view, rows, as_of, epoch_microseconds(as_of)),
    ]
    return (
        f"{alias}entity AS (\n  SELECT {', '.join(columns)}\n  FROM (\n"
        f"{rows_query(view, rows, bounds, alias)}\n  ) GROUP BY _key)"
    )


def _entity_columns(view: FeatureView, role: Role) -> list[str]:
    """What a table of entities has of the rows that they are known by."""
    pairs = zip(role.parts, view.entity.parts, strict=True)
    parts = [f"any_value({identifier(own)}) AS {identifier(name)}" for own, name in pairs]
    return [*parts, "min(_source_key) AS _source_key"]


def entity_ctes(view: FeatureView, alias: str = "", exists: str = "true", beside: Collection[str] = ()) -> list[str]:
    """The entities that ``exists`` (SQL) holds for, and per list column the members of each."""
    key = identifier(view.entity.key)
    relation = known_entities(view, view.known_by) if view.known_by else identifier(view.entity.name)
    relation = " POSITIONAL JOIN ".join([relation, *map(identifier, beside)])
    entity = f"{alias}entity AS (\n  SELECT *, {key} AS _key FROM {relation}\n  WHERE {key} IS NOT NULL AND {exists})"
    lists = sorted({r.via for r in view.rows if r.via})
    return [entity] + [
        f"{alias}{name}_bridge AS (\n  SELECT DISTINCT _key, unnest({identifier(name)}) AS _member FROM {alias}entity)"
        for name in lists
    ]


def known_entities(view: FeatureView, rows: Rows) -> str:
    """The keys of rows as a table of entities, each created with its first row."""
    role = view.role(rows.role)
    moment, condition = identifier(role.timestamp or ""), f" AND ({rows.where})" if rows.where else ""
    key = identifier(role.key)
    columns = [f"{key} AS {identifier(view.entity.key)}", *_entity_columns(view, role)]
    columns.append(f"min({moment}) AS {identifier(view.created_at)}")
    return (
        f"(\n    SELECT {', '.join(columns)} FROM {identifier(role.name)} AS r\n"
        f"    WHERE {moment} IS NOT NULL{condition} GROUP BY {key})"
    )


def _rows_cte(view: FeatureView, rows: Rows, as_of: datetime, alias: str, given: Collection[str]) -> str:
    role, aggregates = view.role(rows.role), view.over(rows)
    bounds, latest = _time_bounds(role.timestamp, aggregates, as_of) if role.timestamp else ([], None)
    looked_up = _lookup_query(rows.lookup[0], as_of, lookup_alias(rows), given) if rows.lookup else ""
    columns = ",\n    ".join(_aggregates(view, rows, as_of, latest))
    return (
        f"{alias}agg_{rows.name} AS (\n  SELECT _key,\n    {columns}\n  FROM (\n"
        f"{rows_query(view, rows, bounds, alias, looked_up)}\n  ) GROUP BY _key)"
    )


def _aggregates(view: FeatureView, rows: Rows, as_of: datetime, latest: int | None) -> list[str]:
    """``latest``: the last moment that the rows have."""
    role = view.role(rows.role)
    return [f"{_aggregate(a, role, as_of, latest)} AS {identifier(a.name)}" for a in view.over(rows)]


def rows_query(view: FeatureView, rows: Rows, bounds: Sequence[str], alias: str = "", looked_up: str = "") -> str:
    """The rows themselves, each with the ``_key`` of its entity, that meet their own conditions and ``bounds``.

    Args:
        bounds: further SQL conditions on the role's columns, as ``r``.
        looked_up: the query of the features that they look up, by ``_key``.
    """
    role, aggregates = view.role(rows.role), view.over(rows)
    key = identifier(role.key)
    derived = [f"({sql}) AS {identifier(name)}" for name, sql in rows.columns.items()]
    if rows.unnest:
        derived.append(f"unnest({identifier(rows.unnest)}) AS element")
    source, conditions = f"{identifier(role.name)} AS r", [f"r.{key} IS NOT NULL"]
    if rows.where:
        conditions.append(f"({rows.where})")
    conditions += bounds
    columns = ["r.*", *derived]
    if rows.via is None:
        columns.append(f"r.{key} AS _key")
    else:
        source += f" JOIN {alias}{rows.via}_bridge AS b ON b._member = r.{key}"
        columns.append("b._key AS _key")
    inner = f"    SELECT {', '.join(columns)}\n    FROM {source}\n    WHERE {' AND '.join(conditions)}"
    if rows.lookup:
        chosen = ", ".join(f"f.{identifier(n)}" for n in rows.lookup[1])
        inner = (
            f"    SELECT x.*, {chosen}\n    FROM (\n{inner}) AS x\n"
            f"    LEFT JOIN (\n{looked_up}) AS f ON f._key = x.{key}"
        )
    foreign = view.known_by is None and all(
        c.name.casefold() != "entity" for c in role.columns
    )  # else it is the rows' own
    if foreign and any(mentions(a.where or "", "entity") or mentions(a.value or "", "entity") for a in aggregates):
        inner = f"    SELECT x.*, entity FROM (\n{inner}) AS x JOIN {alias}entity AS entity USING (_key)"
    return inner


def _time_bounds(column: str, aggregates: Sequence[Aggregate], as_of: datetime) -> tuple[list[str], int]:
    """No row after the latest moment that an aggregate knows, which is given too; none before the earliest, where all
    have one."""
    name = f"r.{identifier(column)}"
    own = [a.bounds(epoch_microseconds(as_of)) for a in aggregates if a.timestamp is None]
    if len(own) < len(aggregates) or not own:
        return [f"{name} <= as_of()"], epoch_microseconds(as_of)
    latest = max(end for _, end in own)
    found = [f"{name} <= {moment_literal(latest)}"]
    starts = [start for start, _ in own if start is not None]
    if len(starts) == len(own):
        found.append(f"{name} > {moment_literal(min(starts))}")
    return found, latest


def _aggregate(aggregate: Aggregate, role: Role, as_of: datetime, latest: int | None) -> str:
    conditions = [f"({aggregate.where})"] if aggregate.where else []
    column = aggregate.timestamp or role.timestamp
    start, end = aggregate.bounds(epoch_microseconds(as_of))
    if column and start is not None:
        conditions.append(f"{identifier(column)} > {moment_literal(start)}")
    is_bound = aggregate.timestamp is None and latest is not None and end >= latest
    if column and (start is not None or aggregate.offset) and not is_bound:
        conditions.append(f"{identifier(column)} <= {moment_literal(end)}")
    if aggregate.value and aggregate.function in _IN_ORDER:
        conditions.append(f"({aggregate.value}) IS NOT NULL")
    only = f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""
    if aggregate.error is not None:
        return call(aggregate, only)
    return _CALLS[aggregate.function].format(
        value=aggregate.value or "*",
        moment=identifier(column or ""),
        n=aggregate.n,
        q=aggregate.q,
        filter=only,
    )


# DuckDB raises on infinite values; their deviation is undefined, which is null here.
_FINITE = "CASE WHEN isfinite(CAST(({value}) AS DOUBLE)) THEN CAST(({value}) AS DOUBLE) END"
_AT = "struct_pack(t := {moment}, v := {value})"
_IN_ORDER = ("first", "last", "last_n")
# Of each function.
_CALLS = {
    "count": "count({value}){filter}",
    "count_distinct": "count(DISTINCT {value}){filter}",
    "sum": "sum({value}){filter}",
    "mean": "avg({value}){filter}",
    "min": "min({value}){filter}",
    "max": "max({value}){filter}",
    "std": f"stddev_samp({_FINITE}){{filter}}",
    "var": f"var_samp({_FINITE}){{filter}}",
    "first": f"(min({_AT}){{filter}}).v",
    "last": f"(max({_AT}){{filter}}).v",
    "last_n": f"list_transform(max({_AT}, {{n}}){{filter}}, lambda s: s.v)",
    "quantile": "quantile_cont(CAST({value} AS DOUBLE), {q}){filter}",
    "mode": "mode({value} ORDER BY {value}){filter}",
}


def _features(view: FeatureView) -> list[str]:
    return [f"{typed(feature)} AS {identifier(feature.name)}" for feature in view.features]


def typed(feature: Feature) -> str:
    """A feature's SQL as its dtype; as it comes where that is not known."""
    if feature.dtype is None:
        return f"({feature.sql})"
    if feature.dtype.startswith("List("):
        element = _TYPES[feature.dtype[5:-1]].format("v")
        return f"list_transform({feature.sql}, lambda v: {element})"
    return _TYPES[feature.dtype].format(feature.sql)


_TYPES = {
    "Int64": "CAST({} AS BIGINT)",
    "Float64": "nullif(CAST({} AS DOUBLE), 'NaN'::DOUBLE)",
    "String": "CAST({} AS VARCHAR)",
    "Boolean": "CAST({} AS BOOLEAN)",
    "Binary": "CAST({} AS BLOB)",
    DATETIME: "CAST({} AS TIMESTAMP) AT TIME ZONE 'UTC'",
}


def _joined(view: FeatureView, alias: str, related: Sequence[Rows]) -> str:
    """The entities with their aggregates; where an entity has no rows, its counts are 0."""
    counts = [a.name for a in view.aggregates if a.function.startswith("count")]
    replaced = ", ".join(f"coalesce({identifier(n)}, 0) AS {identifier(n)}" for n in counts)
    star = f"* REPLACE ({replaced})" if replaced else "*"
    joins = "".join(f"\n  LEFT JOIN {alias}agg_{rows.name} USING (_key)" for rows in related)
    return f"FROM (SELECT {star}\n  FROM {alias}entity{joins})"


def moment_literal(microseconds: int) -> str:
    """Microseconds since 1970 as a SQL timestamp; the first or the last there is, where they lie beyond."""
    return timestamp(EPOCH + timedelta(microseconds=min(max(microseconds, FIRST_MOMENT), LAST_MOMENT)))

"""The tables that a view reads, normalised: one relation per role, with just the columns the role names.

What a table lacks is read as null, what cannot be read as its kind (a text that is no number, a column of numbers
where moments belong) is a DataError with an example: never a null in silence.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from engine.duck import connect, identifier, literal
from engine.errors import DataError, MaestroError, SinkError, is_interrupt, nearest
from engine.features import footers
from engine.features.definition import Column, FeatureView, Role, mentions
from engine.features.dtypes import FLOATS, INTEGERS, resolved
from engine.features.query import MACROS, WHITESPACE
from engine.types import DEFAULT_MEMORY_LIMIT, ISO_MOMENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What of a role took part: rows in all, rows left out for a null key or a null timestamp."""

    rows: int
    null_keys: int
    null_timestamps: int


@dataclass(frozen=True)
class Given:
    """A role's table as it was given.

    Attributes:
        relation: its name, quoted.
        columns: those of its columns that the role reads.
        moment: of a role of events: SQL over its columns, its timestamp in UTC.
    """

    relation: str
    columns: tuple[str, ...]
    moment: str | None


class Inputs:
    """A DuckDB session that holds the normalised roles of one view.

    Attributes:
        view: as given; a declared one as these tables have it: with the dtype of every feature.
        counts: per role, what took part.
        absent: per role, the optional columns that its table lacks.
        given: per role, its table as it was given.
    """

    def __init__(
        self,
        view: FeatureView,
        tables: Mapping[str, Any],
        *,
        names: Mapping[str, str] | None = None,
        memory_limit: str = DEFAULT_MEMORY_LIMIT,
        spill: Path | None = None,
    ) -> None:
        """
        Args:
            tables: per role a list of Parquet files, or an Arrow table.
            names: what people call each role's table, for messages; default: the role's name.

        Raises:
            DataError: a needed column is absent, a value cannot be read as its kind, or a key stands twice.
        """
        self.view = view
        self.memory_limit = memory_limit
        self.connection = connect(memory_limit, spill)
        self.counts: dict[str, Counts] = {}
        self.absent: dict[str, tuple[str, ...]] = {}
        self.given: dict[str, Given] = {}
        self._names = dict(names or {})
        self._queries: dict[str, str] = {}
        # The output is ordered by key; without this, DuckDB may write it in another order.
        self.connection.execute("SET preserve_insertion_order = true")
        for macro in MACROS:
            self.connection.execute(macro)
        try:
            for role in view.roles:
                self._load(role, tables[role.name], spill)
            if any(f.dtype is None for f in view.features) or any(
                c.kind == "any" for role in view.roles for c in role.columns
            ):
                self.view = resolved(view, self.connection)
        except duckdb.Error as error:
            self.connection.close()
            raise as_data_error(error, view.name) from error
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def _load(self, role: Role, table: Any, spill: Path | None) -> None:
        raw = identifier(f"{role.name} as given")
        given = footers.names(self.connection, table[0]) if isinstance(table, Sequence) else table.column_names
        own = {c.name: name for c in role.columns if (name := self._given(role, c, given)) is not None}
        wanted = list(dict.fromkeys(own.values()))
        self._check_columns(role, given, own, empty=not wanted and self._is_empty(table))
        if isinstance(table, Sequence):
            files = _told_apart(table, given, wanted, spill)
            self.connection.execute(f"CREATE TEMP VIEW {raw} AS SELECT * FROM {_listed(files)}")
        else:
            self.connection.register(f"{role.name} as given", table.select(wanted))
        described = self.connection.execute(f"DESCRIBE {raw}").fetchall()
        found = {row[0]: str(row[1]) for row in described}
        types = {column: found[name] for column, name in own.items()}
        types |= self._nothing_but_nan(role, types, raw)
        self._check_types(role, types)
        self._check_values(role, types, raw)
        columns = [
            f"{_normalised(replace(c, name=own.get(c.name, c.name)), types.get(c.name))} AS {identifier(c.name)}"
            for c in role.columns
        ]
        moments = [c for c in role.columns if c.name == role.timestamp and c.name in types]
        moment = next((_normalised(replace(c, name=own[c.name]), types[c.name]) for c in moments), None)
        self.given[role.name] = Given(raw, tuple(wanted), moment)
        if role.parts:
            columns.append(f"{_compound(role, types)} AS {identifier(role.key)}")
        known_by = self.view.known_by
        if role == self.view.entity or (known_by and role.name == known_by.role):
            columns.append(f"{self._source_key(role)} AS _source_key")
        self.define(role.name, f"SELECT {', '.join(columns)} FROM {raw}")
        self.counts[role.name] = self._counted_by_footers(role, table, own, types) or self._counted(role)
        if role.unique:
            self._check_unique(role)

    @contextmanager
    def over(self, role: str, files: Sequence[Path]) -> Iterator[None]:
        """Has a role made of other files meanwhile, which have the same columns."""
        raw, aside = self.given[role].relation, identifier(f"{role} aside")
        self.connection.execute(f"ALTER VIEW {raw} RENAME TO {aside}")
        self.connection.execute(f"CREATE TEMP VIEW {raw} AS SELECT * FROM {_listed(files)}")
        try:
            yield
        finally:
            self.connection.execute(f"DROP VIEW {raw}")
            self.connection.execute(f"ALTER VIEW {aside} RENAME TO {raw}")

    def define(self, name: str, query: str) -> str | None:
        """Makes a role the rows of a query; gives the query that it was, None: there was no such role."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS {query}")
        before = self._queries.get(name)
        self._queries[name] = query
        return before

    def _given(self, role: Role, column: Column, given: Sequence[str]) -> str | None:
        """What the table calls a column: in users' SQL, case says nothing where it need not."""
        if column.name in given or column.kind != "any":
            return column.name if column.name in given else None
        alike = [name for name in given if name.casefold() == column.name.casefold()]
        if len(alike) > 1:
            raise DataError(
                f"SQL cannot tell the columns {' and '.join(map(repr, alike))} apart{self._read_by(role, column)}",
                code="features.ambiguous_column",
                where=self._where(role),
                fix="name the column in quotes as it is written, or rename one with column_mapping",
            )
        return alike[0] if alike else None

    def _read_by(self, role: Role, column: Column) -> str:
        """Which feature reads a column, for messages."""
        view = self.view
        rows = {r.name for r in view.rows if r.role == role.name}
        over = [
            a for a in view.aggregates if a.rows in rows and mentions(f"{a.value} {a.where} {a.timestamp}", column.name)
        ]
        features = [f.name for f in view.features if any(mentions(f.sql, a.name) for a in over)]
        if role == view.entity:
            features += [f.name for f in view.features if mentions(f.sql, column.name)]
        return (
            f", which features.{view.name}.{features[0]} reads" if features else f", which features.{view.name} reads"
        )

    def _source_key(self, role: Role) -> str:
        """The key as its table has it; a compound one as a struct, by the names it is published by."""
        if not role.parts:
            return identifier(role.key)
        pairs = zip(self.view.keys, role.parts, strict=True)
        return f"struct_pack({', '.join(f'{identifier(name)} := {identifier(part)}' for name, part in pairs)})"

    def _check_columns(self, role: Role, given: Sequence[str], own: Mapping[str, str], *, empty: bool) -> None:
        """An empty table whose columns nobody knows lacks nothing."""
        absent = [c for c in role.columns if c.name not in own]
        for column in absent:
            if column.presence == "required" and not empty:
                near = nearest(column.name, given)
                by = self._read_by(role, column) if column.kind == "any" else ""
                raise DataError(
                    f"the table has no column {column.name!r}{by}",
                    code="features.missing_column",
                    where=self._where(role),
                    allowed=f"columns there are: {', '.join(given)}",
                    fix=f"did you mean {near!r}?"
                    if near and by
                    else f"rename the one that holds it with column_mapping: {{{near or 'NAME'}: {column.name}}}",
                )
            if column.presence == "expected" and not empty and column in self.view.used(role):
                log.warning("%s has no column %r; it is read as null", self._where(role), column.name)
        self.absent[role.name] = tuple(c.name for c in absent)

    def _nothing_but_nan(self, role: Role, types: Mapping[str, str], raw: str) -> dict[str, str]:
        """Columns of floats where lists or moments belong, when all their values are NaN: they are all null."""
        floats = [
            c.name for c in role.columns if types.get(c.name) in FLOATS and c.kind in ("moment", "list", "labels")
        ]
        if not floats:
            return {}
        counts = ", ".join(f"count(*) FILTER (WHERE NOT isnan({identifier(name)}))" for name in floats)
        found = self.connection.execute(f"SELECT {counts} FROM {raw}").fetchone() or ()
        return {name: "NULL" for name, values in zip(floats, found, strict=True) if not values}

    def _check_types(self, role: Role, types: Mapping[str, str]) -> None:
        for column in role.columns:
            kind = types.get(column.name)
            if kind is not None and not _readable(column, kind):
                raise DataError(
                    f"column {column.name!r} holds {kind.lower()} where {_KIND_TEXT[column.kind]} belongs",
                    code="features.column_type",
                    where=self._where(role),
                    allowed=_KIND_TEXT[column.kind],
                    fix=f"convert {column.name!r} in the source, for example with a query",
                )

    def _check_values(self, role: Role, types: Mapping[str, str], raw: str) -> None:
        """Refuses texts that do not read as the moment or number they should be."""
        texts = [c for c in role.columns if types.get(c.name) == "VARCHAR" and c.kind in ("moment", "number")]
        if not texts:
            return
        checks = []
        for column in texts:
            name = identifier(column.name)
            bad = f"strip({name}) <> '' AND {_parsed(column, name)} IS NULL"
            checks += [f"count(*) FILTER (WHERE {bad})", f"min({name}) FILTER (WHERE {bad})"]
        found = self.connection.execute(f"SELECT {', '.join(checks)} FROM {raw}").fetchone() or ()
        for i, column in enumerate(texts):
            if found[2 * i]:
                raise DataError(
                    f"column {column.name!r}: {found[2 * i]} values are not {_KIND_TEXT[column.kind]}, "
                    f"for example {found[2 * i + 1]!r}",
                    code="features.unreadable_value",
                    where=self._where(role),
                    allowed=_KIND_TEXT[column.kind],
                    fix="mend them in the source, or read it with a query that leaves them out",
                )

    def _is_empty(self, table: Any) -> bool:
        if isinstance(table, Sequence):
            return not footers.rows(self.connection, table)
        return bool(table.num_rows == 0)

    def _counted_by_footers(
        self, role: Role, table: Any, own: Mapping[str, str], types: Mapping[str, str]
    ) -> Counts | None:
        """The counts, where footers say that nothing is left out; to count what is takes a scan."""
        moments = [role.timestamp] if role.timestamp else []
        named = all(name in own for name in (*role.keys, *moments))
        if not named or not isinstance(table, Sequence):
            return None
        if not all(types[key] in (*INTEGERS, "VARCHAR") for key in role.keys):
            return None
        if not all(types[moment] in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") for moment in moments):
            return None
        if not footers.no_nulls(self.connection, table, [own[k] for k in role.keys], [own[m] for m in moments]):
            return None
        return Counts(footers.rows(self.connection, table), 0, 0)

    def _counted(self, role: Role) -> Counts:
        name, key = identifier(role.name), identifier(role.key)
        no_time = f"{identifier(role.timestamp)} IS NULL" if role.timestamp else "false"
        [row] = self.connection.execute(  # fetched to its end: an Arrow table can be registered then
            f"SELECT count(*), count(*) FILTER (WHERE {key} IS NULL), "
            f"count(*) FILTER (WHERE {key} IS NOT NULL AND {no_time}) FROM {name}"
        ).fetchall()
        return Counts(*row)

    def _check_unique(self, role: Role) -> None:
        name, key = identifier(role.name), identifier(role.key)
        twice = self.connection.execute(
            f"SELECT {key}, count(*) FROM {name} WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 "
            "ORDER BY 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise DataError(
                f"{role.key} {twice[0]!r} stands in {twice[1]} rows; an entity has one row",
                code="features.duplicate_key",
                where=self._where(role),
                fix=f"keep the last row per key with deduplicate: {{keys: [{role.key}]}}",
            )

    def _where(self, role: Role) -> str:
        return self._names.get(role.name, role.name)


def moment_sql(role: Role, name: str, kind: str) -> str:
    """SQL: the timestamp of a role's rows in UTC, from the column ``name`` of a DuckDB type."""
    column = next(c for c in role.columns if c.name == role.timestamp)
    return _normalised(replace(column, name=name), kind) if _readable(column, kind) else "CAST(NULL AS TIMESTAMP)"


def columns_of(role: Role, given: Sequence[str]) -> tuple[str, ...]:
    """Those columns of a table that a role reads; in users' SQL, case says nothing."""
    folded = {c.name.casefold() for c in role.columns if c.kind == "any"}
    names = {c.name for c in role.columns}
    return tuple(name for name in given if name in names or name.casefold() in folded)


def _listed(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(literal(str(path)) for path in files)}])"


def _told_apart(
    files: Sequence[Path], given: Sequence[str], wanted: Sequence[str], spill: Path | None
) -> Sequence[Path]:
    """``files``, or where a wanted name differs from another only in case, a copy of the wanted columns.

    To DuckDB, names that differ in case are one.
    """
    folded = [name.casefold() for name in given]
    if all(folded.count(name.casefold()) == 1 for name in wanted):
        return files
    import polars as pl  # for DuckDB this is all there is

    if spill is not None:
        spill.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="columns-", dir=spill)) / "columns.parquet"
    pl.scan_parquet(list(files), hive_partitioning=False, glob=False).select(wanted).sink_parquet(copy)
    return [copy]


_KIND_TEXT = {
    "key": "a text or a whole number",
    "moment": "a timestamp, a date, or ISO 8601 text",
    "number": "a number",
    "text": "a text",
    "list": "a list, or comma-separated text",
    "labels": "a list, or comma-separated text",
    "any": "any value",
}


def _readable(column: Column, kind: str) -> bool:
    if column.kind == "any":
        return True
    if column.kind in ("list", "labels"):
        return _is_scalar(_element(kind) or kind)
    if _is_null(kind) or kind == "VARCHAR" or kind.startswith("ENUM"):
        return True
    if column.kind == "moment":
        return kind.startswith(("TIMESTAMP", "DATE"))
    if column.kind == "number":
        return kind in (*INTEGERS, *FLOATS, "BOOLEAN") or kind.startswith("DECIMAL")
    return _element(kind) is None and not kind.startswith(("STRUCT", "MAP", "UNION", "INTERVAL"))


def _element(kind: str) -> str | None:
    """The type of a list's elements (``VARCHAR[]``, ``INTEGER[3]``); None for what is no list."""
    inner = re.sub(r"\[[0-9]*\]$", "", kind)
    return None if inner == kind else inner


def _is_scalar(kind: str) -> bool:
    """Whether a value of the type can stand for a list of one text, or be an element of a list of texts."""
    known = (*INTEGERS, *FLOATS, "VARCHAR", "UUID", "BOOLEAN")
    return _is_null(kind) or kind in known or kind.startswith(("DECIMAL", "ENUM"))


def _is_null(kind: str) -> bool:
    return kind.strip('"') == "NULL"


def _normalised(column: Column, kind: str | None) -> str:
    """The SQL that reads a column as its kind; ``kind`` is the table's own type, None where it lacks the column."""
    name = identifier(column.name)
    if column.kind == "any":
        return _as_it_stands(name, kind)
    if kind is None or _is_null(kind):
        name, kind = "CAST(NULL AS VARCHAR)", "VARCHAR"
    if kind.startswith("ENUM"):
        name, kind = f"CAST({name} AS VARCHAR)", "VARCHAR"
    if column.kind in ("moment", "number") and kind == "VARCHAR":
        return _parsed(column, name)
    if column.kind == "moment":
        return _moment(name, kind)
    if column.kind == "number":
        value = f"CAST({name} AS DOUBLE)"
        return f"nullif({value}, 'NaN'::DOUBLE)" if kind in FLOATS else value
    if column.kind in ("list", "labels"):
        return _list(name, kind, lower=column.kind == "labels")
    if column.kind == "text" and kind in FLOATS:
        return f"CASE WHEN NOT isnan({name}) THEN CAST({name} AS VARCHAR) END"
    if column.kind == "key" and kind in FLOATS:
        # 1.0 is the key 1: a null elsewhere in the column turns whole numbers into floats.
        return _float_key(name)
    return f"CAST({name} AS VARCHAR)"


def _as_it_stands(name: str, kind: str | None) -> str:
    if kind is None or _is_null(kind):
        return "NULL"
    if kind in FLOATS:
        return f"nullif({name}, 'NaN'::{kind})"
    if kind.startswith("ENUM"):
        return f"CAST({name} AS VARCHAR)"
    return _finite(_moment(name, kind)) if kind.startswith("TIMESTAMP") else name


def _compound(role: Role, types: Mapping[str, str]) -> str:
    """A compound key as one text, each part with its length before it; null where a part is."""
    parts = [_normalised(Column(part, "key"), types.get(part)) for part in role.parts]
    return " || ".join(f"length({part}) || ':' || {part}" for part in parts)


def _parsed(column: Column, name: str) -> str:
    """A text as a moment or a number; null where it is blank or reads as neither."""
    if column.kind == "number":
        return f"nullif(TRY_CAST(strip({name}) AS DOUBLE), 'NaN'::DOUBLE)"
    text = f"strip({name})"
    iso = f"CASE WHEN regexp_matches({text}, {literal(ISO_MOMENT)}) THEN {text} END"
    return _in_utc(f"TRY_CAST({iso} AS TIMESTAMPTZ)")


def _moment(name: str, kind: str) -> str:
    if kind == "TIMESTAMP WITH TIME ZONE":
        return _in_utc(name)
    if kind in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        # A cast would round; nanoseconds are floored.
        floored = f"make_timestamp((epoch_ns({name}) - ((epoch_ns({name}) % 1000) + 1000) % 1000) // 1000)"
        return _finite(floored)
    return _finite(f"CAST({name} AS TIMESTAMP)")


def _in_utc(moment: str) -> str:
    """A timestamp with a zone as one without, in UTC; null where it is infinite.

    AT TIME ZONE asks a calendar, at ten times the cost.
    """
    return f"make_timestamp(epoch_us({moment}))"


def _float_key(name: str) -> str:
    """A float as the key it stands for: 1.0 is 1, since a null elsewhere turns whole numbers into floats."""
    whole = f"{name} = trunc({name}) AND abs({name}) < 1e15"
    return (
        f"CASE WHEN isnan({name}) THEN NULL WHEN {whole} THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) "
        f"ELSE CAST({name} AS VARCHAR) END"
    )


def _finite(moment: str) -> str:
    return f"CASE WHEN isfinite({moment}) THEN {moment} END"


def _list(name: str, kind: str, *, lower: bool) -> str:
    empty = f"{name} IS NULL"
    if kind == "VARCHAR":
        values = f"string_split({name}, ',')"
        empty += f" OR {name} = ''"
        # Most texts need no cleaning; to look at each element costs four times as much. The first of these conditions
        # is computed once for each text of a dictionary, the second, which knows more texts, for each row.
        plain = f"strlen({name}) = length({name}) AND NOT {name} GLOB {literal(_SPACES)}"
        clean = (
            f"{plain} AND NOT contains(',' || {name} || ',', ',,') THEN {values} "
            f"WHEN NOT regexp_matches({name}, {literal(f'{WHITESPACE}|^,|,,|,$')})"
        )
    elif element_kind := _element(kind):
        floats = element_kind in FLOATS
        values = f"list_transform({name}, lambda v: {_float_key('v')})" if floats else f"CAST({name} AS VARCHAR[])"
        clean = "false"
    else:  # comma-separated text of one number per row, which a reader took for numbers
        values = f"[{_float_key(name) if kind in FLOATS else f'CAST({name} AS VARCHAR)'}]"
        clean = "false"
    stripped = f"list_filter(list_transform({values}, lambda e: strip(e)), lambda e: e <> '')"
    elements = f"CASE WHEN {empty} THEN CAST([] AS VARCHAR[]) WHEN {clean} THEN {values} ELSE {stripped} END"
    return f"list_transform({elements}, lambda e: lower(e))" if lower else elements


_SPACES = "*[\x01-\x20]*"  # what is white space in ASCII, and more


@contextmanager
def worded(where: str) -> Iterator[None]:
    """Has DuckDB's errors said in the engine's words; see `as_data_error`."""
    try:
        yield
    except duckdb.Error as error:
        raise as_data_error(error, where) from error


def as_data_error(error: duckdb.Error, where: str) -> MaestroError:
    """DuckDB's error in the engine's words.

    Raises:
        KeyboardInterrupt: it was a Ctrl-C.
    """
    if is_interrupt(error):
        raise KeyboardInterrupt from None
    text = str(error).splitlines()[0]
    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(
            f"the memory limit is too small: {text}",
            code="features.memory",
            where=where,
            fix="raise memory_limit, or free disk space in the workdir",
        )
    if isinstance(error, duckdb.IOException):
        return SinkError(
            f"cannot write: {text}", code="output.unwritable", where=where, fix="free disk space where output.path is"
        )
    return DataError(
        f"cannot compute: {text}", code="features.compute", where=where, fix="check the columns named above"
    )

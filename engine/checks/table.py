"""A table under check: its columns as expressions, and its rows batch by batch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from engine.checks.check import CannotRun, Check
from engine.checks.functions import called, columns_of, prove_row_wise
from engine.checks.groups import POSITION, Groups, Repeated, Stream, comparable, counting
from engine.checks.keys import Keys, hash_of
from engine.checks.marks import Marks
from engine.checks.sql import Conditions
from engine.errors import DataError
from engine.frames import batches, column, compacted, reading, to_rows
from engine.moments import readable, to_moment

if TYPE_CHECKING:
    from engine.drift import Baseline, Nothing, Past
    from engine.spec import DriftBaseline


@dataclass
class _Derived:
    """Columns that are made of a batch before it is measured, by name."""

    moments: dict[str, pl.Expr] = field(default_factory=dict)
    previous: dict[str, tuple[pl.Expr, pl.DataType]] = field(default_factory=dict)
    truths: dict[str, str] = field(default_factory=dict)  # of SQL conditions
    calculated: dict[str, tuple[str, pl.Expr]] = field(default_factory=dict)  # of Python functions
    absent: dict[str, Marks] = field(default_factory=dict)


class Table:
    """Rows to be checked, not held in memory.

    Attributes:
        frame: the rows; scanned once, and columns that must be unique or refer to others once more.
        schema: its columns and their types.
        as_of: the moment that ages are measured from.
        rows: how many there are that were not set aside; known after the scan.
        sample_size: how many failing rows to keep per check.
        removed: whether each row was set aside; None: none was.
        memory: what may be used of it, and the folder for more.
        faults: SQL conditions and Python functions that failed on a value, and why.
    """

    def __init__(
        self,
        frame: pl.LazyFrame,
        keys: Sequence[str],
        as_of: datetime,
        *,
        memory_limit: str,
        budget: int,
        spill: Path | None,
        sample_size: int,
        origins: pl.DataFrame | None = None,
        references: Mapping[str, pl.LazyFrame] | None = None,
        base: Path | None = None,
        past: Past | None = None,
    ) -> None:
        with reading():
            self.schema = dict(frame.collect_schema())
        self.frame = frame
        self.as_of = as_of
        self.rows = 0
        self.sample_size = sample_size
        self.removed: pl.Series | None = None
        self.faults: dict[str, str] = {}
        self.key_columns = [k for k in keys if k in self.schema]
        self.position, self.origin, self.origin_row = (self._unused(n) for n in ("row", "origin", "origin_row"))
        self.groups = Groups(memory_limit, spill)
        self.keys: dict[str, Keys] = {}
        self._conditions = Conditions(self.schema, memory_limit)
        self._budget, self._spill, self._base = budget, spill, base
        self._origins = None if origins is None else origins.sort("start")
        self._references = dict(references or {})
        self._past, self.memory = past, (memory_limit, spill)
        self._derived = _Derived()
        self._carried: dict[str, Any] = {}

    def fault(self, check: Check) -> str | None:
        """Why a check cannot run after all: its condition or function failed on a value."""
        asked = (check.where, getattr(check, "sql", None), getattr(check, "function", None))
        return next((self.faults[expression] for expression in asked if expression in self.faults), None)

    def past(self, declared: DriftBaseline) -> Baseline | Nothing:
        """The baseline that a declaration names.

        Raises:
            MaestroError: it cannot be read.
        """
        from engine.drift import from_files

        return self._past(declared) if self._past else from_files(declared, self._base or Path.cwd())

    def forget(self) -> None:
        """Forgets what a scan has found, but for faults: to be scanned again."""
        for keys in self.keys.values():
            keys.close()
        self.rows, self.removed = 0, None
        self.keys, self._carried, self._derived = {}, {}, _Derived(absent=self._derived.absent)

    def close(self) -> None:
        """Give back what counting equal values took."""
        self.groups.close()
        self._conditions.close()
        for keys in self.keys.values():
            keys.close()

    def _unused(self, name: str) -> str:
        while name in self.schema:
            name = f"_{name}"
        return name

    # --- columns as expressions -------------------------------------------------------------------------------------

    def known(self, name: str) -> pl.Expr:
        """A column in which NaN is null.

        Raises:
            CannotRun: it holds Python objects.
        """
        dtype = self.schema[name]
        if dtype.is_object():
            raise CannotRun(f"the column {name!r} holds Python objects, which cannot be compared")
        return column(name).fill_nan(None) if dtype.is_float() else column(name)

    def moment(self, name: str) -> pl.Expr:
        """A column as UTC microseconds; parsed once however many measures use it.

        Raises:
            CannotRun: its type holds no points in time.
        """
        dtype = self.schema[name]
        if not readable(dtype):
            raise CannotRun(f"the column {name!r} is {dtype}, which holds no points in time")
        derived = self._unused(f"moment of {name}")
        self._derived.moments[derived] = to_moment(column(name), dtype)
        return column(derived)

    def unreadable(self, name: str) -> pl.Expr:
        """Whether a value is there that is no moment."""
        return column(name).is_not_null() & self.moment(name).is_null()

    def orderable(self, name: str) -> pl.Expr:
        """A column in a form that can be carried from batch to batch: points in time and decimals as whole numbers."""
        dtype = self.schema[name]
        if dtype.is_temporal() or dtype.is_decimal():
            return self.known(name).to_physical()
        return self.known(name).cast(pl.String) if dtype in (pl.Categorical, pl.Enum) else self.known(name)

    def previous(self, name: str, where: str | None) -> pl.Expr:
        """The last non-null value of a column before each row, as `orderable` has it; null before the first.

        Args:
            where: an SQL condition: the rows whose values count.
        """
        derived = self._unused(f"previous {name}" if where is None else f"previous {name} where {where}")
        values = self.orderable(name)
        dtype = pl.DataFrame(schema={name: self.schema[name]}).select(values).schema.dtypes()[0]
        counts = self.condition(where)
        self._derived.previous[derived] = values if counts is None else pl.when(counts).then(values), dtype
        return column(derived)

    def condition(self, condition: str | None) -> pl.Expr | None:
        """As `truth`; None for no condition."""
        return None if condition is None else self.truth(condition)

    def truth(self, condition: str) -> pl.Expr:
        """Whether an SQL condition holds.

        Raises:
            CannotRun: it is no condition over the columns of a row.
        """
        try:
            self._conditions.columns(condition)
        except CannotRun as reason:
            raise CannotRun(f"{condition!r}: {reason}") from None
        derived = self._unused(f"whether {condition}")
        self._derived.truths[condition] = derived
        return column(derived)

    def calculated(self, function: str) -> pl.Expr:
        """The Boolean expression that a Python function ``module:name`` gives.

        Raises:
            CannotRun: there is no such function, or what it gives is no expression over columns that are there.
        """
        expr = called(function, self._base)
        try:
            columns_of(expr, self.schema)
            prove_row_wise(expr, self.schema)
        except CannotRun as reason:
            raise CannotRun(f"{function}: {reason}") from None
        derived = self._unused(f"result of {function}")
        self._derived.calculated[function] = derived, expr
        return column(derived)

    def absent(self, key: Sequence[str], source: str, to: Sequence[str]) -> pl.Expr:
        """Whether a key (null if a part is null) stands nowhere in the columns ``to`` of another source.

        Raises:
            CannotRun: the source is not there, lacks a column, or holds values of another kind.
        """
        if source not in self._references:
            raise CannotRun(f"the source {source!r} was not given (references=…)")
        theirs = self._references[source]
        with reading(f"the source {source!r}"):
            schema = theirs.collect_schema()
        for name in to:
            if name not in schema:
                raise CannotRun(f"the source {source!r} lacks the column {name!r}")
        pairs = list(zip(key, to, strict=True))
        for ours, other in pairs:
            self.known(ours)
            if pl.Null not in (self.schema[ours], schema[other]) and _kind(self.schema[ours]) != _kind(schema[other]):
                raise CannotRun(f"{ours!r} is {self.schema[ours]}, {source}.{other} is {schema[other]}")
        derived = self._unused(f"whether {','.join(key)} is absent from {source}.{','.join(to)}")
        if derived not in self._derived.absent:
            self._derived.absent[derived] = self._find_absent(pairs, source, schema)
        return column(derived)

    def _find_absent(self, pairs: Sequence[tuple[str, str]], source: str, schema: Mapping[str, pl.DataType]) -> Marks:
        """The rows whose key the other source lacks, found by DuckDB, which spills."""
        parts = {f"k{i}": (ours, self.schema[ours], other, schema[other]) for i, (ours, other) in enumerate(pairs)}
        our_keys = {k: _linked(column(ours), dtype, other) for k, (ours, dtype, _, other) in parts.items()}
        their_keys = {k: _linked(column(theirs), dtype, ours) for k, (_, ours, theirs, dtype) in parts.items()}
        listed, on = ", ".join(parts), " AND ".join(f"known.{k} = ours.{k}" for k in parts)
        known = _keys(self._references[source], list(dict.fromkeys(b for _, b in pairs)), their_keys, repr(source))
        ours = _keys(self.frame, [ours for ours, _ in pairs], our_keys)
        marks = Marks()
        with counting(known, ours):
            connection = self.groups.connection
            connection.register("others", known.batches)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE known AS SELECT DISTINCT {listed} FROM others")
            connection.register("ours", ours.batches)
            query = f"SELECT {POSITION} FROM ours WHERE NOT EXISTS (SELECT 1 FROM known WHERE {on})"
            for batch in connection.sql(query).to_arrow_reader(100_000):
                marks.add(cast(pl.DataFrame, pl.from_arrow(batch)).to_series())
        return marks

    # --- rows -------------------------------------------------------------------------------------------------------

    def needed(self, check: Check) -> set[str]:
        """The columns that a check reads."""
        names = set(check.columns)
        for condition in (check.where, getattr(check, "sql", None)):
            if condition is not None:
                names.update(self._conditions.columns(condition))
        if function := getattr(check, "function", None):
            names.update(columns_of(self._derived.calculated[function][1], self.schema))
        return names

    def batches(self, columns: Sequence[str]) -> Generator[tuple[int, pl.DataFrame]]:
        """The rows in order, with the number of the first of each batch."""
        return batches(self.frame, columns)

    def count(self) -> int:
        """How many rows there are, of which none is read."""
        with reading():
            return int(self.frame.select(pl.len()).collect(engine="streaming").item())

    def derive(self, batch: pl.DataFrame, offset: int) -> pl.DataFrame:
        """A batch with all columns that expressions of this table name; batches must come in order."""
        made = self._derived
        columns: list[pl.Series | pl.Expr] = [expr.alias(name) for name, expr in made.moments.items()]
        columns += [marks.slice(offset, batch.height).alias(name) for name, marks in made.absent.items()]
        columns += self._evaluated(batch)
        batch = batch.with_columns(columns) if columns else batch
        before: list[pl.Expr] = []
        for name, (values, dtype) in made.previous.items():
            carried = pl.lit(self._carried.get(name), dtype=dtype)
            before.append(values.forward_fill().shift(1).fill_null(carried).alias(name))
            last = batch.select(values.drop_nulls().last()).item()
            self._carried[name] = self._carried.get(name) if last is None else last
        return batch.with_columns(before) if before else batch

    def derived_lazily(self) -> pl.LazyFrame:
        """All rows with all columns that expressions of this table name.

        Collecting it raises a DataError where a condition or a function fails on a value.
        """
        made, frame = self._derived, self.frame
        if made.absent:
            position = self._unused("position of the row")
            frame = frame.with_row_index(position)
            frame = frame.with_columns(
                pl.col(position).map_batches(marks.of, return_dtype=pl.Boolean).alias(name)
                for name, marks in made.absent.items()
            )
        frame = frame.with_columns(**made.moments)
        if evaluated := [*made.truths.values(), *(name for name, _ in made.calculated.values())]:
            schema = dict(frame.collect_schema()) | dict.fromkeys(evaluated, pl.Boolean())
            frame = frame.map_batches(self._evaluated_or_fail, streamable=True, schema=schema)
        return frame.with_columns(
            **{name: values.forward_fill().shift(1) for name, (values, _) in made.previous.items()}
        )

    def _evaluated(self, batch: pl.DataFrame) -> list[pl.Series]:
        made = self._derived
        return self._truths(batch, list(made.truths)) + [self._calculate(batch, name) for name in made.calculated]

    def _evaluated_or_fail(self, batch: pl.DataFrame) -> pl.DataFrame:
        found = batch.with_columns(self._evaluated(batch))
        if self.faults:
            raise DataError(
                f"a check cannot run: {next(iter(self.faults.values()))}",
                code="checks.cannot_run",
                fix="mend the check, or the value that it fails on",
            )
        return found

    def all_columns(self) -> list[pl.Expr]:
        """The table's own columns."""
        return [column(name) for name in self.schema]

    def _truths(self, batch: pl.DataFrame, conditions: Sequence[str]) -> list[pl.Series]:
        sound = [condition for condition in conditions if condition not in self.faults]
        try:
            found = dict(zip(sound, self._conditions.evaluate(batch, sound), strict=True)) if sound else {}
        except CannotRun as reason:
            if len(sound) > 1:  # each by itself, to tell which one
                return [answer for condition in conditions for answer in self._truths(batch, [condition])]
            self.faults[sound[0]], found = f"{sound[0]!r}: {reason}", {}
        unknown = pl.Series([None], dtype=pl.Boolean).new_from_index(0, batch.height)
        return [
            found.get(condition, unknown).cast(pl.Boolean).alias(self._derived.truths[condition])
            for condition in conditions
        ]

    def _calculate(self, batch: pl.DataFrame, function: str) -> pl.Series:
        derived, expr = self._derived.calculated[function]
        unknown = pl.Series(derived, [None], dtype=pl.Boolean).new_from_index(0, batch.height)
        if function in self.faults:
            return unknown
        try:
            own = batch.select([column(name) for name in batch.columns if name in self.schema])
            found = own.with_columns(expr.alias(derived))[derived]
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            text = str(error).strip()
            self.faults[function] = f"{function}: {text.splitlines()[0] if text else type(error).__name__}"
            return unknown
        if found.dtype not in (pl.Boolean, pl.Null):
            self.faults[function] = f"{function}: it gives {found.dtype}, not true or false for each row"
            return unknown
        return found.cast(pl.Boolean)

    def key_parts(self, key: Sequence[str]) -> dict[str, pl.Expr]:
        """The columns of a key in a form in which equal values are equal."""
        return {str(i): comparable(column(name), self.schema[name]) for i, name in enumerate(key)}

    def collect_keys(self, check: Check, key: Sequence[str], rows: pl.DataFrame) -> None:
        """Takes note of the keys of some rows."""
        keys = self.keys.setdefault(check.name, Keys(self._budget, self._spill))
        values = rows.select(**self.key_parts(key)).drop_nulls()
        if values.height:
            keys.add(values)

    def repeated(self, check: Check) -> Repeated:
        """The values of a check's key that stand in more than one row; null and NaN are no values."""
        keys = self.keys.get(check.name)
        suspects = keys.repeated() if keys else None
        if keys is None or (suspects is not None and not len(suspects)):
            return Repeated(0, 0, ())
        keys.close()
        parts = {f"part {i}": expr for i, expr in self.key_parts(check.columns).items()}
        with closing(self._key_batches(check, parts, suspects)) as batches:
            values, count, earliest, rows = self.groups.repeated(batches, list(parts), self.sample_size)
        last = [group.last for group in earliest]
        if rows is None or suspects is None:
            shown = self.at(last, check.columns)
        else:
            places = rows.select(POSITION).with_row_index("at").filter(pl.col(POSITION).is_in(last))
            order = dict(zip(places[POSITION], places["at"], strict=True))
            chosen = rows[[order[position] for position in last]]
            chosen = chosen.rename({f"shown {i}": name for i, name in enumerate(self._shown(check.columns))})
            shown = self.shown(chosen, pl.Series(last, dtype=pl.Int64), check.columns)
        return Repeated(values, count, tuple(zip(earliest, shown, strict=True)))

    def _shown(self, columns: Sequence[str]) -> list[str]:
        return list(dict.fromkeys([*self.key_columns, *columns]))

    def _key_batches(
        self, check: Check, parts: Mapping[str, pl.Expr], suspects: pl.Series | None
    ) -> Generator[pl.DataFrame]:
        """The keys of the rows that stay, each with its position; only those whose hash is a suspect, and then with the
        columns that samples show."""
        names = self._shown(check.columns) if suspects is not None else []
        shown = {f"shown {i}": column(name) for i, name in enumerate(names)}
        filled = pl.all_horizontal([pl.col(part).is_not_null() for part in parts])
        wanted = filled if suspects is None else filled & hash_of(list(parts)).is_in(suspects.implode())
        seen = 0
        with closing(self.batches(sorted(self.needed(check) | set(names)))) as batches:
            for offset, batch in batches:
                seen = offset + batch.height
                rows = batch.select(pl.int_range(offset, offset + pl.len()).alias(POSITION), **parts, **shown)
                yield rows.filter(self._judged(batch, offset, check)).filter(wanted)
        if seen != self._all_rows:
            raise _changed()

    def _judged(self, batch: pl.DataFrame, offset: int, check: Check) -> pl.Series:
        """The rows of a batch that stay and that a check is about."""
        judged = pl.Series([True]).new_from_index(0, batch.height)
        if self.removed is not None:
            judged &= ~self.removed.slice(offset, batch.height)
        return judged if check.where is None else judged & self._truths(batch, [check.where])[0]

    @property
    def _all_rows(self) -> int:
        return self.rows + (int(self.removed.sum()) if self.removed is not None else 0)

    def shown(self, rows: pl.DataFrame, positions: pl.Series, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Position, origin (where it is known), key columns and ``columns`` of rows: what a sample shows."""
        names = self._shown(columns)
        shown = [positions.alias(self.position)]
        if self._origins is not None:
            places = self.places(positions)
            shown += [places["origin"].alias(self.origin), places["row"].alias(self.origin_row)]
        return to_rows(pl.DataFrame(shown).hstack(rows.select([column(name) for name in names]).get_columns()))

    def places(self, positions: pl.Series) -> pl.DataFrame:
        """Where rows came from: ``origin``, ``row`` (the record number in it), ``read``; null where it is not known."""
        if self._origins is None or not len(self._origins):
            return pl.DataFrame(
                {name: [None] * len(positions) for name in ("origin", "row", "read")},
                schema={"origin": pl.String, "row": pl.Int64, "read": pl.String},
            )
        rows = positions.cast(pl.Int64).to_frame("position").with_row_index("at").sort("position")
        found = rows.join_asof(self._origins, left_on="position", right_on="start", coalesce=False).sort("at")
        read = pl.col("read") if "read" in self._origins.columns else pl.lit(None, pl.String).alias("read")
        return found.select("origin", pl.col("row") + pl.col("position") - pl.col("start"), read)

    def at(self, positions: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """What a sample shows of the rows at ``positions``, in that order.

        The frame must give its rows in the same order at each scan, as files and frames in memory do.
        """
        if not positions:
            return []
        wanted = pl.Series(sorted(set(positions)), dtype=pl.Int64)
        held, numbers = [], []
        with closing(self.batches(self._shown(columns))) as batches:
            for offset, batch in batches:
                here = wanted.filter((wanted >= offset) & (wanted < offset + batch.height))
                if len(here):
                    held.append(compacted(batch[here - offset]))
                    numbers.append(here)
                if offset + batch.height > wanted[-1]:
                    break
        rows = pl.concat(held)
        shown = {row[self.position]: row for row in self.shown(rows, pl.concat(numbers), columns)}
        if len(shown) < len(set(positions)):
            raise _changed()
        return [shown[position] for position in positions]


def _keys(frame: pl.LazyFrame, columns: Sequence[str], parts: Mapping[str, pl.Expr], name: str = "the data") -> Stream:
    """The keys of a frame that have no null, with their positions."""
    schema = frame.collect_schema()
    none = pl.DataFrame(schema={name: schema[name] for name in columns})

    def keys() -> Iterator[pl.DataFrame]:
        for offset, batch in batches(frame, columns, name):
            yield batch.select(pl.int_range(offset, offset + pl.len()).alias(POSITION), **parts).drop_nulls()

    return Stream(none.select(pl.int_range(pl.len()).alias(POSITION), **parts), keys())


def _kind(dtype: pl.DataType) -> str:
    """Types whose values can be equal."""
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype.is_integer():
        return "integer"
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    return str(dtype)


def _linked(expr: pl.Expr, dtype: pl.DataType, other: pl.DataType) -> pl.Expr:
    """A part of a key in a form that equals that of the other side, which is of the same kind, for equal values."""
    if dtype == pl.Null:
        return _linked(expr.cast(other), other, other) if other != pl.Null else expr.cast(pl.Int64)
    if dtype.is_integer():
        wide = any(t in (pl.Int128, pl.UInt128, pl.UInt64) for t in (dtype, other))
        return expr.cast(pl.String) if wide else expr.cast(pl.Int64)
    if isinstance(dtype, pl.Datetime) and isinstance(other, pl.Datetime) and dtype.time_unit != other.time_unit:
        per_unit = {"ms": 1_000_000, "us": 1_000, "ns": 1}[dtype.time_unit]
        return (expr.to_physical().cast(pl.Int128) * per_unit).cast(pl.String)
    return comparable(expr, dtype)


def _changed() -> DataError:
    return DataError(
        "the data changed while it was checked",
        code="data.changed",
        fix="check a copy that nothing else writes to",
    )

"""Which rows of a table stay: unchanged ones once, the last per key, none that the source has deleted.

Exact and in bounded memory: rows are known by file and number; DuckDB compares them, spilling what does not fit; files
that lose rows are written anew under another name. Rows in a later file, and later in a file, are later rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from engine.duck import connect, literal
from engine.errors import SourceError, is_interrupt
from engine.frames import column as exactly
from engine.landing import files
from engine.spec import Deduplicate
from engine.types import ISO_MOMENT

_HELD = -(2**31)  # the number of all files of rows set aside earlier; of those set aside now: -1, -2, …
_ENDED = _HELD + 1  # of rows that are held no more
_BLANKS = r"^\s+|\s+$"
_NOT_MARKS = ("", "0", "f", "false", "n", "no")


@dataclass
class Merged:
    """A table's files, in order, and how many rows went.

    Attributes:
        unchanged: new rows that had landed before as they are.
        outranked: new rows that another row of their key outranks.
        replaced: rows landed before that a new one outranks.
        deleted: rows that the source no longer has, or marks as deleted.
        aside: of those that were set aside now, the rows that are held already, by number of the file.
    """

    files: list[Path]
    unchanged: int = 0
    outranked: int = 0
    replaced: int = 0
    deleted: int = 0
    aside: dict[int, pl.Series] = field(default_factory=dict)


@dataclass
class Merge:
    """A table in the making: what had landed before, then what is new; all of one schema.

    Attributes:
        old: files of the table so far; empty for a full read.
        new: files of what was read now.
        folder: where new files go.
        name: the source's.
        rule: the key and order by which one row per key stays; None: all stay.
        order_by: what orders the rows of a key, where the rule does not say; None: the later row.
        cursor: the column that new rows were found by, if they were.
        keys: files with the key columns of all rows that the source has now; None: not known.
        tombstone: the column that marks a row as deleted.
        held: rows set aside earlier, which have landed before as well.
        ended: such that were mended or given up since.
        aside: rows of what was read now that were set aside; only compared with ``held`` and ``ended``.
        earlier: whether the new rows are older than those that had landed: rows taken back from where they were set
            aside, which are all to stay unless their key has a later one.
        repeats: whether a new row that equals one landed before may be that one, read again.
        gained: columns that only the new rows came with.
        lost: columns that only the old ones have values of.
    """

    old: Sequence[Path]
    new: Sequence[Path]
    folder: Path
    name: str
    memory_limit: str
    rule: Deduplicate | None = None
    order_by: str | None = None
    cursor: str | None = None
    keys: Sequence[Path] | None = None
    tombstone: str | None = None
    held: Sequence[Path] = ()
    ended: Sequence[Path] = ()
    aside: Sequence[Path] = ()
    earlier: bool = False
    repeats: bool = True
    gained: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    _connection: Any = field(default=None, repr=False)

    def run(self) -> Merged:
        """The merged table.

        Raises:
            SourceError: the order of rows cannot be told, or there is no room to find it out.
        """
        self.paths = [*self.old, *self.new]
        self.first_new = len(self.old)
        self.schema = files.schema(self.paths[0])
        merged = Merged(self.paths)
        compare = self.repeats and bool(self.old) and bool(self.new) and not self.earlier
        if not compare and not self.rule and not self.tombstone and self.keys is None:
            return merged
        spill = self.folder / "spill"
        with worded(self.name), connect(self.memory_limit, spill) as self._connection:
            self._sql("CREATE TEMP TABLE removed (file INTEGER, row BIGINT)")
            self._sql("CREATE TEMP TABLE repeats_held (file INTEGER, row BIGINT)")
            if compare:
                merged.unchanged, merged.replaced = self._remove_repeated()
                if self.rule and self.cursor is None and self.keys is not None:
                    merged.replaced += self._remove_keyless(self.rule)
            if self.rule:
                with self._rows(self.rule):
                    merged.outranked, replaced = self._remove_outranked(self.rule)
                    merged.replaced += replaced
                    if self.keys is not None and self.old:
                        merged.deleted += self._remove_deleted(self.rule)
                    if self.tombstone:
                        merged.deleted += self._remove_marked()
            merged.aside = {i: self._removed(-1 - i) for i in range(len(self.aside))}
            if merged.unchanged + merged.outranked + merged.replaced + merged.deleted:
                merged.files = self._without_removed()
        return merged

    def _sql(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return found

    def _count(self, query: str) -> int:
        """How many rows a statement inserted."""
        return int(self._sql(query)[0][0])

    # --- rows as they are -------------------------------------------------------------------------------------------

    def _remove_repeated(self) -> tuple[int, int]:
        """New rows that equal one landed before; each of those stands for one, where it has a key for all.

        A column that only one side came with tells no rows apart: where the new rows gained one, they stay, and the
        rows that they repeat go.

        Returns:
            How many new and how many old rows went.
        """
        old = self._overlapping(self.old)
        held, ended = self._overlapping(self.held), self._overlapping(self.ended)
        if not old and not held and not ended:
            return 0, 0
        numbers = {path: i for i, path in enumerate(self.paths)}
        fresh = [(numbers[path], path) for path in self.new] + [(-1 - i, path) for i, path in enumerate(self.aside)]
        stale = [(numbers[path], path) for path in old] + [(_HELD, path) for path in held]
        stale += [(_ENDED, path) for path in ended]
        views = {"fresh": self._numbered(fresh), "stale": self._numbered(stale)}
        for name, path in views.items():
            self._sql(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({literal(unglobbed(path))})")
        every = [f"c{i}" for i in range(len(self.schema))]
        unchanged, replaced = self._repeats("fresh", "stale", every), 0
        shared = [f"c{i}" for i, name in enumerate(self.schema) if name not in self.gained | self.lost]
        if 0 < len(shared) < len(every):
            whole = ", ".join(every)
            for name, other in (("fresh", "stale"), ("stale", "fresh")):
                alone = f"SELECT * FROM {name} WHERE hash({whole}) NOT IN (SELECT hash({whole}) FROM {other})"
                alone += f" AND file > {_ENDED}" if self.gained else ""
                self._sql(f"CREATE TEMP TABLE other_{name} AS {alone}")
            if self.gained:
                replaced = self._repeats("other_stale", "other_fresh", shared)
            else:
                unchanged += self._repeats("other_fresh", "other_stale", shared)
            self._sql("DROP TABLE other_fresh; DROP TABLE other_stale")
        self._sql("DROP VIEW fresh; DROP VIEW stale")
        for path in views.values():
            path.unlink()
        return unchanged, replaced

    def _repeats(self, going: str, staying: str, columns: Sequence[str]) -> int:
        """Removes the rows of ``going`` that equal one of ``staying`` in all ``columns``."""
        listed = ", ".join(columns)
        replaces = going.endswith("stale")
        self._sql(f"CREATE TEMP TABLE hashes AS SELECT DISTINCT hash({listed}) AS h FROM {going}")
        self._sql(
            f"CREATE TEMP TABLE counted AS SELECT {listed}, count(*) AS n, "
            f"bool_or(file = {_HELD}) AND max(file) <= {_ENDED} AS held FROM {staying} "
            f"WHERE hash({listed}) IN (SELECT h FROM hashes) AND {self._compared(replaces)} GROUP BY ALL"
        )
        same = " AND ".join(f"f.{c} IS NOT DISTINCT FROM o.{c}" for c in columns)
        stands_for = f"f.k <= o.n OR {self._filled(self.rule, 'f')}" if self.rule and not replaces else "f.k <= o.n"
        self._sql(
            f"CREATE TEMP TABLE repeated AS SELECT file, row, held FROM (SELECT *, row_number() OVER (PARTITION BY "
            f"{listed} ORDER BY file, row) AS k FROM {going} WHERE hash({listed}) IN "
            f"(SELECT hash({listed}) FROM counted)) AS f JOIN counted AS o ON {same} WHERE {stands_for}"
        )
        found = self._count("INSERT INTO removed SELECT file, row FROM repeated")
        self._sql("INSERT INTO repeats_held SELECT file, row FROM repeated WHERE held")
        self._sql("DROP TABLE repeated; DROP TABLE counted; DROP TABLE hashes")
        return found

    def _compared(self, replaces: bool) -> str:
        """Which rows are compared: where a new row replaces an old one, those with a key are told apart by it; where
        all is read, those without one are not compared, as the new ones replace the old (`_remove_keyless`)."""
        if not self.rule:
            return "true"
        filled = " AND ".join(f"c{list(self.schema).index(key)} IS NOT NULL" for key in self.rule.keys)
        if replaces:
            return f"NOT ({filled})"
        return f"({filled} OR file <= {_ENDED})" if self.cursor is None and self.keys is not None else "true"

    def _remove_keyless(self, rule: Deduplicate) -> int:
        """Old rows with a null in their key, where everything was read: what there is of them came anew."""
        gone = 0
        index = files.index_name(self.schema)
        null = pl.any_horizontal(*(_known(key, self.schema[key]).is_null() for key in rule.keys))
        for number, path in enumerate(self.old):
            rows = files.scan(path, row_index=index).filter(null).select(pl.col(index).cast(pl.Int64).alias("row"))
            found = rows.collect(engine="streaming")
            self._connection.register("keyless", found.to_arrow())
            gone += self._count(f"INSERT INTO removed SELECT {number}, row FROM keyless")
            self._connection.unregister("keyless")
        return gone

    def _filled(self, rule: Deduplicate, table: str) -> str:
        """That no column of a row's key is null; its columns by position."""
        names = list(self.schema)
        known = []
        for key in rule.keys:
            column = f"{table}.c{names.index(key)}"
            known.append(f"{column} IS NOT NULL" + (f" AND NOT isnan({column})" if self.schema[key].is_float() else ""))
        return f"({' AND '.join(known)})"

    def _numbered(self, numbered: Sequence[tuple[int, Path]]) -> Path:
        """Rows with their place, in one file; columns by position, since SQL folds their case."""
        path = files.new_path(self.folder, "numbered")
        index = files.index_name(self.schema)
        columns = {f"c{i}": exactly(column) for i, column in enumerate(self.schema)}
        pl.concat(
            files.scan(file, row_index=index).select(
                pl.lit(i, pl.Int32).alias("file"), pl.col(index).cast(pl.Int64).alias("row"), **columns
            )
            for i, file in numbered
        ).sink_parquet(path, compression="lz4")
        return path

    def _overlapping(self, paths: Sequence[Path]) -> list[Path]:
        """Those files that may hold a row equal to a new one, by the cursor's range in their footers."""
        if self.cursor is None or not paths:
            return list(paths)
        span = pl.concat([files.scan(p).select(exactly(self.cursor)) for p in (*self.new, *self.aside)])
        cursor = exactly(self.cursor)
        if self.schema[self.cursor].is_float() and span.select(cursor.is_nan().any()).collect().item():
            return list(paths)  # footers say nothing of NaN
        low, nulls = span.select(cursor.min().alias("low"), cursor.null_count().alias("nulls")).collect().row(0)
        return [path for path in paths if _may_reach(path, list(self.schema).index(self.cursor), low, nulls)]

    # --- rows by key ------------------------------------------------------------------------------------------------

    @contextmanager
    def _rows(self, rule: Deduplicate) -> Iterator[None]:
        """The table ``rows``: file, row, key, rank and mark of every row."""
        path = files.new_path(self.folder, "rows")
        keys = {f"key{i}": _known(c, self.schema[c]) for i, c in enumerate(rule.keys)}
        order_by = rule.order_by or self.order_by
        rank = {"rank": _known(order_by, self.schema[order_by])} if order_by else {}
        mark = {"marked": _is_marked(self.tombstone, self.schema[self.tombstone])} if self.tombstone else {}
        index = files.index_name(self.schema)
        pl.concat(
            files.scan(file, row_index=index).select(
                pl.lit(i, pl.Int32).alias("file"), pl.col(index).cast(pl.Int64).alias("row"), **keys, **rank, **mark
            )
            for i, file in enumerate(self.paths)
        ).sink_parquet(path)
        self.key_names = list(keys)
        self._sql(f"CREATE TEMP VIEW rows AS SELECT * FROM read_parquet({literal(unglobbed(path))})")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _remove_outranked(self, rule: Deduplicate) -> tuple[int, int]:
        """All rows but the last of each key: largest ``order_by`` (null is smallest), then the later row.

        A row that was read again as it had landed (it is removed by now) is as late as it was read: where it is the
        last, the one that had landed stays; where that is held aside, none does. What stands in the place of a row that
        was mended stays too.
        """
        filled = " AND ".join(f"{key} IS NOT NULL" for key in self.key_names)
        listed = ", ".join(self.key_names)
        by = f"{f'(file < {self.first_new}) DESC, ' if self.earlier else ''}file DESC, row DESC"
        if order_by := rule.order_by or self.order_by:
            by = f"{self._rank(order_by, self.schema[order_by])} DESC NULLS LAST, {by}"
        unranked = "false"
        if order_by and not rule.order_by and self.old and not self.earlier:
            # Of the cursor's order a row that has none now says nothing, but that it is as it was read.
            unranked = f"bool_and(rank IS NULL) FILTER (WHERE file >= {self.first_new}) OVER (PARTITION BY {listed})"
            by = f"(unranked AND file >= {self.first_new}) DESC, {by}"
        concerned = ""
        if self.old:  # only the keys that were read now can have changed
            concerned = f"AND ({listed}) IN (SELECT ({listed}) FROM rows WHERE file >= {self.first_new}) "
        self._sql(
            "CREATE TEMP TABLE outranked AS SELECT file, row FROM (SELECT *, row_number() OVER ranked AS place, "
            "first_value(again AND NOT held) OVER ranked AS stays "
            f"FROM (SELECT *, {unranked} AS unranked FROM (SELECT rows.*, removed.row IS NOT NULL AS again, "
            "repeats_held.row IS NOT NULL AS held FROM rows LEFT JOIN removed USING (file, row) "
            f"LEFT JOIN repeats_held USING (file, row)) WHERE {filled} {concerned}) "
            f"WINDOW ranked AS (PARTITION BY {listed} ORDER BY {by})) "
            f"WHERE place > 1 AND NOT again AND NOT (stays AND file < {self.first_new})"
        )
        [(new, old)] = self._sql(
            f"SELECT count(*) FILTER (WHERE file >= {self.first_new}), count(*) FILTER (WHERE file < {self.first_new}) "
            "FROM outranked"
        )
        self._sql("INSERT INTO removed SELECT file, row FROM outranked; DROP TABLE outranked")
        return int(new), int(old)

    def _remove_deleted(self, rule: Deduplicate) -> int:
        """Rows landed before whose key the source no longer has; a null in the key is no key."""
        schema = files.schema(self.keys[0]) if self.keys else {}
        listed = ", ".join(self.key_names)
        path = files.new_path(self.folder, "known")
        pl.concat(
            files.scan(file).select(
                _known(c, schema[c]).cast(self.schema[c]).alias(key)
                for c, key in zip(rule.keys, self.key_names, strict=True)
            )
            for file in self.keys or ()
        ).sink_parquet(path)
        filled = " AND ".join(f"{key} IS NOT NULL" for key in self.key_names)
        try:
            return self._count(
                "INSERT INTO removed SELECT file, row FROM rows ANTI JOIN removed USING (file, row) "
                f"ANTI JOIN read_parquet({literal(unglobbed(path))}) AS known USING ({listed}) "
                f"WHERE file < {self.first_new} AND {filled}"
            )
        finally:
            path.unlink(missing_ok=True)

    def _remove_marked(self) -> int:
        return self._count(
            "INSERT INTO removed SELECT file, row FROM rows ANTI JOIN removed USING (file, row) WHERE marked"
        )

    def _rank(self, column: str, dtype: pl.DataType) -> str:
        """What rows are ordered by: moments where the texts are moments (blank is null), else the values themselves."""
        if dtype != pl.String:
            return "rank"
        text = f"nullif(regexp_replace(rank, {literal(_BLANKS)}, '', 'g'), '')"
        moment = f"TRY_CAST(CASE WHEN regexp_matches({text}, {literal(ISO_MOMENT)}) THEN {text} END AS TIMESTAMPTZ)"
        [(texts, moments, odd)] = self._sql(
            f"SELECT count({text}), count({moment}), min({text}) FILTER (WHERE {moment} IS NULL) FROM rows"
        )
        if 0 < moments < texts:
            raise SourceError(
                f"order_by: {texts - moments} of the {texts} values of {column!r} are no dates or timestamps while the "
                f"others are, for example {odd!r}",
                code="source.unreadable_order",
                where=f"sources.{self.name}",
                allowed="ISO 8601 texts, or texts of which none is one",
                fix="mend them in the source, or order by another column",
            )
        return moment if moments else text

    # --- what stays -------------------------------------------------------------------------------------------------

    def _without_removed(self) -> list[Path]:
        """The files without the removed rows: those that lost some as copies, those that lost all not at all."""
        counts = dict(self._sql("SELECT file, count(*) FROM removed GROUP BY file"))
        kept = []
        for number, path in enumerate(self.paths):
            gone = counts.get(number, 0)
            if gone == 0:
                kept.append(path)
            elif gone < pq.read_metadata(path).num_rows:
                kept.append(self._copy_without(number, path))
        return kept or [files.empty(self.schema, self.folder)]

    def _copy_without(self, number: int, path: Path) -> Path:
        return files.without(path, self._removed(number), self.folder)

    def _removed(self, number: int) -> pl.Series:
        rows = self._connection.sql(f"SELECT row FROM removed WHERE file = {number}").to_arrow_table()
        return pl.DataFrame(rows)["row"]


@contextmanager
def worded(name: str) -> Iterator[None]:
    """Turns DuckDB's errors into one about the source ``name``."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from None
        raise SourceError(
            f"the rows could not be compared: {str(error).splitlines()[0]}",
            code="source.deduplicate",
            where=f"sources.{name}",
            fix="raise memory_limit, or make room where workdir is",
        ) from None


def unglobbed(path: Path) -> str:
    """A path that DuckDB does not take for a pattern."""
    text = str(path)
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _may_reach(path: Path, column: int, low: Any, nulls: int) -> bool:
    """Whether a file may hold a value of at least ``low``, or (where there are new ones) a null."""
    footer = pq.read_metadata(path)
    for i in range(footer.num_row_groups):
        known = footer.row_group(i).column(column).statistics
        if known is None or not known.has_min_max or not known.has_null_count:
            return True
        if nulls and known.null_count:
            return True
        try:
            if low is not None and known.max >= low:
                return True
        except TypeError:
            return True
    return False


def _is_marked(column: str, dtype: pl.DataType) -> pl.Expr:
    """Anything but null, false or 0, also as texts."""
    expr = exactly(column)
    if dtype == pl.Boolean:
        return expr.fill_null(value=False)
    if dtype.is_numeric():
        return (expr != 0).fill_null(value=False)
    if dtype == pl.String:
        return (~expr.str.strip_chars().str.to_lowercase().is_in(_NOT_MARKS)).fill_null(value=False)
    return expr.is_not_null()


def _known(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column in which NaN is null: a row with a null in its key is nobody's duplicate."""
    return exactly(column).fill_nan(None) if dtype.is_float() else exactly(column)

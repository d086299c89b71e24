"""The newest row of each entity, out of published files, in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.duck import connect, identifier, literal
from engine.errors import SinkError
from engine.sinks.feast import OfflineView

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_CELLS = 400_000  # of a batch
_BYTES = 64 * 1024 * 1024
_STAMPS = ("event_timestamp", "created_timestamp")


def newest(
    view: OfflineView,
    paths: Sequence[Path],
    *,
    memory_limit: str,
    spill: Path,
    after: Any = None,
    among: Sequence[Any] | None = None,
) -> Generator[pl.DataFrame, None, None]:
    """Batches of a view's newest rows in these files, by key; of rows of one moment the one created last.

    Args:
        after: only keys beyond this one.
        among: only these keys.

    Raises:
        SinkError: a file cannot be read.
    """
    names = [name for name, _ in view.features]
    key = ", ".join(map(identifier, view.key_names))
    columns = ", ".join(identifier(name) for name in (*view.key_names, *names, *_STAMPS))
    where = "true"
    if after is not None:
        where = f"({key}) > {_value(after)}"
    elif among is not None:
        where = f"({key}) IN ({', '.join(map(_value, among)) or 'NULL'})"
    rows = max(1_000, _CELLS // (len(names) + 1))
    with closing(connect(memory_limit, spill)) as database, reading(view):
        sql = _query(database, paths, key, columns, where, among)
        reader: pa.RecordBatchReader = database.sql(sql).to_arrow_reader(rows)
        for batch in reader:
            yield from _parts(_frame(batch))


@contextmanager
def reading(view: OfflineView) -> Iterator[None]:
    """Whatever goes wrong while the published files of a view are read is one error.

    Raises:
        SinkError: it did.
    """
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise SinkError(
            f"the published files of {view.name} cannot be read: {str(error).strip().partition(chr(10))[0]}",
            code="online.unreadable",
            where=str(view.path),
            fix="`maestro verify` names what is amiss; publish those as-ofs again",
        ) from None


def _query(
    database: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    key: str,
    columns: str,
    where: str,
    among: Sequence[Any] | None,
) -> str:
    """The newest rows, by key. Where one file is newer than all others, as the last of many as-ofs is, its rows are: of
    the others only the keys are looked at, and then the rows of those that it lacks."""
    last = _last(database, paths)
    older = [path for path in paths if path != last]
    if last is None:
        return f"{_latest(_scan(paths), key, columns, where)} ORDER BY {key}"
    newest = f"SELECT {columns} FROM {_scan([last])} WHERE {where}"
    if among is not None and _count(database, newest) == len(among):
        return f"{newest} ORDER BY {key}"
    if older:
        keys = f"(SELECT {key} FROM {_scan(older)} WHERE {where})"
        database.execute(
            f"CREATE TEMP TABLE absent AS SELECT DISTINCT {key} FROM {keys} ANTI JOIN {_scan([last])} USING ({key})"
        )
    if not older or not _count(database, "FROM absent"):
        return newest if _is_in_order(database, last, key) else f"{newest} ORDER BY {key}"
    lacking = f"(SELECT {columns} FROM {_scan(older)} SEMI JOIN absent USING ({key}))"
    return f"{newest} UNION ALL ({_latest(lacking, key, columns, where)}) ORDER BY {key}"


def _is_in_order(database: duckdb.DuckDBPyConnection, path: Path, key: str) -> bool:
    """Whether a file has its rows by key, as the engine writes them, so that they need not be sorted and held for it;
    they come in the order of the file then."""
    database.execute("SET preserve_insertion_order = true")
    ascends = f"SELECT ({key}) > lag(({key})) OVER () AS ascends FROM {_scan([path])}"
    return not _count(database, f"FROM ({ascends}) WHERE NOT ascends")


def _latest(scan: str, key: str, columns: str, where: str) -> str:
    latest = ", ".join(f"{stamp} DESC" for stamp in _STAMPS)
    newest = f"row_number() OVER (PARTITION BY {key} ORDER BY {latest}) = 1"
    return f"SELECT {columns} FROM {scan} WHERE {where} QUALIFY {newest}"


def _last(database: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Path | None:
    """The file of one moment that is later than all moments of the others, by what their footers say."""
    found = database.execute(
        "SELECT file_name, epoch_us(min(stats_min_value::timestamptz)), epoch_us(max(stats_max_value::timestamptz)), "
        "bool_and(stats_min_value IS NOT NULL AND stats_max_value IS NOT NULL) "
        f"FROM parquet_metadata({_files(paths)}) WHERE path_in_schema = 'event_timestamp' GROUP BY file_name"
    ).fetchall()
    if len(found) < len(paths) or not all(told for *_, told in found):
        return None
    file, low, high, _ = max(found, key=lambda of: of[2])
    return Path(file) if low == high and sum(of == high for _, _, of, _ in found) == 1 else None


def _scan(paths: Sequence[Path]) -> str:
    return f"read_parquet({_files(paths)}, hive_partitioning = false)"


def _files(paths: Sequence[Path]) -> str:
    return f"[{', '.join(literal(str(path)) for path in paths)}]"


def _count(database: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0][0])


def sample(view: OfflineView, paths: Sequence[Path], count: int) -> list[Any]:
    """Some keys of these files, always the same ones."""
    key = ", ".join(map(identifier, view.key_names))
    # A file has a key once, so that the first rows by hash hold the first keys.
    first = f"SELECT {key} FROM {_scan(paths)} ORDER BY hash({key}) LIMIT {count * len(paths)}"
    sql = f"SELECT DISTINCT {key} FROM ({first}) ORDER BY hash({key}) LIMIT ?"
    with closing(connect()) as database:
        found = database.execute(sql, [count]).fetchall()
    return [list(key) if view.more_keys else key[0] for key in found]


def keys_of(view: OfflineView, rows: pl.DataFrame) -> list[Any]:
    """The key of each row; a list, where it is compound."""
    if not view.more_keys:
        return rows[view.key].to_list()
    return [list(key) for key in rows.select(view.key_names).iter_rows()]


def _value(key: Any) -> str:
    if isinstance(key, list):
        return f"({', '.join(map(_value, key))})"
    if not isinstance(key, str):
        return str(int(key))
    return "(" + " || chr(0) || ".join(map(literal, key.split("\0"))) + ")"


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(batch))
    return frame.with_columns(pl.col(_STAMPS).dt.cast_time_unit("us").dt.replace_time_zone("UTC"))


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pieces that are not large."""
    size = frame.estimated_size()
    pieces = int(size) // _BYTES + 1
    yield from frame.iter_slices(max(1, -(-frame.height // pieces)))

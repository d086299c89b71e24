"""The newest row of each entity, out of published files, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.duck import connect, identifier, literal
from engine.errors import SinkError
from engine.sinks.feast import OfflineView

if TYPE_CHECKING:
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
) -> Iterator[pl.DataFrame]:
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
    files = ", ".join(literal(str(path)) for path in paths)
    sql = f"SELECT {columns} FROM read_parquet([{files}], hive_partitioning = false)"
    if after is not None:
        sql += f" WHERE ({key}) > {_value(after)}"
    elif among is not None:
        sql += f" WHERE ({key}) IN ({', '.join(map(_value, among)) or 'NULL'})"
    if len(paths) > 1:
        latest = ", ".join(f"{stamp} DESC" for stamp in _STAMPS)
        sql += f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {latest}) = 1"
    rows = max(1_000, _CELLS // (len(names) + 1))
    database = connect(memory_limit, spill)
    try:
        reader: pa.RecordBatchReader = database.sql(f"{sql} ORDER BY {key}").to_arrow_reader(rows)
        for batch in reader:
            yield from _parts(_frame(batch))
    except _failures() as error:
        raise SinkError(
            f"the published files of {view.name} cannot be read: {str(error).strip().partition(chr(10))[0]}",
            code="online.unreadable",
            where=str(view.path),
            fix="`maestro verify` names what is amiss; publish those as-ofs again",
        ) from None
    finally:
        database.close()


def sample(view: OfflineView, paths: Sequence[Path], count: int) -> list[Any]:
    """Some keys of these files, always the same ones."""
    files = ", ".join(literal(str(path)) for path in paths)
    key = ", ".join(map(identifier, view.key_names))
    sql = f"SELECT DISTINCT {key} FROM read_parquet([{files}], hive_partitioning = false) ORDER BY hash({key}) LIMIT ?"
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


def _failures() -> tuple[type[Exception], ...]:
    import duckdb

    return (duckdb.Error, OSError)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(batch))
    return frame.with_columns(pl.col(_STAMPS).dt.cast_time_unit("us").dt.replace_time_zone("UTC"))


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pieces that are not large."""
    size = frame.estimated_size()
    pieces = int(size) // _BYTES + 1
    yield from frame.iter_slices(max(1, -(-frame.height // pieces)))

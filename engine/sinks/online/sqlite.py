"""Feast's SQLite online store: one table per view, one row per entity and feature.

Rows are bound and written in native code. An event timestamp is stored in whole seconds, and as if UTC were local
time, as Feast does: TZ must be the same for whoever writes and reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import adbc_driver_manager
import adbc_driver_sqlite
import numpy as np
import polars as pl
import pyarrow as pa

from engine.duck import identifier
from engine.errors import SinkError
from engine.sinks.feast import OfflineView
from engine.sinks.online import keys, values
from engine.sinks.online.arrays import indices, to_arrow
from engine.sinks.online.config import StoreConfig

_FAILURES = (adbc_driver_manager.Error, OSError)
_COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts")


class Store:
    """An open store; a context manager.

    Raises:
        SinkError: here and in all methods: the file cannot be used.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        try:
            config.path.parent.mkdir(parents=True, exist_ok=True)
            uri = f"file:{quote(bytes(config.path))}"
            self._database = adbc_driver_manager.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=uri)
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
            self._execute("PRAGMA busy_timeout = 10000")
            self._execute("PRAGMA cache_size = -65536")
        except _FAILURES as error:
            raise self._failed(error) from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(*_FAILURES):
            self._connection.close()
            self._database.close()

    def holds(self, view: OfflineView) -> bool:
        """Whether anything has been loaded of the view."""
        query = f"SELECT entity_key FROM {self._table(view)} LIMIT 1"
        with closing(adbc_driver_manager.AdbcStatement(self._connection)) as statement:
            try:
                statement.set_sql_query(query)
                handle, _ = statement.execute_query()
                with pa.RecordBatchReader._import_from_c(handle.address) as reader:
                    return bool(reader.read_all().num_rows)
            except adbc_driver_manager.Error as error:
                if "no such table" in str(error):
                    return False
                raise self._failed(error) from None

    def prepare(self, view: OfflineView, rows: pl.DataFrame) -> tuple[OfflineView, Any]:
        """The rows of the table."""
        return view, _cells(view, rows, self.config.key_version)

    def write(self, prepared: tuple[OfflineView, Any]) -> None:
        """Stores the newest rows of entities, all or none of them; what is stored and newer stays."""
        view, batch = prepared
        table = self._table(view)
        with self._transaction():
            self._execute(
                f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
                "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY (entity_key, feature_name))"
            )
            index = identifier(f"{self.config.project}_{view.name}_ek")
            self._execute(f"CREATE INDEX IF NOT EXISTS {index} ON {table} (entity_key)")
            changed = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])
            self._bound(
                f"INSERT INTO {table} ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT (entity_key, feature_name) DO UPDATE SET {changed} "
                f"WHERE excluded.event_ts >= {table}.event_ts",
                batch,
            )

    def stored(self, view: OfflineView) -> Iterator[Any]:
        """The keys that are stored, encoded, in Arrow arrays."""
        if not self.holds(view):
            return
        with closing(adbc_driver_manager.AdbcStatement(self._connection)) as statement:
            try:
                statement.set_sql_query(f"SELECT DISTINCT entity_key FROM {self._table(view)}")
                handle, _ = statement.execute_query()
                with pa.RecordBatchReader._import_from_c(handle.address) as reader:
                    for batch in reader:
                        yield to_arrow(pl.Series(pl.from_arrow(batch.column(0)), dtype=pl.Binary))
            except adbc_driver_manager.Error as error:
                raise self._failed(error) from None

    def remove(self, view: OfflineView, encoded: Any) -> int:
        """Removes what is stored for these keys, all or none of it; gives for how many."""
        if not self.holds(view):
            return 0
        table, there = self._table(view), "temp.maestro_gone"
        counting = f"SELECT count(*) FROM {there} WHERE key IN (SELECT entity_key FROM {table})"
        with self._transaction():
            self._execute(f"CREATE TEMP TABLE IF NOT EXISTS {there.partition('.')[2]} (key BLOB)")
            self._execute(f"DELETE FROM {there}")
            self._bound(f"INSERT INTO {there} VALUES (?)", pa.RecordBatch.from_arrays([encoded], names=["key"]))
            count = self._number(counting)
            self._execute(f"DELETE FROM {table} WHERE entity_key IN (SELECT key FROM {there})")
        return count

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or none of what is done within."""
        try:
            self._connection.set_autocommit(False)
            yield
            self._connection.commit()
        except _FAILURES as error:
            with suppress(*_FAILURES):
                self._connection.rollback()
            raise self._failed(error) from None
        finally:
            with suppress(*_FAILURES):
                self._connection.set_autocommit(True)

    def _bound(self, sql: str, batch: Any) -> None:
        with closing(adbc_driver_manager.AdbcStatement(self._connection)) as statement:
            statement.set_sql_query(sql)
            statement.prepare()
            schema, data = batch.__arrow_c_array__()
            statement.bind(data, schema)
            statement.execute_update()

    def _number(self, sql: str) -> int:
        with closing(adbc_driver_manager.AdbcStatement(self._connection)) as statement:
            statement.set_sql_query(sql)
            handle, _ = statement.execute_query()
            with pa.RecordBatchReader._import_from_c(handle.address) as reader:
                return int(reader.read_all().column(0)[0].as_py())

    def _table(self, view: OfflineView) -> str:
        return identifier(f"{self.config.project}_{view.name}")

    def _execute(self, sql: str) -> None:
        with closing(adbc_driver_manager.AdbcStatement(self._connection)) as statement:
            statement.set_sql_query(sql)
            statement.execute_update()

    def _failed(self, error: Exception) -> SinkError:
        text = str(error).strip().partition("\n")[0].rpartition("[SQLite] ")[2]
        return SinkError(
            f"the online store cannot be written: {text}",
            code="online.sqlite",
            where=str(self.config.path),
            fix="check that the file is a database of Feast's, that its folder can be written and has room; run again",
        )


def _cells(view: OfflineView, rows: pl.DataFrame, key_version: int) -> Any:
    """A row for each entity and feature, ordered by both, as the table's index is: appending to it is cheap."""
    features = sorted(name for name, _ in view.features)
    stored = pl.Series(keys.encode(rows.select(view.key_names), key_version))
    order = stored.arg_sort().to_numpy().astype(np.int64)
    count, width = len(order), len(features)
    by_entity = np.repeat(order, width)
    by_feature = np.tile(np.arange(width, dtype=np.int64), count)
    cells = indices(by_feature * count + by_entity)
    entities = indices(by_entity)
    texts = [values.text(rows[name]) for name in features]
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, count)
    columns = {
        "entity_key": to_arrow(stored).take(entities),
        "feature_name": to_arrow(pl.Series(features)).take(indices(by_feature)),
        "value": pa.concat_arrays([values.encode(rows[name]) for name in features]).take(cells),
        "value_text": pa.concat_arrays([to_arrow(nothing if t is None else t) for t in texts]).take(cells),
        "event_ts": to_arrow(_as_local(rows["event_timestamp"])).take(entities),
        "created_ts": to_arrow(_as_local(rows["created_timestamp"])).take(entities),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _as_local(moments: pl.Series) -> pl.Series:
    """Seconds since 1970 of UTC read as local time."""
    distinct = moments.unique()
    naive = [moment.astimezone(UTC).replace(tzinfo=None) for moment in distinct.to_list()]
    return moments.replace_strict(distinct, [int(datetime.timestamp(n)) for n in naive], return_dtype=pl.Int64)

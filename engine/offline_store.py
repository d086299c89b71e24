"""The engine's point-in-time join as a Feast offline store; in ``feature_store.yaml``:

    offline_store:
      type: engine.offline_store.MaestroOfflineStore
      memory_limit: 512MiB  # optional
      spill: /a/folder      # optional: for temporary files

It reads Parquet files, here or in S3, whoever wrote them. Feast finds it by its name, so this module imports Feast.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, FileSource, OnDemandFeatureView
from feast.errors import EntityTimestampInferenceException, SavedDatasetLocationAlreadyExists
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import Field

from engine.duck import connect, identifier, literal
from engine.errors import SinkError, UsageError
from engine.features.asof import moment
from engine.features.ways import TRAINED
from engine.frames import column, reading, to_lazy
from engine.join import Join, View
from engine.moments import MOMENT, to_moment
from engine.offline_source import Source
from engine.types import DEFAULT_MEMORY_LIMIT, epoch_microseconds

_STAMP = "event_timestamp"
_BATCH = 100_000  # rows
_PLAIN = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}


class MaestroOfflineStoreConfig(FeastConfigBaseModel):
    """The section ``offline_store``.

    Attributes:
        memory_limit: such as ``512MiB``; a frame in memory, given or asked for, comes on top.
        spill: a folder for temporary files; the system's, where it is not named.
        mixed_fits: whether the values of a feature may have been made with several fits.
    """

    type: str = "engine.offline_store.MaestroOfflineStore"
    memory_limit: str = Field(default=DEFAULT_MEMORY_LIMIT, pattern=r"^[0-9]+(MB|GB|MiB|GiB)$")
    spill: str | None = None
    mixed_fits: bool = False


class MaestroRetrievalJob(RetrievalJob):
    """Rows that are made when they are asked for: as a whole, or streamed to Parquet by `persist`.

    Attributes:
        fits: view: feature: the fit that its values were made with, once they have been read; "" is none.
    """

    def __init__(
        self,
        slices: Callable[[], Iterator[pa.Table]],
        config: RepoConfig,
        *,
        full: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        fits: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self._slices, self._config, self.fits = slices, config, fits if fits is not None else {}
        self._full, self._on_demand, self._metadata = full, list(on_demand), metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        whole = pa.concat_tables(list(self._slices()))
        return whole.replace_schema_metadata({**(whole.schema.metadata or {}), TRAINED: json.dumps(self.fits)})

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(
        self,
        storage: Any,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002
    ) -> None:
        """Writes the rows, slice by slice, to the Parquet file or the folder of a ``SavedDatasetFileStorage``.

        A file appears as a whole; what lay in the folder is gone then.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise UsageError(
                f"cannot write to {type(storage).__name__}",
                code="offline.storage",
                where="storage",
                allowed="SavedDatasetFileStorage",
                fix="name a Parquet file, or a folder, here or in S3",
            )
        from pyarrow import fs

        uri = storage.file_options.uri
        place = FileSource.get_uri_for_file_path(self._config.repo_path, uri)
        endpoint = storage.file_options.s3_endpoint_override
        system, path = FileSource.create_filesystem_and_path(place, endpoint or "")
        system = system or fs.LocalFileSystem()
        there = system.get_file_info(path)
        if there.type != fs.FileType.NotFound and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=uri)
        single = path.endswith(".parquet")
        before = [] if single or there.type != fs.FileType.Directory else _listed(system, path)
        folder = path.rpartition("/")[0] if single else path
        with tempfile.TemporaryDirectory(prefix="maestro-", dir=_spill(self._config)) as own:
            staged = Path(own) / "rows.parquet"
            self._write(staged)
            system.create_dir(folder or ".", recursive=True)
            target = path if single else f"{path}/part-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.parquet"
            hidden = f"{folder or '.'}/.{target.rpartition('/')[2]}"
            local = isinstance(system, fs.LocalFileSystem)
            try:
                with staged.open("rb") as rows, system.open_output_stream(hidden if local else target) as out:
                    shutil.copyfileobj(rows, out, 2**24)
                if local:
                    Path(hidden).replace(target)
            except OSError as error:
                raise SinkError(
                    f"cannot write: {error}",
                    code="offline.unwritable",
                    where=place,
                    fix="check path and rights; stores that are not AWS's may want AWS_REQUEST_CHECKSUM_CALCULATION="
                    "when_required in the environment",
                ) from None
        for name in before:
            system.delete_file(name)

    def _write(self, target: Path) -> None:
        writer = None
        try:
            for part in self._slices():
                made = MaestroRetrievalJob(
                    partial(iter, [part]),
                    self._config,
                    full=self._full,
                    on_demand=self._on_demand,
                    metadata=self._metadata,
                ).to_arrow()
                made = made.replace_schema_metadata(None)
                writer = writer or pq.ParquetWriter(target, made.schema)
                writer.write_table(made.cast(writer.schema))
            if writer is not None:
                writer.add_key_value_metadata({TRAINED: json.dumps(self.fits)})
        finally:
            if writer is not None:
                writer.close()


class MaestroOfflineStore(OfflineStore):
    """What Feast asks an offline store for; its own docstrings say what each method gives."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        own = None
        if entity_df is None:
            raise UsageError(
                "there are no entity rows",
                code="offline.entities",
                where="entity_df",
                allowed="a frame, or SQL that DuckDB understands",
                fix="name the keys and moments that features are wanted for",
            )
        if isinstance(entity_df, str):
            own = tempfile.mkdtemp(prefix="maestro-", dir=_spill(config))
            try:
                frame = _queried(entity_df, config, registry, project, Path(own))
            except BaseException:
                shutil.rmtree(own)
                raise
        else:
            frame = to_lazy(entity_df)
        known = filter_by_created_timestamp
        timestamp = _timestamp_of(frame.collect_schema())
        first, last = _range(frame, timestamp)

        fits: dict[str, dict[str, str]] = {}

        def slices() -> Iterator[pa.Table]:
            with tempfile.TemporaryDirectory(prefix="maestro-", dir=_spill(config)) as spill:
                views = [
                    _view(view, feature_refs, config, Path(spill) / str(i), full=full_feature_names, known=known)
                    for i, view in enumerate(feature_views)
                ]
                join = Join(
                    frame,
                    views,
                    timestamp=timestamp,
                    memory_limit=config.offline_store.memory_limit,
                    spill=Path(spill),
                    mixed=config.offline_store.mixed_fits,
                )
                for rows in join.slices([*join.schema, *join.names]):
                    yield _plain(rows.with_columns(_zoned(timestamp, join.schema[timestamp])))
                fits.update(join.fits)

        job = MaestroRetrievalJob(
            slices,
            config,
            full=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in frame.collect_schema().names() if name != timestamp],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
            fits=fits,
        )
        if own is not None:
            weakref.finalize(job, shutil.rmtree, own, ignore_errors=True)
        return job

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None,
        end_date: datetime | None,
    ) -> RetrievalJob:
        key = ", ".join(map(identifier, join_key_columns)) or "NULL"
        stamps = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        order = ", ".join(f"{identifier(stamp)} DESC NULLS LAST" for stamp in stamps)
        newest = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
        columns = [*feature_name_columns, *stamps]
        return _pulled(
            config, data_source, columns, timestamp_field, start_date, end_date, newest, keys=join_key_columns
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        stamps = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = [*feature_name_columns, *stamps]
        return _pulled(config, data_source, columns, timestamp_field, start_date, end_date, keys=join_key_columns)

    @staticmethod
    def write_logged_features(config: RepoConfig, data: Any, source: Any, logging_config: Any, registry: Any) -> None:
        from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

        DuckDBOfflineStore.write_logged_features(config, data, source, logging_config, registry)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

        DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)


def _view(view: Any, refs: Sequence[str], config: RepoConfig, folder: Path, *, full: bool, known: bool) -> View:
    """A view with the features that are asked of it, and their names in the result."""
    if view.batch_source is None:
        raise UsageError(
            f"{view.name} has no batch source", code="offline.source", where=view.name, fix="leave its features out"
        )
    source = Source(view.batch_source, config.repo_path, folder)
    called, prefix = view.projection.name_to_use(), view.projection.name_alias or view.name
    wanted = [name for view_name, _, name in (ref.partition(":") for ref in refs) if view_name == called]
    keys = {
        source.column(field.name): view.projection.join_key_map.get(field.name, field.name)
        for field in view.entity_columns
        if field.name != DUMMY_ENTITY_ID
    }
    features = {source.column(name): f"{prefix}__{name}" if full else name for name in dict.fromkeys(wanted)}
    return View(source.past(view, keys, list(features), known=known), features)


def _pulled(
    config: RepoConfig,
    data_source: Any,
    columns: Sequence[str],
    stamp: str,
    start: datetime | None,
    end: datetime | None,
    newest: str = "",
    *,
    keys: Sequence[str],
) -> RetrievalJob:
    """The rows of a source between two moments, both included."""
    columns = [name for name in dict.fromkeys([*keys, *columns]) if name != DUMMY_ENTITY_ID]
    chosen = [*map(identifier, columns), *([] if keys else [f"'' AS {identifier(DUMMY_ENTITY_ID)}"])]
    bounds = [
        f"epoch_us({moment(stamp)}) {sign} {epoch_microseconds(bound.astimezone(UTC))}"
        for sign, bound in ((">=", start), ("<=", end))
        if bound is not None
    ]

    def slices() -> Iterator[pa.Table]:
        with tempfile.TemporaryDirectory(prefix="maestro-", dir=_spill(config)) as folder:
            source = Source(data_source, config.repo_path, Path(folder) / "files")
            rows = source.scan(columns)
            sql = f"SELECT {', '.join(chosen)} FROM {rows} WHERE {' AND '.join(bounds) or 'true'} {newest}"
            with (
                closing(connect(config.offline_store.memory_limit, Path(folder) / "spill")) as database,
                reading(f"the files of {data_source.name}", "check them, and the columns of the feature view"),
            ):
                reader: pa.RecordBatchReader = database.sql(sql).to_arrow_reader(_BATCH)
                yield pa.Table.from_batches([], reader.schema)
                for batch in reader:
                    yield pa.Table.from_batches([batch])

    return MaestroRetrievalJob(slices, config)


def _queried(sql: str, config: RepoConfig, registry: Any, project: str, folder: Path) -> pl.LazyFrame:
    """What SQL gives in DuckDB, where the project's feature views are tables and files are found in the repo too."""
    views = {view.name: view for view in registry.list_feature_views(project) if view.name in sql}
    target = folder / "entities.parquet"
    with closing(connect(config.offline_store.memory_limit, folder / "spill")) as database:
        database.execute("SET preserve_insertion_order = true")
        if config.repo_path is not None:
            database.execute(f"SET file_search_path = {literal(str(config.repo_path))}")
        for name, view in views.items():
            source = Source(view.batch_source, config.repo_path, folder / name)
            mapped = [f"{identifier(n)} AS {identifier(m)}" for n, m in source.source.field_mapping.items()]
            renamed = f"* RENAME ({', '.join(mapped)})" if mapped else "*"
            database.execute(f"CREATE VIEW {identifier(name)} AS SELECT {renamed} FROM {source.scan([])}")
        with reading("the SQL of entity_df", "write SQL that DuckDB understands, over files or feature views"):
            database.execute(f"COPY ({sql.strip().rstrip(';')}) TO {literal(str(target))} (FORMAT parquet)")
    return pl.scan_parquet(target, hive_partitioning=False, glob=False)


def _timestamp_of(schema: Mapping[str, pl.DataType]) -> str:
    """The column of moments: Feast's own name for it, or the only one of that type."""
    moments = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    if _STAMP in schema:
        return _STAMP
    if len(moments) != 1:
        raise EntityTimestampInferenceException(_STAMP)
    return moments[0]


def _range(frame: pl.LazyFrame, timestamp: str) -> tuple[datetime | None, datetime | None]:
    moments = to_moment(column(timestamp), frame.collect_schema()[timestamp])
    first, last = frame.select(moments.min().alias("first"), moments.max().alias("last")).collect().row(0)
    return first, last


def _zoned(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column of moments with a zone, in the unit that it has."""
    if isinstance(dtype, pl.Datetime):
        moments = column(name)
        return moments.dt.replace_time_zone("UTC") if dtype.time_zone is None else moments.dt.convert_time_zone("UTC")
    return to_moment(column(name), dtype).cast(MOMENT)


def _plain(frame: pl.DataFrame) -> pa.Table:
    """With the Arrow types that Feast's own stores give."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(pa.schema([field.with_type(_plain_type(field.type)) for field in table.schema]))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return _PLAIN.get(kind, kind)


def _spill(config: RepoConfig) -> str | None:
    spill = config.offline_store.spill
    if spill is None:
        return None
    folder = Path(spill) if config.repo_path is None else config.repo_path / spill
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _listed(system: Any, path: str) -> list[str]:
    from pyarrow import fs

    found = system.get_file_info(fs.FileSelector(path, recursive=True))
    return [info.path for info in found if info.is_file and info.path.endswith(".parquet")]

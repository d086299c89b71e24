"""The seed's ingestion calls: one source into one Parquet file, without a pipeline around it."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from engine.errors import ConfigError, SourceError, UsageError
from engine.landing import LandedTable, Metrics, land
from engine.sinks.parquet import sync, unwritable
from engine.sources import open_source
from engine.spec import ApiSpec, IncrementalSpec, Pipeline, S3Spec, SourceSpec
from engine.types import DEFAULT_MEMORY_LIMIT

__all__ = [
    "APIIngestion",
    "DataSourceType",
    "DatabaseIngestion",
    "IngestionConfig",
    "IngestionMetrics",
    "S3Ingestion",
]

IngestionMetrics = Metrics


class DataSourceType(StrEnum):
    """The kinds of source."""

    DATABASE = "database"
    S3 = "s3"
    API = "api"


@dataclass(frozen=True)
class IngestionConfig:
    """What is read, and where it goes.

    Attributes:
        source_type: the kind of source.
        source_config: its keys, as in the pipeline file (``connection_string``, ``table``, ``column_mapping`` …).
        target_path: the Parquet file to write; replaced as a whole.
        batch_size: most rows in one batch handed on.
        max_retries: further attempts after a transient failure.
        timeout_seconds: for one request or one database read.
        validation_enabled: whether rows with a null in ``critical_columns`` are left out (and counted as failed).
        deduplication_enabled: whether ``deduplicate`` applies.
        schema_enforcement: whether ``required_columns`` must exist.

    Raises:
        UsageError: a value is not of its kind.
    """

    source_type: DataSourceType | str
    source_config: Mapping[str, Any] = field(repr=False)  # it may hold a password
    target_path: str | Path
    batch_size: int = 50_000
    max_retries: int = 3
    timeout_seconds: float = 300
    validation_enabled: bool = True
    deduplication_enabled: bool = True
    schema_enforcement: bool = True

    def __post_init__(self) -> None:
        expected: dict[str, tuple[Any, str]] = {
            "source_config": (Mapping, "a dict of keys and values"),
            "target_path": (str | PathLike, "a path"),
            "validation_enabled": (bool, "True or False"),
            "deduplication_enabled": (bool, "True or False"),
            "schema_enforcement": (bool, "True or False"),
        }
        for name, (kind, words) in expected.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or value == "":
                raise UsageError(
                    f"expected {words}, got {type(value).__name__}",  # the value itself may hold a password
                    code="ingestion.value",
                    where=name,
                    allowed=words,
                    fix=f"change {name} to {words}",
                )


class _Ingestion:
    """Reads one source into one Parquet file.

    Raises:
        ConfigError, UsageError: at construction, before anything is read.
    """

    source_type: ClassVar[DataSourceType]

    def __init__(self, config: IngestionConfig) -> None:
        for given in (config.source_type, config.source_config.get("type", self.source_type)):
            if given != self.source_type:
                raise UsageError(
                    f"{type(self).__name__} reads a source of type {self.source_type}, not {given}",
                    code="ingestion.source_type",
                    fix=f"set source_type=DataSourceType.{self.source_type.name}",
                )
        self.config = config
        self.spec = self._spec(config)
        self.metrics = Metrics()

    def run(self) -> Metrics:
        """Reads, maps, filters, deduplicates and writes ``target_path``; gives the metrics.

        The columns ``ingestion_timestamp`` (Datetime us UTC, when the run began) and ``source`` are added, and
        where they apply ``source_bucket`` and ``source_key``, or ``source_url`` (without query). The file appears
        whole or not at all; an earlier one stays until then.

        Raises:
            SourceError: the source cannot be read, or a required column is absent.
            SinkError: the target cannot be written.
        """
        target = Path(self.config.target_path).expanduser().resolve()
        started = datetime.now(UTC)
        try:
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder is there")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
                source = open_source("source", self.spec, Path.cwd())
                landed = land(
                    source,
                    self.spec,
                    Path(folder) / "chunks",
                    name="source",
                    memory_limit=DEFAULT_MEMORY_LIMIT,
                )
                staged = Path(folder) / target.name
                self._stamped(landed, started).sink_parquet(staged, compression="zstd", maintain_order=True)
                sync(staged)
                staged.replace(target)
                sync(target.parent)
        except (OSError, pl.exceptions.ComputeError) as error:
            raise unwritable(target, error, "target_path") from None
        self.metrics = landed.metrics
        return landed.metrics

    def _stamped(self, landed: LandedTable, started: datetime) -> pl.LazyFrame:
        columns: dict[str, Any] = {"ingestion_timestamp": started, "source": self.source_type.value}
        if isinstance(self.spec, S3Spec):
            columns |= {"source_bucket": self.spec.bucket, "source_key": self.spec.key}
        if isinstance(self.spec, ApiSpec):
            columns["source_url"] = open_source("source", self.spec, Path.cwd()).location
        dtypes = {"ingestion_timestamp": pl.Datetime("us", "UTC")}
        frame = landed.scan()
        if taken := [name for name in frame.collect_schema().names() if name in columns]:
            raise SourceError(
                f"the data has a column {taken[0]!r} of its own, which this would overwrite",
                code="source.column_clash",
                where="source_config",
                fix=f"give it another name: column_mapping={{{taken[0]!r}: 'source_{taken[0]}'}}",
            )
        return frame.with_columns(
            pl.lit(value, dtype=dtypes.get(name, pl.String)).alias(name) for name, value in columns.items()
        )

    def _spec(self, config: IngestionConfig) -> SourceSpec:
        """The declaration, as strict as in a pipeline."""
        keys = {
            "batch_size": config.batch_size,
            "max_retries": config.max_retries,
            "timeout_seconds": config.timeout_seconds,
            **config.source_config,
            "type": self.source_type.value,
        }
        try:
            spec = Pipeline(name="ingestion", sources={"source": keys}).sources["source"]
        except ConfigError as error:
            raise ConfigError([replace(p, path=self._place(p.path[2:])) for p in error.problems]) from None
        if isinstance(spec, IncrementalSpec) and spec.effective_mode != "full":
            raise UsageError(
                f"mode {spec.effective_mode} needs the ledger of a pipeline; this call reads everything, each time",
                code="ingestion.mode",
                where="source_config.mode" if spec.mode else "source_config.cursor",
                fix="remove mode and cursor, or declare a pipeline and use run_pipeline",
            )
        off: dict[str, Any] = {}
        if not config.validation_enabled:
            off["critical_columns"] = ()
        if not config.deduplication_enabled:
            off["deduplicate"] = None
        if not config.schema_enforcement:
            off["required_columns"] = ()
        return spec.model_copy(update=off)

    def _place(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Where a caller wrote a key of the source: in ``source_config``, or beside it."""
        beside = path[:1] in [("batch_size",), ("max_retries",), ("timeout_seconds",)]
        return path if beside and path[0] not in self.config.source_config else ("source_config", *path)


class DatabaseIngestion(_Ingestion):
    """A table or query of PostgreSQL, MySQL, SQLite or DuckDB into a Parquet file."""

    source_type = DataSourceType.DATABASE


class S3Ingestion(_Ingestion):
    """Objects of S3, MinIO or another store that speaks its protocol into a Parquet file."""

    source_type = DataSourceType.S3


class APIIngestion(_Ingestion):
    """A REST resource into a Parquet file."""

    source_type = DataSourceType.API

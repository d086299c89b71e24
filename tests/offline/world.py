"""A Feast repo over Parquet files that anyone may have written, and what a point-in-time join must give of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

T = datetime(2025, 3, 29, tzinfo=UTC)
HOUR, MICRO = timedelta(hours=1), timedelta(microseconds=1)
MOMENT = pl.Datetime("us", "UTC")
OURS = "engine.offline_store.MaestroOfflineStore"
STORES = (OURS, "duckdb", "dask")


@dataclass(frozen=True)
class Made:
    """A feature view over files.

    Attributes:
        rows: by file, each with the keys, ``at``, ``created`` and the features.
    """

    name: str
    keys: Mapping[str, Any]
    features: Mapping[str, Any]
    files: Sequence[Sequence[Mapping[str, Any]]]
    ttl: timedelta | None = None
    created: bool = True
    mapping: Mapping[str, str] = field(default_factory=dict)


def write(folder: Path, view: Made) -> None:
    """The files ``0.parquet``, ``1.parquet`` … of a folder named after the view."""
    schema = {**view.keys, **view.features, "at": MOMENT, **({"created": MOMENT} if view.created else {})}
    own = {mapped: name for name, mapped in view.mapping.items()}
    (folder / view.name).mkdir(parents=True)
    for number, rows in enumerate(view.files):
        frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")
        frame.rename(own, strict=False).write_parquet(folder / view.name / f"{number}.parquet")


def feast_type(dtype: Any) -> Any:
    from feast import types

    if isinstance(dtype, pl.List):
        return types.Array(feast_type(dtype.inner))
    if isinstance(dtype, pl.Datetime):
        return types.UnixTimestamp
    kind = dtype if isinstance(dtype, type) else type(dtype)
    return {
        pl.Int64: types.Int64,
        pl.Int32: types.Int32,
        pl.Float64: types.Float64,
        pl.Float32: types.Float32,
        pl.String: types.String,
        pl.Boolean: types.Bool,
        pl.Binary: types.Bytes,
    }[kind]


def defined(folder: Path, view: Made, path: str | None = None, **source: Any) -> Any:
    """The Feast feature view of files that lie in ``folder``, or elsewhere."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.data_format import ParquetFormat

    kinds = {"Int64": ValueType.INT64, "String": ValueType.STRING}
    names = {name: Entity(name=name, join_keys=[name], value_type=kinds[str(d)]) for name, d in view.keys.items()}
    return FeatureView(
        name=view.name,
        entities=list(names.values()),
        ttl=view.ttl,
        schema=[Field(name=n, dtype=feast_type(d)) for n, d in {**view.keys, **view.features}.items()],
        source=FileSource(
            name=f"{view.name}_source",
            path=path or str(folder / view.name),
            file_format=ParquetFormat(),
            timestamp_field="at",
            created_timestamp_column="created" if view.created else "",
            field_mapping=dict(view.mapping),
            **source,
        ),
    )


class Repo:
    """Feast repos that differ in their offline store alone, over the same views."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stores: dict[str, Any] = {}

    def store(self, kind: str = OURS, **options: Any) -> Any:
        from feast import FeatureStore

        number = STORES.index(kind)
        if kind not in self._stores or options:
            repo = self.folder / f"repo-{number}"
            repo.mkdir(exist_ok=True, parents=True)
            whole = {
                "project": "worlds",
                "provider": "local",
                "registry": "registry.db",
                "online_store": {"type": "sqlite", "path": "online.db"},
                "offline_store": {"type": kind, **options},
                "entity_key_serialization_version": 3,
            }
            (repo / "feature_store.yaml").write_text(json.dumps(whole))
            self._stores[kind] = FeatureStore(repo_path=str(repo))
        return self._stores[kind]

    def apply(self, objects: Sequence[Any], kinds: Sequence[str] = (OURS,)) -> None:
        from feast import Entity, FeatureView

        columns = {c.name: c for o in objects if isinstance(o, FeatureView) for c in o.entity_columns}
        entities = [
            Entity(name=name, join_keys=[name], value_type=column.dtype.to_value_type())
            for name, column in columns.items()
            if name != "__dummy_id"
        ]
        for kind in kinds:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.store(kind).apply([*entities, *objects])


def expected(view: Made, keys: Mapping[str, Any], moment: datetime | None, *, known: bool = False) -> dict[str, Any]:
    """The features of a view that held for keys at a moment, by the definition; all null where nothing did."""
    best: tuple[Any, ...] | None = None
    found = dict.fromkeys(view.features, None)
    if moment is None or any(value is None for value in keys.values()):
        return found
    for row in (row for rows in view.files for row in rows):
        if any(row[name] != value for name, value in keys.items()) or row["at"] > moment:
            continue
        if view.ttl and moment - row["at"] > view.ttl:
            continue
        made = row.get("created")
        if known and (made is None or made > moment):
            continue
        rank = (row["at"], made is not None, made or T)
        if best is None or rank > best:
            best, found = rank, {name: row.get(name) for name in view.features}
    return found

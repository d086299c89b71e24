"""A published view of every type, and what its online store holds when Feast loads it and when we do."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from engine.sinks.feast import FeatureRepo, OfflineView
from engine.sinks.online.config import read_config
from engine.sinks.online.load import load
from engine.sinks.online.store import open_store

T = datetime(2025, 10, 4, 12, 30, 15, 250_000, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")
SCALARS: dict[str, Any] = {
    "whole": pl.Int64,
    "small": pl.Int32,
    "double": pl.Float64,
    "single": pl.Float32,
    "yes": pl.Boolean,
    "text": pl.String,
    "raw": pl.Binary,
    "moment": MOMENT,
}
TYPES = {**SCALARS, **{f"{name}s": pl.List(dtype) for name, dtype in SCALARS.items()}}


def own_repo(folder: Path, store: dict[str, Any]) -> None:
    """A ``feature_store.yaml`` of the user's own."""
    (folder / "repo").mkdir(exist_ok=True)
    whole = {"project": "small", "provider": "local", "registry": "data/registry.db", "online_store": store}
    whole |= {"offline_store": {"type": "duckdb"}, "entity_key_serialization_version": 3}
    (folder / "repo" / "feature_store.yaml").write_text(json.dumps(whole))


class World:
    """A feature repo with one view, ``all``, in a folder.

    Attributes:
        dump: what its store holds.
        clients: of the nodes of its store.
    """

    def __init__(
        self,
        folder: Path,
        types: dict[str, Any] = TYPES,
        *,
        key: Any = pl.String,
        more_keys: dict[str, Any] | None = None,
        store: dict[str, Any] | None = None,
    ) -> None:
        more_keys = more_keys or {}
        self.folder = folder
        features = tuple((name, str(_dtype(dtype))) for name, dtype in types.items())
        path = folder / "features" / "all"
        more = tuple((name, str(_dtype(dtype))) for name, dtype in more_keys.items())
        self.view = OfflineView("all", "user", "user_id", str(_dtype(key)), features, path, more_keys=more)
        self.schema = {"user_id": key, **more_keys, **types}
        self.repo = FeatureRepo(folder / "repo", "worlds")
        if store is not None:
            self.configure(store)
        self.moments: list[datetime] = []
        self.dump: Callable[[], dict[Any, Any]] = self.dump_sqlite
        self.clients: Callable[[], list[Any]] = list

    def configure(self, store: dict[str, Any], **more: Any) -> None:
        """A ``feature_store.yaml`` of the user's own."""
        whole = {"project": "worlds", "provider": "local", "registry": "data/registry.db", "online_store": store}
        whole |= {"offline_store": {"type": "duckdb"}, "entity_key_serialization_version": 3, **more}
        self.repo.folder.mkdir(parents=True, exist_ok=True)
        (self.repo.folder / "feature_store.yaml").write_text(json.dumps(whole))

    def publish(self, columns: dict[str, Sequence[Any]], as_of: datetime = T, created: datetime | None = None) -> Path:
        """One file; absent columns are null."""
        count = len(columns["user_id"])
        frame = pl.DataFrame(
            {name: columns.get(name, [None] * count) for name in self.schema}, schema=self.schema, strict=True
        ).with_columns(
            pl.lit(as_of).cast(MOMENT).alias("event_timestamp"),
            pl.lit(created or as_of + timedelta(hours=1)).cast(MOMENT).alias("created_timestamp"),
        )
        path = self.view.path / f"event_date={as_of:%Y-%m-%d}" / f"part-{as_of:%Y%m%dT%H%M%S%fZ}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
        self.moments.append(as_of)
        return path

    @property
    def paths(self) -> list[Path]:
        return sorted(self.view.path.rglob("*.parquet"))

    def apply(self) -> None:
        self.repo.apply([self.view])

    def by_feast(self) -> None:
        """``feast materialize`` of everything."""
        from feast import FeatureStore

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = FeatureStore(repo_path=str(self.repo.folder))
            store.materialize(min(self.moments), max(self.moments), feature_views=["all"])

    def by_ours(self, paths: Sequence[Path] | None = None, **how: Any) -> int:
        with open_store(read_config(self.repo.folder), self.repo) as store:
            return load(
                store, self.view, paths or self.paths, memory_limit="512MiB", spill=self.folder / "spill", **how
            )

    @property
    def database(self) -> Path:
        return read_config(self.repo.folder).path

    def dump_sqlite(self) -> dict[tuple[bytes, str], tuple[Any, ...]]:
        """(entity key, feature): every other column, and how SQLite holds it."""
        connection = sqlite3.connect(self.database)
        columns = "value, value_text, vector_value, event_ts, created_ts"
        kinds = ", ".join(f"typeof({name.strip()})" for name in columns.split(","))
        rows = connection.execute(f"SELECT entity_key, feature_name, {columns}, {kinds} FROM worlds_all").fetchall()
        connection.close()
        return {(key, feature): tuple(rest) for key, feature, *rest in rows}

    def empty_sqlite(self) -> None:
        connection = sqlite3.connect(self.database)
        connection.execute("DELETE FROM worlds_all")
        connection.commit()
        connection.close()


def _dtype(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found


E1 = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
EVERYTHING: dict[str, Sequence[Any]] = {
    "user_id": ["u1", "é2", "用户3", "", "x" * 300, "u6"],
    "whole": [0, -1, 2**52, 127, 128, None],
    "small": [0, -1, 2**31 - 1, -(2**31), None, 300],
    "double": [0.0, -0.0, float("nan"), 1e-5, 1e16, None],
    "single": [0.0, 0.1, None, 3e38, -1.5, float("inf")],
    "yes": [True, False, None, True, False, None],
    "text": ["", "é", None, "x" * 200, "y" * 20_000, "a\nb"],
    "raw": [b"", b"\x00\xff", None, b"z" * 128, b"a", b"b"],
    "moment": [T, E1, None, T + timedelta(days=9_999), datetime(1, 1, 2, tzinfo=UTC), T],
    "wholes": [[0, -1, 2**62], [], None, [300] * 100, [1], [2]],
    "smalls": [[0, -1], [], None, [300] * 100, [1], [2]],
    "doubles": [[0.0, None, float("nan")], [], None, [1.5] * 100, [1.0], [2.0]],
    "singles": [[0.1, None], [], None, [1.5] * 100, [1.0], [2.0]],
    "yess": [[True, None, False], [], None, [True] * 200, [True], [False]],
    "texts": [["", None, "é"], [], None, ["x" * 200] * 3, ["a"], ["b"]],
    "raws": [[b"", None, b"\xff"], [], None, [b"x" * 200] * 3, [b"a"], [b"b"]],
    "moments": [[T, None, E1], [], None, [T] * 3, [T], [T]],
}

"""The view that is loaded, and its feature repo."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.sinks.feast import FeatureRepo, OfflineView

FEATURES = (
    *((f"score_{n}", "Float64") for n in range(8)),
    *((f"count_{n}", "Int64") for n in range(4)),
    ("level", "String"),
    ("active", "Boolean"),
)
T = datetime(2025, 10, 4, tzinfo=UTC)


def view_of(folder: Path) -> OfflineView:
    return OfflineView("users", "user", "user_id", "String", FEATURES, folder / "features" / "users")


def repo_of(folder: Path) -> FeatureRepo:
    return FeatureRepo(folder / "repo", "online")


def make(folder: Path, entities: int, online_store: dict[str, Any], batch: int) -> None:
    """Published features by seed, and a repo that Feast has been told of."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(8)
    numbers = pl.Series(random.permutation(entities))
    columns: dict[str, Any] = {
        "user_id": pl.select(pl.format("user-{}", numbers.cast(pl.String).str.zfill(9))).to_series()
    }
    for name, dtype in FEATURES:
        if dtype == "Float64":
            values = pl.Series(random.normal(50, 20, entities).round(6))
            columns[name] = values.zip_with(
                pl.Series(random.random(entities) > 0.05), pl.repeat(None, entities, dtype=pl.Float64, eager=True)
            )
        elif dtype == "Int64":
            columns[name] = random.integers(0, 10_000, entities)
        elif dtype == "String":
            levels = pl.Series(["junior", "senior", "lead"])
            columns[name] = levels.gather(random.integers(0, 3, entities))
        else:
            columns[name] = random.random(entities) > 0.5
    moments = [pl.lit(T).cast(pl.Datetime("us", "UTC")).alias(f"{name}_timestamp") for name in ("event", "created")]
    view, repo = view_of(folder), repo_of(folder)
    path = view.path / f"event_date={T:%Y-%m-%d}" / "part.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame(columns).with_columns(moments).write_parquet(path)
    configuration = {
        "project": "online",
        "provider": "local",
        "registry": "data/registry.db",
        "online_store": online_store,
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
        "materialization": {"online_write_batch_size": batch},
    }
    repo.folder.mkdir()
    (repo.folder / "feature_store.yaml").write_text(json.dumps(configuration))
    repo.apply([view])

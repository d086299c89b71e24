"""What is joined: published files with a ledger, a feature repo that Feast has been told of, and entity rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FLOATS = tuple(f"score_{n}" for n in range(7))
INTEGERS = tuple(f"count_{n}" for n in range(3))
FEATURES = (*FLOATS, *INTEGERS)
VIEW = "user_features"
T = datetime(2025, 1, 1, tzinfo=UTC)
STORES = {"duckdb": "duckdb", "plugin": "engine.offline_store.MaestroOfflineStore"}
TTLS = {"short": "12h", "long": "365d"}


def pipeline_of(folder: Path, ttl: str) -> Any:
    from engine import Pipeline

    sources = {name: {"type": "file", "path": f"{name}.parquet"} for name in ("users", "activities")}
    return Pipeline(base=folder, name="training", sources=sources, features={VIEW: {"ttl": TTLS[ttl]}})


def make(folder: Path, entities: int, keys: int, days: int) -> None:
    """By seed: a file of all keys for each day, and rows of random keys, a tenth of them unknown, at random moments."""
    import numpy as np
    import polars as pl

    from engine.ledger import Ledger
    from engine.sinks.feast import FeatureRepo, OfflineView
    from engine.sinks.paths import part_path

    random = np.random.default_rng(5)
    stamp = pl.Datetime("us", "UTC")
    names = [f"user-{n:09}" for n in random.permutation(keys)]
    parts = []
    with Ledger(folder / ".maestro") as ledger, ledger.lease("training"):
        ledger.begin("run", "training", [T], T, {})
        for day in range(days):
            as_of = T + timedelta(days=day)
            frame = pl.DataFrame(
                {
                    "user_id": names,
                    **{name: random.normal(50, 20, keys).round(6) for name in FLOATS},
                    **{name: random.integers(0, 10_000, keys) for name in INTEGERS},
                }
            ).with_columns(
                pl.lit(as_of).cast(stamp).alias("event_timestamp"), pl.lit(T).cast(stamp).alias("created_timestamp")
            )
            path = part_path(VIEW, as_of)
            (folder / "features" / path).parent.mkdir(parents=True)
            frame.write_parquet(folder / "features" / path, compression="zstd")
            part = {"view": VIEW, "as_of": as_of, "path": path.as_posix(), "rows": keys, "definition": ""}
            parts.append({**part, "created_timestamp": T, "sha256": None})
        ledger.publishing("run", "training", {}, parts)
        ledger.published_all("run")
        ledger.finish("run", "done")
    moments = random.integers(0, (days + 2) * 86_400_000_000, entities) + int(T.timestamp()) * 1_000_000
    pl.DataFrame(
        {
            "user_id": [f"user-{n:09}" for n in random.integers(0, keys + keys // 10, entities)],
            "event_timestamp": pl.Series(moments).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "label": np.arange(entities),
        }
    ).write_parquet(folder / "entities.parquet")
    features = tuple((name, "Float64" if name in FLOATS else "Int64") for name in FEATURES)
    for name, text in TTLS.items():
        seconds = int(text[:-1]) * {"h": 3_600, "d": 86_400}[text[-1]]
        view = OfflineView(VIEW, "user", "user_id", "String", features, folder / "features" / VIEW, ttl=seconds)
        for store, kind in STORES.items():
            repo = FeatureRepo(folder / f"repo-{name}-{store}", "training")
            repo.write([view])
            path = repo.folder / "feature_store.yaml"
            text = path.read_text().partition("\n")[2]  # without the line that says whose it is: then it stays
            path.write_text(text.replace("type: duckdb", f"type: {kind}"))
            repo.apply([view])

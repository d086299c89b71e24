"""Published files as plain rows, and what a training set must hold of them: one row at a time, by the definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from engine import Pipeline
from engine.ledger import Ledger
from engine.sinks.paths import part_path

T = datetime(2025, 3, 29, tzinfo=UTC)
UTC_US = pl.Datetime("us", "UTC")
NAMES = {"user_features": ["a", "b", "c"], "more": ["a", "c"], "task_features": ["a", "b", "c"]}
VIEWS = {"user_features": "user_id", "more": "user_id", "task_features": "task_id"}


@dataclass(frozen=True)
class File:
    """A published file: rows of (key, created_timestamp, values)."""

    view: str
    as_of: datetime
    rows: Sequence[tuple[Any, datetime, dict[str, Any]]]


def pipeline(folder: Path, ttl: dict[str, str] | None = None, **changes: Any) -> Pipeline:
    """A pipeline with the views of `VIEWS`, over sources that are never read."""
    sources = {name: {"type": "file", "path": f"{name}.parquet"} for name in ("users", "activities", "tasks")}
    features: dict[str, Any] = {"user_features": {}, "more": {"set": "user"}, "task_features": {}}
    for view, text in (ttl or {}).items():
        features[view]["ttl"] = text
    return Pipeline(base=folder, name="past", **{"sources": sources, "features": features, **changes})


def publish(folder: Path, files: Sequence[File], keys: dict[str, Any], dtypes: dict[str, Any]) -> None:
    """Writes the files, and records them as a run does."""
    with Ledger(folder / ".maestro") as ledger, ledger.lease("past"):
        ledger.begin("run", "past", [T], T, {})
        parts = []
        for file in files:
            key = VIEWS[file.view]
            names = NAMES[file.view]
            columns: dict[str, Any] = {key: [row[0] for row in file.rows]}
            columns |= {name: [row[2][name] for row in file.rows] for name in names}
            frame = pl.DataFrame(columns, schema={key: keys[file.view]} | {name: dtypes[name] for name in names})
            frame = frame.with_columns(
                pl.lit(file.as_of).cast(UTC_US).alias("event_timestamp"),
                pl.Series("created_timestamp", [row[1] for row in file.rows], dtype=UTC_US),
            )
            path = part_path(file.view, file.as_of)
            (folder / "features" / path).parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(folder / "features" / path)
            parts.append(
                {
                    "view": file.view,
                    "as_of": file.as_of,
                    "path": path.as_posix(),
                    "rows": frame.height,
                    "definition": "",
                    "created_timestamp": T,
                    "sha256": None,
                }
            )
        ledger.publishing("run", "past", {}, parts)
        ledger.published_all("run")
        ledger.finish("run", "done")


def floored(moment: Any) -> datetime | None:
    """A moment of an entity row in UTC, without nanoseconds."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def held(
    files: Sequence[File], view: str, key: Any, moment: datetime | None, ttl: timedelta | None
) -> dict[str, Any] | None:
    """What held of a key at a moment."""
    if key is None or moment is None:
        return None
    found = [
        (file.as_of, created, number, values)
        for file in files
        if file.view == view and file.as_of <= moment and (ttl is None or file.as_of >= moment - ttl)
        for number, (other, created, values) in enumerate(file.rows)
        if other is not None and str(other) == str(key)
    ]
    return max(found, key=lambda row: row[:3])[3] if found else None

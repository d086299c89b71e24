"""Where published files lie."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from engine.types import compact


def part_path(view: str, as_of: datetime) -> Path:
    """A published file's path below the output folder."""
    return Path(view) / f"event_date={as_of.date().isoformat()}" / f"part-{compact(as_of)}.parquet"

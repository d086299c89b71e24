"""The records that the server has, made by seed once: as pages of JSON, and as Parquet to compare with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

PAGE = 1_000
SEED = 7
SCHEMA = {
    "id": pl.Int64, "email": pl.String, "status": pl.String, "amount": pl.Float64, "quantity": pl.Int64,
    "active": pl.Boolean, "created_at": pl.String, "note": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What a contender landed: ``wrong`` says what is not as it should be, by column."""

    rows: int
    wrong: dict[str, str]
    types: dict[str, str]
    size: int


def make(folder: Path, rows: int) -> None:
    """``pages/1.json`` and so on, and ``reference.parquet``; done once."""
    if (folder / "reference.parquet").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    random_ = random.Random(SEED)
    made = []
    for number, first in enumerate(range(0, rows, PAGE), 1):
        page = list(_records(random_, first, min(PAGE, rows - first)))
        (folder / "pages" / f"{number}.json").write_text(json.dumps({"data": page}, separators=(",", ":")))
        made.append(pl.DataFrame(page, schema=SCHEMA))
    pl.concat(made).write_parquet(folder / "reference.parquet")


def _records(random_: random.Random, first: int, count: int) -> Iterator[dict[str, Any]]:
    for i in range(first, first + count):
        at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=i)
        yield {
            "id": i,
            "email": f"user{random_.randrange(10**6)}@example.com",
            "status": random_.choice(("new", "paid", "sent", "closed")),
            "amount": round(random_.uniform(0, 1000), 2),
            "quantity": random_.randrange(100),
            "active": random_.random() < 0.5,
            "created_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "note": None if random_.random() < 0.5 else random_.randbytes(12).hex(),
        }


def compare(reference: Path, out: Path) -> Contents:
    """Every column of every row; moments may have become such."""
    want = pl.read_parquet(reference)
    paths = sorted(path for path in out.rglob("*.parquet") if not any("_dlt" in part for part in path.parts))
    frames = [pl.read_parquet(path.read_bytes()) for path in paths]
    found = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(schema=SCHEMA)
    size = sum(path.stat().st_size for path in paths)
    wrong: dict[str, str] = {}
    types: dict[str, str] = {}
    if found.height != want.height:
        wrong["(rows)"] = f"{found.height:,} instead of {want.height:,}"
        return Contents(found.height, wrong, types, size)
    found = found.sort("id")
    for name, dtype in SCHEMA.items():
        if name not in found.columns:
            wrong[name] = "is not there"
            continue
        column = found[name]
        if column.dtype != dtype:
            types[name] = str(column.dtype)
        if isinstance(column.dtype, pl.Datetime):
            column = column.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        different = int((column.cast(dtype).ne_missing(want[name])).sum())
        if different:
            wrong[name] = f"{different:,} values differ"
    return Contents(found.height, wrong, types, size)

"""What a footer says of moments."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.features.part_file import extremes

ROOT = Path(__file__).parents[2]
EARLY, LATE = datetime(1961, 3, 4, 5, 6, 7, 8_000), datetime(2025, 1, 1)
TYPES = [*(pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "Europe/Berlin")), pl.Date()]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_first_and_the_last_moment(tmp_path: Path, dtype: pl.DataType) -> None:
    moments = pl.Series("t", [LATE, EARLY, EARLY]).cast(pl.Date if dtype == pl.Date else pl.Datetime(dtype.time_unit))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        moments = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    moments.to_frame().write_parquet(tmp_path / "t.parquet", row_group_size=2)
    first = datetime(EARLY.year, EARLY.month, EARLY.day) if dtype == pl.Date else EARLY
    expected = tuple((moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) for moment in (first, LATE))
    assert extremes(pq.read_metadata(tmp_path / "t.parquet"), "t") == expected


def test_moments_are_read_without_pandas(tmp_path: Path) -> None:
    pl.DataFrame({"t": [EARLY, LATE]}).write_parquet(tmp_path / "t.parquet")
    script = (
        "import sys; import pyarrow.parquet as pq; from engine.features.part_file import extremes; "
        "assert extremes(pq.read_metadata('t.parquet'), 't')[0] < 0; assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})

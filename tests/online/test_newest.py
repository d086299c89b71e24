"""The newest row of each entity, held against a walk over all rows in plain Python."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sinks.feast import OfflineView
from engine.sinks.online.newest import newest, sample

T = datetime(2025, 10, 4, tzinfo=UTC)
STAMP = pl.Datetime("us", "UTC")
# A file: its rows, each a key and the hour of its moment; most files are of one moment, as published ones are.
ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=8, unique_by=lambda row: row[0])
FILES = st.lists(
    st.one_of(ROWS, st.tuples(ROWS, st.integers(0, 5)).map(lambda of: [(key, of[1]) for key, _ in of[0]])),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("compound", [False, True])
@settings(max_examples=12, deadline=None)
@given(files=FILES, after=st.integers(0, 6), among=st.lists(st.integers(0, 6), min_size=1, unique=True))
def test_newest_rows_are_those_of_a_plain_walk(
    files: list[list[tuple[int, int]]], after: int, among: list[int], *, compound: bool
) -> None:
    more = (("part", "String"),) if compound else ()
    with tempfile.TemporaryDirectory() as folder:
        view = OfflineView("v", "e", "id", "Int64", (("x", "Int64"),), Path(folder), more_keys=more)
        paths, best = [], dict[int, tuple[Any, ...]]()
        for number, rows in enumerate(files):
            frame = pl.DataFrame(
                [
                    (key, T + timedelta(hours=hour), T + timedelta(seconds=number), number * 100 + key)
                    for key, hour in rows
                ],
                schema={"id": pl.Int64, "event_timestamp": STAMP, "created_timestamp": STAMP, "x": pl.Int64},
                orient="row",
            ).with_columns(part=pl.format("p{}", "id"))
            paths.append(Path(folder) / f"{number}.parquet")
            frame.write_parquet(paths[-1])
            for key, hour in rows:
                best[key] = max(best.get(key, (-1, -1, -1)), (hour, number, number * 100 + key))
        limits = {"memory_limit": "64MiB", "spill": Path(folder) / "spill"}
        wrapped = (lambda key: [key, f"p{key}"]) if compound else (lambda key: key)
        for kept, asked in (
            (lambda _: True, {}),
            (lambda key: key > after, {"after": wrapped(after)}),
            (lambda key: key in among, {"among": [wrapped(key) for key in among]}),
        ):
            found = [
                row for part in newest(view, paths, **limits, **asked) for row in part.select("id", "x").iter_rows()
            ]
            assert found == [(key, best[key][2]) for key in sorted(best) if kept(key)]
        chosen = sample(view, paths, 3)
        assert len(chosen) == len(set(map(str, chosen))) == min(3, len(best))
        assert all((key[0] if compound else key) in best for key in chosen)
        assert chosen == sample(view, list(reversed(paths)), 3)

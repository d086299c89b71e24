"""Values that go on from saved state are those over all rows, however the entities are divided to be walked."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.features.declared import declared
from engine.features.history import History
from engine.features.history.saved import advance, taken_in
from engine.features.inputs import Inputs
from engine.spec import ViewSpec
from engine.types import epoch_microseconds
from tests.run.test_incremental import EVERY, frame
from tests.run.world import DAY, T

_MIDDLE = {"function": "quantile", "value": "x", "q": 0.5, "window": "2d"}
AGGREGATES = {"middle": _MIDDLE, **EVERY["aggregates"], "mode": "mode(text) over 36h"}


@pytest.mark.parametrize("budget", [10**8, 6000])
@pytest.mark.parametrize("days", [1, 5])
def test_state_and_the_rows_after_it_give_what_all_rows_give(tmp_path: Path, budget: int, days: int) -> None:
    rng = random.Random(days)
    numbers, values, texts = [None, 1, 2, 10**9], [None, 1e5, 1e5 + 0.25, -0.5, float("inf")], [None, "a", "b", "é", ""]
    rows = [
        (f"u{rng.randrange(9)}", T - hours * timedelta(hours=1), *map(rng.choice, (numbers, values, texts)))
        for hours in (rng.randrange(0, 30 * 24) for _ in range(900))
    ]
    found = declared("v", ViewSpec(**{**EVERY, "aggregates": AGGREGATES}), {"events": {}})
    assert found.view
    as_ofs = [T - i * DAY for i in reversed(range(days))]
    first, second = (epoch_microseconds(as_ofs[0] - d * DAY) for d in (6, 3))
    keep = as_ofs[0] - 4 * DAY  # later than what is late, earlier than any window begins

    def history(inputs: Inputs, name: str, **how: object) -> list[pl.DataFrame]:
        made = History(inputs, inputs.view, as_ofs, folder=tmp_path / name, budget=budget, **how)
        return [pl.DataFrame(table).sort("who") for _, table in made]

    is_late = [i % 50 == 0 and epoch_microseconds(row[1]) <= second for i, row in enumerate(rows)]
    late = [row for row, comes_late in zip(rows, is_late, strict=True) if comes_late]
    punctual = [row for row, comes_late in zip(rows, is_late, strict=True) if not comes_late]
    frame(late).write_parquet(tmp_path / "late.parquet")
    with Inputs(found.view, {"events": frame(rows).to_arrow()}) as inputs:
        wanted = history(inputs, "all")
    with Inputs(found.view, {"events": frame(punctual).to_arrow()}) as inputs:
        half = advance(inputs, first, tmp_path / "half")
        saved = advance(inputs, second, tmp_path / "whole", half)
    frame([row for row in rows if row[1] > keep]).write_parquet(tmp_path / "kept.parquet")
    with Inputs(found.view, {"events": [tmp_path / "kept.parquet"]}) as inputs:
        saved = taken_in(inputs, saved, {"events": [tmp_path / "late.parquet"]}, tmp_path / "late")
        got = history(inputs, "some", saved=saved)
    for some, whole in zip(got, wanted, strict=True):
        assert_frame_equal(some, whole, rel_tol=1e-9, abs_tol=1e-9)

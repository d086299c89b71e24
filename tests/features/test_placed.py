"""Values put in their places, against a plain list."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.placed import Placed

VALUES: list[tuple[pl.DataType, list[Any]]] = [
    (pl.Int8(), [-128, 0, 127, None]),
    (pl.Int64(), [-(2**63), 2**53 + 1, None]),
    (pl.UInt64(), [2**64 - 1, 0, None]),
    (pl.Int128(), [2**100, None]),
    (pl.Float32(), [0.5, float("inf"), None]),
    (pl.Float64(), [0.1, -0.0, None]),
    (pl.Boolean(), [True, False, None]),
    (pl.String(), ["", "a longer text than twelve", None]),
    (pl.Binary(), [b"", b"\0", None]),
    (pl.Date(), [date(1, 1, 1), date(9999, 12, 31), None]),
    (pl.Datetime("us", "Europe/Berlin"), [datetime(2025, 6, 1), None]),
    (pl.Datetime("ns"), [datetime(1969, 12, 31, 23, 59, 59, 1), None]),
    (pl.Duration("ms"), [timedelta(milliseconds=-1), None]),
    (pl.Decimal(38, 4), [Decimal("-1.0001"), None]),
    (pl.List(pl.Int64()), [[], [1, None], None]),
    (pl.Struct({"a": pl.Int8()}), [{"a": 1}, None]),
    (pl.Null(), [None]),
]


@pytest.mark.parametrize(("dtype", "choices"), VALUES, ids=[str(dtype) for dtype, _ in VALUES])
@settings(max_examples=25)
@given(data=st.data())
def test_each_row_has_what_was_put_there(dtype: pl.DataType, choices: list[Any], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 12))
    rows = data.draw(st.lists(st.integers(0, max(0, count - 1)), unique=True, max_size=count))
    cut = data.draw(st.integers(0, len(rows)))
    expected: list[Any] = [None] * count
    placed = Placed({"v": dtype, "number": pl.Int64()}, count)
    for mine in (rows[:cut], rows[cut:]):
        held = pl.Series("v", data.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=6)), dtype=dtype)
        frame = held.to_frame().with_row_index("number").select("v", pl.col("number").cast(pl.Int64))
        chosen = [data.draw(st.integers(0, held.len() - 1)) for _ in mine]
        placed.put(frame, np.array(chosen, np.int64), np.array(mine, np.int64))
        for row, at in zip(mine, chosen, strict=True):
            expected[row] = held[at].to_list() if dtype == pl.List and held[at] is not None else held[at]
    found = placed.frame()
    assert found.schema == {"v": dtype, "number": pl.Int64()}
    assert found["v"].to_list() == expected
    assert [number is not None for number in found["number"]] == [row in rows for row in range(count)]

"""Training sets equal a slow oracle in plain Python: ties, nulls, ttls, keys of other types, several views."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine import training_set
from engine.features import past, past_on_disk
from engine.training import _TrainingSet
from tests.training.oracle import NAMES, UTC_US, VIEWS, File, T, floored, held, pipeline, publish

HOUR = timedelta(hours=1)
DTYPES = {"a": pl.Int64, "b": pl.Float64, "c": pl.String}
KEYS = [None, *range(4)]
HOURS = st.integers(0, 12)
MICRO = timedelta(microseconds=1)


@st.composite
def files(draw: st.DrawFn) -> list[File]:
    """Files of all views; some have a key twice, created at one moment or at several."""
    made = []
    for view in VIEWS:
        for hour in sorted(draw(st.sets(HOURS, min_size=1, max_size=5))):
            rows = []
            for key in draw(st.lists(st.sampled_from(KEYS), max_size=5)):
                created = T + draw(st.integers(0, 2)) * HOUR
                number = draw(st.integers(0, 99))
                values = {"a": number, "b": number / 7, "c": f"t{number}"}
                rows.append((key, created, {name: values[name] for name in NAMES[view]}))
            made.append(File(view, T + hour * HOUR, rows))
    return made


@st.composite
def entities(draw: st.DrawFn) -> list[dict[str, Any]]:
    moments = st.none() | st.builds(lambda h, d: T + h * HOUR + d * MICRO, st.integers(-1, 14), st.integers(-1, 1))
    row = st.fixed_dictionaries({"user_id": st.sampled_from(KEYS), "task_id": st.sampled_from(KEYS), "at": moments})
    return draw(st.lists(row, max_size=12))


TTLS = st.none() | st.integers(1, 6).map(lambda n: f"{n}h")


@settings(max_examples=30, deadline=None)
@given(
    files(),
    entities(),
    st.fixed_dictionaries(dict.fromkeys(VIEWS, TTLS)),
    st.sampled_from(
        [
            (pl.Int64, pl.Int64),
            (pl.String, pl.Int64),
            (pl.Int64, pl.String),
            (pl.Int32, pl.UInt64),
            (pl.String, pl.Float64),
        ]
    ),
    st.sampled_from([1, 2, 100]),
    st.sampled_from([1, 3, 100]),
)
def test_equal_to_the_oracle(
    made: list[File],
    rows: list[dict[str, Any]],
    ttls: dict[str, str | None],
    types: tuple[Any, Any],
    batch: int,
    size: int,
) -> None:
    """Whatever is held at once of files and of entity rows."""
    published, given_as = types
    if published == pl.String:
        made = [File(f.view, f.as_of, [(None if k is None else str(k), c, v) for k, c, v in f.rows]) for f in made]
    frame = pl.DataFrame(rows, schema={"user_id": pl.Int64, "task_id": pl.Int64, "at": UTC_US}).with_columns(
        pl.col("user_id", "task_id").cast(given_as), pl.int_range(pl.len()).alias("label")
    )
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        publish(folder, made, dict.fromkeys(VIEWS, published), DTYPES)
        patch.setattr(past, "BATCH", batch)
        patch.setattr(_TrainingSet, "_size", lambda *_: size)
        patch.setattr(past_on_disk, "_KEY_BYTES", 64 if size > 1 else 2**26)  # so many keys need several passes
        found = training_set(
            pipeline(folder, {view: text for view, text in ttls.items() if text}),
            frame,
            features="user_features:*,more:a,task_features:c,task_features:b",
            timestamp="at",
        ).collect()
        assert not list((folder / ".maestro" / "spill").iterdir())
    assert_frame_equal(found.select(frame.columns), frame)
    expected = [expected_row(made, row, ttls) for row in rows]
    assert found.drop(frame.columns).to_dicts() == expected


def expected_row(made: Sequence[File], row: dict[str, Any], ttls: dict[str, str | None]) -> dict[str, Any]:
    wanted = {"user_features": ["a", "b", "c"], "more": ["a"], "task_features": ["c", "b"]}
    twice = {"a", "b", "c"}
    found: dict[str, Any] = {}
    for view, names in wanted.items():
        text = ttls[view]
        ttl = int(text[:-1]) * HOUR if text else None
        values = held(made, view, row[VIEWS[view]], floored(row["at"]), ttl) or {}
        found |= {f"{view}__{name}" if name in twice else name: values.get(name) for name in names}
    return found

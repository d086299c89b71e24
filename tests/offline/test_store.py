"""The engine as Feast's offline store: ``get_historical_features`` and ``materialize`` through the real Feast."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError, UsageError
from engine.join import Join
from tests.offline.world import HOUR, MICRO, MOMENT, Made, Repo, T, defined, expected, write

STATS = Made(
    "stats",
    {"driver": pl.Int64},
    {"trips": pl.Int64, "rate": pl.Float64},
    [
        [
            {"driver": 1, "at": T, "created": T, "trips": 1, "rate": 0.1},
            {"driver": 1, "at": T + 2 * HOUR, "created": T, "trips": 2, "rate": 0.2},
            {"driver": 1, "at": T + 2 * HOUR, "created": T + HOUR, "trips": 3, "rate": 0.3},
            {"driver": 2, "at": T + HOUR, "created": None, "trips": None, "rate": 0.4},
        ],
        [{"driver": 2, "at": T, "created": T, "trips": 9, "rate": 0.9}],
    ],
    ttl=2 * HOUR,
)
ROWS = [(1, T - MICRO), (3, T), (1, T), (None, T), (1, T + 2 * HOUR), (2, T + 3 * HOUR), (2, T + 3 * HOUR + MICRO)]


def entities(rows: Any = ROWS, **more: Any) -> pd.DataFrame:
    drivers, moments = zip(*rows, strict=True)
    frame = pl.DataFrame({"driver": drivers, "event_timestamp": pl.Series(moments, dtype=MOMENT), **more}).to_pandas()
    assert isinstance(frame, pd.DataFrame)
    return frame


def rows_of(job: Any) -> list[dict[str, Any]]:
    table = job.to_arrow()
    assert isinstance(table, pa.Table)
    return table.to_pylist()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    write(tmp_path, STATS)
    made = Repo(tmp_path)
    made.apply([defined(tmp_path, STATS)])
    return made


def asked(repo: Repo, rows: Any = None, *, features: Any = ("stats:trips", "stats:rate"), **how: Any) -> Any:
    frame = entities() if rows is None else rows
    return repo.store().get_historical_features(
        entity_df=frame, features=list(features) if isinstance(features, tuple) else features, **how
    )


def test_rows_stay_in_order_with_and_without_a_match(repo: Repo) -> None:
    found = rows_of(asked(repo, entities(label=list("abcdefg"))))
    assert [row["label"] for row in found] == list("abcdefg")
    assert [(row["trips"], row["rate"]) for row in found] == [
        (None, None),
        (None, None),
        (1, 0.1),
        (None, None),
        (3, 0.3),
        (None, 0.4),
        (None, None),
    ]
    assert list(found[0]) == ["driver", "event_timestamp", "label", "trips", "rate"]
    assert found == rows_of(asked(repo, entities(label=list("abcdefg")).set_index("label", drop=False)))


def test_frames_of_pandas_and_names(repo: Repo) -> None:
    job = asked(repo, full_feature_names=True)
    frame = job.to_df()
    assert list(frame.columns) == ["driver", "event_timestamp", "stats__trips", "stats__rate"]
    assert frame["stats__rate"].dropna().tolist() == [0.1, 0.3, 0.4]
    assert str(frame["event_timestamp"].dt.tz) == "UTC"
    assert (job.metadata.keys, job.metadata.min_event_timestamp) == (["driver"], T - MICRO)
    assert job.metadata.max_event_timestamp == T + 3 * HOUR + MICRO
    again = asked(repo, pd.DataFrame({"driver": [], "event_timestamp": pd.to_datetime([])}).astype({"driver": "int64"}))
    assert again.to_df().columns.tolist() == ["driver", "event_timestamp", "trips", "rate"]
    assert again.to_df().empty


@pytest.mark.parametrize("how", ["naive", "zone", "text", "other name", "python", "date"])
def test_moments_of_every_kind(repo: Repo, how: str) -> None:
    frame = entities([(1, T), (1, T + 2 * HOUR)])
    name = "seen_at" if how == "other name" else "event_timestamp"
    frame = frame.rename(columns={"event_timestamp": name})
    made: Any = {
        "naive": lambda s: s.dt.tz_localize(None),
        "zone": lambda s: s.dt.tz_convert("Asia/Tokyo"),
        "text": lambda s: s.map(lambda at: at.isoformat()),
        "other name": lambda s: s,
        "python": lambda s: pd.Series([at.to_pydatetime() for at in s], dtype=object),
        "date": lambda s: pd.Series([at.date() for at in s], dtype=object),
    }
    frame[name] = made[how](frame[name])
    found = rows_of(asked(repo, frame))
    assert [row["trips"] for row in found] == ([1, 1] if how == "date" else [1, 3])
    assert [row[name] for row in found] == [T, T if how == "date" else T + 2 * HOUR]


def test_entity_rows_that_make_no_sense(repo: Repo) -> None:
    from feast.errors import EntityTimestampInferenceException

    with pytest.raises(EntityTimestampInferenceException):
        asked(repo, pd.DataFrame({"driver": [1]}))
    with pytest.raises(EntityTimestampInferenceException):
        asked(repo, entities().rename(columns={"event_timestamp": "a"}).assign(b=pd.Timestamp(T)))
    with pytest.raises(UsageError, match="no column 'driver'"):
        asked(repo, entities().rename(columns={"driver": "drivers"})).to_df()
    with pytest.raises(DataError, match="is no moment"):
        asked(repo, pd.DataFrame({"driver": [1], "event_timestamp": ["soon"]})).to_df()
    with pytest.raises(UsageError, match="no entity rows"):
        repo.store().get_historical_features(features=["stats:trips"], end_date=T)


def test_sql_sees_files_of_the_repo_and_feature_views(repo: Repo, tmp_path: Path) -> None:
    folder = tmp_path / "repo-0"
    pl.from_pandas(entities(label=list("abcdefg"))).write_parquet(folder / "mine.parquet")
    expected = rows_of(asked(repo, entities(label=list("abcdefg"))))
    assert rows_of(asked(repo, "SELECT * FROM 'mine.parquet';")) == expected
    of_views = 'SELECT DISTINCT driver, max("at") + INTERVAL 1 HOUR AS event_timestamp FROM stats GROUP BY 1 ORDER BY 1'
    assert [(row["driver"], row["trips"]) for row in rows_of(asked(repo, of_views))] == [(1, 3), (2, None)]
    with pytest.raises(DataError, match="SQL of entity_df"):
        asked(repo, "SELECT nothing FROM nowhere")


def test_only_what_was_known(repo: Repo) -> None:
    moments = [T, T + 2 * HOUR - MICRO, T + 2 * HOUR, T + 3 * HOUR]
    rows = [(driver, moment) for driver in (1, 2) for moment in moments]
    found = rows_of(asked(repo, entities(rows), filter_by_created_timestamp=True))
    wanted = [expected(STATS, {"driver": driver}, moment, known=True) for driver, moment in rows]
    assert [{name: row[name] for name in wanted[0]} for row in found] == wanted


# --- worlds ---

KEYS = st.sampled_from([None, 0, 1, 2])


@st.composite
def views(draw: st.DrawFn) -> Made:
    keys = draw(st.sampled_from([{"a": pl.Int64}, {"a": pl.String}, {"a": pl.Int64, "b": pl.String}]))
    names = {"n": pl.Int64, "x": pl.Float64, "t": pl.String, "l": pl.List(pl.Int64)}
    files, number = [], 0
    one = draw(st.booleans())  # one moment per file, as the engine publishes
    hours = draw(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=one))
    for hour in hours:
        rows, seen = [], set()
        for _ in range(draw(st.integers(1, 5))):
            number += 1
            at = T + (hour if one else draw(st.integers(0, 8))) * HOUR
            created = T + draw(st.integers(0, 3)) * HOUR
            row = {k: draw(KEYS) for k in keys}
            row = {k: None if v is None else v if keys[k] == pl.Int64 else f"k{v}" for k, v in row.items()}
            if (*row.values(), at, created) in seen:
                continue  # which of them counts is not told
            seen.add((*row.values(), at, created))
            rows.append({**row, "at": at, "created": created, "n": number, "x": number / 3, "t": "x", "l": [number]})
        files.append(rows)
    taken: set[Any] = set()
    for rows in files:
        for row in list(rows):
            mark = (*[row[k] for k in keys], row["at"], row["created"])
            rows.remove(row) if mark in taken else taken.add(mark)
    ttl = draw(st.none() | st.integers(1, 5).map(lambda n: n * HOUR))
    mapping = draw(st.sampled_from([{}, {"raw_n": "n", "raw_a": "a"}]))
    return Made("v", keys, names, files, ttl, mapping=mapping)


MOMENTS = st.none() | st.builds(lambda h, d: T + h * HOUR + d * MICRO, st.integers(-1, 9), st.integers(-1, 1))


@settings(max_examples=25, deadline=None)
@given(
    views(),
    st.lists(st.tuples(KEYS, KEYS, MOMENTS), min_size=1, max_size=10),
    st.booleans(),
    st.booleans(),
    st.sampled_from([2, 1000]),
)
def test_worlds_equal_the_oracle(view: Made, rows: Any, alias: bool, known: bool, size: int) -> None:
    """Whatever the keys, types, ttl, ties, names of columns, and how much is looked at together."""
    own = {"a": "other_a", **({"b": "b"} if "b" in view.keys else {})} if alias else {k: k for k in view.keys}
    wanted, columns = [], {name: [] for name in own.values()}
    for a, b, moment in rows:
        keys = {"a": a, "b": b} if "b" in view.keys else {"a": a}
        keys = {k: None if v is None else v if view.keys[k] == pl.Int64 else f"k{v}" for k, v in keys.items()}
        for name, value in keys.items():
            columns[own[name]].append(value)
        wanted.append(expected(view, keys, moment, known=known))
    schema = {own[name]: dtype for name, dtype in view.keys.items()} | {"event_timestamp": MOMENT}
    frame = pl.DataFrame({**columns, "event_timestamp": [row[2] for row in rows]}, schema=schema)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Join, "_size", lambda *_: size)
        from feast import FeatureService

        path = Path(folder)
        write(path, view)
        made = Repo(path)
        feature_view = defined(path, view)
        made.apply([feature_view, *feature_view.__dict__.get("entities_objects", [])])
        projected = feature_view.with_name("named").with_join_key_map(own) if alias else feature_view
        service = FeatureService(name="service", features=[projected])
        made.apply([feature_view, service])
        entity_df = frame.to_pandas()
        job = made.store().get_historical_features(
            entity_df=entity_df, features=service, full_feature_names=True, filter_by_created_timestamp=known
        )
        prefix = "named" if alias else "v"
        found = [{name: row[f"{prefix}__{name}"] for name in view.features} for row in rows_of(job)]
    assert found == wanted

"""Data that fails, is strange, or wide: answers or the engine's own errors, and Ctrl-C passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from engine import frames
from engine.checks import Suite, groups
from engine.checks.aside import Quarantine
from engine.errors import DataError
from engine.frames import scan, to_lazy
from engine.spec import ValidationSpec

UNIQUE = ValidationSpec.model_validate({"not_null": ["a"], "unique_columns": ["a"]})
FOREIGN = ValidationSpec.model_validate({"foreign_keys": {"a": "u.a"}})
FAILURES = [ValueError("broken"), OSError("broken"), RuntimeError("broken"), pl.exceptions.ComputeError("broken")]


def failing(error: BaseException) -> pl.LazyFrame:
    """A lazy frame that fails in the middle."""

    def rows(batch: pl.DataFrame) -> pl.DataFrame:
        if (batch["a"] >= 5).any():
            raise error
        return batch

    return pl.LazyFrame({"a": range(10)}).map_batches(rows, schema={"a": pl.Int64}, streamable=True)


def again(error: BaseException) -> pl.LazyFrame:
    """A lazy frame that fails when it is read once more."""
    reads = []

    def rows(batch: pl.DataFrame) -> pl.DataFrame:
        reads.append(1)
        if len(reads) > 1:
            raise error
        return batch

    return pl.LazyFrame({"a": [1, 1, 2]}).map_batches(rows, schema={"a": pl.Int64})


def stream(error: BaseException | None) -> pa.RecordBatchReader:
    schema = pa.schema([("a", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([1, None])], schema=schema)
        if error is not None:
            raise error

    return pa.RecordBatchReader.from_batches(schema, batches())


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("made", [failing, again, stream])
def test_data_that_fails_in_the_middle(made: Callable[[BaseException], Any], error: Exception) -> None:
    with pytest.raises(DataError, match=r"could not be read: .*broken") as caught:
        Suite(UNIQUE).validate(made(error))
    assert caught.value.code == "data.unreadable"


@pytest.mark.parametrize("made", [failing, again, stream])
@pytest.mark.parametrize("at_once", [0, 500_000])
def test_ctrl_c_passes(made: Callable[[BaseException], Any], at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_AT_ONCE", at_once)
    with pytest.raises(KeyboardInterrupt):
        Suite(UNIQUE).validate(made(KeyboardInterrupt()))


@pytest.mark.parametrize("ours", [True, False])
def test_ctrl_c_passes_where_keys_are_looked_up(ours: bool) -> None:
    sound = pl.LazyFrame({"a": [1]})
    bad = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Suite(FOREIGN).validate(bad if ours else sound, references={"u": sound if ours else bad})


def test_a_source_that_cannot_be_read_is_not_uncountable() -> None:
    bad = pl.LazyFrame({"a": ["x"]}).select(pl.col("a").cast(pl.Int64))
    with pytest.raises(DataError) as caught:
        Suite(FOREIGN).validate(pl.LazyFrame({"a": [1]}), references={"u": bad})
    assert caught.value.code == "data.unreadable"


def test_data_that_changes_is_told_whatever_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_AT_ONCE", 0)
    reads = []

    def rows(batch: pl.DataFrame) -> pl.DataFrame:
        reads.append(1)
        return batch if len(reads) == 1 else batch.head(2)

    frame = pl.LazyFrame({"a": [1, 1, 2]}).map_batches(rows, schema={"a": pl.Int64})
    with pytest.raises(DataError) as caught:
        Suite(UNIQUE).validate(frame)
    assert caught.value.code == "data.changed"


@pytest.mark.parametrize("value", ["INTERVAL 1 DAY", "union_value(k := 1)", "if(i > 2500, error('broken'), i)"])
def test_relations_that_cannot_be_kept(value: str) -> None:
    with duckdb.connect() as connection, pytest.raises(DataError, match="the stream could not be read"):
        Suite(UNIQUE).validate(connection.sql(f"SELECT {value} AS a FROM range(3000) t(i)"))


def test_arrow_with_a_column_twice() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for data in (twice, twice.to_reader(), twice.to_batches()[0]):
        with pytest.raises(DataError) as caught:
            Suite(UNIQUE).validate(data)
        assert caught.value.code == "data.repeated_column"
    with pytest.raises(DataError, match="'a' twice"):
        Suite(UNIQUE).filter(twice)


def test_streams_are_read_once_in_bounded_memory() -> None:
    schema = pa.schema([("a", pa.int64())])
    rows, count = 100_000, 60
    read: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for i in range(count):
            read.append(pa.total_allocated_bytes())
            yield pa.record_batch([pa.array(range(i * rows, (i + 1) * rows), pa.int64())], schema=schema)

    before = pa.total_allocated_bytes()
    spec = ValidationSpec.model_validate({"range_constraints": {"a": [10, None]}})
    result = Suite(spec).validate(pa.RecordBatchReader.from_batches(schema, batches())).results[0]
    assert (result.failed_records, result.details["failed_fraction"]) == (10, 10 / rows / count)
    assert len(read) == count
    assert max(read) - before < 20 * rows * 8


def test_wide_files_are_read_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one scan Polars would hold several row groups at once; the rows and their order are the same."""
    monkeypatch.setattr(frames, "_PART_CELLS", 200 * 25)
    names = [f"c{i}" for i in range(200)]
    whole = pl.DataFrame({name: range(i, 100 + i) for i, name in enumerate(names)})
    whole.head(60).write_parquet(tmp_path / "a.parquet", row_group_size=10)
    whole.slice(60).write_parquet(tmp_path / "b.parquet", row_group_size=40)
    whole.head(0).write_parquet(tmp_path / "c.parquet")
    rows = scan(tmp_path)
    assert rows.collect(engine="in-memory").equals(whole)
    assert rows.explain().count("SLICE") == 3
    config = {"range_constraints": {"c7": [17, None]}, "unique_columns": ["c199"], "increasing": ["c0"]}
    results = Suite(config).validate(tmp_path).results
    assert [r.failed_records for r in results] == [0, 10, 0, 0]
    assert [row["row"] for row in results[1].sample] == [0, 1, 2, 3, 4]


def folder(path: Path, *parts: pl.DataFrame) -> Path:
    for i, frame in enumerate(parts):
        frame.write_parquet(path / f"{i}.parquet")
    return path


def typed(values: list[Any], dtype: Any) -> pl.DataFrame:
    return pl.DataFrame({"a": pl.Series(values, dtype=dtype)})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (typed([1], pl.Int32), typed([2**40], pl.Int64)),
        (typed([2**63 - 1], pl.Int64), typed([2**64 - 1], pl.UInt64)),
        (typed([-1], pl.Int8), typed([255], pl.UInt8)),
        (typed([None], pl.Null), typed(["x"], pl.String)),
        (typed(["x"], pl.Categorical), typed(["y"], pl.String)),
        (typed([2**53 + 1], pl.Int64), typed([0.5], pl.Float64)),
        (typed([0], pl.Datetime("us")), typed([5], pl.Datetime("ns"))),
    ],
    ids=lambda frame: str(frame.schema["a"]),
)
def test_folders_of_mixed_types_lose_nothing(first: pl.DataFrame, second: pl.DataFrame, tmp_path: Path) -> None:
    """Or they are refused, where the common type does not hold a value."""
    rows = scan(folder(tmp_path, first, second))
    if second.schema["a"] in (pl.Float64, pl.Datetime("ns")):
        with pytest.raises(ValueError, match="does not hold"):
            rows.collect()
        with pytest.raises(DataError, match=r"does not hold .* exactly .*data\.unreadable"):
            Suite(UNIQUE).validate(tmp_path)
        return
    found = rows.collect()["a"]
    for value, kept in zip([first["a"], second["a"]], [found[:1], found[1:]], strict=True):
        assert kept.cast(value.dtype).equals(value), (kept, value)


def test_folders_of_mixed_types_that_fit(tmp_path: Path) -> None:
    """Whole numbers in one file, and floats in another, are a column of floats."""
    values = [2**53, -3, None], [0.5, float("nan"), 3.0]
    found = Suite(UNIQUE).validate(folder(tmp_path, typed(values[0], pl.Int64), typed(values[1], pl.Float64)))
    assert [r.failed_records for r in found.results] == [2, 0, 0]


def test_folders_of_mixed_columns(tmp_path: Path) -> None:
    frames = pl.DataFrame({"a": [1]}), pl.DataFrame({"b": [2]}), pl.DataFrame({"b": [3], "a": [1]})
    result = Suite(UNIQUE).validate(folder(tmp_path, *frames)).results
    assert [r.failed_records for r in result[:2]] == [1, 1]
    assert result[2].details["rows"] == 3


def test_folders_whose_name_is_a_file_s(tmp_path: Path) -> None:
    """Spark writes ``x.parquet/part-0.parquet``; its rows are no others when asked from above."""
    (tmp_path / "x.parquet").mkdir()
    pl.DataFrame({"a": [2]}).write_parquet(tmp_path / "x.parquet" / "part-0.parquet")
    assert scan(tmp_path).collect().height == 1


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT])
def test_pandas_objects_without_values(value: Any) -> None:
    frame = pd.DataFrame({"a": [value, value], "n": [1, 2]}, dtype=object)
    config: dict[str, Any] = {
        "not_null": ["a"],
        "unique_columns": ["a"],
        "range_constraints": {"a": [0, 1]},
        "categorical_constraints": {"a": ["x"]},
        "patterns": {"a": "x"},
        "lengths": {"a": [1, 2]},
        "increasing": ["a"],
        "compare": [{"left": "a", "operator": "<", "right": "n"}],
        "foreign_keys": {"a": "u.id"},
        "custom": {"c": "a > 1"},
    }
    results = Suite(config).validate(frame, references={"u": pl.DataFrame({"id": ["x"]})}).results
    assert [r.failed_records for r in results] == [2] + [0] * (len(results) - 1)
    assert not any(r.details.get("cannot_run") for r in results)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", None, "a longer text"], pl.String),
        ([None, "b", float("nan")], pl.String),
        (["c", pd.NA, None], pl.String),
        ([None, None, None], pl.Null),
        ([1, None, 3], pl.Int64),
        ([b"x", None, b""], pl.Binary),
    ],
)
def test_pandas_objects_beside_other_columns(values: list[Any], dtype: pl.DataType) -> None:
    index = [7, 7, 9]
    frame = pd.DataFrame({"n": [1, 2, 3], "a": pd.Series(values, index, dtype=object).to_numpy(), 5: ["x", "y", "z"]})
    found = to_lazy(frame.set_index(pd.Index(index))).collect()
    assert found.schema == {"n": pl.Int64, "a": dtype, "5": pl.String}
    assert found["a"].to_list() == [None if pd.isna(value) else value for value in values]
    assert found["5"].to_list() == ["x", "y", "z"]


def test_structs_without_fields() -> None:
    """A check may refuse them; it does not end the validation."""
    results = Suite(UNIQUE).validate(pl.DataFrame({"a": pl.Series([{}, None], dtype=pl.Struct([]))})).results
    assert results[0].failed_records == 1


@pytest.mark.parametrize("data", [pl.DataFrame(), pl.LazyFrame(), pa.table({}), pd.DataFrame()])
def test_no_column_at_all(data: Any) -> None:
    config = {"not_null": ["a"], "custom": {"c": "a > 1"}, "on_violation": "quarantine"}
    results = Suite(config).validate(data).results
    assert [bool(r.details.get("cannot_run")) for r in results] == [True, True, False]
    with pytest.raises(DataError, match=r"checks\.cannot_run"):
        Suite(config).filter(data)
    good, bad = Suite({"row_count": {"min": 1}}).filter(data)
    assert (good.collect().shape, bad.collect().shape) == ((0, 0), (0, 1))


NAMES = [
    *("row", "origin", "origin_row", "quarantine", "failed_checks", "position", "0", "1", "moment of t", "previous t"),
    *("whether t IS NOT NULL", "batch", "rows", "n", "first", "hash", "value", "start", "k0", "id", "checks", "*"),
    *("^x$", "^.*$", "_row", "_quarantine", "_failed_checks"),
]


@pytest.mark.parametrize("size", [1, 200_000])
def test_columns_with_the_names_the_engine_uses(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.frames.BATCH_ROWS", size)
    frame = pl.DataFrame(
        {name: [1, 2, 2, None] for name in NAMES} | {"t": ["2020-01-01", "2019-01-01", "x", "2021-01-01"]}
    )
    config: dict[str, Any] = {
        "not_null": NAMES,
        "unique_columns": [*NAMES, ["0", "1", "position"]],
        "range_constraints": {**{name: [0, 1] for name in NAMES}, "t": ["2019-06-01", None]},
        "categorical_constraints": {name: [1] for name in NAMES},
        "increasing": [*NAMES, "t"],
        "compare": [{"left": "0", "operator": "<", "right": "1"}],
        "custom": {"c": "t IS NOT NULL", "d": '"0" > 1 AND position > 1 AND "row" > 1 AND batch > 1'},
        "foreign_keys": {"row": "u.position", "position": "u.row"},
        "freshness": {"timestamp_column": "t"},
        "on_violation": {"not_null": "quarantine"},
    }
    suite = Suite(config, key_columns=[*NAMES, "t"])
    origins = pl.DataFrame({"start": [0], "origin": ["o"], "row": [7]})
    path = tmp_path / "q.parquet"
    judged = suite.judge(frame, references={"u": frame}, origins=origins, quarantine=Quarantine(path, "r", "d"))
    found = {suite.checks[i].name: r for i, r in judged.results.items()}
    assert not [name for name, r in found.items() if r.details.get("cannot_run")]
    expected = {"not_null": 1, "uniqueness": 1, "range": 2, "categorical": 2, "increasing": 0, "foreign_key": 0}
    for name, result in found.items():
        family = name.partition(".")[0]
        if family in expected and not name.endswith(".t"):
            assert result.failed_records == expected[family], name
    assert [found[n].failed_records for n in ("increasing.t", "range.t", "custom.d", "compare.0 < 1")] == [2, 2, 1, 3]
    aside = pl.read_parquet(path)
    assert (judged.quarantined, aside.columns) == (1, [*frame.columns, "__quarantine"])
    assert aside["__quarantine"][0]["row"] == 10
    good, bad = suite.filter(frame, references={"u": frame})
    assert bad.collect().columns == [*frame.columns, "__failed_checks"]
    assert good.collect().height + bad.collect().height == 4


def test_a_thousand_columns_and_nine_thousand_checks() -> None:
    names = [f"c{i}" for i in range(1000)]
    frame = pl.DataFrame({name: [i, i + 1, None] for i, name in enumerate(names)})
    config: dict[str, Any] = {
        "required_columns": names,
        "not_null": names,
        "range_constraints": {name: [0, 500] for name in names},
        "categorical_constraints": {name: [1, 2] for name in names},
        "distribution": dict.fromkeys(names, 500.0),
        "increasing": names,
        "unique_columns": names,
        "lengths": {name: [0, 1] for name in names},
        "compare": [{"left": a, "operator": "<=", "right": b} for a, b in pairwise(names)],
        "custom": {f"r{i}": f"c{i} < 500" for i in range(100)},
    }
    report = Suite(config).validate(frame)
    assert report.total_checks == 9100
    families: dict[str, int] = {}
    for result in report.results:
        families[result.check_name] = families.get(result.check_name, 0) + result.failed_records
    assert families["not_null_validation"] == 1000
    assert families["range_validation"] == 499 * 2 + 1
    assert families["increasing_validation"] == families["uniqueness_validation"] == 0
    assert sum(bool(r.details.get("cannot_run")) for r in report.results) == 1000  # integers have no length

"""The schema contract: what becomes of columns that are new, gone or of another type, of files and of databases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Pipeline, RunReport, load_pipeline, run_pipeline
from engine.errors import ConfigError, SourceError
from engine.landing.contract import converted
from engine.quarantine import replay, rows
from tests.landing.world import Shop, shop
from tests.run.world import T

FIRST = pl.DataFrame({"id": [1, 2], "v": [1.5, 2.5]})


class Lake:
    """A folder of Parquet files that a pipeline reads as the source ``s``."""

    def __init__(self, folder: Path, form: str = "parquet") -> None:
        self.folder, self.form = folder, form

    def put(self, *frames: pl.DataFrame) -> None:
        for old in self.folder.glob(f"in-*.{self.form}"):
            old.unlink()
        for number, frame in enumerate(frames):
            getattr(frame, f"write_{self.form}")(self.folder / f"in-{number}.{self.form}")

    def pipeline(self, contract: Any, **keys: Any) -> Pipeline:
        source = {"type": "file", "path": f"in-*.{self.form}", **({"contract": contract} if contract else {}), **keys}
        return Pipeline(base=self.folder, name="p", sources={"s": source})

    def run(self, contract: Any = None, **keys: Any) -> RunReport:
        return run_pipeline(self.pipeline(contract, **keys), as_of=T)

    def landed(self) -> pl.DataFrame:
        read = Shop(self.folder).read()
        return pl.concat([pl.read_parquet(self.folder / ".maestro" / file.path) for file in read.files])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    lake.put(FIRST)
    return lake


def changes(report: RunReport) -> list[tuple[Any, ...]]:
    return [tuple(change.values()) for change in report.sources[0].metrics.schema_changes]


WIDER = pl.DataFrame({"id": [1, 2, 3], "v": ["1.5", "x", None], "new": [None, None, "n"]})


def test_evolve_takes_what_comes_and_says_so(lake: Lake) -> None:
    assert changes(lake.run()) == []
    lake.put(WIDER)
    report = lake.run("evolve")
    assert changes(report) == [
        ("v", "retyped", "Float64", "String", "accepted"),
        ("new", "added", None, "String", "accepted"),
    ]
    assert lake.landed().equals(WIDER)
    lake.put(WIDER.select("id", "v"))
    assert changes(lake.run()) == [("new", "removed", "String", None, "accepted")]
    assert json.loads(json.dumps(report.to_dict()))["sources"][0]["metrics"]["schema_changes"][1] == {
        "column": "new",
        "change": "added",
        "before": None,
        "after": "String",
        "action": "accepted",
    }


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FIRST.with_columns(new=pl.lit(1)), "column 'new' (Int32) is new"),
        (FIRST.select("id"), "column 'v' (Float64) is gone"),
        (FIRST.with_columns(v=pl.lit("1.5")), "column 'v' is String now; it was Float64"),
        (FIRST.with_columns(id=pl.lit(2**63, pl.UInt64)), "column 'id' is UInt64 now; it was Int64"),
    ],
)
def test_freeze_refuses_a_change_and_the_table_stays(lake: Lake, frame: pl.DataFrame, message: str) -> None:
    lake.run("freeze")
    lake.put(FIRST, frame)
    with pytest.raises(SourceError) as caught:
        lake.run("freeze")
    assert caught.value.code == "source.contract"
    assert message in caught.value.message
    assert "in-1.parquet" in caught.value.message
    assert caught.value.allowed == "id: Int64; v: Float64"
    assert lake.landed().equals(FIRST)


def test_freeze_takes_what_its_types_hold(lake: Lake) -> None:
    lake.run("freeze")
    narrow = FIRST.with_columns(pl.col("id").cast(pl.Int16), pl.col("v").cast(pl.Int64))
    lake.put(narrow, FIRST.with_columns(v=pl.lit(None)))
    report = lake.run("freeze")
    assert lake.landed()["v"].to_list() == [1.0, 2.0, None, None]
    assert lake.landed().schema == FIRST.schema
    assert changes(report) == [
        ("id", "retyped", "Int64", "Int16 or Int64", "cast"),
        ("v", "retyped", "Float64", "Int64", "cast"),
    ]
    lake.put(FIRST.with_columns(v=pl.lit(2**53 + 1, pl.Int64)))
    with pytest.raises(SourceError, match=r"which 2 values are not, the first in row 0"):
        lake.run("freeze")


def test_freeze_of_records_sees_the_whole_extraction(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "ndjson")
    lake.put(pl.DataFrame({"id": [1], "v": ["a"]}))
    lake.run("freeze")
    lake.put(pl.DataFrame({"id": [1]}), pl.DataFrame({"id": [2], "v": ["b"]}))
    lake.run("freeze")
    assert lake.landed().rows() == [(1, None), (2, "b")]
    lake.put(pl.DataFrame({"id": [1]}), pl.DataFrame({"id": [2]}))
    with pytest.raises(SourceError, match=r"column 'v' \(String\) is gone"):
        lake.run("freeze")


def test_discard_columns_leaves_out_columns_and_values(lake: Lake) -> None:
    lake.run("discard_columns")
    lake.put(WIDER)
    report = lake.run("discard_columns")
    assert lake.landed().equals(pl.DataFrame({"id": [1, 2, 3], "v": [1.5, None, None]}))
    assert report.sources[0].metrics.values_discarded == {"v": 1}
    assert changes(report) == [
        ("v", "retyped", "Float64", "String", "discarded"),
        ("new", "added", None, "String", "discarded"),
    ]
    lake.put(FIRST.select("v"))
    assert changes(lake.run("discard_columns"))[0] == ("id", "removed", "Int64", None, "null")
    assert lake.landed().equals(pl.DataFrame({"id": pl.Series([None, None], dtype=pl.Int64), "v": [1.5, 2.5]}))


def test_discard_rows_sets_them_aside_as_they_were(lake: Lake) -> None:
    lake.run("discard_rows")
    lake.put(WIDER[:1], WIDER[1:])
    report = lake.run("discard_rows", critical_columns=["id"])
    metrics, balance = report.sources[0].metrics, report.sources[0].balance
    assert lake.landed().equals(pl.DataFrame({"id": [1], "v": [1.5]}))
    assert metrics.failed_by_column == {"id": 0, "contract.v": 1, "contract.new": 1}
    assert (balance.read, balance.passed, balance.quarantined) == (3, 1, 2)
    held = rows(lake.pipeline("discard_rows"), source="s").collect()
    assert held.select("id", "v", "new").rows() == [(2, "x", None), (3, None, "n")]
    reasons = held["quarantine"].struct
    assert reasons["checks"].to_list() == [["contract.v"], ["contract.new"]]
    assert reasons["row"].to_list() == [0, 1]
    assert all(origin.endswith("in-1.parquet") for origin in reasons["origin"])


def test_rows_that_are_read_again_are_set_aside_once(tmp_path: Path) -> None:
    """The cursor goes no further than the rows that landed: those beyond it come in each read."""
    contract = {"on_change": "discard_rows", "columns": {"id": "int", "at": "int", "v": "int"}}
    connection = f"sqlite:///{tmp_path / 'app.db'}"
    source = {"type": "database", "connection_string": connection, "table": "t", "cursor": "at", "contract": contract}
    declared = Pipeline(base=tmp_path, name="p", sources={"s": source})
    for more, failed, repeated in (
        ([(1, 1, "1"), (2, 2, "x"), (2, 2, "x")], 2, 0),
        ([], 0, 3),
        ([(2, 2, "x"), (3, 3, None), (4, 4, "y")], 2, 3),
        ([], 0, 2),
    ):
        with closing(sqlite3.connect(tmp_path / "app.db")) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER, at INTEGER, v TEXT)")
            database.executemany("INSERT INTO t VALUES (?, ?, ?)", more)
        metrics = run_pipeline(declared, as_of=T).sources[0].metrics
        assert (metrics.records_failed, metrics.duplicates_removed) == (failed, repeated)
    held = rows(declared, source="s").collect()
    assert sorted(held.select("id", "v").rows()) == [(2, "x"), (2, "x"), (2, "x"), (4, "y")]


def test_rows_set_aside_come_back_once_the_contract_takes_them(lake: Lake) -> None:
    lake.run("discard_rows")
    lake.put(FIRST.with_columns(new=pl.Series([None, "n"])))
    lake.run("discard_rows")
    assert lake.landed()["id"].to_list() == [1]
    replay(lake.pipeline("evolve"), as_of=T)
    assert sorted(lake.landed().rows(), key=str) == [(1, 1.5, None), (2, 2.5, "n")]


def test_declared_types_and_defaults(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "csv")
    lake.put(pl.DataFrame({"id": ["007", "8"], "at": ["2025-01-01T10:00:00+02:00", None], "ok": ["true", " False"]}))
    contract = {
        "on_change": "freeze",
        "columns": {
            "id": "int",
            "at": {"type": "datetime", "default": "1970-01-01"},
            "ok": "bool",
            "price": {"type": "decimal(5,2)", "default": "1.10"},
        },
    }
    report = lake.run(contract)
    assert lake.landed().to_dicts() == [
        {"id": 7, "at": datetime(2025, 1, 1, 8, tzinfo=UTC), "ok": True, "price": Decimal("1.10")},
        {"id": 8, "at": datetime(1970, 1, 1, tzinfo=UTC), "ok": False, "price": Decimal("1.10")},
    ]
    assert lake.landed().schema == {
        "id": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
        "ok": pl.Boolean,
        "price": pl.Decimal(5, 2),
    }
    assert changes(lake.run(contract)) == [], "a cast is no change"
    assert report.sources[0].metrics.columns["ok"] == "String"
    lake.put(pl.DataFrame({"id": ["007", "8x"], "at": [None, None], "ok": ["true", "no"]}))
    with pytest.raises(SourceError, match="column 'id' is declared Int64, which 1 values are not, the first in row 1"):
        lake.run(contract)
    report = lake.run({**contract, "on_change": "discard_columns"})
    assert lake.landed().select("id", "ok").rows() == [(7, True), (None, None)]
    assert report.sources[0].metrics.values_discarded == {"id": 1, "ok": 1}


def test_columns_that_the_declaration_needs_are_taken(lake: Lake) -> None:
    contract = {"on_change": "discard_columns", "columns": {"v": "float"}}
    lake.run(contract, deduplicate={"keys": ["id"]})
    assert lake.landed().columns == ["v", "id"]


# --- databases ----------------------------------------------------------------------------------------------------


def test_a_table_that_is_added_to_keeps_its_contract(tmp_path: Path) -> None:
    made = shop(tmp_path, "id INTEGER, v INTEGER")
    made.insert({"id": 1, "v": 1})
    source = {"cursor": "id", "deduplicate": {"keys": ["id"]}, "mode": "append"}
    made.run({**source, "contract": "freeze"})
    made.sql("ALTER TABLE t ADD COLUMN note TEXT")
    made.insert({"id": 2, "v": 2, "note": "n"})
    with pytest.raises(SourceError, match=r"column 'note' \(String\) is new"):
        made.run({**source, "contract": "freeze"})
    report = made.run({**source, "contract": "discard_rows"})
    metrics = report.sources[0].metrics
    assert (metrics.records_read, metrics.records_failed, metrics.rows) == (2, 1, 1)
    assert metrics.failed_by_column == {"contract.note": 1}
    assert made.landed() == [{"id": 1, "v": 1}]
    again = made.run({**source, "contract": "discard_columns"}).sources[0].metrics
    assert again.rows == 2
    assert made.landed() == [{"id": 1, "v": 1}, {"id": 2, "v": 2}]
    assert made.run({**source, "contract": "evolve"}).sources[0].metrics.rows == 2
    assert made.landed() == [{"id": 1, "v": 1, "note": None}, {"id": 2, "v": 2, "note": "n"}]


def test_declared_types_shape_the_table(tmp_path: Path) -> None:
    made = shop(tmp_path, "id INTEGER, v TEXT")
    made.insert({"id": 1, "v": "1.50"}, {"id": 2, "v": "2.505"})
    columns = {"v": "decimal(9,2)"}
    metrics = made.run({"contract": {"on_change": "discard_columns", "columns": {"id": "Int32", **columns}}}).sources[0]
    assert made.landed() == [{"id": 1, "v": Decimal("1.50")}, {"id": 2, "v": None}]
    assert metrics.metrics.values_discarded == {"v": 1}
    source = {"cursor": "id", "mode": "append"}
    made.run({**source, "contract": {"on_change": "discard_columns", "columns": {"id": "int", **columns}}})
    with pytest.raises(SourceError, match="its declaration has changed"):
        made.run({**source, "contract": {"on_change": "discard_columns", "columns": {"id": "int", "v": "string"}}})


# --- declarations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "place", "message"),
    [
        ("frozen", "contract", "contract: not an allowed value, got the text 'frozen'"),
        ({"on_change": "freez"}, "contract.on_change", "not an allowed value"),
        ({"colums": {}}, "contract.colums", "unknown key 'colums'"),
        ({"columns": {"a": "integer"}}, "contract.columns.a", "not written as it must be"),
        ({"columns": {"a": {"type": "int", "default": "x"}}}, "contract.columns.a", "the default 'x' is no int"),
        ({"columns": {"a": {"type": "UInt8", "default": 256}}}, "contract.columns.a", "the default 256 is no UInt8"),
        ({"columns": {"a": {"type": "date", "default": "2025-02-30"}}}, "contract.columns.a", "is no date"),
        ({"columns": {"a": "decimal(40,2)"}}, "contract.columns.a", "at most 38 digits"),
        ({"columns": {"old": "int"}}, "contract.columns.old", "'old' is renamed by column_mapping"),
    ],
)
def test_mistakes_in_a_contract(contract: Any, place: str, message: str) -> None:
    source = {"type": "file", "path": "a.csv", "column_mapping": {"old": "renamed"}, "contract": contract}
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="p", sources={"s": source})
    [problem] = caught.value.problems
    assert message in problem.message
    assert ".".join(map(str, problem.path)).startswith(f"sources.s.{place}")


def test_both_doors_and_both_forms_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: p\nsources: {s: {type: file, path: a.csv, contract: freeze}}\n")
    source = {"type": "file", "path": "a.csv", "contract": {"on_change": "freeze"}}
    assert load_pipeline(path) == Pipeline(name="p", sources={"s": source})


# --- casts --------------------------------------------------------------------------------------------------------


def cast(values: list[Any], came: Any, wanted: Any) -> list[Any]:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=came)})
    value, wrong = converted(pl.col("x"), frame.schema["x"], wanted)
    found = frame.select(value.alias("value"), (pl.lit(False) if wrong is None else wrong).alias("wrong"))
    assert found.schema["value"] == wanted
    return ["wrong" if bad else value for value, bad in found.rows()]


W = "wrong"
NS = datetime(2025, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("values", "came", "wanted", "found"),
    [
        (["1", " 2", "1.0", "x", None, str(2**63)], pl.String, pl.Int64(), [1, 2, W, W, None, W]),
        (["1.5", "1e400", "inf", "", None], pl.String, pl.Float64(), [1.5, W, float("inf"), W, None]),
        (
            ["1.2", "1.239", " -7.100 ", "1e2", "12345678.00", "1" * 30],
            pl.String,
            pl.Decimal(10, 2),
            [Decimal("1.20"), W, Decimal("-7.10"), W, Decimal("12345678.00"), W],
        ),
        (["1" * 30 + ".5"], pl.String, pl.Decimal(38, 2), [Decimal("1" * 30 + ".50")]),
        (["true", "FALSE", "1", None], pl.String, pl.Boolean(), [True, False, W, None]),
        ([1, 0, 2, None], pl.Int64, pl.Boolean(), [True, False, W, None]),
        ([1.0, 1.5, float("nan"), 1e300, None], pl.Float64, pl.Int64(), [1, W, W, W, None]),
        ([1, 2**53 + 1, 2**63 - 1], pl.Int64, pl.Float64(), [1.0, W, W]),
        ([1, 300, -1], pl.Int64, pl.UInt8(), [1, W, W]),
        ([1, -1], pl.Int16, pl.UInt64(), [1, W]),
        ([0.1, 0.123], pl.Float64, pl.Decimal(5, 2), [Decimal("0.10"), W]),
        ([Decimal("1.50"), Decimal("1.55")], pl.Decimal(5, 2), pl.Decimal(5, 1), [Decimal("1.5"), W]),
        ([0.5, 0.1], pl.Float64, pl.Float32(), [0.5, W]),
        (["2025-01-01", "2025-02-30", "2025-01-01T00:00:00"], pl.String, pl.Date(), [date(2025, 1, 1), W, W]),
        ([date(2025, 1, 1)], pl.Date, pl.Datetime("us", "UTC"), [datetime(2025, 1, 1, tzinfo=UTC)]),
        ([NS, NS.replace(hour=1)], pl.Datetime("us"), pl.Date(), [date(2025, 1, 1), W]),
        ([NS, None], pl.Datetime("us"), pl.Datetime("us", "UTC"), [NS.replace(tzinfo=UTC), None]),
        ([1735689600000000000, 1735689600000000001], pl.Datetime("ns"), pl.Datetime("us"), [NS, W]),
        ([1, None], pl.Int64, pl.String(), ["1", None]),
        ([[1], None], pl.List(pl.Int64), pl.String(), [W, None]),
        ([1], pl.Int64, pl.Date(), [W]),
        ([1], pl.Int64, pl.Datetime("us", "UTC"), [W]),
        ([True], pl.Boolean, pl.Int64(), [1]),
        ([b"1"], pl.Binary, pl.Int64(), [W]),
        ([None], pl.Null, pl.Int64(), [None]),
    ],
)
def test_a_value_is_cast_exactly_or_does_not_fit(values: list[Any], came: Any, wanted: Any, found: list[Any]) -> None:
    assert cast(values, came, wanted) == found


INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


@given(
    number=st.integers(-(2**63), 2**64 - 1),
    came=st.sampled_from(INTEGERS),
    wanted=st.sampled_from((*INTEGERS, pl.Float64, pl.Float32, pl.String)),
)
def test_integers_stay_the_number_that_they_are(number: int, came: Any, wanted: Any) -> None:
    low, high = pl.select(pl.lit(0, came).lower_bound().alias("l"), pl.lit(0, came).upper_bound().alias("h")).row(0)
    number = min(max(number, low), high)
    [found] = cast([number], came, wanted())
    if found == W:
        assert wanted != pl.String
        if wanted in (pl.Float32, pl.Float64):
            assert int(float(number)) != number or wanted == pl.Float32 or abs(number) > 2**62
        else:
            low, high = pl.select(l=pl.lit(0, wanted).lower_bound(), h=pl.lit(0, wanted).upper_bound()).row(0)
            assert not low <= number <= high
    else:
        assert int(found) == number

"""The seed's ingestion calls, each against a real server: what the Parquet file holds, and what the metrics say."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, MaestroError, SinkError, SourceError, UsageError
from engine.ingestion import (
    APIIngestion,
    DatabaseIngestion,
    DataSourceType,
    IngestionConfig,
    IngestionMetrics,
    S3Ingestion,
)
from tests.servers import rest
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph
from tests.servers.rest import Answer

ROWS: list[tuple[Any, ...]] = [
    ("u1", "a@x", 1.5, "2025-10-01"),
    ("u2", "b@x", None, "2025-10-02"),
    (None, "c@x", 2.0, "2025-10-03"),
    ("u1", "a@y", 3.5, "2025-10-04"),
    ("ü3", None, 4.0, "2025-10-04"),
    (None, None, 5.0, "2025-10-05"),
]
STAMP = ("ingestion_timestamp", pl.Datetime("us", "UTC"))
MAPPING = {"id": "user_id"}
LAST = {"keys": ["user_id"], "order_by": "updated_at"}


@pytest.fixture
def app(tmp_path: Path) -> str:
    """A SQLite database with the table ``users``."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE users (id TEXT, email TEXT, years REAL, updated_at TEXT)")
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", ROWS)
        connection.execute("CREATE TABLE nobody (id TEXT, n INTEGER)")
    return f"sqlite:///{tmp_path / 'app.db'}"


def database(app: str, target: Path | str, /, table: str = "users", **keys: Any) -> DatabaseIngestion:
    """The ingestion of a table; keys of `IngestionConfig` stay beside ``source_config``."""
    beside = {name: keys.pop(name) for name in list(keys) if name in IngestionConfig.__dataclass_fields__}
    source = {"connection_string": app, "table": table, **keys}
    return DatabaseIngestion(IngestionConfig(DataSourceType.DATABASE, source, target, **beside))


def counts(metrics: IngestionMetrics) -> tuple[int, int, int, int]:
    """read, written, failed, duplicates."""
    m = metrics
    return m.records_read, m.records_written, m.records_failed, m.duplicates_removed


# --- what is written ----------------------------------------------------------------------------------------------


def test_a_table_becomes_a_parquet_file(app: str, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    ingestion = database(
        app,
        tmp_path / "lake" / "users.parquet",
        column_mapping=MAPPING,
        required_columns=["user_id", "email"],
        critical_columns=["user_id"],
        deduplicate=LAST,
    )
    metrics = ingestion.run()
    frame = pl.read_parquet(tmp_path / "lake" / "users.parquet", hive_partitioning=False)
    assert list(frame.schema.items()) == [
        ("user_id", pl.String),
        ("email", pl.String),
        ("years", pl.Float64),
        ("updated_at", pl.String),
        STAMP,
        ("source", pl.String),
    ]
    assert frame.drop("ingestion_timestamp").rows() == [
        ("u2", "b@x", None, "2025-10-02", "database"),
        ("u1", "a@y", 3.5, "2025-10-04", "database"),
        ("ü3", None, 4.0, "2025-10-04", "database"),
    ]
    [stamp] = frame["ingestion_timestamp"].unique()
    assert before <= stamp <= datetime.now(UTC)
    assert counts(metrics) == (6, 3, 2, 1)
    assert metrics.error_rate == 2 / 6
    assert metrics.failed_by_column == {"user_id": 2}
    assert metrics.bytes_processed > 0
    assert 0 < metrics.duration_seconds < 60
    assert ingestion.metrics is metrics
    assert [p.name for p in (tmp_path / "lake").iterdir()] == ["users.parquet"], "nothing but the file is left"


def test_metrics_are_json_with_the_names_of_the_seed(app: str, tmp_path: Path) -> None:
    metrics = database(app, tmp_path / "out.parquet", critical_columns=["id", "email"]).run()
    said = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    names = ["records_read", "records_written", "records_failed", "duplicates_removed"]
    assert [said[name] for name in names] == [6, 3, 3, 0]
    assert said["failed_by_column"] == {"id": 2, "email": 2}, "a row may count in several"
    assert said["error_rate"] == metrics.error_rate == 0.5
    assert said["bytes_processed"] == metrics.bytes_processed
    assert said["duration_seconds"] == pytest.approx(metrics.duration_seconds, abs=1e-6)
    assert isinstance(metrics, IngestionMetrics)


def test_a_query_a_relative_target_and_types_as_text(app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"connection_string": "sqlite:///app.db", "query": "SELECT id, years * 2 AS twice FROM users LIMIT 2"}
    DatabaseIngestion(IngestionConfig("database", source, "here/q.parquet")).run()
    frame = pl.read_parquet(tmp_path / "here" / "q.parquet")
    assert frame.select("id", "twice").rows() == [("u1", 3.0), ("u2", None)]


def test_rows_keep_their_order_over_many_batches(app: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE many (n INTEGER)")
        connection.executemany("INSERT INTO many VALUES (?)", [(n,) for n in range(10_000, 0, -1)])
    metrics = database(app, tmp_path / "many.parquet", "many", batch_size=700).run()
    assert counts(metrics) == (10_000, 10_000, 0, 0)
    assert pl.read_parquet(tmp_path / "many.parquet")["n"].to_list() == list(range(10_000, 0, -1))


def test_an_empty_table_gives_an_empty_file(app: str, tmp_path: Path) -> None:
    metrics = database(app, tmp_path / "out.parquet", "nobody", critical_columns=["id"]).run()
    assert (counts(metrics), metrics.error_rate) == ((0, 0, 0, 0), 0.0)
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame.height == 0
    assert frame.columns == ["id", "n", "ingestion_timestamp", "source"]
    assert frame.schema["n"] == pl.Int64


def test_a_rest_resource_becomes_a_parquet_file(tmp_path: Path) -> None:
    tasks = [
        {"task_id": f"t{n % 5}", "title": f"☃ {n}", "hours": n / 2, "tags": ["a", None], "by": {"id": n}}
        for n in range(6)
    ]
    answers = [Answer(status=503, headers={"Retry-After": "0"}), Answer({"result": {"items": tasks}})]
    with rest.running(lambda _: answers.pop(0)) as server:
        config = IngestionConfig(
            source_type=DataSourceType.API,
            source_config={
                "url": f"{server.url}/v1/tasks?state=open&token=very-secret-token",
                "headers": {"Authorization": "Bearer also-very-secret"},
                "data_key": "result.items",
                "deduplicate": {"keys": ["task_id"]},
            },
            target_path=tmp_path / "tasks.parquet",
        )
        metrics = APIIngestion(config).run()
        assert server.requests[-1].headers["Authorization"] == "Bearer also-very-secret"
    assert counts(metrics) == (6, 5, 0, 1)
    frame = pl.read_parquet(tmp_path / "tasks.parquet")
    assert frame.columns == ["task_id", "title", "hours", "tags", "by", "ingestion_timestamp", "source", "source_url"]
    assert frame.schema["ingestion_timestamp"] == STAMP[1]
    assert frame.select("task_id", "title", "hours", "tags", "by").to_dicts() == tasks[1:], "the later t0 stays"
    assert frame.select("source", "source_url").unique().rows() == [("api", f"{server.url}/v1/tasks")]
    assert b"very-secret" not in (tmp_path / "tasks.parquet").read_bytes()


def test_objects_become_a_parquet_file(ceph_server: Ceph, tmp_path: Path) -> None:
    """One test, since the store takes its time to come up."""
    store = ceph_server.store()
    moment = datetime(2025, 10, 4, 12, 30, tzinfo=UTC)
    for name, ids in {"a": ["p1", None], "b": ["p2", "p1"]}.items():
        part = pl.DataFrame({"id": ids, "at": [moment] * 2, "file": [name] * 2})
        buffer = io.BytesIO()
        part.write_parquet(buffer)
        store.pipe(f"{BUCKET}/ingestion/{name}.parquet", buffer.getvalue())
    access = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "endpoint_url": ceph_server.url, "bucket": BUCKET}
    target = tmp_path / "projects.parquet"

    def ingest(key: str, **keys: Any) -> IngestionMetrics:
        return S3Ingestion(IngestionConfig(DataSourceType.S3, {**access, "key": key, **keys}, target)).run()

    metrics = ingest("ingestion/a.parquet")
    assert counts(metrics) == (2, 2, 0, 0)
    assert pl.read_parquet(target).select("source", "source_bucket", "source_key").unique().rows() == [
        ("s3", BUCKET, "ingestion/a.parquet")
    ]
    metrics = ingest("ingestion/*.parquet", column_mapping={"id": "project_id"}, critical_columns=["project_id"])
    assert counts(metrics) == (4, 3, 1, 0)
    frame = pl.read_parquet(target)
    assert list(frame.schema.items()) == [
        ("project_id", pl.String),
        ("at", pl.Datetime("us", "UTC")),
        ("file", pl.String),
        STAMP,
        ("source", pl.String),
        ("source_bucket", pl.String),
        ("source_key", pl.String),
    ]
    assert frame.drop("ingestion_timestamp").rows() == [
        ("p1", moment, "a", "s3", BUCKET, "ingestion/*.parquet"),
        ("p2", moment, "b", "s3", BUCKET, "ingestion/*.parquet"),
        ("p1", moment, "b", "s3", BUCKET, "ingestion/*.parquet"),
    ]
    whole = target.read_bytes()
    with pytest.raises(SourceError, match="nothing is there"):
        ingest("ingestion/none.parquet")
    with pytest.raises(SourceError, match="refused access") as caught:
        ingest("ingestion/a.parquet", secret_key="wrong-secret-key", max_retries=0)
    assert "wrong-secret-key" not in f"{caught.value}{caught.value.to_dict()}"
    assert target.read_bytes() == whole


# --- switches -----------------------------------------------------------------------------------------------------


def test_validation_enabled_leaves_out_rows_without_a_critical_value(app: str, tmp_path: Path) -> None:
    on = database(app, tmp_path / "on.parquet", critical_columns=["id"]).run()
    off = database(app, tmp_path / "off.parquet", critical_columns=["id"], validation_enabled=False).run()
    assert (counts(on), counts(off)) == ((6, 4, 2, 0), (6, 6, 0, 0))
    assert pl.read_parquet(tmp_path / "on.parquet")["id"].null_count() == 0
    assert pl.read_parquet(tmp_path / "off.parquet")["id"].null_count() == 2


def test_deduplication_enabled_keeps_the_last_row_per_key(app: str, tmp_path: Path) -> None:
    rule = {"keys": ["id"], "order_by": "updated_at"}
    on = database(app, tmp_path / "on.parquet", deduplicate=rule).run()
    off = database(app, tmp_path / "off.parquet", deduplicate=rule, deduplication_enabled=False).run()
    assert (counts(on), counts(off)) == ((6, 5, 0, 1), (6, 6, 0, 0))
    assert pl.read_parquet(tmp_path / "on.parquet")["email"].to_list() == ["b@x", "c@x", "a@y", None, None]
    assert pl.read_parquet(tmp_path / "off.parquet")["email"].to_list() == [row[1] for row in ROWS]


def test_schema_enforcement_needs_the_required_columns(app: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'user_id', which required_columns names") as caught:
        database(app, tmp_path / "on.parquet", required_columns=["user_id"]).run()
    assert caught.value.code == "source.missing_column"
    assert caught.value.fix
    assert not (tmp_path / "on.parquet").exists()
    off = database(app, tmp_path / "off.parquet", required_columns=["user_id"], schema_enforcement=False)
    assert counts(off.run()) == (6, 6, 0, 0)


# --- whole files only ---------------------------------------------------------------------------------------------


def test_a_second_run_replaces_the_file(app: str, tmp_path: Path) -> None:
    ingestion = database(app, tmp_path / "users.parquet")
    ingestion.run()
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("DELETE FROM users WHERE id IS NULL")
    assert counts(ingestion.run()) == (4, 4, 0, 0)
    assert pl.read_parquet(tmp_path / "users.parquet").height == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app.db", "users.parquet"]


@pytest.mark.parametrize("failing", ["source", "writing"])
def test_a_failing_run_leaves_the_earlier_file(
    app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "lake" / "users.parquet"
    database(app, target).run()
    whole = target.read_bytes()
    if failing == "source":
        with pytest.raises(SourceError):
            database(app, target, "gone").run()
    else:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
        with pytest.raises(MaestroError) as caught:
            database(app, target).run()
        assert caught.value.exit_code == 3
        assert caught.value.fix
    assert target.read_bytes() == whole
    assert [p.name for p in target.parent.iterdir()] == ["users.parquet"]
    assert pq.read_table(target).num_rows == len(ROWS)


@pytest.mark.parametrize("target", ["folder", "app.db/users.parquet"])
def test_a_target_that_cannot_be_written_is_the_sinks_error(app: str, tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SinkError) as caught:
        database(app, tmp_path / target).run()
    assert (caught.value.code, caught.value.where) == ("output.unwritable", str(tmp_path / target))
    assert caught.value.fix
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app.db", "folder"]


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [DataSourceType.S3, "api", "file", "databse", None])
def test_another_source_type_is_refused(app: str, given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        DatabaseIngestion(IngestionConfig(given, {"connection_string": app, "table": "users"}, "out.parquet"))
    assert caught.value.code == "ingestion.source_type"
    assert caught.value.fix == "set source_type=DataSourceType.DATABASE"


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        ({"tabel": "users"}, "source_config.tabel", "did you mean 'table'?"),
        ({"query": "SELECT 1"}, "source_config.query", "exactly one of table, query"),
        ({"connection_string": "oracle://x"}, "source_config.connection_string", "sqlite:///"),
        ({"critical_columns": "id"}, "source_config.critical_columns", "list"),
        ({"column_mapping": MAPPING, "critical_columns": ["id"]}, "source_config.critical_columns[0]", "'user_id'"),
        ({"deduplicate": {"keys": []}}, "source_config.deduplicate.keys", "keys"),
        ({"batch_size": 0}, "batch_size", ">= 1"),
        ({"max_retries": -1}, "max_retries", ">= 0"),
        ({"timeout_seconds": "5"}, "timeout_seconds", "a number > 0"),
    ],
)
def test_a_mistake_in_the_configuration_is_refused_before_anything_is_read(
    app: str, tmp_path: Path, keys: dict[str, Any], where: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        database(app, tmp_path / "out.parquet", **keys)
    assert caught.value.where == where
    assert caught.value.fix
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source_config", "sqlite:///user:hunter2@app.db"),
        ("target_path", ""),
        ("target_path", None),
        ("validation_enabled", "no"),
        ("deduplication_enabled", 0),
        ("schema_enforcement", None),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: Any) -> None:
    keys = {"source_config": {}, "target_path": "out.parquet", name: value}
    with pytest.raises(UsageError) as caught:
        IngestionConfig(source_type=DataSourceType.DATABASE, **keys)
    assert (caught.value.code, caught.value.where) == ("ingestion.value", name)
    assert "hunter2" not in str(caught.value)


def test_a_type_among_the_keys_must_agree(app: str) -> None:
    keys = {"connection_string": app, "table": "users"}
    assert DatabaseIngestion(IngestionConfig("database", {**keys, "type": "database"}, "out.parquet"))
    with pytest.raises(UsageError, match="not api"):
        DatabaseIngestion(IngestionConfig("database", {**keys, "type": "api"}, "out.parquet"))


def test_a_column_of_the_data_is_never_overwritten(app: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        database(app, tmp_path / "out.parquet", column_mapping={"email": "source"}).run()
    assert caught.value.code == "source.column_clash"
    assert caught.value.fix == "give it another name: column_mapping={'source': 'source_source'}"
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"table": "usres"}, "source.missing_table"),
        ({"connection_string": "sqlite:///none.db"}, "source.missing_file"),
        ({"critical_columns": ["user_id"]}, "source.missing_column"),
        ({"column_mapping": {"uid": "user_id"}}, "source.missing_column"),
        ({"deduplicate": {"keys": ["uid"]}}, "source.missing_column"),
        ({"column_mapping": {"id": "email"}}, "source.mapping_collision"),
    ],
)
def test_what_the_source_lacks_is_named(app: str, tmp_path: Path, keys: dict[str, Any], code: str) -> None:
    with pytest.raises(SourceError) as caught:
        database(app, tmp_path / "out.parquet", **keys).run()
    assert caught.value.code == code
    assert caught.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["app.db"]


def test_a_resource_without_records_is_an_empty_file(tmp_path: Path) -> None:
    with rest.running(lambda _: Answer({"data": []})) as server:
        keys = {"url": server.url, "critical_columns": ["id"]}
        metrics = APIIngestion(IngestionConfig(DataSourceType.API, keys, tmp_path / "out.parquet")).run()
    assert (metrics.records_read, metrics.records_written, metrics.error_rate) == (0, 0, 0.0)
    assert pl.read_parquet(tmp_path / "out.parquet").columns[0] == "id"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer({"items": []}), "source.data_key"),
        (Answer(b"<html>"), "source.not_json"),
        (Answer(status=404), None),
    ],
)
def test_a_resource_that_cannot_be_read(tmp_path: Path, answer: Answer, code: str | None) -> None:
    with rest.running(lambda _: answer) as server:
        config = IngestionConfig(DataSourceType.API, {"url": server.url}, tmp_path / "out.parquet", max_retries=0)
        with pytest.raises(SourceError) as caught:
            APIIngestion(config).run()
    assert code is None or caught.value.code == code
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_no_secret_in_what_is_printed_of_an_ingestion(tmp_path: Path) -> None:
    url = "postgresql://app:hunter2-pa55word@127.0.0.1:1/db"
    config = IngestionConfig("database", {"connection_string": url, "table": "t"}, tmp_path / "x", max_retries=0)
    ingestion = DatabaseIngestion(config)
    with pytest.raises(SourceError) as caught:
        ingestion.run()
    assert "127.0.0.1" in str(caught.value)
    shown = f"{config!r} {ingestion!r} {ingestion.spec!r} {caught.value} {caught.value.to_dict()}"
    assert "hunter2" not in shown

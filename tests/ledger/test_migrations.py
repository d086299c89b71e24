"""A ledger of an earlier version is brought up to date, whole or not at all; one of a later version is refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import LedgerError
from engine.history import history, verify_files
from engine.ledger import Ledger, migrations
from engine.plan import compile_plan
from tests.ledger.books import FILE, begin, own_database, piece_of, read_of
from tests.run.world import DAY, T, files, pipeline, published, run, write_world

# As version 1 of the ledger wrote them.
VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE runs (
    run_id VARCHAR NOT NULL, pipeline VARCHAR NOT NULL, status VARCHAR NOT NULL, as_of JSON NOT NULL,
    created_timestamp VARCHAR NOT NULL, finished_at VARCHAR, plan JSON NOT NULL, error JSON, PRIMARY KEY (run_id)
);
CREATE TABLE reads (
    run_id VARCHAR NOT NULL, source VARCHAR NOT NULL, location VARCHAR NOT NULL, metrics JSON NOT NULL,
    state VARCHAR NOT NULL, report JSON, PRIMARY KEY (run_id, source), FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE chunks (
    run_id VARCHAR NOT NULL, source VARCHAR NOT NULL, number INTEGER NOT NULL, path VARCHAR NOT NULL,
    PRIMARY KEY (run_id, source, number), FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE fits (
    pipeline VARCHAR NOT NULL, view VARCHAR NOT NULL, version INTEGER NOT NULL, run_id VARCHAR NOT NULL,
    as_of VARCHAR NOT NULL, fit JSON NOT NULL, PRIMARY KEY (pipeline, view, version),
    FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE published (
    pipeline VARCHAR NOT NULL, view VARCHAR NOT NULL, as_of VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    path VARCHAR NOT NULL, rows INTEGER NOT NULL, definition VARCHAR NOT NULL, created_timestamp VARCHAR NOT NULL,
    state VARCHAR NOT NULL, PRIMARY KEY (pipeline, view, as_of), FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO schema_version VALUES (1);
"""
OLD_RUNS = ("20251001T000000Z-aaaaaaaa", "20251002T000000Z-bbbbbbbb")
FACTS = {
    "runs": [
        (OLD_RUNS[0], "small", "blocked", '["2025-10-01T00:00:00Z"]', "2025-10-01T06:00:00Z", "2025-10-01T06:00:01Z", "{}", "null"),
        (OLD_RUNS[1], "small", "done", '["2025-10-02T00:00:00Z"]', "2025-10-02T06:00:00Z", "2025-10-02T06:00:01Z", '{"a": 1}', "null"),
    ],
    "reads": [
        (OLD_RUNS[0], "users", "users.parquet", '{"records_read": 5}', "blocked", '{"ok": false}'),
        (OLD_RUNS[1], "users", "users.parquet", '{"records_read": 7}', "accepted", "null"),
        (OLD_RUNS[1], "activities", "a.parquet", '{"records_read": 8}', "accepted", "null"),
    ],
    "chunks": [(OLD_RUNS[1], "users", 0, "landing/small/users/old.parquet")],
}  # fmt: skip


def make_version_1(workdir: Path, facts: dict[str, list[tuple[Any, ...]]]) -> None:
    workdir.mkdir(parents=True)
    with closing(sqlite3.connect(workdir / "ledger.db")) as connection, connection:
        connection.executescript(VERSION_1)
        for table, rows in facts.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def tables_of(workdir: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(workdir / "ledger.db")) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for (name,) in names}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A project whose last two runs were of version 1: its ledger, its landed and its published file, its fit."""
    write_world(tmp_path)
    features = {"user_features": {"handle_missing": "impute", "normalize": True}}
    run(tmp_path, T - 2 * DAY, features=features)
    [file] = files(tmp_path)
    with Ledger(tmp_path / ".maestro") as book:
        fit, [row] = book.fit("small", "user_features"), book.published("small")
    assert fit is not None
    workdir = tmp_path / ".maestro"
    for path in workdir.rglob("*"):
        if path.is_file():
            path.unlink()
    workdir.rename(tmp_path / "before")
    published_1 = ("small", "user_features", row["as_of"], OLD_RUNS[1], file, row["rows"], row["definition"])
    make_version_1(
        workdir,
        {
            **FACTS,
            "fits": [("small", "user_features", 1, OLD_RUNS[1], row["as_of"], json.dumps(fit[1]))],
            "published": [(*published_1, row["created_timestamp"], "published")],
        },
    )
    landed = workdir / "landing" / "small" / "users" / "old.parquet"
    landed.parent.mkdir(parents=True)
    landed.write_bytes(b"what version 1 had landed")
    return tmp_path


FEATURES = {"user_features": {"handle_missing": "impute", "normalize": True}}


def test_what_version_1_knew_is_still_known(old: Path) -> None:
    with Ledger(old / ".maestro") as book:
        first, second = book.runs("small")
        assert (first["run_id"], first["status"], first["as_of"]) == (OLD_RUNS[0], "blocked", ["2025-10-01T00:00:00Z"])
        assert (second["run_id"], second["status"], second["plan"]) == (OLD_RUNS[1], "done", {"a": 1})
        [blocked] = book.reads(OLD_RUNS[0])
        assert (blocked.source, blocked.state, blocked.metrics, blocked.report) == (
            "users",
            "blocked",
            {"records_read": 5},
            {"ok": False},
        )
        assert [(r.source, r.state, r.metrics["records_read"], r.mode) for r in book.reads(OLD_RUNS[1])] == [
            ("activities", "accepted", 8, "full"),
            ("users", "accepted", 7, "full"),
        ]
        version, fit = book.fit("small", "user_features") or (0, {})
        assert version == 1
        assert fit
        [file] = book.published("small", "user_features")
        assert (file["run_id"], file["state"], file["sha256"]) == (OLD_RUNS[1], "published", None)
        assert book.tables("small") == [], "its landed files are read anew"
    with Ledger(old / ".maestro") as again:
        assert len(again.runs("small")) == 2
    assert tables_of(old / ".maestro")["schema_version"] == ["(7,)"]


def test_the_next_run_goes_on_with_it_and_collects_what_was_landed(old: Path) -> None:
    before = published(old)
    report = run(old, T - DAY, features=FEATURES)
    assert (report.status, report.views[0].fit_version) == ("done", 1), "under the pinned fit"
    assert published(old)[: before.height].equals(before)
    assert not (old / ".maestro/landing/small/users/old.parquet").exists()
    plan = compile_plan(pipeline(old, features=FEATURES), T)
    assert [(r.run_id, r.status, r.published) for r in history(plan, 9)] == [
        (OLD_RUNS[0], "blocked", 0),
        (OLD_RUNS[1], "done", 1),
        (report.run_id, "done", 1),
    ]
    assert verify_files(plan).ok, "files without a checksum are compared in their rows"


def test_a_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way is one transaction, also in SQLite, whose driver would commit each CREATE TABLE."""
    before = tables_of(old / ".maestro")
    step = migrations._STEPS[1]

    def fails(connection: Any) -> None:
        step(connection)
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setitem(migrations._STEPS, 1, fails)
        with pytest.raises(RuntimeError):
            Ledger(old / ".maestro")
    assert tables_of(old / ".maestro") == before
    with Ledger(old / ".maestro") as book:
        assert len(book.runs("small")) == 2


def test_a_first_setup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = migrations.metadata.create_all

    def fails(connection: Any) -> None:
        create(connection)
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(migrations.metadata, "create_all", fails)
        with pytest.raises(RuntimeError):
            Ledger(tmp_path)
    assert tables_of(tmp_path) == {}
    with Ledger(tmp_path) as book:
        assert book.runs() == []


def test_an_old_ledger_and_a_new_one_have_the_same_tables(old: Path, tmp_path: Path) -> None:
    Ledger(old / ".maestro").close()
    Ledger(tmp_path / "new").close()
    described = []
    for folder in (old / ".maestro", tmp_path / "new"):
        with closing(sqlite3.connect(folder / "ledger.db")) as connection:
            names = [n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")]
            columns = {n: sorted(r[1:3] for r in connection.execute(f"PRAGMA table_info({n})")) for n in names}
            keys = {n: sorted(r[2:5] for r in connection.execute(f"PRAGMA foreign_key_list({n})")) for n in names}
            described.append((columns, keys))
    assert described[0] == described[1]


def make_version_2(book: Ledger) -> None:
    """As version 2 had it: nothing was set aside, and pieces told nothing of attempts."""
    with book._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE checkpoints")
        connection.exec_driver_sql("DROP TABLE profiles")
        connection.exec_driver_sql("DROP TABLE loads")
        connection.exec_driver_sql("DROP TABLE quarantine")
        connection.exec_driver_sql("ALTER TABLE pieces DROP COLUMN quarantined")
        connection.exec_driver_sql("ALTER TABLE pieces DROP COLUMN retries")
        connection.exec_driver_sql("UPDATE schema_version SET version = 2")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_version_2_knew_is_still_known(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = own_database(request.getfixturevalue("postgres_server")) if kind == "postgres" else None
    with Ledger(tmp_path, url) as book:
        begin(book)
        read, _ = book.begin_read(read_of("read1"))
        piece = piece_of(0, "a")
        book.add_piece("read1", piece)
        make_version_2(book)
    with Ledger(tmp_path, url) as book:
        assert book.pieces("read1") == [piece]
        assert book.quarantined("p") == []
        assert book.load("p", "v") is None
        assert book.checkpoints("p") == {}
        book.landed(replace(read, state="landed", files=(FILE,)), quarantined=[replace(FILE, path="q")])
        assert [entry.state for entry in book.quarantined("p")] == ["held"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_newer_ledger_is_refused_and_left_alone(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = own_database(request.getfixturevalue("postgres_server")) if kind == "postgres" else None
    with Ledger(tmp_path, url) as book, book._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 8")
    with pytest.raises(LedgerError) as caught:
        Ledger(tmp_path, url)
    assert (caught.value.code, caught.value.fix) == ("ledger.newer", "upgrade maestro-engine")
    assert "version 8" in str(caught.value)
    assert "up to 7" in str(caught.value)

"""``maestro runs``, ``verify``, ``gc``, ``run --resume`` and ``check --connect``."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import steps
from engine.ledger import File, Ledger
from tests.cli.conftest import PIPELINE, Maestro
from tests.run.world import ACTIVITIES, files, published, write_world

ROOT = Path(__file__).parents[2]
AS_OF = ("--as-of", "2025-10-04")
SHOP = """\
version: 1
name: shop
sources:
  s: {type: database, connection_string: "sqlite:///shop.db", table: t, cursor: at, deduplicate: {keys: [id]}}
validation:
  s: {categorical_constraints: {v: [a, b]}}
"""


def sql(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def shop(folder: Path) -> Path:
    """The current folder, with ``shop.yaml``, which merges a table of two rows."""
    sql(folder, "CREATE TABLE t (id INTEGER, at INTEGER, v TEXT)", "INSERT INTO t VALUES (1, 10, 'a'), (2, 11, 'b')")
    (folder / "shop.yaml").write_text(SHOP)
    return folder


def book(folder: Path) -> Ledger:
    return Ledger(folder / ".maestro")


def landed(folder: Path, pipeline: str = "shop") -> set[str]:
    root = folder / ".maestro"
    return {p.relative_to(root).as_posix() for p in (root / "landing" / pipeline).rglob("*") if p.is_file()}


def table(folder: Path) -> list[tuple[Any, ...]]:
    with book(folder) as ledger:
        read = ledger.table("shop", "s")
        assert read is not None
        frames = [pl.read_parquet(ledger.workdir / f.path) for f in read.files]
    return sorted(pl.concat(frames).rows())


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["runs", "verify", "gc"])
def test_before_the_first_run_there_is_nothing_to_tell(maestro: Maestro, folder: Path, command: str) -> None:
    said = maestro(command, "pipeline.yaml")
    assert (said.code, said.out) == (2, "")
    assert "has not run yet" in said.err
    assert maestro(command, "pipeline.yaml", "--json").json["error"]["code"] == "ledger.missing"
    assert not (folder / ".maestro").exists(), "asking leaves nothing behind"


def test_runs_tells_what_each_run_read_and_how_it_ended(maestro: Maestro, folder: Path) -> None:
    maestro("run", "pipeline.yaml", *AS_OF)
    maestro("run", "blocked.yaml", *AS_OF)
    maestro("run", "absent.yaml", *AS_OF)
    said = maestro("runs", "pipeline.yaml")
    assert (said.code, said.err) == (0, "")
    lines = [line for line in said.out.splitlines() if line[:2] == "20"]
    assert [line.split()[1] for line in lines] == ["DONE", "BLOCKED", "FAILED"]
    assert "users 5 accepted" in lines[0]
    assert "activities 6 blocked" in lines[1]
    assert "nobody.parquet" in lines[2], "why it failed"
    found = maestro("runs", "pipeline.yaml", "--json").json
    assert [run["status"] for run in found] == ["done", "blocked", "failed"]
    assert [run["published"] for run in found] == [1, 0, 0]
    assert found[0]["as_of"] == ["2025-10-04T00:00:00Z"]
    assert found[2]["error"]["code"].startswith("source.")
    users = next(s for s in found[0]["sources"] if s["name"] == "users")
    assert (users["state"], users["mode"], users["metrics"]["records_read"]) == ("accepted", "full", 5)
    assert users["promise"] == {
        "snapshot": "none",
        "shared": None,
        "counted": True,
        "late_commits": None,
        "note": None,
    }
    assert "per_chunk" not in users["metrics"]


def test_runs_shows_the_newest_as_asked(maestro: Maestro, folder: Path) -> None:
    ids = [maestro("run", "pipeline.yaml", *AS_OF, "--json").json["run_id"] for _ in range(3)]
    assert [run["run_id"] for run in maestro("runs", "pipeline.yaml", "--last", "2", "--json").json] == ids[1:]
    assert maestro("runs", "pipeline.yaml", "-q").out == ""
    for wrong in ("0", "-1", "many", "1.5"):
        assert maestro("runs", "pipeline.yaml", "--last", wrong).code == 2


def test_runs_says_what_a_database_read_promised(maestro: Maestro, shop: Path) -> None:
    maestro("run", "shop.yaml")
    [run] = maestro("runs", "shop.yaml", "--json").json
    [source] = run["sources"]
    assert (source["mode"], source["position"]) == ("merge", {"type": "int", "value": "11"})
    promise = source["promise"]
    assert (promise["snapshot"], promise["counted"], promise["late_commits"]) == ("one", True, "none_missed")


def test_a_run_whose_second_source_fails_is_partial(maestro: Maestro, shop: Path) -> None:
    (shop / "two.yaml").write_text(SHOP.replace("validation:", "  late: {type: file, path: late.csv}\nvalidation:"))
    said = maestro("run", "two.yaml")
    assert (said.code, "late.csv" in said.err) == (3, True)
    with book(shop) as ledger:
        [run] = ledger.runs("shop")
        assert (run["status"], run["error"]["where"]) == ("partial", "sources.late")
        assert [(r.source, r.state) for r in ledger.reads(run["run_id"])] == [("late", "reading"), ("s", "landed")]
    assert "PARTIAL" in maestro("runs", "two.yaml").out
    assert maestro("runs", "two.yaml", "--json").json[0]["status"] == "partial"
    (shop / "late.csv").write_text("x\n1\n")
    assert maestro("run", "two.yaml").code == 0
    assert table(shop) == [(1, 10, "a"), (2, 11, "b")]


def test_a_failing_first_source_is_a_failed_run(maestro: Maestro, folder: Path) -> None:
    assert maestro("run", "absent.yaml", *AS_OF).code == 3
    assert maestro("runs", "absent.yaml", "--json").json[0]["status"] == "failed"


# --- verify ---------------------------------------------------------------------------------------------------------


def one_file(folder: Path, source: str = "users") -> tuple[Path, File]:
    with book(folder) as ledger:
        read = ledger.table("small", source)
        assert read is not None
        return ledger.workdir / read.files[0].path, read.files[0]


def test_verify_finds_everything_as_recorded(maestro: Maestro, folder: Path) -> None:
    maestro("run", "pipeline.yaml", *AS_OF)
    said = maestro("verify", "pipeline.yaml")
    assert (said.code, said.err) == (0, "")
    assert "2 landed, 1 quarantined and 1 published files" in said.out
    assert "all as recorded" in said.out
    found = maestro("verify", "pipeline.yaml", "--json").json
    sizes = [p.stat().st_size for p in (folder / ".maestro").rglob("*.parquet")]
    sizes += [(folder / "features" / name).stat().st_size for name in files(folder)]
    counts = {"landed_files": 2, "published_files": 1, "quarantined_files": 1}
    assert found == {"ok": True, **counts, "bytes": sum(sizes), "damage": []}
    assert maestro("verify", "pipeline.yaml", "-q").out == ""


def flip(path: Path) -> None:
    """One bit of one byte, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "it is missing"),
    "flipped": (flip, "its checksum is another"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "its checksum is another"),
    "empty": (lambda path: path.write_bytes(b""), "its checksum is another"),
    "other rows": (lambda path: pl.read_parquet(path).head(1).write_parquet(path), "its checksum is another"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("kind", ["landed", "published"])
def test_verify_names_a_damaged_file(maestro: Maestro, folder: Path, harm: str, kind: str) -> None:
    maestro("run", "pipeline.yaml", *AS_OF)
    path = one_file(folder)[0] if kind == "landed" else folder / "features" / files(folder)[0]
    owner = "sources.users" if kind == "landed" else "features.user_features"
    change, what = HARMS[harm]
    change(path)
    said = maestro("verify", "pipeline.yaml")
    assert said.code == 1
    assert f"DAMAGED {path} ({owner}): {what}" in said.out
    assert "1 damaged" in said.out
    found = maestro("verify", "pipeline.yaml", "--json")
    assert found.code == 1
    assert found.json["ok"] is False
    assert found.json["damage"] == [{"path": str(path), "belongs_to": owner, "what": what}]
    assert maestro("verify", "pipeline.yaml", "-q").out != ""


@pytest.mark.parametrize("kind", ["rows", "columns", "unreadable"])
def test_verify_compares_rows_and_columns_too(maestro: Maestro, folder: Path, kind: str) -> None:
    """Of files without a checksum, such as those of an earlier version."""
    maestro("run", "pipeline.yaml", *AS_OF)
    path, file = one_file(folder)
    frame = pl.read_parquet(path)
    made = {"rows": frame.head(1), "columns": frame.rename({"email": "mail"}), "unreadable": None}[kind]
    if made is None:
        path.write_bytes(b"PAR1 no PAR1")
    else:
        made.write_parquet(path)
    with book(folder) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE files SET sha256 = NULL")
    [damage] = maestro("verify", "pipeline.yaml", "--json").json["damage"]
    wanted = {"rows": f"it holds 1 rows instead of {file.rows}", "columns": "its columns are others"}
    assert damage["path"] == str(path)
    assert damage["what"].startswith(wanted.get(kind, "it cannot be read: "))


def test_verify_looks_at_the_pieces_of_an_unfinished_read(
    maestro: Maestro, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(maestro, "shop.yaml", "piece.committed", monkeypatch)
    found = maestro("verify", "shop.yaml", "--json").json
    assert (found["ok"], found["landed_files"]) == (True, 1)
    [name] = landed(shop)
    flip(shop / ".maestro" / name)
    said = maestro("verify", "shop.yaml")
    assert (said.code, "an unfinished read" in said.out) == (1, True)


def test_verify_has_nothing_against_what_was_collected(
    maestro: Maestro, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a source that is declared no more go with their record."""
    interrupt(maestro, "shop.yaml", "piece.committed", monkeypatch)
    (shop / "other.csv").write_text("x\n1\n")
    renamed = SHOP.partition("sources:")[0] + "sources: {o: {type: file, path: other.csv}}\n"
    (shop / "shop.yaml").write_text(renamed)
    assert maestro("run", "shop.yaml").code == 0
    assert maestro("verify", "shop.yaml", "--json").json["damage"] == []


def test_verify_tells_damage_from_a_run_that_ended_too_soon(maestro: Maestro, folder: Path) -> None:
    kill(folder, "files.recorded", "run", "pipeline.yaml", *AS_OF)
    [damage] = maestro("verify", "pipeline.yaml", "--json").json["damage"]
    assert damage["what"] == "it is missing; a run ended before it had published it: run again"
    assert maestro("run", "pipeline.yaml", *AS_OF).code == 0
    assert maestro("verify", "pipeline.yaml").code == 0


def test_verify_and_gc_wait_for_no_run(maestro: Maestro, folder: Path) -> None:
    maestro("run", "pipeline.yaml", *AS_OF)
    with book(folder) as ledger, ledger.lease("small"):
        for command in ("verify", "gc"):
            said = maestro(command, "pipeline.yaml", "--json")
            assert (said.code, said.json["error"]["code"]) == (3, "ledger.locked")
        assert maestro("runs", "pipeline.yaml").code == 0, "the history can be read at any time"


# --- gc -------------------------------------------------------------------------------------------------------------


def test_gc_drops_what_nothing_names(maestro: Maestro, shop: Path) -> None:
    maestro("run", "shop.yaml")
    before = landed(shop)
    stray = shop / ".maestro/landing/shop/gone/read/x.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"12345")
    other = shop / ".maestro/landing/another/s/x.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another pipeline")
    assert maestro("gc", "shop.yaml", "--json").json == {"tables": 0, "files": 1, "bytes": 5, "profiles": 0}
    assert landed(shop) == before
    assert not (shop / ".maestro/landing/shop/gone").exists()
    assert other.exists()
    said = maestro("gc", "shop.yaml")
    assert (said.code, said.out, said.err) == (
        0,
        "dropped 0 superseded tables; 0 files, 0.0 MiB in all; 0 old profiles\n",
        "",
    )
    assert maestro("gc", "shop.yaml", "-q").out == ""


def test_gc_keeps_the_accepted_table_while_the_newest_is_blocked(maestro: Maestro, shop: Path) -> None:
    maestro("run", "shop.yaml")
    sql(shop, "UPDATE t SET v = 'odd', at = 12 WHERE id = 1")
    assert maestro("run", "shop.yaml").code == 1
    with book(shop) as ledger:
        newest, accepted = ledger.table("shop", "s"), ledger.table("shop", "s", accepted=True)
        assert newest is not None
        assert accepted is not None
    assert (newest.state, accepted.state) == ("blocked", "accepted")
    maestro("gc", "shop.yaml")
    assert landed(shop) == {f.path for f in (*newest.files, *accepted.files)}
    sql(shop, "UPDATE t SET v = 'a', at = 13 WHERE id = 1")
    assert maestro("run", "shop.yaml").code == 0
    assert maestro("verify", "shop.yaml").code == 0


def test_gc_keeps_superseded_tables_as_long_as_asked(maestro: Maestro, shop: Path) -> None:
    (shop / "shop.yaml").write_text(SHOP + "retention: 7d\n")
    maestro("run", "shop.yaml")
    first = landed(shop)
    sql(shop, "UPDATE t SET v = 'b', at = 12 WHERE id = 1")
    maestro("run", "shop.yaml")
    assert first < landed(shop), "retention in the pipeline file"
    with book(shop) as ledger, ledger._engine.begin() as connection:
        for days, read in ((9, "base IS NULL"), (2, "base IS NOT NULL")):  # superseded two days ago
            then = (datetime.now(UTC) - timedelta(days=days)).isoformat().replace("+00:00", "Z")
            connection.exec_driver_sql(f"UPDATE reads SET landed_at = ? WHERE {read}", (then,))
    assert maestro("gc", "shop.yaml", "--json").json["tables"] == 0
    assert maestro("gc", "shop.yaml", "--keep", "3d", "--json").json["tables"] == 0
    dropped = maestro("gc", "shop.yaml", "--keep", "1d", "--json").json
    assert (dropped["tables"], dropped["files"]) == (1, 1)
    assert not first & landed(shop)
    assert table(shop) == [(1, 12, "b"), (2, 11, "b")]


def test_gc_refuses_a_duration_that_is_none(maestro: Maestro, shop: Path) -> None:
    maestro("run", "shop.yaml")
    said = maestro("gc", "shop.yaml", "--keep", "soon")
    assert (said.code, "'soon' is not a duration" in said.err) == (2, True)


CHANGES = [
    ["INSERT INTO t VALUES (3, 12, 'a')"],
    ["UPDATE t SET v = 'odd', at = 13 WHERE id = 1"],
    ["DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (4, 14, 'b')"],
    ["UPDATE t SET v = 'a', at = 15 WHERE v = 'odd'"],
    ["INSERT INTO t VALUES (5, NULL, 'b')"],
]


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_run_after_gc_is_like_one_without(
    maestro: Maestro, shop: Path, broken_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happened before; also the pieces of a broken-off run are still gone on from."""
    maestro("run", "shop.yaml")
    for changes in CHANGES:
        sql(shop, *changes)
        if broken_off:
            interrupt(maestro, "shop.yaml", "piece.committed", monkeypatch)
        shutil.rmtree(shop / "twin", ignore_errors=True)
        shutil.copytree(shop, shop / "twin", ignore=shutil.ignore_patterns("twin"), copy_function=shutil.copy2)
        maestro("gc", "shop.yaml")
        outcomes = []
        for folder in (shop, shop / "twin"):
            said = maestro("run", folder / "shop.yaml", "--json").json
            facts = said["sources"][0]["metrics"]
            counts = {k: facts[k] for k in ("records_read", "records_written", "rows", "rows_replaced", "rows_deleted")}
            checks = [(r["check_name"], r["failed_records"]) for r in said["sources"][0]["validation"]["results"]]
            outcomes.append((said["status"], counts, checks, table(folder)))
        assert outcomes[0] == outcomes[1]
        assert maestro("verify", "shop.yaml").code == 0


# --- resume ---------------------------------------------------------------------------------------------------------


def interrupt(maestro: Maestro, path: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that Ctrl-C ends at a step."""

    def hear(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", hear)
        assert maestro("run", path).code == 130


KILLED = """
import os, signal, sys
from engine import steps
from engine.cli import main
def die(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
steps.listener = die
sys.exit(main(sys.argv[2:]))
"""


def kill(folder: Path, step: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, step, *arguments]
    assert subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True).returncode == -9


@pytest.mark.parametrize("step", ["run.begun", "table.landed", "files.recorded", "files.published"])
def test_a_resumed_run_keeps_its_moments(maestro: Maestro, folder: Path, step: str) -> None:
    kill(folder, step, "run", "pipeline.yaml", "--as-of", "2025-10-03", *AS_OF)
    [dead] = maestro("runs", "pipeline.yaml", "--json").json
    assert dead["status"] == "running"
    resumed = maestro("run", "pipeline.yaml", "--resume", "--json")
    assert resumed.code == 0
    for key in ("run_id", "as_of", "created_timestamp"):
        assert resumed.json[key] == dead[key]
    [run] = maestro("runs", "pipeline.yaml", "--json").json
    assert (run["status"], run["as_of"]) == ("done", ["2025-10-03T00:00:00Z", "2025-10-04T00:00:00Z"])
    created = {pl.read_parquet(folder / "features" / f)["created_timestamp"][0] for f in files(folder)}
    assert created == {datetime.fromisoformat(dead["created_timestamp"])}
    assert len(files(folder)) == 2
    again = maestro("run", "pipeline.yaml", "--resume", "--json").json
    assert again["run_id"] != dead["run_id"], "the last one came to its end"


def test_without_resume_a_killed_run_is_interrupted_and_another_begins(maestro: Maestro, folder: Path) -> None:
    kill(folder, "table.landed", "run", "pipeline.yaml", *AS_OF)
    assert maestro("run", "pipeline.yaml", *AS_OF).code == 0
    assert [r["status"] for r in maestro("runs", "pipeline.yaml", "--json").json] == ["interrupted", "done"]


def test_resume_begins_a_run_where_there_is_none_to_go_on_with(maestro: Maestro, folder: Path) -> None:
    first = maestro("run", "pipeline.yaml", "--resume", "--json").json
    assert first["status"] == "done"
    blocked = maestro("run", "blocked.yaml", "--resume", "--json").json
    assert (blocked["status"], blocked["run_id"] != first["run_id"]) == ("blocked", True)
    third = maestro("run", "pipeline.yaml", "--resume", "--json").json
    assert third["run_id"] not in (first["run_id"], blocked["run_id"]), "a blocked run has come to its end"


def test_a_failed_run_is_resumed_once_its_source_is_mended(maestro: Maestro, folder: Path) -> None:
    users = folder / "data/users.parquet"
    good = users.read_bytes()
    users.write_bytes(b"PAR1 broken PAR1")
    assert maestro("run", "pipeline.yaml", *AS_OF).code == 3
    [failed] = maestro("runs", "pipeline.yaml", "--json").json
    users.write_bytes(good)
    resumed = maestro("run", "pipeline.yaml", "--resume", "--json").json
    assert [resumed[k] for k in ("run_id", "as_of")] == [failed["run_id"], ["2025-10-04T00:00:00Z"]]
    assert resumed["status"] == "done"
    [run] = maestro("runs", "pipeline.yaml", "--json").json
    assert (run["status"], run["error"]) == ("done", None)


def test_a_resumed_run_publishes_what_an_undisturbed_one_would(maestro: Maestro, folder: Path) -> None:
    calm = folder / "calm"
    calm.mkdir()
    write_world(calm)
    (calm / "pipeline.yaml").write_text(PIPELINE)
    maestro("run", calm / "pipeline.yaml", *AS_OF)
    kill(folder, "file.published", "run", "pipeline.yaml", *AS_OF)
    maestro("run", "pipeline.yaml", "--resume")
    assert published(folder).equals(published(calm))


def test_a_resumed_run_reads_only_the_rest(maestro: Maestro, shop: Path) -> None:
    kill(shop, "piece.committed", "run", "shop.yaml")
    metrics = maestro("run", "shop.yaml", "--resume", "--json").json["sources"][0]["metrics"]
    assert (metrics["chunks"], metrics["chunks_skipped"], metrics["records_read"]) == (0, 1, 2)
    assert table(shop) == [(1, 10, "a"), (2, 11, "b")]


def test_a_run_says_that_chunks_had_landed_already(maestro: Maestro, shop: Path) -> None:
    kill(shop, "piece.committed", "run", "shop.yaml")
    assert "1 chunk had landed already" in maestro("run", "shop.yaml", "--resume").out


def test_resume_and_as_of_exclude_each_other(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", "--resume", *AS_OF)
    assert (said.code, "--as-of: a resumed run has its as-of already" in said.err) == (2, True)
    assert maestro("run", "pipeline.yaml", "--resume", *AS_OF, "--json").json["error"]["code"] == "run.resume_as_of"
    assert not (folder / ".maestro").exists()


# --- check --connect ------------------------------------------------------------------------------------------------


def test_check_connect_tells_what_is_there(maestro: Maestro, shop: Path) -> None:
    ACTIVITIES.write_parquet(shop / "a.parquet")
    (shop / "shop.yaml").write_text(SHOP.replace("validation:", "  f: {type: file, path: a.parquet}\nvalidation:"))
    said = maestro("check", "shop.yaml", "--connect")
    assert (said.code, said.err) == (0, "")
    assert "s: sqlite:///shop.db t: SQLite 3" in said.out
    assert "about 2 rows" in said.out
    assert "f: no database; not connected to" in said.out
    found = maestro("check", "shop.yaml", "--connect", "--json").json
    assert (found["pipeline"], found["ok"]) == ("shop", True)
    database, file = found["sources"]
    assert (database["name"], database["ok"], database["probe"]["rows_estimate"]) == ("s", True, 2)
    assert [c["name"] for c in database["probe"]["columns"]] == ["id", "at", "v"]
    assert database["probe"]["columns"][2]["type"] == "TEXT"
    assert any("cursor" in warning for warning in database["probe"]["warnings"]), "there is no index on it"
    assert (file["ok"], file["probe"], file["error"]) == (True, None, None)
    assert not (shop / ".maestro").exists(), "nothing is written"
    assert maestro("check", "shop.yaml", "--connect", "-q").out == ""


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("shop.db", "absent.db", "source.missing_file", ["absent.db does not exist"]),
        ("table: t", "table: tt", "source.missing_table", ["no table 'tt'", "did you mean 't'?"]),
        ("cursor: at", "cursor: att", "source.missing_column", ["no column 'att'", "did you mean 'at'?"]),
    ],
)
def test_check_connect_tells_what_is_amiss(
    maestro: Maestro, shop: Path, old: str, new: str, code: str, words: list[str]
) -> None:
    assert SHOP.count(old) == 1
    (shop / "shop.yaml").write_text(SHOP.replace(old, new))
    assert maestro("check", "shop.yaml").code == 0, "without connecting there is nothing to find"
    said = maestro("check", "shop.yaml", "--connect")
    assert said.code == 3
    for word in words:
        assert word in said.out + said.err
    assert maestro("check", "shop.yaml", "--connect", "-q").out != ""
    found = maestro("check", "shop.yaml", "--connect", "--json")
    assert (found.code, found.json["ok"], found.json["sources"][0]["error"]["code"]) == (3, False, code)

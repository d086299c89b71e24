"""Leases: who has lost one can write nothing, and publishes nothing; two pipelines in one folder."""

from __future__ import annotations

import inspect
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import run_pipeline, steps
from engine.errors import LedgerError
from engine.ledger import Checkpoint, Ledger
from engine.ledger.tables import metadata
from tests.ledger.books import AT, FILE, begin, own_database, part, piece_of, read_of, taken_soon
from tests.run.world import DAY, T, files, pipeline, run, write_world
from tests.servers.postgres import Postgres

ROOT = Path(__file__).parents[2]
WRITES: dict[str, Callable[[Ledger], object]] = {
    "begin": lambda book: begin(book, "run9"),
    "finish": lambda book: book.finish("run1", "done"),
    "begin_read": lambda book: book.begin_read(read_of("read9")),
    "reading": lambda book: book.reading("read1", {"seal": 9}, ()),
    "add_piece": lambda book: book.add_piece("read1", piece_of(9, "x")),
    "landed": lambda book: book.landed(read_of(state="landed")),
    "judged": lambda book: book.judged(read_of(state="accepted"), "run1", quarantined=[FILE]),
    "keep_profile": lambda book: book.keep_profile(read_of(state="accepted"), "run1", {"rows": 1}),
    "drop_quarantined": lambda book: book.drop_quarantined(["x"]),
    "forget_pieces": lambda book: book.forget_pieces("p", keep=()),
    "forget_tables": lambda book: book.forget_tables(["read1"]),
    "forget_profiles": lambda book: book.forget_profiles("p", sources=None, newest=0, since=AT, runs=()),
    "publishing": lambda book: book.publishing("run1", "p", {"v": (AT, {"a": 1})}, [part("v", AT)]),
    "keep_checkpoints": lambda book: book.keep_checkpoints("run1", "p", {"v": Checkpoint("d", {"s": (FILE,)})}),
    "forget_checkpoints": lambda book: book.forget_checkpoints("p", keep=()),
    "published_all": lambda book: book.published_all("run1"),
    "loading": lambda book: book.loading("p", "v", "store1", {"x": None}, "key1"),
    "loaded": lambda book: book.loaded("p", "v", ["x"]),
    "unload": lambda book: book.unload("p", "v"),
}
READS = {"exists", "close", "lease", "hold", "unfinished", "runs", "pieces", "table", "reads", "tables"}
READS |= {"unfinished_pieces", "fit", "published", "later", "quarantined", "load", "profiles", "checkpoints"}


def test_every_public_call_is_known_to_these_tests() -> None:
    public = {name for name, _ in inspect.getmembers(Ledger, callable) if not name.startswith("_")}
    assert public == set(WRITES) | READS, "a call that writes belongs to WRITES, another to READS"


def cut_off(server: Postgres, url: str) -> None:
    """Ends the connection that holds a lease."""
    mine = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ends = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND {mine}"
    subprocess.run([server.psql, "-q", url, "-c", ends], check=True, capture_output=True)


@contextmanager
def taken_over(book: Ledger, workdir: Path, server: Postgres | None, url: str | None) -> Iterator[None]:
    """``book`` has lost its lease without a word, and another holds it."""
    with ExitStack() as stack:
        if server is None or url is None:
            (workdir / "p.lease").unlink()  # as a file system does that forgets its locks
        else:
            cut_off(server, url)
        other = stack.enter_context(Ledger(workdir, url))
        mine = stack.enter_context(other.lease("p"))
        assert book._lease is not None
        assert mine.epoch == book._lease.epoch + 1
        yield


def content(book: Ledger) -> list[Any]:
    """All that the ledger holds."""
    with book._engine.connect() as connection:
        return [sorted(map(repr, connection.execute(table.select()))) for table in metadata.sorted_tables]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_who_has_lost_the_lease_writes_nothing(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    url = own_database(server) if server else None
    with Ledger(tmp_path, url) as book, book.lease("p"):
        begin(book)
        book.begin_read(read_of())
        book.hold()
        with taken_over(book, tmp_path, server, url):
            before = content(book)
            for name, write in WRITES.items():
                with pytest.raises(LedgerError) as caught:
                    write(book)
                assert caught.value.code == "ledger.lease_lost", name
                assert content(book) == before, name
            with pytest.raises(LedgerError) as caught:
                book.hold()
            assert caught.value.code == "ledger.lease_lost"
            assert "nothing any more" in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("step", ["files.staged", "files.recorded", "file.published"])
def test_a_run_that_loses_its_lease_publishes_nothing_more(
    tmp_path: Path, kind: str, step: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    url = own_database(server) if server else None
    write_world(tmp_path)
    run(tmp_path, [T, T + DAY], ledger=url)
    before = {name: (tmp_path / "features" / name).read_bytes() for name in files(tmp_path)}
    stack = ExitStack()

    def hear(name: str) -> None:
        if name == step:
            monkeypatch.setattr(steps, "listener", None)
            if server and url:
                cut_off(server, url)
            else:
                (tmp_path / ".maestro" / "small.lease").unlink()
            other = stack.enter_context(Ledger(tmp_path / ".maestro", url))
            stack.enter_context(other.lease("small"))

    monkeypatch.setattr(steps, "listener", hear)
    with stack:
        with pytest.raises(LedgerError) as caught:
            run(tmp_path, [T, T + DAY], ledger=url)
        assert caught.value.code == "ledger.lease_lost"
        after = {name: (tmp_path / "features" / name).read_bytes() for name in files(tmp_path)}
        changed = [name for name in after if after[name] != before.get(name)]
        assert len(changed) == (1 if step == "file.published" else 0), "only what it had published before"
    assert run(tmp_path, [T, T + DAY], ledger=url).status == "done"


def test_the_second_run_of_a_pipeline_is_refused_and_another_pipeline_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both while the first one is at work."""
    write_world(tmp_path)
    another = pipeline(tmp_path, output={"path": "others"}).model_copy(update={"name": "another"})
    heard: list[str] = []

    def hear(step: str) -> None:
        if step == "table.landed" and not heard:
            heard.append(step)
            with pytest.raises(LedgerError) as caught:
                run(tmp_path)
            assert caught.value.code == "ledger.locked"
            assert "another run of small is at work (process" in str(caught.value)
            assert run_pipeline(another, as_of=T).status == "done"

    monkeypatch.setattr(steps, "listener", hear)
    assert run(tmp_path).status == "done"
    assert heard
    with Ledger(tmp_path / ".maestro") as book:
        assert [r["status"] for r in book.runs("small")] == ["done"]
        assert [r["status"] for r in book.runs("another")] == ["done"]
        for name in ("small", "another"):
            assert all((tmp_path / ".maestro" / f.path).is_file() for t in book.tables(name) for f in t.files)


TWO = """
import sys
from pathlib import Path
from engine import run_pipeline
from tests.run.world import T, pipeline
name = sys.argv[2]
for _ in range(3):
    declared = pipeline(Path(sys.argv[1]), output={"path": name}).model_copy(update={"name": name})
    assert run_pipeline(declared, as_of=T).status == "done"
"""


def test_two_pipelines_write_one_ledger_at_once(tmp_path: Path) -> None:
    write_world(tmp_path)
    started = [
        subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path), name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    assert [(p.communicate()[1], p.returncode) for p in started] == [("", 0)] * 2
    with Ledger(tmp_path / ".maestro") as book:
        for name in ("one", "two"):
            assert [r["status"] for r in book.runs(name)] == ["done"] * 3
            assert {f["state"] for f in book.published(name)} == {"published"}


KILLED = """
import os, signal, sys
from pathlib import Path
from engine import steps
from tests.run.world import T, run
def die(step):
    if step == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
steps.listener = die
run(Path(sys.argv[1]), T, ledger=sys.argv[2] or None)
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_after_a_kill_the_next_run_begins_at_once(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = own_database(request.getfixturevalue("postgres_server")) if kind == "postgres" else None
    write_world(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path), url or "", "table.judged"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -9
    with Ledger(tmp_path / ".maestro", url) as book:
        assert [r["status"] for r in book.runs("small")] == ["running"]
        assert taken_soon(book, "small") == 2
    assert run(tmp_path, ledger=url).status == "done"
    with Ledger(tmp_path / ".maestro", url) as book:
        assert [r["status"] for r in book.runs("small")] == ["interrupted", "done"]


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    """Each call is one transaction."""
    with Ledger(tmp_path) as book, book.lease("p"):
        begin(book)
        before = content(book)
        with pytest.raises(LedgerError):
            book.publishing("run1", "p", {"v": (AT, {"a": 1})}, [part("v", AT), {**part("v", AT + DAY), "rows": None}])
        assert content(book) == before


def test_a_run_that_the_ledger_does_not_know_cannot_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as book, book.lease("p"), pytest.raises(LedgerError):
        book.begin_read(read_of(run_id="nobody"))


def test_the_ledger_is_durable(tmp_path: Path) -> None:
    with Ledger(tmp_path) as book, book._engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(7,)]

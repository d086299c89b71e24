"""What a ledger keeps, embedded and shared; a whole run with a shared one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from engine import run_pipeline
from engine.errors import LedgerError
from engine.ledger import Checkpoint, File, Ledger, ledger
from engine.run import unfinished
from tests.ledger.books import AT, FILE, begin, own_database, part, piece_of, read_of, taken_soon
from tests.run.world import DAY, T, pipeline, published, write_world
from tests.servers.postgres import PASSWORD

ROOT = Path(__file__).parents[2]
Opened = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    return own_database(request.getfixturevalue("postgres_server")) if request.param == "postgres" else None


@pytest.fixture
def opened(tmp_path: Path, url: str | None) -> Opened:
    """The same ledger, opened once more."""
    return lambda: Ledger(tmp_path / "work", url)


@pytest.fixture
def book(opened: Opened) -> Iterator[Ledger]:
    with opened() as book, book.lease("p"):
        yield book


def test_runs_begin_end_and_are_interrupted(book: Ledger) -> None:
    begin(book, "run1")
    begin(book, "other", "q")
    begin(book, "run2")
    assert [(r["run_id"], r["status"]) for r in book.runs("p")] == [("run1", "interrupted"), ("run2", "running")]
    assert book.runs("q")[0]["status"] == "running", "another pipeline's run is none of our business"
    book.finish("run2", "failed", {"code": "x", "message": "ü ☃"})
    [last] = book.runs("p", newest=1)
    assert (last["run_id"], last["status"], last["error"]) == ("run2", "failed", {"code": "x", "message": "ü ☃"})
    assert (last["as_of"], last["created_timestamp"]) == (["2025-10-04T00:00:00Z"], "2025-10-04T00:00:00Z")
    assert last["plan"] == {"pipeline": "p"}
    assert last["finished_at"] > last["created_timestamp"]


def test_a_run_that_goes_on_keeps_its_moments(book: Ledger) -> None:
    begin(book)
    book.finish("run1", "partial", {"code": "x"})
    assert book.unfinished("p")["run_id"] == "run1"  # type: ignore[index]
    book.begin("run1", "p", [AT + DAY], AT + DAY, {"again": True})
    [run] = book.runs()
    assert (run["as_of"], run["created_timestamp"]) == (["2025-10-04T00:00:00Z"], "2025-10-04T00:00:00Z")
    assert (run["status"], run["error"], run["finished_at"], run["plan"]) == ("running", None, None, {"again": True})
    for status, left in (("interrupted", True), ("failed", True), ("blocked", False), ("done", False)):
        book.finish("run1", status)
        assert (book.unfinished("p") is not None) is left


def test_a_read_lands_is_judged_and_is_the_table(book: Ledger) -> None:
    begin(book)
    read, pieces = book.begin_read(read_of(trace={"x": 1}))
    assert (read.seal, pieces) == (None, [])
    assert book.table("p", "s") is None
    landed = replace(
        read,
        state="landed",
        position={"type": "int", "value": "9"},
        promise={"snapshot": "one"},
        schema={"id": "Int64"},
        metrics={"records_read": 3, "bytes_processed": 2**40},
        files=(FILE, replace(FILE, path="b", bytes=2**40)),
    )
    book.landed(landed)
    table = book.table("p", "s")
    assert table is not None
    assert replace(table, landed_at=None) == landed
    assert table.landed_at is not None
    assert book.table("p", "s", accepted=True) is None
    book.judged(replace(landed, state="accepted", report={"ok": True}, metrics={"records_read": 4}), "run1")
    accepted = book.table("p", "s", accepted=True)
    assert accepted is not None
    assert (accepted.state, accepted.report, accepted.files) == ("accepted", {"ok": True}, landed.files)
    assert accepted.metrics == {"records_read": 4}
    begun, _ = book.begin_read(read_of("read2", base="read1"))
    second = replace(landed, read_id="read2", base="read1", started_at=begun.started_at, files=(FILE,))
    book.landed(second)
    book.judged(replace(second, state="blocked"), "run1")
    assert [read.read_id for read in book.later(accepted)] == ["read2"]
    newest, kept = book.table("p", "s"), book.table("p", "s", accepted=True)
    assert newest is not None
    assert kept is not None
    assert (newest.read_id, newest.state, kept.read_id) == ("read2", "blocked", "read1")
    assert [t.read_id for t in book.tables("p")] == ["read1", "read2"]
    assert [r.read_id for r in book.reads("run1")] == ["read2"], "of each source the last"
    book.forget_tables(["read1"])
    assert [t.read_id for t in book.tables("p")] == ["read2"]
    assert book.table("p", "s", accepted=True).files == ()  # type: ignore[union-attr]


def test_rows_set_aside_are_known_until_they_are_taken_back(book: Ledger) -> None:
    begin(book)
    read, _ = book.begin_read(read_of("read1"))
    paths = ("a", "b", "c")
    aside = {path: replace(FILE, path=path) for path in paths}
    book.landed(replace(read, state="landed", files=(FILE,)), quarantined=[aside["a"]])
    book.judged(replace(read, state="accepted", files=(FILE,)), "run1", quarantined=[aside["b"]])

    def states() -> dict[str, tuple[str, str]]:
        return {entry.file.path: (entry.read_id, entry.state) for entry in book.quarantined("p")}

    assert states() == {"a": ("read1", "held"), "b": ("read1", "held")}
    second, _ = book.begin_read(read_of("read2", base="read1"))
    left = replace(FILE, path="b2", rows=1)
    book.landed(replace(second, state="landed", files=(FILE,)), replayed={"a": None, "b": left})
    assert states() == {"a": ("read1", "replayed"), "b": ("read1", "replayed"), "b2": ("read1", "held")}
    book.judged(replace(second, state="blocked", files=(FILE,)), "run1", quarantined=[aside["c"]])
    assert states()["c"] == ("read2", "held"), "of what extends a table, nothing is superseded"
    book.drop_quarantined(["c", "a"])
    assert (states()["c"], states()["a"]) == (("read2", "dropped"), ("read1", "replayed"))
    whole, _ = book.begin_read(read_of("read3"))
    book.landed(replace(whole, state="landed", files=(FILE,)), quarantined=[left])
    assert states()["b2"] == ("read3", "held"), "an interrupted read's piece, read by this one now"
    book.judged(replace(whole, state="blocked", files=(FILE,)), "run1", quarantined=[replace(FILE, path="d")])
    ended = {entry.file.path: entry.ended_by for entry in book.quarantined("p") if entry.ended_at}
    assert ended == {"a": "run1", "b": "run1", "c": "run1"}
    assert states()["c"] == ("read2", "superseded"), "all is read anew: nothing is recognised any more"
    again, _ = book.begin_read(read_of("read4"))
    book.landed(replace(again, state="landed", files=(FILE,)))
    book.judged(replace(again, state="accepted", files=(FILE,)), "run1")
    assert [s for _, s in states().values() if s in ("held", "superseded")] == ["superseded"] * 3
    assert book.quarantined("other") == []


def test_the_newest_table_is_the_last_that_landed_whatever_the_clock_says(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock may go back, and machines that share a ledger have one each."""
    begin(book)
    for number, moment in enumerate(
        ("2025-10-04T00:00:09.000000Z", "2025-10-04T00:00:01.000000Z", "2025-10-04T00:00:02.000000Z")
    ):
        monkeypatch.setattr(ledger, "now", lambda moment=moment: moment)
        read, _ = book.begin_read(read_of(f"read{number}"))
        book.landed(replace(read, state="landed", files=(FILE,)))
        assert book.table("p", "s").read_id == f"read{number}"  # type: ignore[union-attr]
    assert [t.read_id for t in book.tables("p")] == ["read0", "read1", "read2"]


def test_pieces_move_to_the_read_that_goes_on_from_them(book: Ledger) -> None:
    begin(book)
    book.begin_read(read_of())
    book.reading("read1", {"seal": 1}, ())
    for number in (1, 0, 2):
        book.add_piece("read1", piece_of(number, f"{number}a", f"{number}b"))
    assert book.pieces("read1") == [piece_of(n, f"{n}a", f"{n}b") for n in (0, 1, 2)]
    read, pieces = book.begin_read(read_of("read2"))
    assert (read.read_id, read.seal, [p.number for p in pieces]) == ("read2", {"seal": 1}, [0, 1, 2])
    assert book.pieces("read1") == []
    book.reading("read2", {"seal": 2}, {0, 2})
    assert [p.number for p in book.unfinished_pieces("p")] == [0, 2]
    assert book.reads("run1")[0].seal == {"seal": 2}


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"base": "read0"}])
def test_pieces_of_another_declaration_or_base_are_forgotten(book: Ledger, change: dict[str, Any]) -> None:
    begin(book)
    book.begin_read(read_of())
    book.reading("read1", {"seal": 1}, ())
    book.add_piece("read1", piece_of(0, "a"))
    read, pieces = book.begin_read(read_of("read2", **change))
    assert (read.seal, pieces, book.unfinished_pieces("p")) == (None, [], [])


def test_pieces_without_a_seal_are_forgotten(book: Ledger) -> None:
    begin(book)
    book.begin_read(read_of())
    book.reading("read1", None, ())
    book.add_piece("read1", piece_of(0, "a"))
    read, pieces = book.begin_read(read_of("read2"))
    assert (read.read_id, read.seal, pieces) == ("read2", None, [])


def test_reads_of_another_source_or_pipeline_stay_as_they_are(book: Ledger) -> None:
    begin(book)
    begin(book, "run2", "q")
    for read in (read_of("a", "s1"), read_of("b", "s2"), read_of("c", "s1", "run2", pipeline="q")):
        book.begin_read(read)
        book.reading(read.read_id, {"seal": 1}, ())
        book.add_piece(read.read_id, piece_of(0, read.read_id))
    book.begin_read(read_of("d", "s1", fingerprint="other"))
    assert [p.files[0].path for p in book.unfinished_pieces("p")] == ["b"]
    assert [p.files[0].path for p in book.unfinished_pieces("q")] == ["c"]


def test_pieces_of_sources_that_are_declared_no_more_are_forgotten(book: Ledger) -> None:
    begin(book)
    for read in (read_of("a", "s1"), read_of("b", "s2")):
        book.begin_read(read)
        book.add_piece(read.read_id, piece_of(0, read.read_id))
    book.forget_pieces("p", keep=["s2"])
    assert [p.files[0].path for p in book.unfinished_pieces("p")] == ["b"]


def test_fits_are_versioned_and_published_files_replaced(book: Ledger) -> None:
    begin(book)
    assert book.fit("p", "v") is None
    assert book.publishing("run1", "p", {"v": (AT, {"mean": 0.1})}, [part("v", AT + DAY), part("v", AT)]) == {"v": 1}
    assert [(f["as_of"][:10], f["state"]) for f in book.published("p", "v")] == [
        ("2025-10-04", "publishing"),
        ("2025-10-05", "publishing"),
    ]
    book.published_all("run1")
    begin(book, "run2")
    assert book.publishing("run2", "p", {"v": (AT, {"mean": 0.1})}, [part("v", AT, rows=4)]) == {"v": 1}
    assert book.publishing("run2", "p", {"v": (AT, {"mean": 0.2})}, []) == {"v": 2}
    assert book.fit("p", "v") == (2, {"mean": 0.2})
    first, second = book.published("p", "v")
    assert (first["run_id"], first["rows"], first["state"], first["sha256"]) == ("run2", 4, "publishing", "ef" * 32)
    assert (second["run_id"], second["state"]) == ("run1", "published")
    book.published_all("run2")
    assert book.published("q") == []


def test_what_is_loaded_is_known_for_one_store(book: Ledger) -> None:
    begin(book)
    files = [part("v", AT, path="v/a"), part("v", AT + DAY, path="v/b")]
    book.publishing("run1", "p", {"v": (AT, {})}, files)
    book.published_all("run1")
    first, second = (file["path"] for file in book.published("p", "v"))

    def states() -> list[str]:
        return [file["state"] for file in book.published("p", "v")]

    assert book.load("p", "v") is None
    book.loading("p", "v", "store1", {first: "ab"})
    book.loading("p", "v", "store1", {first: "ab"}, 7)
    found = book.load("p", "v")
    assert found == {"pipeline": "p", "view": "v", "store": "store1", "files": {first: "ab"}, "position": 7}
    book.loaded("p", "v", [first])
    assert states() == ["loaded", "published"]
    book.loading("p", "v", "store1", {second: "ab"}, "u7")
    assert states() == ["loaded", "published"]
    book.loaded("p", "v", [second])
    found = book.load("p", "v")
    assert found == {"pipeline": "p", "view": "v", "store": "store1", "files": {}, "position": None}
    book.loading("p", "v", "store2", {first: "ab"})
    assert states() == ["published", "published"], "the other store holds nothing of it"
    book.loaded("p", "v", [first, second])
    book.unload("p", "v")
    assert (states(), book.load("p", "v")) == (["published", "published"], None)


def test_the_epoch_grows_with_each_holder(opened: Opened) -> None:
    for epoch in (1, 2, 3):
        with opened() as book, book.lease("p") as lease:
            assert (lease.pipeline, lease.epoch) == ("p", epoch)
            with opened() as other, other.lease("q") as another:
                assert another.epoch == epoch, "another pipeline has its own"


def test_a_second_holder_is_refused_and_told_who_is_there(book: Ledger, opened: Opened) -> None:
    with opened() as other, pytest.raises(LedgerError) as caught, other.lease("p"):
        pass
    assert caught.value.code == "ledger.locked"
    assert "another run of p is at work (process" in str(caught.value)
    assert caught.value.fix
    begin(book)
    with opened() as reader:
        assert [r["run_id"] for r in reader.runs("p")] == ["run1"], "reading needs no lease"


HOLD = """
import sys
from pathlib import Path
from engine.ledger import Ledger
with Ledger(Path(sys.argv[1]), sys.argv[2] or None) as book, book.lease("p"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_holds_no_more(tmp_path: Path, url: str | None, opened: Opened) -> None:
    with opened():
        pass
    command = [sys.executable, "-c", HOLD, str(tmp_path / "work"), url or ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with opened() as book, pytest.raises(LedgerError, match=f"process {process.pid} on "), book.lease("p"):
            pass
        process.kill()
        assert process.wait() == -9
    with opened() as book:
        assert taken_soon(book, "p") == 2


def test_many_first_runs_at_once(tmp_path: Path, url: str | None, opened: Opened) -> None:
    """Each makes the ledger, if no other has; all end well."""
    code = "import sys; from pathlib import Path; from engine.ledger import Ledger\n"
    code += "Ledger(Path(sys.argv[1]), sys.argv[2] or None).close()"
    command = [sys.executable, "-c", code, str(tmp_path / "work"), url or ""]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    assert [(p.communicate()[1], p.returncode) for p in processes] == [("", 0)] * 4
    with opened() as book:
        assert book.runs() == []


# --- whole runs with a shared ledger --------------------------------------------------------------------------------


def test_a_run_with_a_shared_ledger_is_like_any_other(tmp_path: Path, postgres_server: Any) -> None:
    folders = tmp_path / "shared", tmp_path / "embedded"
    for folder, url in zip(folders, (own_database(postgres_server), None), strict=True):
        folder.mkdir()
        write_world(folder)
        for at in (T, T + DAY):
            report = run_pipeline(pipeline(folder, ledger=url), as_of=at)
            assert report.status == "done"
            assert PASSWORD not in str(report.to_dict())
        with Ledger(folder / ".maestro", url) as book:
            assert [r["status"] for r in book.runs("small")] == ["done", "done"]
            assert len(book.published("small")) == 2
        assert unfinished(pipeline(folder, ledger=url)) is None
    assert not (folders[0] / ".maestro" / "ledger.db").exists()
    assert_frame_equal(published(folders[0]), published(folders[1]), rel_tol=1e-9)


def test_two_pipelines_share_a_ledger(tmp_path: Path, postgres_server: Any) -> None:
    url = own_database(postgres_server)
    write_world(tmp_path)
    for name in ("one", "two"):
        declared = pipeline(tmp_path, ledger=url, output={"path": name}).model_copy(update={"name": name})
        run_pipeline(declared, as_of=T)
    with Ledger(tmp_path / ".maestro", url) as book:
        assert [len(book.runs(name)) for name in ("one", "two")] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        ("p%40ss%3Aw%2Frd-pg", "wr0ng-pa55w0rd"),
        ("p%40ss%3Aw%2Frd-pg@127.0.0.1:", "p%40ss%3Aw%2Frd-pg@127.0.0.1:1"),
        ("127.0.0.1", "no-such-host.invalid"),
        ("/ledger_", "/absent_"),
        ("@127.0.0.1:", "@127.0.0.1:port"),
        ("@127.0.0.1:", "@127.0.0.1:99999"),
    ],
)
def test_a_ledger_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, postgres_server: Any, change: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    good = own_database(postgres_server)
    url = good.replace(*change)
    assert url != good
    write_world(tmp_path)
    with pytest.raises(LedgerError) as caught:
        run_pipeline(pipeline(tmp_path, ledger=url), as_of=T)
    assert caught.value.code == "ledger.unreadable"
    assert caught.value.exit_code == 3
    assert caught.value.fix
    said = f"{caught.value} {caught.value.to_dict()} {caught.value!r} {caplog.text}"
    for secret in (PASSWORD, "p%40ss%3Aw%2Frd-pg", "wr0ng-pa55w0rd"):
        assert secret not in said


def test_checkpoints_of_views_are_kept(book: Ledger) -> None:
    begin(book, "run1")
    state = {"upto": 7, "files": {"rows events": {"path": "c/x", "rows": 3, "bytes": 9, "sha256": "ab"}}}
    first, second = Checkpoint("d1", {"s": (FILE,)}), Checkpoint("d1", {"s": ()}, state)
    assert book.checkpoints("p") == {}
    book.publishing("run1", "p", {"v": (AT, {})}, [part("v", AT)], {"v": first})
    book.publishing("run1", "p", {"v": (AT, {})}, [part("v", AT)], {"v": second})
    assert book.checkpoints("p") == {"v": first}, "only of views that have none"
    book.keep_checkpoints("run1", "p", {"v": second, "w": first})
    assert book.checkpoints("p") == {"v": second, "w": first}
    assert book.checkpoints("p")["v"].files == {"rows events": File("c/x", 3, 9, "ab")}
    other = Checkpoint("d2", {"s": (FILE,)})
    book.publishing("run1", "p", {"v": (AT, {})}, [part("v", AT)], {"v": other})
    assert book.checkpoints("p")["v"] == other, "what it is of is not published any more"
    book.forget_checkpoints("p", keep=["w"])
    assert book.checkpoints("p") == {"w": first}
    assert book.checkpoints("q") == {}

"""Real servers behind a proxy that breaks connections: a run ends with the exact rows, or with an error that says why.

What earlier runs published stays as it was until a run comes to its end, and what has landed is not read again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest

from engine import RunReport, run_pipeline, steps
from engine.errors import SourceError, TransientSourceError
from engine.ledger import Ledger
from engine.sources.threads import Threads
from tests.faults.world import (
    DAY,
    NAME,
    Database,
    T,
    contents,
    differences,
    landed,
    moment,
    on_server,
    pipeline,
    plain,
    settle,
)
from tests.servers import proxy

ROWS, PIECE = 3000, 200
HARD_SECONDS = 120  # after which a test that hangs ends the whole process
DATABASES = ("postgres", "mariadb")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(HARD_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@dataclass
class Network:
    """A pipeline with one source of some 15 pieces, behind a proxy; a first run, undisturbed, has published."""

    database: Database
    proxy: proxy.Proxy
    folder: Path
    patch: pytest.MonkeyPatch
    begun: list[int] = field(default_factory=list)
    table: str = "tasks"

    def __post_init__(self) -> None:
        original, begun = Threads.__init__, self.begun

        def counted(threads: Any, session: Any, read: Callable[..., Any], **how: Any) -> None:
            def counting(session: Any, piece: Any) -> Any:
                begun.append(piece.number)
                return read(session, piece)

            original(threads, session, counting, **how)

        self.patch.setattr(Threads, "__init__", counted)

    def run(self, *, retries: int = 0, seconds: float = 2, day: int = 0) -> RunReport:
        """A run at the ``day``-th moment; fails as a run does."""
        source = {"type": "database", "connection_string": self.proxy.url(self.database.url), "table": self.table}
        source |= {"max_retries": retries, "timeout_seconds": seconds}
        keep = {"handle_missing": "keep", "normalize": False, "sources": {"tasks": "tasks"}}
        sections = {"sources": {"tasks": source}, "validation": {}, "features": {"task_features": keep}}
        self.begun.clear()
        return run_pipeline(pipeline(self.folder, self.database.url, **sections), as_of=T + day * DAY)

    def at_piece(self, count: int, call: Callable[[], object]) -> None:
        """Calls once so many pieces have landed."""
        made = [0]

        def heard(step: str) -> None:
            made[0] += step == "piece.committed"
            if step == "piece.committed" and made[0] == count:
                call()

        self.patch.setattr(steps, "listener", heard)

    def arm(self, fault: Callable[[int], object], at: int | str) -> None:
        """At byte ``at`` of a connection, or in the middle of the rows: of a later piece than the first."""
        if at != "rows":
            fault(int(at))
        elif self.database.kind == "postgres":  # a worker's connection reads many pieces
            fault(400_000)
        else:  # each piece has a connection
            self.at_piece(5, lambda: fault(30_000))

    def exact(self) -> bool:
        """Whether the newest table is what the server has now."""
        return plain(landed(self.folder, "tasks")) == plain(self.database.rows(f"SELECT * FROM {self.table}"))

    def last(self) -> dict[str, Any]:
        """The newest run, as the ledger has it."""
        with Ledger(self.folder / ".maestro") as ledger:
            return ledger.runs(NAME)[-1]

    def pieces(self) -> int:
        """How many pieces a run left that had landed."""
        with Ledger(self.folder / ".maestro") as ledger:
            return sum(len(ledger.pieces(read.read_id)) for read in ledger.reads(ledger.runs(NAME)[-1]["run_id"]))

    def fails(self, kind: type[SourceError] = TransientSourceError, **how: Any) -> tuple[SourceError, int]:
        """Runs, and makes sure that it fails as it should; gives the error and how many pieces have landed."""
        before = contents(self.folder)
        assert before
        with pytest.raises(SourceError) as caught:
            self.run(day=1, **how)
        assert type(caught.value) is kind
        assert (caught.value.exit_code, caught.value.where) == (3, "sources.tasks")
        last = self.last()
        assert (last["status"], last["error"]["code"]) == ("failed", caught.value.code)
        assert contents(self.folder) == before
        return caught.value, self.pieces()

    def goes_on(self, pieces: int, begun: int) -> None:
        """The next run is undisturbed: exact, it reads what had not landed, and little of it a second time."""
        self.patch.setattr(steps, "listener", None)
        report = self.run(day=1)
        metrics = report.sources[0].metrics
        assert report.status == "done"
        assert self.exact()
        assert (metrics.records_read, metrics.retries, metrics.chunks_skipped) == (ROWS, 0, pieces)
        assert len(self.begun) == metrics.chunks
        again = begun + metrics.chunks - (metrics.chunks + metrics.chunks_skipped)
        assert 0 <= again <= 2, "a resume repeats at most one piece per worker"
        assert sorted(contents(self.folder)) == [
            f"task_features/event_date=2025-10-0{day}/part-2025100{day}T000000Z.parquet" for day in (4, 5)
        ]
        assert differences(self.folder, self.database, sources=["tasks"]) == []


@pytest.fixture(scope="module")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Per kind of database its server, a filled database, and a folder after an undisturbed run; made at first use."""
    made: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in made:
            server = request.getfixturevalue(f"{kind}_server")
            database = on_server(server, "network")
            fill(database, "tasks")
            folder = tmp_path_factory.mktemp(kind)
            with proxy.running(server.port) as between, pytest.MonkeyPatch.context() as patch:
                settle(patch, PIECE)
                network = Network(database, between, folder, patch)
                assert network.run().sources[0].metrics.chunks in (15, 18)
                assert network.exact()
            made[kind] = server, database, folder
        return made[kind]

    return get


def fill(database: Database, table: str, size: int = 500) -> None:
    """A table whose rows have about ``size`` bytes each."""
    database.execute(
        f"CREATE TABLE {table} (task_id INTEGER PRIMARY KEY, description TEXT, estimated_hours {database.real}, "
        f"deadline {database.moment})"
    )
    database.insert(table, [(i, f"{i} " + "x" * size, i / 8, moment(T + i % 9 * DAY)) for i in range(ROWS)])
    if database.kind == "postgres":
        database.execute(f"ANALYZE {table}")


@pytest.fixture(params=DATABASES)
def network(
    request: pytest.FixtureRequest,
    prepared: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Network]:
    settle(monkeypatch, PIECE)
    server, database, folder = prepared(request.param)
    with proxy.running(server.port) as between:
        yield Network(database, between, Path(shutil.copytree(folder, tmp_path / "run")), monkeypatch)


# --- connections that break ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 60, 20_000, "rows"])
@pytest.mark.parametrize("kind", ["reset", "close"])
def test_a_connection_that_breaks(network: Network, kind: str, at: int | str) -> None:
    if at == 20_000 and network.database.kind == "mariadb":
        at = 25_000  # of a piece; what is asked beside is shorter

    def fault(size: int) -> None:
        (network.proxy.reset_after if kind == "reset" else network.proxy.close_after)(size, times=1)

    network.arm(fault, at)
    _, pieces = network.fails(retries=0)
    assert network.proxy.fired == {kind: 1}
    assert pieces >= 5 if at == "rows" and network.database.kind == "mariadb" else pieces >= 0
    assert at not in (0, 60) or pieces == 0
    network.goes_on(pieces, len(network.begun))

    network.arm(fault, at)
    report = network.run(retries=2, day=2)
    assert network.proxy.fired == {kind: 2}
    assert (report.status, report.sources[0].metrics.records_read) == ("done", ROWS)
    assert report.sources[0].metrics.retries <= 1
    assert network.exact()


def test_every_attempt_breaks(network: Network) -> None:
    """The last attempt's error is the run's; each attempt kept what those before it had landed."""
    network.proxy.reset_after(30_000 if network.database.kind == "mariadb" else 300_000, times=1000)
    error, pieces = network.fails(retries=2)
    assert network.proxy.fired["reset"] >= 3
    assert error.fix is not None
    network.proxy.clear()
    network.goes_on(pieces, pieces + len(set(network.begun) - set(range(pieces))))


def test_refused_connections(network: Network) -> None:
    network.proxy.refuse(times=1000)
    error, pieces = network.fails(retries=2)
    assert network.proxy.fired["refuse"] >= 3
    assert pieces == 0
    assert error.code in ("source.no_connection", "source.lost_connection")
    network.proxy.clear()

    network.proxy.refuse(times=1)
    report = network.run(retries=1, day=2)
    assert network.proxy.fired["refuse"] >= 4
    assert (report.status, report.sources[0].metrics.retries) == ("done", 1)
    assert network.exact()


# --- servers that end the session ---------------------------------------------------------------------------------

READERS = {
    "postgres": "SELECT pid FROM pg_stat_activity WHERE datname = 'network' AND pid <> pg_backend_pid() "
    "AND query LIKE 'COPY (SELECT%ctid%'",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE info LIKE '/* maestro%' AND id <> connection_id()",
}


def end_readers(database: Database) -> int:
    """Ends the sessions that read; gives how many."""
    end = "SELECT pg_terminate_backend({})" if database.kind == "postgres" else "KILL {}"
    ended = 0
    for (number,) in database.rows(READERS[database.kind]):
        with suppress(pymysql.err.OperationalError):  # it has ended by itself
            database.execute(end.format(number))
            ended += 1
    return ended


def test_back_ends_killed_while_they_send(network: Network) -> None:
    """Rows so wide that no buffer between holds a piece, or another piece is still to be asked for."""
    settle(network.patch, 1500)
    network.table = "wide"
    fill(network.database, "wide", size=12_000)
    killed: list[int] = []
    try:
        network.proxy.on_bytes(3_000_000, lambda: killed.append(end_readers(network.database)), times=1)
        _, pieces = network.fails(retries=0)
        assert network.proxy.fired == {"on_bytes": 1}
        assert killed[0] in (1, 2)
        assert pieces < 3
        report = network.run(retries=1, day=1)
        assert report.sources[0].metrics.chunks_skipped == pieces
        assert network.exact()
    finally:
        network.database.execute("DROP TABLE wide")


@pytest.mark.parametrize("network", ["postgres"], indirect=True)
def test_the_server_crashes_and_restarts(network: Network) -> None:
    """One of its processes dies: PostgreSQL ends all sessions and refuses new ones until it has recovered."""
    killed: list[int] = []

    def crash() -> None:
        [(pid,), *_] = network.database.rows(READERS["postgres"])
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    network.proxy.on_bytes(400_000, crash)
    _, pieces = network.fails(retries=0)
    assert network.proxy.fired == {"on_bytes": 1}
    assert len(killed) == 1
    network.patch.setattr("engine.landing.extract.random.uniform", lambda *_: 0.1)
    report = network.run(retries=9, day=1)
    assert report.sources[0].metrics.chunks_skipped == pieces
    assert network.exact()


# --- silence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, "rows"])
def test_a_black_hole(network: Network, at: int | str) -> None:
    """Nothing comes any more, and nothing says so: the run notices, and another attempt reads what is left."""
    network.arm(lambda size: network.proxy.black_hole_after(size, times=1), at)
    error, pieces = network.fails(retries=0, seconds=2)
    assert network.proxy.fired == {"black_hole": 1}
    assert error.code in ("source.stalled", "source.no_connection", "source.lost_connection")
    network.goes_on(pieces, len(network.begun))


def test_a_black_hole_and_another_attempt(network: Network) -> None:
    network.arm(lambda size: network.proxy.black_hole_after(size, times=1), "rows")
    report = network.run(retries=1, seconds=2, day=1)
    assert network.proxy.fired == {"black_hole": 1}
    metrics = report.sources[0].metrics
    assert (report.status, metrics.retries, metrics.records_read) == ("done", 1, ROWS)
    assert 1 <= len(network.begun) - metrics.chunks <= 2, "one piece per worker was read again, at most"
    assert network.exact()


def test_a_slow_connection(network: Network) -> None:
    """Slow is not broken: as long as pieces come in time, nothing is given up."""
    network.arm(lambda size: network.proxy.drip_after(size, 300_000, times=1), "rows")
    report = network.run(retries=0, seconds=4, day=1)
    assert network.proxy.fired == {"drip": 1}
    assert (report.status, report.sources[0].metrics.retries) == ("done", 0)
    assert network.exact()


def test_a_connection_too_slow(network: Network) -> None:
    """A piece that would take minutes is given up, and read again alone."""
    network.arm(lambda size: network.proxy.drip_after(size, 500, times=1), "rows")
    report = network.run(retries=1, seconds=2, day=1)
    assert network.proxy.fired == {"drip": 1}
    metrics = report.sources[0].metrics
    assert (report.status, metrics.retries, metrics.records_read) == ("done", 1, ROWS)
    assert 1 <= len(network.begun) - metrics.chunks <= 2
    assert network.exact()


INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
import pytest
from engine.cli import main
from tests.faults.world import settle
settle(pytest.MonkeyPatch(), rows=200)
sys.exit(main(["run", "--quiet", sys.argv[2], "--as-of", "2025-10-05"]))
"""


@pytest.mark.parametrize("at", [0, "rows"])
def test_ctrl_c_in_a_black_hole(network: Network, at: int | str) -> None:
    """At once, although the time-out is far away, and with one line; the next run goes on."""
    source = {"type": "database", "connection_string": network.proxy.url(network.database.url), "table": "tasks"}
    document = {
        "version": 1,
        "name": NAME,
        "sources": {"tasks": {**source, "timeout_seconds": 3600}},
        "features": {"task_features": {"handle_missing": "keep", "normalize": False}},
    }
    (network.folder / "pipeline.yaml").write_text(json.dumps(document))
    stalled = threading.Event()
    place = 0 if at == 0 else 30_000 if network.database.kind == "mariadb" else 400_000
    network.proxy.on_bytes(place, stalled.set)
    network.proxy.black_hole_after(place)
    before = contents(network.folder)
    command = [sys.executable, "-c", INTERRUPTED, str(ROOT), str(network.folder / "pipeline.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert stalled.wait(60)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert network.proxy.fired["on_bytes"] == 1
    assert network.proxy.fired["black_hole"] >= 1, "of several connections, another may get that far too"
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == ["maestro: interrupted; what was published before stays as it was"]
    assert network.last()["status"] == "interrupted"
    assert contents(network.folder) == before
    pieces = network.pieces()
    report = network.run(day=1)
    assert (report.status, report.sources[0].metrics.chunks_skipped) == ("done", pieces)
    assert network.exact()


# --- values that cannot be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["postgres"], indirect=True)
def test_an_infinite_date_in_the_middle(network: Network) -> None:
    """No attempt would read it: the run fails at once, naming the column; mended, only what it touched is read again."""
    network.table = "poisoned"
    fill(network.database, "poisoned")
    try:
        network.database.execute("TRUNCATE poisoned")
        rows = [(i, "x" * 500, 1.0, "infinity" if i == 1500 else moment(T)) for i in range(ROWS)]
        network.database.insert("poisoned", rows)
        network.database.execute("ANALYZE poisoned")
        error, pieces = network.fails(SourceError, retries=3)
        assert error.code == "source.infinite_date"
        assert "'deadline'" in error.message
        assert pieces > 3, "what came before it has landed"
        network.database.execute(f"UPDATE poisoned SET deadline = '{moment(T)}' WHERE task_id = 1500")
        metrics = network.run(day=1).sources[0].metrics
        assert metrics.chunks_skipped >= pieces - 1
        assert network.exact()
    finally:
        network.database.execute("DROP TABLE poisoned")


@pytest.mark.parametrize("network", ["mariadb"], indirect=True)
def test_a_zero_date_written_during_the_read(network: Network) -> None:
    """It was not there when the dates were looked through."""
    network.table = "poisoned"
    network.database.execute("CREATE TABLE poisoned LIKE tasks", "ALTER TABLE poisoned MODIFY deadline DATETIME(6)")
    try:
        network.database.execute("INSERT INTO poisoned SELECT * FROM tasks")
        poison = "UPDATE poisoned SET deadline = '0000-00-00 00:00:00' WHERE task_id = 2999"
        network.at_piece(3, lambda: network.database.execute(poison))
        error, pieces = network.fails(SourceError, retries=3)
        assert error.code == "source.unsupported_value"
        assert "'deadline'" in error.message
        assert pieces >= 3
        network.patch.setattr(steps, "listener", None)
        network.database.execute(f"UPDATE poisoned SET deadline = '{moment(T)}' WHERE task_id = 2999")
        metrics = network.run(day=1).sources[0].metrics
        assert metrics.chunks_skipped == pieces
        assert network.exact()
    finally:
        network.database.execute("DROP TABLE poisoned")

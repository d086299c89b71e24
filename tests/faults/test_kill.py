"""A run killed with SIGKILL, at each named step and at any other moment, and run again: as if nothing had happened."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engine import steps
from engine.ledger import Ledger
from tests.faults.world import (
    DAY,
    NAME,
    Database,
    Killing,
    Order,
    T,
    Watching,
    activity,
    change,
    differences,
    fill,
    in_file,
    in_process,
    landed,
    on_server,
    settle,
)
from tests.servers import proxy
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres

STORE = {"rows.loaded", "store.loaded"}
FIRST = tuple((step, 1) for step in steps.STEPS if step not in STORE)
SEVERAL = ("piece.committed", "table.judged", "file.published", "landing.collected")
LANDING = ("run.begun", "read.begun", "piece.written", "piece.committed", "table.written", "table.landed")


class World:
    """A database that has changed since the first run over it, and what an undisturbed second run makes of it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        fill(database)
        self.base = folder / "base"
        self.base.mkdir()
        assert self.order("base", as_of=[T - DAY]) == 0
        for seed in range(3):
            change(database, random.Random(seed))
        database.insert("activities", [activity(i) for i in range(1000, 1200)])
        self.copy("whole")
        assert self.order("whole") == 0
        self.whole = folder / "whole"
        self.steps = Order(self.whole, database.url).steps()

    def order(self, name: str, **changes: Any) -> int:
        return in_process(Order(self.folder / name, self.database.url, **changes))

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.base, self.folder / name))


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("sqlite")
    return World(in_file(folder / "app.db"), folder)


@pytest.fixture(scope="module")
def postgres_world(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(on_server(postgres_server, "killed"), tmp_path_factory.mktemp("postgres"))


@pytest.fixture(scope="module")
def mariadb_world(mariadb_server: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(on_server(mariadb_server, "killed"), tmp_path_factory.mktemp("mariadb"))


def killed_and_run_again(world: World, folder: Path, step: str, count: int) -> None:
    """Dies at the step's ``count``-th time, of -1 the last; a watcher reads meanwhile, and while it is run again."""
    count = count if count > 0 else world.steps[step]
    order = Order(folder, world.database.url, (step, count))
    with Watching(folder) as watching:
        assert in_process(order) == -9
        assert order.steps()[step] == count
        pieces = unfinished(folder)
        report = Order(folder, world.database.url).run()
    assert watching.wrong == []
    assert watching.polls > 0
    assert report.status == "done"
    assert differences(folder, world.database, world.whole) == []
    resumed = Counter({source.name: source.metrics.chunks_skipped for source in report.sources})
    assert +resumed == pieces


def unfinished(folder: Path) -> Counter[str]:
    """Source: how many pieces the next run need not read: of tables read whole, and of reads that did not land."""
    with Ledger(folder / ".maestro") as ledger:
        reads = ledger.reads(ledger.runs(NAME)[-1]["run_id"])
        pieces = {r.source: len(ledger.pieces(r.read_id)) for r in reads if r.base is None or r.state == "reading"}
    return Counter({source: count for source, count in pieces.items() if count})


def test_an_undisturbed_run_makes_every_step_but_the_loading_of_a_store(
    sqlite_world: World, postgres_world: World, mariadb_world: World
) -> None:
    for world in (sqlite_world, postgres_world, mariadb_world):
        assert set(world.steps) == set(steps.STEPS) - STORE
        assert world.steps["piece.committed"] > 10
        assert (world.steps["table.landed"], world.steps["file.published"]) == (3, 4)


@pytest.mark.parametrize(("step", "count"), [*FIRST, *((step, -1) for step in SEVERAL)])
def test_sqlite_at_every_step(sqlite_world: World, step: str, count: int, request: pytest.FixtureRequest) -> None:
    assert count == 1 or sqlite_world.steps[step] > 1
    killed_and_run_again(sqlite_world, sqlite_world.copy(request.node.name), step, count)


@pytest.mark.parametrize(
    ("step", "count"),
    [
        *((step, 1) for step in LANDING),
        ("read.begun", -1),
        ("piece.written", 7),
        ("piece.committed", 7),
        ("piece.committed", -1),
    ],
)
def test_postgres_at_every_step_of_landing(
    postgres_world: World, step: str, count: int, request: pytest.FixtureRequest
) -> None:
    killed_and_run_again(postgres_world, postgres_world.copy(request.node.name), step, count)


@pytest.mark.parametrize("step", ["piece.written", "piece.committed"])
def test_mariadb_while_it_lands(mariadb_world: World, step: str, request: pytest.FixtureRequest) -> None:
    killed_and_run_again(mariadb_world, mariadb_world.copy(request.node.name), step, 7)


@pytest.mark.parametrize("step", ["table.landed", "files.recorded", "file.published"])
def test_the_first_run_of_all(sqlite_world: World, tmp_path: Path, step: str) -> None:
    """Nothing is pinned yet, and what was fitted by the run that died stays."""
    whole = sqlite_world.folder / "first"
    if not whole.exists():
        whole.mkdir()
        assert in_process(Order(whole, sqlite_world.database.url)) == 0
    folder = tmp_path / "first"
    folder.mkdir()
    assert in_process(Order(folder, sqlite_world.database.url, (step, 2 if step != "files.recorded" else 1))) == -9
    assert Order(folder, sqlite_world.database.url).run().status == "done"
    assert differences(folder, sqlite_world.database, whole) == []


def test_between_the_last_file_and_the_store(sqlite_world: World, tmp_path: Path) -> None:
    """The store is loaded again, from all files."""
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    order = Order(tmp_path / "killed", sqlite_world.database.url, ("store.loaded", 1), feast=True)
    assert in_process(order) == -9
    assert set(order.steps()) == set(steps.STEPS) - {"run.finished"}
    again = Order(tmp_path / "killed", sqlite_world.database.url, feast=True)
    assert in_process(again) == 0
    assert set(again.steps()) == set(steps.STEPS) - {"rows.quarantined"}  # what is set aside is not read anew
    assert differences(tmp_path / "killed", sqlite_world.database, None) == []
    with Ledger(tmp_path / "killed" / ".maestro") as ledger:
        assert {file["state"] for file in ledger.published(NAME)} == {"loaded"}
        assert [run["status"] for run in ledger.runs(NAME)] == ["interrupted", "done"]


def test_killed_again_and_again_before_it_ends(postgres_world: World, tmp_path: Path) -> None:
    """Each run lands a few more pieces; not one is read twice, as nothing changes."""
    folder = postgres_world.copy("again")
    landed_before: Counter[str] = Counter()
    for _ in range(4):
        assert in_process(Order(folder, postgres_world.database.url, ("piece.committed", 2))) == -9
        now = unfinished(folder)
        assert now["tasks"] == landed_before["tasks"] + 2
        landed_before = now
    report = Order(folder, postgres_world.database.url).run()
    assert report.sources[0].metrics.chunks_skipped == 8
    assert differences(folder, postgres_world.database, postgres_world.whole) == []


def test_killed_between_rows_that_are_inserted(postgres_server: Postgres, tmp_path: Path) -> None:
    """The cursor moves with what has landed only: no row is skipped, none lands twice."""
    database = on_server(postgres_server, "between_rows")
    fill(database)
    for number, (step, count) in enumerate([("piece.committed", 2), ("table.written", 3), ("table.landed", 3)] * 2):
        change(database, random.Random(number))
        assert in_process(Order(tmp_path, database.url, (step, count), fits=False)) == -9
        change(database, random.Random(number + 100))
    assert Order(tmp_path, database.url, fits=False).run().status == "done"
    assert differences(tmp_path, database) == []
    assert len(landed(tmp_path, "activities")) > 400


@pytest.mark.parametrize(("kind", "kills"), [("postgres", 13), ("mariadb", 6), ("sqlite", 6)])
def test_at_random_moments_while_the_tables_change(
    kind: str, kills: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = in_file(tmp_path / "app.db")
    with ExitStack() as stack:
        between = None
        if kind != "sqlite":
            server = request.getfixturevalue(f"{kind}_server")
            database = on_server(server, "random_kills")
            between = stack.enter_context(proxy.running(server.port))
        fill(database)
        killing = Killing(database, tmp_path / "run", random.Random(kills), between)
        killing.run(kills)
    assert killing.wrong == []
    assert killing.by.total() == killing.between.total() == kills
    assert killing.checks > 0
    assert killing.watched > 0

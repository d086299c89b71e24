"""A REST server whose connections break, and runs over it that are killed: every record once, or an error that says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

from engine import Pipeline, RunReport, run_pipeline
from engine.errors import SourceError
from engine.ledger import Ledger
from tests.servers import proxy, rest
from tests.servers.rest import Answer, Request

ROOT = Path(__file__).parents[2]
RECORDS = [{"id": i, "text": f"{i:05d}" * 20, "tags": [i % 3], "at": {"x": i}} for i in range(600)]
PAGE, PIECE = 20, 60


@dataclass
class Tasks:
    """A server of records; what it is asked for is counted by page."""

    asked: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Answer:
        number = int(request.params["page"])
        with self.lock:
            self.asked[number] += 1
        return Answer({"data": RECORDS[(number - 1) * PAGE : number * PAGE], "total": len(RECORDS)})


def pipeline(folder: Path, url: str, **keys: Any) -> Pipeline:
    paging = {"style": "page", "size": PAGE, "total_key": "total"}
    source = {"type": "api", "url": url, "pagination": paging, "batch_size": PIECE, "timeout_seconds": 1.0, **keys}
    return Pipeline(base=folder, name="p", sources={"tasks": source})


def landed(folder: Path) -> list[dict[str, Any]]:
    with Ledger(folder / ".maestro") as ledger:
        table = ledger.table("p", "tasks")
    assert table is not None
    return pl.concat([pl.read_parquet((folder / ".maestro" / f.path).read_bytes()) for f in table.files]).to_dicts()


@contextmanager
def between() -> Iterator[tuple[Tasks, proxy.Proxy, str]]:
    tasks = Tasks()
    with rest.running(tasks) as server, proxy.running(urlsplit(server.url).port or 0) as broken:
        yield tasks, broken, broken.url(server.url)


# A page has some 2,700 bytes, the first hundred of them headers.
@pytest.mark.parametrize("at", [0, 50, 1500])
@pytest.mark.parametrize("kind", ["reset", "close", "black_hole", "refuse"])
def test_broken_connections_lose_nothing(tmp_path: Path, kind: str, at: int) -> None:
    with between() as (_, broken, url):
        if kind == "refuse":
            broken.refuse(3)
        else:
            getattr(broken, f"{kind}_after")(at, times=3)
        report = run_pipeline(pipeline(tmp_path, url))
        assert broken.fired[kind] == 3
    assert report.status == "done"
    assert landed(tmp_path) == RECORDS
    assert report.sources[0].metrics.records_read == 600


def test_a_slow_drip_is_given_up_and_asked_for_again(tmp_path: Path) -> None:
    with between() as (_, broken, url):
        broken.drip_after(200, 100, times=2)
        assert run_pipeline(pipeline(tmp_path, url)).status == "done"
        assert broken.fired["drip"] == 2
    assert landed(tmp_path) == RECORDS


@pytest.mark.parametrize(
    ("kind", "code"), [("reset", "source.no_connection"), ("black_hole", "source.timeout"), ("drip", "source.timeout")]
)
def test_a_server_that_stays_broken(tmp_path: Path, kind: str, code: str) -> None:
    """The run fails, and the next one goes on from what has landed."""
    with between() as (tasks, broken, url):
        wanted = threading.Event()

        def break_it() -> None:
            wanted.set()
            rate = (50.0,) if kind == "drip" else ()
            getattr(broken, f"{kind}_after")(100, *rate, times=10**6)

        tasks_answer = tasks.__class__.__call__

        def answer(self: Tasks, request: Request) -> Answer:
            if int(request.params["page"]) == 14 and not wanted.is_set():
                break_it()
            return tasks_answer(self, request)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tasks, "__call__", answer)
            with pytest.raises(SourceError) as caught:
                run_pipeline(pipeline(tmp_path, url, max_retries=1))
        assert caught.value.code == code
        assert broken.fired[kind] > 1
        broken.clear()
        with Ledger(tmp_path / ".maestro") as ledger:
            [read] = ledger.reads(ledger.runs("p")[-1]["run_id"])
            pieces = len(ledger.pieces(read.read_id))
        assert 0 < pieces < 10
        tasks.asked.clear()
        report = run_pipeline(pipeline(tmp_path, url))
    metrics = report.sources[0].metrics
    assert (metrics.chunks_skipped, metrics.chunks) == (pieces, 10 - pieces)
    assert min(tasks.asked) == pieces * 3
    assert landed(tmp_path) == RECORDS


# --- killed ------------------------------------------------------------------------------------------------------

CHILD = """
import json, os, signal, sys
from pathlib import Path
from engine import Pipeline, run_pipeline, steps

folder, keys, step, count = json.loads(sys.argv[1])
def heard(made):
    global count
    if made == step:
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
steps.listener = heard
run_pipeline(Pipeline(base=Path(folder), name="p", sources={"tasks": keys}))
"""


def run_until(folder: Path, url: str, step: str, count: int, **keys: Any) -> int:
    source = json.loads(pipeline(folder, url, **keys).sources["tasks"].model_dump_json(exclude_unset=True))
    arguments = json.dumps([str(folder), source, step, count])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def again(folder: Path, url: str, **keys: Any) -> tuple[RunReport, int]:
    """The next run, and how many pieces it could keep."""
    with Ledger(folder / ".maestro") as ledger:
        reads = ledger.reads(ledger.runs("p")[-1]["run_id"])
        pieces = sum(len(ledger.pieces(read.read_id)) for read in reads)
    return run_pipeline(pipeline(folder, url, **keys)), pieces


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("run.begun", 1),
        ("read.begun", 1),
        ("piece.written", 1),
        ("piece.committed", 1),
        ("piece.written", 6),
        ("piece.committed", 6),
        ("piece.committed", 10),
        ("table.written", 1),
        ("table.landed", 1),
    ],
)
@pytest.mark.parametrize("in_flight", [1, 8])
def test_killed_and_run_again(tmp_path: Path, step: str, count: int, in_flight: int) -> None:
    paging = {"style": "page", "size": PAGE, "total_key": "total", "in_flight": in_flight}
    tasks = Tasks()
    with rest.running(tasks) as server:
        assert run_until(tmp_path, server.url, step, count, pagination=paging) == -signal.SIGKILL
        tasks.asked.clear()
        report, pieces = again(tmp_path, server.url, pagination=paging)
    assert landed(tmp_path) == RECORDS
    metrics = report.sources[0].metrics
    assert metrics.records_read == 600
    if step.startswith("piece"):
        assert (metrics.chunks_skipped, metrics.chunks) == (pieces, 10 - pieces)
        assert pieces == count - (step == "piece.written")
        assert min(tasks.asked) == max(1, pieces * 3)
        assert sum(tasks.asked.values()) == 30 - pieces * 3 + bool(pieces)


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Each run lands two pieces more."""
    tasks = Tasks()
    with rest.running(tasks) as server:
        for _ in range(4):
            assert run_until(tmp_path, server.url, "piece.committed", 2) == -signal.SIGKILL
        report, pieces = again(tmp_path, server.url)
    assert pieces == 8
    assert report.sources[0].metrics.chunks_skipped == 8
    assert landed(tmp_path) == RECORDS
    assert sum(tasks.asked.values()) <= 30 + 4 * 9

"""Going on: what has landed is not read again while it holds, and the result is that of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import landing, stages, steps
from engine.errors import LedgerError, SourceError, TransientSourceError
from engine.history import collect_files
from engine.landing.journal import InMemory
from engine.ledger import Ledger
from engine.plan import compile_plan
from engine.sources import Chunk, Promise, Reading, Request
from engine.spec import FileSpec
from tests.landing.world import rows_of, shop, small_chunks

Fault = Callable[[int, int], None]  # gets the number of the opening and the number of the piece, and may raise


@dataclass
class Store:
    """What a source reads: pieces of rows, each in parts, whose marks are their content."""

    pieces: list[list[list[int]]]
    seal: Mapping[str, Any] | None = field(default_factory=lambda: {"store": 1})
    fault: Fault = lambda *_: None
    openings: int = 0
    read: list[list[int]] = field(default_factory=list)  # the pieces read at each opening
    asked: list[Request] = field(default_factory=list)
    kind: str = "file"
    location: str = "store"

    def open(self, request: Request) -> AbstractContextManager[Reading]:
        self.openings += 1
        self.asked.append(request)
        self.read.append([])
        return nullcontext(OneReading(self, request))

    @property
    def rows(self) -> list[int]:
        return [row for parts in self.pieces for part in parts for row in part]


class OneReading:
    def __init__(self, store: Store, request: Request) -> None:
        self.store, self.seal, self.promise = store, store.seal, Promise()
        self.bound: datetime | None = None
        self.trace: Mapping[str, Any] | None = None
        same = store.seal is not None and request.seal == store.seal
        holds = [p.number for p in request.landed if p.mark == {"rows": store.pieces[p.number]}]
        self.kept = frozenset(holds if same else ())

    def chunks(self) -> Iterator[Chunk]:
        for number, parts in enumerate(self.store.pieces):
            if number in self.kept:
                continue
            self.store.read[-1].append(number)
            for i, rows in enumerate(parts):
                if i == len(parts) - 1:
                    self.store.fault(self.store.openings, number)
                frame = pl.LazyFrame({"id": rows}, schema={"id": pl.Int64})
                last, mark = i == len(parts) - 1, {"rows": parts}
                yield Chunk(number, f"piece {number}", frame, len(rows), part=i, last=last, mark=mark)

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        raise NotImplementedError


def transient(*places: tuple[int, int]) -> Fault:
    """The line breaks at these openings and pieces."""

    def fault(opening: int, piece: int) -> None:
        if (opening, piece) in places:
            raise TransientSourceError("the line broke", code="source.no_connection", where="sources.s")

    return fault


def land(store: Store, folder: Path, journal: Any = None, **spec: Any) -> landing.LandedTable:
    declared = FileSpec(type="file", path="x.csv", **spec)
    return landing.land(store, declared, folder, name="s", memory_limit="64MiB", journal=journal, wait=lambda _: None)


def ids(table: landing.LandedTable) -> list[int]:
    return [row["id"] for row in rows_of(table.root, table.files)]


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_pieces_that_landed_before_a_failure_are_not_read_again(tmp_path: Path) -> None:
    store = Store([[[1]], [[2], [3]], [[4]], [[5]]], fault=transient((1, 2), (2, 3)))
    table = land(store, tmp_path)
    assert store.read == [[0, 1, 2], [2, 3], [3]]
    assert ids(table) == store.rows
    m = table.metrics
    assert (m.records_read, m.records_written, m.retries) == (5, 5, 2)
    assert (m.chunks, m.chunks_skipped) == (4, 0), "this run read them all, in three attempts"
    assert [(c["number"], c["rows"], c["retries"]) for c in m.per_chunk] == [(0, 1, 0), (1, 2, 0), (2, 1, 1), (3, 1, 2)]
    for chunk in m.per_chunk:
        assert list(chunk) == ["number", "rows", "seconds", "rows_per_second", "retries"]
        assert chunk["rows_per_second"] == round(chunk["rows"] / chunk["seconds"], 1) > 0
    assert there(tmp_path) == {Path(f.path).name for f in table.files}


def test_what_landed_is_offered_with_its_seal_and_marks(tmp_path: Path) -> None:
    store = Store([[[1], [2, 2]], [[3]]], fault=transient((1, 1)))
    land(store, tmp_path)
    first, second = store.asked
    assert (first.seal, list(first.landed)) == (None, [])
    assert second.seal == {"store": 1}
    assert [(p.number, p.rows, p.mark) for p in second.landed] == [(0, 3, {"rows": [[1], [2, 2]]})]


def test_pieces_that_no_longer_hold_are_read_again(tmp_path: Path) -> None:
    store = Store([[[1]], [[2]], [[3]]], fault=transient((1, 2)))

    def change(opening: int, piece: int) -> None:
        if (opening, piece) == (1, 2):
            store.pieces[0] = [[10]]
            transient((1, 2))(1, 2)

    store.fault = change
    table = land(store, tmp_path)
    assert store.read == [[0, 1, 2], [0, 2]]
    assert ids(table) == [10, 2, 3]
    assert there(tmp_path) == {Path(f.path).name for f in table.files}, "the piece that no longer holds is gone"


@pytest.mark.parametrize("seals", [None, {"store": 2}])
def test_another_seal_reads_everything_again(tmp_path: Path, seals: Any) -> None:
    store = Store([[[1]], [[2]]])

    def change(opening: int, piece: int) -> None:
        if (opening, piece) == (1, 1):
            store.seal = seals
            transient((1, 1))(1, 1)

    store.fault = change
    table = land(store, tmp_path)
    assert store.read == [[0, 1], [0, 1]]
    assert ids(table) == [1, 2]
    assert len(there(tmp_path)) == 2


@pytest.mark.parametrize("harm", ["lost", "short", "longer"])
def test_a_lost_or_damaged_piece_is_read_again(tmp_path: Path, harm: str) -> None:
    journal = InMemory()
    store = Store([[[1], [11]], [[2]], [[3]]], fault=transient((1, 2)))
    with pytest.raises(TransientSourceError):
        land(store, tmp_path, journal, max_retries=0)
    assert sorted(journal.pieces) == [0, 1]
    path = tmp_path / journal.pieces[0].files[1].path
    if harm == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x" if harm == "longer" else path.read_bytes()[:-1])
    table = land(store, tmp_path, journal)
    assert store.read == [[0, 1, 2], [0, 2]]
    assert ids(table) == store.rows
    assert (table.metrics.chunks, table.metrics.chunks_skipped) == (2, 1)
    assert table.metrics.records_read == 4, "also what an earlier run read of it"


def test_parts_of_a_piece_that_never_became_whole_are_removed(tmp_path: Path) -> None:
    store = Store([[[1]], [[2], [3], [4]]], fault=transient((1, 1)))
    with pytest.raises(TransientSourceError):
        land(store, tmp_path, journal := InMemory(), max_retries=0)
    assert there(tmp_path) == {journal.pieces[0].files[0].path}


def test_a_failure_that_stays_keeps_its_pieces_and_a_source_without_a_seal_none(tmp_path: Path) -> None:
    for name, seal, kept in (("sealed", {"store": 1}, 1), ("plain", None, 0)):
        store = Store([[[1]], [[2]]], seal=seal, fault=transient((1, 1), (2, 1)))
        with pytest.raises(TransientSourceError):
            land(store, tmp_path / name, InMemory(), max_retries=1)
        assert len(there(tmp_path / name)) == kept


def test_an_error_that_is_not_transient_is_not_tried_again(tmp_path: Path) -> None:
    def fault(opening: int, piece: int) -> None:
        if piece == 1:
            raise SourceError("odd", code="source.odd")

    store = Store([[[1]], [[2]]], fault=fault)
    with pytest.raises(SourceError, match="odd"):
        land(store, tmp_path, journal := InMemory())
    assert (store.openings, sorted(journal.pieces)) == (1, [0])


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=3), min_size=1, max_size=5),
    faults=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), max_size=6),
    rule=st.sampled_from([None, {"keys": ["id"]}]),
)
def test_however_it_is_disturbed_the_table_is_that_of_an_undisturbed_run(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[list[list[int]]],
    faults: list[tuple[int, int]],
    rule: dict[str, Any] | None,
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    calm = land(Store(pieces), folder / "calm", deduplicate=rule)
    store = Store(pieces, fault=transient(*faults))
    table = land(store, folder / "disturbed", max_retries=6, deduplicate=rule)
    assert ids(table) == ids(calm)
    for name in ("records_read", "records_written", "duplicates_removed", "rows", "chunks", "chunks_skipped"):
        assert getattr(table.metrics, name) == getattr(calm.metrics, name)
    read = [number for opening in store.read for number in opening]
    assert len(read) - len(pieces) == table.metrics.retries, "each failure costs one piece"


# --- through the ledger ---------------------------------------------------------------------------------------------


class Died(Exception):  # noqa: N818
    """The process is gone, as far as the run can tell."""


def dies_after(pieces: int) -> Callable[[str], None]:
    """A listener that ends the run once so many pieces are committed."""
    seen = 0

    def hear(step: str) -> None:
        nonlocal seen
        seen += step == "piece.committed"
        if seen == pieces and step == "piece.committed":
            raise Died

    return hear


FACTS = [{"id": n, "at": n % 5, "v": f"v{n}", "n": n} for n in range(10)]


@pytest.mark.parametrize("source", [{}, {"cursor": "at"}, {"cursor": "at", "deduplicate": {"keys": ["at"]}}])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_the_next_run_reads_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], after: int
) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(after))
        with pytest.raises(Died):
            table.run(source)
    committed: list[str] = []
    monkeypatch.setattr(steps, "listener", committed.append)
    metrics = table.run(source).sources[0].metrics
    assert committed.count("piece.committed") == 4 - after
    assert (metrics.chunks, metrics.chunks_skipped, metrics.records_read) == (4 - after, after, 10)
    (tmp_path / "calm").mkdir()
    calm = shop(tmp_path / "calm")
    calm.insert(*FACTS)
    undisturbed = calm.run(source).sources[0].metrics
    assert table.landed() == calm.landed()
    assert (metrics.rows, metrics.duplicates_removed) == (undisturbed.rows, undisturbed.duplicates_removed)
    held = {p.relative_to(tmp_path / ".maestro").as_posix() for p in (tmp_path / ".maestro/landing").rglob("*.parquet")}
    assert held == {f.path for f in table.read().files}, "nothing is left behind"


def test_an_incremental_read_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert({"id": 100, "at": 0})
    table.run({"cursor": "at"})
    table.insert(*({**fact, "at": 10} for fact in FACTS))
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(2))
        with pytest.raises(Died):
            table.run({"cursor": "at"})
    assert table.read().position == {"type": "int", "value": "0"}, "the cursor moves with the table only"
    metrics = table.run({"cursor": "at"}).sources[0].metrics
    assert (metrics.chunks_skipped, metrics.records_read, metrics.rows) == (2, 11, 11)


@pytest.mark.parametrize("change", [{"filter": "id >= 0"}, {"column_mapping": {"v": "w"}}, {"cursor": "at"}])
def test_another_declaration_goes_on_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(3))
        with pytest.raises(Died):
            table.run({})
    metrics = table.run(change).sources[0].metrics
    assert (metrics.chunks, metrics.chunks_skipped, metrics.rows) == (4, 0, 10)


def test_a_source_that_changed_meanwhile_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(2))
        with pytest.raises(Died):
            table.run({})
    table.sql("UPDATE t SET v = 'changed'")
    metrics = table.run({}).sources[0].metrics
    assert metrics.chunks_skipped == 0
    assert {row["v"] for row in table.landed()} == {"changed"}


@pytest.mark.parametrize("error", [SourceError, TransientSourceError])
def test_a_run_that_fails_leaves_its_pieces_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[SourceError]
) -> None:
    store = Store([[[1]], [[2]], [[3]]])

    def fault(opening: int, piece: int) -> None:
        if (opening, piece) == (1, 2):
            raise error("broken", code="source.broken", where="sources.s")

    store.fault = fault
    monkeypatch.setattr(stages, "open_source", lambda *_: store)
    table = shop(tmp_path)
    with pytest.raises(SourceError, match="broken"):
        table.run({"max_retries": 0})
    with Ledger(tmp_path / ".maestro") as book:
        assert [p.number for p in book.unfinished_pieces("p")] == [0, 1]
        assert book.runs()[-1]["status"] == "failed"
    assert table.run({}).sources[0].metrics.chunks_skipped == 2
    assert [row["id"] for row in table.landed()] == [1, 2, 3]
    with Ledger(tmp_path / ".maestro") as book:
        assert book.unfinished_pieces("p") == [], "the run has come to its end"


def test_a_lost_piece_of_an_interrupted_run_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(3))
        with pytest.raises(Died):
            table.run({})
    with Ledger(tmp_path / ".maestro") as book:
        (tmp_path / ".maestro" / book.unfinished_pieces("p")[1].files[0].path).unlink()
    metrics = table.run({}).sources[0].metrics
    assert (metrics.chunks, metrics.chunks_skipped) == (2, 2)
    assert [row["id"] for row in table.landed()] == list(range(10))


def test_a_source_that_is_declared_no_more_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", dies_after(3))
        with pytest.raises(Died):
            table.run({})
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "x.parquet")
    sources = {"other": {"type": "file", "path": "x.parquet"}}
    assert table.run({}, sources=sources).status == "done"
    collect_files(compile_plan(table.pipeline({}, sources=sources)), None)
    assert not (tmp_path / ".maestro/landing/p/s").exists()


def test_a_table_that_landed_in_a_failed_run_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another source failed; mode full goes on from the pieces, which still hold."""
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)
    more = {"late": {"type": "file", "path": "late.parquet"}}
    with pytest.raises(SourceError):
        table.run({}, more=more)
    with Ledger(tmp_path / ".maestro") as book:
        assert book.runs()[-1]["status"] == "partial"
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "late.parquet")
    metrics = table.run({}, more=more).sources[0].metrics
    assert (metrics.chunks, metrics.chunks_skipped, metrics.rows) == (0, 4, 10)


def test_a_lost_lease_stops_the_landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    table = shop(tmp_path)
    table.insert(*FACTS)

    def take_over(step: str) -> None:
        if step == "piece.written":
            with Ledger(tmp_path / ".maestro") as other, other._engine.begin() as connection:
                connection.exec_driver_sql("UPDATE leases SET epoch = epoch + 1")

    monkeypatch.setattr(steps, "listener", take_over)
    with pytest.raises(LedgerError) as caught:
        table.run({})
    assert caught.value.code == "ledger.lease_lost"
    with Ledger(tmp_path / ".maestro") as book:
        assert book.unfinished_pieces("p") == []

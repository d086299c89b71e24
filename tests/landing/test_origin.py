"""Where landed rows came from: every row's position is the true one, or unknown, through all that rewrites files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.landing import Aside, LandedTable, Rows, files, land, origin
from engine.landing.origin import Segment
from engine.ledger import Read
from engine.sources import Chunk, Reading, Request, Source, Span, open_source, plain
from engine.spec import FileSpec

SCHEMA = {"id": pl.Int64, "v": pl.Int64, "place": pl.String, "number": pl.Int64, "read": pl.String}


@dataclass(frozen=True)
class Places:
    """A source of chunks; each row says itself where it stands."""

    chunks: Sequence[Sequence[tuple[str, Sequence[tuple[int | None, int]]]]]
    read: str
    kind = "file"
    location = "places"

    def open(self, _request: Request) -> AbstractContextManager[Reading]:
        return plain(self.pieces)

    def pieces(self) -> Iterator[Chunk]:
        first: dict[str, int] = {}
        for number, chunk in enumerate(self.chunks):
            rows, spans = [], []
            for place, values in chunk:
                at = first.get(place, 0)
                spans.append(Span(place, at, len(values)))
                rows += [(i, v, place, at + k, self.read) for k, (i, v) in enumerate(values)]
                first[place] = at + len(values)
            frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
            yield Chunk(number, f"chunk {number}", frame.lazy(), frame.height, spans=spans)


VALUES = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 3)), max_size=8)
CHUNKS = st.lists(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=3), min_size=1, max_size=4)
SPEC = {"type": "file", "path": "x.csv", "critical_columns": ["id"]}
KEYED = {"deduplicate": {"keys": ["id"], "order_by": "v"}}


def landed(
    source: Source, folder: Path, base: LandedTable | None = None, read: str = "r", **declared: Any
) -> LandedTable:
    facts = {"pipeline": "p", "source": "s", "run_id": "x", "location": "", "mode": "append", "state": "landed"}
    before = Read("b", **facts, fingerprint="", started_at="", files=base.files) if base else None
    spec = FileSpec(**{**SPEC, **declared})
    aside = Aside(folder / "quarantine" / read, read, "run")
    return land(
        source, spec, folder / read, name="s", memory_limit="64MiB", root=folder, base=before, aside=aside
    )  # fmt: skip


def located(rows: Rows) -> list[tuple[str, int | None, str]]:
    """Origin, row and read of each row, as a reader of `Rows.origins` finds them."""
    numbers = pl.DataFrame({"at": range(rows.count)}, schema={"at": pl.Int64})
    found = numbers.join_asof(rows.origins(), left_on="at", right_on="start", coalesce=False)
    return found.select("origin", pl.col("row") + pl.col("at") - pl.col("start"), "read").rows()


def check(rows: Rows) -> None:
    """That each row is where it says itself, or that its number is not known."""
    truth = rows.scan().select("place", "number", "read").collect().rows()
    assert rows.count == len(truth)
    for found, true in zip(located(rows), truth, strict=True):
        assert found == (true[0], None if found[1] is None else true[1], true[2])


def quarantined(table: LandedTable) -> list[dict[str, Any]]:
    frames = [pl.read_parquet(table.root / file.path) for file in table.quarantined]
    return pl.concat(frames).to_dicts() if frames else []


@settings(max_examples=40, deadline=None)
@given(
    reads=st.lists(CHUNKS, min_size=1, max_size=4),
    keyed=st.booleans(),
    most=st.sampled_from([1, 4096]),
    data=st.data(),
)
def test_every_position_is_the_true_one(reads: list[Any], keyed: bool, most: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "MOST_RUNS", most)
        patch.setattr(files, "MANY", 3)
        folder, table = Path(name), None
        for number, chunks in enumerate(reads):
            read = f"read{number}"
            table = landed(Places(chunks, read), folder, table, read, **(KEYED if keyed else {}))
            check(table.rows())
            assert most == 1 or None not in [row for _, row, _ in located(table.rows())]
            metrics = table.metrics
            assert metrics.records_read == sum(len(values) for chunk in chunks for _, values in chunk)
            aside = quarantined(table)
            assert len(aside) == metrics.records_failed
            for row in aside:
                reasons = row["quarantine"]
                assert row["id"] is None
                assert (reasons["origin"], reasons["row"]) == (row["place"], row["number"])
                assert (reasons["read"], reasons["run"], reasons["checks"]) == (read, "run", ["critical_columns.id"])
            assert len({row["quarantine"]["id"] for row in aside}) == len(aside)
            some = frozenset(data.draw(st.sets(st.sampled_from([f"read{i}" for i in range(number + 1)]))))
            of_some = table.rows(some)
            check(of_some)
            whole = table.scan().collect()
            assert of_some.scan().collect().rows() == whole.filter(pl.col("read").is_in(some)).rows()
            flags = data.draw(st.lists(st.booleans(), min_size=of_some.count, max_size=of_some.count))
            removed = pl.Series(flags, dtype=pl.Boolean)
            of_last = of_some.scan().collect().filter(removed).filter(pl.col("read") == read).height
            assert of_some.came_in({read}, removed) == of_last
            before = {path: path.read_bytes() for path in table.paths}
            left = of_some.without(removed, folder / read)
            assert before == {path: path.read_bytes() for path in table.paths}
            gone = iter(flags)
            kept = [row for row in whole.rows() if row[-1] not in some or not next(gone)]
            assert left.scan().collect().rows() == kept
            check(left.rows())
            table = left


@given(
    segments=st.lists(
        st.builds(
            lambda runs, place: (place, runs),
            st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=4),
            st.sampled_from("ab"),
        ),
        max_size=5,
    ),
    data=st.data(),
)
def test_rows_are_taken_from_segments(segments: list[Any], data: st.DataObject) -> None:
    made = [Segment(sum(n for _, n in runs), "r", place, tuple(runs)) for place, runs in segments]

    def spelled(found: Sequence[Segment]) -> list[tuple[str, int]]:
        return [(s.origin, first + k) for s in found for first, count in s.runs or () for k in range(count)]

    every = spelled(made)
    gone = data.draw(st.sets(st.integers(0, max(0, len(every) - 1))))
    left = origin.without(made, pl.Series(sorted(gone), dtype=pl.UInt32))
    assert spelled(left) == [row for i, row in enumerate(every) if i not in gone]
    assert spelled(origin.joined(made)) == every
    path_of = origin.metadata(left)[origin.KEY]
    assert json.loads(path_of)["segments"] == [] or sum(s[0] for s in json.loads(path_of)["segments"]) == len(
        spelled(left)
    )


def test_files_carry_their_origins(tmp_path: Path) -> None:
    segments = [
        Segment(2, "r1", "ä b.csv", ((5, 1), (9, 1))),
        Segment(1, "r2", "lake"),
        Segment(1, "r1", "lake", ((0, 1),)),
    ]
    path = files.new_path(tmp_path, "t")
    files.write(pl.LazyFrame({"a": [1, 2, 3, 4]}), path, segments)
    assert origin.of(path) == segments
    table = origin.table([origin.of(path), origin.of(path)])
    assert table.rows() == [
        (0, "ä b.csv", 5, "r1"), (1, "ä b.csv", 9, "r1"), (2, "lake", None, "r2"), (3, "lake", 0, "r1"),
        (4, "ä b.csv", 5, "r1"), (5, "ä b.csv", 9, "r1"), (6, "lake", None, "r2"), (7, "lake", 0, "r1"),
    ]  # fmt: skip


def test_a_file_of_an_earlier_version_is_of_the_read_that_its_folder_is_named_after(tmp_path: Path) -> None:
    path = files.new_path(tmp_path / "read1", "t")
    path.parent.mkdir()
    pl.DataFrame({"a": [1, 2]}).write_parquet(path)
    assert origin.of(path) == [Segment(2, "read1", "")]


@pytest.mark.parametrize("batch_size", [2, 100])
def test_records_of_files_are_counted_from_0(tmp_path: Path, batch_size: int) -> None:
    pl.DataFrame({"a": [1, 2, 3]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": [4, 5]}).write_csv(tmp_path / "2.csv")
    (tmp_path / "3.ndjson").write_text("".join(f'{{"a": {i}}}\n\n' for i in range(6, 11)))
    (tmp_path / "4.json").write_text('[{"a": 11}, {"a": 12}]')
    for name, count in (("1.parquet", 3), ("2.csv", 2), ("3.ndjson", 5), ("4.json", 2)):
        spec = FileSpec(type="file", path=name, batch_size=batch_size)
        opened = open_source("s", spec, tmp_path)
        found = land(opened, spec, tmp_path / f"landed-{name}", name="s", memory_limit="64MiB")
        assert located(found.rows()) == [(str(tmp_path / name), i, "") for i in range(count)]


def test_parts_that_are_cast_keep_their_origins(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1, None, 3]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"id": [None, 0.5], "w": ["x", "y"]}).write_parquet(tmp_path / "2.parquet")
    spec = FileSpec(**{**SPEC, "path": "*.parquet"})
    found = land(open_source("s", spec, tmp_path), spec, tmp_path / "landed", name="s", memory_limit="64MiB")
    first, second = str(tmp_path / "1.parquet"), str(tmp_path / "2.parquet")
    assert located(found.rows()) == [(first, 0, ""), (first, 2, ""), (second, 1, "")]
    assert found.quarantined == ()
    assert found.metrics.records_failed == 2


def test_rows_are_unknown_where_too_many_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.landing.marked._MOST_NUMBERS", 2)
    chunks = [[("a", [(None, 1), (1, 1), (None, 1), (2, 1)])], [("b", [(3, 1), (None, 1)])]]
    found = landed(Places(chunks, "r"), tmp_path)
    assert located(found.rows()) == [("a", None, "r"), ("a", None, "r"), ("b", 0, "r")]
    assert [row["quarantine"]["row"] for row in quarantined(found)] == [0, 2, 1]
    assert found.metrics.failed_by_column == {"id": 3}

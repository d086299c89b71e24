"""Pipelines over REST sources: new records only, and one schema over the whole extraction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, RunReport, run_pipeline
from engine.errors import SourceError
from engine.ledger import Ledger
from tests.servers import rest
from tests.servers.rest import Answer, Request

PAGES = {"style": "page", "size": 2}


def run(folder: Path, url: str, **keys: Any) -> RunReport:
    return run_pipeline(Pipeline(base=folder, name="p", sources={"s": {"type": "api", "url": url, **keys}}))


def landed(folder: Path) -> pl.DataFrame:
    with Ledger(folder / ".maestro") as ledger:
        table = ledger.table("p", "s")
    assert table is not None
    return pl.concat([pl.read_parquet((folder / ".maestro" / f.path).read_bytes()) for f in table.files])


# --- new records only --------------------------------------------------------------------------------------------


def at(minute: int) -> str:
    return (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Tracker:
    """Records with the moment of their last change; ``since`` is a query parameter."""

    records: list[dict[str, Any]] = field(default_factory=list)
    since: list[str | None] = field(default_factory=list)
    date: str = field(default_factory=lambda: format_datetime(datetime.now(UTC), usegmt=True))

    def __call__(self, request: Request) -> Answer:
        since, page = request.params.get("since"), int(request.params["page"])
        if page == 1:
            self.since.append(since)
        found = [r for r in self.records if since is None or r["updated"] >= since]
        return Answer({"data": found[(page - 1) * 2 : page * 2]}, headers={"Date": self.date})


INCREMENTAL = {"pagination": PAGES | {"in_flight": 1}, "cursor": "updated", "since_param": "since"}


def test_append_asks_from_where_it_has_got_to(tmp_path: Path) -> None:
    tracker = Tracker([{"id": i, "updated": at(i)} for i in range(5)])
    with rest.running(tracker) as server:
        assert run(tmp_path, server.url, **INCREMENTAL).sources[0].metrics.rows == 5
        tracker.records += [{"id": i, "updated": at(i)} for i in range(5, 8)]
        report = run(tmp_path, server.url, **INCREMENTAL)
    assert tracker.since == [None, at(4)]
    metrics = report.sources[0].metrics
    assert (metrics.records_read, metrics.duplicates_removed, metrics.rows) == (4, 1, 8)
    assert landed(tmp_path).to_dicts() == tracker.records
    assert report.sources[0].promise.late_commits == "within_lateness"


def test_merge_replaces_and_marks_delete(tmp_path: Path) -> None:
    tracker = Tracker([{"id": i, "updated": at(i), "gone": None} for i in range(4)])
    keys = INCREMENTAL | {"deduplicate": {"keys": ["id"]}, "tombstone": "gone", "lateness": "2m"}
    with rest.running(tracker) as server:
        run(tmp_path, server.url, **keys)
        tracker.records = [{"id": 1, "updated": at(9), "gone": None}, {"id": 2, "updated": at(9), "gone": True}]
        metrics = run(tmp_path, server.url, **keys).sources[0].metrics
    assert tracker.since == [None, at(1)]
    assert (metrics.rows_replaced, metrics.rows_deleted) == (2, 1)
    assert sorted(landed(tmp_path).select("id", "updated").rows()) == [(0, at(0)), (1, at(9)), (3, at(3))]


def test_what_changes_while_it_is_read_is_asked_for_again(tmp_path: Path) -> None:
    """The position goes no further than the moment that the reading began, by the server's clock."""
    began = datetime(2025, 1, 1, 0, 3, tzinfo=UTC)
    tracker = Tracker([{"id": i, "updated": at(i)} for i in range(9)], date=format_datetime(began, usegmt=True))
    with rest.running(tracker) as server:
        run(tmp_path, server.url, **INCREMENTAL)
        metrics = run(tmp_path, server.url, **INCREMENTAL).sources[0].metrics
    assert tracker.since[0] is None
    assert "2025-01-01T00:02:50Z" < str(tracker.since[1]) < "2025-01-01T00:03:00Z"
    assert (metrics.records_read, metrics.duplicates_removed, metrics.rows) == (6, 6, 9)


def test_a_cursor_of_numbers(tmp_path: Path) -> None:
    asked: list[str | None] = []

    def answer(request: Request) -> Answer:
        asked.append(request.params.get("after"))
        first = int(request.params.get("after", 0))
        return Answer({"data": [{"id": i} for i in range(first, 5)]})

    keys = {"cursor": "task", "since_param": "after", "column_mapping": {"id": "task"}, "lateness": 2}
    with rest.running(answer) as server:
        run(tmp_path, server.url, **keys)
        run(tmp_path, server.url, **keys)
    assert asked == [None, "2"]
    assert landed(tmp_path)["task"].to_list() == [0, 1, 2, 3, 4]


def test_nothing_new(tmp_path: Path) -> None:
    tracker = Tracker([{"id": 1, "updated": at(1)}])
    with rest.running(tracker) as server:
        run(tmp_path, server.url, **INCREMENTAL)
        tracker.records.clear()
        assert run(tmp_path, server.url, **INCREMENTAL).sources[0].metrics.rows == 1
        run(tmp_path, server.url, **INCREMENTAL)
    assert tracker.since == [None, at(1), at(1)]


# --- one schema --------------------------------------------------------------------------------------------------


def serving(*pages: list[dict[str, Any]]) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        number = int(request.params["page"])
        return Answer({"data": pages[number - 1] if number <= len(pages) else []})

    return answer


BIG = 2**53 + 1
CASES: list[tuple[list[Any], Any, list[Any]]] = [
    ([1, 0.5, 3], pl.Float64, [1.0, 0.5, 3.0]),
    ([1, 2**64 - 1, 0], pl.UInt64, [1, 2**64 - 1, 0]),
    ([None, "x", None], pl.String, [None, "x", None]),
    ([[], [1], [0.5]], pl.List(pl.Float64), [[], [1.0], [0.5]]),
    (
        [{"a": 1}, {"b": {"c": "x"}}, {"a": 0.5, "b": {"d": []}}],
        pl.Struct({"a": pl.Float64, "b": pl.Struct({"c": pl.String, "d": pl.List(pl.Null)})}),
        [
            {"a": 1.0, "b": None},
            {"a": None, "b": {"c": "x", "d": None}},
            {"a": 0.5, "b": {"c": None, "d": []}},
        ],
    ),
    (
        [[{"a": 1}], [{"b": 2}], None],
        pl.List(pl.Struct({"a": pl.Int64, "b": pl.Int64})),
        [[{"a": 1, "b": None}], [{"a": None, "b": 2}], None],
    ),
]
WRONG: list[tuple[list[Any], str]] = [
    ([BIG, 0.5], "source.inexact"),
    ([-1, 2**64 - 1], "source.inexact"),
    ([{"a": BIG}, {"a": 0.5}], "source.inexact"),
    ([[BIG], [0.5]], "source.inexact"),
    ([2**64, 1], "source.inexact_number"),
    ([1, "x"], "source.mixed_column"),
    ([[1], ["x"]], "source.mixed_column"),
    ([{"a": 1}, {"a": []}], "source.mixed_column"),
]


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize(("values", "dtype", "want"), CASES)
def test_types_are_widened_over_all_pages_and_pieces(
    tmp_path: Path, values: list[Any], dtype: Any, want: list[Any], batch: int
) -> None:
    """Each value on a page of its own; pages of one piece, and pieces of their own."""
    with rest.running(serving(*([{"id": i, "v": v}] for i, v in enumerate(values)))) as server:
        run(tmp_path, server.url, pagination={"style": "page", "size": 1}, batch_size=batch)
    found = landed(tmp_path).sort("id")
    assert found.schema["v"] == dtype
    assert found["v"].to_list() == want


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize(("values", "code"), WRONG)
def test_or_refused(tmp_path: Path, values: list[Any], code: str, batch: int) -> None:
    pages = [[{"id": i, "v": v}] for i, v in enumerate(values)]
    with rest.running(serving(*pages)) as server, pytest.raises(SourceError, match="column 'v") as caught:
        run(tmp_path, server.url, pagination={"style": "page", "size": 1}, batch_size=batch)
    assert caught.value.code in (code, code.replace("inexact", "inexact_number"))


NESTED = [{"id": 1, "who": {"name": "a", "at": {"n": 1.10}}, "tags": [{"t": 2**70}]}, {"id": 2, "who": None}]


def test_nested_as_json_text(tmp_path: Path) -> None:
    body = '{"data": [{"id": 1, "who": {"name": "a", "n": 1.10}, "tags": [1180591620717411303424]}, {"id": 2}]}'
    with rest.running(lambda _: Answer(body.encode())) as server:
        run(tmp_path, server.url, nested="json")
    assert landed(tmp_path).rows() == [(1, '{"name": "a", "n": 1.10}', "[1180591620717411303424]"), (2, None, None)]


def test_json_text_is_not_mixed_with_other_texts(tmp_path: Path) -> None:
    pages = serving([{"v": {"a": 1}}], [{"v": None}], [{"v": "{}"}])
    with rest.running(pages) as server, pytest.raises(SourceError, match="column 'v' mixes") as caught:
        run(tmp_path, server.url, nested="json", pagination={"style": "page", "size": 1}, batch_size=1)
    assert caught.value.code == "source.mixed_column"


def test_nested_flattened(tmp_path: Path) -> None:
    pages = serving(
        [{"id": 1, "who": {"name": "a", "at": {"n": 1}}, "tags": [1]}],
        [{"id": 2, "who": {"at": {"n": 0.5, "m": "x"}}}, {"id": 3, "who": None}],
    )
    with rest.running(pages) as server:
        run(tmp_path, server.url, nested="flatten", pagination=PAGES, batch_size=1, critical_columns=["id"])
    assert landed(tmp_path).sort("id").to_dicts() == [
        {"id": 1, "who__name": "a", "who__at__n": 1.0, "tags": [1], "who__at__m": None},
        {"id": 2, "who__name": None, "who__at__n": 0.5, "tags": None, "who__at__m": "x"},
        {"id": 3, "who__name": None, "who__at__n": None, "tags": None, "who__at__m": None},
    ]


def test_flattened_names_that_clash(tmp_path: Path) -> None:
    with (
        rest.running(lambda _: Answer({"data": [{"a": {"b": 1}, "a__b": 2}]})) as server,
        pytest.raises(SourceError, match="two columns the name 'a__b'") as caught,
    ):
        run(tmp_path, server.url, nested="flatten")
    assert caught.value.code == "source.flatten_collision"

"""Runs keep a profile of what they judge, from the scan that judges it; the ledger gives it back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from engine import Pipeline, Profile, profile_of, run_pipeline, steps
from engine.baselines import remembered
from engine.checks import Suite
from engine.config import load_validation
from engine.errors import ConfigError, SourceError, UsageError
from engine.history import collect_files, profiles_of
from engine.ledger import Ledger
from engine.ledger.profiles import forget
from engine.ledger.tables import metadata, profiles, runs
from engine.plan import compile_plan
from engine.profile import together
from engine.suggestion import suggest
from engine.types import Duration, iso
from engine.upkeep import Remembered
from tests.run.world import USERS

ROWS = pl.DataFrame({"id": [1, 2, 3, 4], "score": [1.0, 2.0, None, 400.0], "name": ["a", "b", "b", "b"]})


def shop(folder: Path, rows: pl.DataFrame = ROWS, **changes: Any) -> Pipeline:
    rows.write_parquet(folder / "rows.parquet")
    source = {"type": "file", "path": "rows.parquet", **changes.pop("source", {})}
    return Pipeline(base=folder, name="shop", sources={"rows": source}, **changes)


@pytest.mark.parametrize("checked", [False, True])
def test_a_run_keeps_the_profile_of_all_rows_that_it_judged(tmp_path: Path, checked: bool) -> None:
    checks = {"range_constraints": {"score": [0, 9]}, "on_violation": "quarantine"}
    report = run_pipeline(shop(tmp_path, validation={"rows": checks} if checked else {}))
    [source] = report.sources
    assert source.balance.quarantined == (1 if checked else 0)
    expected = profile_of(ROWS)
    assert source.profile
    assert source.profile.to_dict() == expected.to_dict(), "those set aside among them"
    assert report.to_dict()["sources"][0]["profile"] == expected.summary()
    with Ledger(tmp_path / ".maestro") as book:
        [kept] = book.profiles("shop", "rows")
    assert (kept.run_id, kept.state, kept.rows, kept.source) == (report.run_id, "accepted", 4, "rows")
    assert kept.created_at == report.to_dict()["created_timestamp"]
    assert Profile.from_dict(kept.profile).to_dict() == expected.to_dict()


def test_profile_false_keeps_none(tmp_path: Path) -> None:
    off: list[dict[str, Any]] = [{"profile": False}, {"source": {"profile": False}}]
    for changes in off:
        report = run_pipeline(shop(tmp_path, **changes))
        assert report.to_dict()["sources"][0]["profile"] is None
    run_pipeline(shop(tmp_path, profile=False, source={"profile": True}))
    with Ledger(tmp_path / ".maestro") as book:
        assert len(book.profiles("shop")) == 1
        assert book.profiles("shop", newest=0) == book.profiles("other") == []


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans()), max_size=12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sets(st.integers(0, 11), max_size=2),
    st.sampled_from([None, ["a"]]),
)
def test_old_profiles_are_forgotten(
    made: list[tuple[str, int, bool]], newest: int, since: int, named: set[int], sources: list[str] | None
) -> None:
    """Against a slow oracle; ``made`` are source, age in days and whether it was accepted, oldest run first."""
    made = sorted(made, key=lambda one: -one[1])
    expected = []
    for i, (source, age, _) in enumerate(made):
        later = [accepted for of, _, accepted in made[i + 1 :] if of == source]
        asked = sum(later) < newest and source in (sources or "ab")
        if asked or age <= since or i in named:
            expected.append(f"r{i}")
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    now = datetime(2026, 1, 9, tzinfo=UTC)
    with engine.begin() as connection:
        for i, (source, age, accepted) in enumerate(made):
            days = {"created_at": iso(now - timedelta(days=age)), "state": "accepted" if accepted else "blocked"}
            filled = {c.name: 0 if isinstance(c.type, sa.Integer) else "" for c in runs.c if not c.nullable}
            about = {"run_id": f"r{i}", "created_timestamp": days["created_at"], "epoch": i}
            connection.execute(runs.insert().values({**filled, **about}))
            mine = {"pipeline": "p", "source": source, "run_id": f"r{i}", "read_id": "x", "rows": 1, "profile": {}}
            connection.execute(profiles.insert().values({**mine, **days}))
        gone = forget(
            connection,
            "p",
            sources=sources,
            newest=newest,
            since=now - timedelta(days=since),
            runs_kept={f"r{i}" for i in named},
        )
        left = connection.execute(sa.select(profiles.c.run_id)).scalars().all()
    assert sorted(left) == sorted(expected)
    assert gone == len(made) - len(expected)
    engine.dispose()


def test_runs_forget_profiles_that_no_check_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.baselines.LOOK_BACK", 1)
    ran = [run_pipeline(shop(tmp_path)).run_id for _ in range(4)]
    with Ledger(tmp_path / ".maestro") as book:
        assert [p.run_id for p in book.profiles("shop")] == ran[2:]
    run_pipeline(shop(tmp_path, retention="9d"))
    plan = compile_plan(shop(tmp_path))
    assert collect_files(plan, Duration("9d")).profiles == 0
    assert collect_files(plan, None).profiles == 1


def test_what_checks_look_back_on_is_remembered(tmp_path: Path) -> None:
    assert remembered(compile_plan(shop(tmp_path))) == Remembered(57, 0)
    asked = {
        "weekday": (9, Remembered(64, 70)),
        "last": (70, Remembered(71)),
        "run": ("r-1", Remembered(57, 0, frozenset({"r-1"}))),
    }
    for name, (value, expected) in asked.items():
        checks = {"drift": {"baseline": {name: value}}}
        assert remembered(compile_plan(shop(tmp_path, validation={"rows": checks}))) == expected
    checks = {"anomalies": {"row_count": True, "runs": 90}}
    assert remembered(compile_plan(shop(tmp_path, validation={"rows": checks}))).newest == 91


def test_validate_makes_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.inspection import validate

    monkeypatch.setattr("engine.stages._profiler", lambda *_: pytest.fail("a profile was made"))
    [source] = validate(compile_plan(shop(tmp_path, validation={"rows": {}})))
    assert source.profile is None


def test_profiles_of_several_runs(tmp_path: Path) -> None:
    checks = {"rows": {"range_constraints": {"score": [0, 9]}, "severity": {"range": "error"}}}
    runs = [run_pipeline(shop(tmp_path, ROWS.head(n), validation=checks)).run_id for n in (1, 2, 4)]
    with Ledger(tmp_path / ".maestro") as book:
        assert [(p.run_id, p.state, p.rows) for p in book.profiles("shop", "rows")] == [
            (runs[0], "accepted", 1),
            (runs[1], "accepted", 2),
            (runs[2], "blocked", 4),
        ]
        assert [p.rows for p in book.profiles("shop", accepted=True, newest=1)] == [2]
        assert [p.rows for p in book.profiles("shop", run_id=runs[0])] == [1]
    plan = compile_plan(shop(tmp_path))
    assert profiles_of(plan)["rows"].rows == 4
    assert profiles_of(plan, runs[0])["rows"].rows == 1
    with pytest.raises(UsageError, match="kept no profile"):
        profiles_of(plan, "never")


def test_days_of_new_rows_add_up(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    made = {"sources": {"rows": {"type": "file", "path": "days/*.parquet", "mode": "append"}}}
    kept = []
    for day in range(3):
        ROWS.with_columns(pl.col("id") + 10 * day).write_parquet(tmp_path / "days" / f"{day}.parquet")
        [source] = run_pipeline(Pipeline(base=tmp_path, name="days", validation={"rows": {}}, **made)).sources
        assert source.profile
        kept.append(source.profile)
    assert [p.rows for p in kept] == [4, 4, 4], "each run judges what is new"
    found = together(kept)
    assert (found.rows, found["id"].distinct, found["score"].nulls) == (12, 12, 3)


@pytest.mark.parametrize("step", ["table.landed", "table.judged"])
def test_a_run_that_is_stopped_and_resumed_keeps_one_profile(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(reached: str) -> None:
        if reached == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(steps, "listener", stop)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(shop(tmp_path))
    monkeypatch.setattr(steps, "listener", None)
    run_pipeline(shop(tmp_path), resume=True)
    with Ledger(tmp_path / ".maestro") as book:
        assert [p.rows for p in book.profiles("shop")] == [4]


def test_a_tag_that_is_misspelt_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no column 'nmae', which pii names") as caught:
        run_pipeline(shop(tmp_path, source={"pii": ["nmae"]}))
    assert caught.value.fix == "did you mean 'name'?"
    with pytest.raises(ConfigError, match="renamed by column_mapping"):
        shop(tmp_path, source={"pii": ["name"], "column_mapping": {"name": "who"}})


def test_tagging_a_column_does_not_read_the_table_anew(tmp_path: Path) -> None:
    fingerprints = [
        compile_plan(shop(tmp_path, source=s)).sources[0].fingerprint for s in ({}, {"pii": ["name"], "profile": False})
    ]
    assert fingerprints[0] == fingerprints[1]


def test_values_of_a_tagged_column_are_in_neither_ledger_nor_report(tmp_path: Path) -> None:
    rows = ROWS.with_columns(email=pl.lit("ann@example.com"))
    report = run_pipeline(shop(tmp_path, rows, source={"pii": ["email"]}))
    assert "ann@example.com" not in json.dumps(report.to_dict())
    with Ledger(tmp_path / ".maestro") as book:
        assert "ann@example.com" not in json.dumps(book.profiles("shop")[0].profile)


def test_what_is_suggested_holds_for_the_table_itself(tmp_path: Path) -> None:
    odd = USERS.rename({"email": "e: mail", "skills": "no"}).with_columns(
        many=pl.int_range(pl.len()) * 1e-7 - 0.3,
        whole=pl.int_range(pl.len()) * 1_000_003,
        money=pl.lit("1.5").cast(pl.Decimal(9, 2)),
        tags=pl.lit(["a"]),
    )
    for frame in (odd, ROWS, pl.concat([ROWS] * 20), pl.DataFrame({"x": [float("inf"), 5e-324, -1e308]})):
        path = tmp_path / "checks.yaml"
        path.write_text(suggest(profile_of(frame, exact=True)))
        report = Suite(load_validation(path)).validate(frame)
        assert [str(r) for r in report.results if not r.passed] == []
        assert report.total_checks > 2
    path.write_text(suggest(profile_of(ROWS.clear())))
    assert [r.name for r in Suite(load_validation(path)).validate(ROWS.clear()).results if not r.passed] == [
        "row_count"
    ]

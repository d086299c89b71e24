"""Where Feast's own stores give other answers than ours: each case stands in docs/feast.md, with the pinned Feast."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from engine import training_set
from tests.offline.world import HOUR, MICRO, OURS, STORES, Made, Repo, T, defined, write
from tests.online.world import TYPES, World
from tests.run.world import DAY, pipeline, run, write_world
from tests.run.world import T as RUN

DOCS = (Path(__file__).parents[2] / "docs" / "feast.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rows(*found: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(("a", "at", "created", "n"), row, strict=True)) for row in found]


def frame(*found: tuple[Any, Any]) -> pd.DataFrame:
    keys, moments = zip(*found, strict=True)
    return pd.DataFrame({"a": pd.array(keys, dtype="Int64"), "event_timestamp": pd.to_datetime(moments, utc=True)})


KEY, FEATURE = {"a": pl.Int64}, {"n": pl.Int64}
BASE = Made("v", KEY, FEATURE, [rows((1, T, T, 1), (2, T, T, 2))])
BIG = 2**53 + 1


def text_moments() -> pd.DataFrame:
    return pd.DataFrame({"a": [1], "event_timestamp": ["2025-03-29T00:00:00Z"]})


def text_keys() -> pd.DataFrame:
    return frame((1, T)).astype({"a": str})


SQL = "SELECT 1 AS a, TIMESTAMPTZ '2025-03-29 00:00:00Z' AS event_timestamp"
# name: view, entity rows, then (key, feature) by ours, by duckdb, by dask; a text is in what is raised.
CASES: dict[str, tuple[Made, Callable[[], Any], Any, Any, Any]] = {
    "order": (
        BASE,
        lambda: frame((2, T + HOUR), (3, T + 2 * HOUR), (1, T)),
        [(2, 2), (3, None), (1, 1)],
        [(2, 2), (3, None), (1, 1)],
        [(3, None), (2, 2), (1, 1)],
    ),
    "several files": (
        replace(BASE, files=[rows((1, T, T, 1)), rows((2, T, T, 2))]),
        lambda: frame((1, T), (3, T)),
        [(1, 1), (3, None)],
        [(1, 1), (3, None)],
        "Divisions calculation failed",
    ),
    "ttl": (
        replace(BASE, ttl=36 * HOUR),
        lambda: frame((1, T + 36 * HOUR)),
        [(1, 1)],
        "mixed units",
        [(1, 1)],
    ),
    "before all rows": (BASE, lambda: frame((1, T - HOUR), (2, T)), [(1, None), (2, 2)], [(1, None), (2, 2)], [(2, 2)]),
    "expired": (
        replace(BASE, ttl=HOUR),
        lambda: frame((1, T + HOUR), (2, T + HOUR + MICRO)),
        [(1, 1), (2, None)],
        [(1, 1), (2, None)],
        [(1, 1)],
    ),
    "equal entity rows": (
        BASE,
        lambda: frame((1, T), (1, T)),
        [(1, 1), (1, 1)],
        [(1, 1), (1, 1)],
        [(1, 1)],
    ),
    "null key": (
        replace(BASE, files=[rows((1, T, T, 1), (None, T, T, 2))]),
        lambda: frame((1, T), (None, T)),
        [(1, 1), (None, None)],
        [(1, 1), (None, None)],
        [(1, 1), (None, 2)],
    ),
    "null moment": (
        BASE,
        lambda: frame((1, T), (2, None)),
        [(1, 1), (2, None)],
        [(1, 1), (2, None)],
        [(1, 1)],
    ),
    "large integers": (
        replace(BASE, files=[rows((1, T, T, BIG), (2, T, T, None))]),
        lambda: frame((1, T), (2, T)),
        [(1, BIG), (2, None)],
        [(1, BIG), (2, None)],
        [(1, BIG - 1), (2, None)],
    ),
    "text moments": (BASE, text_moments, [(1, 1)], [(1, 1)], "tzinfo"),
    "keys of another type": (BASE, text_keys, [("1", 1)], "not comparable", "merge on"),
    "SQL": (BASE, lambda: SQL, [(1, 1)], "no attribute 'columns'", "entity_df of type"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_as_the_page_says(name: str, tmp_path: Path) -> None:
    assert f"| {name} |" in DOCS
    view, entity_rows, *answers = CASES[name]
    write(tmp_path, view)
    repo = Repo(tmp_path)
    for store, wanted in zip(STORES, answers, strict=True):
        repo.apply([defined(tmp_path, view)], [store])

        def found(store: str = store) -> list[tuple[Any, Any]]:
            job = repo.store(store).get_historical_features(entity_df=entity_rows(), features=["v:n"])
            return [(row["a"], row["n"]) for row in job.to_arrow().to_pylist()]

        if isinstance(wanted, str):
            with pytest.raises(Exception, match=wanted):
                found()
        else:
            assert found() == wanted, store


def test_the_page_has_no_other_cases() -> None:
    listed = [line.split("|")[1].strip() for line in DOCS.splitlines() if line.startswith("| ")]
    assert set(listed) - {"case", "---"} == set(CASES)


def plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    return [plain(v) for v in value] if isinstance(value, list) else value


def test_random_worlds_of_all_types_are_equal(tmp_path: Path) -> None:
    """Views of one and of two keys, with ttl and without, several rows of a key: duckdb all, dask where it has rows."""
    from feast import FeatureStore

    chance = random.Random(8)
    types = {
        name: dtype for name, dtype in TYPES.items() if not name.endswith("s") or name in ("wholes", "texts", "yes")
    }
    for number, (key, more, ttl) in enumerate([(pl.Int64, {}, 0), (pl.String, {"b": pl.Int64}, 7_200)]):
        world = World(tmp_path / str(number), types, key=key, more_keys=more)
        world.view = replace(world.view, ttl=ttl)
        values: dict[str, Callable[[], Any]] = {
            "whole": lambda: chance.randrange(-(2**40), 2**40),
            "small": lambda: chance.randrange(-(2**31), 2**31),
            "double": chance.random,
            "single": lambda: chance.randrange(100) / 4,
            "yes": lambda: chance.random() < 0.5,
            "text": lambda: chance.choice(["", "é", "x" * 50]),
            "raw": lambda: chance.randbytes(3),
            "moment": lambda: T + timedelta(seconds=chance.randrange(10**6)),
            "wholes": lambda: [chance.randrange(9) for _ in range(chance.randrange(3))],
            "texts": lambda: ["a"] * chance.randrange(3),
        }

        def key_of(n: int, key: Any = key) -> Any:
            return n if key == pl.Int64 else f"k{n}"

        for hour in range(6):
            ids = chance.sample(range(12), 8)
            columns = {"user_id": [key_of(i) for i in ids], **({"b": [i % 3 for i in ids]} if more else {})}
            columns |= {n: [v() if chance.random() < 0.8 else None for _ in ids] for n, v in values.items()}
            world.publish(columns, T + hour * HOUR)
        asked = [(i, T + chance.randrange(-2, 20) * HOUR / 2) for i in range(14) for _ in range(4)]
        entity_df = pd.DataFrame(
            {
                "user_id": [key_of(i) for i, _ in asked],
                **({"b": [i % 3 for i, _ in asked]} if more else {}),
                "event_timestamp": pd.to_datetime([at for _, at in asked], utc=True),
                "label": range(len(asked)),
            }
        ).drop_duplicates(["user_id", "event_timestamp"])
        answers = {}
        for kind in STORES:
            world.configure({"type": "sqlite", "path": "o.db"}, offline_store={"type": kind})
            world.apply()
            store = FeatureStore(repo_path=str(world.repo.folder))
            rows = entity_df if kind != "dask" else entity_df[entity_df["label"] < 48]  # keys that some file has
            job = store.get_historical_features(entity_df=rows.copy(), features=[f"all:{name}" for name in types])
            answers[kind] = {row["label"]: [plain(row[n]) for n in types] for row in job.to_arrow().to_pylist()}
        ours = answers[OURS]
        assert list(ours) == entity_df["label"].tolist()
        assert ours == answers["duckdb"]
        assert answers["dask"].items() <= ours.items()
        gone = [label for label in ours if label < 48 and label not in answers["dask"]]
        assert all(value is None for label in gone for value in ours[label])
        assert sum(any(v is not None for v in row) for row in ours.values()) > 10


def test_what_a_run_publishes_is_our_training_set_with_every_store(tmp_path: Path) -> None:
    from feast import FeatureStore

    features = {"user_features": {"handle_missing": "keep", "normalize": False, "ttl": "24h"}}
    sections: dict[str, Any] = {
        "features": features,
        "feast": {"repo": "./repo", "project": "small", "materialize": False},
    }
    write_world(tmp_path)
    run(tmp_path, [RUN - DAY, RUN, RUN + 3 * DAY], **sections)
    moments = [RUN - 2 * DAY, RUN, RUN + 24 * HOUR, RUN + 24 * HOUR + MICRO, RUN + 4 * DAY]
    asked = [(user, at) for at in moments for user in ("u1", "u2", "u3", "nobody")]
    users, at = zip(*asked, strict=True)
    entity_df = pd.DataFrame(
        {"user_id": users, "event_timestamp": pd.to_datetime(at, utc=True), "label": range(len(at))}
    )
    made = training_set(pipeline(tmp_path, **sections), entity_df, features="user_features:*").collect()
    names = made.columns[3:]
    path = tmp_path / "repo" / "feature_store.yaml"
    text = path.read_text()
    for kind in STORES:
        path.write_text(text.replace("type: duckdb", f"type: {kind}"))
        store = FeatureStore(repo_path=str(tmp_path / "repo"))
        rows = entity_df if kind != "dask" else entity_df[entity_df["user_id"] != "nobody"]
        job = store.get_historical_features(entity_df=rows.copy(), features=[f"user_features:{n}" for n in names])
        found = {row["label"]: [plain(row[n]) for n in names] for row in job.to_arrow().to_pylist()}
        wanted = {row["label"]: [row[n] for n in names] for row in made.to_dicts()}
        if kind == "dask":
            wanted = {label: wanted[label] for label in found}
        assert found == wanted, kind
        assert len(found) >= 6

"""Declared views in a pipeline: the file and its Python twin, places of mistakes, runs, backfills, and Feast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, run_pipeline
from engine.cli import main
from engine.config import json_schema, load_pipeline
from engine.plan import compile_plan
from engine.sinks.feast import FeatureRepo
from engine.spec import AggregateSpec, AttributeSpec, ViewSpec
from tests.features.test_declared import DAY, EVENTS, TIERS, UTC_US, T

YAML = """\
version: 1
name: shop
sources:
  events: {type: file, path: events.parquet}
  tiers: {type: file, path: tiers.parquet}
features:
  activity:
    entity: {user_id: user}
    source: events
    timestamp: seen
    where: qty > 0
    aggregates:
      n: count
      amount_7d: sum(amount) over 7d
      before: {function: sum, value: qty, window: 7d, offset: 7d, default: 0}
      kinds: {function: last_n, value: kind, n: 2}
      by_kind: {function: count, by: {column: kind, values: [a, b]}}
      newest: last(seen)
    attributes:
      tier: {source: tiers, timestamp: since, key: user}
    derive:
      share_a: by_kind_a / n
      is_busy: n > 1
      label: "'n = ' || n"
    defaults: {tier: none}
    ttl: 30d
    description: What a user did
    owner: growth@example.com
    tags: {domain: shop}
"""
TWIN: dict[str, Any] = {
    "entity": {"user_id": "user"},
    "source": "events",
    "timestamp": "seen",
    "where": "qty > 0",
    "aggregates": {
        "n": "count",
        "amount_7d": AggregateSpec(function="sum", value="amount", window="7d"),
        "before": {"function": "sum", "value": "qty", "window": "7d", "offset": "7d", "default": 0},
        "kinds": {"function": "last_n", "value": "kind", "n": 2},
        "by_kind": {"function": "count", "by": {"column": "kind", "values": {"a": "a", "b": "b"}}},
        "newest": "last(seen)",
    },
    "attributes": {"tier": AttributeSpec(source="tiers", timestamp="since", key="user")},
    "derive": {"share_a": "by_kind_a / n", "is_busy": "n > 1", "label": "'n = ' || n"},
    "defaults": {"tier": "none"},
    "ttl": "30d",
    "description": "What a user did",
    "owner": "growth@example.com",
    "tags": {"domain": "shop"},
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    EVENTS.write_parquet(tmp_path / "events.parquet")
    TIERS.write_parquet(tmp_path / "tiers.parquet")
    (tmp_path / "shop.yaml").write_text(YAML)
    return tmp_path


def test_the_file_and_its_twin_are_equal(world: Path) -> None:
    sources = {name: {"type": "file", "path": f"{name}.parquet"} for name in ("events", "tiers")}
    for view in (TWIN, ViewSpec(**TWIN)):
        twin = Pipeline(name="shop", base=world, sources=sources, features={"activity": view})
        read = load_pipeline(world / "shop.yaml")
        assert twin == read
        assert compile_plan(twin, T) == compile_plan(read, T)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("amount_7d: sum(amount) over 7d", "amount_7d: summ(amount) over 7d", 14, "did you mean 'sum'"),
        ("value: qty,", "valu: qty,", 15, "did you mean 'value'"),
        ("value: kind,", "value: max(kind),", 16, "max is an aggregate"),
        ("source: tiers,", "source: tier,", 20, "did you mean 'tiers'"),
        ("n > 1", "m > 1", 23, "unknown feature 'm'"),
        ("ttl: 30d", "ttl: 30", 26, "put quotes around it"),
    ],
)
def test_mistakes_have_their_place(
    world: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, line: int, said: str
) -> None:
    (world / "shop.yaml").write_text(YAML.replace(old, new))
    assert main(["check", str(world / "shop.yaml")]) == 2
    shown = capsys.readouterr().err
    assert f"shop.yaml:{line}:" in shown
    assert said in " ".join(shown.split())


def test_plan_and_schema_know_them(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(world / "shop.yaml"), "--as-of", "2025-10-04", "--json"]) == 0
    [view] = json.loads(capsys.readouterr().out)["views"]
    assert (view["set"], view["entity"], view["sources"]) == (
        None,
        "user_id",
        {"events": "events", "attributes_1": "tiers"},
    )
    assert {f["name"]: f["description"] for f in view["features"]} == {
        "n": "count",
        "amount_7d": "sum(amount) over the last 7d",
        "before": "sum(qty) over the last 7d up to 7d before",
        "kinds": "last_n(kind, 2)",
        "by_kind_a": "count where kind = a",
        "by_kind_b": "count where kind = b",
        "newest": "last(seen)",
        "tier": "tier of tiers as of then",
        "share_a": "by_kind_a / n",
        "is_busy": "n > 1",
        "label": "'n = ' || n",
    }
    assert main(["plan", str(world / "shop.yaml"), "--as-of", "2025-10-04"]) == 0
    assert "11 declared" in capsys.readouterr().out
    properties = json_schema()["$defs"]["ViewSpec"]["properties"]
    assert {"entity", "aggregates", "attributes", "derive"} <= set(properties)
    for short in (*properties["aggregates"]["patternProperties"].values(), properties["entities"]):
        assert {"type": "string"} in short["anyOf"]


def test_a_changed_definition_is_published_again_with_the_earlier_as_ofs(world: Path) -> None:
    run_pipeline(load_pipeline(world / "shop.yaml"), as_of=[T - i * DAY for i in range(4)])
    (world / "shop.yaml").write_text(YAML.replace("qty > 0", "qty > 1"))
    plan = compile_plan(load_pipeline(world / "shop.yaml"), T)
    assert list(plan.views[0].again) == [T - 3 * DAY, T - 2 * DAY, T - DAY]
    run_pipeline(load_pipeline(world / "shop.yaml"), as_of=T)
    frame = pl.read_parquet(world / "features" / "activity" / "**/*.parquet", hive_partitioning=False)
    assert frame.sort("event_timestamp", "user_id").select("user_id", "n").rows() == [(1, 1), (2, 2)] * 4


def test_a_definition_changes_with_what_it_rests_on_only(world: Path) -> None:
    def definitions(text: str) -> dict[str, str]:
        (world / "shop.yaml").write_text(text)
        return compile_plan(load_pipeline(world / "shop.yaml"), T, history=False).views[0].definitions

    before = definitions(YAML)
    more = definitions(YAML.replace("      n: count\n", "      n: count\n      flags: sum(qty * length(kind))\n"))
    assert {name: more[name] for name in before} == before
    other = definitions(YAML.replace("timestamp: since", "timestamp: seats").replace("sum(amount)", "sum(qty)"))
    assert {name for name in before if before[name] != other[name]} == {"tier", "amount_7d"}
    assert all(before[name] != new for name, new in definitions(YAML.replace("qty > 0", "qty > 1")).items())


def test_nothing_leaks(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compound = YAML.replace("entity: {user_id: user}", "entity: [user, kind]").replace(
        "key: user}", "key: [user, tier]}"
    )
    for text, rows in ((YAML, 2), (compound, 1)):
        (world / "shop.yaml").write_text(text)
        run_pipeline(load_pipeline(world / "shop.yaml"), as_of=T)
        capsys.readouterr()
        assert main(["verify", str(world / "shop.yaml"), "--leakage", "--as-of", "2025-09-27", "--json"]) == 0
        [found] = json.loads(capsys.readouterr().out)["views"]
        assert (found["ok"], found["changed"], found["rows"]) == (True, {"events": 4, "attributes_1": 4}, rows)


def test_feast_reads_them(world: Path) -> None:
    (world / "shop.yaml").write_text(YAML + "feast: {repo: ./repo, project: shop}\n")
    run_pipeline(load_pipeline(world / "shop.yaml"), as_of=T)
    frame = pl.read_parquet(world / "features" / "activity" / "**/*.parquet", hive_partitioning=False)
    wanted = frame.drop("event_timestamp", "created_timestamp").to_dicts()
    assert wanted[0] == {
        "user_id": 1,
        "n": 2,
        "amount_7d": 1.5,
        "before": 0,
        "kinds": ["a", "b"],
        "by_kind_a": 1,
        "by_kind_b": 1,
        "newest": T - DAY,
        "tier": "none",
        "share_a": 0.5,
        "is_busy": True,
        "label": "n = 2",
    }
    assert FeatureRepo(world / "repo", "shop").online("activity", [1, 2]) == wanted
    from feast import FeatureStore

    store = FeatureStore(str(world / "repo"))
    view = store.get_feature_view("activity")
    assert (view.description, view.owner, view.tags["domain"]) == ("What a user did", "growth@example.com", "shop")
    assert view.ttl == 30 * DAY
    names = [f"activity:{name}" for name in wanted[0] if name not in ("user_id", "kinds")]
    asked = frame.select("user_id", pl.lit(T + DAY).cast(UTC_US).alias("event_timestamp")).to_pandas()
    found = store.get_historical_features(entity_df=asked, features=names).to_df().sort_values("user_id")
    for name in ("n", "amount_7d", "share_a", "label", "tier", "is_busy"):
        assert found[name].to_list() == frame[name].to_list()


def test_feast_reads_compound_keys(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = YAML.replace("entity: {user_id: user}", "entity: {user id: user, kind: kind}").replace(
        "key: user}", "key: [user, tier]}"
    )
    (world / "shop.yaml").write_text(text + "feast: {repo: ./repo, project: shop}\n")
    report = run_pipeline(load_pipeline(world / "shop.yaml"), as_of=T)
    assert report.feast is not None
    assert report.feast["materialized"][0]["proven"] == 3
    frame = pl.read_parquet(world / "features" / "activity" / "**/*.parquet", hive_partitioning=False)
    wanted = frame.drop("event_timestamp", "created_timestamp").to_dicts()
    assert [(row["user id"], row["kind"], row["n"]) for row in wanted] == [(1, "a", 1), (1, "b", 1), (2, "a", 1)]
    asked = [{"kind": row["kind"], "user id": row["user id"]} for row in wanted]
    assert [dict(row) for row in FeatureRepo(world / "repo", "shop").online("activity", asked)] == wanted
    command = ["online", "get", str(world / "shop.yaml"), "--view", "activity", "--json", "--key"]
    capsys.readouterr()
    assert main([*command, '{"user id": "2", "kind": "a"}']) == 0
    assert json.loads(capsys.readouterr().out)[0]["n"] == 1
    assert main([*command, "2"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["allowed"] == '{"user id": "…", "kind": "…"}'
    assert main(["materialize", str(world / "shop.yaml"), "--full", "--proof", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["proven"] == 2
    from feast import FeatureStore

    store = FeatureStore(str(world / "repo"))
    moments = frame.select("user id", "kind", pl.lit(T + DAY).cast(UTC_US).alias("event_timestamp")).to_pandas()
    found = store.get_historical_features(entity_df=moments, features=["activity:n", "activity:label"]).to_df()
    found = found.sort_values(["user id", "kind"])
    assert found["n"].to_list() == frame["n"].to_list()
    assert found["label"].to_list() == frame["label"].to_list()

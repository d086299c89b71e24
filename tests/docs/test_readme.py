"""The README is true: its pipeline loads and runs, its Python runs, what it names is there."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
import yaml

from engine import load_pipeline, run_pipeline
from engine.checks.declared import WARNINGS
from engine.cli import main
from engine.demo import world as demo
from engine.errors import UsageError
from engine.features import FeatureExtractor
from engine.features.definition import Settings
from engine.features.sets import roles_of, view_of
from engine.plan import compile_plan
from engine.spec import FAMILIES, SETS, ValidationSpec
from engine.spec.rest import Pagination
from tests.run.world import ACTIVITIES
from tests.servers import rest
from tests.servers.ceph import ACCESS_KEY, SECRET_KEY, Ceph
from tests.servers.redis import Redis

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "data" / "activities").mkdir(parents=True)
    ACTIVITIES.drop_nulls("user_id").write_parquet(tmp_path / "data" / "activities" / "1.parquet")
    users = pl.DataFrame({"user_id": ["u1", "u2"], "experience_years": [1.5, 3.0]})
    users.write_csv(tmp_path / "data" / "users.csv")
    return tmp_path


def test_the_pipeline_runs_as_it_stands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = blocks("yaml")[0]
    assert len(text.splitlines()) <= 40
    database = sqlite3.connect(world / "app.db")
    database.execute("CREATE TABLE users (id TEXT, experience_years REAL, updated_at TEXT)")
    database.execute("INSERT INTO users VALUES ('u1', 1.5, '2025-10-03T23:00:00Z'), (NULL, 2.0, NULL)")
    database.commit()
    database.close()
    monkeypatch.setenv("APP_DB_URL", "sqlite:///app.db")
    path = world / "pipeline.yaml"
    path.write_text(text.replace("feast:", "# feast:"))  # Feast has tests of its own, and takes seconds to import
    report = run_pipeline(load_pipeline(path), as_of="2025-10-04")
    assert (report.status, report.views[0].rows) == ("done", [1])
    path.write_text(text)
    assert load_pipeline(path).feast is not None


def test_the_database_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = blocks("yaml")[1]
    database = sqlite3.connect(tmp_path / "shop.db")
    database.execute("CREATE TABLE orders (order_id INTEGER, status TEXT, total REAL, updated_at TEXT, secret TEXT)")
    rows = [(1, "paid", 9.5, "2025-10-03 10:00:00"), (2, "draft", 1.0, "2025-10-03 10:00:01"), (3, "paid", 2.0, None)]
    database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, 'x')", rows)
    database.commit()
    monkeypatch.setenv("SHOP_DB_URL", "sqlite:///shop.db")
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"version: 1\nname: shop\n{text}")
    first = run_pipeline(load_pipeline(path)).sources[0]
    assert (first.metrics.records_read, first.metrics.rows) == (2, 2), "no draft"
    database.execute("UPDATE orders SET total = 10, updated_at = '2025-10-04 00:00:00' WHERE order_id = 1")
    database.execute("DELETE FROM orders WHERE order_id = 3")
    database.commit()
    database.close()
    second = run_pipeline(load_pipeline(path)).sources[0].metrics
    assert (second.rows_replaced, second.rows_deleted, second.rows) == (1, 1, 1)


def test_the_rest_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block for block in blocks("yaml") if "type: api" in block]
    made = [
        {"id": i, "updated_at": f"2025-10-0{1 + i // 50}T00:00:{i % 50:02}Z", "author": {"name": "a"}}
        for i in range(120)
    ]

    def answer(request: rest.Request) -> rest.Answer:
        since, page = request.params.get("updated_since", ""), int(request.params["page"])
        found = [record for record in made if record["updated_at"] >= since]
        return rest.Answer({"result": {"items": found[page * 50 - 50 : page * 50], "total": len(found)}})

    with rest.running(answer) as server:
        monkeypatch.setenv("TRACKER_URL", f"{server.url}/issues")
        monkeypatch.setenv("TRACKER_TOKEN", "token-0123456789")
        path = tmp_path / "pipeline.yaml"
        path.write_text(f"version: 1\nname: tracker\n{text}")
        assert run_pipeline(load_pipeline(path)).sources[0].metrics.rows == 120
        made += [{"id": 7, "updated_at": "2025-10-04T00:00:00Z", "author": {"name": "b"}}]
        source = run_pipeline(load_pipeline(path)).sources[0]
        assert (source.metrics.rows_replaced, source.metrics.rows, source.promise.counted) == (1, 120, True)
        asked = server.requests[-1]
    assert asked.params["updated_since"] == "2025-10-02T23:50:19Z"
    assert (asked.headers["Authorization"], asked.params["state"]) == ("Bearer token-0123456789", "all")


def test_the_daily_example_runs_as_it_stands(world: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "lateness: 3d" in block]
    path = world / "pipeline.yaml"
    path.write_text(f"version: 1\nname: daily\n{text}")
    starts = [run_pipeline(load_pipeline(path), as_of=day).views[0].start for day in ("2025-10-04", "2025-10-05")]
    assert [start["from"] for start in starts] == ["tables", "saved state"]


def test_the_styles_of_pages_are_all_there_are() -> None:
    section = README.partition("## REST APIs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*?\|(.*)\|$", section, re.MULTILINE)
    assert [style for style, _ in rows] == list(get_args(Pagination.model_fields["style"].annotation))
    for _, keys in rows:
        assert set(re.findall(r"`(\w+)`", keys)) <= set(Pagination.model_fields)


def test_the_contract_example_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "data" / "prices").mkdir(parents=True)
    lines = ["sku,price,listed_at", "a,1.50,2025-01-01", "b,1.239,2025-01-01", "c,2,"]
    (tmp_path / "data" / "prices" / "1.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"version: 1\nname: shop\n{next(b for b in blocks('yaml') if 'contract:' in b)}")
    [source] = run_pipeline(load_pipeline(path)).sources
    assert (source.balance.passed, source.balance.quarantined) == (2, 1)
    assert source.metrics.failed_by_column == {"contract.price": 1}


def test_the_online_store_example_runs_as_it_stands(
    world: Path, redis_server: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_server.flush()
    monkeypatch.chdir(world)
    monkeypatch.setenv("REDIS", redis_server.connection_string)
    users = "users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}"
    features = "features: {user_features: {}}\nfeast: {repo: ./repo, project: work}"
    (world / "pipeline.yaml").write_text(f"version: 1\nname: work\nsources: {{{users}}}\n{features}\n")
    (configuration,) = [block for block in blocks("yaml") if "registry:" in block]
    (world / "repo").mkdir()
    (world / "repo" / "feature_store.yaml").write_text(configuration)
    run_pipeline(load_pipeline("pipeline.yaml"), as_of="2025-10-04")
    [commands] = [block for block in blocks("sh") if "--proof all" in block]
    for line in commands.splitlines():
        capsys.readouterr()
        assert main(line.partition("#")[0].split()[1:]) == 0
    assert capsys.readouterr().out == "user_features: nothing new; 2 read back and found equal\n"
    [look] = re.findall("maestro (online get .*?)  ", README)
    assert main(look.split()) == 0
    assert "tasks_completed_7d" in capsys.readouterr().out


def test_the_definitions_example_runs_as_it_stands(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    (feast,) = [block for block in blocks("yaml") if "churn_model" in block]
    users = "users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}"
    features = "features: {user_features: {}}\n"
    feast = feast.replace(', "task_features:priority_score"', "")
    (world / "pipeline.yaml").write_text(f"version: 1\nname: work\nsources: {{{users}}}\n{features}{feast}")
    run_pipeline(load_pipeline("pipeline.yaml"), as_of="2025-10-04")
    [commands] = [block for block in blocks("sh") if "feast diff" in block]
    for line in commands.splitlines():
        assert main(line.partition("#")[0].split()[1:]) == 0
    assert capsys.readouterr().out == "the registry is as declared\nnothing to change\n"


def test_the_example_of_two_models_runs_as_it_stands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    [both] = [block for block in blocks("yaml") if "leaving_v2" in block]
    users = "users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}"
    (world / "pipeline.yaml").write_text(f"version: 1\nname: work\nsources: {{{users}}}\n{both}")
    report = run_pipeline(load_pipeline("pipeline.yaml"), as_of="2025-10-04")
    assert [view.fit_version for view in report.views] == [1, 1]
    with pytest.raises(UsageError, match="the feature service leaving serves"):
        run_pipeline(load_pipeline("pipeline.yaml"), as_of="2025-10-04", refit=True)


def test_the_files_example_runs_as_it_stands(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "hive_partitions" in block]
    (tmp_path / "trips" / "month=1").mkdir(parents=True)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "trips" / "month=1" / "a.csv.gz").write_bytes(
        gzip.compress("id;stop\n1;Übersee\n2;NA\n".encode("latin-1"))
    )
    (tmp_path / "inbox" / "a.ndjson").write_text('{"id": 1}\n')
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"version: 1\nname: files\n{text}")
    trips, events = run_pipeline(load_pipeline(path)).sources
    assert (trips.metrics.records_read, events.metrics.records_read) == (2, 1)
    (tmp_path / "trips" / "month=2").mkdir()
    (tmp_path / "trips" / "month=2" / "b.csv.gz").write_bytes(gzip.compress(b"id;stop\n3;x\n"))
    trips, events = run_pipeline(load_pipeline(path)).sources
    assert (trips.metrics.records_read, trips.metrics.rows, events.metrics.records_read) == (1, 3, 1)


def test_the_checks_are_all_there_are() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+): .* \| (ERROR|WARNING) \|$", README, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(FAMILIES)
    for name, key, severity in rows:
        assert key in {field.alias or name for name, field in ValidationSpec.model_fields.items()}, name
        assert severity.lower() == ("warning" if name in WARNINGS else "error"), name


def test_the_checks_example_runs_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        f"version: 1\nname: shop\n{next(b for b in blocks('yaml') if 'validation:' in b and 'patterns' in b)}"
    )
    suite = compile_plan(load_pipeline(path)).suites["orders"]
    orders = pl.DataFrame(
        {
            "order_id": [1, 1, 3],
            "customer_id": ["a", "b", "c"],
            "sku": ["ABC-1", "no", "no"],
            "total": [1.0, -1.0, 0.0],
            "ordered_at": [1, 2, 4],
            "shipped_at": [1, 3, 3],
            "status": ["paid", "draft", "paid"],
        }
    )
    report = suite.validate(orders, references={"customers": pl.DataFrame({"customer_id": ["a", "b"]})})
    assert {r.name: (r.passed, str(r.severity), r.failed_records) for r in report.results} == {
        "uniqueness.order_id": (False, "error", 1),
        "range.total": (False, "error", 1),
        "pattern.sku": (False, "error", 1),
        "compare.ordered_at <= shipped_at": (False, "error", 1),
        "foreign_key.customer_id": (False, "warning", 1),
        "custom.shipped_when_paid": (True, "info", 1),
        "row_count": (True, "info", 0),
    }
    assert report.quarantined == 1


def test_the_python_of_checks_runs_as_it_stands(world: Path) -> None:
    done = ran(blocks("python")[0], world)
    assert done.stdout == "2 rows, 3 of 3 checks passed\n"
    assert "suite.filter(frame)" in blocks("python")[0]
    tried = ran(blocks("python")[0] + "good, bad = suite.filter(frame)\nprint(good.collect().height)", world)
    assert tried.stdout.endswith("\n2\n")


def test_the_transforms_example_runs_as_it_stands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    [text] = [block for block in blocks("yaml") if "one_hot" in block]
    sources = "users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}"
    (world / "pipeline.yaml").write_text(f"version: 1\nname: work\nsources: {{{sources}}}\n{text}")
    run_pipeline(load_pipeline("pipeline.yaml"), as_of="2025-10-04")
    [command] = [line for line in README.splitlines() if line.startswith("maestro fit export")]
    assert main(command.split()[1:]) == 0
    [code] = [block for block in blocks("python") if "transforms.load" in block]
    users, activities = pl.read_csv("data/users.csv"), pl.read_parquet("data/activities/*.parquet")
    raw = FeatureExtractor().extract_user_features(users, activities, as_of="2025-10-04")
    raw.write_parquet("raw.parquet")
    done = ran(
        f"import polars as pl\nraw = pl.read_parquet('raw.parquet')\n{code}print(serving.apply(raw).columns)", world
    )
    assert "'tasks_completed_30d_0', 'tasks_completed_30d_1', 'tasks_completed_30d_2'" in done.stdout


def test_the_training_set_example_runs_as_it_stands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.build(world / "demo-out", now=datetime.now(UTC))
    path = world / "demo-out" / "pipeline.yaml"
    path.write_text(path.read_text().replace("feast:", "# feast:"))
    done = ran(next(block for block in blocks("python") if "training_set" in block), world)
    assert done.stdout.startswith("shape: (3, 5)")
    monkeypatch.chdir(world)
    [command] = [line for line in README.splitlines() if line.startswith("maestro training-set")]
    assert main(command.split()[1:]) == 0
    made = pl.read_parquet("set.parquet")
    assert (made["has_left"].to_list(), made["bug_rate"].is_null().to_list()) == ([0, 1, 0], [False, False, True])


def test_the_python_of_profiles_runs_as_it_stands(world: Path) -> None:
    (code,) = [block for block in blocks("python") if "profile_of" in block]
    assert ran(code, world).stdout.endswith(
        " 2.5 [{'value': 'a', 'count': 2}, {'value': 'b', 'count': 1}, {'value': 'c', 'count': 1}]\n"
    )


def test_the_python_of_drift_runs_as_it_stands(world: Path) -> None:
    (code,) = [block for block in blocks("python") if "drift_of" in block]
    assert (
        ran(code, world).stdout == "{'distance': ['psi', 'js', 'ks', 'wasserstein'], 'payment': ['psi', 'js']} 0.325\n"
    )


def test_the_commands_of_drift_run_as_they_stand(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    for month in ("july", "august"):
        frame = pl.DataFrame({"distance": [float(n % 40) for n in range(2_000)]})
        frame.write_parquet(world / "data" / f"{month}.parquet")
        frame.write_csv(world / "data" / f"{month}.csv")
    (commands,) = [block for block in blocks("sh") if "maestro drift" in block]
    for line in commands.splitlines():
        command = f"{sys.executable} -m engine".join(line.partition("#")[0].split("maestro"))
        done = subprocess.run(command, shell=True, cwd=world, env={"PYTHONPATH": str(ROOT)}, check=False)  # noqa: S602
        assert done.returncode == 0, line


def test_the_drift_example_runs_as_it_stands(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "drift:" in block]
    (tmp_path / "data").mkdir()
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"version: 1\nname: trips\n{text}")
    frame = pl.DataFrame({"distance": [float(n % 40) for n in range(2_000)], "payment": ["card", "cash"] * 1_000})
    statuses = []
    for factor in (1, 1, 2):
        frame.with_columns(pl.col("distance") * factor).write_parquet(tmp_path / "data" / "trips.parquet")
        statuses.append(run_pipeline(load_pipeline(path)).status)
    assert statuses == ["done", "done", "blocked"]


def test_the_commands_of_profiles_run_as_they_stand(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    (world / "pipeline.yaml").write_text("version: 1\nname: p\nsources: {users: {type: file, path: data/users.csv}}\n")
    run_pipeline(load_pipeline("pipeline.yaml"))
    (commands,) = [block for block in blocks("sh") if "maestro suggest" in block]
    for line in commands.splitlines():
        command, _, target = line.partition("#")[0].partition(">")
        capsys.readouterr()
        assert main(command.split()[1:]) == 0
        shown = capsys.readouterr().out
        assert "user_id" in shown
        if target:
            (world / target.strip()).write_text(shown)
    assert main(["validate", "data/users.csv", "--checks", "checks.yaml"]) == 0


def test_the_backfill_example_runs_as_it_stands(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    sources = "{users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}}"
    (world / "pipeline.yaml").write_text(
        f"version: 1\nname: p\nsources: {sources}\nfeatures: {{user_features: {{normalize: false}}}}\n"
    )
    (commands,) = [block for block in blocks("sh") if "maestro backfill" in block]
    for line in commands.splitlines():
        assert main(line.partition("#")[0].split()[1:]) == (2 if "--resume" in line else 0)
    assert "one scan with running state" in capsys.readouterr().out
    (code,) = [block for block in blocks("python") if "published_frames" in block]
    assert ran(code + "print(newest.height)", world).stdout.splitlines()[-1] == "22"


@pytest.mark.parametrize("number", [-2, -1])
def test_the_python_runs_as_it_stands(world: Path, number: int) -> None:
    done = ran(blocks("python")[number], world)
    assert number == -1 or done.stdout == "done [2]\n"


def test_the_store_example_runs_as_it_stands(world: Path, ceph_server: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_URL", ceph_server.url)
    monkeypatch.setenv("S3_KEY", ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET", SECRET_KEY)
    sources = "{users: {type: file, path: data/users.csv}, activities: {type: file, path: data/activities/*.parquet}}"
    path = world / "pipeline.yaml"
    path.write_text(
        f"version: 1\nname: stored\nsources: {sources}\nfeatures: {{user_features: {{}}}}\n{next(b for b in blocks('yaml') if 's3://lake/landing' in b)}"
    )
    report = run_pipeline(load_pipeline(path), as_of="2025-10-04")
    [part] = report.views[0].files
    store = ceph_server.store()
    assert store.exists(f"lake/features/{part}")
    assert store.find("lake/landing/landing/stored/users")
    store.rm([*store.find("lake/features"), *store.find("lake/landing")])


def test_the_declared_view_runs_as_it_stands(tmp_path: Path) -> None:
    day = datetime(2025, 10, 3, 9, tzinfo=UTC)
    (tmp_path / "data").mkdir()
    orders = {
        "customer": [1, 1, 2, 1],
        "ordered_at": [day, day - timedelta(40), day, day + timedelta(9)],
        "amount": [10.0, 30.0, 5.0, 1000.0],
        "quantity": [1, 2, 1, 1],
        "status": ["paid", "returned", "draft", "paid"],
        "sku": ["a", "b", "c", "d"],
        "method": ["card", "cash", "card", "card"],
    }
    pl.DataFrame(orders).write_parquet(tmp_path / "data" / "orders.parquet")
    customers = {"customer_id": [1, 2], "country": ["DE", "FR"], "created_at": [day - timedelta(50), day]}
    pl.DataFrame(customers).write_parquet(tmp_path / "data" / "customers.parquet")
    contracts = {"customer_id": [1, 1], "since": [day - timedelta(1), day + timedelta(1)], "tier": ["gold", "lead"]}
    pl.DataFrame(contracts).write_parquet(tmp_path / "data" / "contracts.parquet")
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"version: 1\nname: shop\n{next(b for b in blocks('yaml') if 'aggregates:' in b)}")
    run_pipeline(load_pipeline(path), as_of="2025-10-04")
    frame = pl.read_parquet(tmp_path / "features" / "spending" / "**/*.parquet", hive_partitioning=False)
    one, two = frame.drop("event_timestamp", "created_timestamp").to_dicts()
    assert one == {
        "customer_id": 1,
        "orders": 2,
        "spent_30d": 10.0,
        "spent_before": 30.0,
        "best_day": 10.0,
        "median": 20.0,
        "last_skus": ["a", "b"],
        "returned": 0.0,
        "price": 40 / 3,
        "silence": 15 * 3600.0,
        "pace": 0.25,
        "paid_by_card": 1,
        "paid_by_cash": 1,
        "tier": "gold",
        "growth": 1 / 3,
        "is_new": False,
        "card_share": 0.5,
    }
    assert (two["orders"], two["spent_30d"], two["tier"], two["growth"], two["is_new"]) == (0, None, "none", 0.0, True)


def test_the_anomalies_example_runs_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    sources = "sources: {orders: {type: file, path: orders.parquet}}"
    path.write_text(f"version: 1\nname: shop\n{sources}\n{next(b for b in blocks('yaml') if 'tolerance: 5' in b)}")
    orders = pl.DataFrame({"total": [1.0, None], "ordered_at": [datetime(2025, 10, 4, tzinfo=UTC)] * 2})
    for rows in (1, 1, 1, 1, 1, 2):
        pl.concat([orders] * rows).write_parquet(tmp_path / "orders.parquet")
        report = run_pipeline(load_pipeline(path)).sources[0].report
    assert report is not None
    found = {r.name: (r.passed, str(r.severity)) for r in report.results if r.check_name == "anomaly_validation"}
    assert found == {
        "anomaly.row_count": (False, "warning"),
        "anomaly.null_rate.total": (True, "info"),
        "anomaly.mean.total": (True, "info"),
        "anomaly.freshness.ordered_at": (True, "info"),
    }


def test_the_report_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orders.csv").write_text("order_id,total,email\n1,5,ada@example.com\n2,5000,bob@example.com\n")
    (tmp_path / "tell.py").write_text(
        "import json, sys; json.dump([sys.argv[1:], json.load(sys.stdin)], open('told.json', 'w'))"
    )
    (tmp_path / "pipeline.yaml").write_text(
        f"version: 1\nname: shop\n{next(b for b in blocks('yaml') if 'alerts:' in b)}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with rest.running(lambda _: rest.Answer(b"ok")) as server:
        monkeypatch.setenv("SLACK_URL", server.url)
        assert main(["run", "pipeline.yaml", "--quiet"]) == 0
        [asked] = server.requests
    words, told = json.loads((tmp_path / "told.json").read_text())
    assert (words, told["events"], told["checks"][0]["check"]) == (["orders"], ["warning"], "range.total")
    assert "Done, with 1 warning in 3 checks" in json.loads(asked.body)["text"]
    [commands] = [block for block in blocks("sh") if "report pipeline.yaml --out" in block]
    for line in commands.splitlines()[:2]:
        assert main(line.partition("#")[0].split()[1:]) == 0
    capsys.readouterr()
    pages = "".join(path.read_text() for path in (tmp_path / "public").iterdir())
    assert "range.total" in pages
    assert "example.com" not in pages


def test_the_offline_store_example_runs_as_it_stands(world: Path) -> None:
    from tests.offline.test_store import STATS, entities
    from tests.offline.world import Repo, defined, write

    [text] = [block for block in blocks("yaml") if "MaestroOfflineStore" in block]
    write(world, STATS)
    repo = Repo(world)
    options = yaml.safe_load(text)["offline_store"]
    store = repo.store(options.pop("type"), **options)
    repo.apply([defined(world, STATS)])
    entities().to_parquet(world / "repo-0" / "labels.parquet")
    [sql] = re.findall(r'entity_df="(.*?)"', README)
    found = store.get_historical_features(entity_df=sql, features=["stats:rate"]).to_df()
    assert found["rate"].dropna().tolist() == [0.1, 0.3, 0.4]


def test_every_block_is_tested() -> None:
    assert (len(blocks("yaml")), len(blocks("python"))) == (17, 8)


def ran(code: str, world: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=world,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_columns_it_names_are_those_the_sets_read() -> None:
    for name in SETS:
        [row] = re.findall(rf"^   \| {name} \| (.*) \|$", README, re.MULTILINE)
        for role in roles_of(name):
            assert f"`{role.name}`" in row
            used = view_of(name, Settings()).used(role)
            for column in (*used, *(c for c in role.columns if c.name == role.timestamp)):
                assert column.name in row or name == "team", f"{name} reads {role.name}.{column.name}"


def test_the_number_of_features_is_right() -> None:
    count = sum(len(view_of(name, Settings()).features) for name in SETS)
    assert f"4 sets, {count} features" in README


def test_the_scripts_it_names_are_there() -> None:
    for script in set(re.findall(r"\./(scripts/\w+)", README)):
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_pages_it_leads_to_are_there() -> None:
    for page in set(re.findall(r"\]\((docs/[\w./-]+)\)", README)):
        assert (ROOT / page).is_file(), page

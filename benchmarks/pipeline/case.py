"""The whole pipeline: servers that hold the world, how a contender is told of them, whether what it did is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as the contenders see them

import polars as pl
from feast_bytes import entity, number
from feast_bytes import field as field_of
from views import VIEWS

from benchmarks.harness.contest import DATA, OURS, Answer, Contender
from benchmarks.pipeline.world import LAST, PAGE, SCHEMAS, Size, make

SAMPLE = 2_000  # entities of each view looked up in Redis
CLOSE = 1e-9


@contextmanager
def cases(size: Size, name: str) -> Iterator[list[Case]]:
    """One case, over a PostgreSQL, a Ceph gateway, a REST server and a Redis of its own."""
    from tests.servers import ceph, postgres, redis

    world = DATA / "pipeline" / name
    make(world, size)
    with ExitStack() as servers:
        database = servers.enter_context(postgres.running())
        for table, columns in SCHEMAS.items():
            database.execute(
                f"CREATE TABLE {table} ({columns});\n\\copy {table} FROM '{world / table}.csv' CSV HEADER\n"
            )
        database.execute("ANALYZE;")
        store = servers.enter_context(ceph.running(on_disk=size.activities > 10_000_000))
        for path in sorted((world / "activities").iterdir()):
            store.store().pipe(f"{ceph.BUCKET}/activities/{path.name}", path.read_bytes())
        online = servers.enter_context(redis.running())
        script = Path(__file__).parents[1] / "rest" / "server.py"
        command = [sys.executable, script, world / "pages", "0"]
        api = servers.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        servers.callback(api.terminate)
        where = {
            "database": database.url,
            "endpoint": store.url,
            "access_key": ceph.ACCESS_KEY,
            "secret_key": ceph.SECRET_KEY,
            "bucket": ceph.BUCKET,
            "tasks": f"http://127.0.0.1:{int(api.stdout.readline())}/tasks",
            "page": PAGE,
            "redis": online.connection_string,
            "first": size.first.isoformat(),
            "last": LAST.isoformat(),
        }
        reference = DATA / "pipeline" / f"{name}-reference"
        shutil.rmtree(reference, ignore_errors=True)
        try:
            yield [Case(size, where, online, reference)]
        finally:
            shutil.rmtree(reference, ignore_errors=True)


@dataclass
class Case:
    """One run of everything; ``reference`` is what the first contender that looked right published."""

    size: Size
    where: dict[str, Any]
    online: Any
    reference: Path
    name: str = "30 days"
    title: str = "Sources to Redis"
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts = {
            "activities": f"{self.size.activities:,}",
            "users": f"{self.size.users:,}",
            "tasks": f"{self.size.tasks:,}",
            "projects, teams": f"{self.size.projects:,}, {self.size.teams:,}",
            "as-ofs": f"{self.size.days} days",
        }

    def environment(self) -> Mapping[str, str]:
        named = {"DATABASE_URL": "database", "ENDPOINT_URL": "endpoint", "ACCESS_KEY": "access_key"}
        named |= {"SECRET_KEY": "secret_key"}
        return {"FEAST_USAGE": "False"} | {name: self.where[key] for name, key in named.items()}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        self.online.flush()
        (out.parent / "where.json").write_text(json.dumps(self.where))
        return [out.parent / "where.json", out]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        found, report = self._checks(contender, out)
        written = sum(path.stat().st_size for path in (out / "features").rglob("*.parquet"))
        stages = _laps(report) if contender.role == OURS else json.loads((out / "stages.json").read_text())
        figures = {"stages": stages}
        if not self.reference.exists():
            shutil.copytree(out / "features", self.reference / "features")
            (self.reference / "checks.json").write_text(json.dumps(found))
        wanted = json.loads((self.reference / "checks.json").read_text())
        wrong = f"checks found {found} instead of {wanted}" if found != wanted else None
        wrong = wrong or (self._published(out, every=thorough))
        return Answer(wrong or self._online(), figures=figures, size=written)

    def _checks(self, contender: Contender, out: Path) -> tuple[dict[str, int], dict[str, Any]]:
        """Failed rows of each check that failed, by table, column and family."""
        if contender.role != OURS:
            return json.loads((out / "checks.json").read_text()), {}
        [path] = (out / ".maestro").rglob("reports/**/2*.json")
        report = json.loads(path.read_text())
        found = {}
        for source in report["sources"]:
            for result in (source["validation"] or {"results": []})["results"]:
                if not result["passed"]:
                    family = result["check_name"].removesuffix("_validation")
                    found[f"{source['name']}.{result['column']}.{family}"] = max(1, result["failed_records"])
        return found, report

    def _published(self, out: Path, *, every: bool) -> str | None:
        """In what the published rows are not the reference's; of the first and the last day only, unless ``every``."""
        days = range(self.size.days) if every else (0, self.size.days - 1)
        for view, (key, _, names) in VIEWS.items():
            for day in days:
                stamp = f"{self.size.first + timedelta(days=day):%Y-%m-%d}"
                expected, found = (
                    _day(folder / view, stamp) for folder in (self.reference / "features", out / "features")
                )
                if found is None:
                    return f"{view} of {stamp} is not there"
                expected, found = (frame.select(key, *names).sort(key) for frame in (expected, found))
                if not expected[key].equals(found[key]):
                    return f"{view} of {stamp} has {found.height:,} rows for {expected.height:,}, or other keys"
                for name in names:
                    if off := _off(expected[name], found[name]):
                        return f"{view}.{name} of {stamp}: {off}"
        return None

    def _online(self) -> str | None:
        """In what Redis is not the newest published row; the number of keys, and every field of a sample."""
        [client] = self.online.clients()
        moment, stamp = LAST, f"{LAST:%Y-%m-%d}"
        frames = {view: _day(self.reference / "features" / view, stamp) for view in VIEWS}
        keys = sum(frame.height for frame in frames.values())
        if client.dbsize() != keys:
            return f"{client.dbsize():,} keys in Redis instead of {keys:,}"
        for view, (key, _, names) in VIEWS.items():
            rows = frames[view].select(key, *names)
            rows = rows.sample(min(SAMPLE, rows.height), seed=7)
            pipe = client.pipeline(transaction=False)
            for name in rows[key]:
                pipe.hgetall(entity(key, name))
            for row, stored in zip(rows.iter_rows(), pipe.execute(), strict=True):
                if len(stored) != len(names) + 1:
                    return f"{view} of {row[0]} has {len(stored)} fields in Redis"
                if int(moment.timestamp()) != number(b"\x20" + stored[f"_ts:{view}".encode()][1:]):
                    return f"{view} of {row[0]} has another moment in Redis"
                for name, expected in zip(names, row[1:], strict=True):
                    found = number(stored[field_of(view, name)])
                    if found is None or abs(found - expected) > CLOSE * max(1, abs(expected)):
                        return f"{view}.{name} of {row[0]} is {found} in Redis, not {expected}"
        return None


def _laps(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Seconds and CPU seconds of each stage, and what it waited for, as the engine's own report has them."""
    laps, told = report.get("stages", []), ("seconds", "cpu_seconds", "waited")
    return {f"{lap['stage']} {lap['name']}".strip(): {k: lap[k] for k in told} for lap in laps}


def _day(folder: Path, stamp: str) -> pl.DataFrame | None:
    paths = [path for path in folder.rglob("*.parquet") if stamp in str(path.relative_to(folder))]
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths]) if paths else None


def _off(expected: pl.Series, found: pl.Series) -> str | None:
    """How two columns differ, to 1e-9."""
    if (expected.is_null() != found.is_null()).any():
        return "other nulls"
    a, b = expected.cast(pl.Float64), found.cast(pl.Float64)
    far = (a - b).abs() > CLOSE * pl.select(pl.max_horizontal(pl.lit(1.0), a.abs())).to_series()
    if not far.any():
        return None
    at = far.arg_max()
    return f"{far.sum():,} values differ, such as {found[at]} for {expected[at]}"

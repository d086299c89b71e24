"""From the start of a command to the first value in Redis, and to its end: ``start.py [RUNS]``."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORK = ROOT / "benchmarks" / ".data" / "online"

PIPELINE = """\
version: 1
name: start
sources: {users: {type: file, path: users.csv}, activities: {type: file, path: activities.csv}}
features: {user_features: {}}
feast: {repo: ./repo, project: start}
"""
COMMANDS = {
    "first run": ("run", "--as-of", "2025-10-04"),
    "run, definitions unchanged": ("run", "--as-of", "2025-10-05"),
    "materialize --full": ("materialize", "--full"),
}


def starts(runs: int) -> dict[str, list[list[float]]]:
    """Seconds from the start of a command to the first HSET that Redis counts, and to its end."""
    sys.path.insert(0, str(ROOT))
    from tests.servers import redis

    found: dict[str, list[list[float]]] = {name: [] for name in COMMANDS}
    for number in range(runs):
        folder = WORK / "start"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "repo").mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(PIPELINE)
        (folder / "users.csv").write_text(
            "user_id,experience_years\n" + "".join(f"u{n},{n % 40}\n" for n in range(1000))
        )
        (folder / "activities.csv").write_text("user_id,timestamp,task_type,completion_time\nu1,2025-10-01,docs,60\n")
        with redis.running() as server:
            whole = {"project": "start", "provider": "local", "registry": "data/registry.db"}
            whole |= {"online_store": server.online_store, "entity_key_serialization_version": 3}
            (folder / "repo" / "feature_store.yaml").write_text(json.dumps(whole))
            for name, (command, *more) in COMMANDS.items():
                found[name].append(_timed(server, folder, [command, "pipeline.yaml", "--quiet", *more]))
                print(f"{name}, run {number + 1} of {runs}: {found[name][-1]}", flush=True)
    shutil.rmtree(WORK / "start", ignore_errors=True)
    return found


def _timed(server: Any, folder: Path, arguments: list[str]) -> list[float]:
    [client] = server.clients()
    client.config_resetstat()
    command = [sys.executable, "-m", "engine", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    started, first = time.monotonic(), None
    process = subprocess.Popen(command, cwd=folder, env=environment)
    while process.poll() is None:
        if first is None and "cmdstat_hset" in client.info("commandstats"):
            first = time.monotonic()
        time.sleep(0.005)
    assert process.returncode == 0
    assert first is not None
    return [first - started, time.monotonic() - started]


def main() -> None:
    for name, runs in starts(int(sys.argv[1]) if len(sys.argv) > 1 else 5).items():
        first, end = (statistics.median(of) for of in zip(*runs, strict=True))
        print(f"{name}: first value after {first:.2f} s, end after {end:.2f} s (medians of {len(runs)})")


if __name__ == "__main__":
    main()

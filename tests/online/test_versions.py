"""The oldest Feast that is supported stores the bytes that the newest does, and that we do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from engine.sinks.feast.repo import BEYOND, OLDEST
from tests.online.test_bytes import everything
from tests.online.world import World
from tests.servers.redis import Redis

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("feast-oldest.txt")
LOCK = ROOT / "requirements.lock"


@pytest.fixture(scope="module")
def oldest() -> Path:
    """A folder with the oldest Feast, beside which everything else is as it is; made once."""
    [version] = re.findall(r"^feast==(\S+)", PINS.read_text(), re.MULTILINE)
    folder = ROOT / "tests" / ".oldest" / f"feast-{version}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        staged = tempfile.mkdtemp(dir=folder.parent)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "--target", staged, "-r", str(PINS)], check=True, timeout=300)
        try:
            Path(staged).rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(staged)
    return folder


LOADED = """
import json, sys
from pathlib import Path
import feast
from tests.online.test_bytes import everything
from tests.online.world import World

assert feast.__version__ == sys.argv[1]
for folder, store in json.loads(sys.argv[2]):
    world = everything(World(Path(folder), store=store))
    assert world.repo.diff([world.view]) == []
    world.by_feast()
"""


def by_oldest(folder: Path, *worlds: tuple[Path, dict[str, Any]]) -> None:
    """Worlds that are made, registered by us and loaded by the oldest Feast."""
    version = folder.name.partition("-")[2]
    told = json.dumps([[str(root), store] for root, store in worlds])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-W", "ignore", "-c", LOADED, version, told]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_oldest_stores_the_bytes_of_the_newest_and_ours(tmp_path: Path, oldest: Path, redis_server: Redis) -> None:
    sqlite = {"type": "sqlite", "path": "data/online.db"}
    redis_server.flush()
    by_oldest(oldest, (tmp_path / "sqlite", sqlite), (tmp_path / "redis", redis_server.online_store))
    stored = World(tmp_path / "sqlite", store=sqlite).dump_sqlite(), redis_server.dump()
    assert min(map(len, stored)) > 0
    redis_server.flush()
    newest = [
        everything(World(tmp_path / "n1", store=sqlite)),
        everything(World(tmp_path / "n2", store=redis_server.online_store)),
    ]
    for world in newest:
        world.by_feast()
    assert (newest[0].dump_sqlite(), redis_server.dump()) == stored
    redis_server.flush()
    newest[0].empty_sqlite()
    for world in newest:
        world.by_ours()
    assert (newest[0].dump_sqlite(), redis_server.dump()) == stored


def test_the_range_that_is_declared_is_the_one_that_is_tested(oldest: Path) -> None:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(".")[:2]))

    assert numbers(oldest.name.partition("-")[2]) == OLDEST
    [newest] = re.findall(r"^feast==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert newest == importlib.metadata.version("feast")
    assert numbers(newest) == (BEYOND[0], BEYOND[1] - 1)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = ">={}.{},<{}.{}".format(*OLDEST, *BEYOND)
    for extra in ("feast", "redis"):
        assert [r.partition("]")[2] for r in project["optional-dependencies"][extra]] == [wanted]


def test_the_oldest_installs_beside_all_that_is_pinned(oldest: Path) -> None:
    own = {d.name: d for d in importlib.metadata.distributions(path=[str(oldest)])}
    asked = [Requirement(text) for text in own["feast"].requires or ()]
    for extra in ("", "duckdb", "redis"):
        for one in asked:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                there = own[one.name].version if one.name in own else importlib.metadata.version(one.name)
                assert one.specifier.contains(there, prereleases=True), f"{one}: {there} is there"

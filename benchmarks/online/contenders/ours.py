# /// script
# dependencies = []
# ///
"""Our own loader; with ``proven`` it then reads 100 entities back through Feast and compares them."""

import sys
import time
from pathlib import Path

from engine.sinks.feast.aside import Aside
from engine.sinks.online.config import read_config
from engine.sinks.online.load import load
from engine.sinks.online.newest import sample
from engine.sinks.online.store import open_store

sys.path.insert(0, str(Path(__file__).parents[1]))

from views import repo_of, view_of


def main(folder: Path, mode: str) -> None:
    started = time.monotonic()
    view, repo, first = view_of(folder), repo_of(folder), []
    paths = sorted(view.path.rglob("*.parquet"))
    with Aside(repo) as aside:
        if mode == "proven":
            aside.begin()
        limits = {"memory_limit": "512MiB", "spill": folder / "spill"}
        with open_store(read_config(repo.folder), repo) as store:
            load(store, view, paths, **limits, loaded=lambda *_: first.append(time.monotonic() - started))
        if mode == "proven":
            assert aside.prove(view, paths, sample(view, paths, 100), **limits) == 100
    print("inside", time.monotonic() - started, first[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

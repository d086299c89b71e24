# /// script
# dependencies = []
# ///
"""Ours, through the library: ``ours.py FOLDER SET COUNT OUT [each]``; each: a query per as-of, as for single runs."""

from __future__ import annotations

import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from days import as_ofs

from engine.features.compute import compute_raw
from engine.features.definition import Aggregate, Feature, Settings
from engine.features.inputs import Inputs
from engine.features.raw import Raw
from engine.features.sets import view_of
from engine.types import Duration

folder, kind, count, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
view = view_of("user", Settings())
if kind == "mixed":
    from dataclasses import replace

    window = Duration("30d")
    wanted = {
        "types_30d": ("count_distinct", "task_type", None),
        "p90_30d": ("quantile", "completion_time", 0.9),
        "mode_30d": ("mode", "task_type", None),
        "n_30d": ("count", None, None),
        "sum_30d": ("sum", "completion_time", None),
        "max_30d": ("max", "completion_time", None),
    }
    view = replace(
        view,
        aggregates=tuple(
            Aggregate(name, function, "activities", value, window=window, q=q)
            for name, (function, value, q) in wanted.items()
        ),
        features=tuple(
            Feature(name, "length(mode_30d)" if name == "mode_30d" else name, "Float64", "") for name in wanted
        ),
    )


def write(raw: Raw, path: Path) -> None:
    raw.scan().sink_parquet(path, compression="zstd", maintain_order=True)
    raw.remove()


begun = time.monotonic()
tables = {"users": [folder / "users.parquet"], "activities": [folder / "activities.parquet"]}
moments = as_ofs(count)
with Inputs(view, tables, memory_limit="512MiB", spill=out / "spill") as inputs:
    if len(sys.argv) > 5:
        for i, moment in enumerate(moments):
            write(compute_raw(inputs, view, moment, out / "raw.arrow"), out / f"{i}.parquet")
    else:
        from engine.features.history import History

        history = History(inputs, view, moments, folder=out / "history", budget=256 * 2**20)
        with ThreadPoolExecutor(1) as writer:  # as `maestro backfill`: a file is written while the next is computed
            waiting: deque[Future[None]] = deque()
            for i, (_, raw) in enumerate(history.raw()):
                waiting.append(writer.submit(write, raw, out / f"{i}.parquet"))
                if len(waiting) > 1:
                    waiting.popleft().result()
            waiting.pop().result()
print("inside", time.monotonic() - begun)

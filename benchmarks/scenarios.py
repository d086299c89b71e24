"""All scenarios: what is measured, beside whom, at which sizes, and what is asked of ours."""

from __future__ import annotations

from benchmarks.harness.contest import FLOOR, OURS
from benchmarks.harness.results import Goal
from benchmarks.harness.scenario import Scenario, contenders
from benchmarks.pipeline.world import Size

GIB = 2**30

PIPELINE = Scenario(
    "pipeline",
    "The whole pipeline",
    """
PostgreSQL (users, projects, teams), Parquet on a Ceph gateway (activities) and a REST server (tasks) in; validated;
the four feature sets as of 30 days, filled and scaled as the first day says; published as Parquet; the newest day
loaded into Redis. `ours` is one pipeline file and `maestro backfill`, with its ledger, landing zone, quarantine,
reports and the proof through Feast. `by_hand` is the floor: each stage by hand in one process, with none of these, and
nothing registered with Feast. The peers are the stacks that people glue: their scripts name the pages
that their settings are from. `seed_loops` walks users row by row, as the seed did, at the size that it can bear.

Compared are every feature of every row of every day (to 1e-9), the counts of failed checks, the number of keys in
Redis, and every field of 2,000 entities of each view there.
""",
    {
        "XS": Size(activities=20_000, users=800, tasks=2_000, projects=100, teams=100),
        "S": Size(activities=200_000, users=8_000, tasks=20_000, projects=500, teams=500),
        "M": Size(activities=5_000_000, users=200_000, tasks=500_000, projects=5_000, teams=4_000),
        "L": Size(activities=20_000_000, users=800_000, tasks=2_000_000, projects=20_000, teams=16_000),
    },
    contenders(
        "pipeline",
        ("by_hand", {"role": FLOOR, "sizes": ("XS", "S", "M")}),
        ("ours", {"role": OURS}),
        ("connectorx_polars", {"sizes": ("XS", "S", "M")}),
        ("dlt_pandas", {"sizes": ("XS", "S", "M")}),
        ("seed_loops", {"sizes": ("XS",), "slow": True}),
    ),
    (
        Goal("wall", 1 / 6, "dlt_pandas", aim=1 / 10),
        Goal("wall", 1 / 3, "connectorx_polars"),
        Goal("peak", 1 / 3, "dlt_pandas"),
        Goal("peak", 1 / 3, "connectorx_polars"),
        Goal("wall", 1.6, "by_hand"),
        Goal("peak", GIB, sizes=("L",)),
    ),
)

ALL = (PIPELINE,)

"""Training sets: Feast's DuckDB store, DuckDB's ASOF JOIN by hand and ours, equal answers first, then time.

    .venv/bin/python benchmarks/training/run.py [--entities N] [--keys N] [--days N] [--runs N]

Entity rows are joined to a view with one file a day, at a short and at a long ttl. What each contender wrote is
compared with what DuckDB wrote, every value. Then fresh processes, one of each contender per round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.measure import Measurement, measure
from harness.reporting import about, spread, table
from world import TTLS, make

ROOT = Path(__file__).parents[2]
WORK = ROOT / "benchmarks" / ".data" / "training"
CONTENDERS = {
    "ours": ("ours",),
    "duckdb_asof": ("duckdb_asof", "plain"),
    "duckdb_ordered": ("duckdb_asof", "ordered"),
    "plugin": ("feast", "plugin"),
    "feast": ("feast", "duckdb"),
}
INTRODUCTION = """\
# Training sets

Made by `benchmarks/training/run.py`: entity rows (a text key, a tenth of them unknown, and a moment) joined to one view
of 10 features (7 floats, 3 integers) as of their moments, from Parquet to Parquet. `ours` is `maestro training-set`
with its default `memory_limit` of 512 MiB; `duckdb_asof` one hand-written query with an ASOF JOIN and all the memory it
wants, which gives the rows in any order; `duckdb_ordered` the same in the order of the entity rows, as ours; `feast`
`get_historical_features` with the DuckDB store, from pandas into an Arrow table; `plugin` the same call with our store.
The call, `to_arrow` included, is also timed apart from the reading and writing of files around it.

Equal answers come first: every value, and for ours the order. Each run is a fresh process; every round runs each
contender once. `inside` are the seconds from the end of the imports; wall, CPU and memory are of the whole process.
All are medians, with the least and the most. `theirs / ours` is the median of the ratios of `inside` within the rounds:
above 1, ours took less.
"""


@dataclass(frozen=True)
class Run:
    process: Measurement
    inside: float
    call: float | None = None


@dataclass
class Score:
    name: str
    runs: list[Run] = field(default_factory=list)


def joined(contender: str, ttl: str) -> Run:
    script, *mode = CONTENDERS[contender]
    log, out = WORK / "log.txt", out_of(contender)
    out.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, Path(__file__).parent / "contenders" / f"{script}.py"]
    command += [WORK, ttl, out, *mode]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "TZ": "UTC"}
    process = measure(command, env=environment, cwd=WORK, log=log)
    [said] = [line.split() for line in log.read_text(errors="replace").splitlines() if line.startswith("inside")]
    return Run(process, *map(float, said[1:]))


def out_of(contender: str) -> Path:
    return WORK / f"{contender}.parquet"


def differs(contender: str) -> str | None:
    """In what a contender's answer is not DuckDB's; None: in nothing."""
    import polars as pl

    expected = pl.read_parquet(out_of("duckdb_asof")).sort("label")
    found = pl.read_parquet(out_of(contender), hive_partitioning=False)
    if contender in ("ours", "plugin") and not found["label"].equals(
        pl.int_range(found.height, eager=True).alias("label")
    ):
        return "the order"
    found = found.sort("label").select(expected.columns)
    if found.height != expected.height:
        return f"{found.height:,} rows"
    for name in expected.columns:
        # Feast's integers beside nulls are floats, with NaN for null.
        theirs, ours = (frame[name] for frame in (found, expected))
        if theirs.dtype != ours.dtype:
            theirs = (theirs.fill_nan(None) if theirs.dtype.is_float() else theirs).cast(ours.dtype)
        if not (theirs.fill_nan(None) if theirs.dtype.is_float() else theirs).equals(ours):
            return name
    return None


def main() -> None:
    options = _options()
    os.environ["TZ"] = "UTC"
    begun, load = datetime.now(UTC), os.getloadavg()[0]
    sys.path.insert(0, str(ROOT))
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    found: dict[str, dict[str, Score]] = {}
    try:
        make(WORK, options.entities, options.keys, options.days)
        for ttl in TTLS:
            for contender in ("duckdb_asof", "ours", "duckdb_ordered", "plugin", "feast"):
                joined(contender, ttl)
                wrong = differs(contender)
                print(f"{ttl} {contender}: {f'WRONG: {wrong}' if wrong else 'equal'}", flush=True)
                if wrong:
                    sys.exit("the answers differ; nothing is reported")
            scores = {contender: Score(contender) for contender in CONTENDERS}
            for number in range(options.runs):
                for contender in CONTENDERS:
                    run = joined(contender, ttl)
                    scores[contender].runs.append(run)
                    figures = f"{run.inside:.2f} s inside, {run.process.wall:.2f} s, {run.process.peak / 1e6:.0f} MB"
                    print(f"{ttl} {contender}, run {number + 1} of {options.runs}: {figures}", flush=True)
            found[ttl] = scores
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    _report(options, found, begun, load)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, default=Path(__file__).parent, help="folder of RESULTS.md, results.json"
    )
    return parser.parse_args()


def _report(options: argparse.Namespace, found: dict[str, dict[str, Score]], begun: datetime, load: float) -> None:
    made: dict[str, Any] = about(begun, load, ("feast", "polars", "duckdb", "pyarrow"))
    made |= {"entity rows": f"{options.entities:,}", "feature rows": f"{options.keys * options.days:,}"}
    made |= {"files": str(options.days)}
    lines = [INTRODUCTION, *(f"- {key}: {value}" for key, value in made.items())]
    head = ("contender", "runs", "inside s", "wall s", "CPU s", "peak MB", "theirs / ours")
    for ttl, scores in found.items():
        rows, ratios = [], {}
        for score in scores.values():
            pairs = zip(score.runs, scores["ours"].runs, strict=True)
            ratios[score.name] = [theirs.inside / ours.inside for theirs, ours in pairs]
            cells = [score.name, str(len(score.runs)), spread([r.inside for r in score.runs], ".2f")]
            cells += [spread([r.process.wall for r in score.runs], ".2f")]
            cells += [spread([r.process.cpu for r in score.runs], ".2f")]
            cells += [spread([r.process.peak / 1e6 for r in score.runs], ".0f")]
            rows.append([*cells, "–" if score.name == "ours" else spread(ratios[score.name], ".2f")])
        slower = 1 / statistics.median(ratios["duckdb_asof"])
        lines += ["", f"## {ttl} ttl ({TTLS[ttl]})", "", *table(head, rows), "", "Answers equal. Asked of ours:", ""]
        lines.append(f"- at most 1.1 times DuckDB by hand: {'yes' if slower <= 1.1 else '**no**'} ({slower:.2f})")
        if ttl == "long":
            for name in ("ours", "plugin"):
                pairs = zip(scores["feast"].runs, scores[name].runs, strict=True)
                faster = statistics.median((a.call or 0) / b.call if b.call else a.inside / b.inside for a, b in pairs)
                what = " in the call itself" if name == "plugin" else ""
                lines.append(f"- {name} 10 times Feast{what}: {'yes' if faster >= 10 else '**no**'} ({faster:.1f})")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n")
    raw = {"about": made, "ttls": {ttl: [asdict(s) for s in scores.values()] for ttl, scores in found.items()}}
    (options.results / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {options.results / 'RESULTS.md'}")


if __name__ == "__main__":
    main()

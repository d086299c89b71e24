"""Features at one and at many as-ofs: ours against hand-written queries, one per as-of.

    .venv/bin/python benchmarks/history/run.py [--events N] [--as-ofs N] [--runs N] [--only TEXT]

Answers are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl
from harness.measure import Measurement, measure
from harness.programs import Program
from harness.reporting import about, spread, table
from polars.testing import assert_frame_equal
from world import USERS, make

ROOT = Path(__file__).parents[2]
CONTENDERS = Path(__file__).parent / "contenders"
WORK = ROOT / "benchmarks" / ".data" / "history"
SAMPLED = 5  # as-ofs that are computed where each needs a scan; scaled to all
INTRODUCTION = """\
# Features at one and at many as-ofs

Made by `benchmarks/history/run.py`: activities over 400 days of 100,000 users, one Parquet file in the order of time;
daily as-ofs up to the last day; the rows of each as-of written to a Parquet file of its own (zstd). `user` is the
built-in user set (14 features over windows of 7 and 30 days and the whole history), `mixed` six aggregates over 30
days, among them an exact distinct count, a quantile and a mode. `duckdb` and `polars` are hand-written, one query per
as-of, as their documentation recommends (FILTER aggregates; columns first, then plain sums, streaming); `ours each` is
our query for single runs, which checks types and counts null keys first. Answers are compared (1e-9) before anything is
timed. Each run is a fresh process; wall, CPU and memory are of the whole process, imports included. Contenders that
need a scan per as-of compute the last {sampled} as-ofs; their time is multiplied by the number of as-ofs / {sampled}.
`pandas` and `featuretools` run in environments of their own, written as their documentation advises (the links are in
the scripts); at the smaller size featuretools is compared too.
"""


@dataclass
class Score:
    name: str
    command: tuple[str, ...]
    scale: float = 1.0
    events: int = 0
    runs: list[Measurement] = field(default_factory=list)

    def seconds(self, what: str) -> list[float]:
        return [getattr(run, what) * self.scale for run in self.runs]


def main() -> None:
    options = _options()
    begun, load = datetime.now(UTC), os.getloadavg()[0]
    few = options.events // 10
    n = options.as_ofs
    scenarios: dict[str, list[Score]] = {
        f"user set, one as-of, {options.events:,} events": [
            Score("ours each", ("ours.py", "user", "1", "each")),
            Score("duckdb", ("duckdb_sql.py", "user", "1")),
            Score("polars", ("polars_scan.py", "user", "1")),
            Score("pandas", ("pandas_frames.py", "user", "1")),
        ],
        f"user set, one as-of, {few:,} events": [
            Score("ours each", ("ours.py", "user", "1", "each"), events=few),
            Score("duckdb", ("duckdb_sql.py", "user", "1"), events=few),
            Score("pandas", ("pandas_frames.py", "user", "1"), events=few),
            Score("featuretools", ("featuretools_dfs.py", "user", "1"), events=few),
        ],
        f"user set, {n} daily as-ofs, {options.events:,} events": [
            Score("ours", ("ours.py", "user", str(n))),
            Score("ours each", ("ours.py", "user", str(SAMPLED), "each"), n / SAMPLED),
            Score("duckdb", ("duckdb_sql.py", "user", str(SAMPLED)), n / SAMPLED),
        ],
        f"mixed view, {n} daily as-ofs, {options.events:,} events": [
            Score("ours", ("ours.py", "mixed", str(n))),
            Score("duckdb", ("duckdb_sql.py", "mixed", str(SAMPLED)), n / SAMPLED),
        ],
    }
    scenarios = {name: scores for name, scores in scenarios.items() if options.only in name}
    for name, scores in scenarios.items():
        for score in scores:
            score.events = score.events or options.events
            make(WORK / str(score.events), score.events)
        _compare(scores)
        for _ in range(options.runs):
            for score in scores:
                score.runs.append(_run(score))
                last = score.runs[-1]
                print(
                    f"{name}: {score.name}: {last.wall:.1f} s, {last.cpu:.1f} CPU s, {last.peak / 1e6:.0f} MB",
                    flush=True,
                )
    _report(options, scenarios, begun, load)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--as-ofs", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="the scenarios whose name holds this text")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent)
    return parser.parse_args()


def _out(score: Score) -> Path:
    return WORK / "out" / "-".join(score.command).replace(".py", "")


def _run(score: Score) -> Measurement:
    out = _out(score)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    script, kind, count, *each = score.command
    command: list[str | Path] = [
        _python(script),
        CONTENDERS / script,
        WORK / str(score.events),
        kind,
        count,
        out,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return measure([*command, *each], env=environment, cwd=out, log=out / "log.txt")


def _python(script: str) -> Path:
    """Of its own environment, if it names packages, which is made then."""
    if not (CONTENDERS / script).read_text().startswith("# /// script"):
        return Path(sys.executable)
    program = Program(CONTENDERS / script)
    why = program.install()
    if why is not None:
        raise SystemExit(f"{script}: {why}")
    return program.python


def _compare(scores: list[Score]) -> None:
    """The last as-ofs of every contender are those of the first."""
    for score in scores:
        _run(score)
    reference = scores[0]
    for score in scores[1:]:
        count = int(score.command[2])
        skipped = int(reference.command[2]) - count
        for i in range(count):
            one = pl.read_parquet(_out(reference) / f"{i + skipped}.parquet")
            other = pl.read_parquet(_out(score) / f"{i}.parquet").cast(dict(one.schema))
            assert one.height == USERS
            assert_frame_equal(one, other.select(one.columns), rel_tol=1e-9, abs_tol=1e-9)
        print(f"{score.name}: {count} as-ofs equal to those of {reference.name}", flush=True)


def _report(options: argparse.Namespace, scenarios: dict[str, list[Score]], begun: datetime, load: float) -> None:
    made: dict[str, Any] = about(begun, load, ("polars", "duckdb", "pyarrow", "numpy", "numba"))
    lines = [INTRODUCTION.format(sampled=SAMPLED), *(f"- {key}: {value}" for key, value in made.items())]
    head = ("contender", "runs", "wall s", "CPU s", "peak MB", "theirs / ours: wall", "CPU")
    for name, scores in scenarios.items():
        rows = []
        for score in scores:
            ratios = ["–", "–"]
            if score is not scores[0]:
                ratios = [
                    spread([t / o for t, o in zip(score.seconds(w), scores[0].seconds(w), strict=True)], ".2f")
                    for w in ("wall", "cpu")
                ]
            cells = [score.name, str(len(score.runs)), spread(score.seconds("wall"), ".1f")]
            cells += [spread(score.seconds("cpu"), ".1f"), spread([r.peak / 1e6 for r in score.runs], ".0f")]
            rows.append([*cells, *ratios])
        lines += ["", f"## {name}", "", *table(head, rows)]
    suffix = "" if options.events == 10_000_000 and options.as_ofs == 30 else f"-{options.events}-{options.as_ofs}"
    (options.results / f"RESULTS{suffix}.md").write_text("\n".join(lines) + "\n")
    found = {name: [asdict(score) for score in scores] for name, scores in scenarios.items()}
    (options.results / f"results{suffix}.json").write_text(json.dumps({"about": made, "scenarios": found}, indent=1))


if __name__ == "__main__":
    main()

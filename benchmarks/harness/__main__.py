"""`scripts/bench`: runs scenarios and writes the page."""

from __future__ import annotations

import argparse
import signal
import sys

from benchmarks import scenarios
from benchmarks.harness import page
from benchmarks.harness.contest import OURS, Rounds
from benchmarks.harness.results import load, store

SIZES = ("XS", "S", "M", "L", "XL")


def main() -> int:
    """0, or 1 where ours failed or was wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Runs benchmarks and writes benchmarks/RESULTS.md."
    )
    names = [scenario.name for scenario in scenarios.ALL]
    parser.add_argument(
        "scenario", nargs="?", choices=[*names, "all", "page"], default="all", help="page: only the page"
    )
    parser.add_argument("size", nargs="?", choices=SIZES, default="S")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--slow-runs", type=int, help="of those, for slow contenders")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="NAME", help="these contenders; kept only where nothing was yet"
    )
    parser.add_argument("--ours", action="store_true", help="ours, and whoever it is compared with, as CI runs it")
    parser.add_argument("--cases", nargs="+", default=(), metavar="NAME", help="these cases")
    parser.add_argument("--first", action="store_true", help="the round that compares everything counts too")
    parser.add_argument("--dry", action="store_true", help="keeps nothing; the exit code says whether ours is right")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order, so that servers end too
    failed = False
    for scenario in scenarios.ALL:
        if options.scenario not in (scenario.name, "all") or options.size not in scenario.sizes:
            continue
        slow = options.slow_runs if options.slow_runs is not None else scenario.slow_runs
        rounds = Rounds(options.runs, min(slow, options.runs), first=options.first)
        least = [c.name for i, c in enumerate(scenario.contenders) if c.role == OURS or i == 0]
        only = least if options.ours else options.only
        for part in scenario.run(options.size, rounds, only=only, cases=options.cases):
            failed |= any(score.role == OURS and not score.runs for score in part.scores)
            if not options.dry and (not only or part.key not in load(scenario.results)):
                store(scenario.results, part)
    if not options.dry:
        print(f"wrote {page.write(scenarios.ALL).relative_to(page.ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What the checks must find, by plain DuckDB queries, and what a contender says against it.

A contender writes, for each check, whether it ``passed`` and what else it has found out: how many rows ``failed``,
of uniqueness how many are ``repeating`` an earlier one and how many are ``involved``, the ``keys`` or the numbers (from
0) of the ``rows`` that failed, the ``latest`` moment, the ``mean``. What it says must be right; what it leaves out
counts as not said.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

CHECKS = Path(__file__).parent / "checks.json"
KINDS = {"string": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "datetime": "TIMESTAMP WITH TIME ZONE"}
TOLERANCE = 1e-9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Answers = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What a contender ``said``, lists as their lengths, and its ``seconds``.

    ``wrong`` says per check what differs, ``unsaid`` what it leaves out, ``rows`` of which it names the failing rows.
    """

    seconds: float
    said: Answers
    wrong: dict[str, str] = field(default_factory=dict)
    unsaid: dict[str, list[str]] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)


def reference(files: list[Path]) -> Answers:
    """The right answers for these files, kept beside them."""
    kept = files[0].parent / "answers.json"
    checks = json.loads(CHECKS.read_text())
    if kept.exists() and (stored := json.loads(kept.read_text()))["checks"] == checks:
        return dict(stored["answers"])
    answers = _reference(files, checks)
    kept.write_text(json.dumps({"checks": checks, "answers": answers}, indent=1))
    return answers


def compare(expected: Answers, written: Path) -> Verdict:
    """What a contender wrote, against the right answers."""
    written_down = json.loads(written.read_text())
    answers: Answers = written_down["answers"]
    said = {check: {name: _length(value) for name, value in answer.items()} for check, answer in answers.items()}
    found = Verdict(written_down["seconds"], said)
    for check, right in expected.items():
        answer = answers.get(check)
        if answer is None:
            found.wrong[check] = "no answer"
            continue
        different = [name for name in answer if not _same(name, answer[name], right)]
        if "passed" not in answer:
            different.append("passed")
        if different:
            found.wrong[check] = ", ".join(f"{name}: {_length(answer.get(name))}" for name in different)
        if {"rows", "keys"} & set(answer):
            found.rows.append(check)
        silent = [name for name in right if name not in answer and name not in ("rows", "keys")]
        if silent:
            found.unsaid[check] = silent
    return found


def _reference(files: list[Path], checks: dict[str, Any]) -> Answers:
    wanted = checks["validation"]
    with duckdb.connect() as duck:
        spill = files[0].parent / "spill"
        duck.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '6GB'; SET temp_directory = '{spill}'")
        parts, start = [], 0
        for file in files:
            source = f"read_parquet('{file}', file_row_number=true)"
            parts.append(f"SELECT * EXCLUDE file_row_number, file_row_number + {start} AS row FROM {source}")
            start += _one(duck, f"SELECT count(*) FROM read_parquet('{file}')")
        duck.execute("CREATE VIEW t AS " + " UNION ALL ".join(parts))
        described = duck.execute("SELECT column_name, column_type FROM (DESCRIBE t)").fetchall()
        kinds = {name: kind for name, kind in described if name != "row"}
        answers: Answers = {
            "schema": {"passed": kinds == {name: KINDS[kind] for name, kind in wanted["schema"].items()}}
        }
        for check, condition in _conditions(wanted).items():
            rows = duck.execute(f"SELECT row, {checks['key']} FROM t WHERE {condition} ORDER BY row").fetchall()
            answers[check] = {"passed": not rows, "failed": len(rows)}
            answers[check] |= {"rows": [row for row, _ in rows], "keys": sorted(key for _, key in rows)}
        for name in wanted["unique_columns"]:
            answers[f"uniqueness {name}"] = _repeated(duck, name)
        name, hours = wanted["freshness"]["timestamp_column"], wanted["freshness"]["max_age_hours"]
        latest = EPOCH + timedelta(microseconds=_one(duck, f"SELECT epoch_us(max({name})) FROM t"))
        fresh = datetime.fromisoformat(checks["as_of"]) - latest <= timedelta(hours=hours)
        answers[f"freshness {name}"] = {"passed": fresh, "latest": latest.isoformat()}
        for name, expected in wanted["distribution"].items():
            mean = _one(duck, f"SELECT favg({name}) FROM t")
            near = abs(mean - expected["expected_mean"]) <= expected["tolerance"] * expected["expected_mean"]
            answers[f"distribution {name}"] = {"passed": near, "mean": mean}
    return answers


def _conditions(wanted: dict[str, Any]) -> dict[str, str]:
    """What holds for the failing rows of each check that judges rows one by one."""
    found = {f"completeness {name}": f"{name} IS NULL" for name in wanted["required_columns"]}
    for name, (low, high) in wanted["range_constraints"].items():
        found[f"range {name}"] = f"{name} < {low} OR {name} > {high}"
    for name, allowed in wanted["categorical_constraints"].items():
        found[f"categorical {name}"] = f"{name} NOT IN ({', '.join(repr(word) for word in allowed)})"
    return found


def _repeated(duck: duckdb.DuckDBPyConnection, name: str) -> dict[str, Any]:
    duck.execute(
        f"CREATE OR REPLACE TEMP TABLE repeated AS "
        f"SELECT {name} AS key FROM t WHERE {name} IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
    )
    rows = duck.execute(f"SELECT row FROM t WHERE {name} IN (SELECT key FROM repeated) ORDER BY row").fetchall()
    keys = duck.execute("SELECT key FROM repeated ORDER BY key").fetchall()
    return {
        "passed": not rows,
        "repeating": len(rows) - len(keys),
        "involved": len(rows),
        "rows": [row for (row,) in rows],
        "keys": [key for (key,) in keys],
    }


def _same(name: str, value: Any, right: dict[str, Any]) -> bool:
    if name not in right:
        return False
    if name == "mean":
        return math.isclose(value, right[name], rel_tol=TOLERANCE)
    if name == "latest":
        return datetime.fromisoformat(value) == datetime.fromisoformat(right[name])
    return bool((sorted(value) if name in ("rows", "keys") else value) == right[name])


def _length(value: Any) -> Any:
    return f"{len(value)} of them" if isinstance(value, list) else value


def _one(duck: duckdb.DuckDBPyConnection, sql: str) -> Any:
    row = duck.execute(sql).fetchone()
    assert row is not None
    return row[0]

"""The demo's data: a small software company, with the dirt that real tables have.

All of it follows from ``seed`` and ``now`` alone. The constants say how much dirt of each kind there is; the
tests count it.
"""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl

from engine.demo import pipeline
from engine.demo.server import PORT
from engine.errors import UsageError

USERS = 300
STALE_USERS = 12  # rows with the id of another user and an older updated_at
NAMELESS_USERS = 2  # rows without an id
MISSING_EMAILS = 6
DAYS = 60
EVENTS = 20_000
REPEATED_EVENTS = 40  # sent again, unchanged, in the last file
LATE_EVENTS = 150  # of earlier months, in the last file
FUTURE_EVENTS = 30  # a clock that runs ahead: after now
TIMELESS_EVENTS = 60  # without a timestamp
OWNERLESS_EVENTS = 15  # without a user_id
ABSURD_EVENTS = 8  # completion_time of months
PROJECTS = 40
TEAMS = 24
TASKS = 600
MISSING_ESTIMATES = 48
FUTURE_TASKS = 3  # created after now
PAGE_SIZE = 100  # of the pipeline file; one task ends page 1 and begins page 2
UNKNOWN_MEMBER = "u9999"

_TYPES = ("backend", "frontend", "database", "devops", "testing", "docs")
_NAMES = ("Zoë", "Łukasz", "美咲", "Søren", "أمل", "Олена", "José", "Priya", "Maria", "John")
_SURNAMES = ("Ángeles", "Kowalski", "佐藤", "Ødegård", "حداد", "Шевченко", "García", "Nair", "Rossi", "Smith")
_ODD_PRIORITIES = ("urgent!!", "urgent!!", "urgent!!", "High", " MEDIUM ", "Critical")
_SENTENCES = (
    "Les exports échouent quand un nom contient une apostrophe.",
    "Die Suche übersieht Umlaute in Straßennamen.",
    "検索結果の並び順が毎回変わる。",
    "The nightly job retries for ever when the token has expired 🔁.",
    "Add an index; the report takes 40 s on the largest tenant.",
    "Перенести налаштування до одного файлу.",
)


def build(folder: Path, *, seed: int = 7, now: datetime, port: int = PORT) -> None:
    """Writes ``data/``, ``pipeline.yaml`` and ``pipeline-rest.yaml`` into ``folder``, which must be absent or empty.

    The two pipelines differ in one source: the second reads the tasks from `engine.demo.server`.

    Args:
        folder: created where it is absent.
        seed: another seed, another world.
        now: aware; the world's last 60 days end here. Fractions of a second are cut off.
        port: of the task tracker, written into ``pipeline-rest.yaml``.

    Raises:
        UsageError: the folder holds something already; nothing was written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the folder of the demo is not empty",
            code="demo.not_empty",
            where=str(folder),
            fix="remove it or choose another folder; a demo that is there runs again with `maestro run`",
        )
    now = now.astimezone(UTC).replace(microsecond=0)
    data = folder / "data"
    (data / "activities").mkdir(parents=True)
    _write_users(data / "app.db", _rng("users", seed), now)
    _write_activities(data / "activities", _rng("activities", seed), now)
    _write_projects(data / "projects.parquet", _rng("projects", seed), now)
    _write_teams(data / "teams.csv", _rng("teams", seed))
    _write_tasks(data / "tasks.json", _rng("tasks", seed), now)
    (folder / "pipeline.yaml").write_text(pipeline.from_files(), encoding="utf-8")
    (folder / "pipeline-rest.yaml").write_text(pipeline.from_rest(port), encoding="utf-8")


def _write_users(path: Path, rng: random.Random, now: datetime) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(USERS):
        first, last = rng.choice(_NAMES), rng.choice(_SURNAMES)
        created = now - timedelta(days=rng.randint(90, 2000), seconds=rng.randint(0, 86_399))
        updated = now - timedelta(days=rng.randint(3, 20), seconds=rng.randint(0, 86_399))
        rows.append(
            {
                "id": _user(i),
                "email_address": f"user{i:03d}@example.com",
                "full_name": f"{first} {last}",
                "experience_years": round(min(max(rng.gauss(8, 4), 0.5), 40), 1) if rng.random() > 0.02 else None,
                "availability_hours_per_week": rng.choice([40.0, 40.0, 40.0, 32.0, 20.0, None]),
                "skills": ", ".join(rng.sample([*_TYPES[:5], "Python", "SQL"], rng.randint(1, 4))),
                "status": rng.choices(["active", "inactive", "pending"], [8, 1, 1])[0],
                "created_at": _text(created, rng),
                "updated_at": _text(updated, rng),
            }
        )
    for row in rng.sample(rows[2:], MISSING_EMAILS):
        row["email_address"] = None
    rows[1]["email_address"] = rows[0]["email_address"] = "team.inbox@example.com"
    stale = [
        {**row, "status": "pending", "updated_at": _text(now - timedelta(days=rng.randint(30, 80)), rng)}
        for row in rng.sample(rows, STALE_USERS)
    ]
    nameless = [{**row, "id": None} for row in rng.sample(rows, NAMELESS_USERS)]
    rows += stale + nameless
    rng.shuffle(rows)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE users (id TEXT, email_address TEXT, full_name TEXT, experience_years REAL,"
            " availability_hours_per_week REAL, skills TEXT, status TEXT, created_at TEXT, updated_at TEXT)"
        )
        connection.executemany(
            "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [tuple(r.values()) for r in rows]
        )
    connection.close()


def _write_activities(folder: Path, rng: random.Random, now: datetime) -> None:
    """A file per month of arrival, which is when the event happened, unless it is late or its clock wrong."""
    pace = {_user(i): rng.lognormvariate(0, 0.3) for i in range(USERS)}
    rows: list[dict[str, Any]] = []
    for i in range(EVENTS):
        user = _user(int(rng.expovariate(1 / 90)) % USERS)  # some do much, some little
        happened = now - timedelta(seconds=rng.randint(0, DAYS * 86_400 - 1))
        rows.append(
            {
                "event_id": f"e{i:06d}",
                "user_id": user,
                "timestamp": happened,
                "task_type": rng.choice(_TYPES),
                "completion_time": round(min(5400 * pace[user] * rng.lognormvariate(0, 0.6), 43_200), 1),
                "collaborators": [_user(rng.randrange(USERS)) for _ in range(rng.randint(0, 3))]
                if rng.random() > 0.3
                else None,
                "bugs_introduced": rng.choice([0, 0, 0, 0, 1, 2, None]),
                "arrived": happened,
            }
        )
    this_month = now.replace(day=1, hour=0, minute=0, second=0)
    earlier = [row for row in rows if row["timestamp"] < this_month]
    for row in rng.sample(earlier, LATE_EVENTS):
        row["arrived"] = now
    current = [row for row in rows if row["arrived"] == row["timestamp"]]
    rng.shuffle(current)
    take = _taker(current)
    for row in take(FUTURE_EVENTS):
        row["timestamp"], row["arrived"] = now + timedelta(hours=rng.randint(2, 72)), now
    for row in take(TIMELESS_EVENTS):
        row["timestamp"] = None
    for row in take(OWNERLESS_EVENTS):
        row["user_id"] = None
    for row in take(ABSURD_EVENTS):
        row["completion_time"] = 86_400.0 * rng.randint(90, 400)
    rows += [{**row, "arrived": now} for row in take(REPEATED_EVENTS)]
    moment = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(
        rows,
        schema={
            "event_id": pl.String,
            "user_id": pl.String,
            "timestamp": moment,
            "task_type": pl.String,
            "completion_time": pl.Float64,
            "collaborators": pl.List(pl.String),
            "bugs_introduced": pl.Int64,
            "arrived": moment,
        },
    )
    months = frame.sort("arrived", "event_id").group_by(pl.col("arrived").dt.strftime("%Y-%m"), maintain_order=True)
    for (month,), events in months:
        events.drop("arrived").write_parquet(folder / f"{month}.parquet")


def _write_projects(path: Path, rng: random.Random, now: datetime) -> None:
    rows = []
    for i in range(PROJECTS):
        budget = float(rng.randint(10, 400) * 1000)
        rows.append(
            {
                "project_id": f"P-{i:03d}",
                "team_members": [_user(u) for u in rng.sample(range(USERS), rng.randint(2, 12))],
                "budget": budget,
                "spent": round(budget * rng.uniform(0.05, 1.2), 2),
                "created_at": now - timedelta(days=rng.randint(20, 700)),
            }
        )
    rows[3]["budget"] = None
    rows[4]["budget"] = 0.0
    pl.DataFrame(rows, schema_overrides={"created_at": pl.Datetime("us", "UTC")}).write_parquet(path)


def _write_teams(path: Path, rng: random.Random) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["team_id", "name", "members"])
        for i in range(TEAMS):
            members = [_user(u) for u in rng.sample(range(USERS), rng.randint(3, 9))]
            if i == 1:
                members.append(UNKNOWN_MEMBER)
            table.writerow([f"team-{i:02d}", f"Équipe {rng.choice(_NAMES)}", ", ".join(members)])


def _write_tasks(path: Path, rng: random.Random, now: datetime) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(TASKS):
        created = now - timedelta(days=rng.randint(0, 120), seconds=rng.randint(60, 86_399))
        status = rng.choices(["todo", "in_progress", "blocked", "completed"], [3, 3, 1, 4])[0]
        finished = created + (now - created) * rng.random() if status == "completed" else None
        rows.append(
            {
                "task_id": f"T-{i:04d}",
                "project_id": f"P-{rng.randrange(PROJECTS):03d}",
                "description": " ".join(rng.choices(_SENTENCES, k=rng.randint(1, 12))),
                "priority": rng.choice(["low", "medium", "medium", "high", "critical"]),
                "estimated_hours": round(rng.lognormvariate(2.3, 0.6), 1),
                "required_skills": rng.sample(_TYPES[:5], rng.randint(1, 3)),
                "dependencies": [f"T-{rng.randrange(i):04d}" for _ in range(rng.randint(0, 2))] if i else [],
                "deadline": _text(created + timedelta(days=rng.randint(5, 150)), rng) if rng.random() > 0.1 else None,
                "created_at": _text(created, rng),
                "updated_at": _text(finished or created + (now - created) * rng.random(), rng),
                # A few were closed without a date.
                "completed_at": _text(finished, rng) if finished and rng.random() > 0.05 else None,
                "status": status,
            }
        )
    twice = rows[PAGE_SIZE - 1]
    take = _taker([row for row in rng.sample(rows, TASKS) if row is not twice])
    for row in take(MISSING_ESTIMATES):
        row["estimated_hours"] = None
    for row, priority in zip(take(6), _ODD_PRIORITIES, strict=True):
        row["priority"] = priority
    for row in take(FUTURE_TASKS):
        row |= {"created_at": _text(now + timedelta(days=2), rng), "status": "todo", "completed_at": None}
        row |= {"updated_at": row["created_at"], "deadline": None}
    for row, description in zip(take(2), (None, _SENTENCES[2] * 400), strict=True):
        row["description"] = description
    # A task came in at the top while the pages were read: what ended page 1 heads page 2 as well.
    rows.insert(PAGE_SIZE, twice)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _rng(table: str, seed: int) -> random.Random:
    """A generator for one table: a change to one table leaves the others as they are."""
    return random.Random(f"{table} {seed}")  # noqa: S311 - a demo, not a secret


def _user(number: int) -> str:
    return f"u{number:04d}"


def _text(moment: datetime, rng: random.Random) -> str:
    """A moment as one system or another writes it: with an offset, with Z, or plain (which means UTC)."""
    moment = moment.replace(microsecond=0)
    style = rng.randrange(3)
    if style == 0:
        return moment.astimezone(timezone(timedelta(hours=2))).isoformat()
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if style == 1 else f"{moment:%Y-%m-%d %H:%M:%S}"


def _taker(rows: list[dict[str, Any]]) -> Callable[[int], list[dict[str, Any]]]:
    """A function that hands out rows, each row once: no row gets two kinds of dirt."""
    rest = iter(rows)
    return lambda count: [next(rest) for _ in range(count)]

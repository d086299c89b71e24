# /// script
# dependencies = []
# ///
"""The floor: each stage by hand, in one process, for these views and these as-ofs only.

Tables as the Polars stack reads them; one query counts what breaks the checks; user features are running sums of days
in numpy; Redis gets commands of fixed width, put together as one array. No ledger, no landing, no quarantine, no
deduplication, no report, nothing registered with Feast, no proof. Its seconds by stage are the stages' floors.
"""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import polars as pl
from feast_bytes import entity, field, value, varint
from in_polars import SKILLS, Features, extract, publish_days
from stages import Stages
from views import VIEWS, is_count


def validate(tables: dict[str, pl.DataFrame], last: datetime) -> dict[str, int]:
    found = {}
    for name, wanted in json.loads((Path(__file__).parents[1] / "checks.json").read_text()).items():
        asked = {}
        for c in wanted["required_columns"]:
            asked[f"{c}.completeness"] = (pl.col(c).null_count() > 0.05 * pl.len()).cast(pl.UInt32)
        for c in wanted["unique_columns"]:
            asked[f"{c}.uniqueness"] = pl.len() - pl.col(c).n_unique()
        for c, (low, high) in wanted["range_constraints"].items():
            asked[f"{c}.range"] = (~pl.col(c).is_between(low, high)).sum()
        for c, allowed in wanted["categorical_constraints"].items():
            asked[f"{c}.categorical"] = (~pl.col(c).is_in(allowed)).sum()
        if fresh := wanted.get("freshness"):
            c = fresh["timestamp_column"]
            asked[f"{c}.freshness"] = (pl.col(c).max() < last - timedelta(hours=fresh["max_age_hours"])).cast(pl.UInt32)
        for c, mean in wanted.get("distribution", {}).items():
            asked[f"{c}.distribution"] = ((pl.col(c).mean() / mean - 1).abs() > 0.2).cast(pl.UInt32)
        counts = tables[name].lazy().select(**asked).collect().row(0, named=True)
        found |= {f"{name}.{check}": n for check, n in counts.items() if n}
    return found


class Running(Features):
    """Sums per user that one day after the other is added to; windows are sums of the last days."""

    def __init__(self, tables: dict[str, pl.DataFrame], first: datetime) -> None:
        super().__init__(tables)
        ids = self.users.select("user_id").with_row_index("user")
        day = (pl.col("timestamp") - first).dt.total_microseconds() - 1
        events = self.events.join(ids, on="user_id").select(
            "user",
            (day // 86_400_000_000 + 1).cast(pl.Int32).alias("day"),  # 0: at or before the first as-of
            "completion_time",
            pl.col("bugs_introduced").fill_null(0),
            "alone",
            *((pl.col("task_type") == skill).alias(skill) for skill in SKILLS),
        )
        self.days = {key[0]: part for key, part in events.partition_by("day", as_dict=True, include_key=False).items()}
        self.first = first
        self.seen = np.zeros((11, self.users.height))  # time and count by skill, bugs, company, events
        self.recent: dict[int, tuple] = {}
        self.next = min(*self.days, -29)

    def _add(self, day: int) -> None:
        n = self.users.height
        part = self.days.pop(day, None)
        if part is None:
            self.recent[day] = (np.zeros(n), np.zeros(n), np.zeros(n))
            return
        user, time_ = part["user"].to_numpy(), part["completion_time"].fill_null(0.0).to_numpy()
        timed = part["completion_time"].is_not_null().to_numpy()
        for i, skill in enumerate(SKILLS):
            mine = part[skill].to_numpy() & timed
            self.seen[i] += np.bincount(user[mine], time_[mine], n)
            self.seen[4 + i] += np.bincount(user[mine], minlength=n)
        count = np.bincount(user, minlength=n).astype(float)
        self.seen[8] += np.bincount(user, part["bugs_introduced"].to_numpy(), n)
        self.seen[9] += np.bincount(user, part["alone"].to_numpy(), n)
        self.seen[10] += count
        if day > -30:
            self.recent[day] = (count, np.bincount(user, time_, n), np.bincount(user[timed], minlength=n))

    def user_features(self, at: datetime) -> pl.DataFrame:
        today = (at - self.first).days
        while self.next <= today:
            self._add(self.next)
            self.next += 1
        self.recent.pop(today - 30, None)
        week = [sum(self.recent[d][i] for d in range(today - 6, today + 1)) for i in range(3)]
        month = sum(of[0] for of in self.recent.values())
        users, seen = self.users, self.seen
        hours = users["availability_hours_per_week"].fill_null(40).cast(pl.Float64).to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = [np.where(seen[4 + i] > 0, 1 / (1 + seen[i] / seen[4 + i] / 3600), 0.0) for i in range(4)]
            columns = {f"skill_score_{skill}": score for skill, score in zip(SKILLS, scores, strict=True)}
            columns |= {
                "current_workload_hours": week[0] * 2.0,
                "tasks_completed_7d": week[0].astype(np.int64),
                "tasks_completed_30d": month.astype(np.int64),
                "velocity_tasks_per_week": month * 7 / 30,
                "avg_completion_time_hours": np.where(week[2] > 0, week[1] / week[2] / 3600, 0.0),
                "avg_collaborators": pl.Series(seen[9] / seen[10]).fill_nan(None),
                "bug_rate": np.where(seen[10] > 0, seen[8] / seen[10], 0.0),
                "availability_hours_per_week": hours,
                "current_capacity_percentage": np.where(
                    hours > 0, np.clip(100 * (1 - week[0] * 2.0 / hours), 0, 100), 0
                ),
                "experience_years": users["experience_years"],
            }
        frame = pl.DataFrame({"user_id": users["user_id"], **columns})
        return frame.filter(users["created_at"].is_null() | (users["created_at"] <= at))


def load(redis: str, features: Path, last: datetime) -> None:
    """Commands of one width each: all values of a view are alike, but for its keys and the counts of projects."""
    from redis import Redis

    host, _, password = redis.partition(",password=")
    connection = Redis(*host.split(":"), password=password).connection_pool.get_connection()
    stamp = b"\x08" + varint(int(last.timestamp()))
    for view, (key, _, names) in VIEWS.items():
        frame = pl.read_parquet(features / view / f"{last:%Y-%m-%d}.parquet")
        fields = [field(view, name) for name in names]
        head = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * (len(names) + 1))
        moment = argument(f"_ts:{view}".encode()) + argument(stamp)
        if any(is_count(view, name) for name in names) or frame[key].dtype != pl.String:
            commands = [
                head
                + argument(entity(key, row[0]))
                + moment
                + b"".join(argument(f) + argument(value(v)) for f, v in zip(fields, row[1:], strict=True))
                for row in frame.select(key, *names).iter_rows()
            ]
            send(connection, b"".join(commands), len(commands))
            continue
        ids = np.array(frame[key].to_list(), dtype="S")
        template = entity(key, "?" * ids.dtype.itemsize)
        front, back = (head + argument(template) + moment).split(b"?" * ids.dtype.itemsize)
        layout = [("a", f"V{len(front)}"), ("id", ids.dtype), ("b", f"V{len(back)}")]
        for name, hashed in zip(names, fields, strict=True):
            layout += [(f"{name}:", f"V{len(argument(hashed)) + 5}"), (name, "<f8"), (f"{name};", "V2")]
        rows = np.zeros(frame.height, dtype=layout)
        rows["a"], rows["id"], rows["b"] = np.void(front), ids, np.void(back)
        for name, hashed in zip(names, fields, strict=True):
            rows[f"{name}:"], rows[f"{name};"] = np.void(argument(hashed) + b"$9\r\n\x29"), np.void(b"\r\n")
            rows[name] = frame[name].to_numpy()
        for start in range(0, len(rows), 4_000):
            part = rows[start : start + 4_000]
            send(connection, part.tobytes(), len(part))


def send(connection: object, commands: bytes, count: int) -> None:
    connection.send_packed_command([commands])
    for _ in range(count):
        connection.read_response()


def argument(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def main(config: str, out: str) -> None:
    where, folder = json.loads(Path(config).read_text()), Path(out)
    first, last = (datetime.fromisoformat(where[name]) for name in ("first", "last"))
    stages = Stages()
    tables = extract(where)
    stages.done("extract")
    (folder / "checks.json").write_text(json.dumps(validate(tables, last)))
    stages.done("validate")
    features = Running(tables, first)
    del tables
    publish_days(features, folder / "features", first, last)
    stages.done("features")
    del features
    load(where["redis"], folder / "features", last)
    stages.done("online")
    stages.write(folder)


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

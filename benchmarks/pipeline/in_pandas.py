"""What two contenders have in common: pandera over pandas, filling, scaling, publishing; the features are theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors
from views import VIEWS, is_count

DAY = timedelta(days=1)
PRIORITIES = {"low": 1, "medium": 2, "high": 3, "critical": 4}
SKILLS = ("backend", "frontend", "database", "devops")


def validate(tables: dict[str, pd.DataFrame], last: pd.Timestamp) -> dict[str, int]:
    """Failed rows (or 1) of each check that failed."""
    found = {}
    for name, wanted in json.loads((Path(__file__).parent / "checks.json").read_text()).items():
        found |= judged(name, tables[name], wanted, last)
    return found


def judged(name: str, frame: pd.DataFrame, wanted: dict, last: pd.Timestamp) -> dict[str, int]:
    checks: dict[str, list] = {}
    for column in wanted["required_columns"]:
        few = pa.Check(lambda of: of.isna().mean() <= 0.05, error="completeness", ignore_na=False)
        checks.setdefault(column, []).append(few)
    for column, (low, high) in wanted["range_constraints"].items():
        checks.setdefault(column, []).append(pa.Check.in_range(low, high, error="range"))
    for column, allowed in wanted["categorical_constraints"].items():
        checks.setdefault(column, []).append(pa.Check.isin(allowed, error="categorical"))
    if fresh := wanted.get("freshness"):
        oldest = last - timedelta(hours=fresh["max_age_hours"])
        check = pa.Check(lambda of: of.max() >= oldest, error="freshness")
        checks.setdefault(fresh["timestamp_column"], []).append(check)
    for column, mean in wanted.get("distribution", {}).items():
        check = pa.Check(lambda of, mean=mean: abs(of.mean() / mean - 1) <= 0.2, error="distribution")
        checks.setdefault(column, []).append(check)
    unique = wanted["unique_columns"]
    columns = {
        column: pa.Column(checks=checks.get(column), unique=column in unique, nullable=True)
        for column in {*checks, *unique}
    }
    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except SchemaErrors as errors:
        counted = errors.failure_cases.groupby(["column", "check"]).size()
        return {f"{name}.{column}.{check.split('(')[0]}": int(n) for (column, check), n in counted.items()}
    return {}


def publish_days(
    compute: Callable[[pd.Timestamp], dict[str, pd.DataFrame]], folder: Path, first: pd.Timestamp, last: pd.Timestamp
) -> None:
    """A file for each view and day, filled and scaled as the first day says."""
    fits: dict[str, dict] = {}
    created = pd.Timestamp.now("UTC").as_unit("us")
    for at in pd.date_range(first, last, freq="D").as_unit("us"):
        for view, frame in compute(at).items():
            key, scaled, names = VIEWS[view]
            if view not in fits:
                of = frame[names].astype("float64")
                fits[view] = {name: (of[name].median(), of[name].min(), of[name].max()) for name in names}
            columns = {key: frame[key]}
            for name, (middle, low, high) in fits[view].items():
                if is_count(view, name):
                    columns[name] = frame[name].astype("int64")
                    continue
                values = frame[name].astype("float64").fillna(middle)
                if scaled:
                    values = ((values - low) / (high - low)).clip(0, 1) if high > low else values * 0.0
                columns[name] = values
            rows = pd.DataFrame(columns)
            rows["event_timestamp"], rows["created_timestamp"] = at, created
            path = folder / view / f"{at:%Y-%m-%d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(path, index=False, coerce_timestamps="us")


def elements(column: pd.Series) -> pd.Series:
    """Lists of comma-separated texts."""
    return column.fillna("").str.split(",").map(lambda parts: [p for part in parts if (p := part.strip())])


def task_columns(tasks: pd.DataFrame) -> pd.DataFrame:
    """What of a task does not depend on the as-of; texts that repeat are looked at once."""
    made = tasks.copy()
    made["description_length"] = made["description"].fillna("").str.len()
    made["complexity_score"] = (made["description_length"] / 1000).clip(upper=1.0)
    levels = made["priority"].astype("category")
    made["level"] = levels.map(lambda text: PRIORITIES.get(text.strip().lower(), 2)).astype("int64")
    skills, needs = made["required_skills"].fillna("").astype("category"), made["dependencies"].fillna("")
    for skill in (*SKILLS, "testing"):
        has = skills.cat.categories.map(lambda text, skill=skill: skill in [p.strip().lower() for p in text.split(",")])
        made[f"requires_{skill}"] = np.asarray(has, dtype="int64")[skills.cat.codes]
    needs = needs.astype("category")
    counts = needs.cat.categories.map(lambda text: sum(bool(p.strip()) for p in text.split(",")))
    made["num_dependencies"] = np.asarray(counts, dtype="int64")[needs.cat.codes]
    made["has_blockers"] = (made["num_dependencies"] > 0).astype("int64")
    return made

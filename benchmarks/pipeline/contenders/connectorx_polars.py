# /// script
# dependencies = [
#     "connectorx==0.4.6", "httpx==0.28.1", "polars==2.1.0", "pandera[polars]==0.35.0",
#     "feast[duckdb,redis]==0.67.0", "pyarrow==26.0.1",
# ]
# ///
"""The competent stack: connectorx, Polars' own S3 scan, httpx with eight pages in flight, pandera over Polars, features
in Polars, Feast's materialize.

connectorx returns Arrow; pandera checks LazyFrames with data checks switched on; Feast reads with DuckDB.
https://sfu-db.github.io/connector-x/intro.html, https://pandera.readthedocs.io/en/latest/polars.html
"""

import json
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

os.environ["PANDERA_VALIDATION_DEPTH"] = "SCHEMA_AND_DATA"
sys.path.insert(0, str(Path(__file__).parents[1]))

import pandera.polars as pa
import polars as pl
from in_polars import Features, extract, publish_days
from pandera.errors import SchemaErrors
from stages import Stages
from views import materialize, write_store


def validate(tables: dict[str, pl.DataFrame], last: datetime) -> dict[str, int]:
    """Failed rows (or 1) of each check that failed."""
    found = {}
    for name, wanted in json.loads((Path(__file__).parents[1] / "checks.json").read_text()).items():
        found |= judged(name, tables[name], wanted, last)
    return found


def judged(name: str, frame: pl.DataFrame, wanted: dict, last: datetime) -> dict[str, int]:
    checks: dict[str, list] = {}
    for column in wanted["required_columns"]:
        few = frame.height * 0.05
        checks.setdefault(column, []).append(
            pa.Check(
                lambda rows, few=few: rows.lazyframe.select(pl.col(rows.key).null_count() <= few), error="completeness"
            )
        )
    for column, (low, high) in wanted["range_constraints"].items():
        checks.setdefault(column, []).append(pa.Check.in_range(low, high, error="range"))
    for column, allowed in wanted["categorical_constraints"].items():
        checks.setdefault(column, []).append(pa.Check.isin(allowed, error="categorical"))
    if fresh := wanted.get("freshness"):
        oldest = last - timedelta(hours=fresh["max_age_hours"])
        checks.setdefault(fresh["timestamp_column"], []).append(
            pa.Check(lambda rows: rows.lazyframe.select(pl.col(rows.key).max() >= oldest), error="freshness")
        )
    for column, mean in wanted.get("distribution", {}).items():
        checks.setdefault(column, []).append(
            pa.Check(
                lambda rows, mean=mean: rows.lazyframe.select((pl.col(rows.key).mean() / mean - 1).abs() <= 0.2),
                error="distribution",
            )
        )
    unique = wanted["unique_columns"]
    columns = {
        column: pa.Column(checks=checks.get(column), unique=column in unique, nullable=True)
        for column in {*checks, *unique}
    }
    try:
        pa.DataFrameSchema(columns).validate(frame.lazy(), lazy=True).collect()
    except SchemaErrors as errors:
        cases = errors.failure_cases
        counted = cases.group_by("column", "check").len().rows()
        return {f"{name}.{column}.{check.split('(')[0]}": n for column, check, n in counted}
    return {}


def main(config: str, out: str) -> None:
    where, folder = json.loads(Path(config).read_text()), Path(out)
    first, last = (datetime.fromisoformat(where[name]) for name in ("first", "last"))
    stages = Stages()
    tables = extract(where)
    stages.done("extract")
    (folder / "checks.json").write_text(json.dumps(validate(tables, last)))
    stages.done("validate")
    features = Features(tables)
    del tables
    publish_days(features, folder / "features", first, last)
    stages.done("features")
    del features
    write_store(folder / "repo", where["redis"])
    materialize(folder / "repo", (folder / "features").absolute(), last)
    stages.done("online")
    stages.write(folder)


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

# /// script
# dependencies = ["duckdb==2.0.0"]
# ///
"""Hand-written DuckDB, one query per as-of: ``duckdb_sql.py FOLDER SET COUNT OUT``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))
from days import as_ofs

folder, kind, count, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
connection = duckdb.connect(config={"memory_limit": "512MiB", "temp_directory": str(out / "spill")})
connection.execute("SET TimeZone = 'UTC'")
USER = """
WITH a AS (
  SELECT user_id, count(*) AS n,
    count(*) FILTER (timestamp > t() - INTERVAL 7 DAY) AS n7,
    count(*) FILTER (timestamp > t() - INTERVAL 30 DAY) AS n30,
    avg(completion_time) FILTER (timestamp > t() - INTERVAL 7 DAY) AS mean7,
    avg(CASE WHEN collaborators = '' THEN 0 ELSE len(string_split(collaborators, ',')) END) AS others,
    sum(bugs_introduced) AS bugs,
    avg(completion_time) FILTER (task_type = 'backend') AS backend,
    avg(completion_time) FILTER (task_type = 'frontend') AS frontend,
    avg(completion_time) FILTER (task_type = 'database') AS database,
    avg(completion_time) FILTER (task_type = 'devops') AS devops
  FROM read_parquet('{folder}/activities.parquet') WHERE timestamp <= t() GROUP BY user_id)
SELECT u.user_id, t() AS event_timestamp,
  coalesce(1 / (1 + backend / 3600), 0) AS skill_score_backend,
  coalesce(1 / (1 + frontend / 3600), 0) AS skill_score_frontend,
  coalesce(1 / (1 + database / 3600), 0) AS skill_score_database,
  coalesce(1 / (1 + devops / 3600), 0) AS skill_score_devops,
  2.0::DOUBLE * coalesce(n7, 0) AS current_workload_hours,
  coalesce(n7, 0) AS tasks_completed_7d, coalesce(n30, 0) AS tasks_completed_30d,
  coalesce(n30, 0) * 7 / 30.0::DOUBLE AS velocity_tasks_per_week,
  coalesce(mean7 / 3600, 0) AS avg_completion_time_hours, others AS avg_collaborators,
  coalesce(bugs / n, 0) AS bug_rate, availability_hours_per_week,
  greatest(0, least(100, 100 * (1 - 2.0::DOUBLE * coalesce(n7, 0) / availability_hours_per_week)))
    AS current_capacity_percentage,
  experience_years
FROM read_parquet('{folder}/users.parquet') u LEFT JOIN a USING (user_id) ORDER BY user_id"""
MIXED = """
WITH a AS (
  SELECT user_id, count(DISTINCT task_type) AS types_30d, quantile_cont(completion_time, 0.9) AS p90_30d,
    mode(task_type ORDER BY task_type) AS mode_30d, count(*) AS n_30d, sum(completion_time) AS sum_30d,
    max(completion_time) AS max_30d
  FROM read_parquet('{folder}/activities.parquet')
  WHERE timestamp <= t() AND timestamp > t() - INTERVAL 30 DAY GROUP BY user_id)
SELECT u.user_id, t() AS event_timestamp, coalesce(types_30d, 0)::DOUBLE AS types_30d, p90_30d,
  length(mode_30d)::DOUBLE AS mode_30d, coalesce(n_30d, 0)::DOUBLE AS n_30d, sum_30d, max_30d
FROM read_parquet('{folder}/users.parquet') u LEFT JOIN a USING (user_id) ORDER BY user_id"""
query = (USER if kind == "user" else MIXED).replace("{folder}", str(folder))
for i, moment in enumerate(as_ofs(count)):
    connection.execute(f"CREATE OR REPLACE TEMP MACRO t() AS TIMESTAMPTZ '{moment.isoformat()}'")
    connection.execute(f"COPY ({query}) TO '{out / f'{i}.parquet'}' (FORMAT parquet, COMPRESSION zstd)")
print("inside", time.monotonic() - begun)

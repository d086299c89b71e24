"""The commented pipeline that ``maestro init`` writes."""

from __future__ import annotations

from pathlib import Path

from engine.errors import UsageError

_TEXT = """\
# A maestro pipeline. `maestro check` finds mistakes, `maestro plan` shows what would happen, `maestro run` does it.
# Editors complete the keys with the schema of `maestro schema`. ${NAME} takes an environment variable.
version: 1
name: my_pipeline
workdir: ./.maestro              # ledger, landed data, fits; relative paths are relative to this file

sources:                         # what is read; the names are yours
  users:
    type: file                   # file | database | s3 | api
    path: data/users.csv         # parquet, csv, ndjson or json; * stands for any name
    critical_columns: [user_id]  # rows with a null here do not go on; they are counted
    deduplicate: {keys: [user_id]}            # the last row per key stays; order_by: COLUMN says which is last
    # column_mapping: {id: user_id}           # old name: new name; applied first
  activities:
    type: file
    path: data/activities/*.parquet
  # orders:
  #   type: database
  #   connection_string: ${APP_DB_URL}        # sqlite:///app.db, postgresql://user:password@host/db, mysql://…
  #   table: orders                           # or query: SELECT …
  # tickets:
  #   type: api
  #   url: https://tracker.example.com/tickets
  #   headers: {Authorization: "Bearer ${API_TOKEN}"}
  #   data_key: tickets                       # where the records are; null: the body itself
  #   pagination: {style: page, param: page, size_param: per_page, size: 1000}
  # events: {type: s3, bucket: lake, key: raw/events.parquet, access_key: "${S3_KEY}", secret_key: "${S3_SECRET}"}

validation:                      # what must hold; an ERROR keeps everything published as it was
  users:
    schema: {user_id: string, experience_years: float}
    required_columns: [user_id]  # no more than max_null_percentage of nulls (a fraction; 0.05 by default)
    unique_columns: [user_id]
    range_constraints: {experience_years: [0, 60]}
    # categorical_constraints: {status: [active, inactive]}
    # freshness: {timestamp_column: updated_at, max_age_hours: 24}
    # distribution: {experience_years: 8.0}
    # severity: {range: error}   # error | warning | info, per family or family.column
  activities:
    required_columns: [user_id, timestamp]

features:                        # the built-in sets: user_features, task_features, project_features, team_features
  user_features:
    aggregation_window: 7d
    handle_missing: impute       # impute | zero | drop | keep
    normalize: true              # min-max to [0, 1], with a fit that later runs keep

output: {path: ./features}       # <path>/<view>/event_date=YYYY-MM-DD/part-<as-of>.parquet
# feast: {repo: ./feature_repo, project: my_project}     # registers the views and loads the online store
"""


def write_starter(path: Path) -> Path:
    """Writes the starter pipeline to ``path``; never over a file.

    Raises:
        UsageError: the file exists, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEXT)
    except OSError as error:
        if path.exists():
            raise UsageError(
                f"{path} is there already", code="init.exists", where=str(path), fix="name another file"
            ) from None
        raise UsageError(
            f"cannot write {path}: {error.strerror}",
            code="init.unwritable",
            where=str(path),
            fix="name another folder",
        ) from None
    return path

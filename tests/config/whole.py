"""A whole pipeline file to plant mistakes in."""

from __future__ import annotations

SECRETS = {
    "APP_DB_URL": "postgresql://app:hunter2secret@db.example.com/app",
    "API_TOKEN": "token-0123456789",
    "S3_URL": "http://127.0.0.1:9000",
    "S3_KEY": "accesskey",
    "S3_SECRET": "secretkey-abcdef",
}

PIPELINE = """\
version: 1
name: work_tracking
workdir: ./.maestro
sources:
  users:
    type: database
    connection_string: ${APP_DB_URL}
    table: users
    column_mapping: {id: user_id, email_address: email}
    required_columns: [user_id, email]
    critical_columns: [user_id]
    deduplicate: {keys: [user_id], order_by: updated_at}
    batch_size: 50000
    max_retries: 3
    timeout_seconds: 300
  activities:
    type: file
    path: data/activities/*.parquet
  tasks:
    type: api
    url: https://tracker.example.com/tasks
    headers: {Authorization: "Bearer ${API_TOKEN}"}
    params: {state: all}
    data_key: tasks
    pagination: {style: page, param: page, size_param: per_page, size: 1000}
    deduplicate: {keys: [task_id]}
  projects: {type: s3, bucket: lake, key: raw/projects.parquet, endpoint_url: "${S3_URL}", access_key: "${S3_KEY}", secret_key: "${S3_SECRET}"}
  teams: {type: file, path: data/teams.csv}
validation:
  users:
    schema: {user_id: string, email: string, experience_years: float}
    required_columns: [user_id, email]
    max_null_percentage: 0.05
    unique_columns: [user_id, email, [user_id, email]]
    range_constraints: {experience_years: [0, 60], updated_at: ["2020-01-01", null]}
    categorical_constraints: {status: [active, inactive, pending]}
    freshness: {timestamp_column: updated_at, max_age_hours: 24}
    distribution: {experience_years: 8.0, hours: {expected_mean: 8.0, tolerance: 0.3}}
    severity: {range: error, range.experience_years: warning}
features:
  user_features:
    set: user
    aggregation_window: 7d
    handle_missing: impute
    normalize: true
    min_data_points: 0
    features: [skill_score_backend, tasks_completed_7d]
    sources: {users: users, activities: activities}
  task_features: {}
  project_features: {normalize: false}
  team_features: {}
output: {path: ./features}
feast: {repo: ./feature_repo, project: work_tracking, online_store: {type: sqlite}, materialize: true}
"""

"""The demo's pipeline, with what the world's dirt makes of each check; its tasks from a file or over REST."""

from __future__ import annotations

from engine.demo.server import HOST, TOKEN

_HEAD = """\
# The demo's pipeline: open it, change it, run it again.
#   maestro run pipeline.yaml    or `maestro plan pipeline.yaml`, to see first what a run would do
"""
_TASKS = """\
  tasks:                                # pipeline-rest.yaml reads the same ones from the REST server
    type: file
    path: data/tasks.json
    deduplicate: {keys: [task_id]}      # one task stands there twice
"""
_REST_HEAD = """\
# What `maestro demo` ran: pipeline.yaml with the tasks read from the demo's REST server, which must be up.
#   maestro demo --serve              in a second terminal
#   maestro run pipeline-rest.yaml
"""
_REST_TASKS = """\
  tasks:
    type: api
    url: http://@HOST@:@PORT@/tasks
    headers: {Authorization: Bearer @TOKEN@}            # keep a real one outside: Bearer ${TRACKER_TOKEN}
    data_key: tasks
    pagination: {style: page, param: page, size_param: per_page, size: 100}
    max_retries: 3                      # the server is busy twice (429, 503)
    deduplicate: {keys: [task_id]}      # one task stands on two pages
"""
_TEXT = """\
@HEAD@version: 1
name: work_tracking
workdir: ./.maestro                     # ledger, landed data, fits; paths are relative to this file

sources:
  users:
    type: database
    connection_string: sqlite:///data/app.db
    table: users
    column_mapping: {id: user_id, email_address: email}     # applied first: all else uses the new names
    critical_columns: [user_id]         # rows without one do not go on, and are counted
    deduplicate: {keys: [user_id], order_by: updated_at}    # the newest row of each user stays
  activities:
    type: file
    path: data/activities/*.parquet     # a file per month of arrival; some events come late, some twice
    critical_columns: [user_id]
    deduplicate: {keys: [event_id]}
@TASKS@  projects: {type: file, path: data/projects.parquet}
  teams: {type: file, path: data/teams.csv}

validation:                             # all that fails here is a WARNING; an ERROR would publish nothing
  users:
    schema: {user_id: string, email: string, experience_years: float, created_at: datetime}
    required_columns: [user_id, email]  # created_at is text in SQLite: WARNING
    max_null_percentage: 0.05           # a fraction: 2 % of the addresses are missing, which passes
    unique_columns: [user_id, email]    # two people share an address: WARNING
    range_constraints: {experience_years: [0, 60], availability_hours_per_week: [0, 80]}
    categorical_constraints: {status: [active, inactive, pending]}
    freshness: {timestamp_column: updated_at, max_age_hours: 24}    # three days old: WARNING
    distribution: {experience_years: 8.0}                   # its mean, within 20 %
    severity: {uniqueness.email: warning}                   # an error by default
  activities:
    schema: {event_id: string, timestamp: datetime, completion_time: float, collaborators: list}
    required_columns: [event_id, user_id, timestamp]
    unique_columns: [event_id]
    range_constraints: {completion_time: [0, 86400]}        # clocks that ran for months: WARNING
    categorical_constraints: {task_type: [backend, frontend, database, devops, testing, docs]}
    freshness: {timestamp_column: timestamp}
  tasks:
    required_columns: [task_id, estimated_hours]            # 8 % have no estimate: WARNING
    unique_columns: [task_id]
    categorical_constraints: {priority: [low, medium, high, critical]}  # "urgent!!", "High": WARNING
    distribution: {estimated_hours: 8.0}                    # estimates have grown by half: WARNING
    severity: {categorical: warning, completeness.estimated_hours: warning}

features:                               # these names imply the built-in sets
  user_features: {aggregation_window: 7d, handle_missing: impute, normalize: true}
  task_features: {handle_missing: impute, normalize: false}
  project_features: {handle_missing: keep, normalize: false}
  team_features: {handle_missing: keep, normalize: false}

output: {path: ./features}              # <path>/<view>/event_date=YYYY-MM-DD/part-<as-of>.parquet
feast: {repo: ./feature_repo, project: work_tracking, online_store: {type: sqlite}, materialize: true}
"""


def from_files() -> str:
    """The pipeline over the demo's files alone: runs whenever it is asked to."""
    return _TEXT.replace("@HEAD@", _HEAD).replace("@TASKS@", _TASKS)


def from_rest(port: int) -> str:
    """The same pipeline with the tasks from the REST server on ``port``."""
    text = _TEXT.replace("@HEAD@", _REST_HEAD).replace("@TASKS@", _REST_TASKS)
    return text.replace("@HOST@", HOST).replace("@PORT@", str(port)).replace("@TOKEN@", TOKEN)

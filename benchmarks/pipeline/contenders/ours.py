# /// script
# dependencies = []
# ///
"""This engine's command, from this checkout's environment: one pipeline file, `maestro backfill`, all guards on.

Ledger, landing zone, quarantine of rows without keys, deduplication, reports and the proof through Feast are its
defaults; only the profile of each table is left out (`profile: false`), for nobody else makes one.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def pipeline(where: dict) -> dict:
    database = {"type": "database", "connection_string": "${DATABASE_URL}"}
    keys = {"endpoint_url": "${ENDPOINT_URL}", "access_key": "${ACCESS_KEY}", "secret_key": "${SECRET_KEY}"}
    pages = {"style": "page", "size": where["page"]}
    checks = json.loads((Path(__file__).parents[1] / "checks.json").read_text())
    return {
        "version": 1,
        "name": "work",
        "profile": False,
        "sources": {
            **{table: {**database, "table": table} for table in ("users", "projects", "teams")},
            "activities": {"type": "s3", "bucket": where["bucket"], "key": "activities/*.parquet", **keys},
            "tasks": {"type": "api", "url": where["tasks"], "pagination": pages},
        },
        "validation": checks,
        "features": {
            "user_features": {"handle_missing": "impute", "normalize": True},
            "task_features": {"handle_missing": "impute", "normalize": True},
            "project_features": {"handle_missing": "impute", "normalize": False},
            "team_features": {"handle_missing": "impute", "normalize": True},
        },
        "feast": {"repo": "./repo", "project": "work"},
    }


def main(config: str, out: str) -> None:
    from views import write_store

    from engine.cli import entry

    where, folder = json.loads(Path(config).read_text()), Path(out)
    write_store(folder / "repo", where["redis"])
    (folder / "pipeline.yaml").write_text(json.dumps(pipeline(where)))
    days = ["--start", where["first"], "--end", where["last"]]
    sys.argv = ["maestro", "backfill", str(folder / "pipeline.yaml"), *days, "--quiet"]
    entry()


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:3])
    import engine.backfilling  # noqa: F401 - what a backfill imports, for the start-up time

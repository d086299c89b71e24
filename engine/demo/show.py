"""What ``maestro demo`` does: build the world, run its pipeline, look one user up online."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from engine.plan import Plan
    from engine.progress import Progress

_USER = "u0007"
_VIEW = "user_features"


def run_demo(folder: Path, *, progress: Progress | None = None, quiet: bool = False) -> int:
    """Builds the demo in ``folder``, runs it and shows what came of it; gives the run's exit code.

    A demo that is there already runs again, at this moment, with its data and its pipeline as they are.

    Raises:
        UsageError: the folder holds something else already.
        MaestroError: as `engine.run.execute`; MissingExtra where Feast is not installed.
    """
    from engine.config import load_pipeline
    from engine.demo import server, world
    from engine.plan import compile_plan
    from engine.report import show_run
    from engine.run import execute

    if not _is_demo(folder):
        world.build(folder, now=datetime.now(UTC), port=server.free_port())
    elif not quiet:
        sys.stdout.write(f"{folder} is there: running it again (remove it to begin with a new world)\n")
    port = _port(folder)
    plan = compile_plan(load_pipeline(folder / "pipeline-rest.yaml"))
    with server.serve(folder / "data" / "tasks.json", port):
        report = execute(plan, progress=progress)
    if not quiet:
        show_run(report, plan)
        sys.stdout.write(_look_up(plan, folder))
    return report.exit_code


def serve_demo(folder: Path) -> int:
    """Serves the tasks of a demo again, on the port its pipeline file names, until interrupted.

    Raises:
        ConfigError: the folder's pipeline file is absent or wrong.
    """
    from engine.demo import server

    return server.main([str(folder / "data" / "tasks.json"), "--port", str(_port(folder))])


def _is_demo(folder: Path) -> bool:
    return (folder / "pipeline-rest.yaml").exists() and (folder / "data" / "tasks.json").exists()


def _port(folder: Path) -> int:
    """The port that the demo's pipeline file names."""
    from engine.config import load_pipeline
    from engine.demo import server
    from engine.spec import ApiSpec

    tasks = load_pipeline(folder / "pipeline-rest.yaml").sources.get("tasks")
    return (urlsplit(tasks.url).port if isinstance(tasks, ApiSpec) else None) or server.PORT


def _look_up(plan: Plan, folder: Path) -> str:
    """One user's features: as published, and as Feast's online store gives them; then what to do next."""
    import polars as pl

    from engine.sinks.feast import FeatureRepo

    assert plan.feast is not None and plan.feast_repo is not None  # noqa: S101, PT018 - the demo declares it
    repo = FeatureRepo(plan.feast_repo, plan.feast.project, plan.pipeline)
    [online] = repo.online(_VIEW, [_USER])
    published = pl.scan_parquet(Path(str(plan.output)) / _VIEW, hive_partitioning=False)
    rows = published.filter(pl.col("user_id") == _USER).sort("event_timestamp").collect()
    offline = rows.row(-1, named=True)
    width = max(map(len, online))
    lines = [f"{name:<{width}}  {_cell(offline[name]):>12}  {_cell(online[name]):>12}" for name in online]
    pipeline = folder / "pipeline.yaml"
    return "\n".join(
        [
            "",
            f"{_VIEW} of {_USER}, scaled to [0, 1]: newest published row, and from FeatureStore.get_online_features",
            f"{'':<{width}}  {'offline':>12}  {'online':>12}",
            *lines,
            "",
            "The same look-up in Python:",
            "  from feast import FeatureStore",
            f"  store = FeatureStore({str(folder / 'feature_repo')!r})",
            f"  features = [{_VIEW + ':tasks_completed_7d'!r}]",
            f"  store.get_online_features(features, entity_rows=[{{'user_id': {_USER!r}}}]).to_dict()",
            "",
            f"Read the report in a browser: {_command()} report {pipeline} --serve",
            f"Open {pipeline}, change it, and run it again: {_command()} run {pipeline}",
            "",
        ]
    )


def _command() -> str:
    """How this very command is called: by name where it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    if shutil.which("maestro") or called.name != "maestro":
        return "maestro"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

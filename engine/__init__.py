"""maestro-engine: one declared pipeline from sources to a feature store.

``Pipeline(...)`` or ``load_pipeline(path)`` declare it, ``compile_plan`` says what it would do, ``run_pipeline``
does it; ``backfill`` does it for every moment of a range, ``published_frames`` and ``scan_published`` give its rows,
``training_set`` joins them to rows of yours. ``Suite({…}).validate(frame)`` only checks a table, ``profile_of(frame)``
says what it looks like, and ``drift_of(before, now)`` how far it has moved. The seed's smaller calls are in
`engine.ingestion`, `engine.validation` and `engine.features`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.backfilling import backfill, published_frames, scan_published
    from engine.checks import Report, Suite
    from engine.config import load_pipeline
    from engine.drift import drift_of
    from engine.errors import MaestroError
    from engine.outcome import RunReport
    from engine.plan import Plan, compile_plan
    from engine.profile import Profile, profile_of
    from engine.run import run_pipeline
    from engine.spec import Pipeline
    from engine.training import training_set

__all__ = [
    "MaestroError",
    "Pipeline",
    "Plan",
    "Profile",
    "Report",
    "RunReport",
    "Suite",
    "backfill",
    "compile_plan",
    "drift_of",
    "load_pipeline",
    "profile_of",
    "published_frames",
    "run_pipeline",
    "scan_published",
    "training_set",
]
__version__ = "0.1.0"

_HOMES = {
    "MaestroError": ("engine.errors", "MaestroError"),
    "Pipeline": ("engine.spec", "Pipeline"),
    "Plan": ("engine.plan", "Plan"),
    "Profile": ("engine.profile", "Profile"),
    "Report": ("engine.checks", "Report"),
    "Suite": ("engine.checks", "Suite"),
    "RunReport": ("engine.outcome", "RunReport"),
    "load_pipeline": ("engine.config", "load_pipeline"),
    "compile_plan": ("engine.plan", "compile_plan"),
    "drift_of": ("engine.drift", "drift_of"),
    "profile_of": ("engine.profile", "profile_of"),
    "run_pipeline": ("engine.run", "run_pipeline"),
    "backfill": ("engine.backfilling", "backfill"),
    "published_frames": ("engine.backfilling", "published_frames"),
    "scan_published": ("engine.backfilling", "scan_published"),
    "training_set": ("engine.training", "training_set"),
}


def __getattr__(name: str) -> Any:
    # Loaded at first use: `maestro --help` and a config error answer without Polars, DuckDB or Feast.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)

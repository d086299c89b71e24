"""The seed's library calls: features of frames, with no pipeline around them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import ConfigError, DataError, UsageError, did_you_mean
from engine.features.compute import compute
from engine.features.declared import declared
from engine.features.definition import FeatureView, Settings
from engine.features.fit import NOT_FEATURES, Missing, apply, feature_columns, learn
from engine.features.inputs import Inputs
from engine.features.sets import view_of
from engine.frames import like, to_lazy
from engine.spec import SETS, ViewSpec, view_spec
from engine.types import DEFAULT_MEMORY_LIMIT, Duration, parse_moment, size_of

log = logging.getLogger(__name__)

_KINDS: Mapping[str, tuple[type, ...]] = {
    "aggregation_window": (str,),
    "min_data_points": (int,),
    "handle_missing": (str,),
    "normalize": (bool,),
    "hours_per_activity": (int, float),
    "default_availability_hours": (int, float),
}
_MISSING = ("impute", "zero", "drop", "keep")


@dataclass(frozen=True)
class FeatureExtractionConfig:
    """How features are extracted.

    Attributes:
        feature_definitions: declared views by name: as under ``features`` of a pipeline file, or as `ViewSpec`.
        aggregation_window: a duration such as ``7d``.
        min_data_points: a user with fewer activities gets null for what rests on the history.
        handle_missing: ``impute``, ``zero``, ``drop`` or ``keep``; see `FeatureExtractor.handle_missing_values`.
        normalize: whether `FeatureExtractor.normalize_features` scales.
        hours_per_activity: hours of work one activity stands for.
        default_availability_hours: hours a week of a user whose own are not known.

    Raises:
        UsageError: a value is not among those allowed.
        ConfigError: a definition is wrong.
    """

    feature_definitions: Mapping[str, Any] = field(default_factory=dict)
    aggregation_window: str = "7d"
    min_data_points: int = 0
    handle_missing: Missing = "impute"
    normalize: bool = True
    hours_per_activity: float = 2.0
    default_availability_hours: float = 40.0

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise UsageError(
                    f"{name}: {value!r} is of type {type(value).__name__}",
                    code="features.setting",
                    allowed=" or ".join(kind.__name__ for kind in kinds),
                    fix=f"give {name} a value of this type",
                )
        Duration(self.aggregation_window)
        for name, definition in self.feature_definitions.items():
            view_spec(name, definition)
        if self.handle_missing not in _MISSING:
            raise UsageError(
                f"handle_missing: {self.handle_missing!r} is not an allowed value",
                code="features.handle_missing",
                allowed=", ".join(_MISSING),
                fix=did_you_mean(str(self.handle_missing), _MISSING, "use one of the values above"),
            )
        if self.min_data_points < 0:
            raise UsageError(
                "min_data_points is negative",
                code="features.min_data_points",
                allowed="0 or more",
                fix="use 0 for no minimum",
            )

    @property
    def settings(self) -> Settings:
        return Settings(
            Duration(self.aggregation_window),
            self.min_data_points,
            self.hours_per_activity,
            self.default_availability_hours,
        )


class FeatureExtractor:
    """Features of users, tasks, projects and teams from frames.

    Each ``extract_`` call gives raw features, nothing filled or scaled: the entity's key as given,
    ``event_timestamp`` (the as-of, Datetime us UTC) and the features of the set, one row per entity that exists at
    the as-of, ordered by key. Frames may be polars (eager or lazy), pyarrow or pandas; the same kind comes out.

    ``as_of`` is an ISO text, a date or a datetime (UTC unless it carries a zone); None is now. No fact with a later
    timestamp counts.

    Raises:
        DataError: a needed column is absent, a value cannot be read as its kind, or an entity key stands twice.
    """

    def __init__(self, config: FeatureExtractionConfig | None = None) -> None:
        self.config = config or FeatureExtractionConfig()

    def extract_user_features(self, users: Any, activities: Any, as_of: str | date | datetime | None = None) -> Any:
        """The user set. ``users``: user_id …; ``activities``: user_id, timestamp, task_type, completion_time (s) …"""
        return self._extract("user", {"users": users, "activities": activities}, as_of)

    def extract_task_features(self, tasks: Any, as_of: str | date | datetime | None = None) -> Any:
        """The task set. ``tasks``: task_id …"""
        return self._extract("task", {"tasks": tasks}, as_of)

    def extract_project_features(self, projects: Any, tasks: Any, as_of: str | date | datetime | None = None) -> Any:
        """The project set. ``projects``: project_id …; ``tasks``: project_id, status …"""
        return self._extract("project", {"projects": projects, "tasks": tasks}, as_of)

    def extract_team_features(
        self, teams: Any, users: Any, activities: Any = None, as_of: str | date | datetime | None = None
    ) -> Any:
        """The team set. ``teams``: team_id, members; ``users``: user_id, skills …

        Without ``activities``, a ``current_workload_hours`` column of ``users`` serves, and collaboration is null.
        """
        tables = {"teams": teams, "users": users}
        if activities is not None:
            tables["activities"] = activities
        return self._extract("team", tables, as_of)

    def extract(
        self,
        view: str | ViewSpec | Mapping[str, Any],
        frames: Mapping[str, Any],
        as_of: str | date | datetime | None = None,
    ) -> Any:
        """The features of a declared view, of the kind of the first frame.

        Args:
            view: a name among the config's ``feature_definitions``, or a declaration as ``features`` of a pipeline has.
            frames: by the names of the sources that the declaration mentions.

        Raises:
            ConfigError: the declaration is wrong.
            UsageError: no definition has this name, or a frame is missing.
        """
        return self._compute(*self._declared(view, frames), as_of)

    def extract_many(
        self,
        view: str | ViewSpec | Mapping[str, Any],
        frames: Mapping[str, Any],
        as_ofs: Iterable[str | date | datetime],
    ) -> Iterator[tuple[datetime, Any]]:
        """Each as-of, earliest first, and its features, as `extract` gives them; events are scanned once for all.

        Args:
            view: as for `extract`, or ``user``, ``task``, ``project``, ``team``: the built-in set.
            frames: by source; of a built-in set by role, such as ``users`` and ``activities``.
        """
        moments = sorted({parse_moment(as_of) for as_of in as_ofs})
        if isinstance(view, str) and view in SETS and view not in self.config.feature_definitions:
            found, tables = view_of(view, self.config.settings, frozenset({"activities"} - set(frames))), frames
        else:
            found, tables = self._declared(view, frames)
        if not moments:
            return
        from engine.features.history import History

        budget = size_of(DEFAULT_MEMORY_LIMIT) // 2
        with _opened(found, tables) as (inputs, folder):
            for moment, table in History(inputs, inputs.view, moments, folder=folder, budget=budget):
                yield moment, _as_given(found, table, tables)

    def _declared(
        self, view: str | ViewSpec | Mapping[str, Any], frames: Mapping[str, Any]
    ) -> tuple[FeatureView, Mapping[str, Any]]:
        """A declared view, and the frame of each of its roles."""
        spec, name = (view, "view") if not isinstance(view, str) else (self._definition(view), view)
        found = declared(name, view_spec(name, spec), {source: {} for source in frames})
        if found.view is None:
            raise ConfigError([replace(p, path=("features", name, *p.path)) for p in found.problems])
        return found.view, {role: frames[source] for role, source in found.sources.items()}

    def _keys(self, more: Collection[str]) -> frozenset[str]:
        """The columns that are no features."""
        own = [view_spec(name, d).entity or {} for name, d in self.config.feature_definitions.items()]
        return NOT_FEATURES.union(more, *own)

    def _definition(self, name: str) -> Any:
        known = self.config.feature_definitions
        if name not in known:
            raise UsageError(
                f"there is no definition {name!r}",
                code="features.definitions",
                allowed=", ".join(known) or "none is given: FeatureExtractionConfig(feature_definitions={…})",
                fix=did_you_mean(name, known, "use one of the names above, or give the declaration itself"),
            )
        return known[name]

    def handle_missing_values(self, features: Any, *, keys: Collection[str] = ()) -> Any:
        """``features`` with nulls (and NaN) handled as the config says, fitted on this frame.

        impute: the median of a numeric column, the mode of a text (ties: the smallest); an all-null column stays
        null. zero: 0, an empty text, false. drop: rows with any null feature leave. keep: nulls stay. Keys and
        timestamps are never touched: those of the sets, of the config's definitions, and ``keys``.
        """
        frame = to_lazy(features)
        columns = feature_columns(frame.collect_schema(), self._keys(keys))
        fit = learn(frame, columns, handle_missing=self.config.handle_missing, normalize=False)
        filled, applied = apply(frame, fit, columns)
        if applied.dropped:
            log.info("dropped %d of %d rows with a null feature", applied.dropped, applied.rows)
        if applied.all_null:
            log.warning("all values are null, nothing to impute from: %s", ", ".join(applied.all_null))
        return like(filled.collect(engine="in-memory"), features)

    def normalize_features(self, features: Any, *, keys: Collection[str] = ()) -> Any:
        """``features`` with every numeric feature scaled to [0, 1] by this frame's smallest and largest value.

        A constant column becomes 0.0, ±inf and NaN become null, nulls stay; keys as for `handle_missing_values`. With
        ``normalize=False`` in the config the values stay as they are.
        """
        if not self.config.normalize:
            return features
        frame = to_lazy(features)
        columns = feature_columns(frame.collect_schema(), self._keys(keys))
        fit = learn(frame, columns, handle_missing="keep", normalize=True)
        scaled, _ = apply(frame, fit, columns)
        return like(scaled.collect(engine="in-memory"), features)

    def _extract(self, name: str, tables: Mapping[str, Any], as_of: str | date | datetime | None) -> Any:
        absent = frozenset({"activities"} - set(tables))
        return self._compute(view_of(name, self.config.settings, absent), tables, as_of)

    def _compute(self, view: FeatureView, tables: Mapping[str, Any], as_of: str | date | datetime | None) -> Any:
        moment = parse_moment(as_of if as_of is not None else "now")
        with _opened(view, tables) as (inputs, _):
            table = compute(inputs, inputs.view, moment)
        return _as_given(view, table, tables)


@contextmanager
def _opened(view: FeatureView, tables: Mapping[str, Any]) -> Iterator[tuple[Inputs, Path]]:
    """The session over frames, and a folder that lasts as long."""
    with tempfile.TemporaryDirectory(prefix="maestro-") as folder:
        given = {role: _table(table, Path(folder) / f"{role}.parquet") for role, table in tables.items()}
        with Inputs(view, given, spill=Path(folder) / "spill") as inputs:
            yield inputs, Path(folder) / "history"


def _as_given(view: FeatureView, table: pa.Table, tables: Mapping[str, Any]) -> Any:
    """Features as the kind of frame, and with the types of keys, that came in."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a series
    known_by = view.role(view.known_by.role) if view.known_by else view.entity
    frame = _with_source_keys(frame, dict(zip(view.keys, known_by.keys, strict=True)), tables[known_by.name])
    return like(frame, next(iter(tables.values())))


def _table(data: Any, path: Path) -> Any:
    """A frame as DuckDB takes it: Arrow for what is in memory, a Parquet file for what is lazy."""
    frame = to_lazy(data)
    # DuckDB would round nanoseconds; the engine's moments are floored to microseconds.
    frame = frame.with_columns(
        pl.col(name).dt.cast_time_unit("us")
        for name, dtype in frame.collect_schema().items()
        if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns"
    )
    if isinstance(data, pl.LazyFrame):
        frame.sink_parquet(path)
        return [path]
    try:
        return frame.collect(engine="in-memory").to_arrow()
    except pa.ArrowException as error:
        raise DataError(
            f"a column cannot be read: {error}",
            code="data.unreadable",
            fix="cast it to a 64-bit integer, a float, a text or a list of these",
        ) from None


def _with_source_keys(frame: pl.DataFrame, keys: Mapping[str, str], original: Any) -> pl.DataFrame:
    """The key columns with the very types they came in (Arrow has more types than DuckDB)."""
    schema = to_lazy(original).collect_schema()
    return frame.with_columns(
        pl.col(name).cast(schema[own]) for name, own in keys.items() if frame.schema[name] != schema[own]
    )

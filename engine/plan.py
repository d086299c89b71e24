"""The plan: what a run will read, check, compute and write, decided before anything is touched.

`compile_plan` turns a pipeline and its as-ofs into one frozen object. ``maestro plan`` prints it and ``maestro run``
executes it; nothing is decided twice. Compiling loads none of the heavy engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from engine.checks import Suite
from engine.errors import ConfigError, Problem, UsageError, did_you_mean, nearest
from engine.features.definition import FeatureView, Role, Settings
from engine.features.sets import roles_of, view_of
from engine.features.ways import MANY, spilled, ways
from engine.objects import Objects
from engine.sinks.paths import part_path
from engine.spec import (
    SETS,
    AlertSpec,
    AnySource,
    FeastSpec,
    IncrementalSpec,
    Pipeline,
    SecretStr,
    ViewSpec,
    location_of,
    transforms,
)
from engine.spec.plugins import BUILT_IN
from engine.spec.rules import unknown
from engine.start import Start, Subject
from engine.types import Duration, iso, parse_moment

# Keys that say how a source is reached, not what is read.
_NOT_OF_THE_TABLE = {
    *("connection_string", "headers", "params", "access_key", "secret_key", "endpoint_url", "url"),
    *("auth", "budget", "max_body", "since_param"),
    *("batch_size", "max_retries", "timeout_seconds", "lateness", "deletes", "consistent", "required_columns"),
    "contract",  # but for the types that it declares
    *("storage_options", "untrusted", "limits", "pii", "profile"),
}


@dataclass(frozen=True)
class SourcePlan:
    """A source to read: its name, where it lies (never a secret), its declaration, whether runs keep its profile."""

    name: str
    location: str
    spec: AnySource
    profile: bool = True

    @property
    def mode(self) -> str:
        """``full``, ``append`` or ``merge``."""
        return getattr(self.spec, "effective_mode", "full")

    @property
    def fingerprint(self) -> str:
        """Of all in the declaration that shapes the landed table: only under the same can it be added to."""
        parts = self.spec.model_dump(mode="json", exclude=_NOT_OF_THE_TABLE)
        # The database, but not its host: that may move.
        if self.spec.contract and self.spec.contract.columns:
            parts["contract"] = {name: c.model_dump(mode="json") for name, c in self.spec.contract.columns.items()}
        parts |= {"database": self.location.split("://")[-1].partition("/")[2], "mode": self.mode}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "name": self.name,
            "type": spec.type,
            "location": self.location,
            "mode": self.mode,
            "cursor": spec.cursor if isinstance(spec, IncrementalSpec) else None,
            "column_mapping": dict(spec.column_mapping),
            "required_columns": list(spec.required_columns),
            "critical_columns": list(spec.critical_columns),
            "deduplicate": spec.deduplicate.model_dump(mode="json") if spec.deduplicate else None,
            "contract": spec.contract.model_dump(mode="json") if spec.contract else None,
        }


@dataclass(frozen=True)
class ViewPlan:
    """A feature view to compute: its definition, the source of each role, what happens to the values.

    Attributes:
        view: with the features to publish only.
        sources: role: source.
        as_of: the moments to publish, earliest first.
        again: those among them that nobody asked for: they were published under another definition, and a view's
            files must agree.
        landed: role: rows of what landed last of its source, as far as that is known.
        redone: as-ofs that nobody asked for: what came to their events since they were published moves them; known
            once a run has read its sources.
        start: what is read and written, as the ledger has it; None: it was not asked.
    """

    name: str
    view: FeatureView
    sources: Mapping[str, str]
    spec: ViewSpec
    as_of: tuple[datetime, ...] = ()
    again: tuple[datetime, ...] = ()
    landed: Mapping[str, int] = field(default_factory=dict)
    redone: tuple[datetime, ...] = ()
    start: Start | None = None

    def subject(self, sources: Iterable[SourcePlan]) -> Subject:
        """The view and the declarations of what it reads."""
        return Subject(self.view, self.spec, self.sources, {source.name: source.spec for source in sources})

    @property
    def spilled(self) -> int:
        """About how many bytes of events will lie on disk meanwhile; 0 where no rows are known, or as-ofs are few."""
        return spilled(self.view, self.landed) if len(self.as_of) >= MANY else 0

    @property
    def set(self) -> str | None:
        """The built-in set that it is."""
        return None if self.spec.is_declared else self.view.name

    @property
    def entity(self) -> str:
        """What a row describes, to Feast: views with the same entity share its key."""
        return self.set or self.view.entity.key

    @property
    def definition(self) -> str:
        """A fingerprint of all that the published values rest on, the data and the fit aside."""
        parts = {**self.definitions, "": [self.spec.handle_missing, self.spec.normalize]}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def files(self) -> tuple[str, ...]:
        """What will be published, below the output folder."""
        return tuple(part_path(self.name, t).as_posix() for t in self.as_of)

    @property
    def definitions(self) -> dict[str, str]:
        """Per feature, a fingerprint of all that its raw values rest on: a pinned fit holds only under the same."""
        return {name: self.view.fingerprint(name) + self._transformed(name) for name in self.view.feature_names}

    def _transformed(self, feature: str) -> str:
        steps = self.spec.transforms.get(feature)
        return "" if steps is None else f" {json.dumps([step.to_dict() for step in steps])}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "set": self.set,
            "entity": self.view.entity.key,
            "sources": dict(self.sources),
            "settings": dict(self.view.settings),
            "handle_missing": self.spec.handle_missing,
            "normalize": self.spec.normalize,
            "transforms": {name: [s.to_dict() for s in steps] for name, steps in self.spec.transforms.items()},
            "ttl": self.spec.ttl,
            "as_of": [iso(t) for t in self.as_of],
            "again": [iso(t) for t in self.again],
            "aggregates": ways(self.view, self.as_of),
            "rows_landed": dict(self.landed),
            "spilled_bytes": self.spilled,
            "start": self.start.to_dict() if self.start else None,
            "files": list(self.files),
            "features": [{"name": f.name, "dtype": f.dtype, "description": f.description} for f in self.view.features],
        }


@dataclass(frozen=True)
class Plan:
    """Everything a run does. Equal pipelines and as-ofs compile to equal plans."""

    pipeline: str
    workdir: Path
    memory_limit: str
    as_of: tuple[datetime, ...]
    sources: tuple[SourcePlan, ...]
    suites: Mapping[str, Suite]
    views: tuple[ViewPlan, ...]
    output: Path | Objects
    store: Objects | None = None
    feast: FeastSpec | None = None
    feast_repo: Path | None = None
    base: Path = field(default_factory=Path.cwd)
    ledger: SecretStr | None = None
    retention: Duration | None = None
    backfill: bool = False  # whether each as-of is published as soon as it has been computed
    alerts: Mapping[str, AlertSpec] = field(default_factory=dict)
    beside: tuple[ViewPlan, ...] = ()  # the pipeline's views that a backfill leaves out

    @property
    def ledger_url(self) -> str | None:
        """Of the shared ledger; None: the embedded one."""
        return self.ledger.get_secret_value() if self.ledger else None

    @property
    def landing(self) -> Path:
        """Where landed tables lie."""
        return self.workdir / "landing" / self.pipeline

    @property
    def quarantine(self) -> Path:
        """Where rows lie that were set aside."""
        return self.workdir / "quarantine" / self.pipeline

    @property
    def checkpoints(self) -> Path:
        """Where the state lies that later runs go on from."""
        return self.workdir / "checkpoints" / self.pipeline

    @property
    def reports(self) -> Path:
        """Where the reports of runs are kept."""
        return self.workdir / "reports" / self.pipeline

    def keeps_newest_only(self, view: ViewPlan) -> bool:
        """Whether entities that the newest as-of of a view lacks are to go out of the online store; those that it lacks
        for a null feature (``handle_missing: drop``) have not been deleted."""
        removed = self.feast is not None and self.feast.deleted == "remove"
        return removed and view.spec.handle_missing != "drop"

    def as_backfill(self, views: Collection[str] = ()) -> Plan:
        """This plan, publishing each as-of as soon as it has been computed.

        Args:
            views: only these; none: all.

        Raises:
            UsageError: there is none of that name.
        """
        names = [view.name for view in self.views]
        for name in views:
            if name not in names:
                raise UsageError(
                    f"there is no view {name!r}",
                    code="backfill.view",
                    where="view",
                    allowed=", ".join(names) or "none: the pipeline has no views",
                    fix=did_you_mean(name, names, "use one of the names above"),
                )
        chosen = tuple(v for v in self.views if not views or v.name in views)
        return replace(self, views=chosen, backfill=True, beside=tuple(v for v in self.views if v not in chosen))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without secrets, in a stable order."""
        return {
            "pipeline": self.pipeline,
            "as_of": [iso(t) for t in self.as_of],
            "backfill": self.backfill,
            "workdir": str(self.workdir),
            "memory_limit": self.memory_limit,
            "sources": [s.to_dict() for s in self.sources],
            "checks": {
                name: [
                    {
                        "check_name": c.check_name,
                        "column": c.column,
                        "severity": str(c.severity),
                        "description": c.description,
                    }
                    for c in suite.listed
                ]
                for name, suite in self.suites.items()
            },
            "views": [v.to_dict() for v in self.views],
            "output": str(self.output),
            "landing": str(self.store) if self.store else None,
            "feast": (
                {
                    "repo": str(self.feast_repo),
                    "project": self.feast.project,
                    "online_store": self.feast.online_store.type,
                    "materialize": self.feast.materialize,
                    "services": {name: list(service.features) for name, service in self.feast.services.items()},
                }
                if self.feast
                else None
            ),
            "alerts": [
                {"name": name, "on": list(alert.on), "by": "command" if alert.command else "webhook"}
                for name, alert in self.alerts.items()
            ],
        }


def compile_plan(
    pipeline: Pipeline,
    as_of: str | date | datetime | Sequence[str | date | datetime] | None = None,
    *,
    history: bool = True,
) -> Plan:
    """The plan of ``pipeline`` at one or several as-ofs.

    Args:
        as_of: ISO texts, dates or datetimes; UTC unless they carry a zone; None is now, resolved here and once.
        history: whether the ledger is asked for files of another definition, which have to be published again.

    Raises:
        ConfigError: a view names a set, feature, role or source that is not there, or a pattern is no regular
            expression; nothing has been read.
        UsageError: an as-of is not a moment.
    """
    moments = _moments(as_of)
    problems: list[Problem] = []
    workdir = pipeline.resolve(pipeline.workdir)
    suites = dict(_suites(pipeline, moments[-1], workdir, problems))
    views = tuple(v for name, spec in pipeline.features.items() if (v := _view_plan(pipeline, name, spec, problems)))
    problems += _service_problems(pipeline, {view.name: view for view in views})
    if problems:
        raise ConfigError([pipeline.locate(p) for p in problems])
    sources = tuple(_source_plan(pipeline, name, source) for name, source in pipeline.sources.items())
    planned = _at(views, moments)
    if history:
        planned = _with_moments(views, sources, moments, pipeline.name, workdir, _ledger_url(pipeline))
    return Plan(
        pipeline=pipeline.name,
        workdir=workdir,
        memory_limit=pipeline.memory_limit,
        as_of=moments,
        sources=sources,
        suites=suites,
        views=planned,
        output=Objects(pipeline.output, "output")
        if pipeline.output.is_remote
        else pipeline.resolve(pipeline.output.path),
        store=Objects(pipeline.landing, "landing") if pipeline.landing else None,
        feast=pipeline.feast,
        feast_repo=pipeline.resolve(pipeline.feast.repo) if pipeline.feast else None,
        base=pipeline.base,
        ledger=pipeline.ledger,
        retention=Duration(pipeline.retention) if pipeline.retention else None,
        alerts=pipeline.alerts,
    )


def _source_plan(pipeline: Pipeline, name: str, source: AnySource) -> SourcePlan:
    profile = pipeline.profile if source.profile is None else source.profile
    return SourcePlan(name, _location(name, source, pipeline.base), source, profile)


def _suites(pipeline: Pipeline, as_of: datetime, workdir: Path, problems: list[Problem]) -> Iterator[tuple[str, Suite]]:
    for name, spec in pipeline.validation.items():
        try:
            suite = Suite(
                spec,
                key_columns=_key_columns(pipeline.sources[name]),
                as_of=as_of,
                memory_limit=pipeline.memory_limit,
                spill=workdir / "spill",
                base=pipeline.base,
                pii=pipeline.sources[name].pii,
            )
        except ConfigError as error:
            problems += [replace(p, path=("validation", name, *p.path)) for p in error.problems]
        else:
            yield name, suite


def _service_problems(pipeline: Pipeline, views: Mapping[str, ViewPlan]) -> Iterator[Problem]:
    """Features of services that their views have not."""
    for name, service in pipeline.feast.services.items() if pipeline.feast else ():
        for i, text in enumerate(service.features):
            view, _, feature = text.partition(":")
            if view in views and feature != "*" and feature not in views[view].view.feature_names:
                known = views[view].view.feature_names
                yield unknown(("feast", "services", name, "features", i), f"feature of {view}", feature, known)


def check_rules(pipeline: Pipeline, plan: Plan) -> None:
    """Makes sure that the SQL of checks can be read, and that their Python functions are there.

    Raises:
        ConfigError: some are not.
    """
    found = [
        replace(problem, path=("validation", name, *problem.path))
        for name, suite in plan.suites.items()
        for problem in suite.mistakes()
    ]
    if found:
        raise ConfigError([pipeline.locate(problem) for problem in found])


def _ledger_url(pipeline: Pipeline) -> str | None:
    return pipeline.ledger.get_secret_value() if pipeline.ledger else None


def _moments(as_of: Any) -> tuple[datetime, ...]:
    if as_of is None:
        return (datetime.now(UTC),)
    values = [as_of] if isinstance(as_of, str | date) else list(as_of)
    return tuple(sorted({parse_moment(v) for v in values})) or (datetime.now(UTC),)


def _at(views: tuple[ViewPlan, ...], moments: tuple[datetime, ...]) -> tuple[ViewPlan, ...]:
    return tuple(replace(view, as_of=moments) for view in views)


def _with_moments(
    views: tuple[ViewPlan, ...],
    sources: tuple[SourcePlan, ...],
    moments: tuple[datetime, ...],
    pipeline: str,
    workdir: Path,
    ledger: str | None,
) -> tuple[ViewPlan, ...]:
    """Each view with its as-ofs: those asked for, and those published under another definition than today's,
    or about to be when a run was killed; and where its computing starts."""
    if not views or (ledger is None and not (workdir / "ledger.db").exists()):
        starts = (view.subject(sources).start(None, {}, moments, {}, "") for view in views)
        return tuple(replace(v, start=start) for v, start in zip(_at(views, moments), starts, strict=True))
    from engine.ledger import Ledger

    planned = []
    with Ledger(workdir, ledger) as book:
        checkpoints = book.checkpoints(pipeline)
        for view in views:
            published = {parse_moment(file["as_of"]): file for file in book.published(pipeline, view.name)}
            outdated = {
                as_of
                for as_of, file in published.items()
                if file["definition"] != view.definition or file["state"] == "publishing"
            }
            again = tuple(sorted(outdated - set(moments)))
            as_of = tuple(sorted({*moments, *again}))
            tables = {role: book.table(pipeline, source) for role, source in view.sources.items()}
            landed = {role: sum(file.rows for file in table.files) for role, table in tables.items() if table}
            files = {table.source: table.files for table in tables.values() if table}
            subject = view.subject(sources)
            start = subject.start(checkpoints.get(view.name), files, as_of, published, view.definition)
            planned.append(replace(view, as_of=as_of, again=again, landed=landed, start=start))
    return tuple(planned)


def is_current(plan: Plan) -> bool:
    """Whether the ledger still says what it said when ``plan`` was compiled."""
    now = _with_moments(plan.views, plan.sources, plan.as_of, plan.pipeline, plan.workdir, plan.ledger_url)
    return [replace(view, start=None) for view in now] == [replace(view, start=None) for view in plan.views]


def _location(name: str, spec: AnySource, base: Path) -> str:
    if spec.type in BUILT_IN:
        return location_of(spec, base)
    from engine.sources import open_source

    return open_source(name, spec, base).location


def _key_columns(source: AnySource) -> tuple[str, ...]:
    return source.deduplicate.keys if source.deduplicate else source.critical_columns


def _view_plan(pipeline: Pipeline, name: str, spec: ViewSpec, problems: list[Problem]) -> ViewPlan | None:
    path = ("features", name)
    if spec.is_declared:
        return _declared_plan(pipeline, name, spec, problems)
    implied = name.removesuffix("_features")
    set_name = spec.set or (implied if name.endswith("_features") and implied in SETS else None)
    if spec.set and name.endswith("_features") and implied in SETS and spec.set != implied:
        problems.append(
            Problem(
                "config.set_conflict",
                f"the view's name says {implied}, its set is {spec.set}",
                (*path, "set"),
                allowed=implied,
                fix=f"remove set, or name the view something else than {name}",
            )
        )
        return None
    if set_name is None:
        near = nearest(name, [f"{s}_features" for s in SETS])
        problems.append(
            Problem(
                "config.unknown_set",
                f"the view {name!r} does not say which set it is",
                path,
                allowed=", ".join(SETS),
                fix=f"did you mean {near!r}? Otherwise add set: …" if near else "add set: user, task, project or team",
            )
        )
        return None
    before = len(problems)
    sources = _role_sources(pipeline, path, spec, roles_of(set_name), problems)
    absent = frozenset(r.name for r in roles_of(set_name) if r.name not in sources)
    settings = Settings(
        Duration(spec.aggregation_window),
        spec.min_data_points,
        spec.hours_per_activity,
        spec.default_availability_hours,
    )
    view = view_of(set_name, settings, absent)
    if spec.features is not None:
        for i, feature in enumerate(spec.features):
            if feature not in view.feature_names:
                problems.append(
                    Problem(
                        "config.unknown_feature",
                        f"the {set_name} set has no feature {feature!r}",
                        (*path, "features", i),
                        allowed=", ".join(view.feature_names),
                        fix=did_you_mean(feature, view.feature_names, "use one of the names above"),
                    )
                )
        view = view.select(spec.features)
    dtypes = {f.name: f.dtype for f in view.features}
    problems += transforms.problems((*path, "transforms"), spec.transforms, dtypes)
    return ViewPlan(name, view, sources, spec) if len(problems) == before else None


def _declared_plan(pipeline: Pipeline, name: str, spec: ViewSpec, problems: list[Problem]) -> ViewPlan | None:
    from engine.features.declared import declared  # brings DuckDB, which reads the SQL

    found = declared(name, spec, {source: s.column_mapping for source, s in pipeline.sources.items()})
    problems += [replace(p, path=("features", name, *p.path)) for p in found.problems]
    return ViewPlan(name, found.view, found.sources, spec) if found.view else None


def _role_sources(
    pipeline: Pipeline, path: tuple[str, ...], spec: ViewSpec, roles: Sequence[Role], problems: list[Problem]
) -> dict[str, str]:
    names = [r.name for r in roles]
    problems += [
        unknown((*path, "sources", name), "role", name, names, code="config.unknown_role")
        for name in spec.sources
        if name not in names
    ]
    found: dict[str, str] = {}
    for role in roles:
        source = spec.sources.get(role.name, role.name)
        if source in pipeline.sources:
            found[role.name] = source
        elif role.name in spec.sources or not role.optional:
            near = nearest(source, pipeline.sources)
            stated = role.name in spec.sources
            problems.append(
                Problem(
                    "config.unknown_source",
                    f"the role {role.name!r} needs a source, and there is none named {source!r}",
                    (*path, "sources", role.name) if stated else path,
                    allowed=", ".join(pipeline.sources),
                    fix=f"did you mean {near!r}?"
                    if near and stated
                    else f"add sources: {{{role.name}: NAME}} to the view",
                )
            )
    return found

"""The whole pipeline as one frozen object."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, StringConstraints, ValidationError

from engine.errors import ConfigError, Problem, dotted
from engine.problems import problems_of
from engine.spec.alerts import AlertSpec
from engine.spec.feast import FeastSpec
from engine.spec.features import ViewSpec
from engine.spec.plugins import with_plug_ins
from engine.spec.rules import Place, renamed, unknown
from engine.spec.scalars import DurationText, Name, Spec, Text
from engine.spec.sources import AnySource
from engine.spec.store import LandingSpec, OutputSpec
from engine.spec.validation import ValidationSpec


def _whole(value: Any) -> Any:
    """1.0 and true equal 1, and are something else."""
    return value if type(value) is int else repr(value) if isinstance(value, bool | float) else value


class Locator(Protocol):
    """Knows where in a file each part of a pipeline was written."""

    def problem(self, problem: Problem) -> Problem: ...


class Pipeline(Spec):
    """A declared pipeline: sources, checks, feature views, output, Feast.

    ``Pipeline(name=…, sources={…}, …)`` takes the same keys as the YAML file, as dicts or as the classes of this
    module. Relative paths start from ``base``: the file's folder, or the current one for a pipeline built in Python.

    Raises:
        ConfigError: with every mistake found, each with its place and what is allowed.
    """

    version: Annotated[Literal[1], BeforeValidator(_whole), Field(description="of this format")] = 1
    name: Name
    workdir: Annotated[Text, Field(description="ledger, landing zone and fits")] = "./.maestro"
    ledger: Annotated[
        SecretStr | None,
        Field(
            description="postgresql://user:password@host/db, shared by several machines that share workdir and output; "
            "default: a SQLite file in workdir"
        ),
    ] = None
    retention: Annotated[
        DurationText | None,
        Field(
            description="a whole number and s, m, h, d or w: how long landed tables are kept that later runs have "
            "superseded; default: until the run ends"
        ),
    ] = None
    memory_limit: Annotated[
        str,
        StringConstraints(pattern=r"^[1-9][0-9]{0,6}(MB|GB|MiB|GiB)$"),
        Field(
            description="a whole number and MB, GB, MiB or GiB; joins and aggregates that need more are spilled to disk"
        ),
    ] = "512MiB"
    profile: Annotated[
        bool, Field(description="whether each run keeps a profile of every table that it judges, for drift and trends")
    ] = True
    sources: Annotated[dict[Name, AnySource], Field(min_length=1)]
    validation: Annotated[dict[Name, ValidationSpec], Field(description="source: its checks")] = {}
    features: Annotated[dict[Name, ViewSpec], Field(description="view: its settings")] = {}
    output: OutputSpec = OutputSpec()
    landing: Annotated[LandingSpec | None, Field(description="default: in workdir")] = None
    feast: FeastSpec | None = None
    alerts: Annotated[dict[Name, AlertSpec], Field(description="name: who is told of a run, and when")] = {}

    _base: Path | None = PrivateAttr(default=None)
    _locator: Locator | None = PrivateAttr(default=None)

    def __init__(self, *, base: Path | str | None = None, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(problems_of(error, data, type(self))) from None
        self._base = Path(base) if base is not None else None
        if found := list(self.problems()):
            raise ConfigError(found)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """With the declarations of the plug-ins that are installed."""
        return with_plug_ins(super().model_json_schema(*args, **kwargs))

    def problems(self) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        for name, source in self.sources.items():
            yield from source.problems(("sources", name))
        for name, checks in self.validation.items():
            path = ("validation", name)
            if name not in self.sources:
                yield unknown(path, "source", name, self.sources)
                continue
            yield from checks.problems(path)
            yield from renamed(path, self.sources[name].column_mapping, checks.named_columns())
            yield from self._reference_problems(path, checks)
            profile = self.sources[name].profile
            if checks.anomalies and not (self.profile if profile is None else profile):
                message = "there is nothing to hold against past runs: no profile of this source is kept"
                yield Problem("config.anomalies", message, (*path, "anomalies"), fix="remove profile: false")
        yield from self._path_problems()
        for name, alert in self.alerts.items():
            yield from alert.problems(("alerts", name))
        if self.ledger and not self.ledger.get_secret_value().startswith(("postgresql://", "postgres://")):
            yield Problem(
                "config.ledger",
                "the ledger is no PostgreSQL database",
                ("ledger",),
                allowed="postgresql://user:password@host/db",
                fix="correct it, or remove ledger: then it is a SQLite file in workdir",
            )
        if self.feast and not self.features:
            yield Problem(
                "config.nothing_to_publish",
                "feast has nothing to publish: the pipeline declares no features",
                ("feast",),
                fix="add a features section, or remove feast",
            )
        for name, service in self.feast.services.items() if self.feast else ():
            yield from service.problems(("feast", "services", name), self.features)

    def _reference_problems(self, path: Place, checks: ValidationSpec) -> Iterator[Problem]:
        """Foreign keys that lead nowhere."""
        for i, key in enumerate(checks.foreign_keys):
            place = ("foreign_keys", i)
            if key.source not in self.sources:
                yield unknown((*path, *place, "source"), "source", key.source, self.sources)
            else:
                mapping = self.sources[key.source].column_mapping
                yield from renamed(path, mapping, [((*place, "to"), name) for name in key.to])

    def _path_problems(self) -> Iterator[Problem]:
        yield from self.output.problems(("output",))
        if self.landing:
            yield from self.landing.problems(("landing",))
            if self.landing.path.rstrip("/") == self.output.path.rstrip("/"):
                message = f"{self.output.path!r} is the folder of output.path too"
                yield Problem("config.same_folder", message, ("landing", "path"), fix="give each a folder of its own")
        paths: dict[Place, str] = {("workdir",): self.workdir}
        if "://" not in self.output.path:
            paths["output", "path"] = self.output.path
        if self.feast:
            paths["feast", "repo"] = self.feast.repo
        seen: dict[str, Place] = {}
        for place, text in paths.items():
            if "://" in text:
                message = f"{text!r} is a URL; this is a local folder"
                yield Problem(
                    "config.not_local", message, place, allowed="a local path", fix="write a path such as ./features"
                )
                continue
            folder = normpath(text)
            if folder in seen:
                message = f"{text!r} is the folder of {dotted(seen[folder])} too"
                yield Problem("config.same_folder", message, place, fix="give each a folder of its own")
            seen[folder] = place

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return (self._base or Path.cwd()).resolve()

    def resolve(self, path: str) -> Path:
        """``path`` as an absolute path."""
        return (self.base / Path(path).expanduser()).resolve()

    def located(self, locator: Locator, base: Path) -> Self:
        """This pipeline, knowing the file it came from."""
        self._locator, self._base = locator, base
        return self

    def locate(self, problem: Problem) -> Problem:
        """``problem`` with its file, line and column where the pipeline came from a file."""
        return self._locator.problem(problem) if self._locator else problem

    def __eq__(self, other: object) -> bool:
        """Equal when every declared value is; where it was declared does not count."""
        return isinstance(other, Pipeline) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

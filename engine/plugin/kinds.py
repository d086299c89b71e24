"""The kinds of source there are: the engine's own and those of installed packages."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import getdoc
from typing import Any

from engine.spec import ApiSpec, DatabaseSpec, FileSpec, S3Spec, SourceSpec
from engine.spec.plugins import BUILT_IN, Unusable, plug_ins

_SPECS: tuple[type[SourceSpec], ...] = (DatabaseSpec, FileSpec, ApiSpec, S3Spec)


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        type: its name in the pipeline file.
        description: what it reads, in a line.
        package: what brings it along; a plug-in's with its version.
        target: ``module:Class``.
        keys: its own, besides those that all sources understand; those that must be there first.
        problem: why it cannot be used; None: it can.
    """

    type: str
    description: str
    package: str
    target: str
    keys: tuple[str, ...] = ()
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "type": self.type,
            "description": self.description,
            "package": self.package,
            "target": self.target,
            "keys": list(self.keys),
            "problem": self.problem,
        }


def kinds() -> list[Kind]:
    """The engine's own kinds, then those of plug-ins by name; a plug-in that cannot be used says why."""
    specs = {spec.model_fields["type"].annotation.__args__[0]: spec for spec in _SPECS}  # type: ignore[union-attr]
    found = [
        Kind(name, _line(specs[name]), "maestro-engine", target, _keys(specs[name]))
        for name, target in BUILT_IN.items()
    ]
    for plug_in in plug_ins().values():
        facts: dict[str, Any] = {"package": plug_in.package, "target": plug_in.target}
        try:
            kind = plug_in.load()
        except Unusable as error:
            found.append(Kind(plug_in.name, "", **facts, problem=str(error)))
        else:
            found.append(Kind(plug_in.name, _line(kind), **facts, keys=_keys(kind.Spec)))
    return found


def _line(documented: type) -> str:
    text = getdoc(documented) if documented.__doc__ else None
    return text.partition("\n")[0] if text else ""


def _keys(spec: type[SourceSpec]) -> tuple[str, ...]:
    own = {name: field for name, field in spec.model_fields.items() if name not in SourceSpec.model_fields}
    return tuple(sorted(own, key=lambda name: not own[name].is_required()))

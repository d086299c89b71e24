"""Kinds of source that other packages bring along: found by entry point, imported when a pipeline names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from engine.errors import ConfigError, Problem

GROUP = "maestro.sources"
BUILT_IN = {
    "database": "engine.sources.database:DatabaseSource",
    "file": "engine.sources.file:FileSource",
    "api": "engine.sources.api:ApiSource",
    "s3": "engine.sources.s3:S3Source",
}


class Unusable(Exception):  # noqa: N818 - it says of a plug-in what it is
    """A plug-in that cannot be used, and why."""


@dataclass(frozen=True)
class PlugIn:
    """A kind of source that an installed package announces.

    Attributes:
        name: the ``type`` in the pipeline file.
        target: ``module:Class``.
        package: the package and its version.
        problem: why it cannot be used whatever it holds; None: it may.
    """

    name: str
    target: str
    package: str
    problem: str | None = None

    def load(self) -> type[Any]:
        """Its class, of which `engine.sources.Source` says what it has.

        Raises:
            Unusable: it cannot be imported, or is no source.
        """
        if self.problem:
            raise Unusable(self.problem)
        module, _, attribute = self.target.partition(":")
        try:
            entry = next(e for e in entry_points(group=GROUP, name=self.name) if e.value == self.target)
            found = entry.load()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module does when it is imported
            text = " ".join(str(error).split())[:300]
            raise Unusable(f"{module} cannot be imported: {type(error).__name__}: {text}") from None
        if wrong := wrong_with(found, self.name):
            raise Unusable(f"{attribute} is no source: {wrong}")
        kind: type[Any] = found
        return kind


def wrong_with(kind: Any, name: str) -> str | None:
    """Why a class is no source of that name; None: it is one."""
    from engine.spec.sources import SourceSpec

    if not isinstance(kind, type) or not callable(getattr(kind, "open", None)):
        return "it has no method open"
    spec = getattr(kind, "Spec", None)
    if not isinstance(spec, type) or not issubclass(spec, SourceSpec):
        return "it has no class Spec that is derived from SourceSpec"
    field = spec.model_fields.get("type")
    if field is None or get_args(field.annotation) != (name,):
        return f'its Spec does not say type: Literal["{name}"]'
    return None


def plug_ins() -> dict[str, PlugIn]:
    """Every kind of source that the installed packages announce, by name; none of them is imported."""
    found: dict[str, PlugIn] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"
        problem = None
        if entry.name in BUILT_IN:
            problem = f"{entry.name} is a kind of source of the engine itself; its name has to be another"
        elif entry.name in found:
            problem = f"{found[entry.name].package} and {package} both announce {entry.name}; remove one of them"
        found[entry.name] = PlugIn(entry.name, entry.value, package, problem)
    return found


def kind_of_source(name: str) -> type[Any]:
    """The class of an installed plug-in that a declaration has named.

    Raises:
        Unusable: it cannot be used (any more).
    """
    known = plug_ins()
    if name not in known:
        raise Unusable(f"no installed package announces the source type {name!r}")
    return known[name].load()


class Kinds:
    """Makes a tagged union of the built-in declarations take those of plug-ins too."""

    def __init__(self, built_in: Any) -> None:
        self._built_in = built_in

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_declared, handler.generate_schema(self._built_in))


def _declared(value: Any, built_in: Any) -> Any:
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    if not isinstance(kind, str) or kind in BUILT_IN:
        return built_in(value)
    known = plug_ins()
    if kind not in known:
        tags = ", ".join(map(repr, [*BUILT_IN, *known]))
        context = {"discriminator": "'type'", "tag": kind, "expected_tags": tags}
        raise PydanticKnownError("union_tag_invalid", context)
    try:
        spec = known[kind].load().Spec
    except Unusable as error:
        raise PydanticCustomError(
            "plug_in",
            "{text}",
            {"text": f"the plug-in {kind!r} cannot be used: {error}", "package": known[kind].package},
        ) from None
    return spec.model_validate(value)


def with_plug_ins(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a pipeline, with the declarations of those plug-ins that can be used."""
    sources = schema["properties"]["sources"]
    union = next(iter(sources.get("patternProperties", {}).values()), None) or sources["additionalProperties"]
    for name, plug_in in plug_ins().items():
        try:
            spec = plug_in.load().Spec
        except Unusable:
            continue
        mine = spec.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        schema["$defs"] |= {f"{name}.{model}": node for model, node in mine.pop("$defs", {}).items()}
        schema["$defs"][name] = mine
        reference = f"#/$defs/{name}"
        union["oneOf"].append({"$ref": reference})
        union["discriminator"]["mapping"][name] = reference
    return schema


def unusable(name: str, source: str, error: Unusable) -> ConfigError:
    """The error for a declaration whose plug-in is of no use."""
    problem = Problem(
        "config.plug_in",
        f"the plug-in {name!r} cannot be used: {error}",
        ("sources", source, "type"),
        fix="maestro sources lists what is installed",
    )
    return ConfigError([problem])

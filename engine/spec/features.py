"""Feature views, their output and Feast, as they are declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from engine.errors import ConfigError
from engine.problems import problems_of
from engine.spec.aggregates import AnyAggregate, AttributeSpec, Default, EntitiesSpec, OrText
from engine.spec.scalars import Column, Columns, DurationText, Finite, MomentText, Name, Spec, Text
from engine.spec.transforms import Normalize, Steps

SETS = ("user", "task", "project", "team")
# The keys that only a declared view has, and those that only a built-in set has.
DECLARED = (
    *("entity", "source", "timestamp", "where", "entities", "created_at", "aggregates", "attributes", "derive"),
    "defaults",
)
OF_SETS = (
    *("set", "aggregation_window", "min_data_points", "hours_per_activity", "default_availability_hours", "sources"),
)


def _entity(value: Any) -> Any:
    """``user_id``, ``[user_id, region]`` and ``{user_id: actor}`` as the last: as published, and in the source."""
    if isinstance(value, str) and value:
        return {value: value}
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) and v for v in value):
        if len(set(value)) < len(value):
            raise PydanticCustomError("key", "a compound key names a column twice", {})
        return {v: v for v in value}
    if isinstance(value, Mapping) and value:
        return dict(value)
    allowed = "a column, a list of columns for a compound key, or {name to publish it under: column of the source}"
    raise PydanticCustomError("key", "an entity is named by its key", {"allowed": allowed})


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class FitRange(Spec):
    """The as-ofs that a backfill fits on."""

    start: MomentText
    end: MomentText


class ViewSpec(Spec):
    """One feature view: a built-in set with its settings, or what is declared of one's own."""

    set: Annotated[
        Literal["user", "task", "project", "team"] | None,
        Field(description="implied by the names user_features, task_features, project_features, team_features"),
    ] = None
    aggregation_window: Annotated[
        DurationText, Field(description="a whole number and a unit: s, m, h, d or w; such as 7d")
    ] = "7d"
    handle_missing: Annotated[
        Literal["impute", "zero", "drop", "keep"],
        Field(
            description="impute: median or mode; zero; drop: rows with a null leave; keep; "
            "default: impute, of a declared view keep"
        ),
    ] = "impute"
    normalize: Annotated[
        Normalize,
        Field(
            description="every number, with a pinned fit: true or minmax, to [0, 1]; standard; robust; false; "
            "default: true, of a declared view false"
        ),
    ] = True
    transforms: Annotated[
        dict[Column, Steps],
        Field(description="feature: what is done to it instead, in this order; [] leaves it as it is"),
    ] = {}
    fit_on: Annotated[
        FitRange | None,
        Field(description="a backfill fits on its as-ofs from start to end, both included; default: on its earliest"),
    ] = None
    lateness: Annotated[
        DurationText | None,
        Field(
            description="published as-ofs are computed again for events that come so late; default: the lateness of "
            "their source, where it is a duration; else none are"
        ),
    ] = None
    min_data_points: Annotated[
        int,
        Field(ge=0, description="user set: fewer activities than this give null for what rests on history"),
    ] = 0
    hours_per_activity: Annotated[
        Finite, Field(ge=0, description="user and team set: hours one activity stands for")
    ] = 2.0
    default_availability_hours: Annotated[
        Finite, Field(ge=0, description="user set: hours a week where a user's own are not known")
    ] = 40.0
    features: Annotated[
        Columns | None, Field(min_length=1, description="which features to publish; default: all of the set")
    ] = None
    sources: Annotated[dict[Name, Name], Field(description="role: source; default: the same names")] = {}
    entity: Annotated[
        dict[Column, Column] | None,
        BeforeValidator(_entity),
        Field(description="declared view: the key column, a list of them, or {name to publish it under: column}"),
        WithJsonSchema({"type": ["string", "array", "object"]}),
    ] = None
    source: Annotated[Name | None, Field(description="declared view: the source of its events")] = None
    timestamp: Annotated[Column | None, Field(description="declared view: when an event happened")] = None
    where: Annotated[Text | None, Field(description="declared view: SQL condition, true for the events that count")] = (
        None
    )
    entities: Annotated[
        EntitiesSpec | None,
        BeforeValidator(_source),
        OrText(),
        Field(
            description="declared view: the source with one row per entity; "
            "default: an entity is there from its first event on"
        ),
    ] = None
    created_at: Annotated[
        Column | None,
        Field(description="declared view: column of entities: since when one is there; default: created_at"),
    ] = None
    aggregates: Annotated[dict[Name, AnyAggregate], Field(description="declared view: feature: aggregate")] = {}
    attributes: Annotated[
        dict[Name, AttributeSpec], Field(description="declared view: feature: column of another source, as of then")
    ] = {}
    derive: Annotated[
        dict[Name, Text],
        Field(description="declared view: feature: SQL over its aggregates, attributes and the columns of entities"),
    ] = {}
    defaults: Annotated[dict[Name, Default], Field(description="declared view: feature: value in place of null")] = {}
    ttl: Annotated[
        DurationText | None, Field(description="how long a row holds, such as 30d; default: until a newer one")
    ] = None
    description: Text | None = None
    owner: Text | None = None
    tags: dict[Text, Text] = {}

    @model_validator(mode="before")
    @classmethod
    def _as_declared(cls, data: Any) -> Any:
        """What people declare they want as it is, nothing filled or scaled."""
        if isinstance(data, Mapping) and data.keys() & set(DECLARED):
            return {"handle_missing": "keep", "normalize": False, **data}
        return data

    @property
    def is_declared(self) -> bool:
        """Whether it is a view of the user's own."""
        return bool(self.model_fields_set & set(DECLARED))


def view_spec(name: str, data: Any) -> ViewSpec:
    """The view ``name`` from the keys of its declaration.

    Raises:
        ConfigError: with every mistake found in it.
    """
    if isinstance(data, ViewSpec):
        return data
    try:
        return ViewSpec.model_validate(data)
    except ValidationError as error:
        found = problems_of(error, data, ViewSpec)
        raise ConfigError([replace(p, path=("features", name, *p.path)) for p in found]) from None

"""Feature views, their output and Feast, as they are declared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.spec.scalars import Columns, DurationText, Finite, Name, Spec, Text

SETS = ("user", "task", "project", "team")


class ViewSpec(Spec):
    """One feature view: a built-in set with its settings."""

    set: Annotated[
        Literal["user", "task", "project", "team"] | None,
        Field(description="implied by the names user_features, task_features, project_features, team_features"),
    ] = None
    aggregation_window: Annotated[
        DurationText, Field(description="a whole number and a unit: s, m, h, d or w; such as 7d")
    ] = "7d"
    handle_missing: Annotated[
        Literal["impute", "zero", "drop", "keep"],
        Field(description="impute: median or mode; zero; drop: rows with a null leave; keep"),
    ] = "impute"
    normalize: Annotated[bool, Field(description="min-max to [0, 1] per column, with a pinned fit")] = True
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


class OnlineStoreSpec(Spec):
    """The store Feast serves from, in a feature repo that has no feature_store.yaml of its own."""

    type: Literal["sqlite"] = "sqlite"


class FeastSpec(Spec):
    """The feature repo that is generated, applied and loaded."""

    repo: Annotated[Text, Field(description="folder of the feature repo")] = "./feature_repo"
    project: Annotated[
        Name, Field(description="Feast project: letters, digits and underscores, beginning with a letter")
    ]
    online_store: OnlineStoreSpec = OnlineStoreSpec()
    materialize: Annotated[bool, Field(description="load the online store after each run")] = True

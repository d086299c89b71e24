"""Feast, as a pipeline declares it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from engine.errors import Problem
from engine.spec.rules import Place, unknown
from engine.spec.scalars import Columns, Name, Spec, Text


class OnlineStoreSpec(Spec):
    """The store Feast serves from, in a feature repo that has no feature_store.yaml of its own."""

    type: Literal["sqlite"] = "sqlite"


class ServiceSpec(Spec):
    """A feature service: the features that a model takes."""

    features: Annotated[
        Columns, Field(min_length=1, description="view:feature, and view:* for all of a view, of this pipeline")
    ]
    description: Text | None = None
    owner: Text | None = None
    tags: dict[Text, Text] = {}
    refit: Annotated[
        Literal["refuse", "follow"],
        Field(
            description="whether what it takes may be fitted or defined anew, and the model then be served other "
            "numbers than it was trained on"
        ),
    ] = "refuse"

    @property
    def by_view(self) -> dict[str, tuple[str, ...] | None]:
        """view: its features, None for all, in the order they are named."""
        found: dict[str, tuple[str, ...] | None] = {}
        for text in self.features:
            view, _, name = text.partition(":")
            before = found.get(view, ())
            found[view] = None if name == "*" or before is None else (*before, name)
        return found

    def problems(self, path: Place, views: Mapping[str, object]) -> Iterator[Problem]:
        """Features of no view."""
        for i, text in enumerate(self.features):
            view, parted, name = text.partition(":")
            place = (*path, "features", i)
            if not (view and parted and name):
                allowed = "view:feature, or view:* for all of a view"
                fix = f"write {view}:*" if view in views else "write for example user_features:*"
                yield Problem("config.service", f"{text!r} names no feature", place, allowed=allowed, fix=fix)
            elif view not in views:
                yield unknown(place, "view", view, views)


class FeastSpec(Spec):
    """The feature repo that is generated, applied and loaded."""

    repo: Annotated[Text, Field(description="folder of the feature repo")] = "./feature_repo"
    project: Annotated[
        Name, Field(description="Feast project: letters, digits and underscores, beginning with a letter")
    ]
    online_store: OnlineStoreSpec = OnlineStoreSpec()
    materialize: Annotated[bool, Field(description="load the online store after each run")] = True
    deleted: Annotated[
        Literal["remove", "keep"],
        Field(description="what becomes online of entities that the newest as-of no longer has; in SQLite and Redis"),
    ] = "remove"
    services: Annotated[dict[Name, ServiceSpec], Field(description="feature service: its features")] = {}

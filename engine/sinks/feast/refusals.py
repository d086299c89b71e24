"""What is refused: names that others have, and values that a model was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import SinkError
from engine.sinks.feast.objects import FeastObject


def clash(one: FeastObject, where: str, owner: str = "", unlike: Sequence[str] = (), by: str = "") -> SinkError:
    """A name that is taken.

    Args:
        owner: the pipeline that has it; "": somebody else.
        unlike: an entity's facts there, which differ.
        by: what rests on it there, of an entity.
    """
    whose = f"which is the pipeline {owner}'s" if owner else "which is not maestro's"
    whose = f"which the {by} has" if by else whose
    if one.kind == "entity":
        ours = ", ".join(f"{name} {value}" for name, value in one.fields.items())
        whose += f" and differs: it has {', '.join(unlike)}; declared here is {ours}"
    ways = {
        "entity": "give the key the same column and type in both, or name the view's key otherwise",
        "service": "name the service under feast.services otherwise",
    }
    gone = f"; where {owner} is no more, or was this pipeline's name, remove its file and `feast delete` what it had"
    return SinkError(
        f"there is {'an' if one.kind == 'entity' else 'a'} {one.kind} {one.name} already, {whose}; nothing was changed",
        code="feast.clash",
        where=where,
        fix=f"{ways.get(one.kind, 'name the view otherwise')}, or choose another feast.project{gone if owner else ''}",
    )


def served(service: str, view: str, features: str) -> SinkError:
    """The online store would give the model of a service other values than those that it was trained on."""
    return SinkError(
        f"the feature service {service} is registered with another fit of {features} of {view} than was published: its "
        "model would be served other numbers than it was trained on",
        code="fit.served",
        where=f"feast.services.{service}",
        fix=served_fix(service, view),
    )


def served_fix(service: str, view: str) -> str:
    """What to do instead of fitting a view anew that a service serves."""
    return (
        f"leave {view} as it is, and declare a view such as {view}_v2 beside it, which gets a fit of its own, with a "
        f"service of its own; or take {view} out of {service}; or allow it: feast.services.{service}.refit: follow"
    )

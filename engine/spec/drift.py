"""What a table is compared with, and how far it may move away from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from engine.errors import Problem
from engine.spec.rules import Place
from engine.spec.scalars import Columns, Finite, Spec, Text

_FORMS = "last, weekday, a path of Parquet or of a profile (.json), or one of {run, path, profile, last, weekday}"
Limit = Annotated[Finite | None, Field(ge=0)]


class DriftBaseline(Spec):
    """What to compare with: one of these."""

    last: Annotated[int | None, Field(ge=1, description="profiles of so many past accepted runs, as one")] = None
    weekday: Annotated[int | None, Field(ge=1, description="as last, of runs of the same day of the week")] = None
    run: Annotated[Text | None, Field(description="the profile that this run kept")] = None
    path: Annotated[Text | None, Field(description="the rows of a Parquet file, a folder of such or a glob")] = None
    profile: Annotated[Text | None, Field(description="a file that maestro profile --json wrote")] = None

    def __str__(self) -> str:
        return next(f"{name}:{value}" for name, value in self if value is not None)


class DriftThresholds(Spec):
    """How large an effect may be; null: however large. What is compared are effects, not probabilities."""

    psi: Annotated[Limit, Field(description="population stability index")] = 0.2
    js: Annotated[Limit, Field(description="Jensen-Shannon distance, base 2")] = 0.1
    ks: Annotated[Limit, Field(description="Kolmogorov-Smirnov D")] = 0.1
    wasserstein: Annotated[Limit, Field(description="Wasserstein-1, in standard deviations of the baseline")] = 0.1
    mean: Annotated[Limit, Field(description="change of the mean, in standard deviations of the baseline")] = None
    nulls: Annotated[Limit, Field(description="change of the share of nulls")] = 0.05
    rows: Annotated[Limit, Field(description="change of the number of rows, as a share of the baseline's")] = None


def _baseline(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in ("last", "weekday"):
        return {value: 1 if value == "last" else 4}
    if value.endswith(".json"):
        return {"profile": value}
    if value.endswith((".parquet", "/")) or any(mark in value for mark in "*?["):
        return {"path": value}
    raise PydanticCustomError("baseline", "{value} is no baseline", {"value": repr(value), "allowed": _FORMS})


class DriftSpec(Spec):
    """Whether a table still looks like its baseline."""

    baseline: Annotated[DriftBaseline, BeforeValidator(_baseline, json_schema_input_type=Text | DriftBaseline)] = (
        DriftBaseline(last=1)
    )
    columns: Annotated[
        Columns | None, Field(description="default: all numbers, texts and truth values that both have")
    ] = None
    thresholds: DriftThresholds = DriftThresholds()
    bins: Annotated[int, Field(ge=2, le=100, description="of the baseline's quantiles")] = 10
    exact: Annotated[
        bool, Field(description="with path: compare row by row; needs maestro-engine[drift]. Default: by profiles")
    ] = False

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        named = [name for name, value in self.baseline if value is not None]
        if len(named) != 1:
            message = f"the baseline is {' and '.join(named)} at once" if named else "the baseline names nothing"
            yield Problem("config.baseline", message, (*path, "baseline"), allowed=_FORMS, fix="name one of them")
        elif self.exact and named != ["path"]:
            message = f"the rows of a baseline by {named[0]} are not at hand"
            yield Problem("config.baseline", message, (*path, "exact"), fix="name a path, or leave exact out")

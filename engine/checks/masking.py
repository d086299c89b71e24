"""Results without the values of columns that hold personal data: what is counted stays, what is quoted goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from engine.checks.check import Check
from engine.checks.result import Result

MASK = "masked"
# What a check may quote from its columns, in details and in messages.
_QUOTED = ("actual_range", "invalid_values", "sample", "latest", "bins")
_LABELS = {"value", "label", "first_value", "last_value"}


def masked(result: Result, check: Check, pii: Collection[str]) -> Result:
    """``result`` as it may be shown: every value of the columns ``pii`` is masked in samples, details and message."""
    if not pii:
        return result
    sample = tuple({k: MASK if k in pii and v is not None else v for k, v in row.items()} for row in result.sample)
    if not {*check.columns} & {*pii} and check.family != "custom":
        return replace(result, sample=sample)
    details = {key: _masked(value) if key in _QUOTED else value for key, value in result.details.items()}
    if "reason" in details and check.family == "custom":
        details["reason"] = MASK  # an error quotes the value it arose at
    return replace(result, sample=sample, details=details, message=_message(result, check))


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: MASK if k in _LABELS else v for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(part) if isinstance(part, Mapping) else MASK for part in value]
    return MASK


def _message(result: Result, check: Check) -> str:
    """The message up to where it quotes values."""
    if check.family == "custom" and result.cannot_run:
        return f"the custom check could not run: {MASK}"
    if check.family not in ("range", "categorical", "freshness"):
        return result.message
    if result.passed and check.family != "freshness":
        return result.message
    name = f"{check.column}: "
    said = result.message.removeprefix(name)
    if check.family == "freshness":
        hours = result.details.get("age_hours")
        return result.message if hours is None else f"{name}the newest is {hours:.3g} h old, {MASK}"
    return f"{name}{said.partition('; ')[0]}; values are {MASK}"

"""The JSON form of reports, as a JSON Schema: what ``maestro validate --json`` prints."""

from __future__ import annotations

from typing import Any

from engine.checks.result import VERSION
from engine.types import Severity

_COUNT = {"type": "integer", "minimum": 0}
_VERSION = {"const": VERSION, "description": "of this form; a key that goes or changes its meaning raises it"}


def _object(description: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_RESULT = _object(
    "one check",
    check_name={"type": "string", "pattern": "_validation$"},
    passed={"type": "boolean"},
    severity={"enum": [str(severity) for severity in Severity], "description": "info where the check passed"},
    message={"type": "string"},
    failed_records=_COUNT | {"description": "rows that break it; 0 for checks of the table as a whole"},
    details={"type": "object", "description": "what was measured; with cannot_run: true it says nothing of the data"},
    column={"type": ["string", "null"], "description": "or the columns of a key, joined by commas"},
    sample={
        "type": "array",
        "items": {"type": "object"},
        "description": "the first few failing rows: row (from 0), origin and origin_row where they are known, keys and "
        "checked columns; a name that a column has already begins with _",
    },
)
_REPORT = _object(
    "one table",
    version=_VERSION,
    timestamp={"type": "string", "format": "date-time"},
    rows={"type": ["integer", "null"], "minimum": 0, "description": "that the row-wise checks judged"},
    quarantined=_COUNT,
    dropped=_COUNT,
    seconds={"type": "number", "minimum": 0},
    total_checks=_COUNT,
    passed=_COUNT,
    failed=_COUNT,
    errors=_COUNT | {"description": "checks that failed as errors"},
    warnings=_COUNT,
    results={"type": "array", "items": {"$ref": "#/$defs/result"}, "description": "in the order of the declaration"},
)
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "maestro validation",
    **_object(
        "what maestro validate --json prints",
        version=_VERSION,
        ok={"type": "boolean", "description": "whether the exit code is 0"},
        sources={"type": "object", "additionalProperties": {"$ref": "#/$defs/report"}},
    ),
    "$defs": {"report": _REPORT, "result": _RESULT},
}

"""What a run comes to, in one line and a few sums; everything read with ``get``, so that old reports can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.page.figures import plural

MOST_COLUMNS = 200  # whose null rates are remembered, the highest first

Json = Mapping[str, Any]


def results(report: Json) -> Iterator[tuple[int, int, Json, Json]]:
    """Every result: number of its source, its own number, the source, the result."""
    for i, source in enumerate(report.get("sources") or ()):
        for j, result in enumerate((source.get("validation") or {}).get("results") or ()):
            yield i, j, source, result


def is_failed(result: Json, severity: str | None = None) -> bool:
    """Whether a check failed, as badly as asked."""
    return not result.get("passed") and severity in (None, result.get("severity"))


def family(result: Json) -> str:
    """``range`` of ``range_validation``."""
    return str(result.get("check_name") or "check").removesuffix("_validation")


def name(result: Json) -> str:
    """What the declaration calls a check: ``range.score``."""
    column = result.get("column")
    return family(result) if column is None else f"{family(result)}.{column}"


def summary(report: Json) -> dict[str, Any]:
    """The line of a run in the index, JSON-ready; the trends are drawn from it."""
    found = [result for *_, result in results(report)]
    sources: Sequence[Json] = report.get("sources") or ()
    rows = {s.get("name"): _rows(s) for s in sources}
    return {
        "run_id": report.get("run_id"),
        "status": report.get("status"),
        "created_timestamp": report.get("created_timestamp"),
        "as_of": list(report.get("as_of") or ())[-1:],  # of a backfill there are thousands
        "as_ofs": len(report.get("as_of") or ()),
        "headline": headline(report),
        "checks": len(found),
        "errors": sum(is_failed(r, "error") for r in found),
        "warnings": sum(is_failed(r, "warning") for r in found),
        "drifted": sum(is_failed(r) and family(r) == "drift" for r in found),
        "rows_read": sum(r["read"] for r in rows.values()),
        "quarantined": sum(r["quarantined"] for r in rows.values()),
        "published": sum(sum(view.get("rows") or ()) for view in report.get("views") or ()),
        "seconds": round(sum((report.get("seconds") or {}).values()), 3),
        "rows": {source: r["rows"] for source, r in rows.items()},
        "nulls": _nulls(sources),
    }


def _rows(source: Json) -> dict[str, int]:
    balance, metrics = source.get("balance") or {}, source.get("metrics") or {}
    return {
        "read": balance.get("read", metrics.get("records_read", 0)),
        "quarantined": balance.get("quarantined", 0),
        "rows": metrics.get("rows", 0),
    }


def _nulls(sources: Sequence[Json]) -> dict[str, float]:
    """The share of nulls by source and column, of the profile or of checks that counted them."""
    found: dict[str, float] = {}
    for source in sources:
        for result in (source.get("validation") or {}).get("results") or ():
            details = result.get("details") or {}
            fraction = details.get("null_fraction")
            if family(result) == "not_null" and not details.get("where"):
                fraction = details.get("failed_fraction")
            if isinstance(fraction, float | int) and result.get("column"):
                found[f"{source.get('name')}.{result['column']}"] = fraction
        profile = source.get("profile") or {}
        for column in profile.get("columns") or ():
            if (rows := profile.get("rows")) and isinstance(column.get("nulls"), int):
                found[f"{source.get('name')}.{column.get('name')}"] = column["nulls"] / rows
    return dict(sorted(found.items(), key=lambda item: -item[1])[:MOST_COLUMNS])


def headline(report: Json) -> str:
    """The verdict in a sentence."""
    status, found = report.get("status"), [r for *_, r in results(report)]
    errors = sum(is_failed(r, "error") for r in found)
    warnings = sum(is_failed(r, "warning") for r in found)
    if status == "blocked":
        where = sorted({str(s.get("name")) for *_, s, r in results(report) if is_failed(r, "error")})
        return f"Blocked: {plural(errors, 'ERROR check')} failed on {', '.join(where)}. Nothing was published."
    if status in ("failed", "partial", "interrupted"):
        said = {"failed": "Failed", "partial": "Failed part way", "interrupted": "Interrupted"}[status]
        message = str((report.get("error") or {}).get("message") or "").rstrip(".")
        stays = {"partial": " What it had landed or published stays.", "interrupted": " It can be gone on with."}
        return f"{said}: {message}.{stays.get(status, '')}" if message else f"{said}.{stays.get(status, '')}"
    if warnings:
        return f"Done, with {plural(warnings, 'warning')} in {plural(len(found), 'check')}."
    if not found:
        return "Done. No checks are declared."
    return "Done. The one check passed." if len(found) == 1 else f"Done. All {len(found):,} checks passed."

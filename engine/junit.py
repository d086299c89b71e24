"""Reports as JUnit XML, which CI systems show: a suite per table, a case per check.

A failed ERROR is a failure, a check that could not run an error. A failed WARNING (or INFO) is a case that passes and
says so in its output, since a warning does not fail a build; ``strict`` makes WARNINGs failures too. One scan answers
all checks of a table, so each case carries an equal part of its time.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree  # only for writing

from engine.checks.listing import example
from engine.checks.result import Report, Result
from engine.errors import MaestroError, SinkError, UsageError

_UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # that XML 1.0 cannot hold


def check_target(path: Path) -> None:
    """That a file can be written there, before anything is read.

    Raises:
        UsageError: its folder is not there, or it is a folder itself.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise _refused(path, "it is a folder", "name a file in it, such as checks.xml")
    if not folder.is_dir():
        raise _refused(path, f"there is no folder {folder}", "create it first, or name another")
    if not os.access(folder if not path.exists() else path, os.W_OK):
        raise _refused(path, "it may not be written", "name another file, or change its permissions")


def write(
    path: Path,
    reports: Mapping[str, Report],
    *,
    name: str = "maestro",
    properties: Mapping[str, str] | None = None,
    strict: bool = False,
) -> None:
    """Writes the reports of tables, all at once or not at all.

    Args:
        name: of the whole.
        properties: of each suite, besides those of its report.
        strict: whether failed WARNINGs are failures.

    Raises:
        SinkError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", {"name": _said(name)})
    for table, report in reports.items():
        root.append(_suite(table, report, properties or {}, strict=strict))
    _put(path, root)


def write_error(path: Path, error: MaestroError, *, name: str) -> None:
    """Writes that no check was made, and why: what an earlier run left at ``path`` would be taken for this one's.

    Raises:
        SinkError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", {"name": _said(name)})
    moment = _moment(datetime.now(UTC))
    suite = ElementTree.SubElement(root, "testsuite", {"name": _said(name), "timestamp": moment, "time": "0.000"})
    case = ElementTree.SubElement(suite, "testcase", {"classname": _said(name), "name": "maestro", "time": "0.000"})
    said = ElementTree.SubElement(case, "error", {"type": error.code, "message": _said(error.message)})
    said.text = _said(str(error))
    _put(path, root)


def _suite(table: str, report: Report, properties: Mapping[str, str], *, strict: bool) -> ElementTree.Element:
    moment, seconds = _moment(report.timestamp), f"{report.seconds:.3f}"
    suite = ElementTree.Element("testsuite", {"name": _said(table), "timestamp": moment, "time": seconds})
    counts = {"rows": report.rows, "quarantined": report.quarantined, "dropped": report.dropped}
    _properties(suite, {**properties, **{key: str(n) for key, n in counts.items() if n is not None}})
    each = report.seconds / max(1, len(report.results))
    for result in report.results:
        suite.append(_case(table, result, each, strict=strict))
    return suite


def _case(table: str, result: Result, seconds: float, *, strict: bool) -> ElementTree.Element:
    about = {"classname": _said(table), "name": _said(result.name), "time": f"{seconds:.3f}"}
    case = ElementTree.Element("testcase", about)
    counts = {} if result.failed_fraction is None else {"failed_records": str(result.failed_records)}
    _properties(case, {"severity": str(result.severity), **counts})
    if result.passed:
        return case
    text = "\n".join([str(result), *map(example, result.sample)])
    if result.cannot_run or result.severity == "error" or (strict and result.severity == "warning"):
        tag = "error" if result.cannot_run else "failure"
        kind = "cannot_run" if result.cannot_run else result.check_name
        ElementTree.SubElement(case, tag, {"type": kind, "message": _said(result.message)}).text = _said(text)
    else:
        ElementTree.SubElement(case, "system-out").text = _said(text)
    return case


def _properties(element: ElementTree.Element, values: Mapping[str, str]) -> None:
    properties = ElementTree.SubElement(element, "properties")
    for name, value in values.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _said(value)})


def _put(path: Path, root: ElementTree.Element) -> None:
    """Counts what each suite holds, and writes the file in one step."""
    for suite in [*root, root]:
        cases = list(suite.iter("testcase"))
        suite.set("tests", str(len(cases)))
        for name, tag in (("failures", "failure"), ("errors", "error")):
            suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    root.set("time", f"{sum(float(suite.get('time', 0)) for suite in root):.3f}")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
    target = path.resolve()
    temporary = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex}")
    try:
        if target.exists() and not target.is_file():  # a pipe, a terminal
            target.write_bytes(text)
            return
        try:
            temporary.write_bytes(text)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        message = f"the JUnit file cannot be written: {error.strerror or error}"
        raise SinkError(message, code="junit.unwritable", where=str(path), fix="make room, or name another") from None


def _moment(moment: datetime) -> str:
    """In UTC and to the second, without a zone: all that the common schemas of JUnit files allow."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _said(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)


def _refused(path: Path, why: str, fix: str) -> UsageError:
    return UsageError(f"{path} cannot be written: {why}", code="junit.target", where="--junit", fix=fix)

"""The reports of a pipeline's runs as they are kept: JSON, a page beside it, and an index over all of them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import SinkError, UsageError, did_you_mean
from engine.page import index, run
from engine.page.summary import summary

KEPT = 200  # runs; older reports are dropped, the ledger still has them
INDEX = "index"
RUN_ID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")

Json = Mapping[str, Any]


class Archive:
    """The folder that a pipeline's reports are kept in.

    Every file is replaced whole. The index's lines are kept beside it, so that a run reads no report but its own;
    what they lack is read from the reports.
    """

    def __init__(self, folder: Path, pipeline: str) -> None:
        self.folder, self.pipeline = folder, pipeline

    def keep(self, report: Json) -> Path:
        """Keeps a run's report and gives its page; the oldest reports beyond `KEPT` go.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = _checked(str(report["run_id"]))
        _write(self.folder / f"{name}.json", json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1))
        page = self.folder / f"{name}.html"
        _write(page, run.render(report))
        lines = [line for line in self.lines() if line.get("run_id") != name] + [summary(report)]
        lines.sort(key=_order)
        for line in lines[:-KEPT]:
            for suffix in (".json", ".html"):
                (self.folder / f"{line['run_id']}{suffix}").unlink(missing_ok=True)
        _write(self.folder / f"{INDEX}.json", json.dumps({"version": 1, "runs": lines[-KEPT:]}, ensure_ascii=False))
        _write(self.folder / f"{INDEX}.html", index.render(self.pipeline, lines[-KEPT:]))
        return page

    def lines(self) -> list[dict[str, Any]]:
        """What the index tells of each run, oldest first."""
        there = {path.stem for path in self.folder.glob("*.json") if RUN_ID.match(path.stem)} - {INDEX}
        kept = _read(self.folder / f"{INDEX}.json") or {}
        known = {line["run_id"]: line for line in kept.get("runs") or () if line.get("run_id") in there}
        for name in there - known.keys():
            if report := _read(self.folder / f"{name}.json"):
                known[name] = summary(report)
        return sorted(known.values(), key=_order)

    def report(self, run_id: str | None = None) -> dict[str, Any]:
        """The report of a run; None: of the newest.

        Raises:
            UsageError: there is none.
        """
        names = [line["run_id"] for line in self.lines()]
        if not names:
            raise UsageError(
                f"no report of {self.pipeline} is kept",
                code="report.none",
                where=str(self.folder),
                fix="run the pipeline first, or correct workdir",
            )
        name = run_id or names[-1]
        found = _read(self.folder / f"{name}.json") if name in names else None
        if found is None:
            raise UsageError(
                f"no report of the run {name!r} is kept",
                code="report.unknown_run",
                where="--run",
                allowed=", ".join(names[-5:]) + (f" and {len(names) - 5:,} older ones" if len(names) > 5 else ""),
                fix=did_you_mean(name, names, "name one of these; maestro runs lists what the ledger has of all runs"),
            )
        return found

    def page(self, run_id: str | None = None) -> Path:
        """The page of a run, made anew.

        Raises:
            UsageError: no report of it is kept.
            SinkError: it cannot be written.
        """
        return self._put(self.folder, self.report(run_id))

    def index(self) -> Path:
        """The index, made anew.

        Raises:
            SinkError: it cannot be written.
        """
        page = self.folder / f"{INDEX}.html"
        with _Writing(self.folder):
            _write(page, index.render(self.pipeline, self.lines()))
        return page

    def publish(self, folder: Path, run_id: str | None = None) -> list[Path]:
        """Writes the pages of all runs with their index into a folder; of one run its page alone.

        Raises:
            UsageError, SinkError: as `page`.
        """
        if run_id is not None:
            return [self._put(folder, self.report(run_id), alone=True)]
        self.report()
        lines = self.lines()
        pages = [self._put(folder, self.report(line["run_id"])) for line in lines]
        with _Writing(folder):
            _write(folder / f"{INDEX}.html", index.render(self.pipeline, lines))
        return [folder / f"{INDEX}.html", *pages]

    def html(self, name: str) -> str | None:
        """The page ``name``, a run's or the index, made anew; None: there is none."""
        if name == INDEX:
            return index.render(self.pipeline, self.lines())
        found = _read(self.folder / f"{name}.json") if RUN_ID.match(name) else None
        return run.render(found) if found else None

    def _put(self, folder: Path, report: Json, *, alone: bool = False) -> Path:
        page = folder / f"{_checked(str(report.get('run_id')))}.html"
        with _Writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _write(page, run.render(report, index=None if alone else f"{INDEX}.html"))
        return page


class _Writing:
    """What cannot be written is an error of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise SinkError(
                f"the pages cannot be written: {error.strerror or error}",
                code="report.unwritable",
                where=str(self.folder),
                fix="make room, or name a folder that can be written",
            ) from None


def _checked(name: str) -> str:
    if not RUN_ID.match(name) or name == INDEX:
        raise ValueError(f"{name!r} is no name of a run")
    return name


def _order(line: Json) -> tuple[str, str]:
    return str(line.get("created_timestamp")), str(line.get("run_id"))


def _read(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where it is gone or damaged, which costs a line of the index and no more."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name[:120]}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

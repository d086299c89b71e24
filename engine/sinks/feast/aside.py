"""Feast in a process of its own, which imports it while this one reads, computes and writes: that takes seconds.

In a process that has imported Feast already, the work is done there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import MaestroError, SinkError
from engine.processes import end
from engine.sinks.feast.objects import Change, Difference
from engine.sinks.feast.repo import FeatureRepo
from engine.sinks.feast.service import Service
from engine.sinks.feast.view import OfflineView
from engine.stopwatch import waiting

if TYPE_CHECKING:
    import polars as pl

# It stands beside whatever a run has in memory: freed memory is to go back to the system, and few threads hold some.
_LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": str(2**20)}
_LEAN |= {"MALLOC_MMAP_THRESHOLD_": str(2**20), "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


class Aside(AbstractContextManager["Aside"]):
    """What is asked of Feast about one repo; the process begins when it is told to, or is asked something."""

    def __init__(self, repo: FeatureRepo) -> None:
        self._repo = repo
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Has Feast imported, so that it is there when it is asked."""
        if self._process is None and "feast" not in sys.modules and not self._repo.is_loaded_by_feast:
            path = os.pathsep.join(p for p in sys.path if p)
            repo = [str(self._repo.folder), self._repo.project, self._repo.pipeline]
            command = [sys.executable, "-m", "engine.sinks.feast.aside", *repo]
            self._process = subprocess.Popen(  # noqa: S603 - this module, by this Python
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_LEAN, "PYTHONPATH": path},
            )

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process)

    def apply(
        self, views: Sequence[OfflineView], services: Sequence[Service], pending: Collection[tuple[str, str]]
    ) -> list[Difference]:
        """As `FeatureRepo.apply`."""
        asked = {"views": [v.to_dict() for v in views], "services": [s.to_dict() for s in services]}
        done = self._asked({"do": "apply", **asked, "pending": [list(p) for p in pending]})
        return [Difference(**{**d, "changes": tuple(Change(**c) for c in d["changes"])}) for d in done]

    def prove(
        self, view: OfflineView, paths: Sequence[Path], among: Sequence[Any] | None, memory_limit: str, spill: Path
    ) -> int:
        """Reads the newest rows of these files back through Feast and compares them; gives how many there were.

        Args:
            among: only these keys.

        Raises:
            SinkError: values differ; features, counts and an example are named.
        """
        from engine.sinks.online.newest import newest

        rows = newest(view, paths, memory_limit=memory_limit, spill=spill, among=among)
        path = spill / f"proof-{uuid.uuid4().hex}.arrow"  # read here: over there, DuckDB would be loaded for it
        try:
            if not _handed_over(rows, path):
                return 0
            return int(self._asked({"do": "prove", "view": view.to_dict(), "rows": str(path)}))
        finally:
            path.unlink(missing_ok=True)

    def _asked(self, job: dict[str, Any]) -> Any:
        self.begin()
        if self._process is None:
            return _done(self._repo, job)
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        with suppress(BrokenPipeError):  # it ended: that is said below
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        with waiting("Feast"):
            line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise SinkError(
                f"the process that ran Feast ended with exit code {self._process.wait()}",
                code="feast.process",
                where=str(self._repo.folder),
                fix="see that there is memory left, and run again",
            )
        answer = json.loads(line)
        if "error" in answer:
            raise SinkError(**answer["error"])
        return answer["done"]


# --- the process -------------------------------------------------------------------------------------------------


def _done(repo: FeatureRepo, job: dict[str, Any]) -> Any:
    if job["do"] == "apply":
        views = [OfflineView.from_dict(v) for v in job["views"]]
        services = [Service.from_dict(s) for s in job["services"]]
        return [d.to_dict() for d in repo.apply(views, services, {(kind, name) for kind, name in job["pending"]})]
    from engine.sinks.feast.proof import prove

    return prove(repo, OfflineView.from_dict(job["view"]), _taken(Path(job["rows"])))


def _handed_over(frames: Generator[pl.DataFrame, None, None], path: Path) -> bool:
    """Writes rows for the other process to read; whether there are any.

    Raises:
        SinkError: the disk is full or cannot be written.
    """
    import pyarrow as pa
    import pyarrow.ipc

    from engine.sinks.parquet import unwritable

    writer = None
    with ExitStack() as stack:
        stack.enter_context(closing(frames))
        for frame in frames:
            table = frame.to_arrow()
            try:
                if writer is None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    file = stack.enter_context(pa.OSFile(str(path), "wb"))
                    writer = pa.ipc.new_stream(file, table.schema)
                writer.write_table(table)
            except OSError as error:
                raise unwritable(path.parent, error, "workdir") from None
        if writer is not None:
            writer.close()
    return writer is not None


def _taken(path: Path) -> Iterator[pl.DataFrame]:
    import polars as pl
    import pyarrow as pa
    import pyarrow.ipc

    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            yield pl.DataFrame(pl.from_arrow(batch))


def _import_lightly() -> None:
    """Leaves Feast's classes without typeguard's checks of arguments: to write them into the code of each takes three
    quarters of Feast's import (2.6 of 3.4 s), and what they are given here is generated."""
    with suppress(ImportError):
        import typeguard

        def typechecked(target: Any = None, **_: Any) -> Any:
            return (lambda it: it) if target is None else target

        typeguard.typechecked = typechecked


def main() -> None:
    """Imports Feast, and then does the jobs that come in; ends with whoever gives them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process says when it is over
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(OSError):
        os.nice(5)  # whoever begins it has more urgent work
    repo = FeatureRepo(Path(sys.argv[1]), *sys.argv[2:])
    _import_lightly()
    repo.warm()
    for line in sys.stdin.buffer:
        try:
            answer = {"done": _done(repo, json.loads(line))}
        except MaestroError as error:
            facts = ("message", "code", "where", "allowed", "fix")
            answer = {"error": {fact: getattr(error, fact) for fact in facts}}
        pipe.write(json.dumps(answer).encode() + b"\n")
        pipe.flush()


if __name__ == "__main__":
    main()

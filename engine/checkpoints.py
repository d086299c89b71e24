"""The checkpoints of views: what came to their events since, what of the past is saved, and which as-ofs that touches.

A checkpoint names the tables that a view's published as-ofs rest on: by them the change feed tells what is new, late,
changed or gone. Its state is only saved work: where it is lost, or of no use, the whole tables are read instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq

from engine.duck import connect, identifier, literal
from engine.features.definition import Role
from engine.features.inputs import columns_of, moment_sql, worded
from engine.features.query import MACROS, moment_literal
from engine.features.reach import Kept, bounds, event_roles
from engine.intake import Intake
from engine.landing import changes, files
from engine.ledger import Checkpoint, File, Ledger, make_folder
from engine.plan import Plan, ViewPlan
from engine.start import FORMAT, Subject, moment_of, saved_since
from engine.types import epoch_microseconds, iso, parse_moment

if TYPE_CHECKING:
    from engine.features.history.saved import Saved
    from engine.features.inputs import Inputs

_MOST = 1_000_000  # moments that are told apart
_AT = "maestro moment"  # a column of rows that came: their timestamps, in microseconds


@dataclass
class Came:
    """What came to a table of events, and what went.

    Attributes:
        added, removed: files of rows with the columns that the view reads, and their moments; None: there are none.
        new: how many rows are new.
        late: how many of these came too late to move what is published.
        changed: how many rows changed or went.
        moments: ascending: of the rows that move what is published; where they are too many, only the first.
    """

    added: Path | None = None
    removed: Path | None = None
    new: int = 0
    late: int = 0
    changed: int = 0
    moments: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))


@dataclass
class Ground:
    """What the values of a view are computed from.

    Attributes:
        view: with the as-ofs that are to be computed, those among them that what came has touched.
        because: why its events' tables are read as a whole; None: it goes on from saved state.
        tables: role: files.
        late: role: files of rows that belong into the saved state, and came after it.
        came: role: what came since the checkpoint.
        touched: the published as-ofs that what came moves.
        checkpoint: the one that there was.
    """

    view: ViewPlan
    because: str | None
    tables: dict[str, list[Path]]
    late: dict[str, list[Path]] = field(default_factory=dict)
    came: dict[str, Came] = field(default_factory=dict)
    touched: frozenset[datetime] = frozenset()
    checkpoint: Checkpoint | None = None

    @property
    def rows(self) -> dict[str, int]:
        """Role: rows of its events that are read."""
        roles = event_roles(self.view.view)
        return {role: sum(pq.read_metadata(path).num_rows for path in self.tables[role]) for role in roles}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: from where, why, and how many rows."""
        return {
            "from": "tables" if self.because else "saved state",
            "because": self.because,
            "rows_read": sum(self.rows.values()),
            "new": self.counted("new"),
            "late": self.counted("late"),
            "changed": self.counted("changed"),
        }

    def counted(self, what: str) -> dict[str, int]:
        """Source: ``new``, ``late`` or ``changed`` rows."""
        found: dict[str, int] = {}
        for role, came in self.came.items():
            source = self.view.sources[role]
            found[source] = max(found.get(source, 0), getattr(came, what))
        return found


class Checkpoints:
    """The checkpoints of a pipeline's views, during a run.

    Args:
        intake: the tables, once they are judged.
        folder: for what does not outlive the run.
    """

    def __init__(self, plan: Plan, ledger: Ledger, intake: Intake, folder: Path) -> None:
        self._plan, self._ledger, self._intake, self._folder = plan, ledger, intake, folder
        self._known = ledger.checkpoints(plan.pipeline)
        self._root = ledger.workdir

    def subject(self, view: ViewPlan) -> Subject:
        return view.subject(self._plan.sources)

    def tables(self, view: ViewPlan) -> Checkpoint:
        """That what is published now of a view rests on the tables of this run."""
        subject = self.subject(view)
        mine = {source: self._intake.tables[source].files for source in subject.fed.values()}
        return Checkpoint(subject.definition, mine)

    # --- what came ---------------------------------------------------------------------------------------------------

    def ground(self, view: ViewPlan) -> Ground:
        """What a view is to be computed from, and at which as-ofs.

        Raises:
            DataError: there is no room to find it out.
        """
        with worded(view.name):
            return self._ground(view)

    def _ground(self, view: ViewPlan) -> Ground:
        subject, checkpoint = self.subject(view), self._known.get(view.name)
        published = self._published(view)
        came: dict[str, Came] = {}
        lost = None
        if checkpoint and checkpoint.definition == subject.definition:
            for role, source in subject.fed.items():
                before = checkpoint.tables.get(source)
                if before is None or not self._are_whole(before):
                    lost = f"an earlier table of {source} is gone, so what is new in it cannot be told"
                    continue
                came[role] = self._came(view, role, before, published, subject.lateness(source))
        touched = frozenset(t for role, found in came.items() for t in _touched(view, role, found.moments, published))
        redone = tuple(sorted(touched - set(view.as_of)))
        view = replace(view, as_of=tuple(sorted({*view.as_of, *redone})), redone=redone)
        why = subject.because(checkpoint, view.as_of, max([*view.as_of, *published])) or lost
        if why is None and checkpoint is not None:
            why = self._unusable(view, checkpoint, came)
        tables = {role: list(self._intake.tables[source].paths) for role, source in view.sources.items()}
        ground = Ground(view, why, tables, came=came, touched=touched, checkpoint=checkpoint)
        if why is None and checkpoint is not None:
            self._go_on(ground, checkpoint)
        return ground

    def _published(self, view: ViewPlan) -> list[datetime]:
        return [parse_moment(file["as_of"]) for file in self._ledger.published(self._plan.pipeline, view.name)]

    def _are_whole(self, found: Sequence[File]) -> bool:
        if self._intake.remote:
            self._intake.remote.fetch(found)
        paths = ((self._root / file.path, file.bytes) for file in found)
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def _came(
        self, view: ViewPlan, name: str, before: Sequence[File], published: Sequence[datetime], lateness: int
    ) -> Came:
        source = view.sources[name]
        after = self._intake.tables[source].files
        if [file.path for file in before] == [file.path for file in after]:
            return Came()
        role = view.view.role(name)
        folder = make_folder(self._folder / f"{view.name} {name}")
        spec = next(s.spec for s in self._plan.sources if s.name == source)
        merges = getattr(spec, "effective_mode", "full") == "merge" and spec.deduplicate
        keys = spec.deduplicate.keys if merges and spec.deduplicate else ()
        feed = changes(self._root, before, after, folder, keys=keys, memory_limit=self._plan.memory_limit)
        columns = columns_of(role, list(files.schema(self._root / after[0].path)))
        if role.timestamp not in columns:  # there has been no row yet
            return Came()
        return _Feed(self._plan.memory_limit, folder, role, columns).came(feed, published, lateness)

    # --- what is saved -----------------------------------------------------------------------------------------------

    def _unusable(self, view: ViewPlan, checkpoint: Checkpoint, came: Mapping[str, Came]) -> str | None:
        """Why saved state that would do by what the ledger says cannot be gone on from."""
        for file in checkpoint.files.values():
            path = self._root / file.path
            if not path.is_file() or _sha256(path) != file.sha256:
                return "its saved state is gone or damaged"
        since = saved_since(checkpoint.state or {})
        for role in event_roles(view.view):
            source = view.sources[role]
            if (checkpoint.state or {})["columns"][role] != self._columns(view, role):
                return f"the columns of {source} have changed"
            if since.state is None or (gone := came[role].removed) is None:
                continue
            first = pl.scan_parquet(gone, glob=False).select(pl.col(_AT).min()).collect().item()
            if first is not None and first <= since.state:
                return f"a row of {source} has changed or gone, and it is in the saved state: {iso(moment_of(first))}"
        return None

    def _columns(self, view: ViewPlan, role: str) -> dict[str, str]:
        """Of the landed table of a role: the columns that are read, with their types."""
        landed = files.schema(self._intake.tables[view.sources[role]].paths[0])
        return {name: str(landed[name]) for name in columns_of(view.view.role(role), list(landed))}

    def _go_on(self, ground: Ground, checkpoint: Checkpoint) -> None:
        """Has the view's events be those that are saved, as far as they still are there, and those that came."""
        since = saved_since(checkpoint.state or {})
        for role, came in ground.came.items():
            saved = [self._root / checkpoint.files[f"rows {role}"].path]
            after = since.rows[role]
            if came.removed is not None:
                saved = [_without(saved[0], came.removed, after, self._plan.memory_limit, self._folder)]
            if came.added is not None:
                added = pl.scan_parquet(came.added, glob=False)
                ground.tables[role] = [*saved, came.added.with_name("after.parquet")]
                added.filter(pl.col(_AT) > after).sink_parquet(ground.tables[role][-1])
                if since.state is not None:
                    late = came.added.with_name("late.parquet")
                    added.filter(pl.col(_AT) <= since.state).sink_parquet(late)
                    if pq.read_metadata(late).num_rows:
                        ground.late[role] = [late]
            else:
                ground.tables[role] = saved

    def saved(self, ground: Ground, inputs: Inputs) -> Saved | None:
        """The state that a view goes on from, with what came late; None: there is none."""
        from engine.features.history.saved import Saved, taken_in

        checkpoint = ground.checkpoint
        if ground.because is not None or checkpoint is None or checkpoint.state is None:
            return None
        upto = checkpoint.state["upto"]
        if upto is None:
            return None
        paths = {name: self._root / file.path for name, file in checkpoint.files.items()}
        states = {name.removeprefix("state "): path for name, path in paths.items() if name.startswith("state ")}
        saved = Saved(upto, states, paths.get("entities"))
        if not ground.late:
            return saved
        with worded(ground.view.name):
            return taken_in(inputs, saved, ground.late, self._folder / f"{ground.view.name} late")

    # --- what is kept ------------------------------------------------------------------------------------------------

    def keep(self, ground: Ground, inputs: Inputs, saved: Saved | None) -> Checkpoint | None:
        """The checkpoint of a view once it has been computed; what it names is durable. None: it has none."""
        view = ground.view
        subject, made = self.subject(view), self.tables(view)
        if not made.tables:
            return None
        from engine.features.history.saved import needs_rows

        with worded(view.name):
            why = subject.never() or needs_rows(inputs)
            if why is not None:
                return replace(made, state={"because": why})
            newest = max([*view.as_of, *self._published(view)])
            needed = subject.needed((newest,), newest)
            if any(inputs.given[role].moment is None for role in needed.rows):
                return made  # there has been no row yet
            columns = {role: self._columns(view, role) for role in needed.rows}
            return replace(made, state={**self._state(needed, view.name, inputs, saved), "columns": columns})

    def _state(self, needed: Kept, view: str, inputs: Inputs, saved: Saved | None) -> dict[str, Any]:
        from engine.features.history.saved import advance

        folder = make_folder(self._plan.checkpoints / view)
        found: dict[str, Path] = {}
        for role, after in needed.rows.items():
            given, path = inputs.given[role], files.new_path(folder, "rows")
            listed = ", ".join(map(identifier, given.columns))
            query = f"SELECT {listed} FROM {given.relation} WHERE {given.moment} > {moment_literal(after)}"
            inputs.connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
            found[f"rows {role}"] = path
        if needed.state is not None:
            made = advance(inputs, needed.state, self._folder / f"{view} state", saved)
            new = {f"state {name}": path for name, path in made.states.items()}
            new |= {"entities": made.entities} if made.entities else {}
            for name, path in new.items():
                found[name] = path.replace(files.new_path(folder, "state")) if _is_within(path, self._folder) else path
        sealed = {name: asdict(files.seal(path, self._root)) for name, path in found.items()}
        return {"format": FORMAT, "upto": needed.state, "rows": dict(needed.rows), "files": sealed}


class _Feed:
    """The change feed of a table of events, as far as a view reads it: in DuckDB, whose SQL knows a row's moment."""

    def __init__(self, memory_limit: str, folder: Path, role: Role, columns: Sequence[str]) -> None:
        self._memory_limit, self._folder, self._role, self._columns = memory_limit, folder, role, columns

    def came(self, feed: pl.LazyFrame, published: Sequence[datetime], lateness: int) -> Came:
        """What the feed tells of, in files; ``lateness``: in microseconds."""
        paths = dict(self._split(feed))
        newest = epoch_microseconds(max(published)) if published else None
        with connect(self._memory_limit, self._folder / "spill") as self._connection:
            for macro in MACROS:
                self._connection.execute(macro)
            for change, path in paths.items():
                self._connection.execute(f"CREATE TEMP VIEW {identifier(change)} AS SELECT * FROM {_file(path)}")
            moment = f"epoch_us({self._moment()})"
            old = " UNION ALL ".join([self._less("delete", "insert"), self._updated("old", "new")])
            new = self._less("insert", "delete")
            added, removed, came = self._folder / "added.parquet", self._folder / "removed.parquet", Came()
            for query, path in ((old, removed), (f"{new} UNION ALL {self._updated('new', 'old')}", added)):
                self._copy(f"SELECT *, {moment} AS {identifier(_AT)} FROM ({query})", path)
            came.changed = self._count(f"SELECT count(*) FROM {_file(removed)}")
            came.new = self._count(f"SELECT count(*) FROM ({new})")
            moves = [f"SELECT {identifier(_AT)} AS t FROM {_file(removed)}"]
            moves.append(f"SELECT {moment} AS t FROM ({self._updated('new', 'old')})")
            if newest is not None:
                late = f"SELECT {moment} AS t FROM ({new})"
                moves.append(f"SELECT t FROM ({late}) WHERE t <= {newest} AND t >= {newest - lateness}")
                came.late = self._count(f"SELECT count(*) FROM ({late}) WHERE t < {newest - lateness}")
            union = " UNION ALL ".join(moves)
            query = f"SELECT DISTINCT t FROM ({union}) WHERE t IS NOT NULL ORDER BY t LIMIT {_MOST}"
            came.moments = pl.DataFrame(self._connection.sql(query).to_arrow_table())["t"]
            came.removed = removed if came.changed else None
            came.added = added if self._count(f"SELECT count(*) FROM {_file(added)}") else None
        return came

    def _split(self, feed: pl.LazyFrame) -> Iterator[tuple[str, Path]]:
        """The rows of the feed by what became of them, with the columns that matter."""
        sides = {"insert": ["new"], "delete": ["old"], "update": ["old", "new"]}
        for change, kept in sides.items():
            path = self._folder / f"{change}.parquet"
            rows = feed.filter(pl.col("change") == change)
            columns = [
                pl.col(side).struct.field(name).alias(f"{side} {name}" if change == "update" else name)
                for side in kept
                for name in self._columns
            ]
            rows.select(columns).sink_parquet(path)
            yield change, path

    def _moment(self) -> str:
        name = self._role.timestamp or ""
        kinds = {row[0]: str(row[1]) for row in self._connection.execute('DESCRIBE "insert"').fetchall()}
        return moment_sql(self._role, name, kinds[name]) if name in kinds else "CAST(NULL AS TIMESTAMP)"

    def _less(self, ours: str, theirs: str) -> str:
        """Rows of one side that the other lacks: without keys, a row that is written anew went and came."""
        return f"(SELECT * FROM {identifier(ours)} EXCEPT ALL SELECT * FROM {identifier(theirs)})"

    def _updated(self, ours: str, theirs: str) -> str:
        """One side of the rows that changed in what the view reads."""
        pairs = [(name, identifier(f"{ours} {name}"), identifier(f"{theirs} {name}")) for name in self._columns]
        chosen = ", ".join(f"{our} AS {identifier(name)}" for name, our, _ in pairs)
        differ = " OR ".join(f"{our} IS DISTINCT FROM {their}" for _, our, their in pairs)
        return f"(SELECT {chosen} FROM {identifier('update')} WHERE {differ})"

    def _copy(self, query: str, path: Path) -> None:
        self._connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")

    def _count(self, query: str) -> int:
        return int(self._connection.execute(query).fetchall()[0][0])


def _touched(view: ViewPlan, role: str, moments: pl.Series, published: Sequence[datetime]) -> Iterator[datetime]:
    """The published as-ofs that rows of these moments may move."""
    if not moments.len():
        return
    first = moments[0]
    for as_of in published:
        at = epoch_microseconds(as_of)
        for start, end in bounds(view.view, role, at) if at >= first else ():
            begin = 0 if start is None else moments.search_sorted(start, side="right")
            if moments.len() == _MOST or moments.search_sorted(end, side="right") > begin:
                yield as_of
                break


def _without(saved: Path, removed: Path, after: int, memory_limit: str, folder: Path) -> Path:
    """The saved rows without those that went; ``after``: the saved ones are later."""
    names = ", ".join(map(identifier, files.schema(saved)))
    gone = f"SELECT {names} FROM {_file(removed)} WHERE {identifier(_AT)} > {after}"
    path = files.new_path(folder, "left")
    with connect(memory_limit, folder / "spill") as connection:
        query = f"SELECT {names} FROM {_file(saved)} EXCEPT ALL {gone}"
        connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")
    return path


def _file(path: Path) -> str:
    return f"read_parquet({literal(str(path))})"


def _is_within(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

"""A table of a database into Parquet: servers that hold it, how contenders are called, and whether all of it landed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.extract.contents import compare, write_reference
from benchmarks.extract.tables import TABLE, dump_mariadb, dump_postgres, fill_mariadb, fill_postgres
from benchmarks.harness.contest import DATA, FLOOR, Answer, Contender

FOLDER = DATA / "extract"


@contextmanager
def cases(size: dict[str, int], _: str) -> Iterator[Iterator[Case]]:
    """A case per database, one server at a time: rows by name."""
    yield (case for database, rows in size.items() for case in _case(database, rows))


def _case(name: str, rows: int) -> Iterator[Case]:
    from tests.servers import mariadb, postgres

    FOLDER.mkdir(parents=True, exist_ok=True)
    reference, dump = FOLDER / f"{name}.parquet", FOLDER / f"{name}.tsv"
    with (postgres if name == "postgres" else mariadb).running() as server:
        if isinstance(server, postgres.Postgres):
            fill_postgres(server, rows)
            dump_postgres(server, dump)
            program = server.psql
        else:
            fill_mariadb(server, rows)
            dump_mariadb(server, dump)
            program = server.client
        write_reference(dump, reference, zoned=name == "postgres")
        dump.unlink()
        yield Case(name, rows, server.url, reference, program)
        reference.unlink()


class Case:
    """One server with the table in it; what its own client prints of the table is the reference."""

    def __init__(self, name: str, rows: int, url: str, reference: Path, program: str) -> None:
        self.name, self.url, self.reference, self.program = name, url, reference, program
        self.title = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}[name]
        self.facts = {"rows": f"{rows:,}", "columns": "12"}

    def environment(self) -> Mapping[str, str]:
        """The server's own client comes first of all programs."""
        path = os.pathsep.join((str(Path(self.program).parent), os.environ.get("PATH", os.defpath)))
        return {"PATH": path}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [self.url, TABLE, out]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        if contender.role == FLOOR or not thorough:
            return Answer()
        found = compare(self.reference, out)
        wrong = "; ".join(f"{column}: {what}" for column, what in found.wrong.items())
        notes = [] if found.codecs == ["ZSTD"] else [f"written as {', '.join(found.codecs).lower()}"]
        if found.types:
            types = ", ".join(f"{column} as {kind}" for column, kind in found.types.items())
            notes.append(f"right values of other types: {types}")
        return Answer(wrong or None, tuple(notes), size=found.size)

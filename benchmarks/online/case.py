"""Loading an online store: empty stores, how contenders are called, and whether all that is stored is the same."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.contest import DATA, Answer, Contender

sys.path.insert(0, str(Path(__file__).parent))  # as the contenders see it

from benchmarks.online.views import make
from tests.servers.redis import PASSWORD

BATCH = 10_000  # Feast's online_write_batch_size
_COMPARED = 1_000_000  # of more entities, which only ours loads, the keys are counted


@contextmanager
def cases(size: Mapping[str, int], name: str) -> Iterator[Iterator[Case]]:
    """SQLite and Redis, one after the other: entities."""
    yield (case for store, count in size.items() for case in _case(DATA / "online" / f"{store}-{name}", store, count))


def _case(folder: Path, store: str, entities: int) -> Iterator[Case]:
    from tests.servers import redis

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if store == "redis":
            with redis.running() as server:
                make(folder, entities, server.online_store, BATCH)
                yield Case(store, "Redis", folder, entities, server)
        else:
            make(folder, entities, {"type": "sqlite", "path": "data/online.db"}, BATCH)
            shutil.copyfile(folder / "repo" / "data" / "online.db", folder / "empty.db")
            yield Case(store, "SQLite", folder, entities, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Case:
    """A feature repo over a store that can be emptied; others are compared with what the first contender stored."""

    def __init__(self, name: str, title: str, folder: Path, entities: int, server: Any) -> None:
        self.name, self.title, self.folder, self.server = name, title, folder, server
        self.facts = {"entities": f"{entities:,}", "features": "14", "online_write_batch_size": f"{BATCH:,}"}
        self.counted = entities > _COMPARED
        self.expected: tuple[int, str] | None = (entities, "") if self.counted else None

    def environment(self) -> Mapping[str, str]:
        where = {"REDIS_PORT": str(self.server.ports[0]), "REDISCLI_AUTH": PASSWORD} if self.server else {}
        return {"FEAST_USAGE": "False"} | where

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        if self.server:
            self.server.flush()
        else:
            shutil.copyfile(self.folder / "empty.db", self.folder / "repo" / "data" / "online.db")
        return [self.folder]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        said = (out.parent / "log.txt").read_text(errors="replace").splitlines()
        [(inside, first)] = [map(float, line.split()[1:]) for line in said if line.startswith("inside")]
        found = self._digest() if thorough else self.expected
        if self.expected is None:
            self.expected = found
            self._make_ready()
        same = found == self.expected
        wrong = None if same else f"{found[0] if found else 0:,} values, other than those stored first"
        return Answer(wrong, figures={"inside": inside, "first_write": first or None})

    def _make_ready(self) -> None:
        """What the store holds, for who hands over just that."""
        if self.server:
            [client] = self.server.clients()
            pack = client.connection_pool.make_connection().pack_command
            with (self.folder / "ready.resp").open("wb") as file:
                for _, (key, fields) in self._rows():
                    file.writelines(pack("HSET", key, *itertools.chain.from_iterable(fields)))
        else:
            with sqlite3.connect(self.folder / "ready.db") as connection:
                connection.execute("ATTACH ? AS there", [str(self.folder / "repo" / "data" / "online.db")])
                connection.execute(
                    "CREATE TABLE online_users AS SELECT * FROM there.online_users ORDER BY entity_key, feature_name"
                )
            connection.close()

    def _digest(self) -> tuple[int, str]:
        """The number of values, and a checksum of all there is, whatever its order; or of keys alone."""
        if self.counted:
            return sum(client.dbsize() for client in self.server.clients()), ""
        count, total = 0, 0
        for cells, row in self._rows():
            count += cells
            total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), "big")
        return count, f"{total % 2**128:032x}"

    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Number of values, and what is compared, of each row."""
        if self.server:
            [client] = self.server.clients()
            keys = client.scan_iter(count=10_000)
            while some := list(itertools.islice(keys, 5_000)):
                pipeline = client.pipeline(transaction=False)
                for key in some:
                    pipeline.hgetall(key)
                for key, fields in zip(some, pipeline.execute(), strict=True):
                    yield len(fields), (key, sorted(fields.items()))
        else:
            connection = sqlite3.connect(self.folder / "repo" / "data" / "online.db")
            yield from ((1, row) for row in connection.execute("SELECT * FROM online_users"))
            connection.close()

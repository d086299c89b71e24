"""The kit: every built-in source passes it, and each of its rules is broken by a source that should break it."""

from __future__ import annotations

import io
import logging
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import duckdb
import polars as pl
import pytest
from pydantic import ConfigDict

from engine.plugin import Chunk, Plain, Request, SecretStr, SourceError, SourceSpec, Text, kit, plain
from engine.plugin.kit import Broken, Checked, check_source
from engine.sources import file_reading, open_source
from engine.spec import ApiSpec, DatabaseSpec, FileSpec, IncrementalSpec, S3Spec
from tests.landing.world import small_chunks
from tests.servers import rest
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.rest import Answer

ROWS = pl.DataFrame({"n": list(range(7)), "name": [f"n{i}" for i in range(7)]})


def kind(spec: type[SourceSpec]) -> type[Any]:
    """A built-in kind of source as a plug-in's class."""
    return type("BuiltIn", (), {"Spec": spec, "open": open_source})


def passes(
    spec: type[SourceSpec],
    keys: Mapping[str, Any],
    base: Path = Path(),
    wrong: tuple[Mapping[str, Any], ...] = (),
    **more: Any,
) -> Checked:
    return check_source(kind(spec), keys, ROWS, base=base, wrong=wrong, source=open_source, **more)


# --- the built-in ones --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson", "json"])
def test_files(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading, "BATCH_FILES", 1)
    for i, part in enumerate((ROWS[:4], ROWS[4:])):
        getattr(part, f"write_{form}")(tmp_path / f"{i}.{form}")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no more")
    wrong = ({"path": "none.csv"}, {"path": "bad.parquet"})
    checked = passes(FileSpec, {"path": f"[01].{form}"}, tmp_path, wrong, secrets=())
    assert (checked.rows, checked.chunks) == (7, 2)


def test_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE t (n INTEGER, name TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS.rows())
    small_chunks(monkeypatch)
    keys = {"connection_string": SecretStr("sqlite:///x.db"), "table": "t"}
    checked = passes(DatabaseSpec, keys, tmp_path, ({**keys, "table": "none"},), secrets=())
    assert checked.chunks > 1
    assert checked.resumable


def test_duckdb(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT n::BIGINT AS n, 'n' || n AS name FROM range(7) AS r(n)")
    keys = {"connection_string": SecretStr("duckdb:///x.duckdb"), "table": "t"}
    assert passes(DatabaseSpec, keys, tmp_path, ({**keys, "table": "none"},), secrets=()).rows == 7


def test_postgres(postgres_server: Postgres) -> None:
    postgres_server.execute("CREATE TABLE kit AS SELECT n::bigint AS n, 'n' || n AS name FROM generate_series(0, 6) n")
    keys = {"connection_string": SecretStr(postgres_server.url), "table": "kit"}
    checked = passes(DatabaseSpec, keys, wrong=({**keys, "table": "none"},))
    assert checked.rows == 7


def test_mariadb(mariadb_server: MariaDB) -> None:
    mariadb_server.execute("CREATE TABLE kit (n BIGINT PRIMARY KEY, name TEXT)")
    mariadb_server.execute("INSERT INTO kit SELECT seq, concat('n', seq) FROM seq_0_to_6")
    keys = {"connection_string": SecretStr(mariadb_server.url), "table": "kit"}
    assert passes(DatabaseSpec, keys, wrong=({**keys, "table": "none"},)).rows == 7


def test_an_api() -> None:
    def answer(request: rest.Request) -> Answer:
        if request.headers.get("Authorization") != "Bearer kit-token":
            return Answer({"error": f"{request.headers.get('Authorization')} is refused"}, 401)
        start = 3 * (int(request.params["page"]) - 1)
        return Answer({"data": ROWS[start : start + 3].to_dicts()})

    with rest.running(answer) as server:
        keys = {
            "url": f"{server.url}/rows",
            "headers": {"Authorization": "Bearer kit-token"},
            "pagination": {"style": "page", "size": 3},
            "batch_size": 3,
        }
        wrong = {**keys, "headers": {"Authorization": "Bearer other-token"}}
        assert passes(ApiSpec, keys, wrong=(wrong,)).chunks == 3


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_s3(ceph_server: Ceph, form: str) -> None:
    store = ceph_server.store()
    for i, part in enumerate((ROWS[:4], ROWS[4:])):
        buffer = io.BytesIO()
        getattr(part, f"write_{form}")(buffer)
        store.pipe(f"{BUCKET}/kit/{i}.{form}", buffer.getvalue())
    keys = {
        "bucket": BUCKET,
        "key": f"kit/*.{form}",
        "endpoint_url": ceph_server.url,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    assert passes(S3Spec, keys, wrong=({**keys, "secret_key": "another-secret"},)).chunks == 1


# --- rules that are broken ----------------------------------------------------------------------------------------


class Numbers:
    """A source that keeps all rules: seven rows in four chunks."""

    kind = "numbers"
    token: ClassVar[str] = "s3cr3t-t0ken"

    class Spec(SourceSpec):
        type: Literal["numbers"]
        path: Text
        token: SecretStr

    def __init__(self, name: str, spec: Spec, base: Path) -> None:  # noqa: ARG002
        self.spec = spec
        self.location = spec.path

    def open(self, request: Request) -> Any:  # noqa: ARG002
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        if self.spec.path == "none":
            raise SourceError("nothing is there", code="source.no_match")
        for number in range(4):
            yield self.chunk(number)

    def chunk(self, number: int) -> Chunk:
        frame = ROWS[2 * number : 2 * number + 2]
        return Chunk(number, f"part {number}", frame.lazy(), frame.height)


def held_to_rules(kind: type[Any], **more: Any) -> Checked:
    keys = {"path": "x", "token": Numbers.token}
    return check_source(kind, keys, ROWS, wrong=[{**keys, "path": "none"}], **more)


def test_a_source_that_keeps_them() -> None:
    checked = held_to_rules(Numbers)
    assert (checked.rows, checked.chunks, checked.resumable) == (7, 4, False)
    assert set(checked.rules) == {
        *("declared", "complete", "numbered", "repeatable", "bounded", "cancellable", "silent", "failing")
    }


class Loose(Numbers):
    class Spec(Numbers.Spec):
        model_config = ConfigDict(extra="ignore")


class Nameless(Numbers):
    class Spec(SourceSpec):
        path: Text
        token: SecretStr


class Short(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            if chunk.number < 3:
                yield chunk


class Miscounting(Numbers):
    def chunk(self, number: int) -> Chunk:
        return replace(super().chunk(number), rows=9)


class Altering(Numbers):
    def chunk(self, number: int) -> Chunk:
        chunk = super().chunk(number)
        return replace(chunk, frame=chunk.frame.with_columns(pl.col("name").str.to_uppercase()))


class Retyping(Numbers):
    def chunk(self, number: int) -> Chunk:
        chunk = super().chunk(number)
        return replace(chunk, frame=chunk.frame.with_columns(pl.col("n").cast(pl.Int32)))


class OneNumber(Numbers):
    def chunk(self, number: int) -> Chunk:
        return replace(super().chunk(number), number=0)


class FromOne(Numbers):
    def chunk(self, number: int) -> Chunk:
        return replace(super().chunk(number), number=number + 1)


class Endless(Numbers):
    def chunk(self, number: int) -> Chunk:
        return replace(super().chunk(number), last=number < 3)


class Wavering(Numbers):
    turns = 0

    def chunks(self) -> Iterator[Chunk]:
        type(self).turns += 1
        for chunk in super().chunks():
            yield replace(chunk, origin=f"{chunk.origin} of turn {type(self).turns}")


class Hoarding(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        every = list(super().chunks())
        yield from every


class Running(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        threading.Thread(target=stopped.wait, daemon=True).start()
        yield from super().chunks()


class Leaking(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        kept.append(tempfile.TemporaryFile())  # noqa: SIM115 - it is what must be found
        yield from super().chunks()


class Littering(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        handle, _ = tempfile.mkstemp()
        open(handle).close()  # noqa: PTH123
        yield from super().chunks()


class Swallowing(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        for number in range(4):
            with suppress(KeyboardInterrupt):
                yield self.chunk(number)


class Stubborn(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        for number in range(4):
            try:
                yield self.chunk(number)
            except GeneratorExit:
                yield self.chunk(number)


class Listed(Numbers):
    def chunks(self) -> Any:
        return iter([self.chunk(number) for number in range(4)])


class Forgetful(Numbers):
    """Says that it goes on from what has landed, and does not."""

    def open(self, request: Request) -> Any:
        kept = frozenset(piece.number for piece in request.landed)
        return nullcontext(Plain(lambda: self.some(kept), seal={}, kept=kept))

    def some(self, kept: frozenset[int]) -> Iterator[Chunk]:
        for chunk in self.chunks():
            if chunk.number not in kept:
                rows = 1 if kept and chunk.number == 2 else chunk.rows
                yield replace(chunk, frame=chunk.frame.head(rows or 0), rows=rows, mark={})


class Crashing(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        if self.spec.path == "none":
            raise KeyError(self.spec.path)
        yield from super().chunks()


class Lenient(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        for number in range(4):
            yield self.chunk(number)


class Logging(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        logging.getLogger("numbers").debug("GET /?token=%s", self.spec.token.get_secret_value())
        yield from super().chunks()


class Telling(Numbers):
    def __init__(self, name: str, spec: Any, base: Path) -> None:
        super().__init__(name, spec, base)
        self.location = f"x?token={spec.token.get_secret_value()}"


class Marking(Numbers):
    def chunk(self, number: int) -> Chunk:
        return replace(super().chunk(number), mark={"url": self.token})


class Blurting(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        if self.spec.path == "none":
            raise SourceError(f"{self.token} is refused", code="source.denied")
        yield from super().chunks()


class Chaining(Numbers):
    def chunks(self) -> Iterator[Chunk]:
        if self.spec.path == "none":
            raise SourceError("refused", code="source.denied") from ValueError(self.token)
        yield from super().chunks()


stopped = threading.Event()
kept: list[Any] = []


@pytest.fixture(autouse=True)
def cleared() -> Iterator[None]:
    stopped.clear()
    yield
    stopped.set()
    for file in kept:
        file.close()
    kept.clear()


@pytest.mark.parametrize(
    ("kind", "rule", "seen"),
    [
        (Loose, "declared", "an unknown key is accepted"),
        (Nameless, "declared", "type: Literal"),
        (Short, "complete", "6 rows instead of 7"),
        (Miscounting, "complete", "rows says 9, there are 2"),
        (Altering, "complete", "row 0 is (0, 'N0') instead of (0, 'n0')"),
        (Retyping, "complete", "Int32"),
        (OneNumber, "numbered", "piece 0 comes again"),
        (FromOne, "numbered", "not 0, 1, 2"),
        (Endless, "numbered", "[3] have no last part"),
        (Wavering, "repeatable", "cut otherwise"),
        (Hoarding, "bounded", "the 2 chunks before it are still held"),
        (Running, "cancellable", "threads stay behind"),
        (Leaking, "cancellable", "open files stay behind"),
        (Littering, "cancellable", "temporary files stay behind"),
        (Swallowing, "cancellable", "the interrupt is swallowed"),
        (Stubborn, "cancellable", "RuntimeError"),
        (Listed, "cancellable", "no generator"),
        (Forgetful, "resumable", "the pieces [0] were kept; with them, 6 rows instead of 7"),
        (Crashing, "failing", "KeyError instead of a SourceError"),
        (Lenient, "failing", "read without an error"),
        (Logging, "silent", "GET /?token=<secret>"),
        (Telling, "silent", "x?token=<secret>"),
        (Marking, "silent", "<secret>"),
        (Blurting, "silent", "<secret> is refused"),
        (Chaining, "silent", "<secret>"),
    ],
)
def test_a_source_that_breaks_one(kind: type[Any], rule: str, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "stay behind" in seen:
        monkeypatch.setattr(kit, "STOP_SECONDS", 3)  # they stay for good: no need to wait for them to go
    with pytest.raises(Broken) as caught:
        held_to_rules(kind)
    assert caught.value.rule == rule, str(caught.value)
    assert seen in str(caught.value)
    assert Numbers.token not in str(caught.value)


class Since(Numbers):
    """Rows from a number on."""

    more = 0

    class Spec(IncrementalSpec):
        type: Literal["numbers"]
        path: Text = "x"
        token: SecretStr

    def open(self, request: Request) -> Any:
        return plain(lambda: self.since(request.since))

    def since(self, since: Any) -> Iterator[Chunk]:
        for chunk in Numbers.chunks(self):
            frame = chunk.frame if since is None else chunk.frame.filter(pl.col("n") >= since + self.more)
            rows = frame.collect()
            yield replace(chunk, frame=rows.lazy(), rows=rows.height)


class Beyond(Since):
    more = 1


class All(Since):
    more = -9


def test_what_is_asked_for_since() -> None:
    keys = {"path": "x", "token": Numbers.token}
    assert "incremental" in check_source(Since, {**keys, "cursor": "n"}, ROWS).rules
    for kind, found in ((Beyond, 3), (All, 7)):
        with pytest.raises(Broken, match=f"incremental: of the rows since 3: {found} rows instead of 4"):
            check_source(kind, {**keys, "cursor": "n"}, ROWS)
    with pytest.raises(Broken, match="incremental: there is no column 'm', which is the cursor"):
        check_source(Since, {**keys, "cursor": "m"}, ROWS)
    with pytest.raises(Broken, match="mode append needs a cursor"):
        check_source(Since, {**keys, "mode": "append"}, ROWS)


class Growing(Numbers):
    """256 MB, from what is in memory at once."""

    held = True

    def chunks(self) -> Iterator[Chunk]:
        if self.spec.path != "large":
            yield from super().chunks()
            return
        frames = []
        for number in range(64):
            frame = pl.DataFrame({"n": pl.int_range(number, number + 500_000, eager=True)})
            if self.held:
                frames.append(frame)
            yield Chunk(number, "n", frame.lazy(), frame.height)


class Streaming(Growing):
    held = False


def test_memory_is_measured() -> None:
    large = {"path": "large", "token": Numbers.token}
    with pytest.raises(Broken, match=r"within: reading .* took .* of memory"):
        held_to_rules(Growing, large=large, memory_mb=60)
    assert "within" in held_to_rules(Streaming, large=large, memory_mb=60).rules
    with pytest.raises(Broken, match="within: large is"):
        held_to_rules(Streaming, large=large, memory_mb=100)

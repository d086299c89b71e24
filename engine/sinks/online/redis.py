"""Feast's Redis online store: one hash per entity, that all views of the entity share.

Commands are put together as bytes in native code, for thousands of rows at a time; connections, passwords, TLS and
the nodes of a cluster are redis-py's business, told by the repo's own ``connection_string``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from engine.errors import MissingExtra, SinkError
from engine.sinks.feast import OfflineView
from engine.sinks.online import keys, values
from engine.sinks.online.arrays import constant, indices, join, lengths, offsets_in, to_arrow, varints
from engine.sinks.online.config import StoreConfig
from engine.types import redact

_SENT = 4_000  # commands at once
_SECONDS = 15  # to connect
_SIZES = 1_024  # in bytes; of arguments smaller than that, the texts of all sizes are made at once
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class _Commands:
    """For a node, or the one server: keys and commands as Arrow arrays of bytes, and microseconds, of each row."""

    view: str
    node: Any
    keys: Any
    storing: Any
    moments: Any


class Store:
    """An open store; a context manager.

    Raises:
        SinkError: here and in all methods: the server cannot be reached, or refuses.
        MissingExtra: redis-py is not installed.
    """

    def __init__(self, config: StoreConfig) -> None:
        try:
            import redis
        except ImportError:
            raise MissingExtra("redis", "redis", "loading a Redis online store") from None
        self.config = config
        self._failures: tuple[type[Exception], ...] = (redis.RedisError, OSError, TypeError, ValueError)
        self._refused: type[Exception] = redis.ResponseError
        hosts, parameters = config.connection
        self._where = ", ".join(hosts)
        self._cluster = config.options.get("redis_type") == "redis_cluster"
        parameters.setdefault("socket_connect_timeout", _SECONDS)
        ttl = config.options.get("key_ttl_seconds")
        self._ttl = str(int(ttl)).encode() if ttl else b""
        self._connections: dict[Any, tuple[Any, Any]] = {}
        self._alone: dict[Any, int] = {}  # of each node, how many keys we put there; -1: it has others too
        self._latest: dict[Any, int] = {}  # of each node and view, the last moment that we put there
        with self._worded():
            places: list[dict[str, Any]] = [
                dict(zip(("host", "port"), host.split(":"), strict=False)) for host in hosts
            ]
            if self._cluster:
                nodes = [redis.cluster.ClusterNode(**place) for place in places]  # type: ignore[no-untyped-call]
                self._client: Any = redis.RedisCluster(startup_nodes=nodes, **parameters)
            else:
                self._client = redis.Redis(**places[0], **parameters)
                self._connection(None)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(*self._failures):
            for pool, connection in self._connections.values():
                connection.disconnect()
                pool.release(connection)
            self._client.close()

    def holds(self, _: OfflineView) -> bool:
        """A look at all keys would take too long: the ledger is believed."""
        return True

    def prepare(self, view: OfflineView, rows: pl.DataFrame) -> list[_Commands]:
        """What is sent to each node."""
        stored = keys.encode(rows.select(view.key_names), self.config.key_version)
        stored = join(stored, constant(self.config.project.encode(), len(stored)))
        found = []
        for node, places in self._by_node(stored):
            mine = (stored, rows) if len(places) == len(stored) else (stored.take(indices(places)), rows[places])
            found.append(_Commands(view.name, node, *self._commands(view, *mine)))
        return found

    def write(self, prepared: list[_Commands]) -> None:
        """Stores the newest rows of entities; what is stored and newer stays."""
        with self._worded():
            for commands in prepared:
                self._write(self._connection(commands.node), commands)

    def _write(self, connection: Any, commands: _Commands) -> None:
        """Each part is asked for before the one before it is stored, so that the server always has some work."""
        if self._alone_there(connection, commands):
            return
        parts = [slice(start, start + _SENT) for start in range(0, len(commands.keys), _SENT)]
        expected = 0
        for i, part in enumerate(parts):
            if not i:
                _send(connection, _asking(commands, part))
            if i + 1 < len(parts):
                _send(connection, _asking(commands, parts[i + 1]))
            storing, moments = commands.storing[part], commands.moments[part]
            newer = moments >= _moments_in(_replies(connection, len(moments)))
            if not newer.all():
                storing = storing.take(indices(np.flatnonzero(newer)))
            if len(storing):
                _send(connection, storing)
            _replies(connection, expected)
            expected = len(storing) * (2 if self._ttl else 1)
        _replies(connection, expected)

    def _alone_there(self, connection: Any, commands: _Commands) -> bool:
        """Stores all rows unasked and unanswered, where all keys of the database are ours and nothing of the view is
        newer; the number of keys tells whether that is so, and whether all rows were stored.

        If not, or the server refuses to tell, the rows are to be asked for, here and from now on. Whoever else writes
        the same rows meanwhile may lose, as between any question and its answer, and as with Feast.
        """
        node = commands.node.name if commands.node is not None else None
        mine = self._alone.get(node, 0)
        if mine < 0 or self._ttl or not len(commands.keys):  # what expires makes room for what is not ours
            return False
        self._alone[node] = -1
        if commands.moments.min() < self._latest.get((node, commands.view), _NEVER):
            return False
        connection.send_command("DBSIZE")
        try:
            if _replies(connection, 1) != [mine]:
                return False
        except self._refused:  # not everyone may, and not every proxy can
            return False
        mine += len(commands.keys)
        connection.send_command("CLIENT", "REPLY", "OFF")
        for start in range(0, len(commands.storing), _SENT):  # a timeout is for each part
            _send(connection, commands.storing[start : start + _SENT])
        connection.send_command("CLIENT", "REPLY", "ON")
        connection.send_command("DBSIZE")
        try:
            if _replies(connection, 2)[1] != mine:
                return False
        except self._refused:  # and then it answers everything
            connection.disconnect()
            return False
        self._alone[node], self._latest[node, commands.view] = mine, int(commands.moments.max())
        return True

    def _commands(self, view: OfflineView, stored: Any, rows: pl.DataFrame) -> tuple[Any, Any, Any]:
        """For each row its key, what stores it, and its moment."""
        count, size = len(stored), 2 + 2 * (len(view.features) + 1)
        parts = _argument(b"*%d\r\n$4\r\nHSET\r\n" % size, stored)
        moment = b"\r\n" + _constant(_moment(view.name))
        parts += _argument(moment, _moments(rows["event_timestamp"]))
        for name, _ in view.features:
            parts += _argument(b"\r\n" + _constant(_field(view.name, name)), values.encode(rows[name]))
        end = b"\r\n"
        if self._ttl:
            parts += _argument(end + b"*3\r\n$6\r\nEXPIRE\r\n", stored)
            end += _constant(self._ttl)
        return stored, join(*parts, constant(end, count)), rows["event_timestamp"].cast(pl.Int64).to_numpy()

    def stored(self, view: OfflineView) -> Iterator[Any]:
        """The keys of the view's entity, encoded, in Arrow arrays: all keys of the server are looked through."""
        suffix = self.config.project.encode()
        pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", keys.head(view.key_names, self.config.key_version)) + b"*"
        with self._worded():
            nodes = self._client.get_primaries() if self._cluster else [None]
            for node in nodes:
                client = self._client if node is None else self._client.get_redis_connection(node)
                cursor = -1
                while cursor:
                    cursor, found = client.scan(max(cursor, 0), match=pattern, count=10_000)
                    mine = [key.removesuffix(suffix) for key in found if key.endswith(suffix)]
                    yield to_arrow(pl.Series(mine, dtype=pl.Binary))

    def remove(self, view: OfflineView, encoded: Any) -> int:
        """Removes the view's fields for these keys; those that other views have there stay. Gives for how many."""
        stored = join(encoded, constant(self.config.project.encode(), len(encoded)))
        fields = [_moment(view.name), *(_field(view.name, name) for name, _ in view.features)]
        count = 0
        with self._worded():
            for node, places in self._by_node(stored):
                for start in range(0, len(places), _SENT):
                    part = stored.take(indices(places[start : start + _SENT]))
                    head = b"*%d\r\n$4\r\nHDEL\r\n" % (2 + len(fields))
                    names = b"\r\n" + b"".join(map(_constant, fields))
                    connection = self._connection(node)
                    _send(connection, join(*_argument(head, part), constant(names, len(part))))
                    count += sum(map(bool, _replies(connection, len(part))))
        return count

    def _by_node(self, stored: Any) -> Iterator[tuple[Any, Any]]:
        """Which rows go to which node of the cluster; None where there is one server."""
        if not self._cluster:
            yield None, np.arange(len(stored))
            return
        slots = np.fromiter((self._client.keyslot(key) for key in stored.to_pylist()), np.int64, len(stored))
        nodes: dict[str, tuple[Any, list[int]]] = {}
        for slot in np.unique(slots).tolist():
            node = self._client.nodes_manager.get_node_from_slot(slot)
            nodes.setdefault(node.name, (node, []))[1].append(slot)
        for node, owned in nodes.values():
            yield node, np.flatnonzero(np.isin(slots, owned))

    def _connection(self, node: Any) -> Any:
        name = node.name if node is not None else None
        if name not in self._connections:
            client = self._client if node is None else self._client.get_redis_connection(node)
            pool = client.connection_pool
            self._connections[name] = (pool, pool.get_connection())
        return self._connections[name][1]

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            for _, connection in self._connections.values():
                with suppress(*self._failures):
                    connection.disconnect()
            raise SinkError(
                f"Redis failed: {redact(str(error) or type(error).__name__, self.config.secrets)}",
                code="online.redis",
                where=self._where,
                fix="check online_store in feature_store.yaml and that the server is up; then run again: it goes on",
            ) from None


def _send(connection: Any, commands: Any) -> None:
    """Sends commands as they stand."""
    offsets, buffer = offsets_in(commands), commands.buffers()[2]
    connection.send_packed_command([memoryview(buffer)[int(offsets[0]) : int(offsets[-1])]])


def _replies(connection: Any, count: int) -> list[Any]:
    """The replies to so many commands."""
    found = [connection.read_response(disable_decoding=True) for _ in range(count)]
    for reply in found:
        if isinstance(reply, Exception):
            raise reply
    return found


def _asking(commands: _Commands, part: slice) -> Any:
    """What asks for the moments that are stored."""
    found = commands.keys[part]
    end = b"\r\n" + _constant(_moment(commands.view))
    return join(*_argument(b"*3\r\n$4\r\nHGET\r\n", found), constant(end, len(found)))


def _constant(value: bytes) -> bytes:
    """An argument of a Redis command."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


def _argument(before: bytes, found: Any) -> list[Any]:
    """What comes before an argument, its size, and itself, but not the end of its line, as arrays to be joined."""
    sizes = lengths(found)
    most = int(sizes.max(initial=0))
    if most == sizes.min(initial=most):
        head = constant(b"%s$%d\r\n" % (before, most), len(found))
    elif most < _SIZES:
        head = to_arrow(pl.Series([b"%s$%d\r\n" % (before, size) for size in range(most + 1)])).take(indices(sizes))
    else:
        texts = pl.select(pl.format("${}\r\n", pl.Series("size", sizes))).to_series().cast(pl.Binary)
        return [constant(before, len(found)), to_arrow(texts), found]
    return [head, found]


def _moment(view: str) -> bytes:
    """The field of a view's event timestamp."""
    return f"_ts:{view}".encode()


def _field(view: str, feature: str) -> bytes:
    import mmh3

    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def _moments(column: pl.Series) -> Any:
    """Protobuf timestamps: seconds and nanoseconds, zeros left out."""
    moments = column.cast(pl.Int64)
    seconds = (moments // 1_000_000).to_numpy()
    nanos = (moments % 1_000_000 * 1_000).to_numpy()
    parts = []
    for tag, number in ((b"\x08", seconds), (b"\x10", nanos)):
        there = number != 0
        parts += [constant(tag, len(number), there), varints(number.astype(np.int64).view(np.uint64), there)]
    return join(*parts)


def _moments_in(stored: list[Any]) -> Any:
    """In microseconds; of what is not stored the least there is."""
    known: dict[bytes | None, int] = {None: _NEVER}
    for found in set(stored) - {None}:
        known[found] = _microseconds(found)
    return np.fromiter((known[found] for found in stored), np.int64, len(stored))


def _microseconds(stored: bytes) -> int:
    """A protobuf timestamp; what is finer counts as later."""
    numbers = {1: 0, 2: 0}
    place = 0
    while place < len(stored):
        field, value, shift = stored[place] >> 3, 0, 0
        while True:
            place += 1
            value |= (stored[place] & 0x7F) << shift
            shift += 7
            if stored[place] < 0x80:
                break
        place += 1
        numbers[field] = value - 2**64 if value >= 2**63 else value
    return numbers[1] * 1_000_000 - (-numbers[2] // 1_000)

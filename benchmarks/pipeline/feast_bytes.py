"""What Feast stores in Redis, by its key version 3: for who writes it by hand, and for who looks at what is there."""

from __future__ import annotations

import struct

from views import PROJECT


def entity(key: str, of: str | int) -> bytes:
    """The key of a hash: names, values, project."""
    kind, data = (2, of.encode()) if isinstance(of, str) else (4, struct.pack("<q", of))
    named = struct.pack("<III", 1, 2, len(key)) + key.encode()
    return named + struct.pack("<II", kind, len(data)) + data + PROJECT.encode()


def field(view: str, feature: str) -> bytes:
    import mmh3

    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def value(of: float | int) -> bytes:
    """A ValueProto."""
    return b"\x29" + struct.pack("<d", of) if isinstance(of, float) else b"\x20" + varint(of)


def number(stored: bytes) -> float | int | None:
    """What a ValueProto of a number holds."""
    if not stored:
        return None
    if stored[:1] == b"\x29":
        return struct.unpack("<d", stored[1:])[0]
    assert stored[:1] == b"\x20", stored
    return sum((byte & 127) << 7 * i for i, byte in enumerate(stored[1:]))


def varint(of: int) -> bytes:
    out = b""
    while of > 127:
        out += bytes([of & 127 | 128])
        of >>= 7
    return out + bytes([of])

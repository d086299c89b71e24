"""All that a source of another package needs, and what is there of both: see ``docs/sources.md``.

`engine.plugin.kit` is the test kit that every source passes.
"""

from engine.errors import SourceError, TransientSourceError
from engine.plugin.kinds import Kind, kinds
from engine.sources import Chunk, CursorValue, Landed, Plain, Promise, Reading, Request, Source, Span, plain, reading
from engine.spec import IncrementalSpec, SecretStr, SourceSpec
from engine.spec.scalars import Column, Columns, Finite, Text

__all__ = [
    "Chunk",
    "Column",
    "Columns",
    "CursorValue",
    "Finite",
    "IncrementalSpec",
    "Kind",
    "Landed",
    "Plain",
    "Promise",
    "Reading",
    "Request",
    "SecretStr",
    "Source",
    "SourceError",
    "SourceSpec",
    "Span",
    "Text",
    "TransientSourceError",
    "kinds",
    "plain",
    "reading",
]

"""Readings that are broken off and continued, as a run does that was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl

from engine.sources import Landed, Request, Source
from tests.sources.reads import collected


def broken_off(source: Source, pieces: int) -> Request:
    """What to ask for after a reading that landed some whole pieces; has been through JSON, like a ledger's."""
    landed = []
    rows = 0
    with source.open(Request()) as reading:
        seal = reading.seal
        for chunk in reading.chunks():
            rows += chunk.rows or 0
            if chunk.last:
                assert chunk.mark is not None
                landed.append(Landed(chunk.number, rows, json.loads(json.dumps(chunk.mark))))
                rows = 0
            if len(landed) == pieces:
                break
    return Request(seal=json.loads(json.dumps(seal)), landed=landed)


def continued(source: Source, request: Request) -> tuple[frozenset[int], pl.DataFrame]:
    """The pieces that are kept of ``request``, and the rows read now."""
    with source.open(request) as reading:
        kept = reading.kept
        chunks = [replace(chunk, number=chunk.number - len(kept)) for chunk in reading.chunks()]
    assert kept == frozenset(range(len(kept)))  # the first ones
    return kept, collected(chunks) if chunks else pl.DataFrame()

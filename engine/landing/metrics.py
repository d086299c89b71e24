"""What was read of one source, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.ledger import Piece


@dataclass
class Metrics:
    """The figures of one read.

    ``records_read = records_written + records_failed + duplicates_removed``, always.

    Attributes:
        records_failed: rows set aside: those with a null in a critical column, and once the table is judged, those
            that checks put into quarantine or dropped.
        failed_by_column: rows with a null in it, per critical column, and rows that break the contract in it, per
            ``contract.<column>`` (a row may count in several).
        values_discarded: values that the contract left out, per column.
        columns: the types that the columns came with (``A or B``: both), named as they landed.
        schema_changes: what of that is otherwise than in the read before: ``column``, ``change`` (added, removed,
            retyped), ``before``, ``after`` (types, or None) and ``action``: what became of it.
        duplicates_removed: rows that another of their key outranks, or that had landed before, unchanged.
        bytes_processed: size of the table's columns, uncompressed, in bytes.
        duration_seconds: wall time of reading and landing.
        retries: attempts that failed and were followed by another.
        chunks: pieces read and landed by this run.
        chunks_skipped: pieces that an interrupted run had landed, and that still hold.
        rows: of the table as it is now.
        rows_replaced: rows that had landed before and gave way to newer ones of their key.
        rows_deleted: rows removed because the source no longer has them, or marks them as deleted.
        per_chunk: for each piece what `per_chunk` says of it.
    """

    records_read: int = 0
    records_written: int = 0
    records_failed: int = 0
    duplicates_removed: int = 0
    bytes_processed: int = 0
    duration_seconds: float = 0.0
    chunks: int = 0
    chunks_skipped: int = 0
    retries: int = 0
    rows: int = 0
    rows_replaced: int = 0
    rows_deleted: int = 0
    failed_by_column: dict[str, int] = field(default_factory=dict)
    values_discarded: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict, repr=False)
    schema_changes: list[dict[str, Any]] = field(default_factory=list)
    per_chunk: list[Mapping[str, Any]] = field(default_factory=list, repr=False)

    @property
    def error_rate(self) -> float:
        """records_failed / records_read; 0.0 when nothing was read."""
        return self.records_failed / self.records_read if self.records_read else 0.0

    @property
    def rows_per_second(self) -> float:
        """records_read / duration_seconds; 0.0 when no time passed."""
        return self.records_read / self.duration_seconds if self.duration_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "records_read": self.records_read,
            "records_written": self.records_written,
            "records_failed": self.records_failed,
            "duplicates_removed": self.duplicates_removed,
            "bytes_processed": self.bytes_processed,
            "duration_seconds": round(self.duration_seconds, 6),
            "rows_per_second": round(self.rows_per_second, 1),
            "error_rate": self.error_rate,
            "chunks": self.chunks,
            "chunks_skipped": self.chunks_skipped,
            "retries": self.retries,
            "rows": self.rows,
            "rows_replaced": self.rows_replaced,
            "rows_deleted": self.rows_deleted,
            "failed_by_column": dict(self.failed_by_column),
            "values_discarded": dict(self.values_discarded),
            "columns": dict(self.columns),
            "schema_changes": [dict(change) for change in self.schema_changes],
            "per_chunk": [dict(chunk) for chunk in self.per_chunk],
        }


def per_chunk(piece: Piece) -> dict[str, Any]:
    """The figures of a piece, JSON-ready, in a stable order.

    Its rate is 0.0 when no time passed; its retries are the failed attempts before the one that landed it.
    """
    return {
        "number": piece.number,
        "rows": piece.read,
        "seconds": piece.seconds,
        "rows_per_second": round(piece.read / piece.seconds, 1) if piece.seconds else 0.0,
        "retries": piece.retries,
    }

"""What a landed table must be, by the documented promises alone: slow, in memory, one row at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Sums:
    """The figures of one read."""

    records_read: int = 0
    records_written: int = 0
    records_failed: int = 0
    duplicates_removed: int = 0
    rows: int = 0
    rows_replaced: int = 0
    rows_deleted: int = 0


@dataclass
class Oracle:
    """A source's table over several reads, as it is declared; columns that a row lacks are null.

    Attributes:
        order_by: of the rows of one key the largest stays; None: the cursor; without one the later row.
        lateness: how far before its position a read begins.
        rows: the table after the last read.
        position: the largest cursor seen.
    """

    mode: str = "full"
    cursor: str | None = None
    keys: Sequence[str] = ()
    order_by: str | None = None
    lateness: int = 0
    deletes: str = "find"
    tombstone: str | None = None
    critical: Sequence[str] = ()
    rows: list[Row] = field(default_factory=list)
    position: Any = None
    reads: int = 0

    def read(self, source: Sequence[Row]) -> Sums:
        """One more read of what the source holds now, in reading order."""
        first, self.reads = self.reads == 0 or self.mode == "full", self.reads + 1
        read = [row for row in source if self._is_asked_for(row)]
        good = [row for row in read if all(row.get(c) is not None for c in self.critical)]
        sums = Sums(len(read), records_failed=len(read) - len(good))
        old = [] if first else self.rows
        seen = [row[self.cursor] for row in good if self.cursor and row[self.cursor] is not None]
        self.position = max([*seen, *([] if self.position is None else [self.position])], default=None)
        loose, keyed = self._loose(old, good, sums), self._keyed(old, good, sums)
        if self.mode == "merge" and self.deletes == "find" and not first:
            there = {self._key(row) for row in source}
            gone = [key for key in keyed if key not in there]
            sums.rows_deleted += len(gone)
            keyed = {key: row for key, row in keyed.items() if key not in gone}
        table = [*loose, *keyed.values()]
        if self.tombstone:
            kept = [row for row in table if not row.get(self.tombstone)]
            sums.rows_deleted += len(table) - len(kept)
            table = kept
        self.rows = table
        sums.rows = len(table)
        sums.records_written = sums.records_read - sums.records_failed - sums.duplicates_removed
        assert sums.rows == len(old) + sums.records_written - sums.rows_replaced - sums.rows_deleted
        return sums

    def _is_asked_for(self, row: Row) -> bool:
        if self.mode == "full" or self.cursor is None or self.position is None:
            return True
        return row[self.cursor] is None or row[self.cursor] >= self.position - self.lateness

    def _key(self, row: Row) -> tuple[Any, ...] | None:
        key = tuple(row[k] for k in self.keys)
        return None if not key or None in key else key

    def _loose(self, old: Sequence[Row], new: Sequence[Row], sums: Sums) -> list[Row]:
        """Rows that no key tells apart: each once, however often it is read."""
        table = [row for row in old if self._key(row) is None]
        if self.mode == "merge" and self.deletes == "find" and self.cursor is None:  # all was read: all of it is new
            sums.rows_replaced += len(table)
            return [row for row in new if self._key(row) is None]
        before = Counter(map(frozen, table))
        for row in new:
            if self._key(row) is None:
                if before[frozen(row)]:
                    before[frozen(row)] -= 1
                    sums.duplicates_removed += 1
                else:
                    table.append(row)
        return table

    def _keyed(self, old: Sequence[Row], new: Sequence[Row], sums: Sums) -> dict[Any, Row]:
        """The last row of each key: old ones are earlier than new ones."""
        before = {key: row for row in old if (key := self._key(row)) is not None}
        table, read = dict(before), Counter[Any]()
        for row in new:
            if (key := self._key(row)) is None:
                continue
            read[key] += 1
            unranked = not self.order_by and all(r.get(self.cursor or "") is None for r in new if self._key(r) == key)
            if unranked and self.cursor:  # no row of the key that was read now has a cursor: the last is as it is now
                table[key] = row
                continue
            if key not in table or self._rank(row) >= self._rank(table[key]):
                table[key] = row
        for key, count in read.items():
            stayed = key in before and frozen(before[key]) == frozen(table[key])
            sums.duplicates_removed += count - (not stayed)
            sums.rows_replaced += key in before and not stayed
        return table

    def _rank(self, row: Row) -> tuple[bool, Any]:
        column = self.order_by or self.cursor
        value = row.get(column) if column else None
        return (value is not None, 0 if value is None else value)


def frozen(row: Row) -> frozenset[tuple[str, Any]]:
    """A row to compare and count; a null is as good as no column."""
    return frozenset((column, value) for column, value in row.items() if value is not None)


def multiset(rows: Iterable[Row]) -> Counter[frozenset[tuple[str, Any]]]:
    """Rows without their order."""
    return Counter(map(frozen, rows))

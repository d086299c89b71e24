"""How much of everything a page shows, so that it stays a page that opens at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Room:
    """What there is room for; the rest is counted, and stands in the report's JSON.

    Attributes:
        full: failures that are shown with the rows that break them; the others have a line each.
        lines: checks in a list.
        drawn: distributions that are drawn.
        columns: of a table's profile.
        letters: of a message.
        cell: letters of a value in a sample.
    """

    full: int = 120
    lines: int = 1_500
    drawn: int = 60
    columns: int = 180
    letters: int = 400
    cell: int = 120

    def smaller(self) -> Room | None:
        """Half of it: rows and long texts go first, lines last; None: there is nothing to spare."""
        if self.letters > 50:
            halves = {name: getattr(self, name) // 2 for name in ("full", "drawn", "columns", "letters", "cell")}
            return replace(self, **halves)
        return replace(self, lines=self.lines // 2) if self.lines > 100 else None

"""Where landed pieces are recorded: in the ledger, or nowhere."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Protocol

from engine.landing.remote import Remote
from engine.ledger import Ledger, Piece
from engine.steps import reached


class Journal(Protocol):
    """The pieces of one read that have landed.

    Attributes:
        seal: of the reading they are from.
        pieces: by number.
    """

    seal: Mapping[str, Any] | None
    pieces: dict[int, Piece]

    def reading(self, seal: Mapping[str, Any] | None, kept: Container[int]) -> None:
        """A reading begins; of the pieces only those in ``kept`` still hold."""
        ...

    def add(self, piece: Piece) -> None:
        """A piece has landed."""
        ...


class InMemory:
    """Pieces that are forgotten when the process ends."""

    def __init__(self) -> None:
        self.seal: Mapping[str, Any] | None = None
        self.pieces: dict[int, Piece] = {}

    def reading(self, seal: Mapping[str, Any] | None, kept: Container[int]) -> None:
        """See `Journal.reading`."""
        self.seal = seal
        self.pieces = {number: piece for number, piece in self.pieces.items() if number in kept}

    def add(self, piece: Piece) -> None:
        """See `Journal.add`."""
        self.pieces[piece.number] = piece


class InLedger(InMemory):
    """Pieces that a later run can go on from."""

    def __init__(
        self,
        ledger: Ledger,
        read_id: str,
        seal: Mapping[str, Any] | None,
        pieces: Iterable[Piece],
        remote: Remote | None = None,
    ) -> None:
        super().__init__()
        self._ledger, self._read_id, self._remote = ledger, read_id, remote
        self.seal = seal
        self.pieces = {piece.number: piece for piece in pieces}

    def reading(self, seal: Mapping[str, Any] | None, kept: Container[int]) -> None:
        """See `Journal.reading`."""
        self._ledger.reading(self._read_id, seal, kept)
        super().reading(seal, kept)
        reached("read.begun")

    def add(self, piece: Piece) -> None:
        """See `Journal.add`."""
        if self._remote:
            self._remote.keep((*piece.files, *piece.quarantined))
        self._ledger.add_piece(self._read_id, piece)
        super().add(piece)
        reached("piece.committed")

"""Landing: a source's rows as Parquet, mapped, complete in their keys, deduplicated; whole or, piece by piece, resumed.

Order per source: extract → mapping → required and critical columns → deduplication and merging with what landed before.
A piece is landed once the journal (the ledger's) has it; a table, once the ledger has its files and the cursor's
position in one transaction. Files never change: whatever replaces one has a name of its own.
"""

from engine.landing.changes import changes, fresh
from engine.landing.journal import InLedger, Journal
from engine.landing.land import land
from engine.landing.metrics import Metrics
from engine.landing.quarantine import Aside
from engine.landing.remote import Remote
from engine.landing.replay import Replay
from engine.landing.table import LandedTable, Rows
from engine.landing.witness import Watched

__all__ = [
    "Aside",
    "InLedger",
    "Journal",
    "LandedTable",
    "Metrics",
    "Remote",
    "Replay",
    "Rows",
    "Watched",
    "changes",
    "fresh",
    "land",
]

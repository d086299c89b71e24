"""The ledger: the one durable record of runs, reads, landed tables, fits and published files.

SQLite in the workdir, or a PostgreSQL database that several machines share. One lease per pipeline, with an epoch:
whoever has lost the lease can write nothing any more.
"""

from engine.ledger.database import make_folder, make_workdir
from engine.ledger.ledger import Ledger
from engine.ledger.records import Checkpoint, File, KeptProfile, Piece, Quarantined, Read

__all__ = ["Checkpoint", "File", "KeptProfile", "Ledger", "Piece", "Quarantined", "Read", "make_folder", "make_workdir"]

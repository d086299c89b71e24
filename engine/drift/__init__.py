"""Drift: how far a table has moved away from what it was, and whether that is too far.

Effects decide, not probabilities: with enough rows every difference is significant. From profiles at once, with errors
stated; from rows exactly (`rows`, which is where numba is loaded).
"""

from engine.drift.baseline import Baseline, Nothing, Past, from_files, is_profile, read_profile
from engine.drift.column import ColumnDrift
from engine.drift.table import TableDrift, drift_of, of_frames, of_profiles

__all__ = [
    "Baseline",
    "ColumnDrift",
    "Nothing",
    "Past",
    "TableDrift",
    "drift_of",
    "from_files",
    "is_profile",
    "of_frames",
    "of_profiles",
    "read_profile",
]

"""Profiles: what a table looked like, column by column, made in one pass over it and mergeable with exact counts.

Numbers are counted one by one while there are 2,048 distinct ones at most, and then by the cells of a grid (`grid`):
coarser grids put whole cells together, so that profiles of chunks or days add up exactly, in whatever order. How far a
figure that is derived from one can be off is told with it.
"""

from engine.profile.categories import KEPT as CATEGORIES
from engine.profile.column import QUANTILES, ColumnProfile, linear
from engine.profile.column import quantiles as quantiles_of
from engine.profile.numbers import Moments, Numbers, Pieces
from engine.profile.profile import Profile, Profiler, kind_of, measured, profile_of, together

__all__ = [
    "CATEGORIES",
    "QUANTILES",
    "ColumnProfile",
    "Moments",
    "Numbers",
    "Pieces",
    "Profile",
    "Profiler",
    "kind_of",
    "linear",
    "measured",
    "profile_of",
    "quantiles_of",
    "together",
]

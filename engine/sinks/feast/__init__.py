"""Feast: a feature repo that is generated, applied and read by Feast's own means.

The only package that imports Feast, and only inside functions: the import takes seconds.

Time zones: Feast's SQLite store writes an event timestamp as if UTC were local time and reads it back the
same way, so the *timestamps* of online rows are right only where writer and reader have the same TZ, best
without summer time (TZ=UTC). Feature values and the choice of the newest row never depend on TZ.
"""

from engine.sinks.feast.objects import Change, Difference
from engine.sinks.feast.repo import FeatureRepo, Key
from engine.sinks.feast.service import Service
from engine.sinks.feast.view import OfflineView, check_files

__all__ = ["Change", "Difference", "FeatureRepo", "Key", "OfflineView", "Service", "check_files"]

"""``python -m engine`` is ``maestro``."""

from engine.cli import entry

entry()

"""``python -m engine`` is ``maestro``."""

import sys

from engine.cli import main

sys.exit(main())

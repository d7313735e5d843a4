"""Imported first in every worker process: keeps out what libraries would import for nothing.

structlog imports rich for tracebacks in colour, which no log of ours has: 4 MB of private memory
and 45 ms of CPU in each process (measured, nine processes for two cameras and a pair).
"""

import sys

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

"""Imported first in every worker process: keeps out what structlog would import for nothing.

rich, for tracebacks in colour, which no log of ours has, and asyncio, for loggers of coroutines:
4 MB and 45 ms of CPU, 7 MB and 20 ms, in each process (measured, nine processes for two cameras
and a pair). Whoever needs asyncio imports it as ever.
"""

import sys
from types import ModuleType

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
if "asyncio" not in sys.modules:
    sys.modules["asyncio"] = ModuleType("asyncio")
    import structlog  # noqa: F401

    del sys.modules["asyncio"]

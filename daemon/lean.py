"""Imported first in every process of the daemon: keeps out what others would import for nothing.

structlog: rich, for tracebacks in colour, which no log of ours has, and asyncio, for loggers of
coroutines: 4 MB and 45 ms of CPU, 7 MB and 20 ms, in each process (measured, nine processes for two
cameras and a pair). Whoever needs them imports them as ever. pyarrow: see `refuse_pandas`.
"""

import os
import sys
from collections.abc import Sequence
from types import ModuleType

# pydantic reads the metadata of every installed package for plugins, 23 ms; none is for a daemon.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

if "structlog" not in sys.modules:
    hidden = {
        name: stand_in
        for name, stand_in in {"rich": None, "asyncio": ModuleType("asyncio")}.items()
        if name not in sys.modules
    }
    sys.modules.update(hidden)  # type: ignore[arg-type]
    import structlog  # noqa: F401

    for name in hidden:
        del sys.modules[name]


class _Refusing:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not for this process", name=fullname)


def refuse_pandas() -> None:
    """For a whole process: pyarrow imports pandas at its first array, where one is installed, and
    uses nothing of it: 0.19 s of CPU and 27 MB, 40 with its code (measured in a writer)."""
    sys.meta_path.insert(0, _Refusing())

"""For all tests: the same examples in every run, and what may run side by side.

`make test` runs two processes (pytest-xdist). A file's tests stay together, for their fixtures; all
tests of tests/e2e do too, because one daemon that records takes a core.
"""

import signal
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

TOGETHER = "tests/e2e"

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")  # `make soak` draws others: --hypothesis-profile=default


class ByFile(LoadScopeScheduling):
    """Hands out whole files, the longest first, and TOGETHER as if it were one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER if file.startswith(f"{TOGETHER}/") else file


def pytest_configure() -> None:
    """A run in the background of a script ignores ctrl-c, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)

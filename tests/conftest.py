"""For all tests: the same examples in every run, and what may run side by side.

`make test` runs two processes (pytest-xdist) for tests that compute, then one for those that speak
with a robot in real time: on two cores a neighbour would be a fault that nobody ordered.
"""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

ALONE = {"arms", "cameras", "clients", "e2e", "perf", "sim", "simcam", "supervisor"}
"""Folders of tests with serial lines, paced streams or daemons."""

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")  # `make soak` draws others: --hypothesis-profile=default


def pytest_configure() -> None:
    """A run in the background of a script ignores ctrl-c, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone by its folder."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in ALONE:
            item.add_marker("alone")

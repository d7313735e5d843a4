"""For all tests: the same examples in every run, and what may run side by side.

`make test` runs two processes (pytest-xdist) for tests that promise nothing about time, then one
for those that speak with a robot in real time: on two cores a neighbour would be a fault that
nobody ordered.
"""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

ALONE = (
    "arms/test_bus.py", "arms/test_faults.py", "arms/test_release.py", "arms/test_teleop.py", "e2e",
    "simcam/test_true_pose.py",
)  # fmt: skip
BESIDE = (
    "e2e/test_calibration.py", "e2e/test_codecs.py", "e2e/test_steps.py",
    "e2e/test_trash_retention.py",
)  # fmt: skip
"""Folders and files with tests that speak with a robot in real time, and those among them that
promise nothing about time, so that a neighbour cannot be a fault to them."""

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")  # `make soak` draws others: --hypothesis-profile=default


def pytest_configure() -> None:
    """A run in the background of a script ignores ctrl-c, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone, by its folder or file."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here)
        if any(place.is_relative_to(one) for one in ALONE) and str(place) not in BESIDE:
            item.add_marker("alone")

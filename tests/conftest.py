"""For all tests: the same examples in every run, and what may run side by side.

`make test` runs two processes (pytest-xdist). A file's tests stay together, for their fixtures; all
tests of tests/e2e do too, because one daemon that records takes a core.
"""

from pathlib import Path

import pytest
from hypothesis import settings

E2E = Path(__file__).parent / "e2e"

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")  # `make soak` draws others: --hypothesis-profile=default


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        alone = E2E in item.path.parents
        item.add_marker(pytest.mark.xdist_group("e2e" if alone else str(item.path)))

from collections.abc import Iterator

import pytest

from tests.systemd.booted import Machine, booted, missing


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with booted() as running:
        yield running

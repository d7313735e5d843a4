from collections.abc import Iterator

import pytest

from tests.e2e.policybench import OVERRIDES, PolicyBench
from tests.rig import FULL_RATE, SMALL, Robot, running, until

__all__ = ["SMALL", "Robot", "running", "until"]


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    with running(tmp_path_factory.mktemp("robot"), FULL_RATE) as started:
        started.arm()
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    with PolicyBench.running(tmp_path_factory.mktemp("robot"), *OVERRIDES) as bench:
        yield bench


@pytest.fixture
def bench(shared: PolicyBench) -> PolicyBench:
    shared.ready()
    return shared

from collections.abc import Iterator

import pytest

from tests.rig import Robot, running
from tests.said import recctl_of


@pytest.fixture
def recctl(monkeypatch, capsys):
    """Calls recctl's entry point in this process."""
    return recctl_of(monkeypatch, capsys)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    small = [
        f"cameras.{name}.{key}={value}"
        for name in ("front", "wrist")
        for key, value in (("width", 320), ("height", 240))
    ]
    with running(tmp_path_factory.mktemp("robot"), *small) as started:
        yield started

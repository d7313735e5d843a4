"""Fixtures of the dataset tests."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "interop"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from crash_child import CrashServer  # noqa: E402
from studio import Studio  # noqa: E402

from tests.said import recctl_of  # noqa: E402


@pytest.fixture
def studio(tmp_path: Path):
    made = Studio(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def crash():
    """Runs one dataset operation in a process of its own: crash(root, action, uid, fault=...)."""
    server = CrashServer()
    yield server
    server.close()


@pytest.fixture
def recctl(monkeypatch, capsys):
    """Calls recctl's entry point in this process."""
    return recctl_of(monkeypatch, capsys)

import pytest

from tests.said import recctl_of


@pytest.fixture
def recctl(monkeypatch, capsys):
    """Calls recctl's entry point in this process."""
    return recctl_of(monkeypatch, capsys)

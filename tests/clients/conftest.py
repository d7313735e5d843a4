import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from recd.clients.recctl import cli
from tests.rig import Robot, running


@dataclass(frozen=True)
class Said:
    """What one call of recctl left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def recctl(monkeypatch, capsys):
    """Calls recctl's entry point in this process."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["recctl", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        assert "internal error" not in said.err + said.out
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    small = [
        f"cameras.{name}.{key}={value}"
        for name in ("front", "wrist")
        for key, value in (("width", 320), ("height", 240))
    ]
    with running(tmp_path_factory.mktemp("robot"), *small) as started:
        yield started

"""recctl as an operator calls it, in the test's own process: exit code and what was printed."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from recd.clients.recctl import cli


@dataclass(frozen=True)
class Said:
    """What one call of recctl left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def recctl_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Calls recctl's entry point; never a traceback, never an internal error."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["recctl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        assert "internal error" not in said.err + said.out
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call

"""What the doctor says: one finding per thing that was looked at, good ones too."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any


class Level(IntEnum):
    """How bad a finding is; the worst decides."""

    OK = 0
    WARN = 1  # a session works, with losses or surprises to be expected
    FAIL = 2  # a session does not start, or loses what it records

    @property
    def word(self) -> str:
        """ok, warn or fail."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """check: name of the check; subject: which device, folder or setting; expected, mend: empty
    where all is well. mend: best a command."""

    check: str
    subject: str
    level: Level
    found: str
    expected: str = ""
    mend: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"level": self.level.word}


def worst(findings: Iterable[Finding]) -> Level:
    """Level of the worst finding, OK when there is none."""
    return max((finding.level for finding in findings), default=Level.OK)

"""Errors that a person can cause and mend. Their text is the whole message, without traceback."""

from dataclasses import dataclass


class RecdError(Exception):
    """Something an operator can put right.

    code: a stable word for scripts; message: what was expected and what came; mend: what to do,
    best as a command. `str()` gives both in one or two lines.
    """

    code: str = "error"

    def __init__(self, message: str, *, mend: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n  {self.mend}" if self.mend else self.message


class DeviceError(RecdError):
    """A camera or bus that is missing, busy, forbidden or not what the configuration says."""

    code = "device"


class DatasetError(RecdError):
    """A dataset folder that cannot be used as asked; nothing in it was touched."""

    code = "dataset"


class StateError(RecdError):
    """A command that the present state does not allow. `legal` names those that it does."""

    code = "state"

    def __init__(self, message: str, *, state: str, legal: tuple[str, ...], mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.state = state
        self.legal = legal


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in a configuration: where (key path, file:line), expected, found, mend."""

    key: str
    where: str
    expected: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.key}: expected {self.expected}, found {self.found}"
        if self.where:
            text += f" ({self.where})"
        return f"{text}. {self.mend}" if self.mend else text


class ConfigError(RecdError):
    """All problems of a configuration at once; nothing was started."""

    code = "config"

    def __init__(self, problems: list[ConfigProblem]) -> None:
        self.problems = problems
        noun = "problem" if len(problems) == 1 else "problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"configuration: {len(problems)} {noun}\n{lines}")

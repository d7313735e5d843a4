"""The other processes of the measurement: the policy and the plain sockets, started and ended here.

One line of JSON each way; a process that says nothing in time, or ends, is an error with its words.
"""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf.subject import last_words

ANSWER_S = 60.0
END_S = 10.0


class PolicyProcess:
    """A running `recd.perf.policy.client`. log: what it wrote to standard error."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process, self._log = process, log

    def tell(self, do: str, *, wait_s: float = ANSWER_S, **told: Any) -> dict[str, Any]:
        """Say a line and return the answer. RecdError with what went wrong there."""
        line = _exchange(self._process, json.dumps({"do": do, **told}), wait_s)
        if line is None:
            raise RecdError(f"the policy's process did not answer {do!r}:\n{last_words(self._log)}",
                            mend=f"See {self._log}")  # fmt: skip
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise RecdError(f"the policy's process, {do}: {answer['error']}")
        return answer

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not run (SIGSTOP) in this block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def _exchange(process: "subprocess.Popen[str]", line: str, wait_s: float) -> str | None:
    """One line there and one back, None when none came."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    return _line(process, wait_s)


def _line(process: "subprocess.Popen[str]", wait_s: float) -> str | None:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], wait_s)
    return (process.stdout.readline() or None) if ready else None


@contextmanager
def policy_process(directory: Path) -> Iterator[PolicyProcess]:
    """A policy that waits to be told; it ends with the block."""
    log = directory / "policy.log"
    with _started(["recd.perf.policy.client"], log) as process:
        yield PolicyProcess(process, log)


@contextmanager
def echoing(address: str, directory: Path, key: Path | None = None) -> Iterator[str]:
    """A plain REP socket in a process of its own; where it listens. key: of a CURVE server."""
    arguments = [address, *([] if key is None else [str(key)])]
    log = directory / "echo.log"
    with _started(["recd.perf.policy.echo", *arguments], log) as process:
        where = _line(process, ANSWER_S)
        if where is None:
            raise RecdError(f"the plain socket at {address} did not open:\n{last_words(log)}")
        yield where.strip()


@contextmanager
def _started(module: Sequence[str], log: Path) -> "Iterator[subprocess.Popen[str]]":
    with log.open("a") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=sink, text=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        try:
            process.stdin.close()
        except BrokenPipeError:
            process.kill()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

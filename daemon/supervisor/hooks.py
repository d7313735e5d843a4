"""Commands that a user wants run on events: start, stop, reset, fault. Detached, with a time limit.

A hook never delays anything; one that hangs is ended with all its children. It dies with the
daemon.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd.config.models import HooksConfig
from recd.daemon import log
from recd.shm.clock import NS_PER_S

TIMEOUT_NS = 10 * NS_PER_S
RUNNING_MAX = 8
"""Hooks at one time; more events than that are told in the log and not run."""


@dataclass(slots=True)
class _Running:
    event: str
    popen: subprocess.Popen[bytes]
    until_ns: int


class Hooks:
    """Runs the commands of `config`; `watch` reaps them."""

    def __init__(self, config: HooksConfig, instance: str) -> None:
        self._commands: dict[str, str] = {
            event: command for event, command in config.model_dump().items() if command
        }
        self._instance = instance
        self._running: list[_Running] = []
        self._log = log.get_logger()

    def run(self, event: str, now: int, fields: Mapping[str, Any]) -> None:
        """Start the command of `event`, if there is one. Values reach it as RECD_<NAME>."""
        command = self._commands.get(event)
        if command is None:
            return
        if len(self._running) >= RUNNING_MAX:
            self._log.warning("hook not run: too many are running", hook=event)
            return
        environment = {
            **os.environ,
            "RECD_EVENT": event,
            "RECD_INSTANCE": self._instance,
            **{f"RECD_{k.upper()}": str(v) for k, v in fields.items() if _simple(v)},
        }
        try:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "recd.daemon.supervisor.hook", command],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._log.error("hook could not be started", hook=event, reason=str(error))
            return
        self._running.append(_Running(event, popen, now + TIMEOUT_NS))

    def watch(self, now: int) -> None:
        """Reap what has ended, end what takes too long."""
        for hook in list(self._running):
            code = hook.popen.poll()
            if code is None and now < hook.until_ns:
                continue
            if code is None:
                _kill_group(hook.popen)
                code = hook.popen.wait()
                self._log.warning("hook took too long and was ended", hook=hook.event)
            elif code:
                self._log.warning("hook failed", hook=hook.event, code=code)
            self._running.remove(hook)

    def close(self) -> None:
        """End everything that still runs."""
        for hook in self._running:
            _kill_group(hook.popen)
            hook.popen.wait()
        self._running.clear()


def _simple(value: object) -> bool:
    return isinstance(value, str | int | float) and "\0" not in str(value)


def _kill_group(popen: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(popen.pid, signal.SIGKILL)
    except ProcessLookupError:
        return

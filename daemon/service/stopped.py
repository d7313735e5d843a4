"""The stop hook: what happens to the arms after the daemon died instead of ending.

A daemon that ends applies the torque policy itself. One that was killed leaves its followers
holding their last goal; then systemd runs this, before it starts anybody again.
"""

from collections.abc import Callable, Mapping
from typing import Any

from recd.config.errors import DeviceError, RecdError
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

REFUSED_EXIT = "2"
"""Exit code of a daemon that refused its configuration or dataset: it ended in order."""

BUSY_PATIENCE_NS = 5 * NS_PER_S
"""How long a bus may still be held by a dying process."""


def died(environment: Mapping[str, str]) -> str:
    """How the service died, in systemd's words; "" when it ended in order.

    environment: SERVICE_RESULT, EXIT_CODE and EXIT_STATUS as systemd sets them for ExecStopPost.
    """
    result = environment.get("SERVICE_RESULT", "")
    code, status = environment.get("EXIT_CODE", ""), environment.get("EXIT_STATUS", "")
    if result in ("", "success"):
        return ""
    if result == "exit-code" and code == "exited" and status == REFUSED_EXIT:
        return ""
    return f"{result} ({code} {status})".replace(" )", ")")


Release = Callable[[str], Any]


def apply_policy(buses: list[str], release: Release) -> dict[str, str]:
    """Apply the torque policy to each bus, whatever happens at the others.

    release: applies it to one bus by name. Returns per bus what was done or why not.
    """
    return {bus: _patiently(bus, release) for bus in buses}


def _patiently(bus: str, release: Release) -> str:
    until_ns = now_ns() + BUSY_PATIENCE_NS
    while True:
        try:
            report = release(bus)
        except DeviceError as error:
            if error.code == "busy" and now_ns() < until_ns:
                sleep_until_ns(now_ns() + 200 * NS_PER_MS)
                continue
            return f"not applied: {error.message}"
        except RecdError as error:
            return f"not applied: {error.message}"
        held = sum(report.torque_after)
        said = f"policy {report.policy}: torque on at {held} of {len(report.torque_after)} joints"
        return f"{said} ({report.note})" if report.note else said

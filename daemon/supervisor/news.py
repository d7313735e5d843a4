"""What people are told: one call publishes, logs and runs the hook of something that happened."""

from collections.abc import Mapping
from typing import Any

from recd.config.errors import RecdError
from recd.daemon import log
from recd.daemon.supervisor.control import ControlPlane
from recd.daemon.supervisor.hooks import Hooks
from recd.shm.clock import now_ns

HOOK_OF: Mapping[tuple[str, str], str] = {
    ("episode", "started"): "start",
    ("episode", "saved"): "stop",
    ("plan", "reset"): "reset",
}
"""(topic, event) -> hook; everything on the topic `fault` runs the hook `fault`."""

NOT_LOGGED = frozenset({"summary", "event"})


def _worth_saying(key: str, value: object) -> bool:
    return key not in NOT_LOGGED and value is not None and value not in ("", [], {})


class News:
    """The way out for events and for deferred replies; silent before the sockets are open."""

    def __init__(self, hooks: Hooks) -> None:
        self.control: ControlPlane | None = None
        self._hooks = hooks
        self._log = log.get_logger()

    def announce(self, topic: str, event: str, *, log_it: bool = True, **fields: Any) -> None:
        """Publish on `topic`, log (unless a worker did already), run the hook."""
        if log_it:
            say = self._log.warning if topic == "fault" else self._log.info
            say(event, **{key: value for key, value in fields.items() if _worth_saying(key, value)})
        if self.control is not None:
            self.control.publish(topic, event, fields)
        hook = "fault" if topic == "fault" else HOOK_OF.get((topic, event))
        if hook is not None:
            verdict = fields.get("verdict")
            level = {"verdict": verdict["level"]} if isinstance(verdict, Mapping) else {}
            self._hooks.run(hook, now_ns(), {**fields, **level, "name": event})

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        """Answer the requests that wait under `key`."""
        if self.control is not None:
            self.control.resolve(key, outcome)

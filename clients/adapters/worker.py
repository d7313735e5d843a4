"""The process of an adapter: it drives in a thread, and tells the supervisor how that goes.

It is given no ring and no cell of the data plane: it reaches the robot as any policy does, through
the gateway's sockets. Its death is a vanished client.
"""

import select
import threading
from pathlib import Path

from recd.clients.adapters.drive import Drive, Said
from recd.clients.policy import PolicyClient
from recd.config.models import RobotConfig
from recd.config.paths import policy_endpoint
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_S, now_ns

TURN_MS = 200
TOLD_NS = NS_PER_S
LEAVE_S = 1.0
"""How long the loop may take to give the lease back; then it lapses by itself."""


def run(ctx: WorkerContext) -> int:
    """Life of an adapter."""
    return Adapter(ctx).run()


class Adapter:
    """The loop in its thread, and what it says."""

    def __init__(self, ctx: WorkerContext) -> None:
        self._ctx = ctx
        robot = RobotConfig.model_validate(ctx.robot)
        assert robot.policy is not None, "there is no adapter without the section"
        kind, endpoint = robot.policy.type, policy_endpoint(Path(ctx.spec.runtime_dir))
        self._stopping = threading.Event()
        self._said = Said("connecting")
        self._changed = threading.Event()
        self._failure: Exception | None = None
        self._drive = Drive(
            robot,
            connect=lambda: PolicyClient(endpoint=endpoint, name=f"{kind} adapter"),
            say=self._hear,
            stopping=self._stopping,
        )

    def _hear(self, said: Said) -> None:
        self._said = said
        self._changed.set()

    def run(self) -> int:
        """Until told to stop. Raises what went wrong in the loop."""
        thread = threading.Thread(target=self._live, name="recd-drive", daemon=True)
        thread.start()
        self._ctx.ready()
        poller = select.poll()
        poller.register(self._ctx.link.fd, select.POLLIN)
        told_at_ns = 0
        while not self._ctx.stopping and thread.is_alive():
            if poller.poll(TURN_MS):
                self._ctx.messages()
            changed = self._changed.is_set()
            if changed or now_ns() >= told_at_ns:
                told_at_ns = now_ns() + TOLD_NS
                self._tell(changed=changed)
        self._stopping.set()
        thread.join(LEAVE_S)
        if self._failure is not None:
            raise self._failure
        return 0

    def _live(self) -> None:
        try:
            self._drive.run()
        except Exception as error:  # carried to the thread that ends the process by it
            self._failure = error

    def _tell(self, *, changed: bool) -> None:
        self._changed.clear()
        said, status = self._said, self._ctx.status
        for name, count in self._drive.counts.items():
            status.set(name, count)
        status.beat(said.state, progress=self._drive.counts["requests"])
        self._ctx.link.send("adapter", state=said.state, reason=said.reason, mend=said.mend,
                            **self._drive.facts())  # fmt: skip
        if changed:
            level = "warning" if said.reason else "info"
            self._ctx.event(f"adapter {said.state}", level=level, reason=said.reason,
                            mend=said.mend)  # fmt: skip

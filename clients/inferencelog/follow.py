"""A log of whatever policy drives, written by a client that only looks: it can delay nobody.

Asks the gateway for the state of the arms once per row of the dataset, and for the chunks that were
answered since. What the gateway no longer has is lost and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recd.clients.client import RecdClient
from recd.clients.inferencelog import rows
from recd.clients.inferencelog.files import LogFiles
from recd.clients.observation import LoggedChunk, NoObservationError, Observation
from recd.clients.policy import PolicyClient
from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_S, clock_pair, now_ns, wall_iso

LOOK_NS = NS_PER_S
"""How often episode, leases and the relation of the clocks are asked for."""

FREE_NS = 2 * NS_PER_S
"""Nobody holds a lease for so long: the policy was detached."""


@dataclass(slots=True)
class Told:
    """What is known beside the observations. offset_ns: daemon's clock minus this computer's;
    real_ns: wall time minus this computer's clock."""

    episode: rows.Episode = field(default_factory=rows.Episode)
    offset_ns: int = 0
    real_ns: int = 0
    held_ns: int = 0
    looked_ns: int = 0

    def wall_ns(self, daemon_ns: int) -> int:
        return daemon_ns - self.offset_ns + self.real_ns


class InferenceLog:
    """One log from its folder to its end. say: lines for the operator; show: blocks for the
    terminal, None for none. Close when done.
    """

    def __init__(
        self, client: RecdClient, policy: PolicyClient, directory: Path, *, most_bytes: int,
        say: Callable[[str], None], show: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._client, self._policy, self._show = client, policy, show
        self._names = policy.names
        self._told = Told()
        self._step = self._lost_chunks = self._number = 0
        self._seen: Observation | None = None
        dataset = client.status()["dataset"]
        self._row_ns = NS_PER_S // int(dataset["fps"])
        self._look(now_ns())
        self._number = max((chunk.number for chunk in self._all_chunks()), default=0)
        folder = _free_folder(directory / Path(dataset["root"]).name, clock_pair().real_ns)
        self.files = LogFiles(folder, policy.robot["robot"], rows.columns(self._names),
                              most_bytes=most_bytes, say=say)  # fmt: skip

    def _all_chunks(self) -> list[LoggedChunk]:
        """Chunks from before this log: it begins behind them."""
        found: list[LoggedChunk] = []
        while more := self._policy.chunks(found[-1].number if found else 0):
            found += more
        return found

    def follow(self, *, for_s: float | None = None) -> None:
        """Until the time is over or the policy was detached. RecdError when the daemon has gone."""
        until_ns = None if for_s is None else now_ns() + int(for_s * NS_PER_S)
        while until_ns is None or now_ns() < until_ns:
            self.step()
            now = now_ns()
            if now - self._told.looked_ns >= LOOK_NS:
                self._look(now)
                if now - self._told.held_ns > FREE_NS:
                    return

    def step(self) -> None:
        """One look: a row of state, and whatever chunks were answered since the last one."""
        newer_than_ns = 0 if self._seen is None else self._seen.t_ref_ns + self._row_ns - 1
        try:
            seen: Observation | None = self._policy.observe(
                cameras=[], newer_than_ns=newer_than_ns, telemetry=True
            )
        except NoObservationError:
            seen = None
        at_ns = now_ns() + self._told.offset_ns if seen is None else seen.t_ref_ns
        self._step += 1
        self._seen = seen
        width = len(self._names)
        self.files.add(
            rows.STATE, rows.state_row(seen, self._step, at_ns, self._told.wall_ns(at_ns), width)
        )
        for chunk in self._policy.chunks(self._number):
            self._take(chunk)
        self.files.flush(now_ns())

    def _take(self, chunk: LoggedChunk) -> None:
        missed = chunk.number - self._number - 1
        self._lost_chunks += max(0, missed)
        self._number = chunk.number
        if not chunk.told.get("task") and self._seen is not None:
            chunk = replace(chunk, told={**chunk.told, "task": self._seen.task})
        width, received_ns = len(self._names), int(chunk.told["received"])
        wall_ns = self._told.wall_ns(received_ns)
        self.files.add(rows.INFERENCE, rows.inference_row(chunk, wall_ns, width))
        seen_wall_ns = self._told.wall_ns(int(chunk.told.get("t_ref") or received_ns))
        for row in rows.trajectory_rows(chunk, self._told.episode, seen_wall_ns, width):
            self.files.add(rows.TRAJECTORY, row)
        if self._show is not None:
            for line in rows.block(chunk, self._seen, self._names, wall_ns):
                self._show(line)

    def _look(self, now: int) -> None:
        told, pair = self._told, clock_pair()
        told.looked_ns = now
        told.real_ns = pair.real_ns - pair.mono_ns
        told.offset_ns = self._policy.clock(samples=4)[0]
        told.episode = rows.told_facts(self._client.call("plan.status"))
        leases = self._policy.call("stats")["leases"]
        if not told.held_ns or any(lease["kind"] != "nobody" for lease in leases.values()):
            told.held_ns = now

    def end(self) -> dict[str, Any]:
        """Write what waits, and say what is there. The files are closed then."""
        self.files.flush(now_ns(), last=True)
        told = {"folder": str(self.files.folder), "rows": self.files.rows,
                "lost_rows": self.files.lost, "lost_chunks": self._lost_chunks}  # fmt: skip
        self.files.close()
        return told


def _free_folder(parent: Path, real_ns: int) -> Path:
    """`<parent>/<date_time>` in UTC, with a number behind it where that is taken."""
    name = wall_iso(real_ns)[:19].replace("T", "_").replace(":", "-")
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}_{number}")
        if not folder.exists():
            return folder
    raise RecdError(f"inference log: {parent / name} and its neighbours are taken", code="os")


def ended_lines(told: dict[str, Any]) -> list[str]:
    """The end of a log in words."""
    counts = ", ".join(f"{count} rows of {name}" for name, count in told["rows"].items())
    lines = [f"inference log: {told['folder']}: {counts}"]
    if told["lost_rows"]:
        lines.append(f"  {told['lost_rows']} rows could not be written")
    if told["lost_chunks"]:
        lines.append(f"  {told['lost_chunks']} chunks came faster than they could be logged")
    return lines

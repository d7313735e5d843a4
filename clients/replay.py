"""Replay of a saved episode: its actions as chunks of the policy API, by a lease of that kind.

An ordinary client: limits, holds and take-over are the arm's, and anybody else's lease outranks
it. Pictures are neither asked for nor looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.policy import Ack, NoObservationError, Observation, PolicyClient, task_of
from recd.config.errors import RecdError
from recd.config.policy_wire import Status
from recd.shm.clock import NS_PER_S

Floats = npt.NDArray[np.float64]

AHEAD_NS = 3 * NS_PER_S // 2
"""How far ahead rows are sent: a replay that is stopped or dies holds within that or less."""

EVERY_NS = NS_PER_S // 5
LEAD_IN_PER_S = 30.0
"""Speed of the way to the first row, in dataset units; the arm's own limits come on top."""

MOST_ROWS = 256
HARMLESS = (Status.APPLIED, Status.SHADOW, Status.ALL_LATE, Status.OLD_OBS, Status.BEFORE_HOLD)
PATIENCE = 20


@dataclass(frozen=True, slots=True)
class Actions:
    """One episode's actions. names: its columns; rows: float64 [R, D] in dataset units."""

    names: tuple[str, ...]
    rows: Floats
    fps: float
    task: str


def read_actions(root: Path, episode: int) -> Actions:
    """Actions of episode number `episode` of the dataset at `root`. DatasetError or RecdError."""
    import pyarrow.compute as pc

    from recd.daemon.dataset.layout import FileIndex, Layout, data_name
    from recd.daemon.dataset.parquet import read_table
    from recd.daemon.dataset.state import read_episodes, read_info

    info = read_info(Layout(root).info)
    columns = ["episode_index", "data/chunk_index", "data/file_index", "tasks"]
    table = read_episodes(root, columns=columns)
    found = [] if table is None else [
        row for row in table.to_pylist() if row["episode_index"] == episode
    ]  # fmt: skip
    if not found:
        raise RecdError(
            f"episode {episode}: {root} has episodes 0..{int(info['total_episodes']) - 1}",
            mend="recctl dataset info ROOT lists them.", code="argument",
        )  # fmt: skip
    place = FileIndex(found[0]["data/chunk_index"], found[0]["data/file_index"])
    data = read_table(root / data_name(place), ["action", "episode_index"])
    mine = data.filter(pc.equal(data["episode_index"], episode))["action"].combine_chunks()
    names = tuple(info["features"]["action"]["names"])
    rows = np.array(mine.flatten(), np.float64).reshape(-1, len(names))
    return Actions(names, rows, float(info["fps"]), str((found[0]["tasks"] or [""])[0]))


class Replay:
    """One replay by one client. attach: what lets it drive, once it has warmed up."""

    def __init__(
        self, client: PolicyClient, actions: Actions, *, attach: Callable[[], object],
    ) -> None:  # fmt: skip
        self._client, self._actions, self._attach = client, actions, attach
        if client.names != actions.names:
            raise RecdError(
                f"replay: the episode has {', '.join(actions.names)}, this robot "
                f"{', '.join(client.names)}",
                mend="Replay it on the robot that recorded it, or one of the same kind.",
                code="layout",
            )

    def run(self, tell: Callable[[float, float], None] = lambda done, of: None) -> dict[str, Any]:
        """Play it to its end. tell: seconds played, of how many. RecdError when it is refused or
        somebody takes the arm; the arm holds then.
        """
        client = self._client
        client.acquire(kind="replay")
        self._warm_up()
        self._attach()
        seen = self._first_permitted()
        targets_ns, rows = self._plan(seen)
        clipped = 0
        while seen.t_ref_ns < targets_ns[-1]:
            at = int(np.searchsorted(targets_ns, seen.t_ref_ns, side="right"))
            until = int(np.searchsorted(targets_ns, seen.t_ref_ns + AHEAD_NS, side="right"))
            until = min(max(until, at + 1), at + MOST_ROWS, len(rows))
            ack = self._send(seen, rows[at:until], targets_ns[at:until])
            clipped = max(clipped, ack.clipped)
            tell((seen.t_ref_ns - targets_ns[0]) / NS_PER_S,
                 (targets_ns[-1] - targets_ns[0]) / NS_PER_S)  # fmt: skip
            seen = self._observe(seen.t_ref_ns + EVERY_NS)
            self._check_permitted(seen)
        return {"rows": len(self._actions.rows), "fps": self._actions.fps,
                "task": self._actions.task, "clipped": clipped}  # fmt: skip

    def _plan(self, seen: Observation) -> tuple[npt.NDArray[np.int64], Floats]:
        """(target times, rows): a straight way to the first row, then the episode at its rate."""
        rows, state = self._actions.rows, seen.state.astype(np.float64)
        state = np.where(np.isfinite(state), state, rows[0])
        way_s = float(np.abs(rows[0] - state).max()) / LEAD_IN_PER_S
        steps = 1 + int(np.ceil(way_s * self._actions.fps))
        shares = np.arange(1, steps + 1)[:, None] / steps
        whole = np.concatenate([state + (rows[0] - state) * shares, rows[1:]])
        offsets = np.arange(1, len(whole) + 1) * (NS_PER_S / self._actions.fps)
        return seen.t_ref_ns + offsets.astype(np.int64), whole

    def _warm_up(self) -> None:
        """The chunks that the start gate wants to see: staying where the arm is."""
        wanted, sound = int(self._client.robot["chunk"]["warm_up"]), 0
        for _ in range(wanted + PATIENCE):
            seen = self._observe(0)
            stay = np.repeat(seen.state.astype(np.float64)[None], 30, axis=0)
            sound += self._client.act(seen, stay, dt_s=1 / 30).status is Status.SHADOW
            if sound >= wanted:
                return

    def _first_permitted(self) -> Observation:
        for _ in range(PATIENCE):
            seen = self._observe(0)
            held_ns = max((arm.held_ns for arm in seen.arms.values()), default=0)
            if seen.permitted and seen.t_ref_ns > held_ns:
                return seen
        self._check_permitted(seen)
        raise RecdError("replay: the arm did not let it begin", mend="recctl policy stats",
                        code="state")  # fmt: skip

    def _observe(self, newer_than_ns: int) -> Observation:
        for _ in range(PATIENCE):
            try:
                return self._client.observe(cameras=[], newer_than_ns=newer_than_ns)
            except NoObservationError as error:
                why = error
        raise why

    def _send(self, seen: Observation, rows: Floats, targets_ns: Any) -> Ack:
        offsets = [int(at) for at in targets_ns - seen.t_ref_ns]
        ack = self._client.act(
            seen, rows, dt_s=1 / self._actions.fps, offsets_ns=offsets,
            facts=task_of(self._actions.task),
        )  # fmt: skip
        if ack.status not in HARMLESS:
            raise RecdError(f"replay: {ack.status}: {ack.reason}", mend=ack.mend, code="state")
        return ack

    def _check_permitted(self, seen: Observation) -> None:
        for pair, arm in seen.arms.items():
            if not arm.permitted:
                raise RecdError(
                    f"replay: {pair} was taken from it: {arm.motion} "
                    f"({arm.cause.replace('_', ' ')})",
                    mend="Start it again: recctl replay EPISODE", code="state",
                )  # fmt: skip

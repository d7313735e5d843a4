"""A recd daemon as one LeRobot robot: observations with ages, actions as chunks with deadlines.

Nothing here moves an arm: the daemon's arm process plays a chunk while the lease is this program's,
a person has attached it, and the chunk's observation is young. Otherwise the arm holds, and the
reason is logged once. Calls may come from several threads; they are carried out one by one.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from lerobot.robots.robot import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from recd.clients.policy import Ack, NoObservationError, Observation, PolicyClient
from recd.config.errors import RecdError
from recd.config.policy_wire import Status
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

from .config_recd import RecdRobotConfig
from .pictures import rgb

LOG = logging.getLogger("recd")
Floats = npt.NDArray[np.float64]

ANCHOR_NS = 400 * NS_PER_MS
"""Older than this, the observation that lerobot saw last is no reason to move: the state is asked
for anew. The daemon's own limit is a second."""

AGAIN = (Status.ALL_LATE, Status.OLD_OBS, Status.BEFORE_HOLD, Status.UNKNOWN_OBS, Status.BUSY)
"""Answers that a newer observation may mend; each action is tried twice."""

FATAL = (Status.STALE_EPOCH, Status.LAYOUT, Status.MALFORMED, Status.NOT_FINITE, Status.REFUSED)
"""Answers that will not change: the program ends, and its own clean-up runs."""

KEEP_NS = 250 * NS_PER_MS
STAY_NS = 100 * NS_PER_MS


class RecdRobot(Robot):
    """`--robot.type=recd`. Units and order of joints are those of the daemon's dataset.

    seen: the last observation as it came, None before; refused: answers to actions, by status, for
    all that was not played. Methods raise RecdError with what to do, DeviceNotConnectedError before
    `connect` and after `disconnect`.
    """

    config_class = RecdRobotConfig
    name = "recd"

    def __init__(self, config: RecdRobotConfig) -> None:
        super().__init__(config)
        self.config = config
        self.seen: Observation | None = None
        self.refused: dict[str, int] = {}
        self._client: PolicyClient | None = None
        self._lock = threading.RLock()
        self._keeper: _Keeper | None = None
        self._anchored: Observation | None = None
        self._frame_ns = self._heard_ns = 0
        self._told = ""

    # --- what it is --------------------------------------------------------------------------

    @property
    def observation_features(self) -> dict[str, type | tuple[int, int, int]]:
        """Joints as float, cameras as (height, width, 3); asks the daemon when it is not known."""
        return {**self.action_features, **self.cameras}

    @property
    def action_features(self) -> dict[str, type]:
        """Joints as float, named as in the daemon's dataset (`shoulder_pan.pos`)."""
        return dict.fromkeys(self._reached().names, float)

    @property
    def cameras(self) -> dict[str, tuple[int, int, int]]:
        """Cameras of the daemon: name -> (height, width, 3)."""
        told = self._reached().robot["cameras"]
        return {name: (facts["height"], facts["width"], 3) for name, facts in told.items()}

    @property
    def ages_s(self) -> dict[str, float]:
        """Age of each picture of the last observation, in seconds, when the daemon sent it."""
        seen = self.seen
        return {} if seen is None else {
            name: seen.facts[name]["age_ns"] / NS_PER_S for name in seen.images
        }  # fmt: skip

    @property
    def is_connected(self) -> bool:
        return self._keeper is not None

    @property
    def is_calibrated(self) -> bool:
        """True: the daemon does not start an arm without its calibration."""
        return True

    def calibrate(self) -> None:
        """Nothing: recd's calibration counts."""

    def configure(self) -> None:
        """Nothing: recd's configuration counts."""

    def _reached(self) -> PolicyClient:
        with self._lock:
            if self._client is None:
                config = self.config
                self._client = PolicyClient(
                    config.instance, endpoint=config.endpoint, key=config.key,
                    name=f"lerobot {config.id or ''}".strip(),
                )  # fmt: skip
            return self._client

    # --- lease -------------------------------------------------------------------------------

    def connect(self, calibrate: bool = True) -> None:
        """Take the lease, then wait until a person lets this program drive (`attach_s`).

        Meanwhile it sends chunks that stay where the arm is: what a policy has to have sent before
        it may be attached.
        """
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} is connected already")
        with self._lock:
            client = self._reached()
            client.acquire(adapter="lerobot plugin")
            self._keeper = _Keeper(client, self.config.busy_s)
            try:
                self._look()
                if self.config.attach_s:
                    self._await_person(client)
            except BaseException:
                self.disconnect()
                raise

    def _await_person(self, client: PolicyClient) -> None:
        LOG.warning("recd: ready; a person lets it drive: recctl policy attach")
        deadline_ns = now_ns() + int(self.config.attach_s * NS_PER_S)
        while now_ns() < deadline_ns:
            seen = self._asked(cameras=())
            ack = client.act(seen, self._rows(seen.state.astype(float)), **self._times(seen))
            self._check(ack)
            if ack.status is Status.APPLIED:
                return
            self._say(ack, seen)
            sleep_until_ns(now_ns() + STAY_NS)
        raise RecdError(
            f"nobody attached this program within {self.config.attach_s:g} s",
            mend="recctl policy attach, after it says that it is ready; --robot.attach_s waits "
            "longer, 0 goes on without: everything is judged then, and nothing moves.",
        )

    def disconnect(self) -> None:
        """Give the lease back: the arm holds. Idempotent."""
        with self._lock:
            if self._keeper is not None:
                self._keeper.stop()
                self._keeper = None
            if self._client is not None:
                self._client.close()
                self._client = None
            self.seen = self._anchored = None

    def _leased(self) -> PolicyClient:
        if self._keeper is None or self._client is None:
            raise DeviceNotConnectedError(f"{self} is not connected: call connect()")
        self._keeper.used()
        return self._client

    # --- observations ------------------------------------------------------------------------

    def get_observation(self) -> dict[str, Any]:
        """Joints at the time of the newest pictures, and those: float, uint8 [H, W, 3] in RGB.

        A picture too old, one that stands still or a joint without a reading is no observation: it
        is waited for (`frames_s`), then NoObservationError names it.
        """
        with self._lock:
            self._leased()
            seen = self._look()
        joints = dict(zip(self.action_features, map(float, seen.state), strict=True))
        return {**joints, **{n: rgb(data, seen.facts[n]) for n, data in seen.images.items()}}

    def _look(self) -> Observation:
        """The newest pictures and the state at their time, all of it known."""
        after_ns = self._frame_ns if self.config.new_frames else 0
        self.seen = self._asked(cameras=None, after_ns=after_ns)
        self._frame_ns = self.seen.t_ref_ns
        return self.seen

    def _asked(self, *, cameras: tuple[str, ...] | None, after_ns: int = 0) -> Observation:
        """An observation, however long it takes within `frames_s`; actions answer it from here."""
        deadline_ns = now_ns() + int(self.config.frames_s * NS_PER_S)
        while True:
            try:
                seen = self._reached().observe(cameras=cameras, newer_than_ns=after_ns, again=True)
                self._check_whole(seen)
            except NoObservationError:
                if now_ns() >= deadline_ns:
                    raise
                continue
            self._anchored, self._heard_ns = seen, now_ns()
            return seen

    def _check_whole(self, seen: Observation) -> None:
        unknown = [n for n, v in zip(self.action_features, seen.state, strict=True) if v != v]
        if unknown:
            raise NoObservationError(
                f"no observation: no reading of {', '.join(unknown)}",
                mend="recctl status shows the arms.",
            )

    # --- actions -----------------------------------------------------------------------------

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Ask for these positions one step from now. Joints that are left out hold.

        Returns what is really asked of the arm: the positions within the joints' ranges, or, when
        the action is not played (nobody attached it, a person interrupts it, it begins too far
        away), where the arm is. Raises RecdError when it never will be: the lease is lost, the
        action is no number.
        """
        with self._lock:
            client = self._leased()
            goal = self._goal(action)
            known = np.isfinite(goal)
            for fresh in (False, True):
                seen = self._anchor(fresh=fresh)
                ack = client.act(seen, self._rows(np.where(known, goal, 0.0)),
                                 mask=known.tolist(), **self._times(seen))  # fmt: skip
                if ack.status not in AGAIN:
                    break
            self._check(ack)
            self._say(ack, seen)
            if ack.status is not Status.APPLIED:
                self.refused[ack.status] = self.refused.get(ack.status, 0) + 1
                return dict(zip(client.names, map(float, seen.state), strict=True))
            limits = client.robot["action"]
            asked = np.where(known, np.clip(goal, limits["low"], limits["high"]), seen.state)
            return dict(zip(client.names, map(float, asked), strict=True))

    def _goal(self, action: Mapping[str, Any]) -> Floats:
        """float64 [D] in the daemon's order, NaN where the action says nothing."""
        names = self._reached().names
        if unknown := sorted(set(action) - set(names)):
            raise RecdError(
                f"action: expected {', '.join(names)}, found {', '.join(map(str, unknown))} beside",
                mend="Is it the policy, or the teleoperator, of this robot?",
            )
        values = {name: float(value) for name, value in action.items()}
        if wrong := [name for name, value in values.items() if not np.isfinite(value)]:
            raise RecdError(f"action: expected numbers, found none for {', '.join(wrong)}")
        return np.array([values.get(name, np.nan) for name in names])

    def _anchor(self, *, fresh: bool) -> Observation:
        """What the action answers: what lerobot saw last, or the newest state."""
        seen = self._anchored
        if fresh or seen is None or self._now(seen) - seen.t_ref_ns > ANCHOR_NS:
            return self._asked(cameras=())
        return seen

    def _now(self, seen: Observation) -> int:
        """Time on the daemon's clock, late by the answer's way: no clock has to agree."""
        return seen.sent_ns + now_ns() - self._heard_ns

    def _rows(self, goal: Floats) -> Floats:
        """Reach it, then stand there: two rows."""
        return np.stack([goal, goal])

    def _times(self, seen: Observation) -> dict[str, Any]:
        step_ns = round(NS_PER_S / self.config.fps)
        first_ns = self._now(seen) - seen.t_ref_ns + step_ns
        stands_ns = first_ns + round(self.config.hold_s * NS_PER_S)
        return {"dt_s": 1.0 / self.config.fps, "offsets_ns": (first_ns, stands_ns)}

    def _check(self, ack: Ack) -> None:
        if ack.status in FATAL:
            raise RecdError(f"{ack.status}: {ack.reason}", mend=ack.mend, code=str(ack.status))

    def _say(self, ack: Ack, seen: Observation) -> None:
        """The answer in words, when it is another one than before."""
        if ack.status is Status.APPLIED:
            said = "recd: the arm follows"
        elif ack.status is Status.SHADOW:
            arms = "; ".join(f"{p} {a.motion} {a.cause}".rstrip() for p, a in seen.arms.items())
            said = f"recd: judged only, nothing moves ({arms}); recctl policy attach or resume"
        else:
            said = f"recd: not played: {ack.status}: {ack.reason}. {ack.mend}".rstrip()
        if said != self._told:
            self._told = said
            LOG.log(logging.INFO if ack.status is Status.APPLIED else logging.WARNING, said)


class _Keeper:
    """Keeps the lease while lerobot is busy elsewhere: until `busy_s` after the last call, the
    heartbeat goes on. Motion does not depend on it: an action stands for `hold_s` and no longer.
    """

    def __init__(self, client: PolicyClient, busy_s: float) -> None:
        self._client, self._busy_ns = client, int(busy_s * NS_PER_S)
        self._used_ns = now_ns()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recd-keeper", daemon=True)
        self._thread.start()

    def used(self) -> None:
        """lerobot called."""
        self._used_ns = now_ns()

    def _run(self) -> None:
        while not self._stopped.wait(KEEP_NS / NS_PER_S):
            if now_ns() - self._used_ns <= self._busy_ns:
                self._client.progress += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

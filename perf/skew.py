"""Where the arm truly was: the simulator's poses against the joint values and times of the rows.

A row says when its picture was taken and that its joints stand for the row's time. Both are checked
against the truth: the picture by its stamp, the joints by the moment at which the simulated arm
really stood like that. Limit: a servo reports whole steps, so slow rows tell little and are left
out.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import DeviceError
from recd.daemon.sim.pose import PoseHistory
from recd.perf.figures import quantiles
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

KEEP_EVERY_NS = 2 * NS_PER_S
"""The simulator's file holds four seconds; copies this often miss nothing."""

LEAST_SPEED_STEPS_S = 150.0
"""Rows in which the arm is slower (root of the sum of squares of its joints) are not judged: half
a step of rounding would be more than 3 ms."""

_REACH_NS = 20 * NS_PER_MS
_STEP_DEGREES = 360.0 / 4095.0  # LeRobot's own divisor, one less than the steps of a turn
_TURN = 4096.0


class PoseTrack:
    """Keeps the simulator's poses of a whole run, as copies of its file taken in time."""

    def __init__(self, source: Path, directory: Path) -> None:
        """source: pose file of the running simulator; directory: for the copies."""
        self._source = source
        self._directory = directory
        self._copies: list[Path] = []
        self._due_ns = 0
        directory.mkdir(parents=True, exist_ok=True)

    def keep(self, *, at_once: bool = False) -> None:
        """Copy the file when that is due; call at least every second."""
        now = now_ns()
        if now < self._due_ns and not at_once:
            return
        self._due_ns = now + KEEP_EVERY_NS
        copy = self._directory / f"pose-{len(self._copies):05d}.bin"
        try:
            shutil.copyfile(self._source, copy)
        except OSError as error:
            raise DeviceError(
                f"{self._source}: expected the pose file of the simulated robot, found: {error}",
                mend="Only a simulated robot knows where it truly was; measure with `sim` arms.",
            ) from error
        self._copies.append(copy)

    def poses(self) -> "Poses":
        """Everything kept, to be asked by time."""
        return Poses([PoseHistory(copy) for copy in self._copies])


class Poses:
    """True joint angles at any time of a run."""

    def __init__(self, histories: Sequence[PoseHistory]) -> None:
        self._parts = [(*history.span_ns(), history) for history in histories]

    def columns(self, bus: str) -> list[int]:
        """Positions of the joints of one bus, in servo order."""
        joints = self._parts[0][2].joints
        return [at for at, joint in enumerate(joints) if joint.bus == bus]

    def centre_steps(self, columns: Sequence[int]) -> Floats:
        """Mechanical angle (steps) of the middle of each range: LeRobot's zero degrees."""
        joints = self._parts[0][2].joints
        return np.array([(joints[at].low + joints[at].high) / 2 for at in columns])

    def angles_at(self, t_ns: int) -> Floats | None:
        """Mechanical angles (steps, unwrapped) of all joints; None outside what was kept."""
        for oldest, newest, history in self._parts:
            if oldest <= t_ns < newest:
                return history.angles_at(t_ns)
        return None


@dataclass(frozen=True, slots=True)
class JointTruth:
    """When the arm truly stood as the rows say.

    late_ns: float64 [K], true time of the joint values less the row's time; NaN where it cannot be
    told. speed: float64 [K], steps a second.
    """

    late_ns: Floats
    speed: Floats

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.late_ns)


def joint_truth(
    state_degrees: npt.NDArray[np.float32], rows_ns: Int64s, poses: Poses, *, bus: str,
    judged: Sequence[int],
) -> JointTruth:  # fmt: skip
    """Find for every row the moment at which the arm stood as its state says.

    state_degrees: [K, J] as stored; rows_ns: int64 [K]; judged: joints in degrees that are
    interpolated in time (no gripper). The nearest moment, in the sense of least squares over those
    joints, along the true movement.
    """
    columns = [poses.columns(bus)[joint] for joint in judged]
    centre = poses.centre_steps(columns)
    stored = state_degrees[:, list(judged)].astype(np.float64) / _STEP_DEGREES + centre
    late = np.full(len(rows_ns), np.nan)
    speed = np.zeros(len(rows_ns))
    for row, row_ns in enumerate(rows_ns.tolist()):
        found = _time_of(stored[row], row_ns, poses, columns)
        if found is not None:
            late[row], speed[row] = found
    return JointTruth(late, speed)


def _time_of(
    stored: Floats, row_ns: int, poses: Poses, columns: Sequence[int]
) -> tuple[float, float] | None:
    """(ns after the row, steps a second), by two steps of Newton's method; None when too slow."""
    late, speed = 0.0, 0.0
    for _ in range(2):
        around = _around(row_ns + round(late), poses, columns)
        if around is None:
            return None
        here, velocity = around
        speed = float(np.sqrt(velocity @ velocity))
        if speed < LEAST_SPEED_STEPS_S:
            return None
        off = (stored - here + _TURN / 2) % _TURN - _TURN / 2
        late += float(off @ velocity) / speed**2 * NS_PER_S
        if abs(late) > 4 * _REACH_NS:
            return None
    return late, speed


def _around(
    at_ns: int, poses: Poses, columns: Sequence[int], *, half_ns: int = 4 * NS_PER_MS
) -> tuple[Floats, Floats] | None:
    before, here, after = (poses.angles_at(at_ns + shift) for shift in (-half_ns, 0, half_ns))
    if before is None or here is None or after is None:
        return None
    velocity = (after - before)[list(columns)] * (NS_PER_S / (2 * half_ns))
    return here[list(columns)], velocity


def skew_figures(
    joints: JointTruth, *, captured_ns: Int64s, claimed_ns: Int64s, rows_ns: Int64s
) -> dict[str, Any]:
    """Skew between joints and picture of one camera: what is true, and how far the rows are off.

    captured_ns: true capture times (0 unknown); claimed_ns: as the rows say. Skew is joint time
    less picture time. true_ms: |true skew|; error_ms: |said skew - true skew|, both over the rows
    that can be judged; joint_error_ms: |joint time - row time| alone; bias_ms: median of said less
    true.
    """
    usable = joints.judged & (captured_ns > 0) & (claimed_ns > 0)
    joint_ns = rows_ns[usable] + joints.late_ns[usable]
    true_ns = joint_ns - captured_ns[usable]
    said_ns = (rows_ns - claimed_ns)[usable].astype(np.float64)
    error = said_ns - true_ns
    return {
        "rows_judged": int(usable.sum()),
        "true_ms": quantiles(np.abs(true_ns), scale=NS_PER_MS),
        "error_ms": quantiles(np.abs(error), scale=NS_PER_MS),
        "bias_ms": float(np.median(error)) / NS_PER_MS if len(error) else None,
        "joint_error_ms": quantiles(np.abs(joints.late_ns[usable]), scale=NS_PER_MS),
        "joint_bias_ms": float(np.median(joints.late_ns[usable])) / NS_PER_MS
        if len(error)
        else None,
    }

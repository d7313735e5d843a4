"""A dataset of any recorder judged by what is in it alone: stamps, joint values, the true poses.

No manifest, no row log: what a recorder says of itself does not count here, so two recorders can
stand in one table. Limit: joints are judged only where the arm moves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.daemon.sim.stamp import Stamp
from recd.perf.episode import StoredEpisode
from recd.perf.figures import quantiles
from recd.perf.skew import LEAST_SPEED_STEPS_S, JointTruth, Poses, joint_truth
from recd.perf.truth import read_stamps
from recd.shm.clock import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

STATE, ACTION = "observation.state", "action"
JUDGED_JOINTS = range(5)
"""Joints in degrees; the gripper, last, is in percent."""


def judge(
    root: Path, index: int, cameras: Sequence[str], poses: Poses, *, bus: str, expected: int
) -> dict[str, Any]:
    """Figures of one episode. cameras: in the order of the numbers in their stamps; expected: rows
    that were due.

    percent_kept: stored rows of the expected; whole: of these, rows with an intact picture of every
    camera; new: whole rows in which every picture and the joints are newer than in the row before;
    skew_ms: |joint time - picture time| over all cameras; spread_ms: between cameras.
    """
    episode = StoredEpisode(root, "", index)
    rows = episode.rows()
    state = np.asarray(rows[STATE], np.float32)
    stamps = {name: list(read_stamps(episode.video(name))) for name in cameras}
    return figures(state, np.asarray(rows[ACTION], np.float32), stamps, poses, bus=bus,
                   expected=expected)  # fmt: skip


def figures(
    state: Floats, action: Floats, stamps: dict[str, list[Stamp | None]], poses: Poses, *,
    bus: str, expected: int,
) -> dict[str, Any]:  # fmt: skip
    """As `judge`, of values at hand. state, action: float32 [K, J]; stamps: of every picture."""
    rows = len(state)
    seen = {
        name: pictures(of_one, rows, camera=number)
        for number, (name, of_one) in enumerate(stamps.items())
    }
    captured = np.stack([one["captured_ns"] for one in seen.values()])
    joints = joints_of(state, captured[0], poses, bus=bus)
    stale, stale_action = stale_rows(state, joints), stale_rows(action, joints)
    whole = np.all([one["intact"] for one in seen.values()], axis=0)
    new = whole & ~stale & np.all([one["fresh"] for one in seen.values()], axis=0)
    skew_ns = np.concatenate([_skew_ns(joints, captured[0], one) for one in captured])
    spread_ns = (captured.max(axis=0) - captured.min(axis=0))[(captured > 0).all(axis=0)]
    return {
        "expected": expected,
        "stored": rows,
        "percent_kept": 100.0 * min(rows, expected) / expected,
        "whole": int(whole.sum()),
        "new": int(new.sum()),
        "repeated": sum(one["repeated"] for one in seen.values()),
        "skipped": sum(one["skipped"] for one in seen.values()),
        "wrong": sum(one["wrong"] for one in seen.values()),
        "stale_joints": int(stale.sum()),
        "stale_actions": int(stale_action.sum()),
        "skew_ms": quantiles(np.abs(skew_ns), scale=NS_PER_MS),
        "spread_ms": quantiles(spread_ns, scale=NS_PER_MS),
    }


def pictures(stamps: Sequence[Stamp | None], rows: int, *, camera: int) -> dict[str, Any]:
    """One camera's pictures against the number of rows. Pure.

    captured_ns: int64 [rows], 0 without a readable stamp; intact, fresh: bool [rows]; repeated,
    skipped: frames shown again, passed over; wrong: no stamp, another camera's, back in time,
    pictures and rows that differ in number.
    """
    captured = np.zeros(rows, np.int64)
    intact, fresh = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    repeated = skipped = wrong = 0
    before = -1
    for row, stamp in enumerate(stamps[:rows]):
        if stamp is None or stamp.camera != camera or stamp.frame < before:
            wrong += 1
            continue
        captured[row], intact[row] = stamp.t_capture_ns, True
        fresh[row] = stamp.frame != before
        repeated += stamp.frame == before
        skipped += max(0, stamp.frame - before - 1) if before >= 0 else 0
        before = stamp.frame
    return {
        "captured_ns": captured, "intact": intact, "fresh": fresh, "repeated": repeated,
        "skipped": skipped, "wrong": wrong + abs(len(stamps) - rows),
    }  # fmt: skip


def joints_of(state: Floats, near_ns: Int64s, poses: Poses, *, bus: str) -> JointTruth:
    """When the arm truly stood as each row says, searched around `near_ns` (int64 [K])."""
    found = joint_truth(state, near_ns, poses, bus=bus, judged=JUDGED_JOINTS)
    found.late_ns[near_ns == 0] = np.nan
    return found


def stale_rows(values: Floats, joints: JointTruth) -> npt.NDArray[np.bool_]:
    """bool [K]: rows whose values are to the last bit those of the row before, although the arm
    moved."""
    same = np.zeros(len(values), np.bool_)
    same[1:] = (values[1:] == values[:-1]).all(axis=1)
    return same & (joints.speed >= LEAST_SPEED_STEPS_S)


def _skew_ns(joints: JointTruth, near_ns: Int64s, captured_ns: Int64s) -> npt.NDArray[np.float64]:
    usable = joints.judged & (captured_ns > 0)
    return near_ns[usable] + joints.late_ns[usable] - captured_ns[usable]

"""Rows of an episode from its samples: the value of every joint and action at every tick. Pure.

A value without evidence near its row is there, but not valid; a dataset can hold no NaN, so where
there is no value at all the state is 0 and the action stays where the arm was, both not valid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.streams import GoalSource, Motion
from recd.daemon.align.joints import JointAlignment, JointRule, Wrap, align_joints, hold_actions
from recd.shm.clock import NS_PER_S

GOALS = ("requested", "limited", "sent")
"""Fields of a sample: a goal on its way to the servos. The action is the first or the last."""

Records = npt.NDArray[np.void]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REACH_PERIODS = 3
"""State is taken from samples at most this many control periods apart, or one row period if that is
more: a lost reply and its resynchronisation (4 to 6 ticks) leave true readings on both sides of a
row. A wider hole is invalid."""


@dataclass(frozen=True, slots=True)
class Bus:
    """What the rows need to know of one pair.

    rules, wraps: per joint, how its value at a row is found; action: field of the sample that is
    the action (`requested` or `sent`).
    """

    pair: str
    joints: tuple[str, ...]
    rules: tuple[JointRule, ...]
    wraps: tuple[Wrap | None, ...]
    period_ns: int
    reach_ns: int
    action: str


@dataclass(frozen=True, slots=True)
class PairRows:
    """Rows of one pair: state and action as aligned, without NaN, and who asked for the action.

    control_source: int64 [R], GoalSource of the tick in force, HOLD while nothing is commanded;
    chunk_id, chunk_index: int64 [R], the policy's chunk and the row in it, -1 none; intervention:
    bool [R], a person corrected, and the arm was at the leader; goals: float32 [R, J] by GOALS,
    the action's way to the servos; state_tick, action_tick: int64 [R],
    `tick` of the bus sample used, -1 none.
    """

    state: JointAlignment
    action: JointAlignment
    state_values: npt.NDArray[np.float32]
    action_values: npt.NDArray[np.float32]
    control_source: Int64s
    chunk_id: Int64s
    chunk_index: Int64s
    intervention: Bools
    goals: dict[str, npt.NDArray[np.float32]]
    state_tick: Int64s
    action_tick: Int64s


def bus_of(
    pair: str, *, joints: tuple[str, ...], rate_hz: int, fps: int, degrees: bool, action: str
) -> Bus:
    """Rules for one pair: grippers jump, so they are never interpolated; the wrist turns round."""
    return Bus(
        pair=pair,
        joints=joints,
        rules=tuple(
            JointRule.NEAREST if joint == "gripper" else JointRule.INTERPOLATE for joint in joints
        ),
        wraps=tuple(
            Wrap(360.0, -180.0) if degrees and joint == "wrist_roll" else None for joint in joints
        ),
        period_ns=NS_PER_S // rate_hz,
        reach_ns=max(REACH_PERIODS * (NS_PER_S // rate_hz), NS_PER_S // fps),
        action=action,
    )


def valid_bits(samples: Records, joints: int) -> Bools:
    """The `valid` mask of samples as bool [N, J]."""
    bits: Bools = (samples["valid"][:, None] >> np.arange(joints, dtype=np.uint32)) & 1 == 1
    return bits


def align_pair(samples: Records, grid_ns: Int64s, bus: Bus) -> PairRows:
    """State and action of one follower at the row times `grid_ns` (int64 [R], CLOCK_MONOTONIC).

    samples: arm_sample_dtype records, ordered by `request_ns`.
    """
    joints = len(bus.joints)
    read = samples[samples["sample_ns"] > 0]
    state = align_joints(
        read["sample_ns"], read["present"], valid_bits(read, joints), grid_ns,
        rules=bus.rules, reach_ns=bus.reach_ns, wraps=bus.wraps,
    )  # fmt: skip
    goals = samples[samples["goal_written_ns"] > 0]
    told = {
        name: hold_actions(goals["goal_written_ns"], goals[name], ~np.isnan(goals[name]), grid_ns,
                           reach_ns=bus.reach_ns)
        for name in GOALS
    }  # fmt: skip
    action = told[bus.action]
    commanded_ns = np.where(
        samples["goal_written_ns"] > 0, samples["goal_written_ns"], samples["request_ns"]
    )
    tick = np.searchsorted(commanded_ns, grid_ns, side="right") - 1
    state_values = np.nan_to_num(state.values, nan=0.0)
    values = {name: _or(found.values, state_values) for name, found in told.items()}
    source = _of_sample(samples["source"], tick, none=0)
    corrected = _of_sample(samples["motion"], tick, none=0) == Motion.CORRECTING
    return PairRows(
        state=state,
        action=action,
        state_values=state_values,
        action_values=values[bus.action],
        control_source=source,
        chunk_id=_of_sample(samples["chunk"], tick, none=-1),
        chunk_index=_of_sample(samples["chunk_index"], tick, none=-1),
        intervention=corrected & (source == GoalSource.LEADER),
        goals=values,
        state_tick=_of_sample(read["tick"], state.source[:, 0], none=-1),
        action_tick=_of_sample(goals["tick"], action.source[:, 0], none=-1),
    )


def _or(values: Any, state: Any) -> npt.NDArray[np.float32]:
    """Goals, and where there is none the place of the arm: a dataset can hold no NaN."""
    return np.where(np.isnan(values), state, values).astype(np.float32)


def _of_sample(values: npt.NDArray[Any], source: Int64s, *, none: int) -> Int64s:
    """The value of the sample used for each row; `none` where there is none. int64 [R]."""
    if len(values) == 0:
        return np.full(len(source), none, np.int64)
    return np.where(source >= 0, values[source.clip(0)], none).astype(np.int64)

"""Rows of an episode from its samples: the value of every joint and action at every tick. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd.daemon.align.joints import JointRule, align_joints, hold_actions

Records = npt.NDArray[np.void]

MAX_GAP_PERIODS = 3
"""State is interpolated over at most this many control periods; a wider hole is invalid."""


@dataclass(frozen=True, slots=True)
class Bus:
    """What the rows need to know of one pair. continuous: joints that may be interpolated.

    action: field of the sample that is the action (`requested` or `sent`).
    """

    pair: str
    joints: tuple[str, ...]
    continuous: npt.NDArray[np.bool_]
    period_ns: int
    action: str


@dataclass(frozen=True, slots=True)
class PairRows:
    """Rows of one pair. state, action: float32 [R, J]; valid: bool [R, J];

    source: index of the sample used, -1 none; error_ns: signed sample time less row time, the
    larger of the two neighbours for interpolated values.
    """

    state: npt.NDArray[np.float32]
    state_valid: npt.NDArray[np.bool_]
    state_error_ns: npt.NDArray[np.int64]
    state_source: npt.NDArray[np.int64]
    action: npt.NDArray[np.float32]
    action_valid: npt.NDArray[np.bool_]
    action_error_ns: npt.NDArray[np.int64]
    action_source: npt.NDArray[np.int64]
    control_source: npt.NDArray[np.int64]


def valid_bits(samples: Records, joints: int) -> npt.NDArray[np.bool_]:
    """The `valid` mask of samples as bool [N, J]."""
    return (samples["valid"][:, None] >> np.arange(joints, dtype=np.uint32)) & 1 == 1

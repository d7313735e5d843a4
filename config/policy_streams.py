"""Records between the policy gateway and the arm processes: one table of fields per kind.

int64 nanoseconds of CLOCK_MONOTONIC in every `..._ns`; positions in dataset units, joints in the
order of the configuration; one ring or cell of each kind per pair of arms.
"""

from enum import IntEnum

import numpy as np

from recd.config.policy_wire import MOST_QUEUED, MOST_STEPS, TASK_BYTES, Mode, Status

REASON_BYTES = 200
STATUSES = tuple(Status)
MODES = tuple(Mode)
"""Words of the wire by their number in the records below."""


class Held(IntEnum):
    """Who holds the lease of a pair; the number is its priority, larger wins."""

    NOBODY = 0
    REPLAY = 10
    POLICY = 20
    TELEOP = 30


def plan_dtype(joints: int) -> np.dtype[np.void]:
    """One chunk for one pair: gateway -> follower (ring `plans.<pair>`).

    values: absolute positions, or velocities where `velocity`; NaN: the joint holds. steps: rows in
    use.
    """
    return np.dtype(
        [
            ("chunk", "<i8"),
            ("epoch", "<i8"),
            ("obs_ns", "<i8"),
            ("dt_ns", "<i8"),
            ("valid_until_ns", "<i8"),
            ("age_limit_ns", "<i8"),
            ("steps", "<u4"),
            ("blend", "<u4"),
            ("mode", "u1"),
            ("velocity", "u1"),
            ("target_ns", "<i8", (MOST_STEPS,)),
            ("values", "<f8", (MOST_STEPS, joints)),
        ],
        align=True,
    )


VERDICT_DTYPE = np.dtype(
    [
        ("chunk", "<i8"),
        ("epoch", "<i8"),
        ("at_ns", "<i8"),
        ("first_applied", "<i4"),  # row of the chunk, -1 none
        ("late", "<i4"),
        ("clipped", "<i4"),
        ("status", "u1"),  # STATUSES
        ("splice_gap", "<f8"),  # largest distance between plan and commanded goal at the splice
        ("margin_ns", "<i8"),  # how long the plan before would have lasted; negative: since
        ("first_goal_ns", "<i8"),  # when the chunk's first kept row is due, 0 none
    ],
    align=True,
)
"""What a follower did with one chunk: follower -> gateway (ring `verdicts.<pair>`)."""

LEASE_DTYPE = np.dtype(
    [
        ("epoch", "<i8"),  # grows with every change of holder, over restarts of the gateway, too
        ("beat_ns", "<i8"),  # when the holder last gave a sign of life that counts
        ("held", "<i8"),  # Held
        ("asked_until_ns", "<i8"),  # until then somebody wants to see what is planned
    ],
    align=True,
)
"""Who may send chunks to a pair: gateway -> follower (cell `lease.<pair>`)."""


def seat_dtype(joints: int) -> np.dtype[np.void]:
    """What a follower says each tick of its policy's seat: to the gateway (cell `seat.<pair>`).

    low, high: limits of the goal; goal: as commanded now; permitted: a person lets the holder of
    epoch `granted` drive; since_ns: when the present state began; held_ns: when the hold began
    that an observation has to be younger than, 0 none; queued_until_ns: last target, 0 none;
    plan: how often the plan has changed; due_ns: when `goal` is due.
    """
    vector = (joints,)
    return np.dtype(
        [
            ("at_ns", "<i8"),
            ("since_ns", "<i8"),
            ("held_ns", "<i8"),
            ("queued_until_ns", "<i8"),
            ("granted", "<i8"),
            ("chunk", "<i8"),
            ("index", "<i8"),
            ("grants", "<i8"),
            ("plan", "<i8"),
            ("due_ns", "<i8"),
            ("motion", "u1"),
            ("permitted", "u1"),
            ("cause", "<u2"),
            ("low", "<f8", vector),
            ("high", "<f8", vector),
            ("goal", "<f8", vector),
        ],
        align=True,
    )


def queue_dtype(joints: int) -> np.dtype[np.void]:
    """A pair's plan as it stands since its last change: follower -> gateway (cell `queue.<pair>`),
    only while somebody wants to see it.

    plan: as in the seat; until_ns: nothing is played after; rows: in use; velocity: 1 for rows that
    are velocities until their target; values: NaN where the joint holds.
    """
    return np.dtype(
        [
            ("plan", "<i8"),
            ("until_ns", "<i8"),
            ("rows", "<u4"),
            ("target_ns", "<i8", (MOST_QUEUED,)),
            ("velocity", "u1", (MOST_QUEUED,)),
            ("values", "<f8", (MOST_QUEUED, joints)),
        ],
        align=True,
    )


def chunk_dtype(width: int) -> np.dtype[np.void]:
    """One chunk as received, with its ACK: gateway -> writer (ring `chunks`).

    values: float32 as received, row after row of `columns` numbers, of refused chunks, too (what
    lies beyond its room is cut), unused ones zero; mask: bit per dimension; status: STATUSES;
    reason: of a refusal; task: what the policy was at; both UTF-8, empty: it did not say;
    received_ns, acked_ns: of the gateway; valid_ns: after the observation, -1: as long as its
    rows; infer_start_ns, infer_end_ns: by the policy's own clock, 0: it did not say; first_goal_ns:
    when its first kept row is due, 0 none; of a chunk that was refused for its form, numbers that
    made no sense are 0; obs_ns: time of the observation that it answers; prefix_used: how many of
    its rows go on from the prefix, -1: it did not say.
    """
    return np.dtype(
        [
            ("received_ns", "<i8"),
            ("acked_ns", "<i8"),
            ("chunk", "<i8"),
            ("epoch", "<i8"),
            ("obs", "<i8"),
            ("obs_ns", "<i8"),
            ("dt_ns", "<i8"),
            ("margin_ns", "<i8"),
            ("splice_gap", "<f8"),
            ("steps", "<i4"),
            ("first_applied", "<i4"),
            ("late", "<i4"),
            ("clipped", "<i4"),
            ("mask", "<u4"),
            ("representation", "u1"),
            ("mode", "u1"),
            ("status", "u1"),
            ("task", f"S{TASK_BYTES}"),
            ("prefix_used", "<i4"),
            ("valid_ns", "<i8"),
            ("infer_start_ns", "<i8"),
            ("infer_end_ns", "<i8"),
            ("first_goal_ns", "<i8"),
            ("columns", "<u4"),
            ("blend", "<u4"),
            ("reason", f"S{REASON_BYTES}"),
            ("offset_ns", "<i8", (MOST_STEPS,)),
            ("values", "<f4", (MOST_STEPS * width,)),
        ],
        align=True,
    )

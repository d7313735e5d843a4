"""Binary records that travel through rings and cells: one table of fields per kind of stream.

Little endian, int64 nanoseconds of CLOCK_MONOTONIC in every `t_..._ns` and `..._ns` field.
Joint vectors follow the order of the joints in the configuration.
"""

from enum import IntEnum, IntFlag

import numpy as np

STREAMS_VERSION = 4
"""Raised when a record of a ring changes shape, and with it the side file that keeps it; both carry
it. Cells are made and read by one daemon alone."""

JOINED: dict[str, tuple[int, int | bytes]] = {
    "chunk": (2, -1),
    "chunk_index": (2, -1),
    "task": (3, b""),
    "prefix_used": (4, -1),
    "valid_ns": (4, -1),
    "infer_start_ns": (4, 0),
    "infer_end_ns": (4, 0),
    "first_goal_ns": (4, 0),
    "columns": (4, 0),
    "blend": (4, 0),
    "reason": (4, b""),
}
"""Field that came later -> the version that brought it, its value in side files from before."""


class FrameFlag(IntFlag):
    """What a camera worker knows about one frame (ring slot `flags`)."""

    CORRUPT = 1  # device error bit, short or undecodable payload
    FROZEN = 2  # the same picture as several frames before
    LATE = 4  # arrived more than two periods after its capture
    GAP_BEFORE = 8  # device frame numbers jumped just before this frame
    STAMP_ARRIVAL = 16  # capture time is the arrival time: the device gave none worth trusting
    KEY = 32  # H.264: a key frame, which needs no other picture


RAW_PAYLOADS: dict[str, tuple[int, int]] = {
    "yuyv": (2, 1), "nv12": (3, 2), "yuv420p": (3, 2), "rgb24": (3, 1), "bgr24": (3, 1),
    "gray8": (1, 1),
}  # fmt: skip
"""Raw payload kinds of a frame ring -> bytes per pixel as a fraction; rows are not padded. The
other kinds are `mjpeg` and `h264`, whose frames vary in length."""

PAYLOAD_OF_FOURCC: dict[str, str] = {
    "mjpeg": "mjpeg", "yuyv": "yuyv", "nv12": "nv12", "grey": "gray8", "rgb24": "rgb24",
    "bgr24": "bgr24", "yuv420p": "yuv420p", "h264": "h264",
}  # fmt: skip
"""`fourcc` of a camera's configuration -> payload kind of its ring; `auto` has no row."""

DECODING_SOURCES = ("file", "rtsp")
"""Camera sources that hand over decoded pictures: their `auto` is yuv420p, others' is mjpeg."""


def frame_payload(source: str, fourcc: str) -> str:
    """Payload kind of the ring of a camera with this `source` and `fourcc` in its configuration."""
    if fourcc in PAYLOAD_OF_FOURCC:
        return PAYLOAD_OF_FOURCC[fourcc]
    return "yuv420p" if source in DECODING_SOURCES else "mjpeg"


class TickFlag(IntFlag):
    """What the picture of one dataset row is worth (`TICK_DTYPE.flags`)."""

    REPEAT = 1  # the same source frame as in the row before
    EXPECTED = 2  # a repeat that the camera's own lower rate explains
    MISSING = 4  # no frame of this tick could be had: lost, torn or not yet come
    LATE = 8  # decided by deadline, not by a newer frame
    CORRUPT = 16  # a frame was there but could not be decoded
    FROZEN = 32  # the source says that its picture stands still
    SKIP_BEFORE = 64  # at least one source frame between this row and the last was not used
    BLACK = 128  # the picture is (nearly) black all over
    ARRIVAL = 256  # its time is that of its arrival: the device gave none worth trusting (yet)


class JointFlag(IntFlag):
    """What one sample of an arm bus is worth (`flags` of an arm sample)."""

    NO_REPLY = 1  # at least one joint did not answer; its bit in `valid` is 0
    RESYNC = 2  # the line was being drained after a missing reply; nothing was read
    LATE_REPLY = 4  # an earlier tick's reply was thrown away, or this one's took over a period
    BAD_PACKET = 8  # checksum, id or length was wrong
    CLIPPED = 16  # limits changed the requested goal
    RAMPING = 32  # the goal was on its way in, by the ramp
    OVERRUN_BEFORE = 64  # the loop skipped at least one tick before this one
    STALE_LEADER = 128  # the leader's sample was older than its validity
    WRITE_SKIPPED = 256  # no goal was written in this tick


class Motion(IntEnum):
    """State of the motion machine of one actuator group (DESIGN section 8)."""

    DISARMED = 0
    HOLD = 1
    TELEOP = 2
    POLICY = 3
    PAUSED = 4
    CORRECTING = 5
    REPLAY = 6
    FAULT = 7


class GoalSource(IntEnum):
    """Who asked for the goal of a tick."""

    NONE = 0
    HOLD = 1
    LEADER = 2
    POLICY = 3
    REPLAY = 4
    PARK = 5
    HAND_OVER = 6  # on the way from one source to the next: asked by neither alone


def take_number(uid: str) -> int:
    """Number that marks a take's records in the row rings (slot `aux`): 60 bits of its uid."""
    return int(uid[:15], 16)


TICK_DTYPE = np.dtype(
    [
        ("k", "<i8"),  # row number in the episode
        ("tick_ns", "<i8"),  # grid time of the row
        ("source_index", "<i8"),  # ring index of the frame used; -1 none
        ("source_seq", "<i8"),  # device frame number; -1 unknown
        ("capture_ns", "<i8"),  # capture time of the frame used; 0 none
        ("arrival_ns", "<i8"),  # when it reached this computer; 0 none
        ("error_ns", "<i8"),  # capture_ns - tick_ns, signed
        ("encoded_ns", "<i8"),  # when its packet was handed to the file
        ("packet_bytes", "<u4"),
        ("flags", "<u4"),  # TickFlag
    ]
)
"""One row of one camera, as the encoder decided it."""


def arm_sample_dtype(joints: int) -> np.dtype[np.void]:
    """One tick of one arm bus.

    present: position in the dataset's units (float32 [joints]), NaN where invalid; present_raw:
    servo steps (int32); leader/requested/limited/sent: goal path of a follower in the dataset's
    units, NaN where there was none; sent_raw: steps written to the wire, -1 none; valid: bit i set
    when joint i answered; sample_ns: midpoint of request sent and last byte received, half_width_ns
    its uncertainty; leader_ns: sample time of the leader position behind the goal, 0 none; chunk,
    chunk_index: the policy's chunk and the row in it behind the goal, -1 none.
    """
    vector = (joints,)
    return np.dtype(
        [
            ("tick", "<i8"),
            ("request_ns", "<i8"),
            ("sample_ns", "<i8"),
            ("half_width_ns", "<i8"),
            ("goal_written_ns", "<i8"),
            ("leader_ns", "<i8"),
            ("chunk", "<i8"),
            ("chunk_index", "<i4"),
            ("flags", "<u4"),
            ("valid", "<u4"),
            ("epoch", "<u4"),
            ("motion", "u1"),
            ("source", "u1"),
            ("cause", "<u2"),
            ("present_raw", "<i4", vector),
            ("sent_raw", "<i4", vector),
            ("present", "<f4", vector),
            ("leader", "<f4", vector),
            ("requested", "<f4", vector),
            ("limited", "<f4", vector),
            ("sent", "<f4", vector),
        ],
        align=True,
    )


def telemetry_dtype(joints: int) -> np.dtype[np.void]:
    """Slow readings of one arm bus.

    load: signed, 0.1 % of stall torque; voltage: 0.1 V; temperature: degrees Celsius; current:
    6.5 mA steps; status: the servo's own error bits.
    """
    vector = (joints,)
    return np.dtype(
        [
            ("sample_ns", "<i8"),
            ("valid", "<u4"),
            ("pad", "<u4"),
            ("load", "<i2", vector),
            ("current", "<i2", vector),
            ("voltage", "u1", vector),
            ("temperature", "u1", vector),
            ("status", "u1", vector),
            ("torque", "u1", vector),
        ],
        align=True,
    )


def leader_cell_dtype(joints: int) -> np.dtype[np.void]:
    """Newest leader position, read by the follower each tick. valid: bit per joint.

    position: dataset units in float64: rounded to float32 a goal would truncate to another servo
    step than LeRobot's.
    """
    return np.dtype(
        [
            ("sample_ns", "<i8"),
            ("index", "<i8"),
            ("valid", "<u4"),
            ("epoch", "<u4"),
            ("driven", "<u4"),  # 1 while its own servos hold it
            ("refused", "<u4"),  # 1 while they were asked to and could not
            ("position", "<f8", (joints,)),
        ],
        align=True,
    )


def meeting_dtype(joints: int) -> np.dtype[np.void]:
    """What a follower wishes of a leader that can be driven (cell `meeting.<pair>`).

    at_ns: when it wished so; drive: 1 to be brought to `position` (dataset units) and held there.
    """
    return np.dtype(
        [("at_ns", "<i8"), ("drive", "<u4"), ("pad", "<u4"), ("position", "<f8", (joints,))],
        align=True,
    )


HISTOGRAM_OCTAVES, BUCKETS_PER_OCTAVE = 32, 8
HISTOGRAM_BUCKETS = HISTOGRAM_OCTAVES * BUCKETS_PER_OCTAVE
"""Bucket b of a log2 histogram counts values v (ns) with 2**(b/8) <= v < 2**((b+1)/8)."""


def histogram_bucket(value_ns: int) -> int:
    """Bucket of `value_ns` in the log2 histograms (eighths of an octave; 0 for what is not
    positive)."""
    if value_ns <= 0:
        return 0
    square = value_ns * value_ns
    fourth = square * square
    return min(HISTOGRAM_BUCKETS - 1, (fourth * fourth).bit_length() - 1)


STATUS_COUNTERS = 16

STATUS_DTYPE = np.dtype(
    [
        ("beat_ns", "<i8"),  # heartbeat: the worker's loop advanced at this time
        ("started_ns", "<i8"),
        ("pid", "<i4"),
        ("state", "<u4"),  # kind-specific word, named in STATUS_STATES
        ("progress", "<u8"),  # ticks, frames or rows done; must grow while running
        ("counters", "<u8", (STATUS_COUNTERS,)),  # named per kind in STATUS_COUNTER_NAMES
        ("lateness", "<u4", (HISTOGRAM_BUCKETS,)),  # log2 histogram, ns
        ("work", "<u4", (HISTOGRAM_BUCKETS,)),
        ("lag", "<u4", (HISTOGRAM_BUCKETS,)),
    ],
    align=True,
)
"""One per process, in a latest-value cell: heartbeat, counters, histograms; no allocation."""

STATUS_STATES: dict[str, tuple[str, ...]] = {
    "sim": ("starting", "running"),
    "camera": ("starting", "running", "reconnecting", "failed", "ended"),
    "arm": (*(motion.name for motion in Motion), "CONNECTING"),
    "encoder": ("starting", "ready", "recording", "closing"),
    "writer": ("starting", "ready", "recording", "committing"),
    "gateway": ("starting", "waiting", "serving"),
    "adapter": (
        "starting",
        "connecting",
        "warming_up",
        "offering",
        "unreachable",
        "refused",
        "waiting",
    ),
}

STATUS_COUNTER_NAMES: dict[str, tuple[str, ...]] = {
    "sim": ("requests", "faults"),
    "camera": (
        "frames", "device_lost", "corrupt", "frozen", "late", "reconnects", "wrong_size", "bytes",
    ),
    "arm": (
        "ticks", "overruns", "no_reply", "resync", "late_reply", "bad_packet", "clipped",
        "stale_leader", "reconnects", "goals_written", "telemetry", "read_errors",
    ),
    "encoder": (
        "rows", "repeated", "expected", "missing", "late", "corrupt", "ring_lost", "lag_frames",
        "bytes",
    ),
    "writer": ("rows", "joint_invalid", "ring_lost", "episodes", "bytes"),
    "gateway": (
        "chunks", "applied", "refused", "observations", "bytes", "beats", "malformed", "busy",
    ),
    "adapter": ("requests", "failures", "chunks", "applied", "refused"),
}  # fmt: skip
"""Meaning of `counters` by kind of process, in order."""

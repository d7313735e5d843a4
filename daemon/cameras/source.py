"""What every camera source is: opened, asked for frames one by one, closed.

A source copies each picture at most once, into memory that its caller names when the picture has
begun to come. It never waits past the deadline it is given, except in calls of foreign libraries
that know no deadline (their sources say so).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recd.config.errors import DeviceError
from recd.config.streams import RAW_PAYLOADS

Pixels = npt.NDArray[np.uint8]
"""Payload bytes of one frame: one-dimensional, contiguous."""

Into = Callable[[], Pixels]
"""Names the memory for the next picture. Called when it begins to come; the same memory comes
back until a frame was published."""

Idle = Callable[[], bool]
"""Called at least every 100 ms while a source waits for its device. False: give up and return."""


@dataclass(frozen=True, slots=True)
class CameraFormat:
    """What a source delivers from now on: goes into `ready` facts, the manifest and ring checks.

    payload: mjpeg, h264 or a key of RAW_PAYLOADS; width, height: pixels before rotation, 0 when
    only the first frame will tell; fps_num/fps_den: the device's own rate, 0/1 unknown; stamp:
    where capture times come from (kernel, device, arrival, foreign); frame_ids: the device numbers
    its frames; range: full or limited, of YUV payloads; step: has its own step clock; device: the
    thing opened; facts: names, serial numbers, controls read back, for people and manifests.
    """

    payload: str
    width: int
    height: int
    fps_num: int
    fps_den: int
    stamp: str
    frame_ids: bool
    device: str
    range: str = "full"
    step: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second; 0.0 unknown."""
        return self.fps_num / self.fps_den

    def raw_bytes(self) -> int:
        """Bytes of one frame of a raw payload; 0 for compressed ones."""
        return raw_frame_bytes(self.payload, width=self.width, height=self.height)


def raw_frame_bytes(payload: str, *, width: int, height: int) -> int:
    """Bytes of one unpadded frame; 0 for MJPEG and H.264, whose frames vary."""
    num, den = RAW_PAYLOADS.get(payload, (0, 1))
    return width * height * num // den


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One frame as its source knows it.

    nbytes: payload bytes written into the memory; t_capture_ns: best capture time before the
    configured latency is taken off; t_arrival_ns: when it reached this process (both int64 ns of
    CLOCK_MONOTONIC); source_seq: the device's frame number, -1 none; flags: FrameFlag bits that
    the source itself knows; residual_ns: foreign clocks only, how much later than its fastest
    way this frame came.
    """

    nbytes: int
    t_capture_ns: int
    t_arrival_ns: int
    source_seq: int = -1
    flags: int = 0
    residual_ns: int = 0


class CameraSource(Protocol):
    """One way of getting frames. Not safe for more than one thread."""

    def open(self, idle: Idle) -> CameraFormat:
        """Open and start. DeviceError (with the mend) for what an operator can put right;
        CameraLostError for what may pass by itself."""

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next frame, or None when none came before `deadline_ns`.

        Raises CameraLostError when the device is gone, CameraEndedError after the last frame.
        """

    def close(self) -> None:
        """Give the device back. Safe to call at any time, also twice."""


class CameraRefusedError(DeviceError):
    """What the configuration asks is not what the device can do. key: path in the configuration."""

    def __init__(self, key: str, *, expected: str, found: str, mend: str, code: str) -> None:
        super().__init__(f"{key}: expected {expected}, found {found}", mend=mend, code=code)
        self.key = key
        self.expected = expected
        self.found = found


class CameraLostError(DeviceError):
    """The device is gone, silent or not there yet. Opening again may succeed."""

    code = "camera_lost"


class CameraEndedError(Exception):
    """The source has no further frame: the file is at its end."""

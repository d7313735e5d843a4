"""A camera through OpenCV: a fallback. Kernel stamps where its V4L2 backend gives them, no frame
numbers, no error bits. The only module that imports cv2 for capture.
"""

import os
from typing import Any

import numpy as np

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import access, av_common
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import (
    CameraFormat,
    CameraLostError,
    FrameInfo,
    Idle,
    Into,
    Pixels,
    raw_frame_bytes,
)
from recd.daemon.cameras.v4l2 import STAMP_OLDEST_NS, device_path
from recd.shm.clock import NS_PER_MS, now_ns

_SELECT_TIMEOUT_S = "1"
"""OpenCV's own wait for a frame; 10 s by default, too long for a worker that has to show life."""

_RAW_FOURCC = {"mjpeg": "MJPG", "yuyv": "YUYV", "gray8": "GREY", "nv12": "NV12", "yuv420p": "YU12"}


def import_cv2() -> Any:
    """The module cv2, or a DeviceError that says which system library is missing."""
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", _SELECT_TIMEOUT_S)
    try:
        import cv2
    except ImportError as error:
        raise DeviceError(
            f"OpenCV cannot be loaded: {error}",
            mend="Run 'sudo apt install libgl1 libglib2.0-0', or 'pip install "
            "opencv-python-headless', or use source: v4l2, which needs no OpenCV.",
            code="opencv",
        ) from error
    cv2.setNumThreads(1)
    return cv2


class OpenCvSource:
    """CameraSource of one device or address, read by OpenCV."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._is_device = "://" not in request.device
        self._target = device_path(request.device) if self._is_device else request.device
        self._capture: Any = None
        self._cv2: Any = None
        self._payload = "bgr24"

    def open(self, idle: Idle) -> CameraFormat:
        """Open and set format, size, rate, in the order that OpenCV's V4L2 backend needs."""
        del idle
        self._cv2 = cv2 = import_cv2()
        request = self._request
        self._capture = cv2.VideoCapture(
            self._target, cv2.CAP_V4L2 if self._is_device else cv2.CAP_ANY
        )
        if not self._capture.isOpened():
            self.close()
            raise self._why_not()
        try:
            return self._set_up(cv2, request)
        except DeviceError:
            self.close()
            raise

    def _why_not(self) -> DeviceError:
        key = self._request.key
        if self._is_device and self._target != self._request.device:
            pass  # an index: OpenCV may know devices that have no node here
        elif self._is_device and not os.path.exists(self._target):
            return access.missing(key, self._target)
        elif self._is_device and not os.access(self._target, os.R_OK | os.W_OK):
            return access.forbidden(key, self._target)
        elif self._is_device and access.users_of(self._target):
            return access.busy(key, self._target)
        return CameraLostError(
            f"{key}.device: OpenCV cannot open {self._target}",
            mend="Run 'recctl devices'; try source: v4l2, which says why.",
            code="missing",
        )

    def _set_up(self, cv2: Any, request: CameraRequest) -> CameraFormat:
        capture = self._capture
        if self._is_device:
            self._payload = request.payload or "mjpeg"
            if self._payload in _RAW_FOURCC:
                # Undecoded: the picture goes into the ring as the camera sent it.
                code = cv2.VideoWriter_fourcc(*_RAW_FOURCC[self._payload])
                capture.set(cv2.CAP_PROP_FOURCC, code)
                capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, request.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, request.height)
            capture.set(cv2.CAP_PROP_FPS, float(request.fps))
            self._check_fourcc(cv2)
        width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate_milli = round(capture.get(cv2.CAP_PROP_FPS) * 1000)
        if not request.accept_mismatch:
            asked = (request.width, request.height)
            av_common.check_size(request.key, self._target, asked=asked, got=(width, height))
            self._check_rate(rate_milli / 1000)
        needed = raw_frame_bytes(self._payload, width=width, height=height)
        av_common.check_room(request.key, needed=needed, room=request.slot_bytes)
        return CameraFormat(
            payload=self._payload,
            width=width,
            height=height,
            fps_num=max(rate_milli, 0),
            fps_den=1000,
            stamp="kernel" if self._is_device else "arrival",
            frame_ids=False,
            device=self._target,
            range="full" if self._payload in ("mjpeg", "bgr24", "rgb24") else "limited",
            facts={"driver": f"OpenCV {cv2.__version__}", "note": "no frame ids"},
        )

    def _check_fourcc(self, cv2: Any) -> None:
        asked = _RAW_FOURCC.get(self._payload)
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        got = code.to_bytes(4, "little").decode("ascii", "replace")
        if asked and got != asked:
            raise DeviceError(
                f"{self._request.key}.fourcc: expected {asked}, {self._target} set {got}",
                mend="Set another fourcc; 'recctl devices' lists what the camera offers.",
                code="format",
            )

    def _check_rate(self, got: float) -> None:
        asked = float(self._request.fps)
        if got > 0 and abs(got - asked) > 0.005 * asked:
            raise DeviceError(
                f"{self._request.key}.fps: expected {asked:g}, {self._target} set {got:g}",
                mend=f"Set fps: {got:g}, or 'accept_mismatch: true'.",
                code="rate",
            )

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next picture. Waits up to a second inside OpenCV, whatever the deadline is."""
        if not self._capture.grab():
            if now_ns() < deadline_ns:
                raise CameraLostError(
                    f"{self._request.key}: {self._target} delivers no more", code="unplugged"
                )
            return None
        arrival_ns = now_ns()
        got, image = self._capture.retrieve()
        if not got or image is None:
            return None
        raw: Pixels = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
        memory = into()
        nbytes = min(raw.size, memory.size)
        memory[:nbytes] = raw[:nbytes]
        flags = 0 if raw.size <= memory.size else int(FrameFlag.CORRUPT)
        stamp_ns = int(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) * NS_PER_MS)
        if not self._is_device or not 0 <= arrival_ns - stamp_ns <= STAMP_OLDEST_NS:
            stamp_ns, flags = arrival_ns, flags | FrameFlag.STAMP_ARRIVAL
        return FrameInfo(nbytes, stamp_ns, arrival_ns, flags=flags)

    def close(self) -> None:
        """Give the device back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

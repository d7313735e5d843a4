"""Asks connected V4L2 cameras, before anything starts, whether they can do what is configured.

Only asks: nothing is set, no stream is disturbed. A camera that is not connected is no problem
here (it may come later), nor are sources that can only be tried by opening them.
"""

import os
from collections.abc import Mapping
from typing import Any

from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraRefusedError


def refused_cameras(cameras: Mapping[str, Mapping[str, Any]]) -> list[CameraRefusedError]:
    """One error per camera section (plain form) that its device says it cannot do."""
    errors = []
    for name, section in cameras.items():
        if section["source"] == "v4l2":
            error = _refusal(CameraRequest.from_config(name, section))
            if error is not None:
                errors.append(error)
    return errors


def _refusal(request: CameraRequest) -> CameraRefusedError | None:
    # 25 ms for a daemon that has no such camera.
    from recd.daemon.cameras.v4l2 import device_path
    from recd.daemon.cameras.v4l2_formats import capability, choose, offers

    try:
        fd = os.open(device_path(request.device), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # away, or not ours to open: its worker says so and waits for it
        return None
    try:
        capability(fd)
        choose(request, offers(fd))
    except CameraRefusedError as error:
        return error
    except OSError:
        return None
    finally:
        os.close(fd)
    return None

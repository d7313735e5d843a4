"""Asks connected V4L2 cameras, before anything starts, whether they can do what is configured.

Only asks: nothing is set, no stream is disturbed. A camera that is not connected is no problem
here (it may come later), nor are sources that can only be tried by opening them.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from recd.config.errors import ConfigError, ConfigProblem
from recd.config.load import apply_overrides, read_source
from recd.config.models import RobotConfig
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraRefusedError
from recd.daemon.cameras.v4l2 import device_path
from recd.daemon.cameras.v4l2_formats import capability, choose, offers


def check_cameras(robot: RobotConfig, config: str, *, overrides: Iterable[str] = ()) -> None:
    """Raise ConfigError, with file and line, when a connected camera cannot do what is asked.

    config, overrides: where `robot` came from.
    """
    sections = {name: camera.model_dump(mode="json") for name, camera in robot.cameras.items()}
    errors = refused_cameras(sections)
    if not errors:
        return
    source = read_source(config)
    apply_overrides(source, overrides)
    raise ConfigError(
        [
            ConfigProblem(e.key, source.where(tuple(e.key.split("."))), e.expected, e.found, e.mend)
            for e in errors
        ]
    )


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

"""Exposure, gain, focus and white balance of a V4L2 camera: set, read back, reported.

The automatic mode is switched before the value it would overrule. A control that the camera does
not have, or a value outside its range, is refused by name.
"""

import ctypes
import errno
from dataclasses import dataclass
from typing import Any

from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.cameras.request import CameraRequest, Setting
from recd.daemon.cameras.source import CameraRefusedError
from recd.daemon.cameras.v4l2_formats import ioctl

_NOT_THERE = frozenset({errno.EINVAL, errno.ENOTTY})
_REFUSED = _NOT_THERE | {errno.ERANGE, errno.EACCES, errno.EIO, errno.EPIPE, errno.EBUSY}
"""What drivers answer to a control they do not take; UVC cameras stall the pipe (EPIPE, EIO)."""


@dataclass(frozen=True, slots=True)
class _Knob:
    """auto_id: control of the automatic mode, 0 none; auto_on: values of it that mean automatic,
    best first; auto_off: value that means manual."""

    value_id: int
    auto_id: int = 0
    auto_on: tuple[int, ...] = (1,)
    auto_off: int = 0


KNOBS: dict[str, _Knob] = {
    "exposure": _Knob(
        abi.CID_EXPOSURE_ABSOLUTE,
        abi.CID_EXPOSURE_AUTO,
        (abi.EXPOSURE_APERTURE, abi.EXPOSURE_AUTO),
        abi.EXPOSURE_MANUAL,
    ),
    "gain": _Knob(abi.CID_GAIN, abi.CID_GAIN_AUTO),
    "focus": _Knob(abi.CID_FOCUS_ABSOLUTE, abi.CID_FOCUS_AUTO),
    "white_balance": _Knob(abi.CID_WHITE_BALANCE_TEMPERATURE, abi.CID_WHITE_BALANCE_AUTO),
}
"""Key in the configuration -> controls behind it. Order is the order of setting."""


def apply(fd: int, request: CameraRequest) -> dict[str, Any]:
    """Set what `request` asks for and report all knobs as they are now.

    Returns {knob: {"value", "auto", "min", "max", "default"}} with the knobs that the camera has.
    Raises CameraRefusedError for a knob it does not have or a value it refuses.
    """
    for name, knob in KNOBS.items():
        wanted: Setting = getattr(request, name)
        if wanted is not None:
            _set(fd, request, name=name, knob=knob, wanted=wanted)
    return report(fd)


def report(fd: int) -> dict[str, Any]:
    """All knobs that the camera has, read from it now."""
    found = {}
    for name, knob in KNOBS.items():
        limits = _query(fd, knob.value_id)
        if limits is None:
            continue
        auto = _get(fd, knob.auto_id) if knob.auto_id and _query(fd, knob.auto_id) else None
        found[name] = {
            "value": _get(fd, knob.value_id),
            "auto": None if auto is None else auto in knob.auto_on,
            "min": limits.minimum,
            "max": limits.maximum,
            "default": limits.default_value,
        }
    return found


def _set(fd: int, request: CameraRequest, *, name: str, knob: _Knob, wanted: Setting) -> None:
    key = f"{request.key}.{name}"
    has_auto = bool(knob.auto_id) and _query(fd, knob.auto_id) is not None
    if wanted == "auto":
        if not has_auto:
            raise _refused(key, "a number: the camera has no automatic mode for it", wanted)
        if not any(_accepted(fd, knob.auto_id, value) for value in knob.auto_on):
            raise _refused(key, "a number: the camera refuses its automatic mode", wanted)
        return
    assert isinstance(wanted, int)
    limits = _query(fd, knob.value_id)
    if limits is None:
        raise _refused(key, "nothing: the camera has no such control", wanted)
    if not limits.minimum <= wanted <= limits.maximum:
        raise _refused(key, f"{limits.minimum}..{limits.maximum}", wanted)
    if has_auto and not _accepted(fd, knob.auto_id, knob.auto_off):
        raise _refused(key, "auto: the camera refuses manual mode", wanted)
    if not _accepted(fd, knob.value_id, wanted):
        raise _refused(key, "a value that the camera takes", wanted)
    got = _get(fd, knob.value_id)
    if abs(got - wanted) > max(1, limits.step):
        raise _refused(key, f"a value that stays: {wanted} reads back as {got}", wanted)


def _refused(key: str, expected: str, found: Setting) -> CameraRefusedError:
    mend = "Correct or remove the key; 'recctl devices' lists what the camera has."
    return CameraRefusedError(key, expected=expected, found=str(found), mend=mend, code="control")


def _query(fd: int, control: int) -> abi.QueryCtrl | None:
    query = abi.QueryCtrl(id=control)
    try:
        ioctl(fd, abi.QUERYCTRL, query)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return None
    return None if query.flags & abi.CTRL_FLAG_DISABLED else query


def _extended(control: int, value: int) -> tuple[abi.ExtControls, Any]:
    entries = (abi.ExtControl * 1)(abi.ExtControl(id=control, value64=value & 0xFFFFFFFF))
    pointer = ctypes.cast(entries, ctypes.POINTER(abi.ExtControl))
    # `which` 0 lets one call address any class (kernel 4.4 and later).
    return abi.ExtControls(which=0, count=1, controls=pointer), entries


def _accepted(fd: int, control: int, value: int) -> bool:
    """Set by the extended call, by the old one for drivers that have only that."""
    call, _keep = _extended(control, value)
    try:
        ioctl(fd, abi.S_EXT_CTRLS, call)
        return True
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    try:
        ioctl(fd, abi.S_CTRL, abi.Control(id=control, value=value))
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True


def _get(fd: int, control: int) -> int:
    call, entries = _extended(control, 0)
    try:
        ioctl(fd, abi.G_EXT_CTRLS, call)
        return int(entries[0].value)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        plain = abi.Control(id=control)
        ioctl(fd, abi.G_CTRL, plain)
        return int(plain.value)

"""Who uses a device node, and why it could not be used, in words that name the mend."""

import errno
import getpass
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from recd.config.errors import DeviceError
from recd.daemon.cameras.source import CameraLostError
from recd.daemon.permission import group_of, way_in


@dataclass(frozen=True, slots=True)
class DeviceUser:
    """A process that holds a device open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def users_of(path: str | Path, *, proc: Path = Path("/proc")) -> tuple[DeviceUser, ...]:
    """Processes other than this one that hold `path` open, by /proc/*/fd.

    Processes of other users are seen by root only; links to the device are resolved.
    """
    real = os.path.realpath(path)
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        if _holds(folder / "fd", real):
            found.append(DeviceUser(int(folder.name), _process_name(folder)))
    return tuple(sorted(found, key=lambda user: user.pid))


def _holds(folder: Path, real: str) -> bool:
    try:
        descriptors = os.listdir(folder)
    except OSError:  # gone meanwhile, or not ours to look into
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(folder / descriptor) == real:
                return True
        except OSError:  # closed meanwhile
            continue
    return False


def _process_name(folder: Path) -> str:
    try:
        return (folder / "comm").read_text().strip()
    except OSError:
        return "?"


def _connected(path: str) -> str:
    folder = Path(path).parent if path.startswith("/") else Path("/dev")
    pattern = "*" if "/by-" in str(folder) else "video*"
    names = sorted(str(entry) for entry in folder.glob(pattern)) if folder.is_dir() else []
    return ", ".join(names) if names else "none"


def missing(key: str, path: str) -> CameraLostError:
    """No such device node."""
    return CameraLostError(
        f"{key}.device: no camera at {path}; connected: {_connected(path)}",
        mend="Plug it in, or run 'recctl devices' and correct the device.",
        code="missing",
    )


def busy(key: str, path: str) -> CameraLostError:
    """Another program streams from it."""
    users = users_of(path)
    who = ", ".join(map(str, users)) if users else "a process of another user"
    mend = f"End it (kill {users[0].pid}), or choose another camera." if users else (
        f"Find it with 'sudo fuser -v {path}' and end it."
    )  # fmt: skip
    return CameraLostError(f"{key}.device: {path} is used by {who}", mend=mend, code="busy")


def forbidden(key: str, path: str) -> DeviceError:
    """The node exists and its permissions keep us out; names its group."""
    status = os.stat(path)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    user = getpass.getuser()
    return DeviceError(
        f"{key}.device: {user} may not open {path} (owner {owner}, group {group_of(path)}, "
        f"mode {status.st_mode & 0o777:o})",
        mend=way_in(path, usual="video", user=user),
        code="permission",
    )


def explain(key: str, path: str, error: OSError) -> DeviceError:
    """The right sentence for an OSError met while opening or starting the device at `path`."""
    match error.errno:
        case errno.ENOENT | errno.ENXIO:
            return missing(key, path)
        case errno.ENODEV:
            return CameraLostError(
                f"{key}.device: {path} was unplugged", mend="Plug it in again.", code="unplugged"
            )
        case errno.EBUSY:
            return busy(key, path)
        case errno.EACCES | errno.EPERM:
            return forbidden(key, path)
        case errno.ENOTTY | errno.EINVAL:
            return DeviceError(
                f"{key}.device: {path} is not a video capture device",
                mend="Run 'recctl devices' to see the cameras.",
                code="not_a_camera",
            )
        case errno.ENOSPC:
            return CameraLostError(
                f"{key}.device: {path}: the USB controller has no bandwidth left for it",
                mend="Use MJPEG, a smaller picture or a lower rate, or plug it into another port.",
                code="usb_bandwidth",
            )
    return CameraLostError(
        f"{key}.device: {path}: {error.strerror or error}",
        mend="Plug the camera out and in again; see 'dmesg' for the kernel's reason.",
        code="device",
    )


def never_delivers(key: str, device: str, *, waited_ns: int) -> CameraLostError:
    """It opened and started, but no picture ever came."""
    mend = "Try 'fourcc: mjpeg', a smaller picture, another USB port or cable; look into 'dmesg'."
    if "://" in device:
        mend = "The sender was reached and sends nothing: does a browser show its picture?"
    return CameraLostError(
        f"{key}: {device} opened but delivered no picture in {waited_ns / 1e9:.0f} s",
        mend=mend,
        code="no_frames",
    )


def silent(key: str, device: str, *, silent_ns: int) -> CameraLostError:
    """It delivered and then stopped."""
    return CameraLostError(
        f"{key}: {device} delivered nothing for {silent_ns / 1e9:.1f} s",
        mend="It is opened again by itself; check cable and power if this repeats.",
        code="silent",
    )

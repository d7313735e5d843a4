"""Faults on demand for simulated cameras, both ends: SOCK_SEQPACKET, one msgpack map a packet.

{"cmd": name, ...arguments} -> {"ok": True, ...} or {"ok": False, "error": text}, as the control
socket of the simulated buses has it.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgpack

from recd.config.errors import DeviceError
from recd.daemon.sim.camera_faults import CameraFault

ALL = "*"
PACKET_BYTES = 64 * 1024
_ANSWER_WITHIN_S = 5.0


class Faulty(Protocol):
    """What the control socket steers: the camera server."""

    @property
    def cameras(self) -> Mapping[str, Any]: ...

    def status(self) -> dict[str, Any]: ...

    def inject(self, name: str, fault: CameraFault, *, slots: int, value: float) -> int: ...

    def clear(self, name: str) -> None: ...


def describe(server: Faulty) -> dict[str, Any]:
    """URL, clients, counts and present faults of every camera."""
    return {"cameras": server.status()}


def fault(
    server: Faulty, *, camera: str, kind: str, frames: int = 0, value: float = 0.0
) -> dict[str, Any]:
    """Plan fault `kind` (CameraFault) from the next exposure on, for `frames` (0: until cleared).

    Answers with the first exposure slot it acts on, by camera.
    """
    if kind not in list(CameraFault):
        raise ValueError(f"kind: expected one of {', '.join(CameraFault)}, got {kind!r}")
    if type(frames) is not int or type(value) not in (int, float):
        raise ValueError(f"expected frames, an integer, and value, got {frames!r} and {value!r}")
    return {
        "first_slot": {
            name: server.inject(name, CameraFault(kind), slots=frames, value=value)
            for name in _names(server, camera)
        }
    }


def clear(server: Faulty, *, camera: str = ALL) -> dict[str, Any]:
    """End every fault of one or all cameras."""
    for name in _names(server, camera):
        server.clear(name)
    return {}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "describe": describe,
    "fault": fault,
    "clear": clear,
}
"""By name; arguments are those of the function behind `server`."""


def answer(server: Faulty, packet: bytes) -> bytes:
    """The answer to one request."""
    try:
        request = msgpack.unpackb(packet)
        name = request.pop("cmd")
        if name not in COMMANDS:
            raise ValueError(f"cmd: expected one of {', '.join(COMMANDS)}, got {name!r}")
        reply = {"ok": True, **COMMANDS[name](server, **request)}
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        text = error.args[0] if error.args else repr(error)
        reply = {"ok": False, "error": str(text)}
    return bytes(msgpack.packb(reply))


def listen(path: str) -> socket.socket:
    """A control socket at `path`, for its owner only. The caller removes the path after closing.

    DeviceError when somebody listens there already or the path cannot be used.
    """
    if os.path.exists(path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            if probe.connect_ex(path) == 0:
                raise DeviceError(
                    f"{path}: another simulator listens there",
                    mend="stop it, or choose another control path",
                )
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    previous = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise DeviceError(f"{path}: no control socket here ({error.strerror})") from error
    finally:
        os.umask(previous)
    sock.listen(4)
    sock.setblocking(False)
    return sock


def call(path: str, cmd: str, **arguments: Any) -> dict[str, Any]:
    """Send one command (COMMANDS) to the cameras whose control socket is `path`; their answer.

    DeviceError when nobody answers there, ValueError when the command is refused.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_ANSWER_WITHIN_S)
        try:
            sock.connect(path)
            sock.send(msgpack.packb({"cmd": cmd, **arguments}))
            packet = sock.recv(PACKET_BYTES)
        except OSError as error:
            raise DeviceError(
                f"{path}: no simulated cameras answer ({error})", mend="are they running?"
            ) from error
    if not packet:
        raise DeviceError(f"{path}: the simulated cameras hung up", mend="look at their log")
    reply: dict[str, Any] = msgpack.unpackb(packet)
    if not reply.pop("ok"):
        raise ValueError(f"{cmd}: {reply['error']}")
    return reply


def _names(server: Faulty, camera: str) -> list[str]:
    if camera == ALL:
        return list(server.cameras)
    if camera not in server.cameras:
        raise ValueError(f"camera: expected {ALL} or one of {', '.join(server.cameras)}")
    return [camera]

"""Faults on demand for simulated cameras: one JSON object a line, over a Unix stream socket.

Asking: {"camera": "front", "fault": "freeze", "frames": 30}, {"camera": "*", "fault": "none"},
{"status": true}. Answers: {"ok": true, ...} or {"ok": false, "error": words}.
"""

import json
import os
import socket
from typing import Any, Protocol

from recd.config.errors import DeviceError
from recd.daemon.sim.camera_faults import CameraFault

ALL = "*"
CLEAR = "none"
_ANSWER_BYTES = 65536


class Faulty(Protocol):
    """What the control socket steers: the camera server."""

    @property
    def cameras(self) -> dict[str, Any]: ...

    def status(self) -> dict[str, Any]: ...

    def inject(self, name: str, fault: CameraFault, *, slots: int, value: float) -> int: ...


def listen(path: str) -> socket.socket:
    """A control socket at `path`, for its owner only. The caller removes the path after closing.

    DeviceError when somebody listens there already or the path cannot be used.
    """
    if os.path.exists(path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(path) == 0:
                raise DeviceError(
                    f"{path}: another simulator listens there",
                    mend="stop it, or choose another control path",
                )
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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


def answer(server: Faulty, line: bytes) -> dict[str, Any]:
    """The answer to one command line."""
    try:
        asked = json.loads(line)
    except ValueError as error:
        return _no(f"expected one JSON object a line ({error})")
    if not isinstance(asked, dict):
        return _no("expected a JSON object")
    if asked.get("status"):
        return {"ok": True, "cameras": server.status()}
    names = list(server.cameras) if asked.get("camera") == ALL else [str(asked.get("camera"))]
    if any(name not in server.cameras for name in names):
        return _no(f"camera: expected {ALL} or one of {', '.join(server.cameras)}")
    word, frames, value = asked.get("fault"), asked.get("frames", 0), asked.get("value", 0.0)
    if word != CLEAR and word not in list(CameraFault):
        return _no(f"fault: expected {CLEAR} or one of {', '.join(CameraFault)}")
    if type(frames) is not int or type(value) not in (int, float):
        return _no("frames: expected an integer; value: expected a number")
    if word == CLEAR:
        for name in names:
            server.cameras[name].sensor.faults.clear()
        return {"ok": True}
    fault = CameraFault(word)
    first = {name: server.inject(name, fault, slots=frames, value=value) for name in names}
    return {"ok": True, "first_slot": first}


def command(path: str, **fields: Any) -> dict[str, Any]:
    """Send one command to the control socket at `path` and return the answer.

    DeviceError when nobody listens there or the command is refused.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(path)
            sock.sendall(json.dumps(fields).encode() + b"\n")
            received = b""
            while not received.endswith(b"\n") and (data := sock.recv(_ANSWER_BYTES)):
                received += data
        except OSError as error:
            raise DeviceError(
                f"{path}: no simulated cameras answer ({error})", mend="are they running?"
            ) from error
    if not received:
        raise DeviceError(f"{path}: the simulated cameras hung up", mend="look at their log")
    reply: dict[str, Any] = json.loads(received)
    if not reply["ok"]:
        raise DeviceError(f"simulated cameras refused: {reply['error']}")
    return reply


def _no(words: str) -> dict[str, Any]:
    return {"ok": False, "error": words}

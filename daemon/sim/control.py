"""The control socket of a simulated robot, both ends: SOCK_SEQPACKET, one msgpack map a packet.

{"cmd": name, ...arguments} -> {"ok": True, ...} or {"ok": False, "error": text}.
"""

import inspect
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack

from recd.config.errors import DeviceError
from recd.daemon.sim.commands import COMMANDS
from recd.daemon.sim.pose import PoseHistory
from recd.daemon.sim.robot import SimRobot
from recd.daemon.sim.servolog import Entry, RegisterWrite, writes_of

PACKET_BYTES = 192 * 1024
SOCKET_NAME = "control.sock"


class ControlServer:
    """Claims a robot's directory and listens there; `fds` are for poll, `serve` handles one.

    Made before the robot: DeviceError when another one lives in `directory`.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / SOCKET_NAME
        if _is_answered(self._path):
            raise DeviceError(
                f"{directory}: expected a directory of its own, found a simulated robot running",
                mend="Stop that one, or choose another directory.",
            )
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._clients: dict[int, socket.socket] = {}

    @property
    def fds(self) -> list[int]:
        return [self._listener.fileno(), *self._clients]

    def serve(self, fd: int, robot: SimRobot) -> None:
        """Accept a client or answer its request to `robot`."""
        if fd == self._listener.fileno():
            client, _ = self._listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PACKET_BYTES)
            client.settimeout(1.0)
            self._clients[client.fileno()] = client
            return
        client = self._clients[fd]
        try:
            packet = client.recv(PACKET_BYTES)
            if packet:
                client.send(_fitting(_answer(packet, robot)))
                return
        except OSError:
            pass  # the client is gone or does not read: either way it is dropped here
        self._clients.pop(fd).close()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


def _answer(packet: bytes, robot: SimRobot) -> dict[str, Any]:
    try:
        request = msgpack.unpackb(packet, strict_map_key=False)
        name = request.pop("cmd")
        if name not in COMMANDS:
            raise ValueError(f"expected one of {', '.join(COMMANDS)}, got {name!r}")
        return {"ok": True, **COMMANDS[name](robot, **request)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = error.args[0] if error.args else repr(error)
        return {"ok": False, "error": str(text)}


def _fitting(answer: dict[str, Any]) -> bytes:
    packet: bytes = msgpack.packb(answer)
    if len(packet) <= PACKET_BYTES:
        return packet
    refusal: bytes = msgpack.packb({"ok": False, "error": "answer too large: ask for less"})
    return refusal


class SimControl:
    """Client of a running simulated robot, by its directory or control socket.

    Every command of commands.COMMANDS is a method with keyword arguments:
    `sim.brown_out(bus="main.follower")`. ValueError when it is refused.
    """

    def __init__(self, directory: Path | str, timeout_s: float = 5.0) -> None:
        path = Path(directory)
        self.directory = path.parent if path.name == SOCKET_NAME else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(timeout_s)
        self._poses: PoseHistory | None = None
        try:
            self._socket.connect(str(self.directory / SOCKET_NAME))
        except OSError as error:
            self._socket.close()
            raise DeviceError(
                f"{self.directory}: expected a running simulated robot, found: {error.strerror}",
                mend="Start it with `python -m recd.daemon.sim --dir DIR`.",
            ) from error

    def call(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer. ValueError when it is refused."""
        self._socket.send(msgpack.packb({"cmd": cmd, **arguments}))
        answer: dict[str, Any] = msgpack.unpackb(
            self._socket.recv(PACKET_BYTES), strict_map_key=False
        )
        if not answer.pop("ok"):
            raise ValueError(f"{cmd}: {answer['error']}")
        return answer

    def fault(self, bus: str, kind: str, **arguments: Any) -> dict[str, Any]:
        """Inject a fault, see commands.fault: `sim.fault("main.follower", "late", ms=60)`."""
        return self.call("fault", bus=bus, kind=kind, **arguments)

    def __getattr__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise AttributeError(name)

        def command(**arguments: Any) -> dict[str, Any]:
            return self.call(name, **arguments)

        command.__doc__ = inspect.getdoc(COMMANDS[name])
        return command

    def entries(self, *, since: int = 0, bus: str = "") -> list[Entry]:
        """All log entries from number `since` on that are still kept."""
        found: list[Entry] = []
        while True:
            answer = self.call("log", since=since, bus=bus)
            for number, t_ns, name, kind, frame, heard, fields in answer["entries"]:
                found.append(Entry(number, t_ns, name, kind, frame, tuple(heard), fields))
            if not answer["entries"]:
                return found
            since = answer["next"]

    def writes(self, *, since: int = 0, bus: str = "", name: str = "") -> list[RegisterWrite]:
        """Register writes that servos carried out, oldest first; `name` picks one register."""
        return [
            write
            for entry in self.entries(since=since, bus=bus)
            for write in writes_of(entry)
            if not name or write.name == name
        ]

    def mark(self) -> int:
        """Number of the next log entry: pass it as `since` to see only what comes after now."""
        return int(self.call("log", since=1 << 60, limit=1)["count"])

    @property
    def poses(self) -> PoseHistory:
        """True poses of the last seconds."""
        if self._poses is None:
            self._poses = PoseHistory(self.directory / "pose.bin")
        return self._poses

    def true_position(self, bus: str, joint: str, t_ns: int) -> float:
        """True position in reported steps (not rounded) of one joint at `t_ns`."""
        steps = self.poses.steps_at(t_ns)
        for at, column in enumerate(self.poses.joints):
            if column.bus == bus and column.joint == joint:
                return float(steps[at])
        raise KeyError(f"no joint {joint!r} on bus {bus!r}")

    def close(self) -> None:
        self._socket.close()
        if self._poses is not None:
            self._poses.close()
            self._poses = None

    def __enter__(self) -> "SimControl":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""Simulated cameras on the wire: MJPEG, or H.264 in a transport stream, over HTTP on 127.0.0.1.
All cameras are in one thread.

Pictures are drawn only while a client watches. A client that does not take its bytes loses whole
frames here, at the sender, as with a real camera; it never delays another client or camera.
"""

import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from recd.config.errors import DeviceError, RecdError
from recd.daemon.sim.camera_control import PACKET_BYTES, answer, listen
from recd.daemon.sim.camera_faults import CameraFault
from recd.daemon.sim.figure import PoseSource
from recd.daemon.sim.h264 import TransportStream
from recd.daemon.sim.sensor import Exposure, Sensor, SimCameraSpec
from recd.shm.clock import NS_PER_S, now_ns

HOST = "127.0.0.1"
BOUNDARY = "recdframe"
PATHS = {"mjpeg": ("/", "/stream.mjpg"), "h264": ("/", "/stream.ts")}
"""Codec of a camera -> paths at which it answers; the last one is in its URL."""
_REQUEST_BYTES = 8192
_SEND_BUFFER_BYTES = 192 * 1024  # a few pictures: what a slow client may fall behind
_BEHIND_NS = NS_PER_S  # a sender this far behind gives up the pictures in between
_IDLE_S = 3600.0

_CONTENT = {"mjpeg": f"multipart/x-mixed-replace; boundary={BOUNDARY}", "h264": "video/MP2T"}
_STREAM_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
)


@dataclass(slots=True, eq=False)
class _Client:
    """One connection to a camera. pending: what the socket would not take yet."""

    sock: socket.socket
    request: bytearray = field(default_factory=bytearray)
    streaming: bool = False
    closing: bool = False
    pending: memoryview = field(default_factory=lambda: memoryview(b""))
    sent: int = 0
    dropped: int = 0


@dataclass(slots=True, eq=False)
class _Camera:
    """One camera, its port and its clients.

    slot: the next exposure to draw; drawn: what waits for its time to leave (CLOCK_MONOTONIC ns).
    """

    sensor: Sensor
    listener: socket.socket
    slot: int = 0
    drawn: deque[tuple[int, bytes]] = field(default_factory=deque)
    clients: list[_Client] = field(default_factory=list)
    pictures: int = 0
    sent: int = 0
    dropped: int = 0
    overrun: int = 0
    transport: TransportStream = field(default_factory=TransportStream)

    @property
    def url(self) -> str:
        path = PATHS[self.sensor.spec.codec][-1]
        return f"http://{HOST}:{self.listener.getsockname()[1]}{path}"

    def part(self, exposure: Exposure) -> bytes:
        """What its clients are sent of one picture."""
        if self.sensor.spec.codec == "h264":
            return self.transport.pack(exposure.data, exposure.stamp_ns)
        return _part(exposure)

    @property
    def watched(self) -> bool:
        return any(client.streaming for client in self.clients)


class CameraServer:
    """Serves `specs` until told to stop. RecdError when a port or the control path is taken.

    control_path: where the control socket is to be (camera_control), "" for none.
    """

    def __init__(
        self, specs: Sequence[SimCameraSpec], pose: PoseSource, *, control_path: str = ""
    ) -> None:
        for spec in specs:
            if problem := spec.problem():
                raise RecdError(problem, code="config")
        self._selector = selectors.DefaultSelector()
        self._running = True
        self.cameras: dict[str, _Camera] = {}
        start_ns = now_ns()
        for spec in specs:
            camera = _Camera(Sensor(spec, pose, start_ns=start_ns), _listener(spec))
            self.cameras[spec.name] = camera
            self._watch(camera.listener, partial(self._accept, camera))
        self._control_path = control_path
        self._control = listen(control_path) if control_path else None
        if self._control is not None:
            self._watch(self._control, self._accept_control)

    @property
    def urls(self) -> dict[str, str]:
        """URL of each camera's stream, by name."""
        return {name: camera.url for name, camera in self.cameras.items()}

    def run(self, stop_fd: int) -> None:
        """Serve until `stop_fd` becomes readable, then close every socket."""
        self._watch(stop_fd, self._stop)
        while self._running:
            for key, mask in self._selector.select(self._timeout_s()):
                key.data(mask)
            # What is due leaves before anything new is drawn: drawing takes milliseconds.
            for camera in self.cameras.values():
                self._deliver_due(camera)
            for camera in self.cameras.values():
                self._draw_due(camera)
        self._selector.unregister(stop_fd)
        self.close()

    def close(self) -> None:
        """Close everything; the control path is removed."""
        for camera in self.cameras.values():
            for client in list(camera.clients):
                self._drop(camera, client)
            camera.listener.close()
        if self._control is not None:
            self._control.close()
            os.unlink(self._control_path)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def status(self) -> dict[str, Any]:
        """Per camera: URL, clients, pictures drawn, parts sent and dropped, faults that act."""
        return {
            name: {
                "url": camera.url,
                "clients": sum(client.streaming for client in camera.clients),
                "slot": self._current_slot(camera),
                "pictures": camera.pictures,
                "sent": camera.sent,
                "dropped": camera.dropped,
                "overrun": camera.overrun,
                "faults": camera.sensor.faults.active(self._current_slot(camera)),
            }
            for name, camera in self.cameras.items()
        }

    def inject(self, name: str, fault: CameraFault, *, slots: int, value: float) -> int:
        """Plan `fault` for camera `name` from its next exposure on; returns that slot."""
        camera = self.cameras[name]
        first = self._current_slot(camera)
        if fault is CameraFault.CLOCK_STEP:
            camera.sensor.step_clock(value)
            return first
        camera.sensor.faults.add(fault, first=first, slots=slots, value=value)
        if fault is CameraFault.DISCONNECT:
            for client in list(camera.clients):
                self._drop(camera, client)
        return first

    def clear(self, name: str) -> None:
        """End every fault of camera `name`."""
        self._current_slot(self.cameras[name])
        self.cameras[name].sensor.faults.clear()

    def _stop(self, _mask: int) -> None:
        self._running = False

    def _watch(self, fileobj: Any, react: Callable[[int], None]) -> None:
        self._selector.register(fileobj, selectors.EVENT_READ, react)

    def _timeout_s(self) -> float:
        watched = [camera for camera in self.cameras.values() if camera.watched]
        if not watched:
            return _IDLE_S
        due_ns = min(camera.sensor.opens_ns(camera.slot) for camera in watched)
        leaving = [camera.drawn[0][0] for camera in watched if camera.drawn]
        due_ns = min([due_ns, *leaving])
        return max(0.0, (due_ns - now_ns()) / NS_PER_S)

    def _current_slot(self, camera: _Camera) -> int:
        """The slot that is delivered next; a camera nobody watches is brought up to date."""
        if not camera.watched:
            now_slot = max(camera.slot, camera.sensor.slot_after(now_ns()))
            camera.sensor.pass_over(camera.slot, now_slot)
            camera.slot = now_slot
        return camera.slot

    def _deliver_due(self, camera: _Camera) -> None:
        if not camera.watched:
            camera.drawn.clear()
        while camera.drawn and now_ns() >= camera.drawn[0][0]:
            self._send_all(camera, camera.drawn.popleft()[1])

    def _draw_due(self, camera: _Camera) -> None:
        """Draw the next picture once it is exposed, so that it leaves when its latency says."""
        if not camera.watched:
            return
        sensor = camera.sensor
        behind_ns = now_ns() - sensor.opens_ns(camera.slot)
        if behind_ns > _BEHIND_NS:
            first, camera.slot = camera.slot, sensor.slot_after(now_ns())
            sensor.pass_over(first, camera.slot)
            camera.overrun += camera.slot - first
        elif behind_ns >= 0:
            leaves_ns = sensor.delivery_ns(camera.slot)
            exposure = sensor.expose(camera.slot)
            camera.slot += 1
            if exposure is not None:
                camera.pictures += 1
                camera.drawn.append((leaves_ns, camera.part(exposure)))

    def _send_all(self, camera: _Camera, part: bytes) -> None:
        for client in list(camera.clients):
            if not client.streaming:
                continue
            if client.pending:
                client.dropped += 1
                camera.dropped += 1
                continue
            client.sent += 1
            camera.sent += 1
            self._send(camera, client, memoryview(part))

    def _send(self, camera: _Camera, client: _Client, data: memoryview) -> None:
        """Send what the socket takes; keep the rest and wait until it is writable."""
        was_pending = bool(client.pending)
        try:
            taken = client.sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:  # the client is gone: nothing is owed to it
            self._drop(camera, client)
            return
        client.pending = data[taken:]
        if client.closing and not client.pending:
            self._drop(camera, client)
        elif bool(client.pending) != was_pending:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.pending else 0)
            self._selector.modify(client.sock, events, partial(self._react, camera, client))

    def _accept(self, camera: _Camera, _mask: int) -> None:
        sock, _ = camera.listener.accept()
        if camera.sensor.faults.acts(CameraFault.DISCONNECT, self._current_slot(camera)):
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        client = _Client(sock)
        camera.clients.append(client)
        self._watch(sock, partial(self._react, camera, client))

    def _react(self, camera: _Camera, client: _Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._send(camera, client, client.pending)
        if mask & selectors.EVENT_READ and client in camera.clients:
            self._read(camera, client)

    def _read(self, camera: _Camera, client: _Client) -> None:
        try:
            data = client.sock.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(camera, client)
        elif not client.streaming and not client.closing:
            client.request += data
            if b"\r\n\r\n" in client.request:
                self._begin(camera, client)
            elif len(client.request) > _REQUEST_BYTES:
                self._refuse(camera, client, "431 Request Header Fields Too Large")

    def _begin(self, camera: _Camera, client: _Client) -> None:
        words = bytes(client.request).split(b"\r\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._refuse(camera, client, "400 Bad Request")
        elif words[0] != "GET":
            self._refuse(camera, client, "405 Method Not Allowed")
        elif words[1].split("?")[0] not in PATHS[camera.sensor.spec.codec]:
            self._refuse(camera, client, "404 Not Found")
        else:
            self._current_slot(camera)
            client.streaming = True
            head = _STREAM_HEAD.format(_CONTENT[camera.sensor.spec.codec])
            self._send(camera, client, memoryview(head.encode()))

    def _refuse(self, camera: _Camera, client: _Client, status: str) -> None:
        client.closing = True
        text = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self._send(camera, client, memoryview(text.encode()))

    def _drop(self, camera: _Camera, client: _Client) -> None:
        self._selector.unregister(client.sock)
        client.sock.close()
        camera.clients.remove(client)

    def _accept_control(self, _mask: int) -> None:
        assert self._control is not None
        sock, _ = self._control.accept()
        sock.setblocking(False)
        self._watch(sock, partial(self._serve_control, sock))

    def _serve_control(self, sock: socket.socket, _mask: int) -> None:
        try:
            packet = sock.recv(PACKET_BYTES)
            if packet:
                sock.send(answer(self, packet))
                return
        except OSError:
            pass  # whoever asked is gone or does not read its answers: dropped like one that left
        self._selector.unregister(sock)
        sock.close()


def _listener(spec: SimCameraSpec) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, spec.port))
    except OSError as error:
        sock.close()
        raise DeviceError(
            f"camera {spec.name}: port {spec.port} on {HOST} cannot be used ({error.strerror})",
            mend="give it another port, or 0 for any free one",
        ) from error
    sock.listen(8)
    sock.setblocking(False)
    return sock


def _part(exposure: Exposure) -> bytes:
    head = (
        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(exposure.data)}\r\n"
        f"X-Frame-Number: {exposure.number}\r\nX-Timestamp-Ns: {exposure.stamp_ns}\r\n\r\n"
    )
    return b"".join((head.encode(), exposure.data, b"\r\n"))

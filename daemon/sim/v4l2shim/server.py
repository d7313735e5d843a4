"""Serves one simulated V4L2 device on a unix socket: answers programs, exposes on time.

One thread of its own; `inject`, `unplug` and `plug` may be called from any other.
"""

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from recd.daemon.sim.v4l2shim.device import Handle, Script, VirtualDevice
from recd.daemon.sim.v4l2shim.spec import Pictures, V4l2Fault, VirtualCamera
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, tick_at_or_before, tick_ns

_ASK = struct.Struct("<IIQII")
_ANSWER = struct.Struct("<iII")
_OP_OPEN, _OP_IOCTL = 1, 2
_MOST_BYTES = 8192
_STARVED_NS = 20 * NS_PER_MS
"""An exposure that is served later than this was held up by the computer, not by this camera."""

_CAUGHT_UP_NS = NS_PER_S
"""So much is caught up with; what was due before is dropped."""


class VirtualCameraServer:
    """A device that is plugged in from `start` to `close`. Context manager."""

    def __init__(
        self, path: Path, camera: VirtualCamera, pictures: Pictures, *, clocked: bool = True
    ) -> None:
        """clocked: exposes at its own rate; False: only when `expose` is called."""
        self.path = path
        self._clocked = clocked
        self._device = VirtualDevice(camera, pictures)
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._handles: dict[socket.socket, Handle] = {}
        self._listener: socket.socket | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ending = False
        self._exposures = 0
        self._clock_start_ns = 0
        self._thread = threading.Thread(target=self._run, name=f"v4l2 {path.name}", daemon=True)

    def start(self) -> "VirtualCameraServer":
        self._selector.register(self._wake, selectors.EVENT_READ)
        self.plug()
        self._thread.start()
        return self

    def close(self) -> None:
        """Unplug and end."""
        self.unplug()
        self._ending = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._selector.close()
        os.close(self._wake)

    def __enter__(self) -> "VirtualCameraServer":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def streaming(self) -> bool:
        """A program is capturing now."""
        return self._device.streaming

    @property
    def sequence(self) -> int:
        """Frames numbered since streaming began."""
        return self._device.sequence

    @property
    def exposing_ns(self) -> int:
        """Time of the exposure whose picture is being drawn (CLOCK_MONOTONIC); 0 before any."""
        return self._device.exposing_ns

    def control(self, cid: int) -> int:
        """Present value of a control."""
        with self._lock:
            return self._device.controls.values[cid]

    def inject(self, fault: V4l2Fault, *, frames: int) -> None:
        """`fault` on the next `frames` exposures."""
        with self._lock:
            self._device.faults[fault] = frames

    def change(self, edit: Callable[[Script], None]) -> None:
        """Change the device's script under its lock."""
        with self._lock:
            edit(self._device.script)

    def expose(self, at_ns: int, *, missed: int = 0) -> None:
        """Take a picture stamped `at_ns`, after `missed` exposures that never were delivered."""
        with self._lock:
            self._device.miss(missed)
            self._device.expose(at_ns)

    def unplug(self) -> None:
        """The cable comes out: every handle dies, the path answers nobody."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
                self.path.unlink(missing_ok=True)
            for link in list(self._handles):
                self._drop(link)
            self._device.reset()

    def plug(self) -> None:
        """The cable goes in. Its controls are as they were left, its numbers begin at 0."""
        with self._lock:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            listener.bind(str(self.path))
            listener.listen(8)
            self._listener = listener
            self._selector.register(listener, selectors.EVENT_READ)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(self._until_next_s()):
                with self._lock:
                    self._serve(key.fileobj)
            with self._lock:
                self._expose_due()

    def _due_ns(self) -> int:
        fps = self._device.formats.fps
        return tick_ns(self._clock_start_ns, self._exposures + 1, fps.numerator, fps.denominator)

    def _until_next_s(self) -> float | None:
        if not self._device.streaming or not self._clocked:
            return None
        until_ns = self._due_ns() - now_ns()
        return max(NS_PER_MS if self._waits_for_buffer(-until_ns) else 0, until_ns) / NS_PER_S

    def _waits_for_buffer(self, late_ns: int) -> bool:
        """Whether an exposure waits, because it was held up together with the program that would
        have brought a buffer in time. One that is on time finds a buffer or is dropped."""
        return late_ns > _STARVED_NS and not self._device.has_buffer

    def _expose_due(self) -> None:
        if not self._device.streaming or not self._clocked:
            self._clock_start_ns = 0
            return
        if not self._clock_start_ns:
            self._clock_start_ns, self._exposures = now_ns(), 0
        self._drop_before(now_ns() - _CAUGHT_UP_NS)
        due_ns = self._due_ns()
        late_ns = now_ns() - due_ns
        if late_ns < 0 or self._waits_for_buffer(late_ns):
            return
        self._exposures += 1
        self._device.expose(due_ns)

    def _drop_before(self, t_ns: int) -> None:
        """Exposures that were due before `t_ns` are numbered, and nobody sees them."""
        fps = self._device.formats.fps
        passed = tick_at_or_before(self._clock_start_ns, t_ns, fps.numerator, fps.denominator)
        if passed > self._exposures:
            self._device.miss(passed - self._exposures)
            self._exposures = passed

    def _serve(self, source: object) -> None:
        if source == self._wake:
            os.eventfd_read(self._wake)
        elif source is self._listener:
            self._accept()
        elif isinstance(source, socket.socket) and source in self._handles:
            self._answer(source)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            link, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._handles[link] = Handle.create()
        self._selector.register(link, selectors.EVENT_READ)

    def _answer(self, link: socket.socket) -> None:
        try:
            packet = link.recv(_MOST_BYTES)
        except ConnectionResetError:
            packet = b""
        if not packet:
            self._drop(link)
            return
        handle = self._handles[link]
        operation, _, request, argument_bytes, array_bytes = _ASK.unpack_from(packet)
        if operation == _OP_OPEN:
            self._open(link, handle)
            return
        at = _ASK.size
        argument = bytearray(packet[at : at + argument_bytes])
        array = bytearray(packet[at + argument_bytes : at + argument_bytes + array_bytes])
        error = self._device.answer(handle, request, argument, array)
        self._send(link, _ANSWER.pack(error, argument_bytes, array_bytes) + argument + array)

    def _open(self, link: socket.socket, handle: Handle) -> None:
        error = self._device.script.open_error
        if error:
            self._send(link, _ANSWER.pack(error, 0, 0))
            return
        try:
            socket.send_fds(link, [_ANSWER.pack(0, 0, 0)], [handle.ready, handle.memory])
        except OSError:  # the program gave up between connect and answer
            self._drop(link)

    def _send(self, link: socket.socket, packet: bytes) -> None:
        try:
            link.send(packet, socket.MSG_NOSIGNAL)
        except OSError:  # the program died while it was being answered
            self._drop(link)

    def _drop(self, link: socket.socket) -> None:
        handle = self._handles.pop(link)
        self._selector.unregister(link)
        self._device.release(handle)
        link.close()
        # Readable for ever: who waits for a frame wakes up and meets ENODEV.
        os.eventfd_write(handle.ready, 1 << 20)
        handle.close()

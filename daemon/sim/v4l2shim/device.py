"""The driver of a simulated V4L2 camera: ioctls, buffer queue, one picture per exposure.

Follows the kernel's rules for single-planar streaming devices as far as capture programs can see
them: several handles may ask, one owns the buffers. No clock, no sockets: the server has those.
"""

import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.sim.v4l2shim.formats import Controls, Formats
from recd.daemon.sim.v4l2shim.spec import (
    STAMP_FLAGS,
    STAMP_OFFSET_NS,
    Pictures,
    StampKind,
    V4l2Fault,
    VirtualCamera,
    fill,
)

MOST_BUFFERS = 32


@dataclass(slots=True, eq=False)
class Handle:
    """One open of the device: `ready` is an eventfd that counts filled buffers, `memory` a memfd
    that holds them."""

    ready: int
    memory: int

    @classmethod
    def create(cls) -> "Handle":
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC
        return cls(os.eventfd(0, flags), os.memfd_create("v4l2-buffers", os.MFD_CLOEXEC))

    def close(self) -> None:
        os.close(self.ready)
        os.close(self.memory)


@dataclass(slots=True)
class _Slot:
    index: int
    bytesused: int = 0
    flags: int = 0
    sequence: int = 0
    stamp_ns: int = 0


@dataclass(slots=True)
class Script:
    """How the device behaves apart from single faults; may be changed while it runs.

    stamps: clock of the buffer stamps; numbered: False leaves every sequence number at 0; errors:
    ioctl request -> error number it always gives; open_error: error number of open, 0 none;
    patient: waits with an exposure until a buffer is free, which no real camera does.
    """

    stamps: StampKind = StampKind.MONOTONIC
    numbered: bool = True
    errors: dict[int, int] = field(default_factory=dict)
    open_error: int = 0
    patient: bool = False


class VirtualDevice:
    """State of one device. `answer` serves an ioctl, `expose` takes a picture."""

    def __init__(self, camera: VirtualCamera, pictures: Pictures) -> None:
        self.camera = camera
        self.script = Script()
        self.faults: dict[V4l2Fault, int] = {}
        self.controls = Controls(camera)
        self._pictures = pictures
        self._queue_requests: dict[int, Callable[[Handle, abi.Buffer], int]] = {
            abi.QUERYBUF: self._querybuf,
            abi.QBUF: self._qbuf,
            abi.DQBUF: self._dqbuf,
        }
        self.reset()

    def reset(self) -> None:
        """As after plugging in."""
        self.formats = Formats(self.camera)
        self._owner: Handle | None = None
        self._slots: list[_Slot] = []
        self._queued: deque[_Slot] = deque()
        self._filled: deque[_Slot] = deque()
        self.streaming = False
        self.sequence = 0
        self.exposing_ns = 0
        self._last_picture = b""

    @property
    def has_buffer(self) -> bool:
        """The program has given a buffer that the next exposure can be written into."""
        return bool(self._queued)

    def expose(self, at_ns: int) -> None:
        """One exposure at `at_ns`: numbered, and filled into the next free buffer if there is one.

        A device whose program keeps all buffers drops the picture, as a real one does.
        """
        if not self.streaming or (self.script.patient and not self._queued):
            return
        if self._takes(V4l2Fault.SILENT):
            return
        number, self.sequence = self.sequence, self.sequence + 1
        self.exposing_ns = at_ns
        if self._takes(V4l2Fault.DROP) or not self._queued:
            return
        slot = self._queued.popleft()
        data = self._picture(number)
        assert self._owner is not None
        os.pwrite(self._owner.memory, data, slot.index * self.formats.buffer_bytes())
        slot.bytesused = len(data)
        slot.flags = abi.BUF_FLAG_ERROR if self._takes(V4l2Fault.ERROR) else 0
        slot.sequence = number if self.script.numbered else 0
        slot.stamp_ns = at_ns + STAMP_OFFSET_NS[self.script.stamps]
        self._filled.append(slot)
        os.eventfd_write(self._owner.ready, 1)

    def miss(self, exposures: int) -> None:
        """So many exposures are numbered, and nobody sees their pictures."""
        if self.streaming and not self.script.patient:
            self.sequence += exposures

    def _takes(self, fault: V4l2Fault) -> bool:
        left = self.faults.get(fault, 0)
        if left > 0:
            self.faults[fault] = left - 1
        return left > 0

    def _picture(self, number: int) -> bytes:
        if not (self._last_picture and self._takes(V4l2Fault.FREEZE)):
            size = self.formats.size
            chosen = self.formats.chosen.pixelformat
            data = self._pictures(number, chosen, size.width, size.height)
            self._last_picture = self.formats.padded(data)
        if self._takes(V4l2Fault.EMPTY):
            return b""
        data = self._last_picture
        return data[: len(data) // 2] if self._takes(V4l2Fault.SHORT) else data

    def answer(self, handle: Handle, request: int, argument: bytearray, array: bytearray) -> int:
        """Serve one ioctl in place. Returns 0 or the error number."""
        if request in self.script.errors:
            return self.script.errors[request]
        if request in self._queue_requests:
            return self._queue_requests[request](handle, abi.Buffer.from_buffer(argument))
        if (request == abi.S_FMT and self._slots) or (request == abi.S_PARM and self.streaming):
            return errno.EBUSY
        for served in (self.formats.served, self.controls.served):
            if request in served:
                structure, serve = served[request]
                return serve(structure.from_buffer(argument))
        return self._answer_rest(handle, request, argument, array)

    def _answer_rest(
        self, handle: Handle, request: int, argument: bytearray, array: bytearray
    ) -> int:
        match request:
            case abi.QUERYCAP:
                return self._querycap(abi.Capability.from_buffer(argument))
            case abi.REQBUFS:
                return self._reqbufs(handle, abi.RequestBuffers.from_buffer(argument))
            case abi.STREAMON:
                return self._streamon(handle)
            case abi.STREAMOFF:
                return self._streamoff(handle)
            case abi.G_EXT_CTRLS | abi.S_EXT_CTRLS:
                return self.controls.extended(argument, array, write=request == abi.S_EXT_CTRLS)
            case abi.G_INPUT:
                ctypes.c_int.from_buffer(argument).value = 0
                return 0
            case abi.S_INPUT:
                return errno.EINVAL if ctypes.c_int.from_buffer(argument).value else 0
            case abi.ENUMINPUT:
                entry = abi.Input.from_buffer(argument)
                fill(entry, name=b"Camera 1", type=2)
                return errno.EINVAL if entry.index else 0
        return errno.ENOTTY

    def release(self, handle: Handle) -> None:
        """The handle was closed: what it owned ends."""
        if self._owner is handle:
            self._stop()
            self._owner = None
            self._slots = []

    def _querycap(self, caps: abi.Capability) -> int:
        bits = abi.CAP_VIDEO_CAPTURE | abi.CAP_STREAMING
        fill(
            caps,
            driver=self.camera.driver.encode(),
            card=self.camera.card.encode(),
            bus_info=self.camera.bus.encode(),
            version=0x060100,
            capabilities=bits | abi.CAP_DEVICE_CAPS,
            device_caps=bits,
        )
        return 0

    def _reqbufs(self, handle: Handle, request: abi.RequestBuffers) -> int:
        if request.memory != abi.MEMORY_MMAP or request.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            return errno.EINVAL
        if self._owner not in (None, handle):
            return errno.EBUSY
        self._stop()
        request.count = min(request.count, MOST_BUFFERS)
        self._slots = [_Slot(index) for index in range(request.count)]
        self._owner = handle if request.count else None
        if request.count:
            os.ftruncate(handle.memory, request.count * self.formats.buffer_bytes())
        return 0

    def _show(self, buffer: abi.Buffer, slot: _Slot) -> None:
        seconds, rest_ns = divmod(slot.stamp_ns, 1_000_000_000)
        length = self.formats.buffer_bytes()
        fill(
            buffer,
            index=slot.index,
            bytesused=slot.bytesused,
            flags=slot.flags | STAMP_FLAGS[self.script.stamps],
            field=abi.FIELD_NONE,
            timestamp=abi.Timeval(seconds, rest_ns // 1000),
            sequence=slot.sequence,
            memory=abi.MEMORY_MMAP,
            length=length,
        )
        buffer.m.offset = slot.index * length

    def _querybuf(self, handle: Handle, buffer: abi.Buffer) -> int:
        if self._owner is not handle or buffer.index >= len(self._slots):
            return errno.EINVAL
        self._show(buffer, self._slots[buffer.index])
        return 0

    def _qbuf(self, handle: Handle, buffer: abi.Buffer) -> int:
        if self._owner is not handle or buffer.index >= len(self._slots):
            return errno.EINVAL
        slot = self._slots[buffer.index]
        if any(slot is held for held in (*self._queued, *self._filled)):
            return errno.EINVAL
        slot.bytesused = slot.flags = 0
        self._queued.append(slot)
        return 0

    def _dqbuf(self, handle: Handle, buffer: abi.Buffer) -> int:
        if self._owner is not handle or not self.streaming:
            return errno.EINVAL
        if not self._filled:
            return errno.EAGAIN
        os.eventfd_read(handle.ready)
        self._show(buffer, self._filled.popleft())
        return 0

    def _streamon(self, handle: Handle) -> int:
        if self._owner is not handle:
            return errno.EBUSY if self._owner else errno.EINVAL
        if not self.streaming:
            self.streaming, self.sequence = True, 0
        return 0

    def _streamoff(self, handle: Handle) -> int:
        if self._owner not in (None, handle):
            return errno.EBUSY
        self._stop()
        return 0

    def _stop(self) -> None:
        self.streaming = False
        self._queued.clear()
        if self._owner is not None:
            for _ in self._filled:
                os.eventfd_read(self._owner.ready)
        self._filled.clear()

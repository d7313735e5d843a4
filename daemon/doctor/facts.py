"""What the doctor knows of a computer, as plain values: what the checks judge and tests record.

Nothing here reads anything. None stands for what this computer does not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One device or hub. name: the kernel's (`1-2.3`, `usb1` for a root); above: name of the hub it
    hangs on, "" for a root; speed_mbit: negotiated; autosuspend: the kernel may switch it off."""

    name: str
    above: str
    speed_mbit: float
    product: str = ""
    autosuspend: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """One configured camera or bus. key: of the configuration; path: as the kernel knows it;
    way_in: how this user gets to use it; usb: name of its UsbDevice, "" for none;
    stream_bytes_per_s: what a camera sends, estimated for compressed pictures; latency_timer_ms:
    of FTDI adapters; users: other processes that have it."""

    key: str
    path: str
    there: bool
    may_use: bool = True
    group: str = ""
    way_in: str = ""
    usb: str = ""
    stream_bytes_per_s: float = 0.0
    compressed: bool = False
    latency_timer_ms: int | None = None
    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clock:
    """synchronised: wall time follows a server; call_ns: cost of reading the monotonic clock;
    backwards: readings that were less than the one before."""

    synchronised: bool | None
    source: str
    call_ns: float
    backwards: int


@dataclass(frozen=True, slots=True)
class Memory:
    """ring_bytes, largest_ring_bytes: of the cameras; limit_bytes: left to this control group;
    files: descriptors that a process may have; files_needed: by the supervisor; file_bytes: limit
    of a file's size, which holds for shared memory too."""

    available_bytes: int
    ring_bytes: int
    largest_ring_bytes: int = 0
    limit_bytes: int | None = None
    files: int | None = None
    files_needed: int = 0
    file_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The dataset's file system. write_bytes_per_s: a stretch of writing and one sync at its end;
    sync_ms: each of some small writes made durable; error: why it could not be measured."""

    folder: str
    filesystem: str
    free_bytes: int
    reserve_bytes: int
    write_bytes_per_s: float = 0.0
    sync_ms: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """One camera while all of them were encoded at once. cpu_ms, wall_ms: per picture, from the
    camera's bytes to the file; nbytes: per picture in the file; refused: why it did not work."""

    camera: str
    width: int
    height: int
    fps: float
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    nbytes: float = 0.0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec, measured with all `streams` at once on `cores` cores. hardware: its work is not
    the cores'."""

    name: str
    streams: tuple[Stream, ...]
    cores: int
    hardware: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """Machine code of kernels. problem: why the cache cannot be used; absent: modules that the
    next start compiles."""

    folder: str
    problem: str = ""
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. problems: of the configuration, in its own words; granted: real-time setting ->
    `granted` or why not; governors: name -> how many cores."""

    cores: int
    governors: Mapping[str, int]
    granted: Mapping[str, str]
    clock: Clock
    memory: Memory
    kernels: Kernels
    disk: Disk
    codecs: tuple[Codec, ...] = ()
    usb: Mapping[str, UsbDevice] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    problems: tuple[tuple[str, str, str, str], ...] = ()
    named: str = ""

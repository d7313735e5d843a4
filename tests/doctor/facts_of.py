"""Facts of a computer on which all is well, for tests that spoil one of them."""

from dataclasses import replace
from typing import Any

from recd.daemon.doctor.facts import Clock, Codec, Disk, Facts, Kernels, Memory, Stream

WELL = Facts(
    cores=8,
    governors={"performance": 8},
    granted={"SCHED_FIFO 70": "granted", "memory lock": "granted"},
    clock=Clock(synchronised=True, source="tsc", call_ns=60.0, backwards=0),
    memory=Memory(available_bytes=8 * 2**30, ring_bytes=40 * 2**20, largest_ring_bytes=20 * 2**20,
                  files=1024, files_needed=150),
    kernels=Kernels("/home/ada/.cache/recd"),
    disk=Disk("/data/set", "ext4", 100 * 10**9, 500 * 10**6, 400e6, (3.0, 4.0, 9.0)),
)  # fmt: skip


def spoiled(**part: Any) -> Facts:
    """WELL with whole parts replaced."""
    return replace(WELL, **part)


def codec(
    *cpu_ms: float, cores: int = 4, wall_ms: float = 1.0, name: str = "h264 veryfast",
    hardware: bool = False, fps: float = 30.0,
) -> Codec:  # fmt: skip
    """One camera of 640x480@30 for every given cost of a picture."""
    streams = tuple(
        Stream(f"c{k}", 640, 480, fps, cpu_ms=cost, wall_ms=wall_ms, nbytes=10_000.0)
        for k, cost in enumerate(cpu_ms)
    )
    return Codec(name, streams, cores, hardware)

"""Facts in, findings out: the checks of `recctl doctor` as one table. Pure.

Each check says at least one thing, also when all is well; what a computer does not tell is no
fault of it. USB and codecs, which need arithmetic, are in `bandwidth.py` and `headroom.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final

from recd.daemon.doctor.bandwidth import usb_findings
from recd.daemon.doctor.facts import Clock, Device, Facts
from recd.daemon.doctor.findings import Finding, Level
from recd.daemon.doctor.headroom import codec_findings, file_bytes_per_s

SLOW_CLOCKS: Final = ("hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies")
"""Clock sources that cost a system call or a device access, a microsecond and more, per reading."""

VOLATILE: Final = ("tmpfs", "ramfs")
REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs")
POOR: Final = ("vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk")
"""File systems without owners and modes, or whose renames do not survive a power cut."""

EPISODE_S: Final = 60
FEW_EPISODES: Final = 10
SYNC_WARN_MS, SYNC_FAIL_MS = 250.0, 1000.0
"""The writer makes rows durable once a second: a sync that takes longer costs that second."""

DISK_SPARE: Final = 4.0
"""A disk should write so many times what the cameras make: encoders and a pack share it."""

LIMITS_MEND: Final = (
    "sudo recctl service install CONFIG (the unit has them), or rtprio 80 and memlock unlimited in "
    "/etc/security/limits.d, then log in again"
)


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order of the table."""
    return [finding for check in CHECKS.values() for finding in check(facts)]


def _configuration(facts: Facts) -> Iterator[Finding]:
    for key, found, expected, mend in facts.problems:
        yield Finding("config", key, Level.FAIL, found, expected, mend)
    if facts.named and not facts.problems:
        yield Finding("config", facts.named, Level.OK, "every check of 'recctl config check'")


def _devices(facts: Facts) -> Iterator[Finding]:
    for device in facts.devices:
        yield _usable(device)
        if device.latency_timer_ms is not None:
            yield _latency_timer(device, device.latency_timer_ms)
        usb = facts.usb.get(device.usb)
        if usb is not None and usb.autosuspend and not device.stream_bytes_per_s:
            yield Finding(
                "device", device.key, Level.WARN, "the kernel may switch its adapter off (USB "
                "autosuspend)", "an adapter that stays on",
                f"echo on | sudo tee /sys/bus/usb/devices/{usb.name}/power/control",
            )  # fmt: skip


def _usable(device: Device) -> Finding:
    expected = "a device that this user may use"
    if not device.there:
        return Finding("device", device.key, Level.FAIL, f"{device.path} is not connected",
                       expected, "Plug it in, or correct the name: recctl devices")  # fmt: skip
    if not device.may_use:
        return Finding(
            "device", device.key, Level.FAIL,
            f"no permission for {device.path} (group {device.group})", expected,
            device.way_in,
        )  # fmt: skip
    if strangers := [user for user in device.users if not user.startswith("recd")]:
        return Finding("device", device.key, Level.WARN, f"in use by {', '.join(strangers)}",
                       "a device that nobody else uses", "End that program.")  # fmt: skip
    by = ", in use by recd" if device.users else ""
    return Finding("device", device.key, Level.OK, f"{device.path}{by}")


def _latency_timer(device: Device, timer_ms: int) -> Finding:
    found = f"latency timer {timer_ms} ms"
    if timer_ms <= 1:
        return Finding("device", device.key, Level.OK, found)
    node = device.path.rpartition("/")[2]
    return Finding(
        "device", device.key, Level.WARN, found,
        "1 ms: else every reply of a servo may wait as long (recd asks for it and may be refused)",
        f"echo 1 | sudo tee /sys/class/tty/{node}/device/latency_timer; the udev rule of 'recctl "
        "service install' does it for good",
    )  # fmt: skip


def _governor(facts: Facts) -> Iterator[Finding]:
    if not facts.governors:
        yield Finding(
            "cpu", "governor", Level.OK, "this computer does not tell (virtual, or fixed)"
        )
        return
    found = ", ".join(f"{name} on {count} cores" for name, count in facts.governors.items())
    if set(facts.governors) == {"performance"}:
        yield Finding("cpu", "governor", Level.OK, found)
        return
    yield Finding(
        "cpu", "governor", Level.WARN, found,
        "performance: a core that has to speed up first answers late",
        "sudo cpupower frequency-set -g performance",
    )  # fmt: skip


def _realtime(facts: Facts) -> Iterator[Finding]:
    for setting, answer in facts.granted.items():
        if answer == "granted":
            yield Finding("real time", setting, Level.OK, answer)
        else:
            reason = answer.partition("; ")[0]
            yield Finding("real time", setting, Level.WARN, reason, "granted", LIMITS_MEND)
    if not facts.granted:
        yield Finding("real time", "realtime.enabled", Level.OK, "switched off")


def _clock(facts: Facts) -> Iterator[Finding]:
    clock = facts.clock
    if clock.synchronised is False:
        yield Finding(
            "clock", "wall time", Level.WARN, "not synchronised",
            "wall time from a server: episodes carry it", "sudo timedatectl set-ntp true",
        )  # fmt: skip
    else:
        told = "synchronised" if clock.synchronised else "this computer does not tell"
        yield Finding("clock", "wall time", Level.OK, told)
    yield _monotonic(clock)


def _monotonic(clock: Clock) -> Finding:
    found = f"{clock.source or 'source not told'}, {clock.call_ns:.0f} ns a reading"
    if clock.backwards:
        return Finding(
            "clock", "monotonic", Level.FAIL, f"went back {clock.backwards} times ({found})",
            "a clock that never goes back", "Boot with another clocksource= (dmesg | grep clock).",
        )  # fmt: skip
    if clock.source in SLOW_CLOCKS:
        return Finding(
            "clock", "monotonic", Level.WARN, found, "tsc, or the clock of the virtual machine",
            "Boot with clocksource=tsc, or see 'dmesg | grep clocksource' for why it was given up.",
        )  # fmt: skip
    return Finding("clock", "monotonic", Level.OK, found)


def _memory(facts: Facts) -> Iterator[Finding]:
    memory = facts.memory
    left = min(memory.available_bytes, memory.limit_bytes or memory.available_bytes)
    found = f"rings of {memory.ring_bytes / 2**20:.0f} MiB, {left / 2**20:.0f} MiB free"
    if memory.ring_bytes > left // 2:
        yield Finding("memory", "rings", Level.FAIL, found, "at most half of what is free",
                      "Lower ring_seconds, record MJPEG, or raise the memory limit.")  # fmt: skip
    else:
        yield Finding("memory", "rings", Level.OK, found)
    if memory.file_bytes is not None and memory.file_bytes < memory.largest_ring_bytes:
        yield Finding(
            "memory", "file size", Level.FAIL, f"limit {memory.file_bytes} bytes",
            f"at least {memory.largest_ring_bytes}: shared memory counts as a file",
            "ulimit -f unlimited",
        )  # fmt: skip
    if memory.files is not None and memory.files < memory.files_needed:
        yield Finding("memory", "open files", Level.FAIL, f"limit {memory.files}",
                      f"at least {memory.files_needed}",
                      f"ulimit -n {2 * memory.files_needed}")  # fmt: skip
    else:
        yield Finding("memory", "open files", Level.OK,
                      f"limit {memory.files or 'none'}, {memory.files_needed} needed")  # fmt: skip


def _kernels(facts: Facts) -> Iterator[Finding]:
    kernels = facts.kernels
    if kernels.problem:
        yield Finding("kernels", kernels.folder, Level.FAIL, kernels.problem,
                      "a cache of machine code that can be used",
                      "Set RECD_CACHE_DIR to a folder that only this user can write.")  # fmt: skip
    elif kernels.absent:
        yield Finding("kernels", kernels.folder, Level.WARN,
                      f"not compiled yet: {', '.join(kernels.absent)}", "machine code in the cache",
                      "The next start compiles them, once; recctl demo does, too.")  # fmt: skip
    else:
        yield Finding("kernels", kernels.folder, Level.OK, "compiled")


def _disk(facts: Facts) -> Iterator[Finding]:
    disk = facts.disk
    yield _filesystem(disk.folder, disk.filesystem)
    if disk.error:
        yield Finding("disk", disk.folder, Level.FAIL, disk.error,
                      "a folder that can be written",
                      "Choose another dataset.root, or give this user the right to it."
                      )  # fmt: skip
        return
    need = file_bytes_per_s(facts.codecs)
    yield _speed(facts, need)
    yield _sync(facts)
    yield _space(facts, need)


def _filesystem(folder: str, kind: str) -> Finding:
    for kinds, found in (
        (VOLATILE, f"{kind}: gone when the power goes"),
        (REMOTE, f"{kind}: every sync crosses the network"),
        (POOR, f"{kind}: no owners and modes, weak renames"),
    ):
        if kind in kinds:
            return Finding("disk", folder, Level.WARN, found, "ext4, xfs or btrfs",
                           "Set dataset.root to a folder on this computer's disk.")  # fmt: skip
    return Finding("disk", folder, Level.OK, kind)


def _speed(facts: Facts, need: float) -> Finding:
    speed = facts.disk.write_bytes_per_s
    found = f"writes {speed / 1e6:.0f} MB/s, the cameras make {need / 1e6:.1f} MB/s"
    if speed >= need * DISK_SPARE:
        return Finding("disk", "speed", Level.OK, found)
    level = Level.FAIL if speed < need else Level.WARN
    return Finding("disk", "speed", level, found, f"{need * DISK_SPARE / 1e6:.0f} MB/s",
                   "A faster disk, a higher crf, or fewer cameras.")  # fmt: skip


def _sync(facts: Facts) -> Finding:
    middle, most = median(facts.disk.sync_ms), max(facts.disk.sync_ms)
    found = f"{middle:.1f} ms in the middle, {most:.0f} ms at most of {len(facts.disk.sync_ms)}"
    if most <= SYNC_WARN_MS:
        return Finding("disk", "fsync", Level.OK, found)
    level = Level.FAIL if middle > SYNC_FAIL_MS else Level.WARN
    return Finding("disk", "fsync", level, found, f"{SYNC_WARN_MS:.0f} ms at most",
                   "Is another program writing? SD cards and USB sticks stall: use an SSD."
                   )  # fmt: skip


def _space(facts: Facts, need: float) -> Finding:
    disk = facts.disk
    free = f"{disk.free_bytes / 1e9:.1f} GB free, {disk.reserve_bytes / 1e6:.0f} MB of it reserved"
    left = disk.free_bytes - disk.reserve_bytes
    if left <= 0:
        return Finding("disk", "space", Level.FAIL, free, "more than the reserve",
                       "Make space, or choose another dataset.root.")  # fmt: skip
    if not need:
        return Finding("disk", "space", Level.OK, free)
    episodes = int(left / (need * EPISODE_S))
    found = f"{episodes} episodes of {EPISODE_S} s fit ({free})"
    if episodes >= FEW_EPISODES:
        return Finding("disk", "space", Level.OK, found)
    return Finding("disk", "space", Level.WARN if episodes else Level.FAIL, found,
                   f"room for {FEW_EPISODES} episodes", "Make space: recctl dataset purge, or "
                   "another dataset.root.")  # fmt: skip


CHECKS: Final[Mapping[str, Callable[[Facts], Iterator[Finding]]]] = {
    "config": _configuration,
    "device": _devices,
    "usb": lambda facts: usb_findings(facts.usb, facts.devices),
    "cpu": _governor,
    "real time": _realtime,
    "codec": lambda facts: codec_findings(facts.codecs),
    "disk": _disk,
    "memory": _memory,
    "clock": _clock,
    "kernels": _kernels,
}
"""Name of a check -> what it makes of the facts; also the order in which they are told."""

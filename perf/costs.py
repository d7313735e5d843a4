"""What every process of a daemon costs: CPU, memory, bytes written, from the kernel's counters.

The simulated robot stands apart: it is the load, not the product. A process that ended meanwhile
is charged through its parent's account of dead children, so nothing is lost by dying.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from recd.daemon.supervisor import forks
from recd.shm.clock import NS_PER_S, now_ns

SUPERVISOR = "supervisor"
SIMULATOR = "sim"
FORKSERVER = forks.NAME
OTHER = "other"
ENDED = "ended"

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the tree. name: as in the process table; simulated: part of the load."""

    pid: int
    name: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Account:
    """What one process has used so far. dead_s: CPU of its children that ended and were reaped."""

    process: Process
    cpu_s: float
    dead_s: float
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Accounts of a whole tree at one time, by process id."""

    at_ns: int
    accounts: Mapping[int, Account]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process at one time: proportional share and resident bytes."""

    process: Process
    pss_bytes: int
    rss_bytes: int


def tree(supervisor_pid: int, names: Mapping[str, int]) -> list[Process]:
    """Every process of the daemon now. names: process table name -> pid, as `status` tells them.

    Children of the simulator are simulators too; anything unnamed is the daemon's own.
    """
    known = {pid: name for name, pid in names.items()}
    known[supervisor_pid] = SUPERVISOR
    found: list[Process] = []

    def walk(process: psutil.Process, above: Process | None) -> None:
        name = known.get(process.pid)
        simulated = name == SIMULATOR or (above is not None and above.simulated)
        if name is None:
            name = f"{SIMULATOR}:cameras" if simulated else _stranger(process.name())
        row = Process(process.pid, name, simulated)
        found.append(row)
        for child in process.children():
            try:
                walk(child, row)
            except psutil.NoSuchProcess:
                continue  # ended between listing and looking: its CPU goes to its parent

    walk(psutil.Process(supervisor_pid), None)
    return found


def _stranger(title: str) -> str:
    return FORKSERVER if title == forks.TITLE else f"{OTHER}:{title}"


def read_ledger(processes: Iterable[Process]) -> Ledger:
    """Counters of all processes that still live."""
    accounts = {}
    for process in processes:
        try:
            fields = _stat_fields(process.pid)
            io = _fields_of(Path(f"/proc/{process.pid}/io"))
        except OSError:
            continue  # ended: it appears in its parent's account
        own, dead = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        written = io.get("write_bytes", 0) - io.get("cancelled_write_bytes", 0)
        accounts[process.pid] = Account(
            process, own / _CLOCK_TICKS, dead / _CLOCK_TICKS, max(0, written)
        )
    return Ledger(now_ns(), accounts)


def read_memory(processes: Iterable[Process]) -> list[Memory]:
    """Memory of all processes that still live. Costs about a millisecond a process."""
    found = []
    for process in processes:
        try:
            sizes = _fields_of(Path(f"/proc/{process.pid}/smaps_rollup"))
        except OSError:
            continue
        found.append(Memory(process, sizes.get("Pss", 0) * 1024, sizes.get("Rss", 0) * 1024))
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """What was used between two ledgers, per process name. cpu_s, written_bytes: of recd;
    simulator_cpu_s: of the load."""

    span_s: float
    cpu_s: Mapping[str, float]
    written_bytes: Mapping[str, int]
    simulator_cpu_s: Mapping[str, float]

    def plain(self) -> dict[str, Any]:
        """For JSON: cores (mean over the span) per process, sums."""
        return {
            "span_s": self.span_s,
            "cores": {name: cpu / self.span_s for name, cpu in sorted(self.cpu_s.items())},
            "total_cores": sum(self.cpu_s.values()) / self.span_s,
            "total_cpu_s": sum(self.cpu_s.values()),
            "simulator_cores": {
                name: cpu / self.span_s for name, cpu in sorted(self.simulator_cpu_s.items())
            },
            "written_bytes": dict(sorted(self.written_bytes.items())),
            "total_written_bytes": sum(self.written_bytes.values()),
        }


def used_between(before: Ledger, after: Ledger) -> Use:
    """Differences per process name. Processes that began in between count from zero."""
    cpu: dict[str, float] = {}
    written: dict[str, int] = {}
    simulated: dict[str, float] = {}
    for pid, account in after.accounts.items():
        earlier = before.accounts.get(pid)
        used = account.cpu_s - (earlier.cpu_s if earlier else 0.0)
        wrote = account.written_bytes - (earlier.written_bytes if earlier else 0)
        name = account.process.name
        if account.process.simulated:
            simulated[name] = simulated.get(name, 0.0) + used
        else:
            cpu[name] = cpu.get(name, 0.0) + used
            written[name] = written.get(name, 0) + wrote
    if ended := _used_by_the_dead(before, after):
        cpu[ENDED] = ended
    return Use((after.at_ns - before.at_ns) / NS_PER_S, cpu, written, simulated)


def _used_by_the_dead(before: Ledger, after: Ledger) -> float:
    """CPU of processes that ended in between, less what they had used before."""
    dead = sum(
        account.dead_s - (before.accounts[pid].dead_s if pid in before.accounts else 0.0)
        for pid, account in after.accounts.items()
        if not account.process.simulated
    )
    known = sum(
        account.cpu_s
        for pid, account in before.accounts.items()
        if pid not in after.accounts and not account.process.simulated
    )
    return max(0.0, dead - known)


def peak_memory(samples: Iterable[list[Memory]]) -> dict[str, Any]:
    """Peak of the tree's sum (simulators apart) and each process's own peak, bytes."""
    peak_pss = peak_rss = peak_simulated = 0
    each: dict[str, int] = {}
    for sample in samples:
        ours = [memory for memory in sample if not memory.process.simulated]
        peak_pss = max(peak_pss, sum(memory.pss_bytes for memory in ours))
        peak_rss = max(peak_rss, sum(memory.rss_bytes for memory in ours))
        load = sum(memory.pss_bytes for memory in sample if memory.process.simulated)
        peak_simulated = max(peak_simulated, load)
        for memory in ours:
            each[memory.process.name] = max(each.get(memory.process.name, 0), memory.pss_bytes)
    return {
        "peak_pss_bytes": peak_pss,
        "peak_rss_bytes": peak_rss,
        "peak_simulator_pss_bytes": peak_simulated,
        "pss_bytes": dict(sorted(each.items())),
    }


def _stat_fields(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def _fields_of(path: Path) -> dict[str, int]:
    """`name: number [unit]` lines as a map."""
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        name, separator, value = line.partition(":")
        words = value.split()
        if separator and words and words[0].isdigit():
            found[name] = int(words[0])
    return found

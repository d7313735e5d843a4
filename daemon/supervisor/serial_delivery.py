"""Who hands serial input to the arms: kernel workers of ordinary priority, raised while we run.

Bytes of a USB serial adapter or a pseudo-terminal reach their reader through the kernel's unbound
workers (flush_to_ldisc). However high an arm's own priority is, its replies wait for one of those
behind encoders and everything else. Limit: needs CAP_SYS_NICE; workers made later are found within
CHECK_NS.
"""

import os
from pathlib import Path

from recd.shm.clock import NS_PER_S

CHECK_NS = NS_PER_S
_KTHREADD = 2


class SerialDelivery:
    """Keeps the kernel's unbound workers at SCHED_FIFO `priority` until `close`.

    priority: below everything of our own that is real-time; 0 leaves the workers alone. A better
    nice value would not do: an encoder may finish its slice of 2.8 ms before a woken worker of any
    niceness runs (EEVDF, seen on 6.18), which is most of a control period. [Late replies of one
    pair at 250 Hz while two cameras record on two cores, three times 8 s: 66, 71, 62 of 4,300 as
    they are; 32, 31, 12 with nice -20; 0, 1, 0 so.]
    """

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._raised: set[int] = set()
        self._next_ns = 0
        self.answer = ""

    def watch(self, now: int) -> None:
        """Raise the workers that came or were given back by another daemon since the last look."""
        if not self._priority or now < self._next_ns:
            return
        self._next_ns = now + CHECK_NS
        try:
            workers = _unbound_workers()
        except OSError as error:  # no descriptor is left: the recording goes on, we look again
            self.answer = f"refused: /proc: {error.strerror}"
            return
        for pid in workers:
            if not self._raise(pid):
                return

    def close(self) -> None:
        """Give the workers back as they were."""
        for pid in self._raised:
            _schedule(pid, os.SCHED_OTHER, 0)
        self._raised.clear()

    def _raise(self, pid: int) -> bool:
        refused = _schedule(pid, os.SCHED_FIFO, self._priority)
        if refused:
            self.answer = (
                f"refused: {refused}; set AmbientCapabilities=CAP_SYS_NICE in the unit, or run as "
                "root"
            )
            self._priority = 0
            return False
        self._raised.add(pid)
        self.answer = "granted"
        return True


def _unbound_workers() -> list[int]:
    """Process ids of the kernel's workers that belong to no core (kworker/u...)."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            name = Path(entry.path, "comm").read_bytes()
            if name.startswith(b"kworker/u") and _is_kernel_thread(entry.path):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _is_kernel_thread(folder: str) -> bool:
    """Whether it is the kernel's own: a program may call itself what it likes."""
    fields = Path(folder, "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]) == _KTHREADD


def _schedule(pid: int, policy: int, priority: int) -> str:
    """Why it was refused, "" when it was not (or the worker has ended)."""
    try:
        if os.sched_getscheduler(pid) != policy:
            os.sched_setscheduler(pid, policy, os.sched_param(priority))
    except ProcessLookupError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""

"""Who hands serial input to the arms: kernel workers of ordinary priority, raised while we run.

Bytes of a USB serial adapter or a pseudo-terminal reach their reader through the kernel's unbound
workers (flush_to_ldisc). However high an arm's own priority is, its replies wait for one of those
behind encoders and everything else. Limit: needs CAP_SYS_NICE; workers made later are found within
CHECK_NS.
"""

import os
from pathlib import Path

from recd.shm.clock import NS_PER_S

CHECK_NS = 10 * NS_PER_S
_KTHREADD = 2
_USUAL_NICE = 0


class SerialDelivery:
    """Keeps the kernel's unbound workers at `nice` until `close`.

    nice 0 leaves them alone. [Idle computer, one pair at 250 Hz, two cameras: 53 and 159 lost
    replies in 20 s without, 21 and 29 with nice -20.]
    """

    def __init__(self, nice: int) -> None:
        self._nice = nice
        self._raised: set[int] = set()
        self._next_ns = 0
        self.answer = ""

    def watch(self, now: int) -> None:
        """Raise the workers that came, or were given back by another daemon, since the last look."""
        if not self._nice or now < self._next_ns:
            return
        self._next_ns = now + CHECK_NS
        for pid in _unbound_workers():
            if not self._raise(pid):
                return

    def close(self) -> None:
        """Give the workers back as they were."""
        for pid in self._raised:
            _renice(pid, _USUAL_NICE)
        self._raised.clear()

    def _raise(self, pid: int) -> bool:
        refused = _renice(pid, self._nice)
        if refused == "":
            self._raised.add(pid)
            self.answer = "granted"
        elif refused:
            self.answer = (
                f"refused: {refused}; set AmbientCapabilities=CAP_SYS_NICE in the unit, or run as "
                "root"
            )
            self._nice = 0
        return not refused


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


def _renice(pid: int, nice: int) -> str:
    """Why it was refused, "" when it was not (or the worker has ended)."""
    try:
        if os.getpriority(os.PRIO_PROCESS, pid) > nice or nice == _USUAL_NICE:
            os.setpriority(os.PRIO_PROCESS, pid, nice)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""

"""Real-time settings of one process: asked for, tried, and reported as granted or refused.

Nothing here is required: without privileges everything still works and the report says what is
missing. Priority is only for one Python thread of a process (what it starts is ordinary): two
threads of one real-time class under one GIL starve each other for hundreds of milliseconds.
"""

import contextlib
import ctypes
import errno
import gc
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_TIMERSLACK = 29
_PR_SET_PDEATHSIG = 1
_PR_SET_THP_DISABLE = 41
_PR_SET_CHILD_SUBREAPER = 36
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_NS, _AUTOGROUP_PAUSE_NS = 3_000_000_000, 20_000_000
"""The kernel takes ten such wishes a second from all processes without CAP_SYS_ADMIN together."""

_NOT_NOW = os.strerror(errno.EAGAIN)
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """What a process asks for. priority: SCHED_FIFO 1..99, 0 none; cpus: affinity, () any."""

    priority: int = 0
    cpus: tuple[int, ...] = ()
    lock_memory: bool = False
    timer_slack_ns: int = 0
    nice: int = 0


@dataclass(slots=True)
class RealtimeReport:
    """Per setting: `granted` or the reason why not, in words an operator can act on."""

    settings: dict[str, str] = field(default_factory=dict)

    def attempt(self, name: str, refused: str | None, mend: str = "") -> None:
        self.settings[name] = (
            "granted" if refused is None else f"refused: {refused}{'; ' + mend if mend else ''}"
        )


def die_with_parent(signal_number: int = 9) -> None:
    """Ask the kernel to send `signal_number` when the thread that started us ends (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


PARENT_KEY = "RECD_PARENT_PID"
"""Variable by which a process is told whose it is."""


def parent_lives() -> bool:
    """False: the parent died before the kernel knew, by `die_with_parent`, whom to tell."""
    return os.environ.get(PARENT_KEY, str(os.getppid())) == str(os.getppid())


def refuse_huge_pages() -> None:
    """Keep the kernel from joining this process's pages to huge ones; children inherit it.

    khugepaged does that beside us, in kernel code that on many kernels not even SCHED_FIFO
    preempts [5 ms of a control loop's time, seen on 6.18]; nothing here is large enough to gain.
    """
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """A descendant whose parent ends meanwhile becomes this process's own child, to be reaped."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _call(function: str, *args: int) -> str | None:
    if getattr(_libc, function)(*args) == 0:
        return None
    return os.strerror(ctypes.get_errno())


def _try(action: Sequence[object]) -> str | None:
    function, *args = action
    try:
        function(*args)  # type: ignore[operator]
    except (OSError, PermissionError) as error:
        return error.strerror or str(error)
    return None


def set_nice(nice: int) -> str | None:
    """Give this process the nice value `nice`. None, or why it could not be had.

    Where the kernel groups processes by session (autogroup: most desktops, and a shell's children
    everywhere), a nice value means something within a session only, and each worker has one of its
    own: the group gets the value too, if this process is the first of its session.
    """
    refused = _try((os.setpriority, os.PRIO_PROCESS, 0, nice))
    if refused or os.getsid(0) != os.getpid() or not _AUTOGROUP.exists():
        return refused
    if _AUTOGROUP.read_text().endswith(f" nice {nice}\n"):
        return None
    wish = (_write, _AUTOGROUP, f"{nice}\n")
    if (refused := _try(wish)) != _NOT_NOW:
        return refused
    from recd.shm.clock import now_ns, sleep_until_ns  # brings numpy, for what is rarely needed

    until_ns = now_ns() + _AUTOGROUP_NS
    while refused == _NOT_NOW and now_ns() < until_ns:
        sleep_until_ns(now_ns() + _AUTOGROUP_PAUSE_NS)
        refused = _try(wish)
    return refused


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def apply(request: RealtimeRequest) -> RealtimeReport:
    """Apply `request` to this process and report each setting."""
    report = RealtimeReport()
    if request.timer_slack_ns:
        report.attempt(
            f"timer slack {request.timer_slack_ns} ns",
            _call("prctl", _PR_SET_TIMERSLACK, request.timer_slack_ns, 0, 0, 0),
        )
    if request.cpus:
        wanted = set(request.cpus) & set(os.sched_getaffinity(0)) or set(os.sched_getaffinity(0))
        report.attempt(f"cpus {sorted(wanted)}", _try((os.sched_setaffinity, 0, wanted)))
    if request.nice:
        report.attempt(f"nice {request.nice}", set_nice(request.nice))
    if request.priority:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # children stay ordinary
        report.attempt(
            f"SCHED_FIFO {request.priority}",
            _try((os.sched_setscheduler, 0, policy, os.sched_param(request.priority))),
            "set LimitRTPRIO=80 in the unit or rtprio in /etc/security/limits.d",
        )
    if request.lock_memory:
        report.attempt(
            "memory lock",
            _call("mlockall", _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT),
            "set LimitMEMLOCK=infinity in the unit or memlock in /etc/security/limits.d",
        )
    return report


@contextlib.contextmanager
def keep_class() -> Iterator[None]:
    """What a library does inside leaves this thread's scheduling class alone, and threads that it
    starts have that class too.

    SVT-AV1 raises its caller and all its threads to SCHED_FIFO 99 where it may, above the control
    loops: with three AV1 cameras on two cores a third of their ticks were skipped.
    """
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    before = set(_threads()) - {threading.get_native_id()}
    try:
        yield
    finally:
        for thread in set(_threads()) - before:
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, param)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def spare_from_collections() -> None:
    """Keep what lives now (modules, most of all) out of every later collection.

    Else the first ones look through all of it whenever they come [28 and 31 ms in a writer, one of
    them inside a `stop`]. What is garbage now stays, too; collect first where there is much of it.
    """
    gc.freeze()


def freeze_garbage() -> None:
    """Collect once, keep what lives out of every later collection, and switch collection off.

    For loops that allocate nothing in steady state; call again between episodes while holding.
    """
    gc.collect()
    spare_from_collections()
    gc.disable()

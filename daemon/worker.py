"""A worker process from start to exit: its specification, its link to the supervisor, its streams.

Started as `python -m recd.daemon.worker FD`, or forked by forkserver.py. Everything it may touch
comes by file descriptor; it opens no name of the data plane. It ends when it is told to, when its
link closes, or when its parent dies.
"""

import gc
import sys

if __name__ == "__main__":  # before anything that imports structlog
    gc.disable()  # until all is imported: a fifth of the CPU of a writer's imports, for no garbage
    from recd.daemon import lean  # noqa: F401

    sys.modules["recd.daemon.worker"] = sys.modules["__main__"]  # else read twice, 7 ms

import errno
import faulthandler
import importlib
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import numpy as np

from recd.config.errors import RecdError
from recd.config.streams import STATUS_COUNTER_NAMES, STATUS_STATES
from recd.daemon import log, realtime
from recd.shm import CellReader, CellWriter, Doorbell, ReaderPolicy, RingReader, RingWriter, Segment
from recd.shm.clock import now_ns

KINDS: dict[str, str] = {
    "sim": "recd.daemon.sim.worker",
    "camera": "recd.daemon.cameras.worker",
    "arm": "recd.daemon.arms.worker",
    "encoder": "recd.daemon.encode.worker",
    "writer": "recd.daemon.writer.worker",
    "gateway": "recd.daemon.policy.gateway",
    "adapter": "recd.clients.adapters.worker",
}
"""Kind of process -> module whose `run(ctx) -> int` is its life. An adapter is a client of the
policy API that the supervisor starts: the name here is all that the daemon knows of it."""

TITLES = {"camera": "cam", "encoder": "enc"}

OPEN_TAKES = "open_takes"
"""Key of a writer's configuration: `begin` of every take that was open when it was started, in the
place of one that died; it goes on with them."""

COMPUTERS_OWN = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
)
"""Troubles of disk and system that say enough by themselves: an operator reads no traceback."""

GO = "go"
"""Message with the `config` of a worker that was started before it could be known."""

LOOK_EVERY_MS = 100
"""How soon a worker that waits for its configuration notices a signal."""

LINK_PACKET_BYTES = 192 * 1024
"""Largest message on a link; the socket buffers are set to hold several."""


@dataclass(frozen=True, slots=True)
class RingGrant:
    """One ring handed to a process. reader: index of its reader line, -1 for the writer.

    doorbells: for the writer, one eventfd per reader that wants to be woken; for a reader, its own.
    """

    fd: int
    reader: int = -1
    policy: str = "BEST_EFFORT"
    doorbells: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that one worker is given. config: its own section, resolved; robot: the whole one.

    awaits_go: it loads its modules at once and begins with the `config` that the message GO brings.
    """

    name: str
    kind: str
    instance: str
    runtime_dir: str
    link_fd: int
    config: dict[str, Any] = field(default_factory=dict)
    robot: dict[str, Any] = field(default_factory=dict)
    rings: dict[str, RingGrant] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    realtime: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    awaits_go: bool = False

    def pack(self) -> bytes:
        """msgpack form, read back by `unpack`."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["rings"] = {
            stream: [grant.fd, grant.reader, grant.policy, list(grant.doorbells)]
            for stream, grant in self.rings.items()
        }
        return bytes(msgpack.packb(fields))

    @classmethod
    def unpack(cls, data: bytes) -> "WorkerSpec":
        fields = msgpack.unpackb(data, strict_map_key=False)
        fields["rings"] = {
            stream: RingGrant(fd, reader, policy, tuple(doorbells))
            for stream, (fd, reader, policy, doorbells) in fields["rings"].items()
        }
        return cls(**fields)

    def passed_fds(self) -> tuple[int, ...]:
        """Every descriptor that the worker gets, the specification's own excepted."""
        fds = {self.link_fd, *self.cells.values()}
        for grant in self.rings.values():
            fds |= {grant.fd, *grant.doorbells}
        return tuple(sorted(fds))

    def renumbered(self, numbers: Mapping[int, int]) -> "WorkerSpec":
        """The same with descriptors by other numbers: old -> new, all of `passed_fds`."""
        rings = {
            stream: replace(
                grant, fd=numbers[grant.fd], doorbells=tuple(numbers[fd] for fd in grant.doorbells)
            )
            for stream, grant in self.rings.items()
        }
        cells = {name: numbers[fd] for name, fd in self.cells.items()}
        return replace(self, link_fd=numbers[self.link_fd], rings=rings, cells=cells)


class Link:
    """Message packets between supervisor and worker over an inherited SOCK_SEQPACKET pair.

    One msgpack map per packet with the key `ty`. `recv` never blocks. `closed` becomes true when
    the other side is gone: there is nobody left to work for. waiting: for how many milliseconds to
    wait -> not empty when `recv` has something to tell [a control loop asks each tick: no frame of
    Python, and half the cost of an exception].
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.waiting = poll.poll
        self.closed = False
        self.unsent = 0

    @classmethod
    def pair(cls) -> "tuple[Link, socket.socket]":
        """(supervisor's end, the worker's end to be passed on)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LINK_PACKET_BYTES)
        return cls(ours), theirs

    @classmethod
    def from_fd(cls, fd: int) -> "Link":
        return cls(socket.socket(fileno=fd))

    @property
    def fd(self) -> int:
        """For poll: readable means that `recv` has something."""
        return self._sock.fileno()

    def send(self, ty: str, **fields: Any) -> bool:
        """Send one message. False when the other side is gone or does not read (`unsent` counts).

        Raises ValueError for a message that cannot travel (too large).
        """
        data = msgpack.packb({"ty": ty, **fields}, default=_plain)
        if len(data) > LINK_PACKET_BYTES:
            raise ValueError(f"link message {ty!r}: {len(data)} bytes, at most {LINK_PACKET_BYTES}")
        try:
            self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self.unsent += 1
            return False
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True
            return False
        return True

    def recv(self) -> dict[str, Any] | None:
        """Next message, or None when there is none now (look at `closed` then)."""
        if not self.waiting(0):
            return None
        try:
            data = self._sock.recv(LINK_PACKET_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return None
        message: dict[str, Any] = msgpack.unpackb(data, strict_map_key=False)
        return message

    def close(self) -> None:
        self.closed = True
        self._sock.close()


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot travel on a link: {type(value).__name__}")


class Status:
    """The worker's status cell: heartbeat, state word, named counters, histograms.

    `record` is a numpy scalar record (STATUS_DTYPE) that the worker changes in place; `beat()`
    publishes it. Without allocation, so that a control loop may call it.
    """

    def __init__(self, kind: str, writer: CellWriter) -> None:
        self._writer = writer
        self._states = STATUS_STATES.get(kind, ())
        self.counter_index = {name: i for i, name in enumerate(STATUS_COUNTER_NAMES.get(kind, ()))}
        array = writer.record
        self.record = array[0]
        self.counters = array["counters"][0]
        # As memory with Python's integers: a third of the cost of numpy's.
        self._counts = self.counters.data
        self._state, self._progress = array["state"].data, array["progress"].data
        self._beat_ns = array["beat_ns"].data
        self.record["pid"] = os.getpid()
        self.record["started_ns"] = now_ns()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of this kind's table (STATUS_COUNTER_NAMES); KeyError for others."""
        self._counts[self.counter_index[name]] += by

    def set(self, name: str, value: int) -> None:
        self._counts[self.counter_index[name]] = value

    def beat(self, state: str | None = None, *, progress: int | None = None) -> None:
        """Publish, with a new heartbeat stamp; optionally change state word and progress."""
        if state is not None:
            self._state[0] = self._states.index(state)
        if progress is not None:
            self._progress[0] = progress
        self._beat_ns[0] = now_ns()
        self._writer.publish()


class WorkerContext:
    """What `run(ctx)` of a worker gets: its names, its link, its status and its streams."""

    def __init__(self, spec: WorkerSpec, link: Link) -> None:
        self.spec = spec
        self.name = spec.name
        self.kind = spec.kind
        self.instance = spec.instance
        self.config = spec.config
        self.robot = spec.robot
        self.link = link
        self.log = log.get_logger()
        self.realtime_report = realtime.RealtimeReport()
        self._stop_asked = False
        self.told_to_stop = False
        self.status = Status(spec.kind, self.cell_writer(f"status.{spec.name}"))

    @property
    def stopping(self) -> bool:
        """True once SIGTERM, a `stop` message or the end of the link asked us to leave."""
        return self._stop_asked or self.link.closed

    def stop(self) -> None:
        self._stop_asked = True

    def await_go(self) -> bool:
        """Wait for the configuration, if it was not known yet; False when told to end instead."""
        if not self.spec.awaits_go:
            return True
        poller = select.poll()
        poller.register(self.link.fd, select.POLLIN)
        while not self.stopping:
            match self.link.recv():
                case None:
                    poller.poll(LOOK_EVERY_MS)
                case {"ty": ty, "config": config} if ty == GO:
                    self.spec = replace(self.spec, config=config)
                    self.config = config
                    return True
                case {"ty": "stop"}:
                    self.stop()
        return False

    def ring_writer(self, stream: str) -> RingWriter:
        """Write end of `stream`; KeyError when it was not granted to this process."""
        grant = self.spec.rings[stream]
        if grant.reader != -1:
            raise KeyError(f"{self.name} was granted {stream} for reading only")
        doorbells = [Doorbell.from_fd(fd) for fd in grant.doorbells]
        return RingWriter(Segment.attach(grant.fd), doorbells)

    def ring_reader(self, stream: str) -> RingReader:
        """Read end of `stream`, with the policy that the supervisor set for this reader."""
        grant = self.spec.rings[stream]
        doorbell = Doorbell.from_fd(grant.doorbells[0]) if grant.doorbells else None
        policy = ReaderPolicy[grant.policy]
        return RingReader(Segment.attach(grant.fd), grant.reader, policy=policy, doorbell=doorbell)

    def cell_writer(self, name: str) -> CellWriter:
        return CellWriter(Segment.attach(self.spec.cells[name]))

    def cell_reader(self, name: str) -> CellReader:
        return CellReader(Segment.attach(self.spec.cells[name]))

    def messages(self) -> list[dict[str, Any]]:
        """All messages waiting on the link; a `stop` among them is noted in `stopping`."""
        received = []
        while (message := self.link.recv()) is not None:
            if message["ty"] == "stop":
                self.told_to_stop = True
                self.stop()
            received.append(message)
        return received

    def ready(self, **facts: Any) -> None:
        """Tell the supervisor that this worker does its job from now on."""
        realtime.spare_from_collections()  # what was imported and built since it began
        self.link.send("ready", realtime=self.realtime_report.settings, **facts)

    def event(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Log and tell the supervisor (and so the operator): a constant word and its values."""
        getattr(self.log, level)(event, **fields)
        self.link.send("event", event=event, level=level, fields=fields)


def read_spec(fd: int) -> WorkerSpec:
    """The specification in the file behind `fd`, which is closed."""
    with os.fdopen(fd, "rb") as pipe:
        return WorkerSpec.unpack(pipe.read())


def _set_title(spec: WorkerSpec) -> None:
    import setproctitle

    _, _, rest = spec.name.partition(":")
    title = f"recd:{TITLES.get(spec.kind, spec.kind)}" + (f":{rest}" if rest else "")
    setproctitle.setproctitle(title)


def main(argv: list[str] | None = None) -> int:
    """Entry of every worker process. Returns its exit code: 0 asked to end, 1 failed, 2 refused."""
    arguments = sys.argv[1:] if argv is None else argv
    realtime.die_with_parent()
    return live(read_spec(int(arguments[0]))) if realtime.parent_lives() else 0


def live(spec: WorkerSpec) -> int:
    """A worker's life in this process. Returns the exit code, see `main`."""
    _set_title(spec)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    log.configure(process=spec.name)
    link = Link.from_fd(spec.link_fd)
    ctx = WorkerContext(spec, link)
    signal.signal(signal.SIGTERM, lambda *_: ctx.stop())
    # A terminal's Ctrl-C, and the hang-up of a session that ends, are for the supervisor.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run: Callable[[WorkerContext], int]
    try:
        # Already now: its imports stand behind those of the simulator, for which others wait.
        realtime.apply(realtime.RealtimeRequest(nice=int(spec.realtime.get("nice", 0))))
        run = importlib.import_module(spec.module or KINDS[spec.kind]).run
        realtime.spare_from_collections()
        gc.enable()
        if not ctx.await_go():
            return 0
        ctx.realtime_report = realtime.apply(realtime.RealtimeRequest(**_tuples(spec.realtime)))
        ctx.status.beat()
        return run(ctx)
    except RecdError as error:
        ctx.log.error("refused", code=error.code, reason=error.message, mend=error.mend)
        link.send("refused", code=error.code, message=error.message, mend=error.mend)
        return 2
    except OSError as error:
        if error.errno not in COMPUTERS_OWN:
            ctx.log.exception("worker failed")
        else:
            ctx.log.error("worker failed", reason=str(error))
        link.send("crashed", message=str(error))
        return 1
    except Exception as error:
        ctx.log.exception("worker failed")
        link.send("crashed", message=f"{type(error).__name__}: {error}")
        return 1


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


if __name__ == "__main__":
    sys.exit(main())

"""The one wire of a servo bus: who hears a request, who answers when, in which order.

Half duplex and strictly in order: whatever delays one reply delays all that comes behind it. Time
is an argument and nothing waits here; the port does the waiting.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from recd.daemon.sim.collision import collide
from recd.daemon.sim.faults import WireFault, WireFaults, is_silenced
from recd.daemon.sim.protocol import (
    BROADCAST,
    OVERHEAD_BYTES,
    Instruction,
    Request,
    RequestParser,
    reply,
    sync_write_items,
)
from recd.daemon.sim.servo import Servo, TorqueListener
from recd.daemon.sim.servolog import ServoLog

BITS_PER_BYTE = 10
LOOKAHEAD_NS = 2_000_000
"""A request is worked out at once when its turn on the line comes within this time."""

_ADAPTER_BUFFER_BYTES = 62
"""What a USB serial chip collects at most before it sends, latency timer or not."""

_QUEUE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class LineTiming:
    """Delays on top of the bytes' own time.

    out_ns, in_ns: through the USB adapter, one way. servo_ns: a servo's own time before it
    answers. packet_ns: replies that end within this time reach the host in one USB packet, with the
    last of them. latency_timer_ns: how long the adapter collects bytes before it sends them, when
    it is of the kind that waits (0: it is not).
    With these and 1 Mbaud a position sync read of six servos takes 1.04 ms; a real SO-101 takes
    1.0 to 2.0 ms.
    """

    out_ns: int = 150_000
    in_ns: int = 150_000
    servo_ns: int = 20_000
    packet_ns: int = 250_000
    latency_timer_ns: int = 0


@dataclass(slots=True)
class _Packet:
    """Bytes on their way to the host. begun_ns: when the first of them could have arrived."""

    begun_ns: int
    due_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request on the line: its frame, its pace and the faults that act on it."""

    item: Request
    byte_ns: int
    faults: list[WireFault]


class Bus:
    """Servos on one wire, seen through an adapter.

    `receive` takes what the host wrote, `take_due` gives what the host gets by now, `next_ns` says
    when there is something to do. `requests` counts frames, `lost_bytes` what did not fit.
    """

    def __init__(
        self, name: str, servos: Sequence[Servo], *, log: ServoLog, timing: LineTiming | None = None
    ) -> None:
        self.name = name
        self.servos = list(servos)
        self.timing = timing or LineTiming()
        self.faults = WireFaults()
        self.echo = False
        self.requests = 0
        self.lost_bytes = 0
        self.torque_listener: TorqueListener | None = None
        self._log = log
        self._parser = RequestParser()
        self._waiting: deque[tuple[int, int, Request]] = deque()
        self._line_free_ns = 0
        self._replies: deque[_Packet] = deque()
        self._reply_bytes = 0
        self._last_due_ns = 0
        self._collected = bytearray()
        self._collected_since_ns = 0
        self._collisions = 0
        for servo in servos:
            self.join(servo)

    def join(self, servo: Servo) -> None:
        """Put a servo on the wire (at start, or a second one with an id that is taken)."""
        if servo not in self.servos:
            self.servos.append(servo)
        servo.on_torque = self._note_torque

    def receive(self, data: bytes, at_ns: int, baud: int) -> None:
        """Bytes that the host wrote at `at_ns` with its port set to `baud`."""
        junk = self._parser.junk_bytes
        for item in self._parser.feed(data, at_ns):
            self._waiting.append((at_ns + self.timing.out_ns, baud, item))
        if self._parser.junk_bytes > junk:
            self._log.note(at_ns, self.name, "junk", bytes=self._parser.junk_bytes - junk)
        self.run(at_ns)

    def run(self, now_ns: int) -> None:
        """Work out every request whose turn on the line has come."""
        while self._waiting and self._line_free_ns <= now_ns + LOOKAHEAD_NS:
            ready_ns, baud, item = self._waiting.popleft()
            self._carry_out(item, max(ready_ns, self._line_free_ns), baud)

    def take_due(self, now_ns: int) -> bytes:
        """Bytes that have reached the host by `now_ns`."""
        self._close_collection(now_ns)
        due = b""
        while self._replies and self._replies[0].due_ns <= now_ns:
            due += self._replies.popleft().data
        self._reply_bytes -= len(due)
        return due

    def next_ns(self) -> int | None:
        """When the next bytes are due or the next request's turn comes; None when idle."""
        times = []
        if self._replies:
            times.append(self._replies[0].due_ns)
        if self._collected:
            times.append(self._collected_since_ns + self.timing.latency_timer_ns)
        if self._waiting:
            times.append(self._line_free_ns - LOOKAHEAD_NS)
        return min(times) if times else None

    def forget(self) -> None:
        """Drop everything on its way (the port was closed or unplugged)."""
        self._parser.reset()
        self._waiting.clear()
        self._replies.clear()
        self._reply_bytes = 0
        self._collected.clear()
        self._line_free_ns = self._last_due_ns = 0

    def _note_torque(self, servo: Servo, on: bool, cause: str, at_ns: int) -> None:
        self._log.note(at_ns, self.name, "torque", id=servo.ident, on=on, cause=cause)
        if self.torque_listener is not None:
            self.torque_listener(servo, on, cause, at_ns)

    def _carry_out(self, item: Request, start_ns: int, baud: int) -> None:
        self.requests += 1
        byte_ns = 1_000_000_000 * BITS_PER_BYTE // baud if baud else 10_000
        end_ns = start_ns + len(item.raw) * byte_ns
        self._line_free_ns = end_ns
        if self.echo:
            self._deliver(item.raw, end_ns)
        addressed = self._addressed(item)
        turn = _Turn(item, byte_ns, self.faults.begin(addressed, end_ns))
        by_id: dict[int, list[Servo]] = {}
        for servo in self.servos:
            hears = servo.baud == baud and end_ns >= servo.down_until_ns
            if hears and not is_silenced(turn.faults, servo.ident):
                by_id.setdefault(servo.ident, []).append(servo)
        heard = tuple(ident for ident in addressed if ident in by_id)
        self._log.request(end_ns, self.name, item.raw, heard)
        for at, (ident, length) in enumerate(_obey(item, by_id, addressed, end_ns)):
            self._answer(by_id.get(ident, []), ident, length=length, turn=turn, first=at == 0)

    def _addressed(self, item: Request) -> list[int]:
        if item.ident != BROADCAST:
            return [item.ident]
        match item.instruction:
            case Instruction.SYNC_READ:
                return list(item.parameters[2:])
            case Instruction.SYNC_WRITE if len(item.parameters) >= 2:
                return [ident for ident, _, _ in sync_write_items(item.parameters)]
        return sorted({servo.ident for servo in self.servos})

    def _answer(
        self, servos: list[Servo], ident: int, *, length: int, turn: "_Turn", first: bool
    ) -> None:
        if not servos:
            if turn.item.instruction == Instruction.SYNC_READ:  # its slot passes in silence
                slot_ns = (OVERHEAD_BYTES + length) * turn.byte_ns
                self._line_free_ns += self.timing.servo_ns + slot_ns
            return
        start_ns = self._line_free_ns + self.timing.servo_ns + servos[0].return_delay_ns
        frames = []
        for servo in servos:
            data = servo.read(turn.item.parameters[0], length, start_ns) if length else b""
            frames.append(reply(ident, servo.error(start_ns), data))
        data = frames[0]
        for other in frames[1:]:
            self._collisions += 1
            data = collide(data, other, 1 + self._collisions * 5 % 7)
        marred = self.faults.mar(turn.faults, ident, data, first=first)
        for kind in marred.kinds:
            self._log.note(start_ns, self.name, "fault", fault=kind, id=ident)
        end_ns = start_ns + marred.line_ns + len(marred.data) * turn.byte_ns
        self._line_free_ns = end_ns
        self._deliver(marred.data, end_ns + marred.host_ns)

    def _deliver(self, data: bytes, end_ns: int) -> None:
        """Pass bytes whose last one was on the line at `end_ns` through the adapter."""
        if self._reply_bytes + len(data) > _QUEUE_BYTES:
            self.lost_bytes += len(data)
            return
        if self.timing.latency_timer_ns:
            self._collect(data, end_ns)
        else:
            self._send(data, end_ns)

    def _collect(self, data: bytes, end_ns: int) -> None:
        self._close_collection(end_ns)
        if not self._collected:
            self._collected_since_ns = end_ns
        self._collected += data
        while len(self._collected) >= _ADAPTER_BUFFER_BYTES:
            self._send(bytes(self._collected[:_ADAPTER_BUFFER_BYTES]), end_ns)
            del self._collected[:_ADAPTER_BUFFER_BYTES]
            self._collected_since_ns = end_ns

    def _close_collection(self, now_ns: int) -> None:
        if self._collected:
            due_ns = self._collected_since_ns + self.timing.latency_timer_ns
            if due_ns <= now_ns:
                self._send(bytes(self._collected), due_ns)
                self._collected.clear()

    def _send(self, data: bytes, end_ns: int) -> None:
        due_ns = max(end_ns + self.timing.in_ns, self._last_due_ns)
        self._last_due_ns = due_ns
        self._reply_bytes += len(data)
        last = self._replies[-1] if self._replies else None
        if last is not None and due_ns - last.begun_ns <= self.timing.packet_ns:
            last.data += data
            last.due_ns = due_ns
        else:
            self._replies.append(_Packet(due_ns, due_ns, data))


def _obey(
    item: Request, by_id: dict[int, list[Servo]], addressed: list[int], at_ns: int
) -> list[tuple[int, int]]:
    """Let the hearing servos act. Returns (id, data bytes) of each reply due, in order."""
    body = item.parameters
    alone = item.ident != BROADCAST
    writers = [servo for ident in addressed for servo in by_id.get(ident, [])]
    match item.instruction:
        case Instruction.PING:
            return [(ident, 0) for ident in addressed]
        case Instruction.READ if alone and len(body) >= 2:
            return [(item.ident, body[1])]
        case Instruction.SYNC_READ if not alone and len(body) >= 2:
            return [(ident, body[1]) for ident in addressed]
        case Instruction.SYNC_WRITE if not alone and len(body) >= 2:
            for ident, address, data in sync_write_items(body):
                for servo in by_id.get(ident, []):
                    servo.write(address, data, at_ns)
            return []
        case Instruction.WRITE if body:
            for servo in writers:
                servo.write(body[0], body[1:], at_ns)
        case Instruction.REG_WRITE if body:
            for servo in writers:
                servo.register_write(body[0], body[1:])
        case Instruction.ACTION:
            for servo in writers:
                servo.act(at_ns)
        case _:
            return []
    answering = alone and any(servo.answers_writes for servo in writers)
    return [(item.ident, 0)] if answering else []

"""One Feetech bus: sync reads and writes of all servos, and single registers. Packets by the SDK,
those of every tick by way of frames.py.

A reading says per joint whether it came, and is never older than its request. Limit: servos that
know sync read (STS/SMS series, protocol 0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from scservo_sdk import (
    COMM_RX_CORRUPT,
    COMM_SUCCESS,
    INST_PING,
    PacketHandler,
)

from recd.config.errors import DeviceError
from recd.config.streams import JointFlag
from recd.daemon.arms.exchange import (
    DEADLINE_NS,
    DROPPED,
    ERROR,
    HELD,
    LAST_BYTE_NS,
    OVERSLEPT,
    PATIENCE_NS,
    REQUEST_NS,
    SLEEP_NS,
)
from recd.daemon.arms.feetech.frames import ReadRequest, read_request, words_request
from recd.daemon.arms.feetech.pace import ReplyPace
from recd.daemon.arms.feetech.port import BusPort
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.feetech.resync import Line
from recd.daemon.arms.passes import integers
from recd.daemon.arms.registers import (
    GOAL_POSITION,
    Block,
    Register,
    error_words,
)
from recd.daemon.arms.tickcode import PLAIN, Call, Code
from recd.shm.clock import NS_PER_MS, now_ns, sleep_until_ns

_ID, _LENGTH, _INSTRUCTION, _ERROR, _DATA = 2, 3, 4, 4, 5
_NOBODY = 252
"""An id that no servo of an arm has: only an echo can answer it."""

REPLY_SHARE = 1.7
"""Share of a period that a read in the loop waits for replies, beside their time on the wire.

In step, a reply belongs to its request however late it is, because the line keeps order: only
waiting costs. A read that gives up before its period ends throws away replies that would have cost
nothing; one that gives up later has missed the next tick anyway, and waits for as long as it misses
no further one. After that a marker gets back in step at less cost [50 s at 250 Hz on two busy
cores, leader and follower: 93 and 84 reads given up after 0.9 of a period, each costing two ticks;
2 and 4 with this]."""

RESYNC_SHARE = 0.75
"""Share of a period that a tick out of step listens: it must not miss the next one as well."""

FAR_TOO_LATE = 2
"""A reading that took so many times its patience says too little: this process was stopped."""

_STEPS = 6
"""Place of what changes among the arguments of exchange.send_words."""

_TRIES = 3
_RECOVERY_NS = 700 * NS_PER_MS
_ECHO_NS = 5 * NS_PER_MS


class ServoError(DeviceError):
    """A servo that is missing, foreign, or does not take a value."""

    code = "servo"


class ServoBus:
    """The servos of one arm behind one port, in joint order.

    line: in step or not; joints that did not answer the last sync read are asked first in
    the next one, so that the answers behind them prove the line in step without any waiting.
    """

    def __init__(self, port: BusPort, ids: Sequence[int], code: Code = PLAIN) -> None:
        """code: the passes, as Python or as machine code."""
        self.port = port
        self.ids = tuple(ids)
        self.line = Line(self.ids)
        self.reading = Reading(len(self.ids))
        self.bad_packets = 0
        self._period_ns = 0
        self._packets: Any = PacketHandler(0)
        self._joint = {servo: joint for joint, servo in enumerate(self.ids)}
        self._everybody = (1 << len(self.ids)) - 1
        self._order = list(self.ids)
        self._paces: dict[int, ReplyPace] = {}
        self._asked: dict[Block, tuple[ReadRequest, ReplyPace, Call]] = {}
        self._code = code
        self._steps: Sequence[int] = integers([0] * len(self.ids))
        goals = words_request(self._packets, GOAL_POSITION, self.ids)
        self._goals = code.prepare("send_words", port.calls, port.words, *goals, self._steps)

    def open(self) -> None:
        """Open the port and find out whether the adapter echoes. Raises DeviceError."""
        self.port.openPort()
        self.line = Line(self.ids)
        self._ask_in_order(self.ids)
        self.port.echo = self._detect_echo()

    def close(self) -> None:
        self.port.closePort()

    def serve_every(self, period_ns: int) -> None:
        """From now on reads belong to a loop of this period, and are as patient as it can be."""
        self._period_ns = period_ns
        self.port.reply_timeout_ns = round(REPLY_SHARE * period_ns)

    def read_ns(self, block: Block) -> int:
        """Time on the wire of a request for `block` and its replies."""
        request, _, _ = self._asked.get(block) or self._prepare(block)
        return (len(request.packet) + request.reply_bytes) * self.port.byte_ns

    def sync_read(self, block: Block) -> Reading:
        """Read `block` of all servos within the port's reply timeout.

        Out of step it first tries to get back (a marker), and reads only when that worked. Raises
        BusLostError when the port is gone.
        """
        reading = self.reading
        reading.flags = reading.valid = 0
        if not self.line.in_step and not self._back_in_step(reading):
            reading.request_ns = reading.sample_ns = reading.arrival_ns = now_ns()
            reading.half_width_ns = 0
            reading.flags |= JointFlag.RESYNC | JointFlag.NO_REPLY
            return reading
        request, pace, exchange = self._asked.get(block) or self._prepare(block)
        port, words = self.port, self.port.words
        dropped = words[DROPPED]
        if port.inbox:
            port.drop_inbox()
        words[SLEEP_NS] = pace.sleep_ns
        words[PATIENCE_NS] = request.reply_bytes * port.byte_ns + port.reply_timeout_ns
        taken = exchange.run()
        if words[ERROR] or words[HELD] > taken * request.reply_size:
            port.settle(taken * request.reply_size)
        reading.position_at = request.position_at
        reading.valid = valid = request.answered[taken]
        if words[DROPPED] != dropped:
            reading.flags |= JointFlag.LATE_REPLY
        if valid != self._everybody:
            self._collect(block.length, reading)
            valid = reading.valid
        request_ns = words[REQUEST_NS]
        reading.request_ns, reading.arrival_ns = request_ns, words[LAST_BYTE_NS]
        span_ns = words[LAST_BYTE_NS] - request_ns if valid else 0
        if span_ns > FAR_TOO_LATE * (words[DEADLINE_NS] - request_ns):
            self._disown(reading)
            span_ns = valid = 0
        reading.half_width_ns = half_ns = span_ns // 2
        reading.sample_ns = request_ns + half_ns
        if valid != self._everybody:
            reading.flags |= JointFlag.NO_REPLY
            self._note_silence(reading)
        else:
            if 0 < self._period_ns < span_ns:
                reading.flags |= JointFlag.LATE_REPLY
            pace.learn(span_ns, overslept=words[OVERSLEPT] != 0)
        return reading

    def write_goals(self, steps: Sequence[int], *, skip: int = 0) -> int:
        """Goal positions (steps per joint, `integers`) in one packet without reply. Returns when
        (ns).

        skip: bit per joint that gets none.
        """
        if skip:
            taken = {s: steps[j] for j, s in enumerate(self.ids) if not skip >> j & 1}
            self.sync_write(GOAL_POSITION, taken)
        else:
            if steps is not self._steps:
                self._steps = steps
                self._goals.point(_STEPS, steps)
            self._goals.run()
            if self.port.words[ERROR]:
                self.port.settle(0)
        return self.port.words[REQUEST_NS]

    def answers(self, servo: int) -> bool:
        """Whether this id answers one ping now. Leaves the line as it is then."""
        packet = [0] * 6
        packet[_ID], packet[_LENGTH], packet[_INSTRUCTION] = servo, 2, INST_PING
        _, result, _ = self._packets.txRxPacket(self.port, packet)
        if result != COMM_SUCCESS:
            self.line.lose(now_ns())
        return bool(result == COMM_SUCCESS)

    def ping(self, servo: int) -> bool:
        """Whether this id answers a ping; a lost reply is asked for again.

        False with the line out of step: nobody answers anything.
        """
        for _ in range(_TRIES):
            self.recover()
            if not self.line.in_step:
                return False
            if self.answers(servo):
                return True
        self.recover()
        return False

    def read(self, servo: int, register: Register) -> int:
        """Value of one register. ServoError when the servo does not answer, even when asked again.

        Error bits of the reply are no obstacle: a servo in overload still tells its registers.
        """
        data = self.read_bytes(servo, register.address, register.size)
        return register.decode(int.from_bytes(data, "little"))

    def read_bytes(self, servo: int, address: int, length: int) -> bytes:
        """`length` adjacent bytes of one servo. Raises ServoError as `read` does."""
        result = COMM_RX_CORRUPT
        for _ in range(_TRIES):
            self.recover()
            data, result, _ = self._packets.readTxRx(self.port, servo, address, length)
            if result == COMM_SUCCESS and len(data) == length:
                return bytes(data)
            self.line.lose(now_ns())
        self.recover()
        raise ServoError(
            f"{self.port.bus}: servo {servo} does not answer "
            f"({self._packets.getTxRxResult(result).removeprefix('[TxRxResult] ')})",
            mend="Check its cable and the arm's power supply; two servos with one id answer "
            f"garbled: recctl devices --scan {self.port.port_name} shows the ids.",
        )

    def write(self, servo: int, register: Register, value: int) -> None:
        """Write one register and read it back. ServoError when it does not hold the value."""
        content = register.encode(value)
        data = list(content.to_bytes(register.size, "little"))
        error = 0
        for _ in range(_TRIES):
            self.recover()
            result, error = self._packets.writeTxRx(
                self.port, servo, register.address, register.size, data
            )
            if result != COMM_SUCCESS:
                self.line.lose(now_ns())
            if self.read(servo, register) == value:
                return
        words = error_words(error)
        raise ServoError(
            f"{self.port.bus}: servo {servo}: {register.name} is {self.read(servo, register)}, "
            f"expected {value} after writing it" + (f" (servo reports {words})" if words else ""),
            mend="Switch the arm's power off and on; a servo in protection refuses writes.",
        )

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """Write one register of several servos in one packet, which nobody acknowledges."""
        data = []
        for servo, value in values.items():
            data += [servo, *register.encode(value).to_bytes(register.size, "little")]
        self._packets.syncWriteTxOnly(self.port, register.address, register.size, data, len(data))

    def recover(self) -> None:
        """Wait (at most 0.7 s) until the line is in step. For attaching and arming, not the loop.

        A line that stays out of step is left so: the next read says what is missing.
        """
        give_up_ns = now_ns() + _RECOVERY_NS
        while not self.line.in_step and now_ns() < give_up_ns:
            if not self._back_in_step(self.reading):
                sleep_until_ns(now_ns() + NS_PER_MS)

    def _back_in_step(self, reading: Reading) -> bool:
        port, line = self.port, self.line
        patience_ns = port.reply_timeout_ns
        if self._period_ns:
            patience_ns = min(patience_ns, round(RESYNC_SHARE * self._period_ns))
        marker = line.next_marker(now_ns(), last_traffic_ns=max(port.last_byte_ns, port.request_ns))
        if marker is not None:
            dropped = port.dropped_bytes
            self._packets.readTx(port, marker[0], 0, marker[1])
            if port.dropped_bytes != dropped:
                reading.flags |= JointFlag.LATE_REPLY
        port.extend_deadline(patience_ns)
        while not line.in_step:
            packet, result = self._packets.rxPacket(port)
            if result == COMM_SUCCESS:
                if not line.hear(packet[_ID], packet[_LENGTH] - 2):
                    reading.flags |= JointFlag.LATE_REPLY
            elif port.isPacketTimeout():
                break
        return line.in_step

    def _ask_in_order(self, servos: Sequence[int]) -> None:
        self._order = list(servos)
        self._asked.clear()

    def _prepare(self, block: Block) -> tuple[ReadRequest, ReplyPace, Call]:
        request = read_request(self._packets, block, self._order, self.ids)
        pace = self._paces.setdefault(block.length, ReplyPace())
        port, reading = self.port, self.reading
        exchange = self._code.prepare(
            "exchange", port.calls, port.words, request.packet, len(request.packet),
            port.read_into, request.due, len(request.answered) - 1, request.reply_size,
            reading.data, reading.errors,
        )  # fmt: skip
        self._asked[block] = asked = request, pace, exchange
        return asked

    def _collect(self, length: int, reading: Reading) -> None:
        """Take replies until the last one listed is there or the deadline passes."""
        port, last = self.port, self._order[-1]
        port_packets = self._packets
        while True:
            packet, result = port_packets.rxPacket(port)
            if result == COMM_SUCCESS:
                joint = self._joint.get(packet[_ID])
                if joint is None or packet[_LENGTH] != length + 2:
                    reading.flags |= JointFlag.BAD_PACKET
                    self.bad_packets += 1
                    continue
                reading.keep(joint, packet[_ERROR], packet[_DATA : _DATA + length])
                if packet[_ID] == last:
                    return
                continue
            if packet:
                reading.flags |= JointFlag.BAD_PACKET
                self.bad_packets += 1
            if port.isPacketTimeout():
                return

    def _disown(self, reading: Reading) -> None:
        """Replies that lay unread while this process was stopped: in order, but of no use."""
        reading.valid = 0
        reading.flags |= JointFlag.LATE_REPLY

    def _note_silence(self, reading: Reading) -> None:
        last = self._joint[self._order[-1]]
        if not reading.valid >> last & 1:
            self.line.lose(now_ns())
        if reading.valid:
            answered = [servo for servo in self._order if reading.valid >> self._joint[servo] & 1]
            silent = [servo for servo in self._order if servo not in answered]
            self._ask_in_order(silent + answered)

    def _detect_echo(self) -> bool:
        packet = [0] * 6
        packet[_ID], packet[_LENGTH], packet[_INSTRUCTION] = _NOBODY, 2, INST_PING
        self._packets.txPacket(self.port, packet)
        self.port.is_using = False
        self.port.extend_deadline(_ECHO_NS)
        heard = self.port.readPort(len(packet))
        return heard == bytes(packet)

"""One STS3215: control table, EEPROM and lock, limits, error bits, and the joint that it turns.

Everything takes the time as an argument (int64 ns, CLOCK_MONOTONIC) and nothing here waits.
Not modelled: PID terms other than P, and the multi-turn step mode beyond its goal.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recd.daemon.sim.motion import (
    DUTY_PER_STEP,
    FASTEST_STEPS_S,
    HARDEST_STEPS_S2,
    Drive,
    Joint,
    Mechanics,
)
from recd.daemon.sim.protocol import ErrorBit
from recd.daemon.sim.registers import (
    BAUD_BY_CODE,
    BY_NAME,
    EEPROM_END,
    FEEDBACK_END,
    FEEDBACK_START,
    STEPS_PER_TURN,
    TABLE_BYTES,
    sign_magnitude,
    works_image,
    writable,
)

_AT = {name: register.address for name, register in BY_NAME.items()}
_TORQUE, _LOCK, _GOAL = _AT["Torque_Enable"], _AT["Lock"], _AT["Goal_Position"]
_PHASE_MULTI_TURN = 0x10
_PHASE_FINE_SPEED = 0x04
_COARSE_SPEED_STEPS = 50
_ACCELERATION_UNIT = 100
_PROTECTION_UNIT_NS = 10_000_000
_STALL_CURRENT_UNITS = 385  # 2.5 A in steps of 6.5 mA
_CENTRE_COMMAND = 128
_DAMPED = 2

TorqueListener = Callable[["Servo", bool, str, int], None]
"""Called with (servo, torque on, cause, time ns) at each change of torque."""


def _nobody(servo: "Servo", on: bool, cause: str, at_ns: int) -> None:
    return None


@dataclass(slots=True)
class Ramp:
    """A quantity that goes from `start` to `end` between two times (temperature)."""

    start: float
    end: float
    from_ns: int = 0
    until_ns: int = 0

    def at(self, at_ns: int) -> float:
        if at_ns >= self.until_ns:
            return self.end
        share = (at_ns - self.from_ns) / (self.until_ns - self.from_ns)
        return self.start + (self.end - self.start) * max(0.0, share)


class Servo:
    """A servo on the line. `table` is what a host sees, `eeprom` what survives a power cycle."""

    def __init__(self, ident: int, mechanics: Mechanics, *, angle: float, at_ns: int) -> None:
        self.eeprom = works_image()
        self.eeprom[_AT["ID"]] = ident
        self.table = bytearray(self.eeprom)
        self.joint = Joint(mechanics, angle, at_ns)
        self.on_torque: TorqueListener = _nobody
        self.temperature = Ramp(32.0, 32.0)
        self.voltage = 74
        self.forced_error = 0
        self.goal_enables_torque = False
        self.down_until_ns = 0
        self._overload = self._overcurrent = False
        self._overload_side = 1
        self._overload_since_ns = self._overcurrent_since_ns = 0
        self._registered: tuple[int, bytes] | None = None
        self.power_cycle(at_ns, cause="")

    @property
    def ident(self) -> int:
        return self.table[_AT["ID"]]

    @property
    def baud(self) -> int:
        code = self.table[_AT["Baud_Rate"]]
        return BAUD_BY_CODE[code] if code < len(BAUD_BY_CODE) else 0

    @property
    def return_delay_ns(self) -> int:
        return self.table[_AT["Return_Delay_Time"]] * 2_000

    @property
    def answers_writes(self) -> bool:
        return bool(self.table[_AT["Response_Status_Level"]])

    @property
    def torque(self) -> bool:
        return self.joint.drive.torque

    @property
    def _steers_by_goal(self) -> bool:
        """Whether a goal changes nothing but the goal: every tick of a running arm."""
        return self.joint.drive.mode == 0 and not self.goal_enables_torque

    def get(self, name: str) -> int:
        """Value of a register as it stands, feedback as of the last refresh."""
        register = BY_NAME[name]
        return register.decode(self.table[register.address :])

    def put(self, name: str, value: int, at_ns: int) -> None:
        """Set a register from outside the line, EEPROM included (as a works tool would)."""
        register = BY_NAME[name]
        data = register.encode(value)
        span = slice(register.address, register.address + register.size)
        self.joint.advance(at_ns)
        self.table[span] = data
        if register.address < EEPROM_END:
            self.eeprom[span] = data
        self._rebuild_drive()

    def read(self, address: int, length: int, at_ns: int) -> bytes:
        """`length` bytes from `address` as they stand at `at_ns`; zeros beyond the table."""
        if address == FEEDBACK_START and length == 2:  # every tick of every arm
            self.protect(at_ns)
            return self._position_word(at_ns).to_bytes(2, "little")
        if address < FEEDBACK_END and address + length > FEEDBACK_START:
            self.refresh(at_ns)
        data = bytes(self.table[address : address + length])
        return data.ljust(length, b"\0")

    def write(self, address: int, data: bytes, at_ns: int, cause: str = "write") -> None:
        """A host's write, taking effect at `at_ns`; read-only addresses keep their value."""
        self.protect(at_ns)
        if address == _GOAL and len(data) == 2 and self._steers_by_goal:
            self.table[_GOAL : _GOAL + 2] = data
            word = data[0] | data[1] << 8
            self.joint.drive.goal = -(word & 0x7FFF) if word & 0x8000 else word
            if self._overload:
                self._relent()
            return
        lasting = self.table[_LOCK] == 0
        for at, value in enumerate(data, address):
            if at >= TABLE_BYTES or not writable(at):
                continue
            if at == _TORQUE:
                self._write_torque(value, lasting, at_ns, cause)
                continue
            self.table[at] = value
            if at < EEPROM_END and lasting:
                self.eeprom[at] = value
        if self.goal_enables_torque and address <= _GOAL < address + len(data):
            self._write_torque(1, lasting, at_ns, "goal")
        self._rebuild_drive()

    def register_write(self, address: int, data: bytes) -> None:
        """Keep a write for the ACTION that follows (REG_WRITE)."""
        self._registered = (address, data)

    def act(self, at_ns: int) -> None:
        """Do the kept write, if any (ACTION)."""
        if self._registered is not None:
            self.write(*self._registered, at_ns, "action")
            self._registered = None

    def release(self, cause: str, at_ns: int) -> None:
        """The servo itself lets go (overheat, overcurrent)."""
        if self.table[_TORQUE]:
            self.table[_TORQUE] = 0
            self._rebuild_drive()
            self.on_torque(self, False, cause, at_ns)

    def power_cycle(self, at_ns: int, *, cause: str = "power", down_ns: int = 0) -> None:
        """SRAM as after power-up, EEPROM kept, silent for `down_ns`; the joint has not moved."""
        self.joint.advance(at_ns)
        had_torque = self.torque
        fresh = works_image()
        fresh[:EEPROM_END] = self.eeprom[:EEPROM_END]
        self.table = fresh
        self.down_until_ns = at_ns + down_ns
        self._overload = self._overcurrent = False
        self._overload_since_ns = self._overcurrent_since_ns = 0
        self._registered = None
        span = BY_NAME["Torque_Limit"].address
        maximum = BY_NAME["Max_Torque_Limit"].address
        fresh[span : span + 2] = fresh[maximum : maximum + 2]
        self._rebuild_drive()
        fresh[_GOAL : _GOAL + 2] = self._position_word(at_ns).to_bytes(2, "little")
        self._rebuild_drive()
        if had_torque:
            self.on_torque(self, False, cause, at_ns)

    def error(self, at_ns: int) -> int:
        """Error byte of a reply sent at `at_ns`; a servo that must let go does so here."""
        bits = self.forced_error
        low, high = self.table[_AT["Min_Voltage_Limit"]], self.table[_AT["Max_Voltage_Limit"]]
        if not low <= self.voltage <= high:
            bits |= ErrorBit.VOLTAGE
        unloads = self.table[_AT["Unloading_Condition"]]
        if self.temperature.at(at_ns) >= self.table[_AT["Max_Temperature_Limit"]]:
            bits |= ErrorBit.OVERHEAT
            if unloads & ErrorBit.OVERHEAT:
                self.release("overheat", at_ns)
        if self._overload:
            bits |= ErrorBit.OVERLOAD
        if self._overcurrent:
            bits |= ErrorBit.OVERCURRENT
        return bits

    def protect(self, at_ns: int) -> None:
        """Advance the joint and the protections that watch its load and current."""
        joint = self.joint
        joint.advance(at_ns)
        if not joint.duty and not self._overload:
            self._overload_since_ns = self._overcurrent_since_ns = 0
            return
        self._watch_load(abs(joint.duty), at_ns)
        current = abs(joint.duty) * _STALL_CURRENT_UNITS / 1000
        if current <= self.get("Protection_Current"):
            self._overcurrent_since_ns = 0
        elif not self._overcurrent_since_ns:
            self._overcurrent_since_ns = at_ns
        elif at_ns - self._overcurrent_since_ns > self._time("Over_Current_Protection_Time"):
            self._overcurrent = True
            if self.table[_AT["Unloading_Condition"]] & ErrorBit.OVERCURRENT:
                self.release("overcurrent", at_ns)

    def trip_overload(self, at_ns: int) -> None:
        """Overload protection as if the load had lasted long enough."""
        self.joint.advance(at_ns)
        self._overload = True
        self._overload_side = -1 if self.joint.demand < 0 else 1
        self._rebuild_drive()

    def _relent(self) -> None:
        """A goal that no longer pushes against the obstacle ends overload protection."""
        if self.torque and self.joint.error() * self._overload_side <= 0:
            self._overload = False
            self._overload_since_ns = 0
            self._rebuild_drive()

    def refresh(self, at_ns: int) -> None:
        """Bring the feedback registers (56..72) up to `at_ns`."""
        self.protect(at_ns)
        table, joint = self.table, self.joint
        table[56:58] = self._position_word(at_ns).to_bytes(2, "little")
        fine = table[_AT["Phase"]] & _PHASE_FINE_SPEED
        speed = round(joint.velocity / (1 if fine else _COARSE_SPEED_STEPS))
        table[58:60] = sign_magnitude(speed, 15).to_bytes(2, "little")
        table[60:62] = sign_magnitude(round(joint.duty), 10).to_bytes(2, "little")
        table[62] = max(0, self.voltage - (abs(joint.duty) > 400))
        table[63] = min(255, round(self.temperature.at(at_ns)))
        table[65] = self.error(at_ns)
        table[66] = abs(joint.velocity) > max(1, table[_AT["Moving_Velocity_Threshold"]])
        current = round(abs(joint.duty) * _STALL_CURRENT_UNITS / 1000)
        table[69:71] = current.to_bytes(2, "little")
        table[71:73] = table[42:44]

    def reported(self, at_ns: int) -> float:
        """True position at `at_ns` in the steps that the servo reports, not rounded."""
        return self.joint.reported(self.joint.angle_at(at_ns))

    def _position_word(self, at_ns: int) -> int:
        value = round(self.reported(at_ns))
        if self.joint.drive.wraps:
            return value % STEPS_PER_TURN
        return sign_magnitude(max(-32767, min(32767, value)), 15)

    def _time(self, name: str) -> int:
        return self.table[_AT[name]] * _PROTECTION_UNIT_NS

    def _watch_load(self, load: float, at_ns: int) -> None:
        if self._overload:
            return
        if load <= self.table[_AT["Overload_Torque"]] * 10:
            self._overload_since_ns = 0
        elif not self._overload_since_ns:
            self._overload_since_ns = at_ns
        elif at_ns - self._overload_since_ns > self._time("Protection_Time"):
            self.trip_overload(at_ns)

    def _write_torque(self, value: int, lasting: bool, at_ns: int, cause: str) -> None:
        if value == _CENTRE_COMMAND:
            self._centre(lasting, at_ns)
            return
        before, self.table[_TORQUE] = self.table[_TORQUE], value
        if value != 1:
            self._overload = self._overcurrent = False
            self._overload_since_ns = self._overcurrent_since_ns = 0
        if (before == 1) != (value == 1):
            self.on_torque(self, value == 1, cause, at_ns)

    def _centre(self, lasting: bool, at_ns: int) -> None:
        """Make the present pose read 2048 by the homing offset."""
        raw = round(self.joint.angle_at(at_ns)) % STEPS_PER_TURN
        offset = max(-2047, min(2047, raw - 2048))
        data = BY_NAME["Homing_Offset"].encode(offset)
        self.table[31:33] = data
        if lasting:
            self.eeprom[31:33] = data

    def _rebuild_drive(self) -> None:
        get, table = self.get, self.table
        limit = min(get("Torque_Limit"), get("Max_Torque_Limit"))
        if self._overload:
            limit = min(limit, table[_AT["Protective_Torque"]] * 10)
        mode = table[_AT["Operating_Mode"]]
        top = abs(get("Goal_Velocity")) if mode != 1 else FASTEST_STEPS_S
        ramp = table[_AT["Acceleration"]] * _ACCELERATION_UNIT
        self.joint.drive = Drive(
            torque=table[_TORQUE] == 1,
            mode=mode,
            goal=get("Goal_Time") if mode == 2 else get("Goal_Position"),
            low=get("Min_Position_Limit"),
            high=get("Max_Position_Limit"),
            offset=get("Homing_Offset"),
            wraps=not table[_AT["Phase"]] & _PHASE_MULTI_TURN,
            gain=table[_AT["P_Coefficient"]] * DUTY_PER_STEP,
            dead_zone=max(table[_AT["CW_Dead_Zone"]], table[_AT["CCW_Dead_Zone"]]),
            limit=limit,
            top=min(top or FASTEST_STEPS_S, FASTEST_STEPS_S),
            ramp=min(ramp or HARDEST_STEPS_S2, HARDEST_STEPS_S2),
            speed=get("Goal_Velocity"),
            damping=0.25 if table[_TORQUE] == _DAMPED else 1.0,
        )

"""Registers of STS servos and the values that LeRobot gives them. Facts only, no I/O.

Limit: STS/SMS series (protocol 0, little endian). Source: the vendor's STS3215 memory table and
what lerobot 0.6.1 sends at connect.
"""

from dataclasses import dataclass

from recd.daemon.arms.models import Joint


@dataclass(frozen=True, slots=True)
class Register:
    """One register. size: bytes; sign_bit: index of the sign of sign-magnitude values, or None."""

    name: str
    address: int
    size: int
    eeprom: bool
    sign_bit: int | None = None

    def encode(self, value: int) -> int:
        """Signed value -> unsigned register content. ValueError when it does not fit."""
        if self.sign_bit is None:
            if not 0 <= value < 1 << (8 * self.size):
                raise ValueError(f"{self.name}: {value} does not fit {self.size} unsigned byte(s)")
            return value
        if abs(value) >= 1 << self.sign_bit:
            raise ValueError(f"{self.name}: {value} is beyond +-{(1 << self.sign_bit) - 1}")
        return (1 << self.sign_bit) | -value if value < 0 else value

    def decode(self, content: int) -> int:
        """Unsigned register content -> signed value."""
        if self.sign_bit is None or not content >> self.sign_bit & 1:
            return content
        return -(content & ((1 << self.sign_bit) - 1))


def _eeprom(name: str, address: int, size: int, sign_bit: int | None = None) -> Register:
    return Register(name, address, size, eeprom=True, sign_bit=sign_bit)


def _sram(name: str, address: int, size: int, sign_bit: int | None = None) -> Register:
    return Register(name, address, size, eeprom=False, sign_bit=sign_bit)


FIRMWARE_MAJOR = _eeprom("firmware_major", 0, 1)
FIRMWARE_MINOR = _eeprom("firmware_minor", 1, 1)
MODEL_NUMBER = _eeprom("model_number", 3, 2)
SERVO_ID = _eeprom("id", 5, 1)
BAUD_CODE = _eeprom("baud_code", 6, 1)
RETURN_DELAY = _eeprom("return_delay", 7, 1)
MIN_POSITION = _eeprom("min_position", 9, 2)
MAX_POSITION = _eeprom("max_position", 11, 2)
MAX_TORQUE = _eeprom("max_torque", 16, 2)
PHASE = _eeprom("phase", 18, 1)
P_GAIN = _eeprom("p_gain", 21, 1)
D_GAIN = _eeprom("d_gain", 22, 1)
I_GAIN = _eeprom("i_gain", 23, 1)
PROTECTION_CURRENT = _eeprom("protection_current", 28, 2)
HOMING_OFFSET = _eeprom("homing_offset", 31, 2, sign_bit=11)
OPERATING_MODE = _eeprom("operating_mode", 33, 1)
OVERLOAD_TORQUE = _eeprom("overload_torque", 36, 1)
TORQUE_ENABLE = _sram("torque_enable", 40, 1)
ACCELERATION = _sram("acceleration", 41, 1)
GOAL_POSITION = _sram("goal_position", 42, 2, sign_bit=15)
LOCK = _sram("lock", 55, 1)
PRESENT_POSITION = _sram("present_position", 56, 2, sign_bit=15)
PRESENT_LOAD = _sram("present_load", 60, 2, sign_bit=10)
MAX_ACCELERATION = _eeprom("max_acceleration", 85, 1)

PHASE_MULTI_TURN = 0x10
"""Bit of PHASE that makes positions leave 0..4095; LeRobot clears it."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Adjacent registers read together by one sync read. Equal to itself alone: as a key it costs a
    control tick no Python."""

    address: int
    length: int

    def offset(self, register: Register) -> int:
        """Byte offset of a register in this block."""
        return register.address - self.address


POSITION_BLOCK = Block(56, 2)
"""Position, every tick."""
TELEMETRY_BLOCK = Block(56, 15)
"""Position, velocity, load, voltage, temperature, status, moving, current."""
TORQUE_BLOCK = Block(40, 4)
"""Torque enable, acceleration, goal position: does the servo still hold what it was told?"""
CHECK_BLOCK = Block(40, 18)
"""From torque enable to position: a tick that looks at the torque asks its servos once."""

TELEMETRY_LOAD = 4
TELEMETRY_VOLTAGE = 6
TELEMETRY_TEMPERATURE = 7
TELEMETRY_STATUS = 9
TELEMETRY_CURRENT = 13
"""Byte offsets in TELEMETRY_BLOCK."""


@dataclass(frozen=True, slots=True)
class ErrorBit:
    """One bit of the error byte of a status packet."""

    mask: int
    word: str


ERROR_BITS = (
    ErrorBit(0x01, "voltage"),
    ErrorBit(0x02, "angle sensor"),
    ErrorBit(0x04, "overheat"),
    ErrorBit(0x08, "overcurrent"),
    ErrorBit(0x20, "overload"),
)


def error_words(error: int) -> str:
    """Names of the set bits of an error byte, comma separated."""
    return ", ".join(bit.word for bit in ERROR_BITS if error & bit.mask)


@dataclass(frozen=True, slots=True)
class Setting:
    """A register and the value it should have. `clear_only`: bits of `value` have to be 0."""

    register: Register
    value: int
    clear_only: bool = False

    def wanted(self, found: int) -> int:
        """What the register should hold, given what it holds."""
        return found & ~self.value if self.clear_only else self.value


@dataclass(frozen=True, slots=True)
class Gains:
    """Position gains of a follower's servos (LeRobot: 16, 0, 32)."""

    p: int = 16
    i: int = 0
    d: int = 32


COMMON_SETTINGS = (
    Setting(RETURN_DELAY, 0),
    Setting(MAX_ACCELERATION, 254),
    Setting(ACCELERATION, 254),
    Setting(PHASE, PHASE_MULTI_TURN, clear_only=True),
    Setting(OPERATING_MODE, 0),
)
GRIPPER_SETTINGS = (
    Setting(MAX_TORQUE, 500),
    Setting(PROTECTION_CURRENT, 250),
    Setting(OVERLOAD_TORQUE, 25),
)


def leader_settings(joint: Joint) -> tuple[Setting, ...]:
    """What lerobot's SO leader class gives this joint."""
    del joint
    return COMMON_SETTINGS


def follower_settings(joint: Joint, gains: Gains) -> tuple[Setting, ...]:
    """What lerobot's SO follower class gives this joint."""
    body = (
        *COMMON_SETTINGS,
        Setting(P_GAIN, gains.p),
        Setting(I_GAIN, gains.i),
        Setting(D_GAIN, gains.d),
    )
    return (*body, *GRIPPER_SETTINGS) if joint.gripper else body

"""Control table of the STS3215 as rows: name, address, size, area, value when it leaves the works.

Addresses and sizes after the vendor's table as LeRobot uses it; defaults are those of a servo as
sold, some of them only known from dumps of single servos.
"""

from dataclasses import dataclass
from typing import Literal

TABLE_BYTES = 88
EEPROM_END = 40
"""Registers below live in EEPROM: a write lasts over a power cycle only when `Lock` was 0."""

STEPS_PER_TURN = 4096
STS3215_MODEL = 777

Access = Literal["read", "eeprom", "sram"]


@dataclass(frozen=True, slots=True)
class Register:
    """One register. size: 1 or 2 bytes, low byte first; sign_bit: -1 for unsigned values."""

    name: str
    address: int
    size: int
    access: Access
    default: int = 0
    sign_bit: int = -1

    def encode(self, value: int) -> bytes:
        """Bytes of `value`, sign-magnitude where the register has a sign."""
        if self.sign_bit >= 0:
            value = sign_magnitude(value, self.sign_bit)
        return value.to_bytes(self.size, "little")

    def decode(self, data: bytes | bytearray) -> int:
        """Value of this register's bytes."""
        value = int.from_bytes(data[: self.size], "little")
        return from_sign_magnitude(value, self.sign_bit) if self.sign_bit >= 0 else value


def sign_magnitude(value: int, sign_bit: int) -> int:
    """`value` as magnitude with a sign in bit `sign_bit`; ValueError when it does not fit."""
    magnitude = abs(value)
    if magnitude >> sign_bit:
        raise ValueError(f"expected a magnitude below {1 << sign_bit}, got {value}")
    return magnitude | ((value < 0) << sign_bit)


def from_sign_magnitude(word: int, sign_bit: int) -> int:
    """Inverse of `sign_magnitude`; bits above the sign are ignored."""
    magnitude = word & ((1 << sign_bit) - 1)
    return -magnitude if word >> sign_bit & 1 else magnitude


REGISTERS: tuple[Register, ...] = (
    Register("Firmware_Major_Version", 0, 1, "read", 3),
    Register("Firmware_Minor_Version", 1, 1, "read", 10),
    Register("Model_Number", 3, 2, "read", STS3215_MODEL),
    Register("ID", 5, 1, "eeprom", 1),
    Register("Baud_Rate", 6, 1, "eeprom", 0),
    Register("Return_Delay_Time", 7, 1, "eeprom", 0),
    Register("Response_Status_Level", 8, 1, "eeprom", 1),
    Register("Min_Position_Limit", 9, 2, "eeprom", 0, 15),
    Register("Max_Position_Limit", 11, 2, "eeprom", 4095, 15),
    Register("Max_Temperature_Limit", 13, 1, "eeprom", 70),
    Register("Max_Voltage_Limit", 14, 1, "eeprom", 140),
    Register("Min_Voltage_Limit", 15, 1, "eeprom", 40),
    Register("Max_Torque_Limit", 16, 2, "eeprom", 1000),
    Register("Phase", 18, 1, "eeprom", 12),
    Register("Unloading_Condition", 19, 1, "eeprom", 0x2C),
    Register("LED_Alarm_Condition", 20, 1, "eeprom", 0x2F),
    Register("P_Coefficient", 21, 1, "eeprom", 32),
    Register("D_Coefficient", 22, 1, "eeprom", 32),
    Register("I_Coefficient", 23, 1, "eeprom", 0),
    Register("Minimum_Startup_Force", 24, 2, "eeprom", 16),
    Register("CW_Dead_Zone", 26, 1, "eeprom", 1),
    Register("CCW_Dead_Zone", 27, 1, "eeprom", 1),
    Register("Protection_Current", 28, 2, "eeprom", 511),
    Register("Angular_Resolution", 30, 1, "eeprom", 1),
    Register("Homing_Offset", 31, 2, "eeprom", 0, 11),
    Register("Operating_Mode", 33, 1, "eeprom", 0),
    Register("Protective_Torque", 34, 1, "eeprom", 20),
    Register("Protection_Time", 35, 1, "eeprom", 200),
    Register("Overload_Torque", 36, 1, "eeprom", 80),
    Register("Velocity_P", 37, 1, "eeprom", 10),
    Register("Over_Current_Protection_Time", 38, 1, "eeprom", 200),
    Register("Velocity_I", 39, 1, "eeprom", 10),
    Register("Torque_Enable", 40, 1, "sram", 0),
    Register("Acceleration", 41, 1, "sram", 0),
    Register("Goal_Position", 42, 2, "sram", 0, 15),
    Register("Goal_Time", 44, 2, "sram", 0, 10),
    Register("Goal_Velocity", 46, 2, "sram", 0, 15),
    Register("Torque_Limit", 48, 2, "sram", 1000),
    Register("Lock", 55, 1, "sram", 1),
    Register("Present_Position", 56, 2, "read", 0, 15),
    Register("Present_Velocity", 58, 2, "read", 0, 15),
    Register("Present_Load", 60, 2, "read", 0, 10),
    Register("Present_Voltage", 62, 1, "read"),
    Register("Present_Temperature", 63, 1, "read"),
    Register("Status", 65, 1, "read"),
    Register("Moving", 66, 1, "read"),
    Register("Present_Current", 69, 2, "read"),
    Register("Goal_Position_2", 71, 2, "read", 0, 15),
    Register("Moving_Velocity_Threshold", 80, 1, "sram", 1),
    Register("DTs", 81, 1, "sram", 20),
    Register("Velocity_Unit_Factor", 82, 1, "sram", 1),
    Register("Hts", 83, 1, "sram", 0),
    Register("Maximum_Velocity_Limit", 84, 1, "sram", 0),
    Register("Maximum_Acceleration", 85, 1, "sram", 0),
    Register("Acceleration_Multiplier", 86, 1, "sram", 1),
)

BY_NAME: dict[str, Register] = {register.name: register for register in REGISTERS}
BY_ADDRESS: dict[int, Register] = {register.address: register for register in REGISTERS}

FEEDBACK_START = 56
FEEDBACK_END = 73
"""Addresses [start, end) are measured by the servo; a host's write there changes nothing."""

IDENTITY_END = 5

BAUD_BY_CODE: tuple[int, ...] = (
    1_000_000, 500_000, 250_000, 128_000, 115_200, 57_600, 38_400, 19_200,
)  # fmt: skip
"""Rate on the line by the value of `Baud_Rate`, as LeRobot has it."""


def writable(address: int) -> bool:
    """Whether a host's write to this address changes the servo."""
    return not (address < IDENTITY_END or FEEDBACK_START <= address < FEEDBACK_END)


def works_image() -> bytearray:
    """Whole table of a servo as sold (SRAM part as after power-up)."""
    image = bytearray(TABLE_BYTES)
    for register in REGISTERS:
        image[register.address : register.address + register.size] = register.encode(
            register.default
        )
    return image

"""Where the simulated arms were when: a file of the last seconds that other processes map.

One writer. A record that the writer is changing, or that is gone, is recognised by its number and
checksum and never believed. File layout (little endian): header of 4096 bytes with magic, version
u4, joints u4, records u4, record bytes u4, at 64 the count of records written u8, at 128 the length
u4 of a JSON list of joints and behind it that list; then the records: number u8 (from 1), t_ns i8,
mechanical angle in steps f8[joints], crc32 u4 of all before it, u4 zero.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recd.config.errors import DeviceError

MAGIC = b"RECDPOSE"
VERSION = 1
HEADER_BYTES = 4096
RECORDS = 1024
"""4.1 s at 250 Hz."""

_HEAD_AT = 64
_JSON_AT = 128
_AHEAD_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class PoseJoint:
    """One joint in the file. zero, unit: pose = (angle - zero) / unit; offset: of the servo.

    low, high: calibrated range in mechanical steps; reported steps are (angle - offset) mod 4096.
    """

    bus: str
    joint: str
    zero: float
    unit: float
    offset: int
    low: float
    high: float


def _record_struct(joints: int) -> struct.Struct:
    return struct.Struct(f"<Qq{joints}d")


class PoseWriter:
    """Creates the file and appends records to it."""

    def __init__(self, path: Path, joints: Sequence[PoseJoint], records: int = RECORDS) -> None:
        body = json.dumps([asdict(joint) for joint in joints]).encode()
        if _JSON_AT + 4 + len(body) > HEADER_BYTES:
            raise ValueError(f"expected joints that fit the header, got {len(joints)}")
        self._struct = _record_struct(len(joints))
        self._record_bytes = self._struct.size + 8
        self._records = records
        self._count = 0
        header = bytearray(HEADER_BYTES)
        sizes = (VERSION, len(joints), records, self._record_bytes)
        struct.pack_into("<8s4I", header, 0, MAGIC, *sizes)
        struct.pack_into("<I", header, _JSON_AT, len(body))
        header[_JSON_AT + 4 : _JSON_AT + 4 + len(body)] = body
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        with fresh.open("w+b") as file:
            file.write(header)
            file.truncate(HEADER_BYTES + records * self._record_bytes)
            self._map = mmap.mmap(file.fileno(), 0)
        fresh.replace(path)
        self._head = np.frombuffer(self._map, np.uint64, 1, _HEAD_AT)

    def publish(self, t_ns: int, angles: Sequence[float]) -> None:
        """Append the mechanical angles (steps) of all joints at `t_ns`; times must rise."""
        self._count += 1
        body = self._struct.pack(self._count, t_ns, *angles)
        at = HEADER_BYTES + (self._count - 1) % self._records * self._record_bytes
        self._map[at : at + self._record_bytes] = body + struct.pack("<II", zlib.crc32(body), 0)
        self._head[0] = self._count

    def close(self) -> None:
        del self._head
        self._map.close()


class PoseHistory:
    """Reads such a file, from any process. `joints` describes the columns."""

    def __init__(self, path: Path | str) -> None:
        try:
            with Path(path).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"{path}: expected the pose file of a running simulated robot, found: {error}",
                mend="Start the simulated robot first.",
            ) from error
        magic, version, joints, self._records, self._record_bytes = struct.unpack_from(
            "<8s4I", self._map
        )
        if magic != MAGIC or version != VERSION:
            raise DeviceError(
                f"{path}: expected a pose file of version {VERSION}, found {magic!r} {version}",
                mend="Use the same recd for the simulated robot and its cameras.",
            )
        (length,) = struct.unpack_from("<I", self._map, _JSON_AT)
        listed = json.loads(self._map[_JSON_AT + 4 : _JSON_AT + 4 + length])
        self.joints = tuple(PoseJoint(**fields) for fields in listed)
        self._struct = _record_struct(joints)
        self._zero = np.array([joint.zero for joint in self.joints])
        self._unit = np.array([joint.unit for joint in self.joints])
        self._offset = np.array([joint.offset for joint in self.joints])

    @property
    def count(self) -> int:
        """Records written so far."""
        (count,) = struct.unpack_from("<Q", self._map, _HEAD_AT)
        return int(count)

    def span_ns(self) -> tuple[int, int]:
        """Times (oldest, newest) that can be asked for. LookupError while there is none."""
        newest = self._newest()
        number = max(1, newest[0] - self._records + 16)
        oldest = self._record(number)
        return (oldest or newest)[1], newest[1]

    def at(self, t_ns: int) -> npt.NDArray[np.float64]:
        """Pose units of all joints at `t_ns` (radians from mid range, grippers 0..1)."""
        return (self.angles_at(t_ns) - self._zero) / self._unit

    def steps_at(self, t_ns: int) -> npt.NDArray[np.float64]:
        """Reported servo steps (before rounding) by the offsets that the arms were built with."""
        return (self.angles_at(t_ns) - self._offset) % 4096.0

    def angles_at(self, t_ns: int) -> npt.NDArray[np.float64]:
        """Mechanical angles (steps, unwrapped) at `t_ns`, between records by straight lines.

        Just after the newest record its movement is continued for up to 20 ms, then it stands.
        LookupError for times that the file no longer or not yet holds.
        """
        newest = self._newest()
        if t_ns >= newest[1]:
            before = self._record(newest[0] - 1)
            ahead_ns = min(t_ns - newest[1], _AHEAD_NS)
            return newest[2] if before is None else _between(before, newest, newest[1] + ahead_ns)
        low, high = max(1, newest[0] - self._records + 1), newest[0]
        while high - low > 1:
            middle = (low + high) // 2
            record = self._record(middle)
            if record is None or record[1] <= t_ns:
                low = middle
            else:
                high = middle
        before, after = self._record(low), self._record(high)
        if before is None or after is None or not before[1] <= t_ns <= after[1]:
            raise LookupError(f"no pose is kept for {t_ns} ns, {newest[1] - t_ns} ns ago")
        return _between(before, after, t_ns)

    def close(self) -> None:
        self._map.close()

    def _newest(self) -> tuple[int, int, npt.NDArray[np.float64]]:
        for _ in range(8):  # a reader stopped for seconds may find its newest overwritten
            record = self._record(self.count)
            if record is not None:
                return record
        raise LookupError("no pose has been published yet")

    def _record(self, number: int) -> tuple[int, int, npt.NDArray[np.float64]] | None:
        if number < 1:
            return None
        at = HEADER_BYTES + (number - 1) % self._records * self._record_bytes
        raw = self._map[at : at + self._record_bytes]
        body = raw[:-8]
        (crc,) = struct.unpack_from("<I", raw, len(body))
        found, t_ns, *angles = self._struct.unpack(body)
        if found != number or zlib.crc32(body) != crc:
            return None
        return found, t_ns, np.array(angles)


class ArmPose:
    """One arm of a history, as cameras ask for it: six angles in radians, gripper from shut."""

    def __init__(self, history: PoseHistory, bus: str) -> None:
        self._history = history
        self._columns = [at for at, joint in enumerate(history.joints) if joint.bus == bus]
        gripper = history.joints[self._columns[-1]]
        self._gripper_rad = (gripper.high - gripper.low) * 2.0 * np.pi / 4096.0

    def pose_at(self, t_ns: int) -> list[float]:
        """Angles at `t_ns` (CLOCK_MONOTONIC), pan to gripper; the oldest kept for older times."""
        pose = self._history.at(max(t_ns, self._history.span_ns()[0]))
        angles = [float(pose[at]) for at in self._columns]
        angles[-1] *= self._gripper_rad
        return angles


def _between(
    before: tuple[int, int, npt.NDArray[np.float64]],
    after: tuple[int, int, npt.NDArray[np.float64]],
    t_ns: int,
) -> npt.NDArray[np.float64]:
    share = (t_ns - before[1]) / (after[1] - before[1])
    return before[2] + (after[2] - before[2]) * share

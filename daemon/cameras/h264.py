"""H.264 as cameras send it: access units taken apart as far as recording them unchanged needs it.

Reads sequence parameter sets and the first words of slices; no picture is decoded. What a stream
holds that cannot be recorded as it comes is named with what was expected.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from recd.shm.clock import NS_PER_S

START_CODE = b"\x00\x00\x01"
SLICE, IDR, SPS, PPS = 1, 5, 7, 8
"""Kinds of NAL units that matter here: a slice, one of a key frame, parameter sets."""

MOST_KEY_APART_NS = 5 * NS_PER_S
"""Longest time between two key frames. What is lost or shifted costs up to the next one, and so
much is kept in memory."""

_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
"""Profiles whose parameter set says the chroma format; others have 4:2:0 in eight bits."""

_EXTENDED_SAR = 255
_HEAD_BYTES = 32
"""So many bytes of a slice hold its first words, whatever their values."""


class BrokenUnitError(ValueError):
    """Bytes that end before a value that must be there."""


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """What a sequence parameter set says. width, height: pixels shown, after cropping;
    frame_num_bits: of the running number in each slice; reordered: pictures that may be shown
    later than they are sent, -1 not said; full_range: luma 0..255."""

    set_id: int
    profile: int
    chroma: int
    bits: int
    frame_num_bits: int
    gaps_allowed: bool
    frames_only: bool
    width: int
    height: int
    reordered: int = -1
    full_range: bool = False
    separate_planes: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a stream cannot be recorded as it comes."""

    expected: str
    found: str
    mend: str


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """One access unit. key: needs no other picture; fault: why it cannot be decoded, else empty."""

    key: bool = False
    fault: str = ""


def nal_units(unit: bytes) -> Iterator[bytes]:
    """NAL units of an Annex B access unit, without start codes and the zeros between them."""
    at = unit.find(START_CODE)
    while at >= 0:
        end = unit.find(START_CODE, at + 3)
        nal = unit[at + 3 : end if end >= 0 else len(unit)].rstrip(b"\x00")
        if nal:
            yield nal
        at = end


def kind_of(nal: bytes) -> int:
    """Kind of a NAL unit: SLICE, IDR, SPS, PPS or another."""
    return nal[0] & 0x1F


def parameter_sets(unit: bytes) -> bytes:
    """The parameter sets in an access unit, Annex B; empty when it has no sequence set."""
    found = [nal for nal in nal_units(unit) if kind_of(nal) in (SPS, PPS)]
    if not any(kind_of(nal) == SPS for nal in found):
        return b""
    return b"".join(b"\x00" + START_CODE + nal for nal in found)


def with_parameter_sets(unit: bytes, sets: bytes) -> bytes:
    """`unit`, with `sets` (Annex B) before it when it is a key frame without any of its own."""
    kinds = {kind_of(nal) for nal in nal_units(unit)} if sets else set()
    return sets + unit if IDR in kinds and SPS not in kinds else unit


class _Bits:
    """Reads a NAL unit bit by bit. BrokenUnitError past its end."""

    def __init__(self, nal: bytes) -> None:
        raw = nal[1:].replace(b"\x00\x00\x03", b"\x00\x00")
        self._value, self._left = int.from_bytes(raw), len(raw) * 8

    def take(self, count: int) -> int:
        """`count` bits, the first one highest."""
        self._left -= count
        if self._left < 0:
            raise BrokenUnitError("ends too early")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        return self.take(1) == 1

    def number(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise BrokenUnitError("a number longer than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """A signed Exp-Golomb number."""
        code = self.number()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def parse_sps(nal: bytes) -> SequenceSet:
    """A sequence parameter set (without start code). BrokenUnitError when it is cut off."""
    bits = _Bits(nal)
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    set_id = bits.number()
    chroma, depth, separate = 1, 8, False
    if profile in _WITH_CHROMA:
        chroma = bits.number()
        separate = chroma == 3 and bits.flag()
        depth = 8 + max(bits.number(), bits.number())
        bits.flag()
        if bits.flag():
            _skip_scaling(bits, lists=8 if chroma != 3 else 12)
    frame_num_bits = bits.number() + 4
    _skip_order(bits)
    bits.number()  # reference frames
    gaps_allowed = bits.flag()
    columns, rows = bits.number() + 1, bits.number() + 1
    frames_only = bits.flag()
    if not frames_only:
        bits.flag()
    bits.flag()  # direct 8x8
    left = right = top = bottom = 0
    if bits.flag():
        left, right, top, bottom = (bits.number() for _ in range(4))
    unit_x, unit_y = (2 if chroma in (1, 2) else 1), (2 if chroma == 1 else 1)
    fields = 1 if frames_only else 2
    full_range, reordered = _usability(bits) if bits.flag() else (False, -1)
    return SequenceSet(
        set_id, profile, chroma, depth, frame_num_bits, gaps_allowed, frames_only,
        width=columns * 16 - unit_x * (left + right),
        height=(rows * 16 - unit_y * (top + bottom)) * fields,
        reordered=reordered, full_range=full_range, separate_planes=separate,
    )  # fmt: skip


def _skip_scaling(bits: _Bits, *, lists: int) -> None:
    for number in range(lists):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if number < 6 else 64):
            if following:
                following = (last + bits.signed()) % 256
            last = following or last


def _skip_order(bits: _Bits) -> None:
    match bits.number():
        case 0:
            bits.number()
        case 1:
            bits.flag()
            bits.signed()
            bits.signed()
            for _ in range(bits.number()):
                bits.signed()
        case _:
            pass


def _usability(bits: _Bits) -> tuple[bool, int]:
    """(full range, pictures reordered or -1) of the usability part of a parameter set."""
    full_range = False
    if bits.flag() and bits.take(8) == _EXTENDED_SAR:
        bits.take(32)
    if bits.flag():  # overscan
        bits.flag()
    if bits.flag():  # video signal
        bits.take(3)
        full_range = bits.flag()
        if bits.flag():
            bits.take(24)
    if bits.flag():  # chroma place
        bits.number()
        bits.number()
    if bits.flag():  # timing
        bits.take(65)
    if _skip_buffers(bits):
        bits.flag()  # low delay
    bits.flag()
    if not bits.flag():
        return full_range, -1
    bits.flag()
    for _ in range(4):
        bits.number()
    return full_range, bits.number()


def _skip_buffers(bits: _Bits) -> bool:
    """Pass over the descriptions of up to two buffers; True when there was one."""
    described = False
    for _ in range(2):
        if not bits.flag():
            continue
        described = True
        count = bits.number() + 1
        bits.take(8)
        for _ in range(count):
            bits.number()
            bits.number()
            bits.flag()
        bits.take(20)
    return described


class UnitJudge:
    """Follows the access units of one stream in order: which can be decoded, what does not fit.

    sequence: the parameter set in force; unfit: what forbids recording this stream as it comes.
    """

    def __init__(self) -> None:
        self.sequence: SequenceSet | None = None
        self.unfit: Unfit | None = None
        self._expected = -1
        self._key_ns = 0

    def examine(
        self, unit: bytes, *, t_capture_ns: int, lost: bool = False, damaged: bool = False
    ) -> UnitFacts:
        """Judge the next unit. lost: units before it did not come; damaged: it is not whole."""
        self._key_ns = self._key_ns or t_capture_ns
        if lost:
            self._expected = -1
        try:
            facts = self._examine(unit)
            if damaged:
                facts = replace(facts, fault="the device marked it as damaged")
        except BrokenUnitError as error:
            facts = UnitFacts(fault=f"access unit {error}")
        if facts.fault:
            self._expected = -1
        if facts.key and not facts.fault:
            self._key_ns = t_capture_ns
        elif t_capture_ns - self._key_ns > MOST_KEY_APART_NS:
            self.unfit = self.unfit or Unfit(
                f"a key frame (IDR) at least every {MOST_KEY_APART_NS // NS_PER_S} s",
                f"none for {(t_capture_ns - self._key_ns) / NS_PER_S:.1f} s",
                "Set the camera's key frame (I-frame, GOP) interval to one second.",
            )
        return facts

    def _examine(self, unit: bytes) -> UnitFacts:
        first, told = None, False
        for nal in nal_units(unit):
            if kind_of(nal) == SPS:
                self.sequence, told = parse_sps(nal), True
                self.unfit = self.unfit or _unfit_sequence(self.sequence)
            elif kind_of(nal) in (SLICE, IDR):
                first = nal
                break
        if first is None:
            return UnitFacts(fault="no picture in the access unit")
        key = kind_of(first) == IDR
        if self.sequence is None:
            return UnitFacts(key, "no sequence parameter set has come yet")
        if key and not told:
            self.unfit = self.unfit or Unfit(
                "parameter sets with every key frame", "a key frame without them",
                "Switch it on in the camera (V4L2: control repeat_sequence_header).",
            )  # fmt: skip
        place, kind, number = _slice_head(first, self.sequence)
        if place:
            self.unfit = self.unfit or Unfit(
                "one whole picture in each packet", f"one that begins at macroblock {place}",
                "Switch off slices in the camera, or use its RTSP address.",
            )  # fmt: skip
        if kind == _B_SLICE:
            self.unfit = self.unfit or Unfit(
                "pictures in the order in which they are shown", "B-frames",
                "Switch B-frames off in the camera, or choose its baseline profile.",
            )  # fmt: skip
        if key:
            self._expected = self._following(first, number)
            return UnitFacts(True)
        if self._expected < 0:
            return UnitFacts(fault="the pictures that it builds on are lost")
        if number != self._expected and not self.sequence.gaps_allowed:
            return UnitFacts(fault=f"picture {self._expected} is lost, this is {number}")
        self._expected = self._following(first, number)
        return UnitFacts()

    def _following(self, nal: bytes, number: int) -> int:
        """Number that the next picture has: a picture that others build on counts, others do not"""
        assert self.sequence is not None
        referred = nal[0] >> 5 & 3 > 0
        return (number + referred) % (1 << self.sequence.frame_num_bits)


_B_SLICE = 1


def _slice_head(nal: bytes, sequence: SequenceSet) -> tuple[int, int, int]:
    """(first macroblock; kind of slice, 0 P, 1 B, 2 I; frame number)."""
    bits = _Bits(nal[:_HEAD_BYTES])
    place = bits.number()
    kind = bits.number() % 5
    bits.number()  # picture parameter set
    if sequence.separate_planes:
        bits.take(2)
    return place, kind, bits.take(sequence.frame_num_bits)


def _unfit_sequence(sequence: SequenceSet) -> Unfit | None:
    if (sequence.chroma, sequence.bits) != (1, 8):
        names = {0: "grey", 1: "4:2:0", 2: "4:2:2", 3: "4:4:4"}
        found = f"{names.get(sequence.chroma, '?')} in {sequence.bits} bits"
        return Unfit("4:2:0 in 8 bits", found, "Choose the baseline, main or high profile.")
    if not sequence.frames_only:
        return Unfit("whole frames", "an interlaced stream", "Set the camera to progressive.")
    if sequence.reordered > 0:
        return Unfit(
            "pictures in the order in which they are shown",
            f"{sequence.reordered} reordered (B-frames)",
            "Switch B-frames off in the camera, or choose its baseline profile.",
        )
    return None

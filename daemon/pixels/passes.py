"""Passes over the bytes of a picture as plain arithmetic on words; compiled by kernels.py.

A word holds eight bytes, split into four lanes of 16 bits: `byte * factor + offset` stays in its
lane, for it is below 65,536. Widths and lines are whole words; whose are not go another way.
"""

from typing import Any

KERNELS = "recd.daemon.pixels.kernels"
"""Module whose table `recd.shm.aot.load` compiles."""

LANES = 0x00FF00FF00FF00FF
_ONES = 0x0001000100010001
_HIGH = -0x00FF00FF00FF0100  # the other byte of each lane, as int64
_PAIRS = 0x0000FFFF0000FFFF
_WORD = 0xFFFFFFFF

WORD_BYTES = 8


def lanes(number: int) -> int:
    """`number` (0..65535) in each of the four lanes, as int64."""
    whole = number * _ONES
    return whole - (1 << 64) if whole >> 63 else whole


def scale_bytes(
    source: Any, source_words: int, target: Any, target_words: int,
    words: int, rows: int, factor: int, offset: int,
) -> None:  # fmt: skip
    """(byte * factor + offset) >> 8 of every byte of a plane.

    source, target: int64 words; *_words: from line to line; words: of a line; offset: `lanes`.
    """
    for row in range(rows):
        read, write = row * source_words, row * target_words
        for at in range(words):
            word = source[read + at]
            low = (((word & LANES) * factor + offset) >> 8) & LANES
            high = (((word >> 8) & LANES) * factor + offset) & _HIGH
            target[write + at] = low | high


def split_yuyv(
    source: Any, source_words: int, luma: Any, luma_words: int,
    blue: Any, red: Any, chroma_halves: int, width: int, height: int,
    luma_factor: int, luma_offset: int, chroma_factor: int, chroma_offset: int,
) -> None:  # fmt: skip
    """Packed 4:2:2 (Y U Y V) to planes of 4:2:0: chroma of two lines is their rounded mean.

    source, luma: int64 words; blue, red: int32 half words; width: a multiple of 8, height: of 2.
    Each sample becomes (value * factor + offset) >> 8; factor 256 and offset 0 leave it.
    """
    for pair in range(height // 2):
        upper = 2 * pair * source_words
        lower = upper + source_words
        above, below = 2 * pair * luma_words, (2 * pair + 1) * luma_words
        chroma = pair * chroma_halves
        for at in range(width // 8):
            p, q = source[upper + 2 * at], source[upper + 2 * at + 1]
            r, s = source[lower + 2 * at], source[lower + 2 * at + 1]
            luma[above + at] = eight_lumas(p, q, luma_factor, luma_offset)
            luma[below + at] = eight_lumas(r, s, luma_factor, luma_offset)
            one = mean_chroma(p, r, chroma_factor, chroma_offset)
            two = mean_chroma(q, s, chroma_factor, chroma_offset)
            # Lanes are U V U V: the low byte of every other one, two of each word.
            blue[chroma + at] = (
                (one & 0xFF) | ((one >> 24) & 0xFF00)
                | ((two & 0xFF) << 16) | ((two << 8 >> 16) & 0xFF000000)
            )  # fmt: skip
            red[chroma + at] = (
                ((one >> 16) & 0xFF) | ((one >> 40) & 0xFF00)
                | (two & 0xFF0000) | ((two >> 24) & 0xFF000000)
            )  # fmt: skip


def eight_lumas(first: int, second: int, factor: int, offset: int) -> int:
    """Even bytes of two words, scaled, as one word."""
    return four_bytes(first, factor, offset) | (four_bytes(second, factor, offset) << 32)


def four_bytes(word: int, factor: int, offset: int) -> int:
    """Even bytes of a word, scaled, side by side."""
    lanes_ = (((word & LANES) * factor + offset) >> 8) & LANES
    pairs = (lanes_ | (lanes_ >> 8)) & _PAIRS
    return (pairs | (pairs >> 16)) & _WORD


def mean_chroma(upper: int, lower: int, factor: int, offset: int) -> int:
    """Odd bytes of two words: the mean of both, scaled, one in each lane."""
    mean = ((((upper >> 8) & LANES) + ((lower >> 8) & LANES) + _ONES) >> 1) & LANES
    return ((mean * factor + offset) >> 8) & LANES

"""First, middle and last picture of an episode as JPEGs a person can look at.

The middle is unknown while recording: a few pictures are kept, thinned as the episode grows. As
JPEGs: kept pictures would scatter half-megabyte holes over the heap. And small ones: the last is
made while an operator waits for `stop`.
"""

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from recd.daemon.encode.colour import FULL

LONGEST_SIDE = 320
"""Pixels of the longer side; smaller pictures stay as they are. [640x480: 2.1 ms of CPU whole.]"""

_KEPT = 8
_RECENT = 4  # rows that may have been encoded beyond the end that a stop then sets


class Thumbnails:
    """Of one episode. Holds its newest pictures and about eight JPEGs."""

    def __init__(self) -> None:
        self._every = 1
        self._kept: list[tuple[int, bytes]] = []
        self._recent: deque[tuple[int, Any]] = deque(maxlen=_RECENT)

    def add(self, frame: Any, k: int) -> bool:
        """Remember the picture of row k; False: no JPEG was made of it."""
        self._recent.append((k, frame))
        if k % self._every:
            return False
        self._kept.append((k, jpeg(frame)))
        if len(self._kept) > _KEPT:
            self._every *= 2
            self._kept = self._kept[::2]
        return True

    def choose(self, rows: int) -> dict[str, bytes]:
        """{"first", "middle", "last"} -> JPEG, for an episode of `rows`; empty without any."""
        kept = [item for item in self._kept if item[0] < rows]
        if not kept:
            return {}
        middle = min(kept, key=lambda item: abs(item[0] - rows // 2))
        last = [frame for k, frame in self._recent if k < rows]
        return {
            "first": kept[0][1],
            "middle": middle[1],
            "last": jpeg(last[-1]) if last else kept[-1][1],
        }


def write_thumbnails(chosen: Mapping[str, bytes], folder: Path, *, camera: str) -> list[Path]:
    """Write `<camera>_<first|middle|last>.jpg` into `folder` (created). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in chosen.items():
        path = folder / f"{camera}_{name}.jpg"
        path.write_bytes(data)
        paths.append(path)
    return paths


def jpeg(frame: Any, *, quality: int = 4) -> bytes:
    """A dataset picture as JPEG of at most LONGEST_SIDE (full range, as JPEG is). quality: 2 best
    .. 31 worst."""
    share = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * share / 2) * 2) for side in (frame.width, frame.height))
    full = frame.reformat(width, height, format="yuvj420p", dst_color_range=FULL)
    full.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = full.width, full.height
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 30)
    encoder.qmin = encoder.qmax = quality
    encoder.thread_count = 1
    packets = [*encoder.encode(full), *encoder.encode(None)]
    return bytes(packets[0])

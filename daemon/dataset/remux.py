"""Copy video packets into a new mp4 without decoding: cut to length, join, or just made plain.

Every picture keeps its exact place k / fps. Needs PyAV, imported on first use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

MIN_FRAGMENTED = 3
"""FFmpeg guesses a wrong rate from a fragmented file of one or two pictures (60 or 15360 for 30),
and lerobot then refuses to join it: such files are made plain."""


@dataclass(frozen=True, slots=True)
class Clip:
    """`pictures` pictures of the mp4 `path` from picture `first` on, which is a key frame."""

    path: Path
    pictures: int
    first: int = 0


def _packets(container: Any, stream: Any, clip: Clip) -> Iterator[Any]:
    """In the order they are stored; episodes that were joined lie behind each other there."""
    for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
        if number == clip.first + clip.pictures:
            return
        if number == clip.first and not packet.is_keyframe:
            raise ValueError(f"picture {number} of {clip.path.name} is no key frame")
        if number >= clip.first:
            yield packet


def join(clips: Sequence[Clip], target: Path, *, fps: int, delay_frames: int = 0) -> int:
    """Write `clips` one after the other into a plain mp4 with its index in front.

    delay_frames: more pictures between decoding and showing than the clips have (see `delay`).

    Returns the number of pictures; ValueError when a clip is shorter than asked. The clips must
    share their decoder configuration and time base, lie exactly on the grid of 1 / fps, and one
    that is cut must store its pictures in the order they are shown.
    """
    import av

    written = 0
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        stream: Any = None
        for clip in clips:
            with av.open(str(clip.path)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(video, opaque=True)
                    stream.time_base = video.time_base
                frame = Fraction(1, fps) / stream.time_base
                start, early = round((written - clip.first) * frame), round(delay_frames * frame)
                before = written
                for packet in _packets(source, video, clip):
                    packet.stream = stream
                    packet.pts += start
                    packet.dts += start - early
                    output.mux(packet)
                    written += 1
                if written - before != clip.pictures:
                    raise ValueError(
                        f"{clip.path.name}: {written - before} pictures, expected {clip.pictures}"
                    )
    return written


def make_plain(path: Path, *, fps: int, pictures: int) -> None:
    """Replace a fragmented mp4 by a plain one of its first `pictures` pictures, not synced."""
    temporary = path.with_name(path.name + ".plain")
    join([Clip(path, pictures)], temporary, fps=fps)
    temporary.replace(path)

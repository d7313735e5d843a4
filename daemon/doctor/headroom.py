"""What encoding costs against what the computer has, from pictures that were really encoded. Pure.

Measured with all cameras at once, so that what cores share is in the figures. The rest of recd is
not: arms, cameras and writer need the spare.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from recd.daemon.doctor.facts import Codec, Stream
from recd.daemon.doctor.findings import Finding, Level

LITTLE: Final = 0.25
"""Less spare than this is told: the rest of recd takes a sixth of two cores [0.33 cores with two
cameras and one pair at 250 Hz, perf/results], and stutters before nothing is left."""


def load_of(codec: Codec) -> float:
    """Share of what the computer has that the streams take; above 1 it does not carry them.

    One encoder is one process of mostly one thread: no camera may take more than a core. The work
    of hardware does not show in the cores' time; there the time that passed counts.
    """
    if codec.hardware:
        return max((stream.wall_ms * stream.fps / 1000 for stream in codec.streams), default=0.0)
    each = [stream.cpu_ms * stream.fps / 1000 for stream in codec.streams]
    return max(sum(each) / codec.cores, max(each, default=0.0))


def load_now(codec: Codec) -> float:
    """The same by the time that passed: what other programs left while it was measured."""
    return max((stream.wall_ms * stream.fps / 1000 for stream in codec.streams), default=0.0)


def works(codec: Codec) -> bool:
    """True when no stream was refused."""
    return not any(stream.refused for stream in codec.streams)


def file_bytes_per_s(codecs: Sequence[Codec]) -> float:
    """What the files of all cameras grow by, with the codec that is used (the first); 0 unknown."""
    if not codecs or not works(codecs[0]):
        return 0.0
    return sum(stream.nbytes * stream.fps for stream in codecs[0].streams)


def cameras_in_words(streams: Sequence[Stream]) -> str:
    """`2 cameras at 640x480@30, 1 camera at 320x240@60`."""
    counted = Counter(f"{s.width}x{s.height}@{s.fps:g}" for s in streams)
    return ", ".join(
        f"{count} camera{'s' if count > 1 else ''} at {size}" for size, count in counted.items()
    )


def codec_findings(codecs: Sequence[Codec]) -> Iterator[Finding]:
    """The codec that is used against the computer; the others are offers for its mend."""
    if not codecs:
        yield Finding("codec", "cameras", Level.OK, "nothing to encode")
        return
    used, others = codecs[0], codecs[1:]
    if not works(used):
        reason = next(stream.refused for stream in used.streams if stream.refused)
        yield Finding("codec", used.name, Level.FAIL, reason, "a codec that works here",
                      "Set dataset.encoder.vcodec: auto (or h264).")  # fmt: skip
        return
    yield _carried(used, others)
    load = load_of(used)
    if not used.hardware and load < 1 - LITTLE and load_now(used) > 1:
        yield Finding("codec", used.name, Level.WARN, "other programs used the cores meanwhile: "
                      "measured in the time that passed, the cameras were not carried",
                      "a computer that does nothing else", "See top; measure again.")  # fmt: skip


def _carried(used: Codec, others: Sequence[Codec]) -> Finding:
    load = load_of(used)
    cameras = cameras_in_words(used.streams)
    if load >= 1:
        return Finding(
            "codec", used.name, Level.FAIL,
            f"{cameras} take {load:.0%} of what this computer has (measured)", "less than 100 %",
            _offers(used, others),
        )  # fmt: skip
    found = f"carries {cameras}, {1 - load:.0%} to spare (measured)"
    if 1 - load >= LITTLE:
        return Finding("codec", used.name, Level.OK, found)
    return Finding("codec", used.name, Level.WARN, found,
                   f"{LITTLE:.0%} to spare: arms, cameras and writer need it",
                   _offers(used, others))  # fmt: skip


def _offers(used: Codec, others: Sequence[Codec]) -> str:
    better = [codec for codec in others if works(codec) and load_of(codec) < load_of(used)]
    offers = [f"{codec.name} leaves {max(0.0, 1 - load_of(codec)):.0%}" for codec in better]
    measured = f" Measured: {', '.join(offers)}." if offers else ""
    return f"Fewer or smaller cameras, or a faster preset (dataset.encoder).{measured}"

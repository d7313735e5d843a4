"""What this computer can carry, before anybody buys cameras: floors per codec, cameras per size.

Each figure is measured with as many cameras at once as are claimed, by the doctor's own measurement
(daemon/doctor/clip.py): unpacking, converting, counting, encoding into a file. Limit: USB, real
camera drivers and other programs are not in it; a quarter is left for the rest of recd.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recd.daemon.doctor.clip import Request
from recd.daemon.doctor.clip import measure as measure_clip
from recd.daemon.doctor.facts import Codec
from recd.daemon.doctor.headroom import LITTLE, load_of, works
from recd.daemon.encode.codecs import CodecSettings
from recd.perf.report import table

MOST_CAMERAS = 16

Measure = Callable[[CodecSettings, Sequence[Request], Path], Codec]


@dataclass(frozen=True, slots=True)
class Carried:
    """One codec at one size. cpu_ms: per picture; cameras: carried with a quarter to spare; load:
    measured with that many (with one where none is carried); mb_per_s: of one camera's file;
    refused: why it does not work here."""

    codec: str
    payload: str
    width: int
    height: int
    fps: float
    cpu_ms: float = 0.0
    cameras: int = 0
    load: float = 0.0
    mb_per_s: float = 0.0
    refused: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def carried(
    settings: CodecSettings, one: Request, folder: Path, measure: Measure = measure_clip
) -> Carried:
    """How many cameras like `one` this computer carries with `settings`.

    Estimated from one camera, then measured with that many at once, and fewer until it fits.
    """
    alone = measure(settings, [one], folder)
    blank = Carried(alone.name, one.payload, one.width, one.height, one.fps)
    if not works(alone):
        return _of(blank, alone, 0)
    cameras = min(MOST_CAMERAS, estimate(alone))
    told = alone
    while cameras > 1:
        told = measure(settings, requests(one, cameras), folder)
        if works(told) and load_of(told) <= 1 - LITTLE:
            return _of(blank, told, cameras)
        cameras = min(cameras - 1, fitting(told, cameras))
    return _of(blank, alone, 1 if load_of(alone) <= 1 - LITTLE else 0)


def estimate(alone: Codec) -> int:
    """Cameras that would fit if each cost what the first one did alone."""
    (stream,) = alone.streams
    each = max(1e-6, stream.cpu_ms * stream.fps / 1000)
    if alone.hardware:
        return max(1, math.floor((1 - LITTLE) / max(1e-6, load_of(alone))))
    return max(1, math.floor((1 - LITTLE) * alone.cores / each))


def fitting(told: Codec, cameras: int) -> int:
    """Cameras that fit by what `cameras` of them took together; at least 1."""
    load = load_of(told)
    return max(1, math.floor(cameras * (1 - LITTLE) / load)) if load > 0 else 1


def requests(one: Request, cameras: int) -> list[Request]:
    """The same camera so many times."""
    return [
        Request(f"camera{number}", one.payload, one.width, one.height, one.fps)
        for number in range(1, cameras + 1)
    ]


def _of(blank: Carried, told: Codec, cameras: int) -> Carried:
    refused = next((stream.refused for stream in told.streams if stream.refused), "")
    streams = told.streams
    fields = {
        **asdict(blank),
        "cpu_ms": sum(stream.cpu_ms for stream in streams) / len(streams),
        "cameras": cameras,
        "load": load_of(told),
        "mb_per_s": max(stream.nbytes * stream.fps for stream in streams) / 1e6,
        "refused": refused,
    }
    return Carried(**fields)


def survey(
    codecs: Sequence[CodecSettings], cameras: Sequence[Request], folder: Path,
    measure: Measure = measure_clip,
) -> Iterator[Carried]:  # fmt: skip
    """Every codec with every kind of camera."""
    for one in cameras:
        for settings in codecs:
            yield carried(settings, one, folder, measure)


def show(rows: Sequence[Carried], console: Console) -> None:
    """The table, best codec first per camera kind as measured."""
    made = table(
        f"cameras that this computer carries, {LITTLE:.0%} left for arms, writer and others",
        "camera", "codec", "CPU a picture, ms", "carries", "load then", "MB/s each",
    )  # fmt: skip
    for row in rows:
        camera = f"{row.width}x{row.height}@{row.fps:g} {row.payload}"
        if row.refused:
            made.add_row(camera, row.codec, "-", "0", "-", row.refused)
            continue
        made.add_row(
            camera, row.codec, f"{row.cpu_ms:.2f}", f"[bold]{row.cameras}[/]",
            f"{row.load:.0%}", f"{row.mb_per_s:.2f}",
        )  # fmt: skip
    console.print(made)

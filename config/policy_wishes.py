"""What a client may wish of an observation beyond the newest frames: their form, and older ones.

Everything is checked, and bounded by what it would allocate, before anything is looked at. A client
that wishes nothing sends nothing of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from recd.config.messages import MessageError
from recd.config.policy_wire import MOST_PARTS

EDGE_PIXELS: Final = (16, 4096)
PIXEL_BYTES_MOST: Final = 64 * 1024 * 1024
"""Of all pictures of one observation that have to be decoded, as RGB."""

STATE: Final = "state"
"""Name of the joints among the streams that have a history."""

BUFFERS_BESIDE: Final = 8
"""Buffers of an observation that are not pictures, at most."""


class Encoding(StrEnum):
    """How a picture travels."""

    CAMERA = "camera"  # as it came from the camera, untouched
    JPEG = "jpeg"  # untouched where nothing has to change, else encoded anew
    RGB = "rgb8"  # uint8 [H, W, 3]


class Fit(StrEnum):
    """How a picture is brought into another shape."""

    PAD = "pad"  # its own shape kept, centred on black
    STRETCH = "stretch"


@dataclass(frozen=True, slots=True)
class PictureWish:
    """The form of one camera's pictures. width, height: pixels, 0: as the camera's; fit: where the
    shapes differ; quality: of a JPEG that is encoded anew, 1..100. Other forms than `camera` are
    turned as the dataset's pictures are (`cameras.<name>.rotation`).
    """

    encoding: Encoding = Encoding.CAMERA
    width: int = 0
    height: int = 0
    fit: Fit = Fit.PAD
    quality: int = 90

    def told(self) -> dict[str, Any]:
        """As it stands in a message `get`."""
        told: dict[str, Any] = {"enc": str(self.encoding)}
        if self.width:
            told |= {"size": [self.width, self.height], "fit": str(self.fit)}
        if self.encoding is Encoding.JPEG:
            told["quality"] = self.quality
        return told


AS_IT_CAME: Final = PictureWish()


@dataclass(frozen=True, slots=True)
class Back:
    """One place in the past. offset: as the client wrote it, below 0; in_rows: of the dataset, else
    nanoseconds; ns: the same in nanoseconds, below 0.
    """

    offset: int
    in_rows: bool
    ns: int

    def name(self, stream: str) -> str:
        """Of its buffer: `front@-3`, `front@-100000000ns`."""
        return f"{stream}@{self.offset}{'' if self.in_rows else 'ns'}"


@dataclass(frozen=True, slots=True)
class Source:
    """What a robot has of one stream. width, height: of its pictures as the dataset has them, 0 for
    joints; reach_ns: how far back its ring surely holds it.
    """

    reach_ns: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Wishes:
    """Of one request. pictures: camera -> form, those without a row as they came; history: stream
    -> places in the past, in the order of the request; telemetry: loads, temperatures, voltages;
    prefix: what the arms will be told if no chunk comes.
    """

    pictures: Mapping[str, PictureWish] = field(default_factory=dict)
    history: Mapping[str, tuple[Back, ...]] = field(default_factory=dict)
    telemetry: bool = False
    prefix: bool = False


NOTHING: Final = Wishes()
WISHES: Final = ("pictures", "history", "history_ns", "telemetry", "prefix")
"""Fields of `get` that are wishes."""


def read_wishes(
    header: Mapping[str, Any], cameras: Sequence[str], sources: Mapping[str, Source], *, row_ns: int
) -> Wishes:
    """The wishes in a message `get`. cameras: those of the request; sources: stream -> what the
    robot has of it; row_ns: time between two rows of the dataset. MessageError with what was
    expected, found, and what helps.
    """
    if not any(name in header for name in WISHES):
        return NOTHING
    pictures = {
        camera: _picture(told, f"pictures.{camera}")
        for camera, told in _map(header, "pictures", cameras).items()
    }
    history: dict[str, tuple[Back, ...]] = {}
    streams = [*cameras, STATE]
    for name, unit_ns in (("history", row_ns), ("history_ns", 1)):
        for stream, told in _map(header, name, streams).items():
            found = _places(told, f"{name}.{stream}", unit_ns, sources[stream].reach_ns)
            history[stream] = history.get(stream, ()) + found
    wishes = Wishes(pictures, history, _yes(header, "telemetry"), _yes(header, "prefix"))
    _check_amount(wishes, cameras, sources)
    return wishes


def _yes(header: Mapping[str, Any], name: str) -> bool:
    told = header.get(name, False)
    if type(told) is not bool:
        raise MessageError(f"{name}: expected true or false, found {_said(told)}")
    return told


def _map(header: Mapping[str, Any], name: str, streams: Sequence[str]) -> Mapping[str, Any]:
    told = header.get(name, {})
    if not isinstance(told, dict):
        raise MessageError(f"{name}: expected a map of streams, found {_said(told)}")
    for stream in told:
        if stream not in streams:
            raise MessageError(
                f"{name}: expected streams of this request ({', '.join(streams)}), found "
                f"{_said(stream)}", mend="`describe` names cameras; `cameras` chooses among them.",
            )  # fmt: skip
    return told


def _picture(told: Any, where: str) -> PictureWish:
    if not isinstance(told, dict):
        raise MessageError(f"{where}: expected a map {{enc, size, fit, quality}}, found "
                           f"{_said(told)}")  # fmt: skip
    for key in told:
        if key not in ("enc", "size", "fit", "quality"):
            raise MessageError(f"{where}: expected enc, size, fit or quality, found {_said(key)}")
    encoding = told.get("enc", "camera")
    if encoding not in list(Encoding):
        raise MessageError(f"{where}.enc: expected one of {', '.join(Encoding)}, found "
                           f"{_said(encoding)}")  # fmt: skip
    fit = told.get("fit", "pad")
    if fit not in list(Fit):
        raise MessageError(f"{where}.fit: expected one of {', '.join(Fit)}, found {_said(fit)}")
    quality = told.get("quality", 90)
    if type(quality) is not int or not 1 <= quality <= 100:
        raise MessageError(f"{where}.quality: expected 1..100, found {_said(quality)}")
    width, height = _size(told.get("size"), where)
    if width and encoding == Encoding.CAMERA:
        raise MessageError(
            f"{where}: expected no size with enc camera, found {[width, height]}",
            mend="Scaled pictures travel as jpeg or rgb8.",
        )
    return PictureWish(Encoding(encoding), width, height, Fit(fit), quality)


def _size(told: Any, where: str) -> tuple[int, int]:
    if told is None:
        return 0, 0
    least, most = EDGE_PIXELS
    if (
        not isinstance(told, list)
        or len(told) != 2
        or not all(type(edge) is int and least <= edge <= most for edge in told)
    ):
        raise MessageError(f"{where}.size: expected [width, height] of {least}..{most} pixels, "
                           f"found {_said(told)}")  # fmt: skip
    return told[0], told[1]


def _places(told: Any, where: str, unit_ns: int, reach_ns: int) -> tuple[Back, ...]:
    if (
        not isinstance(told, list)
        or not all(type(at) is int and -(2**62) < at < 0 for at in told)
        or len(set(told)) != len(told)
    ):
        raise MessageError(
            f"{where}: expected different whole numbers below 0, found {_said(told)}",
            mend="The present comes in any case.",
        )
    farthest = min(told, default=0)
    if -farthest * unit_ns > reach_ns:
        raise MessageError(
            f"{where}: expected at most {reach_ns / 1e9:.2f} s back, which is what its ring holds, "
            f"found {-farthest * unit_ns / 1e9:.2f} s",
            mend="Cameras: cameras.<name>.ring_seconds makes the ring longer.",
        )
    return tuple(Back(at, unit_ns != 1, at * unit_ns) for at in told)


def _check_amount(
    wishes: Wishes, cameras: Sequence[str], sources: Mapping[str, Source]
) -> None:  # fmt: skip
    """Bounds on what an answer may be made of. MessageError."""
    buffers = BUFFERS_BESIDE + len(wishes.history.get(STATE, ()))
    pixel_bytes = 0
    for camera in cameras:
        count = 1 + len(wishes.history.get(camera, ()))
        buffers += count
        wish, source = wishes.pictures.get(camera, AS_IT_CAME), sources[camera]
        if wish.encoding is not Encoding.CAMERA:
            size = (wish.width or source.width) * (wish.height or source.height)
            pixel_bytes += 3 * count * size
    if buffers > MOST_PARTS - 1:
        raise MessageError(
            f"expected at most {MOST_PARTS - 1 - BUFFERS_BESIDE} pictures and earlier states in an "
            f"observation, found {buffers - BUFFERS_BESIDE}", mend="Ask for less of the past.",
        )  # fmt: skip
    if pixel_bytes > PIXEL_BYTES_MOST:
        raise MessageError(
            f"pictures: expected at most {PIXEL_BYTES_MOST // 2**20} MiB of pixels in an "
            f"observation, found {pixel_bytes / 2**20:.0f} MiB",
            mend="Ask for smaller pictures, or fewer of the past.",
        )


def _said(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

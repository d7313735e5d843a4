"""Camera payloads to the one picture form of the dataset: 8-bit 4:2:0, BT.601, limited range.

One conversion per picture, no RGB detour for YUV sources. UVC cameras send full range; readers
assume limited range, so an untouched pass would turn grey 16 into 0 and 240 into 255. Chroma is
averaged in boxes; the quarter-sample siting difference of JPEG 4:2:2 is ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from recd.config.errors import RecdError
from recd.daemon.pixels.passes import KERNELS, WORD_BYTES, lanes
from recd.shm import aot

Plane = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Payload = np.ndarray[Any, np.dtype[np.uint8]] | bytes

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
BT601 = 6  # AVCOL_SPC_SMPTE170M: same matrix as swscale's default, so every reader agrees

# Full to limited range as (factor, offset) of `(v * factor + offset) >> 8`: 16-bit arithmetic runs
# at memory speed, a look-up table does not. Never more than 0.64 of a code from the exact value.
_LUMA = (220, 16 * 256 + 128)  # 219 / 255 of the way, from 16
_CHROMA = (225, 4096)  # 224 / 255 around 128
_AS_IT_IS = (256, 0)
_NEUTRAL = 128

# A capped lens gives 16 and its noise; a dark room with anything in sight is well above.
_BLACK_BELOW, _BLACK_STRIDE = 24, 16

_LENIENT_AFTER, _LENIENT_SHARE = 30, 0.8

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


class PictureError(Exception):
    """One payload that is no whole picture of the stated kind and size. The next one may be."""


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """What the slots of a frame ring hold.

    width, height: pixels as delivered, before rotation. full_range: luma 0..255 instead of 16..235
    (JPEG always is). rotation: clockwise degrees applied on the way to the dataset.
    """

    payload: str
    width: int
    height: int
    full_range: bool = True
    rotation: Literal[0, 90, 180, 270] = 0

    @classmethod
    def from_ring(cls, meta: Mapping[str, Any]) -> "PictureFormat":
        """From `RingSpec.meta` of a frame ring."""
        return cls(
            payload=str(meta["payload"]),
            width=int(meta["width"]),
            height=int(meta["height"]),
            full_range=meta.get("range", "full") == "full",
            rotation=meta.get("rotation", 0),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in the dataset, after rotation."""
        turned = self.rotation in (90, 270)
        return (self.height, self.width) if turned else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class _Planes:
    """Views of one decoded picture. u, v: any subsampling, None for grey."""

    full_range: bool
    y: Plane
    u: Plane | None = None
    v: Plane | None = None


class Converter:
    """Turns payloads of one format into dataset pictures. Not for more than one thread."""

    def __init__(self, picture: PictureFormat, *, scale: bool = False) -> None:
        """scale: bring JPEGs of another size to `picture`'s instead of refusing them.

        Raises RecdError for a payload kind or size that cannot be encoded.
        """
        if picture.payload not in _UNPACKERS:
            raise RecdError(
                f"camera payload: expected one of {', '.join(sorted(_UNPACKERS))}, "
                f"found {picture.payload!r}",
                mend="set the camera's fourcc to mjpeg or yuyv",
            )
        if picture.width % 2 or picture.height % 2:
            raise RecdError(
                f"camera size: expected even width and height, "
                f"found {picture.width}x{picture.height}",
                mend="4:2:0 video has no odd sizes; choose another size of this camera",
            )
        self.picture = picture
        self._unpack = _UNPACKERS[picture.payload](picture)
        if isinstance(self._unpack, _Mjpeg):
            self._unpack.scale = scale
        self._wide = np.empty((picture.height, picture.width), np.uint16)
        self._turns = picture.rotation // 90
        kernels = aot.load(KERNELS)
        self._scale_bytes = kernels["scale_bytes"]
        # Twice as quick as through swscale and numpy [0.24 of 0.50 ms a picture of 640x480, hot].
        whole_words = picture.width % WORD_BYTES == 0 and not self._turns
        self._splits = picture.payload == "yuyv" and whole_words
        self._split_yuyv = kernels["split_yuyv"]

    def convert(self, payload: Payload) -> av.VideoFrame:
        """One payload to a new yuv420p frame of `picture.size`, tagged BT.601 limited.

        Raises PictureError. The payload is not referenced after the call; what a caller holds of a
        ring slot must be validated after it.
        """
        frame = new_picture(*self.picture.size)
        if self._splits:
            self._split(
                _raw_bytes(payload, 2 * self.picture.width * self.picture.height), frame.planes
            )
            return frame
        planes = self._unpack(payload)
        self._fill(planes.y, frame.planes[0], _LUMA if planes.full_range else None)
        for source, plane in ((planes.u, frame.planes[1]), (planes.v, frame.planes[2])):
            if source is None:
                plane_view(plane)[:] = _NEUTRAL
            else:
                half = _half_size(source, self.picture.width, self.picture.height)
                self._fill(half, plane, _CHROMA if planes.full_range else None)
        return frame

    def _split(self, raw: np.ndarray[Any, np.dtype[np.uint8]], planes: Any) -> None:
        luma, blue, red = planes
        full, (width, height) = self.picture.full_range, self.picture.size
        luma_factor, luma_offset = _LUMA if full else _AS_IT_IS
        chroma_factor, chroma_offset = _CHROMA if full else _AS_IT_IS
        self._split_yuyv(
            raw.ctypes.data, 2 * width // WORD_BYTES, luma.buffer_ptr, luma.line_size // WORD_BYTES,
            blue.buffer_ptr, red.buffer_ptr, blue.line_size // (WORD_BYTES // 2), width, height,
            luma_factor, lanes(luma_offset), chroma_factor, lanes(chroma_offset),
        )  # fmt: skip

    def _fill(self, source: Plane, plane: Any, scaling: tuple[int, int] | None) -> None:
        # Writing through a turned view rotates without a pass of its own.
        target = np.rot90(plane_view(plane), self._turns)
        if scaling is None:
            target[:] = source
            return
        if not self._turns and _whole_words(source):
            factor, offset = scaling
            self._scale_bytes(
                source.ctypes.data, source.strides[0] // WORD_BYTES,
                plane.buffer_ptr, plane.line_size // WORD_BYTES,
                source.shape[1] // WORD_BYTES, source.shape[0], factor, lanes(offset),
            )  # fmt: skip
            return
        wide = self._wide.reshape(-1)[: source.size].reshape(source.shape)
        np.multiply(source, np.uint16(scaling[0]), out=wide, dtype=np.uint16)
        np.add(wide, np.uint16(scaling[1]), out=wide)
        np.right_shift(wide, np.uint16(8), out=wide)
        target[:] = wide

    @property
    def lenient(self) -> bool:
        """True once this camera's JPEGs proved to be flawed as a rule (see `_Mjpeg`)."""
        return isinstance(self._unpack, _Mjpeg) and self._unpack.lenient


def new_picture(width: int, height: int) -> av.VideoFrame:
    """An uninitialised dataset picture: yuv420p, tagged BT.601 limited."""
    frame = av.VideoFrame(width, height, "yuv420p")
    frame.color_range = LIMITED
    frame.colorspace = BT601
    return frame


def black_picture(width: int, height: int) -> av.VideoFrame:
    """What a row shows before its camera ever delivered: limited-range black."""
    frame = new_picture(width, height)
    for plane, level in zip(frame.planes, (16, _NEUTRAL, _NEUTRAL), strict=True):
        np.frombuffer(plane, np.uint8)[:] = level
    return frame


def is_black(frame: av.VideoFrame) -> bool:
    """True when a dataset picture (yuv420p, limited range) is nearly black all over.

    By the mean of a sparse sample of its luma: about 1,200 pixels of 640x480, some microseconds.
    """
    sample = plane_view(frame.planes[0])[::_BLACK_STRIDE, ::_BLACK_STRIDE]
    return bool(sample.mean() < _BLACK_BELOW)


def plane_view(plane: Any, *, pixel_bytes: int = 1) -> Plane:
    """Writable uint8 [height, width * pixel_bytes] view of a PyAV plane, without line padding."""
    rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    view: Plane = rows.reshape(plane.height, plane.line_size)[:, : plane.width * pixel_bytes]
    return view


def _whole_words(plane: Plane) -> bool:
    """True when its lines and what lies between them are words of eight bytes."""
    line, step = plane.strides
    return step == 1 and line % WORD_BYTES == 0 and plane.shape[1] % WORD_BYTES == 0


def _average(a: Plane, b: Plane) -> Plane:
    """Rounded mean of two uint8 arrays without widening."""
    mean: Plane = (a | b) - ((a ^ b) >> 1)
    return mean


def _half_size(chroma: Plane, width: int, height: int) -> Plane:
    """Chroma of any JPEG subsampling to half of `width` x `height`."""
    if chroma.shape[0] == height:
        chroma = _average(chroma[0::2], chroma[1::2])
    if chroma.shape[1] == width:
        chroma = _average(chroma[:, 0::2], chroma[:, 1::2])
    elif chroma.shape[1] == width // 4:
        chroma = np.repeat(chroma, 2, axis=1)
    return chroma


class _Mjpeg:
    """JPEG to its own planes, by FFmpeg's decoder with errors turned on.

    A picture whose entropy data ends early or is damaged is refused. Some cameras close every
    JPEG a few bytes short and still show a whole picture: when most of the first pictures are
    refused although they decode, errors are no longer told from habit and `lenient` is set.
    """

    def __init__(self, picture: PictureFormat) -> None:
        self._picture = picture
        self._decoder = _jpeg_decoder(_STRICT)
        self._seen = self._refused = 0
        self.lenient = False
        self.scale = False

    def __call__(self, payload: Payload) -> _Planes:
        if not len(payload):  # the decoder would take an empty packet for the end of its stream
            raise PictureError("an empty payload")
        packet = av.Packet(payload)
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError as error:
            self._note_refusal(packet)
            raise PictureError(f"JPEG of {packet.size} bytes: {error}") from error
        self._seen += 1
        if not frames:
            raise PictureError(f"JPEG of {packet.size} bytes holds no picture")
        return _planes_of(frames[0], self._picture, scale=self.scale)

    def _note_refusal(self, packet: av.Packet) -> None:
        if self._seen >= _LENIENT_AFTER:
            return
        self._seen += 1
        try:
            whole = bool(_jpeg_decoder({}).decode(packet))
        except av.FFmpegError:
            whole = False
        self._refused += whole
        if self._seen == _LENIENT_AFTER and self._refused >= _LENIENT_SHARE * _LENIENT_AFTER:
            self._decoder = _jpeg_decoder({})
            self.lenient = True


def _jpeg_decoder(options: dict[str, str]) -> Any:
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1  # frame threads would answer each picture late
    decoder.options = options
    return decoder


_EIGHT_BIT_YUV = ("420p", "422p", "444p", "440p", "411p")


def _planes_of(frame: av.VideoFrame, picture: PictureFormat, *, scale: bool) -> _Planes:
    if (frame.width, frame.height) != (picture.width, picture.height):
        if not scale:
            raise PictureError(
                f"expected {picture.width}x{picture.height}, found {frame.width}x{frame.height}"
            )
        frame = _swscale.reformat(
            frame, width=picture.width, height=picture.height, format="yuvj444p", **_ONE_THREAD
        )
    name = frame.format.name
    if name.startswith("gray"):
        return _Planes(True, plane_view(frame.planes[0]))
    if name.removeprefix("yuvj").removeprefix("yuv") not in _EIGHT_BIT_YUV:
        frame = _reformatter(frame, "yuvj444p", FULL)  # RGB or CMYK JPEGs: rare, so slow is fine
    # JFIF is full range; FFmpeg marks the few writers that say otherwise.
    full_range = frame.color_range != LIMITED
    return _Planes(full_range, *(plane_view(plane) for plane in frame.planes[:3]))


def _raw_bytes(payload: Payload, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    raw = np.frombuffer(payload, np.uint8) if isinstance(payload, bytes) else payload
    if raw.size != nbytes:
        raise PictureError(f"expected {nbytes} bytes, found {raw.size}")
    return raw


def _packed(fourcc: str, pixel_bytes: int, target: str) -> Callable[[PictureFormat], Any]:
    """Unpacker of RGB in one plane, by swscale."""

    def build(picture: PictureFormat) -> Callable[[Payload], _Planes]:
        width, height = picture.width, picture.height

        def unpack(payload: Payload) -> _Planes:
            raw = _raw_bytes(payload, width * height * pixel_bytes)
            frame = av.VideoFrame(width, height, fourcc)
            plane_view(frame.planes[0], pixel_bytes=pixel_bytes)[:] = raw.reshape(height, -1)
            out = _reformatter(frame, target, LIMITED)
            return _Planes(False, *(plane_view(plane) for plane in out.planes))

        return unpack

    return build


def _yuyv(picture: PictureFormat) -> Callable[[Payload], _Planes]:
    width, height = picture.width, picture.height

    def unpack(payload: Payload) -> _Planes:
        raw = _raw_bytes(payload, width * height * 2).reshape(height, width // 2, 4)
        luma = raw[:, :, ::2].reshape(height, width)
        return _Planes(picture.full_range, luma, raw[:, :, 1], raw[:, :, 3])

    return unpack


def _semiplanar(picture: PictureFormat) -> Callable[[Payload], _Planes]:
    width, height = picture.width, picture.height

    def unpack(payload: Payload) -> _Planes:
        raw = _raw_bytes(payload, width * height * 3 // 2)
        luma = raw[: width * height].reshape(height, width)
        chroma = raw[width * height :].reshape(height // 2, width)
        return _Planes(picture.full_range, luma, chroma[:, 0::2], chroma[:, 1::2])

    return unpack


def _planar(picture: PictureFormat) -> Callable[[Payload], _Planes]:
    width, height = picture.width, picture.height
    pixels = width * height

    def unpack(payload: Payload) -> _Planes:
        raw = _raw_bytes(payload, pixels * 3 // 2)
        u, v = raw[pixels:].reshape(2, height // 2, width // 2)
        return _Planes(picture.full_range, raw[:pixels].reshape(height, width), u, v)

    return unpack


def _grey(picture: PictureFormat) -> Callable[[Payload], _Planes]:
    def unpack(payload: Payload) -> _Planes:
        raw = _raw_bytes(payload, picture.width * picture.height)
        return _Planes(picture.full_range, raw.reshape(picture.height, picture.width))

    return unpack


_UNPACKERS: dict[str, Callable[[PictureFormat], Callable[[Payload], _Planes]]] = {
    "mjpeg": _Mjpeg,
    "yuyv": _yuyv,
    "rgb24": _packed("rgb24", 3, "yuv444p"),
    "bgr24": _packed("bgr24", 3, "yuv444p"),
    "nv12": _semiplanar,
    "yuv420p": _planar,
    "gray8": _grey,
}
"""Payload kind of a frame ring -> how its planes are got at."""

_swscale = VideoReformatter()


def _reformatter(frame: av.VideoFrame, target: str, target_range: int) -> av.VideoFrame:
    """swscale on one thread."""
    extra = {"dst_color_range": target_range, "dst_colorspace": Colorspace.ITU601}
    return _swscale.reformat(frame, format=target, **extra, **_ONE_THREAD)


def _accepts_threads() -> bool:
    probe = av.VideoFrame(16, 16, "rgb24")
    try:
        _swscale.reformat(probe, format="yuv420p", threads=1)
    except TypeError:  # PyAV before 16 has neither the argument nor the threads
        return False
    return True


_ONE_THREAD: dict[str, Any] = {"threads": 1} if _accepts_threads() else {}

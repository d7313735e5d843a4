"""Video facts of a dataset: what an encoder delivers, what info.json says of it, what is pinned.

LeRobot compares codec, pixel format and size when it joins files, so a dataset keeps those of its
first episode. Nothing is decoded here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.boxes import BrokenVideoError, VideoTrack, pictures_on_grid, read_track
from recd.daemon.dataset.schema import Feature
from recd.daemon.dataset.stats import CameraHistogram, FeatureStats

CANONICAL_CODECS = {
    "libx264": "h264",
    "h264_nvenc": "h264",
    "h264_vaapi": "h264",
    "h264_qsv": "h264",
    "h264_v4l2m2m": "h264",
    "libsvtav1": "av1",
    "libaom-av1": "av1",
    "libdav1d": "av1",
    "av1_nvenc": "av1",
    "libx265": "hevc",
    "hevc_nvenc": "hevc",
    "hevc_vaapi": "hevc",
}
"""Encoder name -> codec name as info.json has it."""

LEROBOT_CODECS = frozenset({"h264", "hevc", "av1"})
"""Codecs that lerobot can also cut (delete, split); others load but cannot be edited there."""

DEFAULT_PRESETS: Mapping[str, int | None] = {"av1": 12, "h264": None, "hevc": None}
MIN_TIMESCALE = 10_000


def media_timescale(fps: int) -> int:
    """Ticks per second FFmpeg gives an mp4 track of time base 1/fps: fps * 2^k >= 10000."""
    scale = fps
    while scale < MIN_TIMESCALE:
        scale *= 2
    return scale


@dataclass(frozen=True, slots=True)
class CodecPins:
    """What a dataset fixes for one camera from its first episode on."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    g: int | None = None
    crf: int | float | None = None
    preset: int | str | None = None
    extra_options: Mapping[str, Any] = field(default_factory=dict)

    def differs_from(self, other: "CodecPins") -> list[str]:
        """Names of the facts that LeRobot compares when joining files and that are not equal."""
        return [
            name
            for name in ("codec", "pix_fmt", "width", "height")
            if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One camera's finished mp4 of an episode, as its encoder reports it.

    path: in staging; packets: pictures written; pins: how it was encoded; histogram: sampled
    pixels (or the statistics themselves); digest: of the file (`recd.daemon.digest`),
    computed when empty.
    """

    path: Path
    packets: int
    pins: CodecPins
    histogram: CameraHistogram | FeatureStats
    digest: str = ""


def canonical_codec(name: str) -> str:
    """`h264`, `hevc`, `av1` for an encoder or codec name; others unchanged."""
    return CANONICAL_CODECS.get(name, name)


def info_block(pins: CodecPins, fps: int, *, is_depth_map: bool = False) -> dict[str, Any]:
    """The `info` of a video feature, as lerobot 0.6.1 writes it after the first episode."""
    codec = canonical_codec(pins.codec)
    preset = pins.preset if pins.preset is not None else DEFAULT_PRESETS.get(codec)
    return {
        "is_depth_map": is_depth_map,
        "video.height": pins.height,
        "video.width": pins.width,
        "video.codec": codec,
        "video.pix_fmt": pins.pix_fmt,
        "video.fps": fps,
        "video.channels": 1 if pins.pix_fmt.startswith("gray") else 3,
        "has_audio": False,
        "video.g": 2 if pins.g is None else pins.g,
        "video.crf": 30 if pins.crf is None else pins.crf,
        "video.preset": preset,
        "video.fast_decode": 0,
        "video.video_backend": "pyav",
        "video.extra_options": dict(pins.extra_options),
    }


def pins_of_feature(feature: Feature) -> CodecPins | None:
    """Pins from a feature of an existing info.json; None before the first episode."""
    info = feature.get("info") or feature.get("video_info") or {}
    if "video.codec" not in info:
        return None
    height, width = feature["shape"][0], feature["shape"][1]
    return CodecPins(
        codec=canonical_codec(info["video.codec"]),
        pix_fmt=info.get("video.pix_fmt", "yuv420p"),
        width=info.get("video.width", width),
        height=info.get("video.height", height),
        g=info.get("video.g"),
        crf=info.get("video.crf"),
        preset=info.get("video.preset"),
        extra_options=info.get("video.extra_options") or {},
    )


def check_video(key: str, video: VideoFile, *, rows: int, fps: int) -> VideoTrack:
    """Prove from the file itself that picture k stands at k / fps for exactly `rows` pictures.

    DatasetError names the camera and the first thing that is not so.
    """

    def refuse(text: str) -> DatasetError:
        return DatasetError(
            f"{key}: {text} ({video.path.name})",
            mend="The episode stays in staging; `recctl recover` can cut it to what is whole.",
        )

    try:
        track = read_track(video.path)
    except (BrokenVideoError, OSError) as broken:
        raise refuse(str(broken)) from broken
    if not track.complete:
        raise refuse(f"cut off: {track.whole} of {len(track.pts)} pictures are in the file")
    if not len(track.pts) == video.packets == rows:
        raise refuse(
            f"expected {rows} pictures, one a row; the file holds {len(track.pts)}, "
            f"the encoder counted {video.packets}"
        )
    if (wrong := pictures_on_grid(track, fps)) is not None:
        raise refuse(f"picture {wrong} is not at {wrong}/{fps} s")
    if track.timescale != media_timescale(fps):
        raise refuse(f"timescale {track.timescale}, expected {media_timescale(fps)}")
    if (track.width, track.height) != (video.pins.width, video.pins.height):
        raise refuse(
            f"picture size {track.width}x{track.height}, "
            f"expected {video.pins.width}x{video.pins.height}"
        )
    if track.codec != canonical_codec(video.pins.codec):
        raise refuse(f"codec {track.codec}, expected {canonical_codec(video.pins.codec)}")
    if not len(track.keyframe) or not track.keyframe[0]:
        raise refuse("does not begin with a keyframe")
    return track

"""Codecs as one table, LeRobot's option names mapped to each encoder, at zero delay.

Every encoder is set up so that a packet comes out for each frame that goes in: nothing waits in an
encoder when the process is killed or the episode stops. Opening is left to the sinks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from recd.config.errors import RecdError

Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How one camera is encoded; names and defaults are LeRobot's (`VideoEncoderConfig`).

    g: distance of key frames in frames. crf: constant quality, lower is better. preset: None for
    the codec's own default. threads: of one encoder. extra_options never override the others.
    """

    vcodec: str = "h264"
    pix_fmt: str = "yuv420p"
    g: int = 2
    crf: int = 30
    preset: str | int | None = None
    fast_decode: int = 0
    threads: int = 1
    extra_options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CodecSettings":
        """From a plain map (configuration section, link message). Unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        chosen = {k: v for k, v in plain.items() if k in known and v is not None}
        return cls(**chosen)

    def plain(self) -> dict[str, Any]:
        """The map that `from_plain` reads."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "extra_options": dict(self.extra_options)
        }

    @property
    def row(self) -> "Codec":
        """The codec's row in the table. RecdError for a name that is not there."""
        return codec_named(self.vcodec)

    @property
    def effective_preset(self) -> str | int | None:
        """The preset that is really used."""
        return self.row.preset if self.preset is None else self.preset

    @property
    def decode_lead(self) -> int:
        """Rows by which decode stamps run ahead of picture stamps, as in LeRobot's own files.

        LeRobot's encoder reorders with these same options, ours never does. Yet files join (merge,
        delete, pack) in any order only when their decode stamps are laid out alike: a file without
        lead followed by one with it makes FFmpeg refuse.
        """
        return self.row.lead(self)

    def options(self) -> Options:
        """FFmpeg options of the encoder. Extra options never override LeRobot's or zero delay."""
        extra = {name: str(value) for name, value in self.extra_options.items()}
        return self.row.defaults(self) | extra | {"g": str(self.g)} | self.row.structured(self)


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoder.

    vcodec: name in the configuration. encoder: FFmpeg's name. canonical: what LeRobot stores as
    `video.codec`. preset: used when none is asked for. frame_format: pixel format it is fed with.
    structured: LeRobot's fields in the encoder's words and what zero delay needs; nothing overrides
    it. defaults: what extra options may override. lead: see `decode_lead`.
    """

    vcodec: str
    encoder: str
    canonical: str
    preset: str | int | None
    structured: Callable[[CodecSettings], Options]
    defaults: Callable[[CodecSettings], Options] = lambda _: {}
    lead: Callable[[CodecSettings], int] = lambda _: 0
    hardware: bool = False
    frame_format: str = "yuv420p"


def _with_preset(settings: CodecSettings, options: Options) -> Options:
    preset = settings.effective_preset
    return options if preset is None else options | {"preset": str(preset)}


def _joined(settings: CodecSettings, name: str, separator: str, *parts: str) -> str:
    """`parts` after what the extra options say under `name`: the last mention wins."""
    extra = settings.extra_options.get(name)
    return separator.join(([str(extra)] if extra else []) + list(parts))


def _x264(settings: CodecSettings) -> Options:
    tunes = ["zerolatency"] + (["fastdecode"] if settings.fast_decode else [])
    options = {
        "crf": str(settings.crf),
        "threads": str(settings.threads),
        "tune": _joined(settings, "tune", ",", *tunes),
        "bf": "0",
    }
    return _with_preset(settings, options)


def _x264_defaults(settings: CodecSettings) -> Options:
    # ultrafast has no adaptive quantisation: flat areas come out up to 4 of 255 off, with it 3.
    return {"aq-mode": "1"} if settings.effective_preset == "ultrafast" else {}


def _x264_lead(settings: CodecSettings) -> int:
    # Measured with libx264: reorder depth by GOP, B-frames and preset.
    if settings.effective_preset == "ultrafast":
        return 0
    return max(0, min(int(settings.extra_options.get("bf", 3)), settings.g - 1, 2))


def _x265_lead(settings: CodecSettings) -> int:
    return 0 if settings.g == 1 else 2


def _x265(settings: CodecSettings) -> Options:
    bounded = (f"pools={settings.threads}", "frame-threads=1", "log-level=error", "bframes=0")
    options = {
        "crf": str(settings.crf),
        "tune": "zerolatency",
        "x265-params": _joined(settings, "x265-params", ":", *bounded),
    }
    return _with_preset(settings, options)


_SVT_LIVE = "rtc=1:aq-mode=0:scm=0:enable-cdef=0:max-tx-size=32"
"""Before the extra options, which may override it. Without `rtc` SVT-AV1 4 takes preset 11 for 12:
8 % more CPU and 0.6 dB less at the same size. The other two belong together: no cdef saves 10 % of
the CPU and puts flat areas 4 of 255 off, where 3 are promised; transforms up to 32 put them back
and make files 2.5 % smaller [simulated camera, 640x480, in turn, medians of 7]."""


def _svt(settings: CodecSettings) -> Options:
    # pred-struct=1 is low delay; the default holds 50 frames back and needs 300 ms to flush.
    fast = f"fast-decode={max(0, min(2, settings.fast_decode))}"
    own = (fast, f"lp={settings.threads}", "pred-struct=1")
    joined = _joined(settings, "svtav1-params", ":", *own)
    options = {"crf": str(settings.crf), "svtav1-params": f"{_SVT_LIVE}:{joined}"}
    return _with_preset(settings, options)


def _nvenc(settings: CodecSettings) -> Options:
    own = {"rc": "constqp", "qp": str(settings.crf), "bf": "0", "delay": "0", "zerolatency": "1"}
    return _with_preset(settings, own)


def _vaapi(settings: CodecSettings) -> Options:
    return {"qp": str(settings.crf), "bf": "0", "async_depth": "1"}


def _qsv(settings: CodecSettings) -> Options:
    own = {"global_quality": str(settings.crf), "bf": "0", "async_depth": "1"}
    return _with_preset(settings, own)


def _v4l2(_: CodecSettings) -> Options:
    return {"bf": "0"}


CODECS: tuple[Codec, ...] = (
    Codec("h264", "libx264", "h264", "veryfast", _x264, _x264_defaults, _x264_lead),
    Codec("libsvtav1", "libsvtav1", "av1", 12, _svt),
    Codec("hevc", "libx265", "hevc", "ultrafast", _x265, lead=_x265_lead),
    Codec("h264_nvenc", "h264_nvenc", "h264", None, _nvenc, hardware=True),
    Codec("hevc_nvenc", "hevc_nvenc", "hevc", None, _nvenc, hardware=True),
    Codec("h264_vaapi", "h264_vaapi", "h264", None, _vaapi, hardware=True, frame_format="nv12"),
    Codec("h264_qsv", "h264_qsv", "h264", None, _qsv, hardware=True, frame_format="nv12"),
    Codec("h264_v4l2m2m", "h264_v4l2m2m", "h264", None, _v4l2, hardware=True, frame_format="nv12"),
)

ALIASES = {"av1": "libsvtav1", "libx264": "h264", "libx265": "hevc", "h265": "hevc"}
"""Names that mean a row of the table: LeRobot's info block says `av1` for libsvtav1."""

DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d"}
"""Canonical codec -> FFmpeg's software decoder (its own av1 decodes on hardware only)."""

_LADDER = (
    ("h264_nvenc", None),
    ("h264_qsv", None),
    ("h264_vaapi", None),
    ("h264_v4l2m2m", None),
    ("h264", "veryfast"),
    ("h264", "superfast"),
)
"""What `auto` tries, best first: (vcodec, preset)."""


def codec_named(vcodec: str) -> Codec:
    """Row of the table by configuration name, FFmpeg name or alias. Raises RecdError."""
    name = ALIASES.get(vcodec, vcodec)
    for row in CODECS:
        if row.vcodec == name:
            return row
    known = ", ".join(row.vcodec for row in CODECS)
    raise RecdError(
        f"dataset.encoder.vcodec: expected auto or one of {known}, found {vcodec!r}",
        mend="set dataset.encoder.vcodec to h264",
        code="codec",
    )


def ladder(wanted: CodecSettings) -> tuple[CodecSettings, ...]:
    """Settings to try in order. A named codec is a ladder of one rung; nothing replaces it."""
    if wanted.vcodec != "auto":
        return (replace(wanted, vcodec=codec_named(wanted.vcodec).vcodec),)
    rungs = []
    for vcodec, preset in _LADDER:
        rung = replace(wanted, vcodec=vcodec, preset=preset)
        if not rung.row.hardware and wanted.preset is not None:
            rung = replace(rung, preset=wanted.preset)
        if rung not in rungs:
            rungs.append(rung)
    return tuple(rungs)


def info_block(
    settings: CodecSettings, size: tuple[int, int], fps: int, *, depth: bool = False
) -> dict[str, Any]:
    """LeRobot's `features[key]["info"]` of a video stream (0.6.1's keys and order).

    size: (width, height) in the dataset. An editor that encodes again from this block makes files
    that join with ours (see `decode_lead`).
    """
    row = settings.row
    return {
        "video.height": size[1],
        "video.width": size[0],
        "video.codec": row.canonical,
        "video.pix_fmt": settings.pix_fmt,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.g": settings.g,
        "video.crf": settings.crf,
        # Presets of hardware encoders mean nothing to the software encoder an editor would use.
        "video.preset": None if row.hardware else settings.effective_preset,
        "video.fast_decode": settings.fast_decode,
        "video.video_backend": "pyav",
        "video.extra_options": dict(settings.extra_options),
        "is_depth_map": depth,
    }


def set_aside(wanted: CodecSettings, used: CodecSettings) -> dict[str, list[Any]]:
    """What was asked for and is not used: option -> [asked for, used]. Defaults ask for nothing."""
    pairs = {name: [getattr(wanted, name), getattr(used, name)] for name in ("g", "crf", "preset")}
    default = CodecSettings()
    aside = {
        name: pair for name, pair in pairs.items()
        if pair[0] != pair[1] and pair[0] != getattr(default, name)
    }  # fmt: skip
    if wanted.vcodec != "auto" and wanted.row.canonical != used.row.canonical:
        aside["vcodec"] = [wanted.vcodec, used.vcodec]
    return aside


def pinned_settings(info: Mapping[str, Any], wanted: CodecSettings) -> CodecSettings:
    """Settings for a dataset that already has video: `info` rules, `wanted` fills the rest.

    A wanted encoder of the same canonical codec is kept (hardware continues what software began).
    Blocks of LeRobot 0.4-0.5 lack the encoder keys; then `wanted` supplies them. Raises RecdError
    for a codec that recd does not write.
    """
    canonical = str(info.get("video.codec", ""))
    canonical = {"libsvtav1": "av1"}.get(canonical, canonical)
    rows = [row for row in CODECS if row.canonical == canonical]
    if not rows:
        raise RecdError(
            f"dataset: its video codec is {canonical!r}, recd writes "
            f"{', '.join(sorted({row.canonical for row in CODECS}))}",
            mend="record into a new dataset folder (dataset.root)",
            code="codec",
        )
    asked = ALIASES.get(wanted.vcodec, wanted.vcodec)
    vcodec = next((row.vcodec for row in rows if row.vcodec == asked), rows[0].vcodec)
    stored = {
        name: info[f"video.{name}"]
        for name in ("pix_fmt", "g", "crf", "preset", "fast_decode", "extra_options")
        if info.get(f"video.{name}") is not None
    }
    if codec_named(vcodec).hardware:
        stored.pop("preset", None)
    return replace(wanted, vcodec=vcodec, **stored)

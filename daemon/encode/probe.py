"""Which codec this machine really carries: each rung encodes and decodes pictures at full size.

Names in a build prove nothing (an FFmpeg with nvenc runs on machines without a GPU). Hardware
encoders may hang or crash the process: `probe` runs in a process of its own with a deadline.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from recd.config.errors import RecdError
from recd.daemon import realtime
from recd.daemon.encode.codecs import DECODERS, CodecSettings, info_block, ladder
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

Luma = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

FRAMES = 16
_WARM = 4
_MEAN_ERROR_MAX = 12.0
"""Mean absolute luma error (of 255) above which a codec's output is not the picture any more."""

_SHARE = 0.5
"""Part of the machine's cores that encoding all cameras may take for `auto` to choose it."""

_DEADLINE_S = 30.0

NO_CODEC = "no codec works on this machine: "


@dataclass(frozen=True, slots=True)
class Trial:
    """One rung tried. cpu_ms, wall_ms: per picture of one camera with `count` encoders open at
    once; load: cores that all cameras take at the wanted rate. refused: why not, empty if it works.
    """

    vcodec: str
    preset: str | int | None
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    load: float = 0.0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """What a new dataset is to be pinned to.

    settings: for every camera. trials: what was tried, in order. comfortable: the machine has room
    to spare; False: it works with less than half of the cores left, tell the operator.
    """

    settings: CodecSettings
    trials: tuple[Trial, ...]
    comfortable: bool

    @property
    def chosen(self) -> Trial:
        """Figures of the codec that was chosen."""
        return self.trials[-1]

    def too_much(self) -> dict[str, str] | None:
        """For the operator, where the machine has no room to spare: figures and what to do."""
        if self.comfortable:
            return None
        cores = len(os.sched_getaffinity(0))
        return {
            "expected": f"encoding within {_SHARE:.0%} of {cores} cores",
            "found": f"{self.chosen.load:.2f} cores, {self.chosen.cpu_ms:.1f} ms a picture",
            "mend": "Record fewer, smaller or slower cameras, or with a faster preset; "
            "recctl doctor measures what fits.",
        }

    def info(self, size: tuple[int, int], fps: int) -> dict[str, Any]:
        """LeRobot's info block of one camera of `size` (width, height)."""
        return info_block(self.settings, size, fps)

    def plain(self) -> dict[str, Any]:
        """Plain form, for messages and manifests."""
        return {
            "settings": self.settings.plain(),
            "trials": [asdict(trial) for trial in self.trials],
            "comfortable": self.comfortable,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "CodecChoice":
        """What `plain` gave."""
        return cls(
            settings=CodecSettings.from_plain(plain["settings"]),
            trials=tuple(Trial(**trial) for trial in plain["trials"]),
            comfortable=bool(plain["comfortable"]),
        )


def probe(
    sizes: Sequence[tuple[int, int]],
    *,
    fps: float,
    wanted: CodecSettings,
    deadline_s: float = _DEADLINE_S,
) -> CodecChoice:
    """First rung that works for cameras of `sizes` ((width, height) each) at `fps`.

    wanted.vcodec `auto` walks the ladder; a named codec is tried alone and never replaced. Blocks
    for about a second per rung. Raises RecdError with the figures when none works.
    """
    trials: list[Trial] = []
    for settings in ladder(wanted):
        trial = in_own_process(settings, sizes, fps, deadline_s=deadline_s)
        last_resort = settings == ladder(wanted)[-1]
        if not trial.refused and not leaves_room(trial) and not last_resort:
            cores = len(os.sched_getaffinity(0))
            trial = replace(trial, refused=f"takes {trial.load:.2f} of {cores} cores")
        trials.append(trial)
        if not trial.refused:
            return CodecChoice(settings, tuple(trials), leaves_room(trial))
    raise RecdError(
        NO_CODEC + "; ".join(f"{_name(trial)}: {trial.refused}" for trial in trials),
        mend="set dataset.encoder.vcodec to h264, or record fewer or smaller cameras",
        code="codec",
    )


def _name(trial: Trial) -> str:
    return trial.vcodec if trial.preset is None else f"{trial.vcodec} {trial.preset}"


def leaves_room(trial: Trial) -> bool:
    """Whether the computer has room to spare beside what was measured."""
    return trial.load <= _SHARE * len(os.sched_getaffinity(0))


def in_own_process(
    settings: CodecSettings,
    sizes: Sequence[tuple[int, int]],
    fps: float,
    *,
    deadline_s: float,
    nice: int | None = None,
) -> Trial:
    """What `measure` finds in a process that ends with this thread. nice: its nice value."""
    plan = {"settings": settings.plain(), "sizes": list(sizes), "fps": fps, "nice": nice}
    task = json.dumps(plan)
    empty = Trial(settings.row.vcodec, settings.effective_preset)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "recd.daemon.encode.probe"],
            input=task, capture_output=True, text=True, timeout=deadline_s, check=False,
            start_new_session=nice is not None,  # where a nice value means something
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return replace(empty, refused=f"gave no answer within {deadline_s:.0f} s")
    if done.returncode:
        end = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return replace(empty, refused=f"ended with code {done.returncode}: {end}")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))


def measure(
    settings: CodecSettings, sizes: Sequence[tuple[int, int]], *, fps: float, frames: int = FRAMES
) -> Trial:
    """Encode and decode `frames` pictures per camera in this process; all encoders open at once."""
    import av

    trial = Trial(settings.row.vcodec, settings.effective_preset)
    scenes = {size: [_scene(*size, k) for k in range(frames)] for size in set(sizes)}
    try:
        encoders = [_open(settings, size, fps) for size in sizes]
        run = _encode_all(encoders, settings, [scenes[size] for size in sizes])
        error = max(
            _decode_error(settings, packets, scenes[size])
            for packets, size in zip(run.packets, sizes, strict=True)
        )
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError, OSError) as problem:
        return replace(trial, refused=_words(problem))
    if run.held_back:
        return replace(trial, refused="holds pictures back (no zero-delay mode)")
    if error > _MEAN_ERROR_MAX:
        return replace(trial, refused=f"decodes to another picture (mean error {error:.0f})")
    pictures = len(sizes) * (frames - _WARM)
    cpu_ms = run.cpu_ns / pictures / NS_PER_MS
    return replace(
        trial,
        cpu_ms=round(cpu_ms, 3),
        wall_ms=round(run.wall_ns / pictures / NS_PER_MS, 3),
        load=round(cpu_ms * fps * len(sizes) / 1000, 3),
    )


def _words(problem: Exception) -> str:
    import av

    if isinstance(problem, av.codec.codec.UnknownCodecError):
        return "not in this build of FFmpeg"
    text = str(problem) or type(problem).__name__
    return text.rpartition("last error log: ")[2]


def _open(settings: CodecSettings, size: tuple[int, int], fps: float) -> Any:
    import av

    row = settings.row
    rate = Fraction(fps).limit_denominator(1001)
    encoder = av.CodecContext.create(row.encoder, "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = row.frame_format
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.options = settings.options()
    return encoder


@dataclass(frozen=True, slots=True)
class _Run:
    """packets: per camera, in order; held_back: some came only at the flush."""

    packets: list[list[Any]]
    held_back: bool
    cpu_ns: int
    wall_ns: int


def _encode_all(
    encoders: Sequence[Any], settings: CodecSettings, scenes: Sequence[Sequence[Luma]]
) -> _Run:
    packets: list[list[Any]] = [[] for _ in encoders]
    frames = len(scenes[0])
    pictures = [
        [_picture(luma, k, settings.row.frame_format) for k, luma in enumerate(scene)]
        for scene in scenes
    ]
    cpu_from = wall_from = 0
    for k in range(frames):
        if k == _WARM:
            cpu_from, wall_from = _cpu_ns(), now_ns()
        for camera, encoder in enumerate(encoders):
            packets[camera] += encoder.encode(pictures[camera][k])
    cpu, wall = _cpu_ns() - cpu_from, now_ns() - wall_from
    held_back = False
    for camera, encoder in enumerate(encoders):
        flushed = encoder.encode(None)
        packets[camera] += flushed
        held_back |= bool(flushed)
    return _Run(packets, held_back, cpu, wall)


def _cpu_ns() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * NS_PER_S)


def _scene(width: int, height: int, k: int) -> Luma:
    """Edges, a moving square and noise: uint8 [height, width], limited range."""
    noise = np.random.default_rng(k).integers(-4, 5, (height, width), np.int16)
    waves = 60 * np.sin(np.arange(width) / 40) + 50 * np.cos(np.arange(height) / 35)[:, None]
    luma = (120 + waves + noise).clip(16, 235).astype(np.uint8)
    box = max(8, height // 6)
    x, y = (k * 7) % max(1, width - box), height // 3
    luma[y : y + box, x : x + box] = 210
    return luma


def _picture(luma: Luma, k: int, frame_format: str) -> Any:
    from recd.daemon.encode.colour import black_picture, plane_view

    frame = black_picture(luma.shape[1], luma.shape[0])
    plane_view(frame.planes[0])[:] = luma
    for plane, level in zip(frame.planes[1:], (110, 140), strict=True):
        plane_view(plane)[:] = level
    if frame_format != "yuv420p":
        frame = frame.reformat(format=frame_format)
    frame.pts = k
    return frame


def _decode_error(settings: CodecSettings, packets: Sequence[Any], scene: Sequence[Luma]) -> float:
    """Largest mean absolute luma error of any picture. ValueError when the number differs."""
    import av

    from recd.daemon.encode.colour import plane_view

    decoder = av.CodecContext.create(DECODERS[settings.row.canonical], "r")
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    pictures += decoder.decode(None)
    if len(pictures) != len(scene):
        raise ValueError(f"{len(scene)} pictures encoded, {len(pictures)} decoded")
    return max(
        float(np.abs(plane_view(picture.planes[0]).astype(np.int16) - luma).mean())
        for picture, luma in zip(pictures, scene, strict=True)
    )


def main() -> int:
    """Child process: task as JSON on stdin, Trial as JSON on the last line of stdout."""
    realtime.die_with_parent()
    task = json.load(sys.stdin)
    if task["nice"] is not None:
        realtime.set_nice(task["nice"])
    import av

    av.logging.set_level(av.logging.PANIC)
    os.environ.setdefault("SVT_LOG", "0")
    settings = CodecSettings.from_plain(task["settings"])
    sizes = [(int(width), int(height)) for width, height in task["sizes"]]
    trial = measure(settings, sizes, fps=task["fps"])
    print(json.dumps(asdict(trial)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How much encoding this computer carries: every camera's work really done, all at once, a second.

One process per camera, as in a session: pictures in the camera's own form are unpacked, converted,
counted and encoded into an mp4, as fast as it goes. Hardware encoders may hang or crash a process,
so each has a deadline.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import RecdError
from recd.daemon.doctor.facts import Codec, Stream
from recd.daemon.encode.codecs import CodecSettings
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

Plane = np.ndarray[Any, np.dtype[np.uint8]]

READY_S, ANSWER_S = 30.0, 30.0
_PICTURES, _WARM, _MOST = 24, 8, 3000
_PIXEL_FORMATS = {
    "yuyv": "yuyv422", "rgb24": "rgb24", "bgr24": "bgr24", "nv12": "nv12", "yuv420p": "yuv420p",
    "gray8": "gray",
}  # fmt: skip
"""Payload of a ring -> libav's name of it; mjpeg is made by the encoder of the simulated camera."""


@dataclass(frozen=True, slots=True)
class Request:
    """One camera's work. payload: kind of its ring; fps: rows a second that are encoded."""

    camera: str
    payload: str
    width: int
    height: int
    fps: float


def measure(
    settings: CodecSettings, cameras: Sequence[Request], folder: Path, *, seconds: float = 1.0
) -> Codec:
    """Work of all `cameras` at once with one codec; files go to a folder of their own in `folder`
    and are removed. Never raises for a codec that fails: its streams say why. OSError: no folder.
    """
    preset = settings.effective_preset
    name = settings.row.vcodec if preset is None else f"{settings.row.vcodec} {preset}"
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".recd-doctor-") as own,
        ExitStack() as stack,
    ):
        children = [
            stack.enter_context(_child(settings, camera, Path(own), seconds)) for camera in cameras
        ]
        told = [_line(child, READY_S) for child in children]
        for child, line in zip(children, told, strict=True):
            if line == "ready":
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
        streams = [
            _stream(camera, _line(child, ANSWER_S) if line == "ready" else line)
            for camera, child, line in zip(cameras, children, told, strict=True)
        ]
    return Codec(name, tuple(streams), len(os.sched_getaffinity(0)), settings.row.hardware)


@contextmanager
def _child(
    settings: CodecSettings, camera: Request, folder: Path, seconds: float
) -> Iterator["subprocess.Popen[str]"]:
    task = {"settings": settings.plain(), "camera": asdict(camera), "folder": str(folder),
            "seconds": seconds}  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "recd.daemon.doctor.clip"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert child.stdin is not None
        child.stdin.write(json.dumps(task) + "\n")
        child.stdin.flush()
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _line(child: "subprocess.Popen[str]", timeout_s: float) -> str:
    """The child's next line; what went wrong as a JSON document when there is none."""
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], timeout_s)[0]:
        return json.dumps({"refused": f"gave no answer within {timeout_s:.0f} s"})
    line = child.stdout.readline().strip()
    return line or json.dumps({"refused": f"ended with code {child.wait()}"})


def _stream(camera: Request, line: str) -> Stream:
    return Stream(camera.camera, camera.width, camera.height, camera.fps, **json.loads(line))


# --- in the child --------------------------------------------------------------------------


def clip(width: int, height: int, payload: str) -> list[bytes]:
    """Pictures of a still scene with an object that moves and the sensor's noise, as the camera
    would send them: 1/f detail, as scenes have it, so that codecs do not find it easier."""
    draw = np.random.default_rng(1)
    scene, thing = _detail(draw, width, height), _detail(draw, width // 4, height // 4)
    pictures = []
    for k in range(_PICTURES):
        noise = draw.integers(-3, 4, (height, width), np.int16)
        luma = (scene.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
        x, y = k * (width - width // 4) // _PICTURES, height // 3
        luma[y : y + height // 4, x : x + width // 4] = thing
        pictures.append(_packed(luma, payload))
    return pictures


def _detail(draw: np.random.Generator, width: int, height: int) -> Plane:
    """uint8 [height, width] whose amplitudes fall with the frequency, as in photographs."""
    across, down = np.fft.rfftfreq(width), np.fft.fftfreq(height)[:, None]
    amplitude = 1 / np.maximum(np.hypot(across, down), 1 / max(width, height))
    phases = np.exp(2j * np.pi * draw.random(amplitude.shape))
    field = np.fft.irfft2(amplitude * phases, (height, width))
    detail: Plane = (128 + 45 * field / field.std()).clip(0, 255).astype(np.uint8)
    return detail


def _packed(luma: Plane, payload: str) -> bytes:
    from recd.daemon.encode.colour import new_picture, plane_view
    from recd.daemon.sim.jpeg import JpegEncoder

    height, width = luma.shape
    chroma = (luma[::2, ::2] // 4 + 96, 160 - luma[::2, ::2] // 4)
    if payload == "mjpeg":
        encoder = JpegEncoder(width, height)
        for plane, values in zip(encoder.planes, (luma, *chroma), strict=True):
            plane[:] = values
        return encoder.encode()
    frame = new_picture(width, height)
    for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
        plane_view(plane)[:] = values
    raw: bytes = frame.reformat(format=_PIXEL_FORMATS[payload]).to_ndarray().tobytes()
    return raw


def work(
    settings: CodecSettings, camera: Request, file: Path, pictures: Sequence[bytes], seconds: float
) -> dict[str, Any]:
    """Encode for `seconds`; figures per picture of what came after the first few. RecdError,
    SinkError or PictureError as the encoder gives them."""
    from recd.daemon.encode.colour import Converter, PictureFormat
    from recd.daemon.encode.mp4 import Mp4Sink
    from recd.daemon.encode.statistics import CameraStatistics

    size = (camera.width, camera.height)
    converter = Converter(PictureFormat(camera.payload, *size))
    statistics = CameraStatistics(size=size)
    rate = Fraction(camera.fps).limit_denominator(1001)
    sink = Mp4Sink(settings, size=size, rate=rate, sync=False)
    sink.bind(file)
    until_ns = cpu_ns = wall_ns = nbytes = 0
    for k in range(_MOST):
        if k == _WARM:
            cpu_ns, wall_ns = _cpu_ns(), now_ns()
            until_ns = wall_ns + int(seconds * NS_PER_S)
        frame = converter.convert(pictures[_there_and_back(k)])
        statistics.add(frame, k)
        nbytes += sink.encode(frame, k)
        if until_ns and now_ns() > until_ns:
            break
    cpu_ns, wall_ns = _cpu_ns() - cpu_ns, now_ns() - wall_ns
    held_back = sink.held_back
    sink.finish()
    sink.settle()
    done = k + 1 - _WARM
    figures = {"cpu_ms": cpu_ns / done / NS_PER_MS, "wall_ms": wall_ns / done / NS_PER_MS,
               "nbytes": nbytes / (k + 1)}  # fmt: skip
    if held_back:
        return {"refused": "holds pictures back (no zero-delay mode)"}
    if (decoded := _decoded(file, _PICTURES)) < min(_PICTURES, k + 1):
        return {"refused": f"{decoded} pictures of {_PICTURES} can be decoded"}
    return {name: round(value, 3) for name, value in figures.items()}


def _there_and_back(k: int) -> int:
    """0, 1, ... last, ... 1, 0, ...: the object never jumps."""
    last = _PICTURES - 1
    return last - abs(last - k % (2 * last))


def _cpu_ns() -> int:
    used = os.times()
    return int((used.user + used.system) * NS_PER_S)


def _decoded(file: Path, most: int) -> int:
    import av

    with av.open(str(file)) as container:
        return sum(1 for _ in islice(container.decode(video=0), most))


def main() -> int:
    """Child process: the task on the first line of stdin; `ready`, wait for a line, figures."""
    import av

    from recd.daemon.encode.colour import PictureError
    from recd.daemon.encode.sinks import SinkError

    av.logging.set_level(av.logging.PANIC)
    os.environ.setdefault("SVT_LOG", "0")
    task = json.loads(sys.stdin.readline())
    camera = Request(**task["camera"])
    settings = CodecSettings.from_plain(task["settings"])
    file = Path(task["folder"]) / f"{camera.camera}.mp4"
    try:
        pictures = clip(camera.width, camera.height, camera.payload)
        print("ready", flush=True)
        sys.stdin.readline()
        told = work(settings, camera, file, pictures, task["seconds"])
    except (RecdError, SinkError, PictureError, OSError, av.FFmpegError) as error:
        told = {"refused": error.message if isinstance(error, RecdError) else str(error)}
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Process of the simulated cameras: `python -m recd.daemon.sim.camera --camera front:640x480@30`.

One process and one thread for all of them. Once the ports are open it prints (or writes to the
ready descriptor) one JSON line with their URLs.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from fractions import Fraction

from recd.config.errors import RecdError
from recd.daemon import realtime
from recd.daemon.sim.camera_server import CameraServer
from recd.daemon.sim.figure import IdlePose, PoseSource
from recd.daemon.sim.jpeg import PATTERNS
from recd.daemon.sim.pose import ArmPose, PoseHistory
from recd.daemon.sim.sensor import CODECS, SimCameraSpec

_CAMERA = re.compile(r"(?P<name>[\w.-]+)(:(?P<w>\d+)x(?P<h>\d+))?(@(?P<fps>\d+(\.\d+|/\d+)?))?")


def serve_cameras(
    specs: Sequence[SimCameraSpec], pose: PoseSource, ready_fd: int, *, control_path: str = ""
) -> int:
    """Serve until SIGTERM or SIGINT; returns 0. Owns the signal handlers of its process.

    Returns at once when nobody reads the report: whoever started it is ending already.

    pose: where the arm is. ready_fd: gets one JSON line {"cameras": {name: {"url": ...}},
    "control": path}, then is closed.
    """
    stop_read, stop_write = os.pipe()
    os.set_blocking(stop_write, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the wake-up descriptor does the work
    signal.set_wakeup_fd(stop_write, warn_on_full_buffer=False)
    server = CameraServer(specs, pose, control_path=control_path)
    report = {
        "cameras": {name: {"url": url} for name, url in server.urls.items()},
        "control": control_path,
    }
    try:
        with os.fdopen(ready_fd, "wb") as ready:
            ready.write(json.dumps(report).encode() + b"\n")
    except BrokenPipeError:
        server.close()
    else:
        server.run(stop_read)
    signal.set_wakeup_fd(-1)
    os.close(stop_read)
    os.close(stop_write)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of `python -m recd.daemon.sim.camera`. Exit codes: 0 stopped, 2 refused."""
    arguments = _parser().parse_args(argv)
    try:
        specs = [_spec(text, number, arguments) for number, text in enumerate(arguments.camera)]
        if arguments.ready_fd is not None:
            realtime.die_with_parent()
        ready_fd = os.dup(1) if arguments.ready_fd is None else arguments.ready_fd
        return serve_cameras(specs, _pose(arguments), ready_fd, control_path=arguments.control)
    except RecdError as error:
        print(f"recd.daemon.sim.camera: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recd.daemon.sim.camera", description=__doc__)
    add = parser.add_argument
    add("--camera", action="append", required=True, metavar="NAME[:WxH][@FPS]")
    add("--pose", help="pose file of a running simulated robot; without it the arm moves by itself")
    add("--arm", help="bus of the arm to look at, as in the pose file; default: its first follower")
    add("--port", type=int, default=0, help="of the first camera, the next ones follow; 0: any")
    add("--control", default="", help="path of the control socket for faults")
    add("--ready-fd", type=int, help="where to report the URLs; default: standard output")
    add("--phase", type=float, default=0.0, help="of the first camera, in periods")
    add("--phase-step", type=float, default=0.37, help="added for each further camera, in periods")
    add("--drift-ppm", type=float, default=20.0, help="rate error of the cameras' clocks")
    add("--shutter-jitter-ms", type=float, default=0.0)
    add("--latency-ms", type=float, default=5.0)
    add("--delivery-jitter-ms", type=float, default=1.0)
    add("--codec", choices=CODECS, default="mjpeg", help="h264: in a transport stream")
    add("--gop", type=int, default=0, help="pictures from key frame to key frame; 0: a second")
    add("--pattern", choices=sorted(PATTERNS), default="420", help="chroma of the JPEGs")
    add("--quality", type=int, default=4, help="quantiser scale, 2 (best) to 31")
    add("--seed", type=int, default=0)
    return parser


def _pose(arguments: argparse.Namespace) -> PoseSource:
    if arguments.pose is None:
        return IdlePose()
    history = PoseHistory(arguments.pose)
    buses = list(dict.fromkeys(joint.bus for joint in history.joints))
    followers = [bus for bus in buses if bus.endswith("follower")]
    bus = arguments.arm or (followers or buses)[0]
    if bus not in buses:
        raise RecdError(f"--arm: expected one of {', '.join(buses)}, found {bus}", code="config")
    return ArmPose(history, bus)


def _spec(text: str, number: int, arguments: argparse.Namespace) -> SimCameraSpec:
    match = _CAMERA.fullmatch(text)
    if match is None:
        raise RecdError(f"--camera: expected NAME[:WxH][@FPS], found {text}", code="config")
    return SimCameraSpec(
        name=match["name"],
        number=number,
        width=int(match["w"] or 640),
        height=int(match["h"] or 480),
        fps=Fraction(match["fps"] or 30).limit_denominator(1001),
        port=arguments.port + number if arguments.port else 0,
        phase=arguments.phase + number * arguments.phase_step,
        drift_ppm=arguments.drift_ppm,
        shutter_jitter_ms=arguments.shutter_jitter_ms,
        latency_ms=arguments.latency_ms,
        delivery_jitter_ms=arguments.delivery_jitter_ms,
        codec=arguments.codec,
        gop=arguments.gop,
        pattern=arguments.pattern,
        quality=arguments.quality,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    sys.exit(main())

"""Simulated V4L2 cameras for any program: `python -m recd.daemon.sim.v4l2shim --device ...`.

Prints one JSON line with the variables to start that program with, then serves until SIGTERM. A
device shows the numbered card, or an MJPEG stream frame by frame, the simulated robot's for one.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread

import numpy as np

from recd.config.errors import DeviceError, RecdError
from recd.daemon.cameras import jpeg
from recd.daemon.cameras.http import HttpSource
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraLostError, FrameInfo, Pixels
from recd.daemon.sim.v4l2shim.build import build, environment
from recd.daemon.sim.v4l2shim.pictures import numbered_card
from recd.daemon.sim.v4l2shim.server import VirtualCameraServer
from recd.daemon.sim.v4l2shim.spec import VirtualCamera, VirtualFormat, VirtualSize
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

CARD = "card"
_SLOT_BYTES = 4 << 20
_TURN_NS = 100 * NS_PER_MS


class Relay:
    """One MJPEG stream as a device: each of its frames becomes one exposure, gaps included."""

    def __init__(self, url: str, fps: Fraction, path: Path) -> None:
        self._source = HttpSource(CameraRequest(path.stem, "http", url, 0, 0, fps))
        self._memory: Pixels = np.zeros(_SLOT_BYTES, np.uint8)
        self._picture = b""
        self._source.open(lambda: True)
        first = self._next()
        if first is None:
            raise DeviceError(f"{url} delivers nothing", mend="Is the simulation running?")
        facts = jpeg.examine(self._memory[: first.nbytes])
        size = VirtualSize(facts.width, facts.height, (fps,))
        camera = VirtualCamera(formats=(VirtualFormat("MJPG", (size,)),))
        self.server = VirtualCameraServer(path, camera, lambda *_: self._picture, clocked=False)
        self._number = first.source_seq

    def _next(self) -> FrameInfo | None:
        return self._source.next_frame(lambda: self._memory, now_ns() + NS_PER_S)

    def run(self, ending: Event) -> None:
        """Until `ending` is set or the stream ends; the device is unplugged then."""
        try:
            while not ending.is_set():
                info = self._next()
                if info is None:
                    continue
                self._picture = self._memory[: info.nbytes].tobytes()
                missed = max(0, info.source_seq - self._number - 1)
                self._number = info.source_seq
                self.server.expose(info.t_capture_ns, missed=missed)
        except CameraLostError as error:
            print(f"recd.daemon.sim.v4l2shim: {error}", file=sys.stderr)
            self.server.unplug()
        finally:
            self._source.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 stopped, 2 refused."""
    parser = argparse.ArgumentParser(prog="python -m recd.daemon.sim.v4l2shim", description=__doc__)
    parser.add_argument(
        "--device", action="append", required=True, metavar="PATH=URL",
        help=f"device path and what it shows: the address of an MJPEG stream, or '{CARD}'",
    )  # fmt: skip
    parser.add_argument("--fps", type=Fraction, default=Fraction(30), help="rate of the streams")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "recd-shim")
    arguments = parser.parse_args(argv)
    ending = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        return serve(arguments.device, arguments.fps, arguments.cache, ending)
    except RecdError as error:
        print(f"recd.daemon.sim.v4l2shim: {error}", file=sys.stderr)
        return 2


def serve(devices: Sequence[str], fps: Fraction, cache: Path, ending: Event) -> int:
    """Serve `devices` (PATH=URL) until `ending`; prints the variables as one JSON line."""
    library = build(cache)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recd-v4l2-")))
        sockets: dict[str, Path] = {}
        for number, device in enumerate(devices):
            path, _, shown = device.partition("=")
            sockets[path] = folder / f"camera{number}.sock"
            if shown == CARD:
                server = VirtualCameraServer(sockets[path], VirtualCamera(), numbered_card)
                stack.enter_context(server)
                continue
            relay = Relay(shown, fps, sockets[path])
            stack.enter_context(relay.server)
            thread = Thread(target=relay.run, args=(ending,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(ending.set)
        print(json.dumps(environment(library, sockets)), flush=True)
        while not ending.wait(_TURN_NS / NS_PER_S):
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main())

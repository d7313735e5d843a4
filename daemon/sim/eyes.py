"""The cameras of a simulated robot as a child process, so that drawing never delays a servo.

`Eyes` starts and watches it; run as `python -m recd.daemon.sim.eyes READY_FD` it is that process,
with what it is to serve as one JSON line on standard input.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from recd.config.errors import DeviceError, RecdError
from recd.daemon import realtime
from recd.daemon.sim.pose import ArmPose, PoseHistory

CONTROL_NAME = "cameras.sock"


class Eyes:
    """Starts the cameras' process, which loads its modules while the arms are made.

    `open` tells it what to serve; after that `fd` becomes readable once it serves or has failed.
    """

    def __init__(self) -> None:
        read_fd, write_fd = os.pipe()
        self.fd = read_fd
        command = [sys.executable, "-m", "recd.daemon.sim.eyes", str(write_fd)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_fd,))
        os.close(write_fd)
        self._said = b""

    def open(
        self, cameras: Sequence[Mapping[str, Any]], pose_path: Path, bus: str, control_path: Path
    ) -> None:
        """Tell it what to serve, once. Poses of the arm at `bus` are read from `pose_path`."""
        wanted = {
            "cameras": [dict(camera) for camera in cameras],
            "pose": str(pose_path),
            "bus": bus,
            "control": str(control_path),
        }
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as told:  # ended: `ready` says so
            told.write(json.dumps(wanted).encode() + b"\n")

    def ready(self) -> dict[str, Any] | None:
        """Its report {"cameras": {name: {"url": ...}}, "control": path}, None while it starts.

        Call when `fd` is readable; DeviceError when the process ended instead.
        """
        chunk = os.read(self.fd, 65536)
        self._said += chunk
        if not self._said.endswith(b"\n"):
            if chunk:
                return None
            code = self.process.wait()
            raise DeviceError(
                f"simulated cameras: expected a report, the process ended with code {code}",
                mend="Its own message stands above.",
            )
        report: dict[str, Any] = json.loads(self._said)
        return report

    def ended(self) -> int | None:
        """Exit code once the process has ended."""
        return self.process.poll()

    def close(self) -> None:
        """End the process and wait for it."""
        os.close(self.fd)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(3.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main(argv: Sequence[str]) -> int:
    """Serve the cameras described on standard input. Exit codes: 0 stopped, 2 refused."""
    realtime.die_with_parent()
    from recd.daemon.sim.camera import serve_cameras
    from recd.daemon.sim.figure import IdlePose
    from recd.daemon.sim.sensor import SimCameraSpec

    if os.sched_getscheduler(0) != os.SCHED_OTHER:  # the buses' priority is not for drawing
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    line = sys.stdin.buffer.readline()
    if not line:
        return 0  # whoever was to tell what to serve has gone
    wanted = json.loads(line)
    specs = [
        SimCameraSpec(**{**camera, "fps": Fraction(camera["fps"])}) for camera in wanted["cameras"]
    ]
    try:
        bus = wanted["bus"]
        pose = ArmPose(PoseHistory(wanted["pose"]), bus) if bus else IdlePose()
        return serve_cameras(specs, pose, int(argv[0]), control_path=wanted["control"])
    except RecdError as error:
        print(f"simulated cameras: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

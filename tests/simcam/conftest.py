import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest


class SimProcess:
    def __init__(self, *arguments: str) -> None:
        read_fd, write_fd = os.pipe()
        command = [sys.executable, "-m", "recd.daemon.sim.camera", *arguments]
        self.process = subprocess.Popen(
            [*command, "--ready-fd", str(write_fd)], pass_fds=(write_fd,), stderr=subprocess.PIPE
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as ready:
            line = ready.readline()
        self.report = json.loads(line) if line else {}

    def port(self, name: str) -> int:
        return int(self.report["cameras"][name]["url"].split(":")[2].split("/")[0])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture(scope="module")
def cameras(tmp_path_factory) -> Iterator[SimProcess]:
    control = str(tmp_path_factory.mktemp("sim") / "ctl")
    sim = SimProcess(
        "--camera", "front:320x240@60", "--camera", "wrist:320x240@50", "--control", control,
        "--drift-ppm", "100",
    )  # fmt: skip
    yield sim
    assert sim.stop() == 0
    assert not os.path.exists(control)

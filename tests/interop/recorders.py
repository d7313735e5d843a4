"""Both recorders on the simulated robot: `recctl demo`, and the unmodified `lerobot-record`.

The arms are the simulated servo buses, the cameras simulated cameras behind a simulated V4L2
device. Small pictures and short episodes; no assertion here depends on how good a take is.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_side import Lerobot

from recd.daemon.sim import launch

CAMERAS = {"front": "/dev/video90", "wrist": "/dev/video92"}
TASK = "Pick the cube and place it in the bowl."
SMALL_SIZE = (320, 240)
SMALL = (
    *(f"cameras.{name}.width={SMALL_SIZE[0]}" for name in CAMERAS),
    *(f"cameras.{name}.height={SMALL_SIZE[1]}" for name in CAMERAS),
    "arms.main.rate_hz=60",
)
"""Settings of the demo preset that leave time to the other programs of a test."""

START_S = 60
RECD_S = 400


def recctl(*arguments: str | Path, check: bool = True) -> Any:
    """A recctl command with --json; what it printed, parsed. AssertionError when it fails."""
    command = [sys.executable, "-m", "recd.clients.recctl.cli", "--json", *map(str, arguments)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=RECD_S,
    )  # fmt: skip
    said = f"{' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("{"), said
    if check:
        assert done.returncode == 0, said
    return json.loads(done.stdout)


def recd_records(
    folder: Path, *, episodes: int, episode_s: float, overrides: Sequence[str] = SMALL
) -> Path:
    """`recctl demo` in this folder: creates or continues `folder/dataset`. Returns its root."""
    settings = [word for override in overrides for word in ("--set", override)]
    told = recctl(
        "demo", "-d", folder, "-n", str(episodes), "--episode-time", str(episode_s),
        "--reset-time", "0.5", *settings,
    )  # fmt: skip
    assert len(told["episodes"]) == episodes
    return Path(told["dataset"])


@dataclass(frozen=True)
class Rig:
    """The simulated robot as lerobot is told of it. variables: make its cameras visible."""

    leader: str
    follower: str
    calibration: Path
    variables: dict[str, str]


@contextmanager
def simulated_rig(folder: Path) -> Iterator[Rig]:
    """Arms, cameras and their devices, until the block ends."""
    with ExitStack() as stack:
        sim = stack.enter_context(launch.running(folder / "sim", log_path=folder / "servo.log"))
        cameras = [f"--camera={name}:{'x'.join(map(str, SMALL_SIZE))}" for name in CAMERAS]
        pose = sim.control.describe()["pose"]
        served = stack.enter_context(_server("recd.daemon.sim.camera", *cameras, "--pose", pose))
        urls = {name: camera["url"] for name, camera in served["cameras"].items()}
        devices = [f"--device={path}={urls[name]}" for name, path in CAMERAS.items()]
        shim = _server("recd.daemon.sim.v4l2shim", *devices, "--cache", str(folder / "shim"))
        variables = stack.enter_context(shim)
        yield Rig(
            leader=sim.endpoints["leader"],
            follower=sim.endpoints["follower"],
            calibration=Path(sim.calibrations["follower"]).parent,
            variables=variables,
        )


@contextmanager
def _server(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """A simulator's process; yields the JSON line it prints when it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], START_S)[0], f"{module} is not ready"
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def lerobot_records(
    side: Lerobot, rig: Rig, root: Path, *, episodes: int, episode_s: float, resume: bool
) -> Path:
    """The unmodified `lerobot-record` command line; returns the dataset's root."""
    form = "type: opencv, width: {}, height: {}, fps: 30".format(*SMALL_SIZE)
    cameras = ", ".join(
        f"{name}: {{index_or_path: {path}, {form}}}" for name, path in CAMERAS.items()
    )
    side.run(
        [
            "lerobot-record",
            "--robot.type=so101_follower",
            f"--robot.port={rig.follower}",
            "--robot.id=follower",
            f"--robot.calibration_dir={rig.calibration}",
            f"--robot.cameras={{{cameras}}}",
            "--teleop.type=so101_leader",
            f"--teleop.port={rig.leader}",
            "--teleop.id=leader",
            f"--teleop.calibration_dir={rig.calibration}",
            "--dataset.repo_id=local/recd_demo",
            f"--dataset.root={root}",
            f"--dataset.single_task={TASK}",
            f"--dataset.num_episodes={episodes}",
            f"--dataset.episode_time_s={episode_s}",
            "--dataset.reset_time_s=0.2",
            "--dataset.rgb_encoder.vcodec=h264",
            "--dataset.push_to_hub=false",
            "--play_sounds=false",
            *(["--resume=true"] if resume else []),
        ],
        variables={**rig.variables, "PATH": os.environ["PATH"]},
        name=f"lerobot-record-{root.parent.name}-{len(list(side.folder.iterdir()))}",
    )
    return root

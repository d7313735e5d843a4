"""The real, unmodified lerobot-record on the simulated buses and cameras, watched from outside.

Runs in an environment of its own (tests/interop/run makes it). Moments are those of its own log
lines; costs are the kernel's counters of its whole tree.
"""

import os
import selectors
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.sim import launch
from recd.perf import costs, v4l2_stage
from recd.perf.scenario import Scenario
from recd.perf.skew import PoseTrack
from recd.shm.clock import NS_PER_S, now_ns

VERSION = "0.6.1"

BUS = "follower"
"""Name of the bus whose arm is looked at, in the simulated robot that lerobot is given."""

START_S, SAVE_S = 120.0, 300.0

RECORDING, STOPPED = "Recording episode", "Stop recording"
"""Words of its log: the episode begins; it is saved."""

GAVE_UP = "lerobot_gave_up"
"""Code of the error of a run that began to record and ended with an error of lerobot's own."""

_TURN_S = 0.05
_LOOK_NS = 5 * NS_PER_S
_LEDGER_NS = NS_PER_S // 10


def lerobot_python() -> Path:
    """Interpreter with lerobot 0.6.1. RecdError that says how to get one."""
    asked = os.environ.get("RECD_LEROBOT_PYTHON")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    kept = os.environ.get("RECD_LEROBOT_ENV", str(cache / "recd" / f"lerobot-{VERSION}"))
    python = Path(asked) if asked else Path(kept) / "bin" / "python"
    record = python.parent / "lerobot-record"
    if not record.exists():
        raise RecdError(
            f"expected lerobot {VERSION} with {record}, found no such program",
            mend="Run 'make interop' once (it makes the environment, 6 GB), or set "
            "RECD_LEROBOT_PYTHON to the interpreter of one that is there.",
            code="lerobot",
        )
    return python


@dataclass(frozen=True, slots=True)
class PeerRig:
    """Simulated arms and cameras as lerobot is told of them. stage_pid: of the cameras' process."""

    sim: launch.RunningSim
    variables: Mapping[str, str]
    pose: Path
    stage_pid: int


@contextmanager
def rig(scenario: Scenario, folder: Path) -> Iterator[PeerRig]:
    """The devices, as long as the block lasts."""
    with launch.running(folder / "sim") as sim:
        pose = Path(sim.control.describe()["pose"])
        plan = v4l2_stage.StagePlan(
            names=scenario.camera_names, width=scenario.width, height=scenario.height,
            fps=scenario.camera_fps, pose=str(pose), bus=BUS, folder=str(folder / "v4l2"),
            fourcc=scenario.fourcc,
        )  # fmt: skip
        with v4l2_stage.running(plan) as stage:
            yield PeerRig(sim, stage.environment, pose, stage.pid)


def command(scenario: Scenario, rig: PeerRig, python: Path, root: Path) -> list[str]:
    """Its command line: the same codec, preset, crf and GOP as ours; streaming, as it is best."""
    form = (
        f"type: opencv, width: {scenario.width}, height: {scenario.height}, "
        f"fps: {scenario.camera_fps:g}, fourcc: {scenario.fourcc}"
    )
    cameras = ", ".join(
        f"{name}: {{index_or_path: {v4l2_stage.device_path(number)}, {form}}}"
        for number, name in enumerate(scenario.camera_names)
    )
    calibration = Path(rig.sim.calibrations["follower"]).parent
    codec = {"av1": "libsvtav1"}.get(scenario.vcodec, scenario.vcodec)
    return [
        str(python.parent / "lerobot-record"),
        "--robot.type=so101_follower",
        f"--robot.port={rig.sim.endpoints['follower']}",
        "--robot.id=follower",
        f"--robot.calibration_dir={calibration}",
        f"--robot.cameras={{{cameras}}}",
        "--teleop.type=so101_leader",
        f"--teleop.port={rig.sim.endpoints['leader']}",
        "--teleop.id=leader",
        f"--teleop.calibration_dir={calibration}",
        "--dataset.repo_id=local/beside",
        f"--dataset.root={root}",
        "--dataset.single_task=Pick the cube.",
        "--dataset.num_episodes=1",
        f"--dataset.fps={scenario.fps}",
        f"--dataset.episode_time_s={scenario.seconds:g}",
        "--dataset.streaming_encoding=true",
        "--dataset.encoder_threads=2",
        f"--dataset.rgb_encoder.vcodec={codec}",
        f"--dataset.rgb_encoder.crf={scenario.crf}",
        f"--dataset.rgb_encoder.g={scenario.g}",
        *([f"--dataset.rgb_encoder.preset={scenario.preset}"] if scenario.preset else []),
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
    ]


def environment(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Variables of its process: offline, its own caches, the simulated devices."""
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    own = {
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "WANDB_MODE": "disabled",
        "HF_LEROBOT_HOME": str(folder / "lerobot"), "SVT_LOG": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    return {**plain, **own, **more}


@dataclass(slots=True)
class Watched:
    """What was seen of one run. Times in CLOCK_MONOTONIC ns, 0 while they have not come."""

    began_ns: int
    recording_ns: int = 0
    saved_ns: int = 0
    before: costs.Ledger | None = None
    at_end: costs.Ledger | None = None
    last: costs.Ledger | None = None
    memory: list[list[costs.Memory]] = field(default_factory=list)
    looked_ns: int = 0
    said: bytes = b""


def record(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """One run with devices of its own; its dataset is `folder/dataset`, poses in `folder/poses`.

    RecdError with its last words when it fails. Returns waits, costs and bytes.
    """
    python = lerobot_python()
    folder.mkdir(parents=True, exist_ok=True)
    with rig(scenario, folder) as devices:
        track = PoseTrack(devices.pose, folder / "poses")
        line = command(scenario, devices, python, folder / "dataset")
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(folder, devices.variables), cwd=folder, start_new_session=True,
        )  # fmt: skip
        seen = Watched(now_ns())
        try:
            _watch(process, seen, track, seconds=scenario.seconds)
        finally:
            (folder / "lerobot.log").write_bytes(seen.said)
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode != 0 or not seen.saved_ns:
            last = seen.said.decode(errors="replace").splitlines()[-1:]
            raise RecdError(
                f"lerobot-record ended with {process.returncode}: {' '.join(last)}",
                mend=f"See {folder / 'lerobot.log'}",
                code=GAVE_UP if seen.recording_ns else "lerobot",
            )
        return _told(seen, scenario.seconds)


def _watch(
    process: "subprocess.Popen[bytes]", seen: Watched, track: PoseTrack, *, seconds: float
) -> None:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ended = False
        while not ended:
            if selector.select(_TURN_S):
                chunk = os.read(process.stdout.fileno(), 65536)
                ended = not chunk
                _hear(seen, chunk, process.pid)
            _look(seen, process.pid, track, seconds=seconds)
            limit_s = START_S if not seen.recording_ns else START_S + seconds + SAVE_S
            if now_ns() - seen.began_ns > limit_s * NS_PER_S:
                return
    process.wait(SAVE_S)


def _hear(seen: Watched, chunk: bytes, pid: int) -> None:
    seen.said += chunk
    if not seen.recording_ns and RECORDING.encode() in seen.said:
        seen.recording_ns = now_ns()
        seen.before = costs.read_ledger(costs.tree(pid, {}))
    if not seen.saved_ns and STOPPED.encode() in seen.said:
        seen.saved_ns = now_ns()


def _look(seen: Watched, pid: int, track: PoseTrack, *, seconds: float) -> None:
    """What is due: poses while it records, memory now and then, counters at and after the end."""
    now = now_ns()
    if seen.recording_ns and not seen.saved_ns:
        track.keep()
    if now >= seen.looked_ns:
        seen.looked_ns = now + _LOOK_NS
        seen.memory.append(costs.read_memory(_tree(pid)))
    if not seen.recording_ns or now < seen.recording_ns + round(seconds * NS_PER_S):
        return
    if seen.last is None or now - seen.last.at_ns >= _LEDGER_NS:
        ledger = costs.read_ledger(_tree(pid))
        if ledger.accounts:
            seen.last = ledger
            seen.at_end = seen.at_end or ledger


def _tree(pid: int) -> Sequence[costs.Process]:
    import psutil

    try:
        return costs.tree(pid, {})
    except psutil.NoSuchProcess:
        return ()


def _told(seen: Watched, seconds: float) -> dict[str, Any]:
    assert seen.before is not None
    assert seen.at_end is not None
    assert seen.last is not None
    recording = costs.used_between(seen.before, seen.at_end)
    finish = costs.used_between(seen.at_end, seen.last)
    begun = costs.Ledger(seen.began_ns, {})
    end_ns = seen.recording_ns + round(seconds * NS_PER_S)
    return {
        "start_s": (seen.recording_ns - seen.began_ns) / NS_PER_S,
        "save_s": max(0.0, (seen.saved_ns - end_ns) / NS_PER_S),
        "cores": sum(recording.cpu_s.values()) / recording.span_s,
        "finish_cpu_s": sum(finish.cpu_s.values()),
        "peak_pss_bytes": costs.peak_memory(seen.memory)["peak_pss_bytes"],
        "written_bytes": sum(costs.used_between(begun, seen.last).written_bytes.values()),
    }

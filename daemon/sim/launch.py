"""Start a simulated robot as a process of its own, and know when it answers. For tests and tools.

It ends with the process that started it, however that ends.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import DeviceError
from recd.daemon.sim.control import SimControl

_END_S = 5.0


@dataclass(frozen=True, slots=True)
class RunningSim:
    """A started robot. endpoints, calibrations: paths by bus; control: talks to it."""

    directory: Path
    endpoints: dict[str, str]
    calibrations: dict[str, str]
    control: SimControl
    process: subprocess.Popen[str]


def start(
    directory: Path | str,
    *,
    pairs: Sequence[str] = (),
    hand: str = "demo",
    settings: dict[str, Any] | None = None,
    log_path: Path | None = None,
    more: Sequence[str] = (),
) -> RunningSim:
    """Start the robot in `directory` and wait until it answers. DeviceError when it will not.

    pairs: names of leader-follower pairs with buses `<pair>.leader`, `<pair>.follower`; without
    any there is one of buses `leader` and `follower`. settings: `{"follower.seed": 3}`.
    """
    command = [sys.executable, "-m", "recd.daemon.sim", "--attached", "--dir", str(directory)]
    command += ["--hand", hand, *more]
    for pair in pairs:
        command += ["--pair", pair]
    if log_path is not None:
        command += ["--log", str(log_path)]
    for key, value in (settings or {}).items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, said = process.communicate(timeout=_END_S)
        raise DeviceError(f"the simulated robot did not start: {said.strip()}")
    facts = json.loads(line)
    return RunningSim(
        Path(facts["dir"]), facts["endpoints"], facts["calibrations"],
        SimControl(facts["dir"]), process,
    )  # fmt: skip


def stop(sim: RunningSim) -> int:
    """End it in order; returns its exit code."""
    sim.control.close()
    sim.process.terminate()
    try:
        sim.process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        sim.process.kill()
        sim.process.communicate()
    return sim.process.returncode


@contextmanager
def running(directory: Path | str, **arguments: Any) -> Iterator[RunningSim]:
    """`start` and `stop` around a block."""
    sim = start(directory, **arguments)
    try:
        yield sim
    finally:
        stop(sim)

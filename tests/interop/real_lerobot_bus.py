"""The real lerobot library drives the simulated SO-101 pair, asking nobody anything.

usage: LEROBOT_PYTHON tests/interop/real_lerobot_bus.py SIM_DIR
SIM_DIR is the directory of a running `python -m recd.daemon.sim`. Prints one JSON line of findings.
"""

import builtins
import json
import sys
from importlib.metadata import version
from pathlib import Path

from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig
from lerobot.utils.robot_utils import precise_sleep

STEPS = 240


def no_question(prompt: str = "") -> str:
    raise AssertionError(f"lerobot asked on standard input: {prompt}")


def connect(directory: Path) -> tuple[SO101Follower, SO101Leader]:
    folder = directory / "calibration"
    follower = SO101Follower(
        SO101FollowerConfig(port=str(directory / "follower"), id="follower", calibration_dir=folder)
    )
    leader = SO101Leader(
        SO101LeaderConfig(port=str(directory / "leader"), id="leader", calibration_dir=folder)
    )
    follower.connect(calibrate=True)  # would ask if the file and the servos did not agree
    leader.connect(calibrate=True)
    return follower, leader


def widest(one: dict[str, float], other: dict[str, float]) -> float:
    return max(abs(one[name] - other[name]) for name in one)


def half_turn_homing(arm: SO101Leader) -> dict[str, int]:
    """What lerobot-calibrate does first; the file's values are written back afterwards."""
    before = arm.bus.calibration
    arm.bus.disable_torque()
    arm.bus.set_half_turn_homings()
    homed = arm.bus.sync_read("Present_Position", normalize=False)
    arm.bus.write_calibration(before)
    assert arm.is_calibrated
    return homed


def main() -> int:
    directory = Path(sys.argv[1])
    builtins.input = no_question
    follower, leader = connect(directory)
    assert follower.is_calibrated
    assert leader.is_calibrated
    start = follower.get_observation()
    errors = []
    for _ in range(STEPS):
        action = leader.get_action()
        follower.send_action(action)
        state = follower.get_observation()
        errors.append(widest(state, action))
        precise_sleep(1 / 60)
    moved = widest(start, state)
    homed = half_turn_homing(leader)
    leader.disconnect()
    follower.disconnect()
    findings = {
        "lerobot": version("lerobot"),
        "steps": STEPS,
        "moved": round(moved, 2),
        "worst_error_after_1s": round(max(errors[len(errors) // 4 :]), 2),
        "joints": sorted(start),
        "half_turn": homed,
    }
    print(json.dumps(findings))
    assert len(start) == 6
    assert moved > 5.0
    assert findings["worst_error_after_1s"] < 15.0
    # The hand goes on moving the leader between homing and reading.
    assert all(abs(position - 2047) < 200 for position in homed.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())

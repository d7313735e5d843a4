"""lerobot's own robot and teleoperator classes on the simulated servo buses."""

import json

import pytest

from recd.daemon.sim import launch

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

TORQUE_OFF_AT_THE_END = 6


def test_the_real_lerobot_connects_drives_and_lets_go_without_a_question(side, tally, tmp_path):
    with launch.running(tmp_path / "sim") as sim:
        said = side.run(["real_lerobot_bus.py", str(sim.directory)], name="bus")
        requests = [entry for entry in sim.control.entries() if entry.kind == "request"]
        torque = sim.control.writes(bus="follower", name="Torque_Enable")

    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    tally.add("bus_steps", found["steps"])
    assert all(entry.heard for entry in requests)
    assert [write.value for write in torque[-TORQUE_OFF_AT_THE_END:]] == [0] * 6

import json
import os
import subprocess
from pathlib import Path

import pytest

from recd.daemon.sim import launch

SCRIPT = Path(__file__).with_name("real_lerobot_bus.py")
TORQUE_OFF_AT_THE_END = 6


@pytest.mark.interop
def test_the_real_lerobot_connects_drives_and_lets_go_without_a_question(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with launch.running(tmp_path / "sim") as sim:
        done = subprocess.run(
            [environment["RECD_LEROBOT_PYTHON"], str(SCRIPT), str(sim.directory)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            text=True,
        )
        assert done.returncode == 0, done.stderr
        requests = [entry for entry in sim.control.entries() if entry.kind == "request"]
        torque = sim.control.writes(bus="follower", name="Torque_Enable")

    assert all(entry.heard for entry in requests)
    assert [write.value for write in torque[-TORQUE_OFF_AT_THE_END:]] == [0] * 6
    assert json.loads(done.stdout.splitlines()[-1])["lerobot"]

"""An arm that was calibrated anew: refused, accepted, and told in the manifest."""

import json
import subprocess
import sys
from pathlib import Path

from .conftest import SMALL, running


def manifest(robot, uid):
    return json.loads((robot.own(uid) / "manifest.json").read_text())


def test_another_calibration_is_refused_at_start_up_until_it_is_accepted(tmp_path):
    with running(tmp_path, *SMALL) as robot:
        first = manifest(robot, robot.record(10)["uid"])
        anew = json.loads(Path(first["devices"]["main.follower"]["calibration"]).read_text())
        environment = robot.environment
        robot.end()
    assert set(first["calibration_sha256"]) == {"main.leader", "main.follower"}
    assert set(first["arm_config_sha256"]) == {"main"}
    assert "calibration_accepted" not in first

    anew["elbow_flex"]["homing_offset"] += 7
    file = tmp_path / "anew.json"
    file.write_text(json.dumps(anew))
    other_arm = f"arms.main.follower.calibration={file}"
    command = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
    for override in (f"dataset.root={robot.root}", *SMALL, other_arm):
        command += ["--set", override]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert refused.returncode != 0
    assert f"arms.main.follower: {file}: elbow_flex homing_offset expected" in refused.stderr
    assert "--set dataset.accept_calibration=true" in refused.stderr
    assert "Traceback" not in refused.stderr

    accepted = "dataset.accept_calibration=true"
    with running(tmp_path, *SMALL, other_arm, accepted) as robot:
        second = manifest(robot, robot.record(10)["uid"])
        robot.end()
    earlier = first["calibration_sha256"]["main.follower"]
    assert second["calibration_accepted"] == {"follower": [earlier]}
    assert second["calibration_sha256"]["main.follower"] != earlier

    with running(tmp_path, *SMALL, other_arm) as robot:
        assert "calibration_accepted" not in manifest(robot, robot.record(10)["uid"])
        robot.end()

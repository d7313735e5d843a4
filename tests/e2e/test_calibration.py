"""An arm that was calibrated anew: refused, accepted, and told in the manifest."""

import json
import subprocess
import sys

from .conftest import running

OTHER_ARM = "arms.main.follower.id=calibrated_anew"
CAMERAS = tuple(
    f"cameras.{name}.{key}={value}"
    for name in ("front", "wrist")
    for key, value in (("width", 320), ("height", 240))
)


def manifest(robot, uid):
    return json.loads((robot.own(uid) / "manifest.json").read_text())


def test_another_calibration_is_refused_at_start_up_until_it_is_accepted(tmp_path):
    with running(tmp_path, *CAMERAS) as robot:
        first = manifest(robot, robot.record(10)["uid"])
        environment = robot.environment
        robot.end()
    assert set(first["calibration_sha256"]) == {"main.leader", "main.follower"}
    assert set(first["arm_config_sha256"]) == {"main"}
    assert first["devices"]["main.follower"]["calibration"].endswith(".json")
    assert "calibration_accepted" not in first

    command = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
    for override in (f"dataset.root={robot.root}", *CAMERAS, OTHER_ARM):
        command += ["--set", override]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert refused.returncode != 0
    assert "arms.main.follower: " in refused.stderr
    assert "homing_offset expected" in refused.stderr
    assert "--set dataset.accept_calibration=true" in refused.stderr
    assert "Traceback" not in refused.stderr

    accepted = "dataset.accept_calibration=true"
    with running(tmp_path, *CAMERAS, OTHER_ARM, accepted) as robot:
        second = manifest(robot, robot.record(10)["uid"])
        robot.end()
    earlier = first["calibration_sha256"]["main.follower"]
    assert second["calibration_accepted"] == {"follower": [earlier]}
    assert second["calibration_sha256"]["main.follower"] != earlier

    with running(tmp_path, *CAMERAS, OTHER_ARM) as robot:
        assert "calibration_accepted" not in manifest(robot, robot.record(10)["uid"])
        robot.end()

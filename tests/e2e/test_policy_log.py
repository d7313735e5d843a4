"""`recctl policy attach --log` at a real daemon: three files that tell what was sent and done."""

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.policybench import PolicyBench, driving
from tests.rig import until

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@contextmanager
def sound(bench: PolicyBench) -> Iterator[None]:
    """A policy in a process of its own whose chunks are sound by now."""
    with driving(bench.endpoint, 30) as driver:
        for _ in range(4):
            driver.until_said("shadow")
        yield


def recctl(bench: PolicyBench, *words: str, json_too: bool = False, **how: Any) -> Any:
    command = [sys.executable, "-m", "recd.clients.recctl.cli", "-i", "demo"]
    command += ["--json"] * json_too
    return subprocess.Popen(
        [*command, *words], env=bench.robot.environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **how,
    )  # fmt: skip


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"demo_{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_attach_with_a_log_drives_and_writes_what_was_shown_answered_and_done(
    bench, tmp_path
) -> None:
    with sound(bench):
        logged = recctl(bench, "policy", "attach", "--log", "--for", "4", "--log-dir",
                        str(tmp_path))  # fmt: skip
        bench.in_state("POLICY")
        bench.client.start()
        until(lambda: bench.robot.rows() >= 20, "rows while it drives")
        said, complaints = logged.communicate(timeout=60)
        uid = bench.client.stop()["uid"]
        assert bench.motion()["state"] in ("POLICY", "HOLD"), "the log's end is not the policy's"
    assert (logged.returncode, complaints) == (0, "")
    (folder,) = (tmp_path / "dataset").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "demo_policy_inference.csv", "demo_robot_state.csv", "demo_trajectory.csv",
    ]  # fmt: skip
    for words in ("servos  shoulder_pan", "output", "timing  inference", "task    "):
        assert words in said
    states, inferences, steps = (
        table(folder, name) for name in ("robot_state", "policy_inference", "trajectory")
    )
    assert [int(row["step"]) for row in states] == list(range(1, len(states) + 1))
    assert {row["connected"] for row in states} == {"1"}
    assert "POLICY" in {row["motion"] for row in states}
    last = states[-1]
    assert all(float(last[f"{joint}.voltage"]) > 5 for joint in JOINTS)
    assert all(last[f"{joint}.load"] and last[f"{joint}.temperature"] for joint in JOINTS)
    numbers = [int(row["number"]) for row in inferences]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no chunk is missing"
    assert "applied" in {row["status"] for row in inferences}
    assert all(row["task"] for row in inferences), "the robot's, where the policy names none"
    for row in inferences:
        # drive_policy: a ramp of 0..6 over its 30 steps on the first joint, from the state
        assert float(row["output.shoulder_pan.pos"]) == float(row["input.shoulder_pan.pos"])
        assert row["steps"] == "30"
        assert 0 <= float(row["inference_ms"]) <= float(row["latency_ms"])
        assert row["holder"] == "driven by a test"
    assert len(steps) == 30 * len(inferences)
    assert any(row["applied"] == "1" for row in steps)
    assert {row["episode"] for row in steps} == {"", uid}
    ramp = [float(row["shoulder_pan.pos"]) for row in steps[:30]]
    assert ramp[-1] - ramp[0] == pytest.approx(6.0, abs=0.001)


def test_a_full_disk_costs_rows_and_one_message_and_the_policy_goes_on(bench, tmp_path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    with sound(bench):
        logged = recctl(bench, "policy", "attach", "--log", "--for", "6", "--log-dir",
                        str(tmp_path), json_too=True, preexec_fn=small_files)  # fmt: skip
        bench.in_state("POLICY")
        said, complaints = logged.communicate(timeout=60)
        bench.in_state("POLICY")
    assert logged.returncode == 0
    assert complaints.count("rows are lost until there is room again") == 1
    assert len(complaints.splitlines()) == 1
    told = json.loads(said)
    assert told["lost_rows"] > 0
    folder = Path(told["folder"])
    for name, count in told["rows"].items():
        assert len(table(folder, name)) == count
        assert (folder / f"demo_{name}.csv").stat().st_size <= 6000


def test_a_log_without_attach_moves_nothing_and_ends_with_the_lease(bench, tmp_path) -> None:
    with sound(bench):
        mark = bench.control.mark()
        logged = recctl(bench, "policy", "log", "--log-dir", str(tmp_path))
        assert "shadow" in logged.stdout.readline()
        assert all(len(set(goals)) <= 1 for goals in bench.goals(mark).values())
    said, complaints = logged.communicate(timeout=60)
    assert (logged.returncode, complaints) == (0, "")
    assert "inference log: " in said


def test_attach_that_is_refused_leaves_no_log(bench, tmp_path) -> None:
    logged = recctl(bench, "policy", "attach", "--log", "--log-dir", str(tmp_path))
    _, complaints = logged.communicate(timeout=60)
    assert logged.returncode == 1
    assert "no policy holds the lease" in complaints
    assert not list(tmp_path.rglob("*.csv"))


def test_a_log_that_is_killed_keeps_whole_rows_and_the_policy_goes_on(bench, tmp_path) -> None:
    with sound(bench):
        logged = recctl(bench, "policy", "attach", "--log", "--log-dir", str(tmp_path))
        bench.in_state("POLICY")
        until(lambda: [1 for path in tmp_path.rglob("*_trajectory.csv")
                       if path.stat().st_size > 5_000], "rows in the file")  # fmt: skip
        os.kill(logged.pid, 9)
        logged.communicate(timeout=60)
        bench.in_state("POLICY")
    (folder,) = (tmp_path / "dataset").iterdir()
    text = (folder / "demo_trajectory.csv").read_text()
    assert text.endswith("\n")
    assert len({line.count(",") for line in text.splitlines()}) == 1

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from recd.config.paths import SOCKET_PATH_BYTES

SMALL = [
    f"--set=cameras.{name}.{key}={value}"
    for name in ("front", "wrist")
    for key, value in (("width", 320), ("height", 240))
]


@pytest.fixture
def demo(tmp_path):
    """Runs `recctl demo` in a folder and a runtime folder of its own."""
    runtime = tempfile.mkdtemp(prefix="recd-demo-")
    environment = {**os.environ, "RECD_RUNTIME_DIR": runtime}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recd.clients.recctl.cli", "demo", "-n", "1",
             "--episode-time", "2", "--reset-time", "0", *arguments],
            capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=150,
        )  # fmt: skip

    assert len(runtime) < SOCKET_PATH_BYTES
    yield run
    shutil.rmtree(runtime)


def test_the_demo_takes_any_name_and_its_next_command_fits_the_dataset_it_left(demo, tmp_path):
    done = demo("--set", "name=another", *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'demo-data' / 'dataset'}: whole: 1 episodes" in done.stdout, done.stdout
    record = next(line for line in done.stdout.splitlines() if "recctl record" in line)
    assert "--resume" in record


def test_a_demo_that_is_configured_wrongly_ends_at_once_and_leaves_nothing(demo, tmp_path):
    done = demo("--set", "dataset.fps=0")
    assert done.returncode == 1
    assert "dataset.fps: expected" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_of_lerobots_wire_says_what_it_needs_before_anything_is_started(demo):
    done = demo("policy", "--wire", "lerobot")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "policy.server.lerobot: expected lerobot's interpreter" in said
    assert "python: ENVIRONMENT/bin/python" in said


def test_the_demo_of_a_policy_drives_records_and_leaves_nothing_running(demo, tmp_path):
    done = demo("policy", "--episode-time", "2", *SMALL, "--set", "name=by_policy")
    assert done.returncode == 0, done.stderr
    assert "POLICY" in done.stdout, done.stdout
    assert "adapter openpi: offering" in done.stdout
    assert len(list((tmp_path / "demo-data" / "dataset" / ".recd" / "episodes").iterdir())) == 1

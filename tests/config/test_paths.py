"""Which daemons run, as the runtime folders tell."""

import fcntl
from pathlib import Path

import pytest

from recd.config.paths import running_instances


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECD_RUNTIME_DIR", str(tmp_path))
    for name in ("alive", "killed"):
        (tmp_path / name).mkdir()
        for file in ("ctl.sock", "recd.lock"):
            (tmp_path / name / file).touch()
    return tmp_path


def test_a_folder_that_a_killed_daemon_left_does_not_count_beside_a_running_one(base: Path) -> None:
    with (base / "alive/recd.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert {"alive", "killed"} & set(running_instances()) == {"alive"}


def test_folders_whose_locks_cannot_be_seen_are_all_named(base: Path) -> None:
    assert {"alive", "killed"} <= set(running_instances())

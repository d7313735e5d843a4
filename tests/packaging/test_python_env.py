"""What a computer without the makings of an environment is told."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "python-env"
NEEDED = ("bash", "cat", "cut", "sha256sum", "dirname", "env")

OLD = 'case "$*" in *version_info*) exit 1 ;; esac; echo Python 3.9.2'
WITHOUT_VENV = 'case "$*" in *ensurepip*) exit 1 ;; esac; echo Python 3.11.2'
OFFLINE = "exit 1"


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"python3": WITHOUT_VENV}, ["has no venv module", "apt install python3-venv"]),
        ({"python3": OLD}, ["found Python 3.9.2", "uv is missing too", "pip install uv"]),
        ({"python3": OLD, "uv": OFFLINE}, ["uv could not get Python 3.12", "go online once"]),
    ],
)
def test_what_is_missing_for_an_environment_is_named_with_the_mend(tmp_path, commands, words):
    path = tmp_path / "bin"
    path.mkdir()
    for name in NEEDED:
        (path / name).symlink_to(shutil.which(name))
    for name, body in commands.items():
        (path / name).write_text(f"#!/bin/bash\n{body}\n")
        (path / name).chmod(0o755)
    told = subprocess.run(
        [str(SCRIPT), str(tmp_path / "venv")],
        env={"PATH": str(path), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 1
    for word in words:
        assert word in told.stderr
    assert not (tmp_path / "venv").exists()

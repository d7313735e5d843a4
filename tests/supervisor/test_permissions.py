"""Who may operate a daemon: its user, and a group where its runtime folder is the group's."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd.clients.client import RecdClient
from recd.clients.entry import check_reachable
from recd.config.errors import RecdError
from recd.config.messages import Request
from recd.config.paths import make_below, make_private
from recd.daemon.service import people
from recd.daemon.service.people import Account
from recd.daemon.supervisor.access import LOCAL, Caller
from recd.daemon.supervisor.control import ControlPlane
from recd.daemon.supervisor.instance import InstanceLock

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming other accounts needs root")


@pytest.fixture
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An open control plane in a folder that everybody gets to but only its group may enter."""
    import shutil
    import tempfile

    base = Path(tempfile.mkdtemp(prefix="recd-control-"))
    base.chmod(0o755)
    folder = base / "robot"
    folder.mkdir()
    folder.chmod(0o750)
    before = os.umask(0o077)  # modes do not depend on it
    control = ControlPlane(make_private(folder), _handle)
    os.umask(before)
    yield folder
    control.close()
    shutil.rmtree(base)


def _handle(request: Request, caller: Caller) -> dict[str, str]:
    assert caller is LOCAL
    return {"cmd": request.cmd}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_sockets_and_pictures_in_a_groups_folder_are_for_the_group(plane: Path) -> None:
    assert [mode(plane / name) for name in ("ctl.sock", "evt.sock")] == [0o660, 0o660]
    assert mode(make_below(plane / "snapshots")) == 0o750


def test_sockets_and_pictures_in_a_private_folder_are_for_nobody_else(tmp_path: Path) -> None:
    folder = make_private(tmp_path / "robot")
    control = ControlPlane(folder, _handle)
    assert [mode(folder / name) for name in ("ctl.sock", "evt.sock")] == [0o600, 0o600]
    assert mode(make_below(folder / "snapshots")) == 0o700
    control.close()


def test_a_folder_open_to_everybody_is_not_taken_for_a_groups(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    control = ControlPlane(folder, _handle)
    assert mode(folder / "ctl.sock") == 0o600
    control.close()


@pytest.mark.parametrize("below", ["", "robot"])
def test_a_runtime_folder_that_cannot_be_made_ends_the_start_in_words(
    tmp_path: Path, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    run = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
    ended = subprocess.run(
        [*run, "--set", f"control.runtime_dir={file / below}",
         "--set", f"dataset.root={tmp_path / 'dataset'}"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 2
    assert f"recd: {file / below}: expected a folder" in ended.stderr
    assert "RECD_RUNTIME_DIR" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert file.read_text() == "not a folder"


def test_a_folder_in_the_place_of_the_socket_is_told_in_words_and_left_alone(
    tmp_path: Path,
) -> None:
    lock = InstanceLock(tmp_path / "robot", "robot")
    (tmp_path / "robot" / "ctl.sock").mkdir()
    with pytest.raises(RecdError, match="expected a free place"):
        ControlPlane(lock.directory, _handle)
    lock.release()
    assert [path.name for path in (tmp_path / "robot").iterdir()] == ["ctl.sock"]


def account_in(group: str) -> Account:
    found = people.account("nobody")
    assert found is not None
    return people.with_groups(found, (group,))


def connects(folder: Path) -> bool:
    check_reachable(f"ipc://{folder}/ctl.sock")
    return True


@as_root
def test_a_member_of_the_group_connects_and_an_outsider_is_told_how_to_become_one(
    plane: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gid = people.group_id("daemon")
    assert gid is not None
    for path in (plane, plane / "ctl.sock", plane / "evt.sock"):
        os.chown(path, -1, gid)
    assert people.as_account(account_in("daemon"), lambda: connects(plane))
    monkeypatch.setenv("RECD_RUNTIME_DIR", str(plane.parent))
    outsider = people.account("nobody")
    assert outsider is not None
    assert people.as_account(outsider, lambda: _is_told(plane))


def _is_told(plane: Path) -> bool:
    try:
        RecdClient("robot")
    except RecdError as error:
        told = (error.code, error.message, error.mend)
        return told == (
            "permission",
            f"{plane}: permission denied: the daemon is operated by the user root and the group "
            "daemon",
            "Join the group: sudo usermod -aG daemon $USER, then log in again.",
        )
    return False

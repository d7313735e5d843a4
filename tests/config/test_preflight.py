import pytest

from recd.config import keys
from recd.config.errors import ConfigError
from recd.config.load import load_robot
from recd.daemon.preflight import check_here

NOW = "2026-01-01T00:00:00+00:00"
ENDPOINT = "control.endpoint=tcp://0.0.0.0:5591"


@pytest.fixture
def folder(tmp_path):
    keys.make_client(tmp_path / "keys", "laptop", "operate", created=NOW)
    return tmp_path / "keys"


def problems(folder, *overrides):
    given = [ENDPOINT, f"control.keys_dir={folder}", *overrides]
    robot = load_robot("demo", overrides=given, check_machine=False)
    try:
        check_here(robot, "demo", overrides=given)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_keys_that_a_daemon_can_use_are_no_problem(folder):
    assert problems(folder) == []


def test_keys_that_are_missing_are_told_with_the_key_that_names_them_and_the_mend(tmp_path):
    told = problems(tmp_path / "none")
    assert len(told) == 2
    assert all(line.startswith("control.keys_dir: expected") for line in told)
    assert all("--set control.keys_dir=" in line for line in told)
    assert "server.key" in told[0]
    assert "recctl keys make" in told[1]


@pytest.mark.parametrize(
    ("name", "mode", "who"),
    [(keys.SERVER_FILE, 0o640, "read or change"), (keys.LIST_FILE, 0o622, "change"),
     ("clients/laptop.key", 0o644, "read or change")],
)  # fmt: skip
def test_a_file_of_keys_that_others_could_use_is_told_with_its_mode_and_chmod(
    folder, name, mode, who
):
    (folder / name).chmod(mode)
    (told,) = problems(folder)
    assert f"only its owner can {who} it" in told
    assert f"mode {mode:04o} ({folder / name})" in told
    assert f"chmod 600 {folder / name}" in told


def test_a_list_on_which_everybody_is_revoked_is_told(folder):
    keys.revoke(folder, "laptop", at=NOW)
    (told,) = problems(folder)
    assert "a client that may enter" in told


@pytest.mark.parametrize("endpoint", ["", "tcp://127.0.0.1:5591", "ipc:///run/recd/x/ctl.sock"])
def test_keys_are_not_asked_for_where_the_daemon_asks_for_none(tmp_path, endpoint):
    assert problems(tmp_path / "none", f"control.endpoint={endpoint}") == []
    if endpoint.startswith("tcp"):
        assert problems(tmp_path / "none", f"control.endpoint={endpoint}", "control.curve=always")


def test_a_group_that_this_computer_does_not_have_is_told(folder):
    (told,) = problems(folder, "control.group=recd_no_such_group")
    assert "control.group: expected a group of this computer" in told
    assert "groupadd" in told

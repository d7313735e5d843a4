import os
import subprocess
import sys

from recd.daemon.arms.ports import find_again, list_ports, port_users, usb_serial_of


def test_users_of_a_terminal_are_named_by_pid_and_command() -> None:
    master, slave = os.openpty()
    path = os.ttyname(slave)
    code = f"f = open({path!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        users = port_users(path)
        other.communicate("\n")
    assert [user.pid for user in users] == [other.pid]
    assert "python" in users[0].command
    assert port_users(path) == ()
    os.close(slave)
    os.close(master)


def test_a_pseudo_terminal_has_no_usb_serial_and_is_looked_for_by_its_path(tmp_path) -> None:
    assert usb_serial_of(str(tmp_path / "gone")) == ""
    assert find_again(str(tmp_path / "gone"), "ABC") == str(tmp_path / "gone")


def test_listed_ports_are_usb_ports_that_exist() -> None:
    for port in list_ports():
        assert os.path.exists(port.device)

import grp
import os
import subprocess
import sys

import pytest

from recd.config.errors import DeviceError
from recd.daemon.arms import ports
from recd.daemon.arms.ports import find_again, list_ports, port_users, usb_serial_of
from recd.daemon.arms.scan import scan_port
from recd.daemon.permission import way_in


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


def test_a_scan_that_cannot_open_its_port_names_the_port_and_no_key(tmp_path) -> None:
    master, slave = os.openpty()
    path = os.ttyname(slave)
    code = (
        f"import serial; held = serial.Serial({path!r}, exclusive=True); "
        "print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DeviceError) as busy:
            scan_port(path)
        other.communicate("\n")
    assert busy.value.message.startswith(f"{path} is in use by ")
    assert f"(pid {other.pid})" in busy.value.message
    os.close(slave)
    os.close(master)
    with pytest.raises(DeviceError) as missing:
        scan_port(str(tmp_path / "none"))
    assert missing.value.message == f"there is no {tmp_path / 'none'}"


def test_a_pseudo_terminal_has_no_usb_serial_and_is_looked_for_by_its_path(tmp_path) -> None:
    assert usb_serial_of(str(tmp_path / "gone")) == ""
    assert find_again(str(tmp_path / "gone"), "ABC") == str(tmp_path / "gone")


def test_a_port_that_came_back_under_another_name_is_found_by_its_serial_number(
    tmp_path, monkeypatch
) -> None:
    for name, serial in (("ttyACM3", "OTHER"), ("ttyACM7", "WANTED")):
        device = tmp_path / "usb" / serial
        (device / "interface").mkdir(parents=True)
        (device / "idVendor").write_text("1a86")
        (device / "idProduct").write_text("55d3")
        (device / "serial").write_text(serial)
        tty = tmp_path / "tty" / name
        tty.mkdir(parents=True)
        (tty / "device").symlink_to(device / "interface")
    monkeypatch.setattr(ports, "_SYS_TTY", tmp_path / "tty")
    monkeypatch.setattr(ports, "_BY_ID", tmp_path / "none")
    assert find_again(str(tmp_path / "ttyACM0"), "WANTED") == "/dev/ttyACM7"
    assert find_again(str(tmp_path / "ttyACM0"), "NOBODY") == str(tmp_path / "ttyACM0")


def test_listed_ports_are_usb_ports_that_exist() -> None:
    for port in list_ports():
        assert os.path.exists(port.device)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to a group needs root")
@pytest.mark.parametrize(
    ("group", "mode", "mend"),
    [("dialout", 0o660, "sudo usermod -aG dialout $USER, then"),
     ("dialout", 0o600, "sudo chmod g+rw"), ("root", 0o660, "sudo chgrp dialout")],
)  # fmt: skip
def test_the_group_to_join_is_one_that_opens_the_port_and_never_root(tmp_path, group, mode, mend):
    node = tmp_path / "ttyACM0"
    node.touch()
    os.chown(node, -1, grp.getgrnam(group).gr_gid)
    node.chmod(mode)
    told = way_in(str(node), usual="dialout")
    assert mend in told
    assert "-aG root" not in told

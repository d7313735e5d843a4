from pathlib import Path

import pytest

from recd.daemon.doctor.bandwidth import camera_bytes_per_s, hubs_above, usb_findings
from recd.daemon.doctor.facts import Device
from recd.daemon.doctor.findings import Level
from recd.daemon.doctor.usb import above, usb_devices, usb_name_of

YUYV_480 = camera_bytes_per_s(640, 480, 30, 2.0)
MJPEG_1080 = camera_bytes_per_s(1920, 1080, 30, None)


def plug(sys: Path, name: str, speed: str, *, node: str = "", control: str = "on") -> None:
    """A device as sysfs shows it: its real folder below the hub's, a link in the bus's list."""
    root = sys / "devices" / "pci0000:00"
    parents, hub = [], above(name)
    while hub:
        parents, hub = [hub, *parents], above(hub)
    real = root.joinpath(*parents, name)
    (real / "power").mkdir(parents=True)
    (real / "speed").write_text(f"{speed}\n")
    (real / "product").write_text(f"thing {name}\n")
    (real / "power" / "control").write_text(f"{control}\n")
    listed = sys / "bus" / "usb" / "devices"
    listed.mkdir(parents=True, exist_ok=True)
    (listed / name).symlink_to(real)
    if node:
        interface = real / f"{name}:1.0"
        interface.mkdir()
        (listed / interface.name).symlink_to(interface)
        kind = "video4linux" if node.startswith("video") else "tty"
        entry = sys / "class" / kind / node
        entry.mkdir(parents=True)
        (entry / "device").symlink_to(interface)


@pytest.fixture
def sys(tmp_path):
    """Two roots; on the first a hub with two cameras and an arm, on the second nothing."""
    plug(tmp_path, "usb1", "480")
    plug(tmp_path, "usb2", "10000")
    plug(tmp_path, "1-2", "480")
    plug(tmp_path, "1-2.1", "480", node="video0")
    plug(tmp_path, "1-2.2", "480", node="video2")
    plug(tmp_path, "1-2.3", "12", node="ttyACM0", control="auto")
    return tmp_path


def camera(name, usb, bytes_per_s, *, compressed=False):
    return Device(f"cameras.{name}", f"/dev/{name}", there=True, usb=usb,
                  stream_bytes_per_s=bytes_per_s, compressed=compressed)  # fmt: skip


def judged(sys, *cameras):
    return list(usb_findings(usb_devices(sys), cameras))


def test_the_tree_is_read_from_sysfs_without_interfaces(sys):
    devices = usb_devices(sys)
    assert sorted(devices) == ["1-2", "1-2.1", "1-2.2", "1-2.3", "usb1", "usb2"]
    assert list(hubs_above(devices, "1-2.3")) == ["1-2", "usb1"]
    arm = devices["1-2.3"]
    assert (arm.speed_mbit, arm.product, arm.autosuspend) == (12.0, "thing 1-2.3", True)
    assert not devices["1-2.1"].autosuspend


def test_a_node_is_found_in_the_tree_and_one_of_no_usb_device_is_not(sys):
    assert usb_name_of("/dev/video2", sys) == "1-2.2"
    assert usb_name_of("/dev/ttyACM0", sys) == "1-2.3"
    assert usb_name_of("/dev/video9", sys) == ""


def test_a_computer_without_usb_has_no_tree(tmp_path):
    assert usb_devices(tmp_path) == {}


def test_cameras_that_fit_are_told_with_what_they_take_of_bus_and_hub(sys):
    findings = judged(sys, camera("front", "1-2.1", 3e6), camera("wrist", "1-2.2", 3e6))
    assert [(f.subject, f.level) for f in findings] == [
        ("hub 1-2", Level.OK), ("bus usb1", Level.OK)
    ]  # fmt: skip
    assert findings[0].found == "front, wrist: 6.0 of 43.0 MB/s (480 Mbit/s)"


def test_raw_cameras_that_ask_more_than_their_bus_carries_fail_with_a_mend(sys):
    three = [camera(f"c{k}", f"1-2.{k + 1}", YUYV_480 * 1.3) for k in range(2)]
    findings = judged(sys, *three)
    assert {f.level for f in findings} == {Level.FAIL}
    assert all("another controller" in f.mend for f in findings)


def test_two_raw_cameras_that_nearly_fill_the_bus_are_a_warning(sys):
    findings = judged(sys, camera("a", "1-2.1", YUYV_480), camera("b", "1-2.2", YUYV_480))
    assert {f.level for f in findings} == {Level.WARN}


def test_estimated_rates_never_fail_a_session(sys):
    three = [camera(f"c{k}", "1-2.1", MJPEG_1080, compressed=True) for k in range(3)]
    findings = judged(sys, *three)
    assert {f.level for f in findings} == {Level.WARN}
    assert "about 46.7 of 43.0 MB/s" in findings[0].found


def test_a_camera_that_came_up_at_full_speed_only_is_told_by_its_own_link(sys):
    plug(sys, "2-1", "12", node="video4")
    (own, bus) = judged(sys, camera("slow", "2-1", 4e6))
    assert (own.subject, own.level) == ("cameras.slow", Level.FAIL)
    assert bus.level is Level.OK

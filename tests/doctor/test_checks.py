from dataclasses import replace

import pytest

from recd.daemon.doctor.checks import CHECKS, examine
from recd.daemon.doctor.facts import Device, Kernels, Stream, UsbDevice
from recd.daemon.doctor.findings import Level, worst
from tests.doctor.facts_of import WELL, codec, spoiled

CAMERA = Device("cameras.front", "/dev/video0", there=True, group="video",
                stream_bytes_per_s=1e6)  # fmt: skip
BUS = Device("arms.main.follower", "/dev/ttyUSB0", there=True, group="dialout", usb="1-4")
ADAPTER = {"1-4": UsbDevice("1-4", "usb1", 12.0, autosuspend=True)}


def bad(facts, check):
    return [f for f in examine(facts) if f.check == check and f.level is not Level.OK]


def test_a_computer_on_which_all_is_well_gets_one_good_finding_of_every_check():
    facts = spoiled(
        named="robot.yaml",
        devices=(CAMERA,),
        codecs=(codec(4.0, 4.0),),
        usb={"usb1": UsbDevice("usb1", "", 480.0), "1-1": UsbDevice("1-1", "usb1", 480)},
    )
    facts = replace(facts, devices=(replace(CAMERA, usb="1-1"),))  # fmt: skip
    findings = examine(facts)
    assert {finding.check for finding in findings} == set(CHECKS)
    assert worst(findings) is Level.OK
    assert all(finding.found and not finding.mend for finding in findings)


SPOILED = [
    ("config", {"problems": (("cameras.front.fps", "0", "1..240", "Set a rate."),)}, Level.FAIL,
     "cameras.front.fps", "Set a rate."),
    ("device", {"devices": (replace(CAMERA, there=False),)}, Level.FAIL, "not connected",
     "recctl devices"),
    ("device", {"devices": (replace(CAMERA, may_use=False, way_in="Join them."),)}, Level.FAIL,
     "group video", "Join them."),
    ("device", {"devices": (replace(CAMERA, users=("cheese (pid 7)",)),)}, Level.WARN,
     "cheese (pid 7)", "End that program"),
    ("device", {"devices": (replace(BUS, latency_timer_ms=16),)}, Level.WARN, "16 ms",
     "tee /sys/class/tty/ttyUSB0/device/latency_timer"),
    ("device", {"devices": (BUS,), "usb": ADAPTER}, Level.WARN, "autosuspend",
     "/sys/bus/usb/devices/1-4/power/control"),
    ("cpu", {"governors": {"powersave": 6, "performance": 2}}, Level.WARN, "powersave on 6",
     "cpupower"),
    ("real time", {"granted": {"SCHED_FIFO 70": "refused: Operation not permitted; set x"}},
     Level.WARN, "Operation not permitted", "limits.d"),
    ("codec", {"codecs": (codec(60.0, 60.0),)}, Level.FAIL, "180%", "Fewer or smaller"),
    ("disk", {"disk": replace(WELL.disk, filesystem="tmpfs")}, Level.WARN, "power",
     "dataset.root"),
    ("disk", {"disk": replace(WELL.disk, filesystem="nfs4")}, Level.WARN, "network",
     "this computer"),
    ("disk", {"disk": replace(WELL.disk, error="/data: Permission denied")}, Level.FAIL,
     "Permission denied", "dataset.root"),
    ("disk", {"disk": replace(WELL.disk, free_bytes=400 * 10**6)}, Level.FAIL, "reserved",
     "Make space"),
    ("disk", {"disk": replace(WELL.disk, sync_ms=(5.0, 6.0, 900.0))}, Level.WARN, "900 ms",
     "SSD"),
    ("disk", {"disk": replace(WELL.disk, sync_ms=(1500.0, 1600.0))}, Level.FAIL, "1550.0 ms",
     "SSD"),
    ("memory", {"memory": replace(WELL.memory, limit_bytes=50 * 2**20)}, Level.FAIL, "50 MiB free",
     "ring_seconds"),
    ("memory", {"memory": replace(WELL.memory, files=64)}, Level.FAIL, "limit 64", "ulimit -n 300"),
    ("memory", {"memory": replace(WELL.memory, file_bytes=2**20)}, Level.FAIL, "1048576",
     "ulimit -f"),
    ("clock", {"clock": replace(WELL.clock, synchronised=False)}, Level.WARN, "not synchronised",
     "set-ntp"),
    ("clock", {"clock": replace(WELL.clock, source="hpet")}, Level.WARN, "hpet",
     "clocksource=tsc"),
    ("clock", {"clock": replace(WELL.clock, backwards=2)}, Level.FAIL, "back 2 times",
     "clocksource"),
    ("kernels", {"kernels": Kernels("/c", absent=("recd.shm.kernels",))}, Level.WARN,
     "recd.shm.kernels", "recctl demo"),
    ("kernels", {"kernels": Kernels("/c", "mounted noexec")}, Level.FAIL, "noexec",
     "RECD_CACHE_DIR"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "part", "level", "found", "mend"), SPOILED,
                         ids=[f"{row[0]}: {row[3]}" for row in SPOILED])  # fmt: skip
def test_each_fault_is_found_with_what_was_expected_and_its_mend(check, part, level, found, mend):
    facts = spoiled(**part)
    (finding,) = bad(facts, check)
    assert finding.level is level
    assert found in f"{finding.subject} {finding.found}"
    assert finding.expected
    assert mend in finding.mend
    assert worst(examine(facts)) is level


def test_what_a_computer_does_not_tell_is_no_fault_of_it():
    silent = spoiled(
        governors={}, clock=replace(WELL.clock, synchronised=None, source=""),
        memory=replace(WELL.memory, files=None), granted={},
    )  # fmt: skip
    assert worst(examine(silent)) is Level.OK


def test_a_device_that_recd_itself_uses_is_well():
    facts = spoiled(devices=(replace(CAMERA, users=("recd:camera:fro",)),))
    (finding,) = [f for f in examine(facts) if f.check == "device"]
    assert (finding.level, finding.found) == (Level.OK, "/dev/video0, in use by recd")


def test_free_space_is_told_in_episodes_by_the_bytes_that_the_codec_really_made():
    # two cameras of 10 kB a picture at 30 a second: 0.6 MB/s, 36 MB an episode
    facts = spoiled(
        codecs=(codec(4.0, 4.0),), disk=replace(WELL.disk, free_bytes=500_000_000 + 8 * 36_000_000)
    )
    (finding,) = bad(facts, "disk")
    assert finding.level is Level.WARN
    assert finding.found.startswith("8 episodes of 60 s fit")


def test_a_disk_slower_than_the_cameras_fails_and_one_with_little_spare_is_told():
    cameras = (codec(4.0, 4.0),)
    for speed, level in ((0.5e6, Level.FAIL), (1.2e6, Level.WARN)):
        disk = replace(WELL.disk, write_bytes_per_s=speed)
        (finding,) = bad(spoiled(codecs=cameras, disk=disk), "disk")
        assert (finding.level, finding.subject) == (level, "speed")


def one_codec(*codecs):
    return [f for f in examine(spoiled(codecs=codecs)) if f.check == "codec"]


def test_the_spare_is_that_of_all_cores_and_no_camera_may_take_more_than_one():
    (finding,) = one_codec(codec(11.8, 11.8, 11.8, cores=2))
    assert finding.found == "carries 3 cameras at 640x480@30, 47% to spare (measured)"
    (alone,) = one_codec(codec(30.0, cores=8))  # 0.9 of one core, 0.11 of eight
    assert (alone.level, "10% to spare" in alone.found) == (Level.WARN, True)


def test_a_codec_that_leaves_too_little_is_told_with_faster_ones_that_were_measured():
    slow, fast = codec(28.0, 28.0, cores=2), codec(9.0, 9.0, cores=2, name="h264 ultrafast")
    (finding,) = one_codec(slow, fast)
    assert finding.level is Level.WARN
    assert "h264 ultrafast leaves 73%" in finding.mend


def test_hardware_is_judged_by_the_time_that_passes_and_not_by_the_cores():
    (finding,) = one_codec(codec(0.5, 0.5, hardware=True, wall_ms=40.0))
    assert (finding.level, "120%" in finding.found) == (Level.FAIL, True)


def test_cores_that_others_used_meanwhile_are_told_apart_from_a_codec_that_is_too_slow():
    carried, disturbed = one_codec(codec(5.0, wall_ms=50.0))
    assert carried.level is Level.OK
    assert "other programs" in disturbed.found


def test_a_codec_that_does_not_work_fails_with_its_own_words():
    broken = replace(codec(1.0), streams=(Stream("c0", 640, 480, 30, refused="no device"),))
    (finding,) = one_codec(broken)
    assert (finding.level, finding.found) == (Level.FAIL, "no device")

import av
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.sim.camera_faults import CameraFault
from recd.daemon.sim.figure import IdlePose
from recd.daemon.sim.sensor import Sensor, SimCameraSpec
from recd.daemon.sim.stamp import read_stamp

START_NS = 5_000_000_123
SMALL = {"width": 160, "height": 160}


def _sensor(**options) -> Sensor:
    return Sensor(SimCameraSpec("front", **SMALL | options), IdlePose(), start_ns=START_NS)


def _picture(jpeg: bytes) -> np.ndarray:
    frame = av.CodecContext.create("mjpeg", "r").decode(av.Packet(jpeg))[0]
    return frame.to_ndarray(format="rgb24")


@settings(max_examples=30, deadline=None)
@given(st.integers(-500, 500), st.floats(0, 1, exclude_max=True), st.integers(0, 400_000))
def test_exposures_keep_the_rate_of_the_cameras_own_clock(drift_ppm, phase, slot):
    sensor = _sensor(drift_ppm=drift_ppm, phase=phase, epoch_ns=0)
    elapsed = sensor.opens_ns(slot) - sensor.opens_ns(0)
    assert abs(elapsed - slot * 1e9 / 30 / (1 + drift_ppm * 1e-6)) <= 1
    assert (sensor.start_ns - int(phase * 33_333_333)) % 33_333_333 == 0
    assert sensor.start_ns > START_NS


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 40), st.integers(0, 3_000))
def test_jitter_never_reorders_exposures(jitter_ms, slot):
    sensor = _sensor(shutter_jitter_ms=jitter_ms, seed=slot)
    opens = [sensor.opens_ns(s) for s in range(slot, slot + 20)]
    assert opens == sorted(set(opens))
    assert sensor.slot_after(opens[5]) == slot + 6
    assert sensor.slot_after(opens[5] - 1) == slot + 5


def test_the_stamp_in_the_picture_is_the_true_time_and_the_header_the_foreign_one():
    sensor = _sensor(number=9, drift_ppm=100, shutter_jitter_ms=2, epoch_ns=7_000)
    for slot in range(5):
        exposure = sensor.expose(slot)
        stamp = read_stamp(_picture(exposure.data))
        assert (stamp.camera, stamp.frame) == (9, exposure.number) == (9, slot)
        assert stamp.t_capture_us == exposure.t_capture_ns // 1000
        elapsed = exposure.t_capture_ns - sensor.start_ns
        assert exposure.stamp_ns == 7_000 + elapsed * 1_000_100 // 1_000_000


def test_two_cameras_never_share_an_epoch():
    assert _sensor().expose(0).stamp_ns != _sensor().expose(0).stamp_ns


def test_skipped_pictures_leave_a_gap_in_the_numbers_and_stalls_leave_none():
    sensor = _sensor()
    sensor.faults.add(CameraFault.SKIP, first=1, slots=2)
    sensor.faults.add(CameraFault.STALL, first=4, slots=3)
    taken = [sensor.expose(slot) for slot in range(8)]
    assert [e.number if e else None for e in taken] == [0, None, None, 3, None, None, None, 4]


def test_half_rate_halves_the_pictures_and_numbers_them_without_gap():
    sensor = _sensor()
    sensor.faults.add(CameraFault.HALF_RATE, first=0, slots=10)
    taken = [e for e in map(sensor.expose, range(10)) if e]
    assert [e.number for e in taken] == [0, 1, 2, 3, 4]
    assert np.abs(np.diff([e.t_capture_ns for e in taken]) - 66_666_667).max() <= 1


def test_a_frozen_camera_repeats_its_bytes_while_number_and_stamp_go_on():
    sensor = _sensor()
    before = sensor.expose(0)
    sensor.faults.add(CameraFault.FREEZE, first=1, slots=2)
    frozen = [sensor.expose(1), sensor.expose(2)]
    after = sensor.expose(3)
    assert [e.data == before.data for e in frozen] == [True, True]
    assert [e.number for e in (*frozen, after)] == [1, 2, 3]
    assert after.data != before.data


def test_damaged_wrong_and_black_pictures_are_what_they_say():
    sensor = _sensor(width=640, height=480)
    sensor.faults.add(CameraFault.CORRUPT, first=0, slots=1)
    sensor.faults.add(CameraFault.GARBLE, first=1, slots=1)
    sensor.faults.add(CameraFault.WRONG_SIZE, first=2, slots=1)
    sensor.faults.add(CameraFault.BLACK, first=3, slots=2)
    corrupt, garbled, small, black, darker = (sensor.expose(slot).data for slot in range(5))
    assert corrupt.startswith(b"\xff\xd8")
    assert not corrupt.endswith(b"\xff\xd9")
    assert garbled.endswith(b"\xff\xd9")
    assert b"\xff\xd4\xff\xd4" in garbled
    assert _picture(small).shape == (240, 320, 3)
    assert _picture(black).max() < 24
    assert black != darker


def test_pictures_show_the_arm_where_it_is():
    far, near = _sensor(width=320, height=240), _sensor(width=320, height=240)
    first, later = far.expose(0), near.expose(45)
    moved = np.abs(_picture(first.data).astype(int) - _picture(later.data)).max(axis=2)
    assert (moved[60:] > 40).mean() > 0.02


def test_an_unwatched_stretch_with_faults_keeps_the_numbers_right():
    sensor = _sensor()
    sensor.faults.add(CameraFault.HALF_RATE, first=0, slots=100)
    sensor.pass_over(0, 50)
    assert sensor.expose(50).number == 25

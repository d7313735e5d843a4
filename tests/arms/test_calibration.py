import json
from pathlib import Path

import pytest

from recd.config.errors import DeviceError
from recd.daemon.arms.calibration import (
    ServoCalibration,
    calibration_path,
    check_calibration,
    load_calibration,
)
from recd.daemon.arms.models import SO_JOINTS

BUS = "main.follower"


def content(shift: int = 0) -> dict[str, dict[str, int]]:
    return {
        joint.name: {
            "id": joint.servo_id,
            "drive_mode": 0,
            "homing_offset": 10 * joint.servo_id - shift,
            "range_min": 700 + shift + joint.servo_id,
            "range_max": 3300 + shift + joint.servo_id,
        }
        for joint in SO_JOINTS
    }


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def servos(data: dict[str, dict[str, int]]) -> tuple[ServoCalibration, ...]:
    fields = ("homing_offset", "range_min", "range_max")
    return tuple(ServoCalibration(*(data[j.name][f] for f in fields)) for j in SO_JOINTS)


def check(path: Path, held: tuple[ServoCalibration, ...]) -> None:
    loaded = load_calibration(path, SO_JOINTS, bus=BUS)
    check_calibration(loaded, held, joints=SO_JOINTS, bus=BUS)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_LEROBOT_CALIBRATION": "/c"}, "/c/robots/so_follower/blue.json"),
        ({"HF_LEROBOT_HOME": "/h"}, "/h/calibration/robots/so_follower/blue.json"),
        ({"HF_HOME": "/f"}, "/f/lerobot/calibration/robots/so_follower/blue.json"),
        (
            {"XDG_CACHE_HOME": "/x"},
            "/x/huggingface/lerobot/calibration/robots/so_follower/blue.json",
        ),
    ],
)
def test_default_place_follows_lerobots_environment(environ, expected) -> None:
    assert str(calibration_path("follower", "blue", environ=environ)) == expected


def test_leader_folder_missing_id_and_override() -> None:
    environ = {"HF_LEROBOT_HOME": "/h"}
    place = calibration_path("leader", "", environ=environ)
    assert str(place) == "/h/calibration/teleoperators/so_leader/None.json"
    assert str(calibration_path("leader", "x", override="/a/b.json")) == "/a/b.json"


def test_matching_servos_are_accepted(tmp_path) -> None:
    check(write(tmp_path / "blue.json", content()), servos(content()))


def test_file_of_another_arm_names_the_file_that_fits(tmp_path) -> None:
    blue = write(tmp_path / "blue.json", content())
    write(tmp_path / "green.json", content(shift=5))
    write(tmp_path / "broken.json", ["not a calibration"])
    with pytest.raises(DeviceError) as caught:
        check(blue, servos(content(shift=5)))
    assert "calibration of another arm" in caught.value.message
    assert "id: green" in caught.value.mend
    assert caught.value.code == "calibration"


def test_replaced_servo_is_named(tmp_path) -> None:
    held = list(servos(content()))
    held[2] = ServoCalibration(0, 0, 4095)
    with pytest.raises(DeviceError, match="not calibrated or replaced: elbow_flex"):
        check(write(tmp_path / "blue.json", content()), tuple(held))


def test_single_difference_shows_both_values(tmp_path) -> None:
    other = content()
    other["gripper"]["range_max"] += 1
    with pytest.raises(DeviceError, match="gripper: range_max file 3306, servo 3307"):
        check(write(tmp_path / "blue.json", content()), servos(other))


def test_missing_file_says_what_the_folder_has(tmp_path) -> None:
    write(tmp_path / "green.json", content())
    with pytest.raises(DeviceError) as caught:
        load_calibration(tmp_path / "blue.json", SO_JOINTS, bus=BUS)
    assert "that folder has green" in caught.value.message
    assert "lerobot-calibrate" in caught.value.mend


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.pop("gripper"), "not of this kind of arm"),
        (lambda data: data["gripper"].update(id=3), "expected servo id 6, found 3"),
        (lambda data: data["gripper"].update(range_min=4000), "range_min < range_max"),
        (lambda data: data["gripper"].pop("drive_mode"), "expected whole numbers"),
    ],
)
def test_damaged_files_are_refused_in_words(tmp_path, change, words) -> None:
    data = content()
    change(data)
    with pytest.raises(DeviceError, match=words):
        load_calibration(write(tmp_path / "blue.json", data), SO_JOINTS, bus=BUS)


def test_unreadable_json_is_an_operators_error(tmp_path) -> None:
    path = tmp_path / "blue.json"
    path.write_text("{")
    with pytest.raises(DeviceError, match="cannot be read as a calibration file"):
        load_calibration(path, SO_JOINTS, bus=BUS)

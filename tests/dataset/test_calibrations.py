import json

import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import CalibrationUsed

NEAR = {"elbow_flex": {"id": 3, "homing_offset": -12, "range_max": 3000}}
FAR = {"elbow_flex": {"id": 3, "homing_offset": 40, "range_max": 3000}}


def used(values, path="/home/ada/so101.json", sha256=""):
    digest = sha256 or json.dumps(values)
    return {"follower": CalibrationUsed("main.follower", digest, path, values)}


@pytest.fixture
def calibrated(studio):
    """A dataset with one episode recorded under NEAR, opened again."""
    store = studio.open()
    store.keep_calibrations(used(NEAR))
    studio.record(store, 3)
    studio.close()
    return studio.open()


def test_another_calibration_is_refused_naming_arm_file_values_and_mend(calibrated):
    with pytest.raises(DatasetError) as refused:
        calibrated.calibration_changes(used(FAR, "/home/bob/new.json"), accept=False)
    assert refused.value.code == "calibration_changed"
    for words in (
        "arms.main.follower: /home/bob/new.json",
        "elbow_flex homing_offset expected -12, found 40",
        "/home/ada/so101.json",
    ):
        assert words in refused.value.message
    assert "range_max" not in refused.value.message
    assert "--set dataset.accept_calibration=true" in refused.value.mend


def test_the_same_calibration_goes_on_without_a_word_wherever_its_file_lies(calibrated):
    assert calibrated.calibration_changes(used(NEAR, "/elsewhere.json"), accept=False) == {}


def test_an_accepted_change_is_told_once_and_both_calibrations_are_known_afterwards(calibrated):
    changes = calibrated.calibration_changes(used(FAR), accept=True)
    assert changes == {"follower": [json.dumps(NEAR)]}
    calibrated.keep_calibrations(used(FAR))
    for values in (FAR, NEAR):
        assert calibrated.calibration_changes(used(values), accept=False) == {}
    assert calibrated.known_calibrations() == {"follower": [json.dumps(NEAR), json.dumps(FAR)]}


def test_accepting_alone_changes_nothing_until_an_episode_is_saved(calibrated, studio):
    calibrated.calibration_changes(used(FAR), accept=True)
    studio.close()
    with pytest.raises(DatasetError, match="another one"):
        studio.open().calibration_changes(used(FAR), accept=False)


def test_without_earlier_episodes_any_calibration_is_the_first(studio):
    store = studio.open()
    store.keep_calibrations(used(NEAR))
    result = studio.record(store, 3)
    store.undo(result.uid)
    assert store.calibration_changes(used(FAR), accept=False) == {}
    store.keep_calibrations(used(FAR))
    studio.record(store, 3)
    assert store.known_calibrations() == {"follower": [json.dumps(FAR)]}


def test_an_arm_that_no_episode_had_is_no_change(calibrated):
    other = {"leader": CalibrationUsed("main.leader", "ab", "/l.json", NEAR)}
    assert calibrated.calibration_changes(other, accept=False) == {}


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not readable"), ('{"format": 9, "arms": {}}', "version 9")]
)
def test_a_list_of_calibrations_that_is_broken_or_newer_is_refused_untouched(
    calibrated, content, words
):
    path = calibrated.root / ".recd/calibrations.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=words):
        calibrated.calibration_changes(used(NEAR), accept=False)
    assert path.read_text() == content

import pytest

from recd.config.errors import RecdError
from recd.daemon.supervisor.disk import Disk, check_room, learn, look


def test_a_dataset_folder_that_goes_away_is_told_ends_nothing_and_may_come_back(tmp_path):
    root = tmp_path / "dataset"
    disk = look(root, Disk())
    assert (disk.low, disk.error) == (False, "")  # not made yet
    root.mkdir()
    disk = learn(look(root, disk), nbytes=1000, seconds=1)
    root.rename(tmp_path / "away")
    gone = look(root, disk)
    assert (gone.low, gone.full, gone.bytes_per_s) == (True, False, disk.bytes_per_s)
    assert gone.error == f"{root}: the dataset folder is gone"
    (tmp_path / "away").rename(root)
    assert not look(root, gone).low


def test_less_than_the_reserve_ends_the_running_episode(tmp_path):
    disk = look(tmp_path, Disk(reserve_bytes=2**62))
    assert (disk.low, disk.full) == (True, True)


def test_more_episodes_than_the_free_space_holds_are_refused_with_the_number_that_fits():
    disk = Disk(free_bytes=1_000_000_000, reserve_bytes=100_000_000, bytes_per_s=1_000_000.0)
    check_room(disk, episodes=15, episode_s=60)
    with pytest.raises(RecdError) as refused:
        check_room(disk, episodes=16, episode_s=60)
    assert "960 MB" in refused.value.message
    assert "900 MB are free" in refused.value.message
    assert refused.value.message.endswith(": 15 still fit")
    assert "-n 15" in refused.value.mend
    with pytest.raises(RecdError, match=": 0 still fit"):
        check_room(disk, episodes=1, episode_s=1000)


def test_without_a_measured_rate_nothing_is_refused():
    check_room(Disk(free_bytes=1, reserve_bytes=0), episodes=1000, episode_s=1000)

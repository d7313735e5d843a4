from recd.daemon.supervisor.disk import Disk, learn, look


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

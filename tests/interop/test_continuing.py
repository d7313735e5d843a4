"""Either program continues what the other has recorded, and nothing that was there changes."""

import pytest
from recorders import lerobot_records, recd_records

from recd.daemon.dataset.verify import fingerprints

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.fixture
def recd_continues(tally):
    def record(root):
        tally.add("recd_sessions")
        tally.add("continued")
        before = fingerprints(root)
        recd_records(root.parent, episodes=1, episode_s=2)
        assert fingerprints(root)[: len(before)] == before

    return record


@pytest.fixture
def lerobot_continues(side, rig, tally):
    def record(root):
        tally.add("lerobot_sessions")
        tally.add("continued")
        before = fingerprints(root)
        lerobot_records(side, rig, root, episodes=1, episode_s=1, resume=True)
        assert fingerprints(root)[: len(before)] == before

    return record


def test_lerobot_record_continues_a_recd_dataset(fresh, resumed, whole):
    whole(fresh, episodes=3)
    whole(resumed, episodes=5)
    assert fingerprints(resumed)[:3] == fingerprints(fresh)


def test_recd_continues_its_dataset_after_lerobot(resumed, whole, copy_of, recd_continues):
    root = copy_of(resumed)
    recd_continues(root)
    whole(root, episodes=6)


def test_recd_continues_a_dataset_that_lerobot_began_and_both_go_on(
    of_lerobot, whole, copy_of, recd_continues, lerobot_continues
):
    whole(of_lerobot, episodes=2)
    root = copy_of(of_lerobot)
    recd_continues(root)
    whole(root, episodes=3)
    lerobot_continues(root)
    whole(root, episodes=4)
    recd_continues(root)
    whole(root, episodes=5)


def test_a_packed_dataset_is_continued_by_both(packed, whole, copy_of, recd_continues,
                                               lerobot_continues):  # fmt: skip
    whole(packed, episodes=5)
    root = copy_of(packed)
    lerobot_continues(root)
    recd_continues(root)
    whole(root, episodes=7)

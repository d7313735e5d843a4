"""What leaves the trash for good: by age, by space, and never half an entry."""

import json

import pytest
from studio import Studio

from recd.daemon.dataset import DatasetStore, verify_dataset

DAY_NS = 86_400 * 10**9


def aged(root, uid: str, days: float) -> None:
    """Let an entry of the trash be so many days older."""
    note = root / ".recd/trash" / uid / "trash.json"
    content = json.loads(note.read_text())
    content["real_ns"] -= int(days * DAY_NS)
    note.write_text(json.dumps(content))


def undone(studio: Studio, lengths) -> list[str]:
    """Episodes in the trash, the first the oldest: by a day each. One more stays."""
    store = studio.open()
    uids = [studio.record(store, length).uid for length in lengths]
    for uid in reversed(uids[1:]):
        store.undo(uid)
    for days, uid in enumerate(reversed(uids[1:])):
        aged(studio.root, uid, days)
    studio.close()
    return uids[1:]


def test_the_trash_is_emptied_by_age_and_by_space_oldest_first(studio, recctl):
    first, second, third = undone(studio, (3, 4, 5, 6))
    empty = ("dataset", "trash", "empty", studio.root)
    assert recctl(*empty, "--older-than", 1.5, "--json").json["purged"] == [first]
    listed = recctl("dataset", "trash", studio.root, "--json").json["trash"]
    sizes = {entry["uid"]: entry["nbytes"] for entry in listed}
    assert set(sizes) == {second, third}
    assert "0 episodes removed" in recctl(*empty, "--keep-bytes", sum(sizes.values())).out
    told = recctl(*empty, "--keep-bytes", sizes[third], "--json").json
    assert told == {"purged": [second], "freed_bytes": sizes[second]}
    assert recctl("dataset", "undelete", studio.root, third).code == 0
    assert verify_dataset(studio.root).findings == ()


@pytest.mark.parametrize("options", [(), ("--keep-bytes", "much"), ("--older-than", "-1")])
def test_nothing_goes_where_nobody_said_what(studio, recctl, options):
    undone(studio, (3, 4))
    assert recctl("dataset", "trash", "empty", studio.root, *options).code == 2
    assert len(recctl("dataset", "trash", "list", studio.root, "--json").json["trash"]) == 1


def test_an_entry_from_the_future_is_never_too_old_but_counts_as_space(studio, recctl):
    uid = undone(studio, (3, 4))[0]
    aged(studio.root, uid, -400)
    empty = ("dataset", "trash", "empty", studio.root)
    assert recctl(*empty, "--older-than", 0, "--json").json["purged"] == []
    assert recctl(*empty, "--keep-bytes", "0GB", "--json").json["purged"] == [uid]


def test_a_purge_killed_in_its_middle_leaves_no_half_entry(studio, crash):
    uid = undone(studio, (3, 4))[0]
    assert crash(studio.root, "purge", uid, fault="purge.away:kill") == -9
    assert (studio.root / ".recd/purging" / uid).exists()
    crash(studio.root, "recover")
    assert not (studio.root / ".recd/purging").exists()
    with DatasetStore.open(studio.root) as store:
        assert store.trash() == []
    assert verify_dataset(studio.root).findings == ()

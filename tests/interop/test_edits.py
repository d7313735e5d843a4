"""lerobot's own tools on recd's datasets: merge in both orders, delete, split, each read again;
and recd's own edits, each read by lerobot."""

from pathlib import Path

import pytest
from lerobot_side import LerobotError
from recorders import recctl

from recd.daemon.dataset.verify import fingerprints

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

KINDS = ("fresh", "resumed", "packed")
STALE = "resumed"
"""Merging a dataset of several episodes files leaves their old numbers in lerobot's result."""


@pytest.fixture
def edit(side, tally, tmp_path):
    def ask(op, **arguments):
        roots = side.ask(op, **arguments, out=tmp_path / op)
        tally.add("edits")
        return [Path(root) for root in roots]

    return ask


@pytest.mark.parametrize("first", ["recd", "lerobot"])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_with_a_dataset_of_lerobot_in_either_order(
    kind, first, request, of_lerobot, whole, edit, side, tally, tmp_path
):
    parts = [request.getfixturevalue(kind), of_lerobot]
    parts = parts if first == "recd" else parts[::-1]
    prints = [digest for part in parts for digest in fingerprints(part)]
    [merged] = edit("merge", roots=parts)
    whole(merged, episodes=len(prints), stale_numbers=kind == STALE)
    assert fingerprints(merged) == prints
    if kind == STALE:
        with pytest.raises(LerobotError, match=r"FileNotFoundError|IndexError"):
            side.ask("delete", root=merged, episodes=[0], out=tmp_path / "deleted")
        tally.add("stale_merges")


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_deleted(kind, request, whole, edit):
    root = request.getfixturevalue(kind)
    prints = fingerprints(root)
    [rest] = edit("delete", root=root, episodes=[1])
    whole(rest, episodes=len(prints) - 1)
    assert fingerprints(rest) == [prints[0], *prints[2:]]


@pytest.mark.parametrize("kind", KINDS)
def test_split_in_two(kind, request, whole, edit):
    root = request.getfixturevalue(kind)
    prints = fingerprints(root)
    last = len(prints) - 1
    ends, middle = edit("split", root=root, parts={"ends": [0, last], "middle": [*range(1, last)]})
    for part, expected in ((ends, [prints[0], prints[last]]), (middle, prints[1:last])):
        whole(part, episodes=len(expected))
        assert fingerprints(part) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_lerobot_reads_and_edits_what_recd_has_edited(kind, request, copy_of, whole, edit, tally):
    root = copy_of(request.getfixturevalue(kind))
    prints = fingerprints(root)
    uid = recctl("dataset", "info", root)["episodes"][1]["uid"]
    recctl("dataset", "delete", root, uid)
    whole(root, episodes=len(prints) - 1)
    assert fingerprints(root) == [prints[0], *prints[2:]]
    recctl("dataset", "undelete", root, uid)
    whole(root, episodes=len(prints))
    assert fingerprints(root) == [prints[0], *prints[2:], prints[1]]
    recctl("dataset", "relabel", root, uid, "--task", "Another task than before.")
    whole(root, episodes=len(prints))
    tally.add("edits", 3)
    [rest] = edit("delete", root=root, episodes=[0])
    whole(rest, episodes=len(prints) - 1)
    assert fingerprints(rest) == [*prints[2:], prints[1]]

import json
import os
import subprocess
import sys

import psutil
import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import decode_episode, new_uid
from recd.daemon.dataset.boxes import read_track
from recd.daemon.dataset.decode import waiting
from recd.daemon.writer.decoding import BackgroundDecode
from tests.rig import until

FRONT = "observation.images.front"


def scramble(path, picture: int = 2) -> None:
    """Overwrite one picture of an mp4 with zeros; its boxes stay right."""
    content = bytearray(path.read_bytes())
    track = read_track(path)
    first, last = int(track.offset[picture]), int(track.offset[picture] + track.size[picture])
    content[first + 4 : last] = bytes(last - first - 4)
    path.write_bytes(content)


def video(studio, episode: int):
    return studio.root / "videos" / FRONT / f"chunk-000/file-{episode:03d}.mp4"


def test_one_published_episode_is_decoded_afterwards_and_the_result_kept(studio):
    store = studio.open()
    studio.record(store, 3)
    result = studio.record(store, 5)
    facts = decode_episode(studio.root, result.uid)
    assert facts == {"decode": {"good": True, "pictures": 10, "findings": []}}
    store.note(result.uid, facts)
    assert store.episodes()[1].manifest["decode"]["pictures"] == 10
    scramble(video(studio, 1))
    told = decode_episode(studio.root, result.uid)["decode"]
    assert told["good"] is False
    assert "file-001.mp4" in told["findings"][0]
    with pytest.raises(DatasetError, match="not in this dataset"):
        decode_episode(studio.root, "nobody")


def test_of_a_packed_video_exactly_the_pictures_of_the_episode_are_decoded(studio):
    store = studio.open()
    uids = [studio.record(store, length).uid for length in (4, 7, 5)]
    store.pack()
    (packed,) = (studio.root / "videos" / FRONT).rglob("*.mp4")
    told = [decode_episode(studio.root, uid)["decode"] for uid in uids]
    assert [each["pictures"] for each in told if each["good"]] == [8, 14, 10]
    scramble(packed, picture=13)
    told = [decode_episode(studio.root, uid)["decode"]["good"] for uid in uids]
    assert told == [True, True, False]


def test_pictures_of_an_image_dataset_are_decoded_from_the_rows(studio):
    studio.use_videos = False
    store = studio.open()
    studio.record(store, 3)
    result = studio.record(store, 4)
    assert decode_episode(studio.root, result.uid)["decode"]["pictures"] == 8


def test_what_was_not_decoded_is_known_from_the_manifests_newest_first(studio):
    store = studio.open()
    uids = [studio.record(store, 3).uid for _ in range(3)]
    assert waiting(studio.root) == uids[::-1]
    store.note(uids[1], decode_episode(studio.root, uids[1]))
    assert waiting(studio.root) == [uids[2], uids[0]]


@pytest.fixture
def decoding(studio):
    """A writer's background decoding of the studio's dataset and what it told."""
    heard: list[tuple[str, dict]] = []
    made = BackgroundDecode(studio.root, lambda uid, facts: heard.append((uid, facts["decode"])))
    made.heard = heard
    yield made
    made.close()


def until_idle(decoding) -> None:
    def turn() -> bool:
        decoding.step(recording=False)
        return decoding.idle

    until(turn, "the decoding to end")


def test_a_new_episode_is_decoded_before_those_that_earlier_sessions_left(studio, decoding):
    store = studio.open()
    old = [studio.record(store, 3).uid for _ in range(2)]
    decoding.want(studio.record(store, 4).uid)
    new = store.last_uid
    until_idle(decoding)
    assert [uid for uid, _ in decoding.heard] == [new, old[1], old[0]]
    assert [told["pictures"] for _, told in decoding.heard] == [8, 6, 6]


def test_a_broken_picture_is_told_with_its_file(studio, decoding):
    store = studio.open()
    uid = studio.record(store, 5).uid
    scramble(video(studio, 0))
    decoding.want(uid)
    until_idle(decoding)
    assert [(who, told["good"]) for who, told in decoding.heard] == [(uid, False)]
    assert "file-000.mp4" in decoding.heard[0][1]["findings"][0]


def child_of(decoding) -> psutil.Process:
    return psutil.Process(decoding._child.pid)


def until_still(decoding, child: psutil.Process) -> None:
    def stopped() -> bool:
        decoding.step(recording=True)
        return child.status() == psutil.STATUS_STOPPED

    until(stopped, "the decoder to stand still")


def test_it_stands_still_while_an_episode_is_recorded_and_ends_afterwards(studio, decoding):
    store = studio.open()
    decoding.want(studio.record(store, 5).uid)
    decoding.step(recording=False)
    child = child_of(decoding)
    until_still(decoding, child)
    before = child.cpu_times()
    for _ in range(50):
        decoding.step(recording=True)
    assert child.status() == psutil.STATUS_STOPPED
    assert child.cpu_times() == before
    assert decoding.heard == []
    until_idle(decoding)
    assert decoding.heard[0][1]["good"] is True


def test_a_list_of_what_waits_is_not_held_in_memory_while_an_episode_is_recorded(studio, decoding):
    store = studio.open()
    uid = studio.record(store, 4).uid
    decoding.step(recording=False)
    child = child_of(decoding)
    decoding.step(recording=True)
    assert not child.is_running()
    until_idle(decoding)
    assert [who for who, _ in decoding.heard] == [uid]


def test_it_runs_behind_everything_else(studio, decoding):
    store = studio.open()
    decoding.want(studio.record(store, 5).uid)
    decoding.step(recording=False)
    child = child_of(decoding)
    until(
        lambda: (
            not child.is_running()
            or child.status() == psutil.STATUS_ZOMBIE
            or os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        ),
        "the lowest priority",
    )
    until_idle(decoding)
    assert decoding.heard[0][1]["good"] is True


def test_an_episode_that_is_taken_back_is_not_decoded(studio, decoding):
    store = studio.open()
    kept, gone = studio.record(store, 3).uid, studio.record(store, 3).uid
    decoding.want(kept)
    decoding.want(gone)
    decoding.step(recording=False)
    child = child_of(decoding)
    decoding.forget(gone)
    assert not child.is_running()
    store.undo(gone)
    until_idle(decoding)
    assert {uid for uid, _ in decoding.heard} == {kept}


def test_ending_the_writer_ends_a_paused_decoder_and_the_next_start_takes_it_up(studio, decoding):
    store = studio.open()
    uid = studio.record(store, 4).uid
    decoding.want(uid)
    decoding.step(recording=False)
    child = child_of(decoding)
    until_still(decoding, child)
    decoding.close()
    assert not child.is_running()
    assert waiting(studio.root) == [uid]
    until_idle(decoding)
    assert [who for who, _ in decoding.heard] == [uid]


def test_a_decoder_that_dies_is_told_as_not_decoded_and_holds_up_nothing(studio, decoding):
    store = studio.open()
    first, second = studio.record(store, 4).uid, studio.record(store, 4).uid
    decoding.want(first)
    decoding.step(recording=False)
    child_of(decoding).kill()
    decoding.want(second)
    until_idle(decoding)
    by_uid = dict(decoding.heard)
    assert by_uid[first]["good"] is None
    assert by_uid[first]["findings"] == ["not decoded: ended by signal 9 (Killed)"]
    assert by_uid[second]["good"] is True


PARENT = """
import os, psutil, sys
from pathlib import Path
from recd.daemon.writer.decoding import BackgroundDecode
decoding = BackgroundDecode(Path(sys.argv[1]), lambda *_: None)
decoding.want(sys.argv[2])
decoding.step(recording=False)
child = psutil.Process(decoding._child.pid)
while sys.argv[3] == "paused" and child.status() != psutil.STATUS_STOPPED:
    decoding.step(recording=True)
decoding.step(recording=True)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("when", ["starting", "paused"])
def test_a_decoder_does_not_outlive_a_writer_that_is_killed(studio, when):
    store, uid = studio.open(), new_uid()
    studio.record(store, 4, uid=uid)
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(studio.root), uid, when], capture_output=True, text=True
    )
    assert done.returncode == -9
    pid = int(done.stdout)
    until(lambda: not psutil.pid_exists(pid) or is_gone(pid), "the decoder to end")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_manifest_says_from_the_first_moment_that_nothing_was_decoded_yet(studio):
    result = studio.record(studio.open(), 3)
    own = studio.root / ".recd/episodes" / result.uid / "manifest.json"
    assert json.loads(own.read_text())["decode"] == {"good": None, "pictures": 0, "findings": []}

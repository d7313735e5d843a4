import json
import os
import resource
from pathlib import Path

import av
import numpy as np
import pytest

from recd.daemon.encode.codecs import CodecSettings, info_block
from recd.daemon.encode.colour import Converter, PictureFormat
from recd.daemon.encode.images import read_pictures
from recd.daemon.encode.pictures import Fate, Pictures
from recd.daemon.encode.salvage import salvage
from recd.daemon.spill import SpillReader, SpillWriter
from recd.shm import Credit, ReaderPolicy, RingReader, RingSpec, RingWriter, create_ring
from recd.shm.clock import NS_PER_MS


def restarted(rig, uid, t0, **fields):
    rig.process.kill()
    rig.process.wait()
    rig.link.close()
    rig.start()
    rig.ready()
    rig.begin(uid=uid, t0_ns=t0, resume=True, **fields)


@pytest.mark.parametrize("vcodec", ["h264", "av1"])
def test_kill_9_in_a_take_costs_no_row_while_the_ring_holds_the_frames(make_rig, vcodec, shown):
    rig = make_rig(encoder={"vcodec": vcodec})
    rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(20), t0)
    rig.told(uid, 18)

    restarted(rig, uid, t0)
    rig.feed(range(20, 40), t0)
    rig.told(uid, 37)
    restarted(rig, uid, t0)
    rig.feed(range(40, 54), t0)
    closed = rig.end(uid, 50)

    records = rig.told(uid, 50)
    assert shown(closed["path"]) == list(range(50)) == records["source_seq"].tolist()
    assert salvage(Path(closed["path"])).whole
    assert closed["packets"] == closed["statistics"]["count"] == 50
    assert len(closed["restarted_at"]) == 2
    names = sorted(p.name for p in rig.staging(uid).iterdir())
    assert names == ["observation.images.front.mp4", "thumbs"]


def test_a_restart_goes_on_with_the_frame_after_the_last_one_shown(rig, shown, period_ns):
    # Frames 0.6 periods after their ticks, kept since they were on time: a fresh start would take
    # the one 0.4 periods before.
    uid, t0 = rig.begin()
    for number in range(20):
        late = min(number, 12) * period_ns // 20
        rig.frame(number, t0 + number * period_ns + late)
    rig.told(uid, 18)

    restarted(rig, uid, t0)
    for number in range(20, 34):
        rig.frame(number, t0 + number * period_ns + 12 * period_ns // 20)
    closed = rig.end(uid, 30)

    assert rig.told(uid, 30)["source_seq"].tolist() == list(range(30)) == shown(closed["path"])
    assert closed["counts"]["repeated"] == 0


def test_while_a_restarted_take_runs_staging_holds_a_valid_prefix(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(20), t0)
    rig.told(uid, 18)

    restarted(rig, uid, t0)
    rig.feed(range(20, 30), t0)
    rig.told(uid, 28)

    left = salvage(rig.staging(uid) / "observation.images.front.mp4")
    assert 16 <= left.frames <= 20


def test_frames_that_were_kept_late_are_taken_back_though_those_before_them_are_gone(
    make_rig, shown
):
    rig = make_rig(slots=32)
    rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(8), t0)
    rig.told(uid, 8)
    rig.freeze()
    rig.feed(range(8, 48), t0)
    # Only now does the writer look: frames 8 to 16 are overwritten or about to be.
    keeper = RingReader(rig.frames, 1, policy=ReaderPolicy.BEST_EFFORT)
    spill = SpillWriter("front", keeper, Credit(rig.frames, slack=0))
    for number in range(48, 120):
        spill.keep(rig.staging(uid))
        rig.feed(range(number, number + 1), t0)

    rig.thaw()
    closed = rig.end(uid, 115)

    numbers = shown(closed["path"])
    assert numbers[:8] == list(range(8))
    assert numbers[18:] == list(range(18, 115))
    assert closed["counts"]["lost"] == 9


def test_a_restart_without_a_file_begins_at_row_0(rig, shown):
    uid, t0 = rig.begin()
    (rig.staging(uid) / "observation.images.front.mp4").unlink()

    restarted(rig, uid, t0)
    rig.feed(range(8), t0)

    assert shown(rig.end(uid, 6)["path"]) == list(range(6))


def test_a_full_disk_fails_the_take_keeps_its_rows_and_spares_the_process(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(6), t0)
    rig.told(uid, 5)
    _, hard = resource.prlimit(rig.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(rig.process.pid, resource.RLIMIT_FSIZE, (1500, hard))
    rig.feed(range(6, 60), t0)

    failed = rig.answer("failed", uid=uid)

    assert "File too large" in failed["reason"]
    assert salvage(Path(failed["path"])).frames >= 2
    resource.prlimit(rig.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    again, t1 = rig.begin(t0_ns=t0 + 10**10)
    for k in range(9):
        rig.frame(100 + k, t1 + k * 10**9 // 30 + NS_PER_MS)
    assert shown(rig.end(again, 6)["path"]) == list(range(100, 106))


def test_a_staging_folder_that_cannot_be_written_is_told_at_begin(own_rig):
    rig = own_rig
    rig.root.mkdir(parents=True, exist_ok=True)
    (rig.root / ".recd").write_text("a file where a folder should be")
    rig.link.send(
        "begin", uid="ab" * 16, staging=str(rig.staging("ab" * 16)), t0_ns=1, rate_num=30,
        rate_den=1, grid="clock", codec={},
    )  # fmt: skip

    failed = rig.answer("failed", uid="ab" * 16)

    assert "Not a directory" in failed["reason"] or "exists" in failed["reason"]


def test_image_features_are_png_rows_and_restart_like_video(make_rig):
    rig = make_rig(video=False)
    rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(12), t0)
    rig.told(uid, 10)

    restarted(rig, uid, t0)
    rig.feed(range(12, 24), t0)
    closed = rig.end(uid, 20)

    rows = list(read_pictures(Path(closed["path"])))
    assert (closed["kind"], closed["packets"], len(rows)) == ("images", 20, 20)
    assert all(data.startswith(b"\x89PNG") for data in rows)
    assert closed["statistics"]["count"] == 20


def test_a_pinned_dataset_is_continued_with_its_codec_whatever_is_configured(make_rig, tmp_path):
    meta = tmp_path / "data" / "meta"
    meta.mkdir(parents=True)
    info = info_block(CodecSettings("av1", g=4), (160, 96), 30)
    features = {"observation.images.front": {"dtype": "video", "info": info}}
    (meta / "info.json").write_text(json.dumps({"features": features}))

    rig = make_rig()
    told = rig.answer("event")
    ready = rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(8), t0)
    closed = rig.end(uid, 6)

    assert told["event"] == "encoder.pinned"
    assert told["fields"]["asked_and_used"]["vcodec"] == ["h264", "libsvtav1"]
    assert (ready["codec"]["vcodec"], ready["codec"]["g"]) == ("libsvtav1", 4)
    with av.open(closed["path"]) as container:
        assert container.streams.video[0].codec.canonical_name == "av1"
    assert closed["pins"]["g"] == 4


def test_a_dataset_of_another_picture_size_is_refused(make_rig, tmp_path):
    meta = tmp_path / "data" / "meta"
    meta.mkdir(parents=True)
    info = info_block(CodecSettings("h264"), (640, 480), 30)
    features = {"observation.images.front": {"dtype": "video", "info": info}}
    (meta / "info.json").write_text(json.dumps({"features": features}))

    rig = make_rig()
    refused = rig.answer("refused")

    assert "the dataset has 640x480, this camera gives 160x96" in refused["message"]
    assert rig.process.wait(timeout=60) == 2


def test_auto_is_probed_once_and_used(make_rig):
    rig = make_rig(encoder={"vcodec": "auto"})

    ready = rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(6), t0)
    closed = rig.end(uid, 4)

    assert ready["probe"]["trials"][-1]["refused"] == ""
    assert closed["info"]["video.codec"] == "h264"


def test_steps_wait_for_their_take_and_each_is_a_row(make_rig, shown):
    rig = make_rig(step=True, slots=32)
    rig.ready()
    for k in range(10):  # an hour between steps: there is no deadline
        rig.frame(k, 1000 + k * 3600 * 10**9)

    uid, _ = rig.begin(t0_ns=5, grid="step")
    for k in range(10, 20):
        rig.frame(k, 1000 + k * 3600 * 10**9)
    rig.told(uid, 20)
    restarted(rig, uid, 5, grid="step")
    rig.frame(20, 1000 + 20 * 3600 * 10**9)
    closed = rig.end(uid, 21)

    records = rig.told(uid, 21)
    assert shown(closed["path"]) == list(range(21)) == records["source_seq"].tolist()
    assert not records["flags"].any()
    assert records["tick_ns"].tolist() == records["capture_ns"].tolist()


def test_a_step_that_came_together_with_the_end_is_row_0_of_the_next_take(make_rig, shown):
    rig = make_rig(step=True)
    rig.ready()
    first, _ = rig.begin(grid="step")
    for k in range(5):
        rig.frame(k, 1000 + k)
    rig.told(first, 5)
    rig.freeze()
    rig.link.send("end", uid=first, ticks=5, keep=True)
    rig.frame(5, 1005)
    rig.thaw()
    closed = rig.answer("closed", uid=first)

    second, _ = rig.begin(grid="step")
    rig.frame(6, 1006)
    rig.told(second, 1)
    again = rig.end(second, 2)

    assert shown(closed["path"]) == list(range(5))
    assert shown(again["path"]) == [5, 6]


def test_an_ended_step_take_that_is_owed_rows_closes_with_flagged_ones(make_rig, shown):
    rig = make_rig(step=True)
    rig.ready()
    uid, _ = rig.begin(grid="step")
    rig.frame(1, 1000)

    closed = rig.end(uid, 3)

    assert shown(closed["path"]) == [1, 1, 1]
    assert closed["counts"]["missing"] == 2


def test_a_slot_overwritten_while_it_waited_is_lost_not_corrupt(tmp_path):
    segment = create_ring(RingSpec("cam.x", "frame", 4, 64 * 48, meta={}))
    camera = RingWriter(segment)
    reader = RingReader(segment, policy=ReaderPolicy.BEST_EFFORT)
    pictures, nothing = (
        Pictures(Converter(PictureFormat("gray8", 64, 48))),
        SpillReader(tmp_path / "none"),
    )

    for k in range(2):
        camera.write(np.full(64 * 48, k, np.uint8), t_capture_ns=k, t_arrival_ns=k)
    held, kept = reader.take(), reader.take()
    for k in range(2, 5):
        camera.write(np.full(64 * 48, k, np.uint8), t_capture_ns=k, t_arrival_ns=k)

    assert pictures.of(held, nothing) == (None, Fate.LOST)
    assert pictures.of(kept, nothing)[1] is Fate.GOOD
    assert reader.torn == 1
    del held, kept, reader, camera
    assert os.fstat(segment.fd).st_size

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studio import FRAGMENTS, write_clip

from recd.daemon.dataset.boxes import BrokenVideoError, pictures_on_grid, read_track
from recd.daemon.dataset.delay import set_delay
from recd.daemon.dataset.remux import Clip, join
from recd.daemon.dataset.videos import media_timescale

SIZE = (48, 64)
CONTAINERS = ["faststart", FRAGMENTS, "hybrid_fragmented+frag_keyframe+empty_moov", ""]


@pytest.mark.parametrize("movflags", CONTAINERS)
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_boxes_tell_what_ffmpegs_demuxer_tells(tmp_path, movflags, codec):
    path = tmp_path / "clip.mp4"
    write_clip(path, episode=0, frames=range(11), size=SIZE, codec=codec, movflags=movflags)
    track = read_track(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert track.timescale == stream.time_base.denominator
    assert track.pts.tolist() == [packet.pts for packet in packets]
    assert track.size.tolist() == [packet.size for packet in packets]
    assert track.keyframe.tolist() == [packet.is_keyframe for packet in packets]
    assert (track.codec, track.width, track.height) == (codec, 64, 48)
    assert (track.complete, track.whole, track.has_audio) == (True, 11, False)
    assert pictures_on_grid(track, 30) is None
    assert track.average_rate == pytest.approx(30)


def test_b_frames_keep_their_shown_times_and_their_delay(tmp_path):
    path = tmp_path / "clip.mp4"
    slow = {"bf": "2", "g": "12", "tune": "film", "preset": "medium"}
    write_clip(path, episode=0, frames=range(12), size=SIZE, movflags="", options=slow)
    track = read_track(path)
    assert pictures_on_grid(track, 30) is None
    assert (np.diff(track.pts) < 0).any()
    assert track.delay > 0


@pytest.mark.parametrize("fps", [10, 15, 20, 24, 25, 30, 50, 60, 90, 100, 120, 200])
def test_timescale_is_the_one_ffmpeg_chooses(tmp_path, fps):
    path = tmp_path / "clip.mp4"
    write_clip(path, episode=0, frames=range(4), size=SIZE, fps=fps)
    track = read_track(path)
    assert track.timescale == media_timescale(fps)
    assert pictures_on_grid(track, fps) is None


@pytest.mark.parametrize("movflags", ["faststart", FRAGMENTS])
def test_a_cut_file_never_claims_more_pictures_than_a_demuxer_finds_whole(tmp_path, movflags):
    path, torn = tmp_path / "clip.mp4", tmp_path / "torn.mp4"
    write_clip(path, episode=0, frames=range(9), size=SIZE, movflags=movflags)
    content, whole = path.read_bytes(), read_track(path)
    for cut in range(0, len(content), 61):
        torn.write_bytes(content[:cut])
        try:
            track = read_track(torn)
        except BrokenVideoError:
            continue
        assert track.whole <= 9
        ends = whole.offset + whole.size
        assert track.whole <= int((ends <= cut).sum())
        assert len(track.pts) < 9 or not track.complete or cut >= ends.max()


def test_damaged_and_foreign_files_are_named_not_crashed_on(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, episode=0, frames=range(5), size=SIZE, movflags="faststart")
    content = bytearray(path.read_bytes())
    start = content.index(b"stsz")
    content[start + 12 : start + 16] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(BrokenVideoError):
        read_track(path)
    path.write_bytes(b"no video at all" * 10)
    with pytest.raises(BrokenVideoError, match="never finished"):
        read_track(path)


def test_joined_clips_show_the_same_pictures_on_the_grid(tmp_path):
    clips = []
    for number, count in enumerate((3, 1, 6)):
        path = tmp_path / f"{number}.mp4"
        write_clip(path, episode=number, frames=range(count + 1), size=SIZE)
        clips.append(Clip(path, count))
    target = tmp_path / "joined.mp4"
    assert join(clips, target, fps=30) == 10
    track = read_track(target)
    assert (len(track.pts), track.fragmented, track.timescale) == (10, False, 15360)
    assert pictures_on_grid(track, 30) is None
    with av.open(str(target)) as container:
        greens = [f.to_ndarray(format="rgb24")[24, 32, 1] for f in container.decode(video=0)]
    assert [round((int(green) - 20) / 40) for green in greens] == [0, 0, 0, 1, *[2] * 6]


def test_a_clip_shorter_than_asked_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, episode=0, frames=range(3), size=SIZE)
    with pytest.raises(ValueError, match="3 pictures, expected 4"):
        join([Clip(path, 4)], tmp_path / "joined.mp4", fps=30)


@pytest.mark.parametrize("movflags", CONTAINERS)
def test_a_delay_changes_when_pictures_are_decoded_not_when_they_are_shown(tmp_path, movflags):
    path = tmp_path / "clip.mp4"
    write_clip(path, episode=2, frames=range(7), size=SIZE, movflags=movflags)
    with av.open(str(path)) as container:
        before = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frames, changed in ((1, True), (1, False)):
        assert set_delay(path, read_track(path), frames=frames, fps=30) is changed
    track = read_track(path)
    assert (track.delay, track.complete) == (512, True)
    assert pictures_on_grid(track, 30) is None
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [packet.dts for packet in packets] == [512 * (k - 1) for k in range(7)]
    assert [packet.pts for packet in packets] == [512 * k for k in range(7)]
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    assert [frame.pts for frame in shown] == [512 * k for k in range(7)]
    after = [frame.to_ndarray(format="rgb24") for frame in shown]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_index_appended_only_in_part_leaves_the_file_readable(tmp_path):
    path, torn = tmp_path / "clip.mp4", tmp_path / "torn.mp4"
    write_clip(path, episode=2, frames=range(7), size=SIZE, movflags=CONTAINERS[2])
    first = path.stat().st_size
    set_delay(path, read_track(path), frames=1, fps=30)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"free") : content.rindex(b"free") + 4] = b"moov"
    for cut in range(first, len(content), 7):
        torn.write_bytes(content[:cut])
        with av.open(str(torn)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 7
        assert read_track(torn).whole == 7


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), movflags=st.sampled_from(CONTAINERS))
def test_any_changed_byte_is_read_or_refused_and_nothing_else(clips, at, value, movflags):
    content = bytearray(clips[movflags].read_bytes())
    content[at % len(content)] = value
    path = clips[movflags].with_suffix(".changed")
    path.write_bytes(content)
    try:
        track = read_track(path)
    except BrokenVideoError:
        return
    assert len(track.pts) == len(track.dts) == len(track.size) >= track.whole


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    made = {}
    for number, movflags in enumerate(CONTAINERS):
        made[movflags] = tmp_path_factory.mktemp("clips") / f"{number}.mp4"
        write_clip(made[movflags], episode=0, frames=range(5), size=SIZE, movflags=movflags)
    return made

from fractions import Fraction

import av
import numpy as np
import pytest

from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.encode.colour import plane_view
from recd.daemon.encode.mp4 import Mp4Sink
from recd.daemon.encode.salvage import (
    SalvageError,
    join,
    remux_prefix,
    salvage,
    whole_packets,
)

ROWS = 20


def live_file(path, picture, vcodec):
    """The bytes of a recording that was never closed, and where its complete fragments end."""
    sink = Mp4Sink(CodecSettings(vcodec), size=(320, 240), rate=Fraction(30))
    sink.bind(path)
    for k in range(ROWS):
        sink.encode(picture(k), k)
    data = path.read_bytes()
    sink.discard()
    return data


def luma(path):
    with av.open(str(path)) as container:
        return [plane_view(frame.planes[0]).copy() for frame in container.decode(video=0)]


@pytest.mark.parametrize("vcodec", ["h264", "av1"])
def test_wherever_a_file_is_cut_only_true_pictures_are_salvaged(vcodec, moving_picture, tmp_path):
    data = live_file(tmp_path / "live.mp4", moving_picture, vcodec)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(data)
    reference = luma(whole)
    counts = []

    for i, cut in enumerate([*range(8, len(data), len(data) // 25), len(data) - 1]):
        torn, mended = tmp_path / f"torn{i}.mp4", tmp_path / f"mended{i}.mp4"
        torn.write_bytes(data[:cut])
        left = salvage(torn)
        counts.append(left.frames)
        assert not left.whole
        assert left.reason
        if left.frames:
            remux_prefix(torn, mended, frames=left.frames)
            pictures = luma(mended)
            assert len(pictures) == left.frames
            assert all((a == b).all() for a, b in zip(pictures, reference, strict=False))
            assert salvage(mended).whole
            assert salvage(mended).rate == 30

    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] >= ROWS - 3


def test_zeros_where_the_disk_never_got_the_data_end_the_file(moving_picture, tmp_path):
    data = live_file(tmp_path / "live.mp4", moving_picture, "h264")
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))

    left = salvage(torn)

    assert ROWS // 2 - 3 <= left.frames <= ROWS // 2 + 3
    assert not left.whole


def test_a_prefix_has_the_exact_grid_of_the_source(moving_picture, tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    source.write_bytes(live_file(tmp_path / "live.mp4", moving_picture, "h264"))

    remux_prefix(source, target, frames=7)

    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        packets = [(p.pts, p.pts - p.dts) for p in container.demux(stream) if p.size]
        assert (stream.time_base, stream.average_rate) == (Fraction(1, 15360), 30)
        assert stream.codec_context.color_range == 1
    assert packets == [(k * 512, 512) for k in range(7)]  # LeRobot's lead of one row is kept


def test_parts_of_a_restarted_recording_become_one_file(moving_picture, tmp_path):
    first, second = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first.write_bytes(live_file(tmp_path / "live.mp4", moving_picture, "h264")[:-100])
    second.write_bytes(live_file(tmp_path / "live.mp4", moving_picture, "h264"))
    kept = whole_packets(first)

    join([(first, kept), (second, 2)], tmp_path / "c.mp4")

    pictures = luma(tmp_path / "c.mp4")
    assert kept == salvage(first).frames >= ROWS - 3
    assert salvage(tmp_path / "c.mp4").whole
    assert len(pictures) == kept + 2
    assert (pictures[kept] == luma(second)[0]).all()


def test_more_pictures_than_there_are_is_refused_and_leaves_nothing(moving_picture, tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    source.write_bytes(live_file(tmp_path / "live.mp4", moving_picture, "h264"))

    with pytest.raises(SalvageError, match="packets, 500 wanted"):
        remux_prefix(source, target, frames=500)

    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(4096)], ids=["empty", "text", "0"])
def test_what_is_no_video_holds_no_picture(content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)

    left = salvage(path)

    assert (left.frames, left.whole) == (0, False)
    assert left.reason
    assert np.isfinite(float(left.rate))

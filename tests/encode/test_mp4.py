import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from fractions import Fraction

import av
import pytest

from recd.config.errors import RecdError
from recd.daemon.digest import HEAD_BYTES, head_last_of
from recd.daemon.encode import stream_file
from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.encode.colour import black_picture, plane_view
from recd.daemon.encode.mp4 import Mp4Sink
from recd.daemon.encode.salvage import salvage

SIZE = (320, 240)
TIMESCALES = {10: 10240, 15: 15360, 24: 12288, 25: 12800, 30: 15360, 50: 12800, 60: 15360}
"""facts: lerobot_format section 8, what lerobot's own files have."""


def recorded(path, rows, picture, *, settings=CodecSettings(), fps=30):  # noqa: B008
    sink = Mp4Sink(settings, size=SIZE, rate=Fraction(fps))
    sink.bind(path)
    for k in range(rows):
        sink.encode(picture(k), k)
    sink.finish()
    return sink.settle()


def stamps(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return stream.time_base, [(p.pts, p.dts, p.duration) for p in packets]


@pytest.mark.parametrize("fps", TIMESCALES)
def test_row_k_has_pts_k_exactly_in_lerobots_time_base(fps, moving_picture, tmp_path):
    settings = CodecSettings(preset="ultrafast")
    facts = recorded(tmp_path / "a.mp4", 7, moving_picture, settings=settings, fps=fps)

    time_base, packets = stamps(tmp_path / "a.mp4")

    step = TIMESCALES[fps] // fps
    assert time_base == Fraction(1, TIMESCALES[fps])
    assert packets == [(k * step, k * step, step) for k in range(7)]
    assert facts.packets == 7
    assert facts.nbytes == (tmp_path / "a.mp4").stat().st_size


def as_lerobot_encodes(path, settings):
    """What lerobot's encoder makes of the same options, B-frames and all."""
    encoder = {"g": str(settings.g), "crf": "30"}
    encoder |= {k: str(v) for k, v in settings.extra_options.items()}
    if settings.preset:
        encoder["preset"] = str(settings.preset)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(settings.row.encoder, rate=30, options=encoder)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for k in range(40):
            frame = black_picture(128, 96)
            plane_view(frame.planes[0])[:] = 20 + k * 7 % 200
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "settings",
    [
        *(CodecSettings("h264", g=g, preset="veryfast") for g in (1, 2, 3, 30)),
        CodecSettings("h264", g=30, preset="ultrafast"),
        CodecSettings("h264", g=30, preset="veryfast", extra_options={"bf": 0}),
        CodecSettings("h264", g=30, preset="veryfast", extra_options={"bf": 1}),
        *(CodecSettings("hevc", g=g) for g in (1, 2)),
    ],
    ids=lambda s: f"{s.vcodec} g={s.g} {s.preset} {dict(s.extra_options)}",
)
def test_decode_stamps_lead_as_in_a_file_that_lerobot_makes_with_the_same_options(
    settings, moving_picture, tmp_path
):
    as_lerobot_encodes(tmp_path / "theirs.mp4", settings)
    recorded(tmp_path / "ours.mp4", 12, moving_picture, settings=settings)

    theirs, ours = (stamps(tmp_path / f"{name}.mp4")[1] for name in ("theirs", "ours"))

    lead = theirs[0][0] - theirs[0][1]
    assert lead == settings.decode_lead * 512
    assert ours == [(k * 512, k * 512 - lead, 512) for k in range(12)]
    assert salvage(tmp_path / "ours.mp4").frames == 12


@pytest.mark.parametrize("vcodec", ["h264", "av1", "hevc"])
def test_every_frame_gives_its_packet_at_once(vcodec, moving_picture, tmp_path):
    sink = Mp4Sink(CodecSettings(vcodec), size=SIZE, rate=Fraction(30))
    sink.bind(tmp_path / "a.mp4")

    for k in range(12):
        assert sink.encode(moving_picture(k), k) > 0
        assert sink.held_back == 0
    sink.finish()

    assert sink.settle().packets == 12


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_short_episodes_are_whole_files(rows, moving_picture, decoded, tmp_path):
    recorded(tmp_path / "a.mp4", rows, moving_picture)

    assert len(decoded(tmp_path / "a.mp4")) == rows
    assert salvage(tmp_path / "a.mp4").whole


@pytest.mark.parametrize("vcodec", ["h264", "av1"])
def test_the_closed_file_is_an_ordinary_tagged_mp4_that_seeks_to_any_row(
    vcodec, moving_picture, tmp_path
):
    path = tmp_path / "a.mp4"
    recorded(path, 40, moving_picture, settings=CodecSettings(vcodec))

    boxes, data, at = [], path.read_bytes(), 0
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rows = [plain(frame) for frame in container.decode(stream)]
        assert (stream.frames, stream.average_rate, stream.start_time) == (40, 30, 0)
        assert (stream.codec_context.color_range, stream.codec_context.colorspace) == (1, 6)
        for row in (39, 0, 17, 18, 5):
            container.seek(row * 512, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= row * 512)
            assert frame.pts == row * 512
            assert plain(frame) == rows[row]

    assert boxes == [b"ftyp", b"free", b"mdat", b"moov"]


def plain(frame):
    return plane_view(frame.planes[0]).tobytes()


def test_a_repeat_may_pass_the_same_picture_again(moving_picture, decoded, tmp_path):
    one = moving_picture(0)

    recorded(tmp_path / "a.mp4", 5, lambda _: one)

    pictures = decoded(tmp_path / "a.mp4")
    assert len(pictures) == 5
    assert all(abs(p.astype(int) - pictures[0]).mean() < 6 for p in pictures)


@pytest.mark.parametrize("vcodec", ["h264", "libsvtav1", "hevc"])
def test_no_thread_of_an_encoder_stands_above_the_one_that_opened_it(
    vcodec, moving_picture, tmp_path
):
    """SVT-AV1 takes SCHED_FIFO 99 for all its threads and its caller where it may (root does)."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever ran here before
    before = set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}
    sink = Mp4Sink(CodecSettings(vcodec), size=SIZE, rate=Fraction(30))
    sink.bind(tmp_path / "a.mp4")
    for k in range(4):
        sink.encode(moving_picture(k), k)
    ours = set(os.listdir("/proc/self/task")) - before
    classes = {os.sched_getscheduler(int(thread)) for thread in ours}
    sink.finish()
    assert classes == {os.SCHED_OTHER}


def test_rows_out_of_order_are_a_programming_error(moving_picture, tmp_path):
    sink = Mp4Sink(CodecSettings(), size=SIZE, rate=Fraction(30))

    with pytest.raises(ValueError, match="row 0 is next, got 1"):
        sink.encode(moving_picture(1), 1)
    sink.discard()


@pytest.mark.parametrize("vcodec", ["h264", "av1"])
@pytest.mark.parametrize("rows", [0, 5])
def test_a_discarded_recording_leaves_no_file(vcodec, rows, moving_picture, tmp_path):
    sink = Mp4Sink(CodecSettings(vcodec), size=SIZE, rate=Fraction(30))
    if rows:
        sink.bind(tmp_path / "a.mp4")
    for k in range(rows):
        sink.encode(moving_picture(k), k)

    sink.discard()

    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_does_not_open_is_an_operators_error():
    with pytest.raises(RecdError, match="encoder h264 does not open at 320x240"):
        Mp4Sink(CodecSettings("h264", preset="no-such"), size=SIZE, rate=Fraction(30))


RECORDER = """
import resource, signal, sys
from fractions import Fraction
from pathlib import Path
import av, numpy as np
from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.encode.colour import black_picture, plane_view
from recd.daemon.encode.colour import black_picture, plane_view
from recd.daemon.encode.mp4 import Mp4Sink
from recd.daemon.encode.sinks import SinkError

path, vcodec, g, end, limit = sys.argv[1:]
av.logging.set_level(av.logging.PANIC)
sink = Mp4Sink(CodecSettings(vcodec, g=int(g)), size=(320, 240), rate=Fraction(30))
sink.bind(Path(path))
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
for k in range(10_000):
    frame = black_picture(320, 240)
    noise = np.random.default_rng(k).integers(20, 220, (30, 40), np.uint8)
    plane_view(frame.planes[0])[:] = noise.repeat(8, 0).repeat(8, 1)
    try:
        sink.encode(frame, k)
    except SinkError as error:
        print("failed", k, error, flush=True)
        break
    print(k + 1, flush=True)
    if k + 1 == int(end):
        sink.finish()
        print("finished", flush=True)
        sys.stdin.read()
"""


def recorder(path, *, vcodec="h264", g=2, end=0, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", RECORDER, path, vcodec, str(g), str(end), str(limit)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"SVT_LOG": "0"},
    )  # fmt: skip


def lines_until(process, wanted):
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if wanted(lines[-1]):
            return lines
    raise AssertionError(f"ended after {lines[-1:]}")


def killed(process):
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    return rest


@pytest.mark.parametrize(
    ("vcodec", "g", "at", "may_cost"),
    [("h264", 2, 1, 2), ("h264", 2, 45, 2), ("av1", 2, 33, 2), ("h264", 250, 70, 16)],
)
def test_kill_9_costs_no_more_than_the_fragment_being_made(vcodec, g, at, may_cost, tmp_path):
    process = recorder(tmp_path / "a.mp4", vcodec=vcodec, g=g)
    seen = lines_until(process, lambda line: int(line) >= at)

    encoded = int([*seen, *killed(process)][-1])

    left = salvage(tmp_path / "a.mp4")
    assert encoded - may_cost <= left.frames <= encoded + 1
    assert not left.whole


def test_kill_9_between_the_index_and_the_patch_costs_nothing(tmp_path):
    process = recorder(tmp_path / "a.mp4", end=21)
    lines_until(process, lambda line: line == "finished")

    killed(process)

    assert salvage(tmp_path / "a.mp4").frames == 21


def test_a_full_disk_fails_the_sink_and_keeps_what_was_written(tmp_path):
    process = recorder(tmp_path / "a.mp4", limit=60_000)

    lines = lines_until(process, lambda line: line.startswith("failed"))
    killed(process)

    assert "File too large" in lines[-1]
    encoded = int(lines[-2])
    assert 10 < encoded - 4 <= salvage(tmp_path / "a.mp4").frames <= encoded


def test_an_existing_file_is_never_written_over(tmp_path):
    (tmp_path / "a.mp4").write_text("somebody's")
    sink = Mp4Sink(CodecSettings(), size=SIZE, rate=Fraction(30))

    with pytest.raises(FileExistsError):
        sink.bind(tmp_path / "a.mp4")
    sink.discard()

    assert (tmp_path / "a.mp4").read_text() == "somebody's"


def test_the_digest_is_that_of_the_file_as_its_patches_leave_it(moving_picture, tmp_path):
    facts = recorded(tmp_path / "a.mp4", 40, moving_picture)
    assert facts.nbytes > HEAD_BYTES
    assert facts.digest == said_by_hand(tmp_path / "a.mp4") == head_last_of(tmp_path / "a.mp4")


def said_by_hand(path):
    content = path.read_bytes()
    return "head-last:" + hashlib.sha256(content[4096:] + content[:4096]).hexdigest()


@pytest.mark.parametrize("size", [0, 40, 4095, 4096, 4097, 300_000])
@pytest.mark.parametrize("before", [0, 5, 5000])
def test_a_file_has_its_digest_though_patched_anywhere_and_begun_before_it_has_a_name(
    tmp_path, size, before
):
    content = random.Random(size).randbytes(size)
    file = stream_file.StreamFile()
    file.write(content[:before])
    file.bind(tmp_path / "a")
    for at in range(before, size, 1000):
        file.write(content[at : at + 1000])
    for offset in (6, 0, 4090, 4095, 200_000):
        if offset < size:
            file.seek(offset)
            file.write(b"abcdefghijkl"[: size - offset])
    file.complete()

    digest = file.settle()

    assert (tmp_path / "a").stat().st_size == size
    assert size < 20 or (tmp_path / "a").read_bytes()[:8] == b"abcdefgh"
    assert digest == said_by_hand(tmp_path / "a") == head_last_of(tmp_path / "a")


def test_what_the_disk_lost_while_recording_is_not_called_settled(tmp_path, monkeypatch):
    file = stream_file.StreamFile()
    file.bind(tmp_path / "a")
    file.write(b"head")
    refuse = [OSError(5, "Input/output error")]

    def lose_once(fd: int) -> None:
        if refuse:
            raise refuse.pop()

    monkeypatch.setattr(os, "fdatasync", lose_once)
    file.complete()

    with pytest.raises(OSError, match="Input/output"):
        file.settle()
    file.release()

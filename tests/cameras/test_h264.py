"""H.264 of cameras: access units taken apart, streams that do not fit, the source on the wire."""

import io
import socket
import threading
from contextlib import suppress
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest

from recd.config.streams import FrameFlag
from recd.daemon.cameras.h264 import (
    MOST_KEY_APART_NS,
    SPS,
    UnitJudge,
    kind_of,
    nal_units,
    parameter_sets,
    with_parameter_sets,
)
from recd.daemon.sim.stamp import read_stamp
from recd.daemon.sim.v4l2shim.spec import V4l2Fault, VirtualCamera, VirtualFormat, VirtualSize

PERIOD_NS = 33_333_333
GOP = 10


@cache
def film(frames=30, width=320, height=240, pix_fmt="yuv420p", encoder="libx264", **options):
    """Access units of a camera; options: libx264's."""
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base, context.gop_size = Fraction(1, 30), GOP
    plain = {"preset": "veryfast", "sc_threshold": "0"}
    context.options = plain | ({"tune": "zerolatency", "bf": "0"} | options)
    packets = []
    for number in range(frames):
        frame = av.VideoFrame(width, height, pix_fmt)
        for plane in frame.planes:
            np.frombuffer(plane, np.uint8)[:] = 40 + 5 * number % 200
        frame.pts = number
        packets += context.encode(frame)
    return [bytes(packet) for packet in [*packets, *context.encode(None)]]


def judged(units, *, judge=None, **facts):
    judge = judge or UnitJudge()
    found = [
        judge.examine(unit, t_capture_ns=1 + k * PERIOD_NS, **facts) for k, unit in enumerate(units)
    ]
    return judge, found


@pytest.mark.parametrize(
    "options",
    [
        {}, {"profile": "baseline"}, {"slices": "4"}, {"width": 322, "height": 238},
        {"preset": "placebo"}, {"x264-params": "aud=1:nal-hrd=vbr:vbv-maxrate=900:vbv-bufsize=900"},
        {"refs": "4", "x264-params": "force-cfr=1:overscan=show:colorprim=bt709:sar=4/3"},
    ],
    ids=str,
)  # fmt: skip
def test_size_and_key_frames_are_read_and_a_whole_stream_has_no_fault(options):
    judge, found = judged(film(**options))
    assert judge.unfit is None
    size = (options.get("width", 320), options.get("height", 240))
    assert (judge.sequence.width, judge.sequence.height) == size
    assert [facts.key for facts in found] == [k % GOP == 0 for k in range(30)]
    assert {facts.fault for facts in found} == {""}


def test_a_lost_unit_makes_all_after_it_undecodable_up_to_the_next_key_frame():
    units = film()
    _, found = judged([*units[:14], *units[15:]])
    assert [bool(facts.fault) for facts in found] == [*[False] * 14, *[True] * 5, *[False] * 10]
    assert "lost" in found[14].fault


def test_a_stream_joined_in_the_middle_of_a_group_begins_with_its_next_key_frame():
    _, found = judged(film()[3:])
    assert [bool(facts.fault) for facts in found[:8]] == [True] * 7 + [False]


def test_what_the_device_lost_or_damaged_counts_as_lost():
    units = film()
    judge, _ = judged(units[:12])
    assert judge.examine(units[12], t_capture_ns=12 * PERIOD_NS, lost=True).fault
    judge, _ = judged(units[:12])
    assert judge.examine(units[12], t_capture_ns=12 * PERIOD_NS, damaged=True).fault
    assert judge.examine(units[13], t_capture_ns=13 * PERIOD_NS).fault
    assert not judge.examine(units[20], t_capture_ns=20 * PERIOD_NS, lost=True).fault


def test_no_bytes_whatever_raise_anything_but_a_fault():
    key, other = film()[0], film()[1]
    for cut in range(120):
        judge = UnitJudge()
        judge.examine(key[:cut], t_capture_ns=1)
        judge.examine(other[:cut], t_capture_ns=2)
    noise = np.random.default_rng(3)
    for _ in range(200):
        flipped = bytearray(key[:80])
        flipped[int(noise.integers(80))] ^= 1 << int(noise.integers(8))
        UnitJudge().examine(bytes(flipped), t_capture_ns=1)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"bf": "2", "tune": "psnr"}, "reordered"),
        ({"x264-params": "interlaced=1"}, "interlaced"),
        ({"pix_fmt": "yuv422p", "profile": "high422"}, "4:2:2"),
        ({"pix_fmt": "yuv420p10le", "profile": "high10"}, "10 bits"),
    ],
)
def test_a_stream_that_cannot_be_recorded_as_it_comes_is_named(options, found):
    judge, _ = judged(film(**options))
    assert found in judge.unfit.found
    assert judge.unfit.expected
    assert judge.unfit.mend


def test_a_stream_without_key_frames_is_named_after_five_seconds():
    units = film(frames=200, **{"x264-params": "keyint=infinite:intra-refresh=1"})
    judge, _ = judged(units)
    assert 200 * PERIOD_NS > MOST_KEY_APART_NS
    assert judge.unfit.expected.startswith("a key frame (IDR) at least every 5 s")


def test_key_frames_without_parameter_sets_are_named_and_can_be_given_them():
    units = film()
    sets = parameter_sets(units[0])
    bare = [b"".join(b"\0\0\1" + nal for nal in nal_units(u) if kind_of(nal) < SPS) for u in units]
    judge, _ = judged([units[0], *bare[1:]])
    assert judge.unfit.found == "a key frame without them"
    judge, found = judged([with_parameter_sets(unit, sets) for unit in bare])
    assert judge.unfit is None
    assert not any(facts.fault for facts in found)


# ---------------------------------------------------------------------- on the wire


def transport(units, codec="h264"):
    """A transport stream of access units as libav writes it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_mux_stream(codec, 30, width=320, height=240)
        for number, unit in enumerate(units):
            packet = av.Packet(unit)
            packet.stream, packet.time_base = stream, Fraction(1, 30)
            packet.pts = packet.dts = number
            container.mux(packet)
    return buffer.getvalue()


@pytest.fixture
def serve_stream():
    """A server that sends one body to whoever asks, until the test ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(body):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.recv(4096)
                client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/MP2T\r\n\r\n" + body)

    threads = []

    def serve(body):
        threads.append(threading.Thread(target=answer, args=(body,)))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/stream.ts"

    yield serve
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(timeout=10)


ASKED = {"source": "http", "payload": "h264", "width": 320, "height": 240}


@pytest.mark.parametrize(
    ("options", "codec", "said"),
    [
        ({"bf": "2", "tune": "psnr"}, "h264", "B-frames"),
        ({"width": 160, "height": 96}, "h264", "expected 320x240"),
        ({"encoder": "libx265"}, "hevc", "found hevc"),
    ],
)
def test_a_stream_of_another_kind_is_refused_at_opening(
    read_source, serve_stream, options, codec, said
):
    url = serve_stream(transport(film(frames=60, **options), codec))
    (error,) = [line for line in read_source({**ASKED, "device": url}, frames=1)
                if line["ty"] == "error"]  # fmt: skip
    assert error["kind"] == "CameraRefusedError" or error["code"] == "size"
    assert said in error["text"]


def test_a_stream_of_foreign_make_is_read_unit_by_unit(read_source, serve_stream):
    units = film(frames=60)
    url = serve_stream(transport(units))
    said = read_source({**ASKED, "device": url}, frames=40)
    facts = [said[0][name] for name in ("payload", "stamp", "range")]
    assert facts == ["h264", "foreign", "limited"]
    sizes = [line["nbytes"] for line in said if line["ty"] == "frame"]
    # libav's muxer may put a delimiter of six bytes before each.
    assert all(0 <= got - len(unit) <= 6 for got, unit in zip(sizes, units, strict=False))
    assert len(sizes) == 40


def test_a_simulated_camera_delivers_units_whose_times_are_those_in_their_pictures(rig, sim_camera):
    camera = sim_camera("front:320x240@30", "--codec", "h264", "--gop", "10")
    worker = rig(
        {"source": "http", "device": camera.url, "width": 320, "height": 240, "fourcc": "h264"},
        payload="h264", slot_bytes=80_000,
    )  # fmt: skip
    ready = worker.await_message("ready")
    assert (ready["payload"], ready["range"]) == ("h264", "full")
    units = worker.each(60, lambda slot: (bytes(slot.payload), slot.flags, slot.t_capture_ns))
    begin = next(k for k, (_, flags, _) in enumerate(units) if flags & FrameFlag.KEY)
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.flags |= av.codec.context.Flags.low_delay
    shown = []
    for data, flags, capture_ns in units[begin:]:
        (frame,) = decoder.decode(av.Packet(data))
        stamp = read_stamp(frame.to_ndarray()[:240])
        shown.append(stamp.frame)
        if not flags & FrameFlag.STAMP_ARRIVAL:
            # 5 ms from exposure to sending; the clock map trusts the fastest delivery.
            assert 0 <= capture_ns - stamp.t_capture_ns < 20_000_000
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    keys = [k for k, (_, flags, _) in enumerate(units) if flags & FrameFlag.KEY]
    assert np.diff(keys).tolist() == [10] * (len(keys) - 1)


def test_what_a_camera_left_out_before_coding_damages_nothing(rig, sim_camera):
    camera = sim_camera("front:320x240@30", "--codec", "h264", "--gop", "10")
    worker = rig(
        {"source": "http", "device": camera.url, "width": 320, "height": 240, "fourcc": "h264"},
        payload="h264", slot_bytes=80_000,
    )  # fmt: skip
    worker.await_message("ready")
    worker.until(lambda slot: bool(slot.flags & FrameFlag.KEY))
    camera.fault("skip", frames=3)
    times = [0]

    def comes_after_the_gap(slot):
        assert not slot.flags & FrameFlag.CORRUPT
        times.append(slot.t_capture_ns)
        return 0 < times[-2] < times[-1] - 3 * PERIOD_NS

    assert worker.until(comes_after_the_gap)


def test_a_v4l2_camera_gives_its_access_units_and_what_it_dropped_breaks_only_that_group(
    rig, webcam
):
    formats = (VirtualFormat("H264", (VirtualSize(320, 240),)),)
    cam = webcam(VirtualCamera(formats=formats), pictures=lambda number, *_: film()[number % 30])
    worker = rig(
        {"device": str(cam.path), "width": 320, "height": 240, "fourcc": "h264"},
        payload="h264", slot_bytes=80_000, env=cam.environment,
    )  # fmt: skip
    ready = worker.await_message("ready")
    assert (ready["payload"], ready["stamp"], ready["frame_ids"]) == ("h264", "kernel", True)
    (slot,) = worker.frames(1)
    assert bytes(slot.payload) == film()[slot.source_seq % 30]
    last = [slot.source_seq]
    cam.server.inject(V4l2Fault.DROP, frames=1)

    def comes_after_the_gap(slot):
        gap = last[0] != slot.source_seq - 1
        last[0] = slot.source_seq
        return gap

    after = worker.until(comes_after_the_gap)
    first, broken = after.source_seq, bool(after.flags & FrameFlag.CORRUPT)
    seen = [broken, *worker.each(20, lambda slot: bool(slot.flags & FrameFlag.CORRUPT))]
    # Of the group that lost a unit all that come after it; none when its last one was lost.
    assert seen == [k < -first % 10 for k in range(21)]

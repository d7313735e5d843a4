"""Floors: what the work of a scenario costs on this machine without any of recd around it.

Copying a frame, decoding, converting and encoding the cameras' own pictures with plain PyAV, the
servos' bytes on the wire, the disk. Measured after the runs, under the same background load.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recd.daemon.arms.registers import GOAL_POSITION, POSITION_BLOCK
from recd.daemon.doctor.disk import measure_disk
from recd.daemon.encode.colour import black_picture
from recd.daemon.encode.statistics import CameraStatistics
from recd.daemon.encode.thumbnails import Thumbnails
from recd.daemon.encode.thumbnails import jpeg as thumbnail
from recd.daemon.realtime import keep_class
from recd.daemon.sim.figure import IdlePose
from recd.perf import pass_through
from recd.perf.figures import percentile
from recd.perf.scenario import Scenario
from recd.perf.v4l2_stage import Artist, StagePlan
from recd.shm.clock import NS_PER_MS, NS_PER_S, NS_PER_US, now_ns, sleep_until_ns

PICTURES = 48
"""Different pictures, played there and back: 1.6 s of the simulated arm's movement."""

CODE_S = 2.0
BAUD = 1_000_000
SERVOS = 6

_BITS_A_BYTE = 10
_FRAME_BYTES = 6
_SYNC_BYTES = 8
_COPIES = 200


def measure(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """All floors of one scenario. Takes about eight seconds."""
    payloads = drawn(scenario)
    return {
        "memcpy_us": memcpy_us(len(payloads[0])),
        "code": code(scenario, payloads),
        "code_paced": code(scenario, payloads, paced=True),
        "looks": looks(scenario, payloads),
        "wire_us": wire_us(),
        "disk": disk(folder),
    }


def drawn(scenario: Scenario) -> list[bytes]:
    """Pictures of the first simulated camera as it sends them, in the scenario's form and size."""
    plan = StagePlan(
        names=scenario.camera_names, width=scenario.width, height=scenario.height,
        fps=scenario.camera_fps, pose="", bus="", folder="", fourcc=scenario.fourcc,
    )  # fmt: skip
    artist, pose = Artist(plan, 0), IdlePose()
    period_ns = scenario.camera_period_ns
    return [artist.draw(pose, number, number * period_ns) for number in range(PICTURES)]


def memcpy_us(nbytes: int) -> float:
    """Median time (us) of copying one frame of `nbytes` into another buffer."""
    source = np.frombuffer(os.urandom(nbytes), np.uint8)
    slots = np.empty((8, nbytes), np.uint8)
    took = []
    for number in range(_COPIES):
        began = now_ns()
        slots[number % len(slots)] = source
        took.append(now_ns() - began)
    return (percentile(took, 0.5) or 0.0) / NS_PER_US


def code(scenario: Scenario, payloads: Sequence[bytes], *, paced: bool = False) -> dict[str, Any]:
    """CPU time (ms a picture, one thread) of decoding, converting, encoding with plain PyAV.

    The encoder has exactly the options of ours; nothing is written, counted or checked. paced: one
    picture each camera period, asleep in between, as a camera gives them; else one after another.
    """
    import av
    from av.video.reformatter import VideoReformatter

    av.logging.set_level(av.logging.PANIC)
    os.environ.setdefault("SVT_LOG", "0")
    with keep_class():
        encoder = _encoder(scenario)
        encoder.open()
    unpack, reformatter = _unpacker(scenario), VideoReformatter()
    spent = [0, 0, 0]
    began_ns, done, keys = now_ns(), 0, 0
    until_ns = began_ns + round(CODE_S * NS_PER_S)
    least = max(len(payloads), round(CODE_S * scenario.camera_fps)) if paced else len(payloads)
    while done < least or (not paced and now_ns() < until_ns):
        if paced:
            sleep_until_ns(began_ns + done * scenario.camera_period_ns)
        marks = [_cpu_ns()]
        frame = unpack(payloads[_there_and_back(done, len(payloads))])
        marks.append(_cpu_ns())
        picture = reformatter.reformat(
            frame, format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG",
        )  # fmt: skip
        picture.pict_type = 0  # a JPEG's frame says I, and encoders obey: every one a key frame
        picture.pts = done
        marks.append(_cpu_ns())
        keys += sum(packet.is_keyframe for packet in encoder.encode(picture))
        marks.append(_cpu_ns())
        for step in range(3):
            spent[step] += marks[step + 1] - marks[step]
        done += 1
    each = [nanoseconds / done / NS_PER_MS for nanoseconds in spent]
    names = ("decode_ms", "convert_ms", "encode_ms")
    steps = dict(zip(names, each, strict=True))
    return {**steps, "cpu_ms": sum(each), "pictures": done, "key_pictures": keys}


def looks(scenario: Scenario, payloads: Sequence[bytes]) -> dict[str, float]:
    """CPU time (ms a picture) of our own statistics and thumbnails, over an episode's rows.

    The mean of one that is really looked at, paced like `code`, times the share of rows that are.
    """
    from av.video.reformatter import VideoReformatter

    unpack, reformatter = _unpacker(scenario), VideoReformatter()
    statistics = CameraStatistics(size=(scenario.width, scenario.height))
    spent_ns, began_ns = [0, 0], now_ns()
    for k, payload in enumerate(payloads):
        picture = reformatter.reformat(unpack(payload), format="yuv420p")
        sleep_until_ns(began_ns + k * scenario.camera_period_ns)
        marks = [_cpu_ns()]
        statistics.add(picture, k)
        marks.append(_cpu_ns())
        thumbnail(picture)
        marks.append(_cpu_ns())
        for step in range(2):
            spent_ns[step] += marks[step + 1] - marks[step]
    rows, size = scenario.expected_rows, (16, 16)
    small, tried, kept = black_picture(*size), CameraStatistics(size=size), Thumbnails()
    shares = [sum(of.add(small, k) for k in range(rows)) / rows for of in (tried, kept)]
    each = [ns / len(payloads) / NS_PER_MS * share
            for ns, share in zip(spent_ns, shares, strict=True)]  # fmt: skip
    return {"statistics_ms": each[0], "thumbnails_ms": each[1]}


def _encoder(scenario: Scenario) -> Any:
    from fractions import Fraction

    import av

    settings = scenario.encoder
    context: Any = av.CodecContext.create(settings.row.encoder, "w")
    context.width, context.height = scenario.width, scenario.height
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, scenario.fps)
    context.framerate = Fraction(scenario.fps)
    context.options = settings.options()
    context.thread_count = settings.threads
    return context


def _unpacker(scenario: Scenario) -> Any:
    """payload -> libav's frame, as cheaply as libav can."""
    import av

    if scenario.fourcc == "YUYV":
        form = "yuyv422"

        def packed(payload: bytes) -> Any:
            frame = av.VideoFrame(scenario.width, scenario.height, form)
            frame.planes[0].update(payload)
            return frame

        return packed
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1

    def decoded(payload: bytes) -> Any:
        (frame,) = decoder.decode(av.Packet(payload))
        return frame

    return decoded


def _there_and_back(k: int, count: int) -> int:
    last = count - 1
    return last - abs(last - k % (2 * last))


def _cpu_ns() -> int:
    import resource

    # Encoders may have threads of their own: the whole process counts.
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round((used.ru_utime + used.ru_stime) * NS_PER_S)


def wire_us() -> dict[str, float]:
    """Time (us) of one cycle's bytes at 1 Mbaud: leader reads; follower reads and writes."""
    request = _SYNC_BYTES + SERVOS
    replies = SERVOS * (_FRAME_BYTES + POSITION_BLOCK.length)
    goals = _SYNC_BYTES + SERVOS * (1 + GOAL_POSITION.size)
    byte_us = _BITS_A_BYTE * 1e6 / BAUD
    return {"leader": (request + replies) * byte_us,
            "follower": (request + replies + goals) * byte_us}  # fmt: skip


def disk(folder: Path) -> dict[str, Any]:
    """Speed of the dataset's disk: MB/s of a stretch, ms of small syncs (median, worst)."""
    facts = measure_disk(folder, 0)
    return {
        "filesystem": facts.filesystem,
        "mb_per_s": facts.write_bytes_per_s / 1e6,
        "sync_p50_ms": percentile(facts.sync_ms, 0.5),
        "sync_max_ms": max(facts.sync_ms, default=None),
    }


def ratios(run: Mapping[str, Any], floors: Mapping[str, Any]) -> dict[str, float]:
    """How one run stands to the floors. Pure.

    pipeline_ms: CPU a picture of cameras' and encoders' processes, and all that was left after the
    end; pipeline_ratio: of it to decoding, converting and encoding alone, one picture right after
    another. pictures_ms: the processes without statistics, and without what was left, which is
    verification; pictures_ratio: of it to the same work at the cameras' pace. all_ms: all of recd.
    """
    told = pass_through.costs(run)
    statistics_ms = sum(floors["looks"].values())
    pictures_ms = told["pipeline_ms"] - pass_through.finish_ms(run) - statistics_ms
    return {
        **told,
        "pipeline_ratio": told["pipeline_ms"] / floors["code"]["cpu_ms"],
        "pictures_ms": pictures_ms,
        "pictures_ratio": pictures_ms / floors["code_paced"]["cpu_ms"],
        "statistics_ms": statistics_ms,
    }

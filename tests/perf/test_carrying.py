import io

import pytest
from rich.console import Console

from recd.config.errors import RecdError
from recd.daemon.doctor.clip import Request
from recd.daemon.doctor.facts import Codec, Stream
from recd.daemon.encode.codecs import CodecSettings
from recd.perf import carry, largest, peer_run

ONE = Request("camera1", "mjpeg", 640, 480, 30.0)


def machine(cpu_ms, *, cores=2, crowding=0.0):
    """A computer on which a picture costs `cpu_ms`, and `crowding` of it more per other camera."""

    def measure(settings, cameras, folder):
        each = cpu_ms * (1 + crowding * (len(cameras) - 1))
        streams = tuple(Stream(c.camera, c.width, c.height, c.fps, each, each, 20e3)
                        for c in cameras)  # fmt: skip
        return Codec("h264 veryfast", streams, cores)

    return measure


@pytest.mark.parametrize(("cpu_ms", "cameras"), [(5.0, 10), (10.0, 5), (24.0, 2), (40.0, 0)])
def test_cameras_are_carried_while_a_quarter_of_the_computer_is_spare(tmp_path, cpu_ms, cameras):
    told = carry.carried(CodecSettings(), ONE, tmp_path, machine(cpu_ms))
    assert told.cameras == cameras


def test_cameras_that_crowd_each_other_are_measured_and_not_only_computed(tmp_path):
    told = carry.carried(CodecSettings(), ONE, tmp_path, machine(5.0, crowding=0.1))
    assert 1 <= told.cameras < 10
    assert told.load <= 0.75


def test_a_codec_that_does_not_work_carries_nothing_and_says_why(tmp_path):
    def measure(settings, cameras, folder):
        return Codec(
            "h264_nvenc", (Stream("camera1", 640, 480, 30.0, refused="no such device"),), 2
        )

    told = carry.carried(CodecSettings(), ONE, tmp_path, measure)
    assert (told.cameras, told.refused) == (0, "no such device")
    out = io.StringIO()
    carry.show([told], Console(file=out, width=140))
    assert "no such device" in out.getvalue()


def trials(border, most=16, first=1):
    asked = []

    def trial(cameras):
        asked.append(cameras)
        return largest.Trial(cameras, cameras <= border, "")

    return largest.largest(largest.search(trial, most=most, first=first)), asked


@pytest.mark.parametrize("border", range(17))
@pytest.mark.parametrize("first", [1, 2, 5])
def test_the_largest_whole_load_is_found_and_nothing_is_tried_twice(border, first):
    found, asked = trials(border, first=first)
    assert found == border
    assert len(asked) == len(set(asked))


def test_a_missing_lerobot_environment_is_told_with_its_mend(tmp_path, monkeypatch):
    monkeypatch.delenv("RECD_LEROBOT_PYTHON", raising=False)
    monkeypatch.setenv("RECD_LEROBOT_ENV", str(tmp_path / "none"))
    with pytest.raises(RecdError, match="lerobot") as error:
        peer_run.lerobot_python()
    assert "make interop" in str(error.value)

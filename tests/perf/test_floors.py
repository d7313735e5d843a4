"""What recd's pictures are measured by."""

import pytest

from recd.perf import floors
from recd.perf.scenario import Scenario


@pytest.mark.parametrize("pixels", [{"source": "sim"}, {"source": "v4l2"}])
def test_the_floor_encodes_the_same_kinds_of_pictures_as_a_recording(pixels, monkeypatch):
    """A JPEG's frame is marked as a key frame, and encoders would make each picture one."""
    monkeypatch.setattr(floors, "CODE_S", 0.0)
    scenario = Scenario(g=4, width=160, height=120, **pixels)

    told = floors.code(scenario, floors.drawn(scenario))

    assert told["pictures"] == floors.PICTURES
    assert told["key_pictures"] == floors.PICTURES // 4


def test_a_paced_floor_takes_a_picture_each_camera_period_and_costs_what_it_costs(monkeypatch):
    monkeypatch.setattr(floors, "CODE_S", 0.4)
    scenario = Scenario(width=160, height=120)

    told = floors.code(scenario, floors.drawn(scenario)[:6], paced=True)

    assert told["pictures"] == 12
    assert 0 < told["cpu_ms"] < 1000 / 30


def test_statistics_are_charged_for_the_rows_that_they_look_at(monkeypatch):
    short = Scenario(width=160, height=120, seconds=1)
    long = Scenario(width=160, height=120, seconds=100)
    pictures = floors.drawn(short)[:6]
    clock = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr(floors, "_cpu_ns", lambda: next(clock))

    assert floors.looks(short, pictures)["statistics_ms"] == 1.0  # every row, 1 ms each
    assert 0.1 < floors.looks(long, pictures)["statistics_ms"] < 0.5


def test_pictures_are_set_against_their_pace_and_all_work_against_the_hot_floor():
    run = {
        "cameras": {"front": {"truth": {"pictures": 100}}, "wrist": {"truth": {"pictures": 100}}},
        "cpu": {
            "span_s": 10.0, "total_cpu_s": 2.0,
            "cores": {"camera:front": 0.01, "encoder:front": 0.05, "writer": 0.5},
        },
        "finish": {"cpu_s": 0.2},
    }  # fmt: skip
    found = {
        "code": {"cpu_ms": 2.0}, "code_paced": {"cpu_ms": 2.5},
        "looks": {"statistics_ms": 0.25, "thumbnails_ms": 0.25},
    }  # fmt: skip

    told = floors.ratios(run, found)

    assert told["pipeline_ms"] == pytest.approx(4.0)
    assert told["pipeline_ratio"] == pytest.approx(2.0)
    assert told["pictures_ms"] == pytest.approx(2.5)
    assert told["pictures_ratio"] == pytest.approx(1.0)

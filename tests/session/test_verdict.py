"""Verdicts: a clean episode is good, and each rule alone turns it into what it states."""

from dataclasses import replace
from typing import Any

import pytest

from recd.daemon.session.summary import BusSummary, CameraSummary, EpisodeSummary
from recd.daemon.session.verdict import BUS_MEASURES, CAMERA_MEASURES, RULES, Level, judge

CAMERA = CameraSummary(rows=300, fresh=299, repeated=1, repeat_run=1, nominal_fps=30.0,
                       frozen_s=0.0, black_s=0.0, error_p99_periods=0.6)  # fmt: skip
BUS = BusSummary(rows=300, ticks=2500, tracking_p95=4.0, motion_range=80.0)
CLEAN = EpisodeSummary(10.0, 300, 30.0, {"front": CAMERA}, {"main.follower": BUS})

FAULTS: list[tuple[str, str, dict[str, Any], Level]] = [
    ("repeat_run", "camera", {"repeat_run": 4, "repeat_run_at_s": 3.2}, Level.CHECK),
    ("repeat_run", "camera", {"repeat_run": 14, "fresh": 290}, Level.CHECK),
    ("repeat_run", "camera", {"repeat_run": 20}, Level.BAD),
    ("repeated", "camera", {"repeated": 9}, Level.CHECK),
    ("repeated", "camera", {"repeated": 40}, Level.BAD),
    ("missing", "camera", {"missing": 1}, Level.CHECK),
    ("missing", "camera", {"missing": 6}, Level.BAD),
    ("lost", "camera", {"lost": 1}, Level.CHECK),
    ("lost", "camera", {"lost": 20}, Level.BAD),
    ("late", "camera", {"late": 30}, Level.CHECK),
    ("late", "camera", {"late": 120}, Level.BAD),
    ("corrupt", "camera", {"corrupt": 1}, Level.CHECK),
    ("corrupt", "camera", {"corrupt": 9}, Level.BAD),
    ("frozen", "camera", {"frozen_s": 0.7}, Level.CHECK),
    ("frozen", "camera", {"frozen_s": 2.5}, Level.BAD),
    ("black", "camera", {"black_s": 0.7}, Level.CHECK),
    ("black", "camera", {"black_s": 2.5}, Level.BAD),
    ("time_error", "camera", {"error_p99_periods": 1.2}, Level.CHECK),
    ("time_error", "camera", {"error_p99_periods": 3.0}, Level.BAD),
    ("effective_rate", "camera", {"fresh": 280}, Level.CHECK),
    ("effective_rate", "camera", {"fresh": 200}, Level.BAD),
    ("joint_validity", "bus", {"invalid_rows": 3}, Level.CHECK),
    ("joint_validity", "bus", {"invalid_rows": 30}, Level.BAD),
    ("joint_gap", "bus", {"invalid_run": 4}, Level.CHECK),
    ("joint_gap", "bus", {"invalid_run": 20}, Level.BAD),
    ("late_replies", "bus", {"late_replies": 20}, Level.CHECK),
    ("late_replies", "bus", {"late_replies": 300}, Level.BAD),
    ("overruns", "bus", {"overruns": 200}, Level.CHECK),
    ("overruns", "bus", {"overruns": 1500}, Level.BAD),
    ("tracking", "bus", {"tracking_p95": 30.0}, Level.CHECK),
    ("tracking", "bus", {"tracking_p95": 90.0}, Level.BAD),
    ("clipping", "bus", {"clipped_rows": 30}, Level.CHECK),
    ("clipping", "bus", {"clipped_rows": 200}, Level.BAD),
    ("no_motion", "bus", {"motion_range": 1.0}, Level.CHECK),
    ("no_motion", "bus", {"motion_range": 0.1}, Level.BAD),
    ("too_short", "episode", {"duration_s": 0.9}, Level.CHECK),
    ("too_short", "episode", {"duration_s": 0.1}, Level.BAD),
    ("restarts", "episode", {"restarts": {"camera:front": 1}}, Level.CHECK),
    ("restarts", "episode", {"restarts": {"camera:front": 3}}, Level.BAD),
    ("ended_by_fault", "episode", {"fault": "bus silent"}, Level.CHECK),
]


def with_fault(where: str, change: dict[str, Any]) -> EpisodeSummary:
    match where:
        case "camera":
            return replace(CLEAN, cameras={"front": replace(CAMERA, **change)})
        case "bus":
            return replace(CLEAN, buses={"main.follower": replace(BUS, **change)})
        case _:
            return replace(CLEAN, **change)


def test_a_clean_episode_is_good_without_a_reason() -> None:
    verdict = judge(CLEAN)
    assert verdict.level is Level.GOOD
    assert verdict.reasons == ()


@pytest.mark.parametrize(("rule", "where", "change", "level"), FAULTS)
def test_one_fault_alone_gives_its_own_reason(
    rule: str, where: str, change: dict[str, Any], level: Level
) -> None:
    verdict = judge(with_fault(where, change))
    reasons = [reason for reason in verdict.reasons if reason.rule == rule]
    assert [reason.level for reason in reasons] == [level]
    assert reasons[0].words
    assert "{" not in reasons[0].words


def test_every_rule_is_measured_and_shown_here() -> None:
    shown = {rule for rule, *_ in FAULTS}
    assert shown == set(RULES)
    assert {*CAMERA_MEASURES, *BUS_MEASURES, "too_short", "restarts", "ended_by_fault"} == shown


def test_the_reason_names_stream_value_and_time_in_words() -> None:
    verdict = judge(with_fault("camera", {"repeat_run": 14, "repeat_run_at_s": 3.2}))
    words = verdict.reasons[0].words
    assert "front" in words
    assert "14 rows at 3.2 s" in words


def test_the_worst_reason_decides_and_comes_first() -> None:
    verdict = judge(with_fault("camera", {"lost": 1, "frozen_s": 9.0}))
    assert verdict.level is Level.BAD
    assert verdict.reasons[0].rule == "frozen"


def test_what_was_not_measured_gives_no_reason() -> None:
    bare = EpisodeSummary(5.0, 150, 30.0, {"front": CameraSummary(rows=150, fresh=150)}, {})
    assert judge(bare).level is Level.GOOD


def test_a_slow_camera_whose_repeats_are_expected_is_good() -> None:
    slow = CameraSummary(rows=300, fresh=200, expected=100, repeat_run=0, nominal_fps=20.0)
    assert judge(replace(CLEAN, cameras={"front": slow})).level is Level.GOOD


def test_thresholds_can_be_configured_and_unknown_rules_are_refused() -> None:
    strict = judge(CLEAN, {"tracking": (1.0, 3.0)})
    assert strict.level is Level.BAD
    with pytest.raises(KeyError):
        judge(CLEAN, {"no such rule": (1.0, 2.0)})


def test_a_summary_survives_the_wire_and_newer_fields_are_ignored() -> None:
    data = CLEAN.to_dict()
    data["cameras"]["front"]["from_the_future"] = 1
    assert EpisodeSummary.from_dict(data) == CLEAN

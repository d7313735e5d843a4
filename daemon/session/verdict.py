"""Verdict on one episode: good, check or bad, with every reason in words.

Pure: a table of rules walked over a summary. It judges what was counted and never looks at
pictures or files itself; a figure that was not measured is None and gives no reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from recd.daemon.session.summary import BusSummary, CameraSummary, EpisodeSummary

VERDICT_VERSION = 1


class Level(IntEnum):
    """How good an episode is; the worst reason decides."""

    GOOD = 0
    CHECK = 1
    BAD = 2

    @property
    def word(self) -> str:
        """good, check or bad."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: what is measured, in which unit, and from where on it matters.

    check, bad: thresholds on the value; `below` rules fire when the value is smaller. words: the
    sentence for an operator, with {value}, {unit}, {stream}, {when} and {detail}.
    """

    name: str
    unit: str
    check: float
    bad: float
    words: str
    below: bool = False

    def level(self, value: float) -> Level:
        """Level of `value` under this rule."""
        if self._crossed(value, self.bad):
            return Level.BAD
        return Level.CHECK if self._crossed(value, self.check) else Level.GOOD

    def _crossed(self, value: float, limit: float) -> bool:
        return value < limit if self.below else value >= limit

    def limit(self, level: Level) -> float:
        """The threshold that `level` has crossed."""
        return self.bad if level is Level.BAD else self.check


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured value of a rule: at_s is seconds from the episode's start, None unknown."""

    rule: str
    stream: str
    value: float | None
    at_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an episode is not good: rule, stream, value and limit in `unit`, time and words."""

    rule: str
    level: Level
    stream: str
    value: float
    limit: float
    unit: str
    at_s: float | None
    words: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for manifests and messages."""
        return {
            "rule": self.rule,
            "level": self.level.word,
            "stream": self.stream,
            "value": round(self.value, 4),
            "limit": self.limit,
            "unit": self.unit,
            "at_s": None if self.at_s is None else round(self.at_s, 3),
            "words": self.words,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Level of the worst reason, and all reasons, worst first."""

    level: Level = Level.GOOD
    reasons: tuple[Reason, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data: {"version", "level", "reasons": [...]}."""
        return {
            "version": VERDICT_VERSION,
            "level": self.level.word,
            "reasons": [reason.to_dict() for reason in self.reasons],
        }


RULES: Final[dict[str, Rule]] = {
    rule.name: rule
    for rule in (
        # A camera's phase drifts past a row now and then: one repeat alone is no fault.
        Rule("repeat_run", "rows", 3, 15, "{stream}: the same picture for {value:.0f} rows{when}: "
             "cable, USB hub or a starved computer?"),
        Rule("repeated", "%", 2.0, 10.0, "{stream}: {value:.1f} % of the rows repeat a picture"),
        Rule("missing", "%", 0.01, 1.0, "{stream}: {value:.1f} % of the rows have no picture of "
             "their time{when}"),
        Rule("lost", "%", 0.01, 2.0, "{stream}: {value:.1f} % of the frames were lost on the way"
             "{when}"),
        Rule("late", "%", 5.0, 30.0, "{stream}: {value:.1f} % of the frames came late"),
        Rule("corrupt", "%", 0.01, 1.0, "{stream}: {value:.1f} % of the pictures were damaged"
             "{when}: cable?"),
        Rule("frozen", "s", 0.5, 2.0, "{stream}: the picture stood still for {value:.1f} s{when}"),
        Rule("black", "s", 0.5, 2.0, "{stream}: the picture was black for {value:.1f} s{when}: "
             "lens cap or exposure?"),
        Rule("time_error", "periods", 1.0, 2.0, "{stream}: pictures are {value:.1f} periods away "
             "from their rows{when}"),
        Rule("effective_rate", "of nominal", 0.95, 0.80, "{stream}: only {value:.0%} of the "
             "expected pictures per second", below=True),
        Rule("joint_validity", "%", 0.5, 5.0, "{stream}: {value:.1f} % of the rows have a joint "
             "without a true reading{when}{detail}"),
        Rule("joint_gap", "rows", 3, 15, "{stream}: {value:.0f} rows in a run without a true "
             "reading{when}{detail}"),
        # One late reply costs one control tick of many between two rows; a line full of them does
        # not hold the joints' path any more.
        Rule("late_replies", "%", 0.5, 10.0, "{stream}: {value:.1f} % of the servo replies came "
             "too late{when}"),
        Rule("overruns", "%", 5.0, 25.0, "{stream}: {value:.1f} % of the control ticks were "
             "skipped: the computer was too slow"),
        Rule("tracking", "units", 25.0, 60.0, "{stream}: the follower was up to {value:.0f} away "
             "from the leader{when}{detail}"),
        Rule("clipping", "%", 5.0, 30.0, "{stream}: limits changed the goal in {value:.1f} % "
             "of the rows{when}{detail}"),
        Rule("no_motion", "units", 2.0, 0.5, "{stream}: no joint moved more than {value:.1f}",
             below=True),
        Rule("too_short", "s", 1.0, 0.3, "the episode is only {value:.2f} s long", below=True),
        Rule("restarts", "restarts", 1, 3, "{stream}: restarted {value:.0f} times in the episode"),
        Rule("ended_by_fault", "", 1, 2, "the episode was ended by a fault: {detail}"),
    )
}  # fmt: skip
"""name -> rule. Thresholds are for rows and control rates as configured, not for one robot."""

Thresholds = Mapping[str, tuple[float, float]]
"""rule name -> (check, bad): what a configuration may change."""


def judge(summary: EpisodeSummary, thresholds: Thresholds | None = None) -> Verdict:
    """Verdict on `summary`; KeyError when `thresholds` names an unknown rule."""
    rules = dict(RULES)
    for name, (check, bad) in (thresholds or {}).items():
        old = rules[name]
        rules[name] = Rule(name, old.unit, check, bad, old.words, old.below)
    reasons = [reason for found in measures(summary) if (reason := _reason(rules, found))]
    reasons.sort(key=lambda reason: -reason.level)
    level = max((reason.level for reason in reasons), default=Level.GOOD)
    return Verdict(level, tuple(reasons))


def _reason(rules: Mapping[str, Rule], found: Measure) -> Reason | None:
    rule = rules[found.rule]
    if found.value is None:
        return None
    level = rule.level(found.value)
    if level is Level.GOOD:
        return None
    when = "" if found.at_s is None else f" at {found.at_s:.1f} s"
    detail = f" ({found.detail})" if found.detail and found.rule != "ended_by_fault" else (
        found.detail
    )  # fmt: skip
    words = rule.words.format(
        value=found.value, unit=rule.unit, stream=found.stream, when=when, detail=detail
    )
    return Reason(
        rule=rule.name,
        level=level,
        stream=found.stream,
        value=found.value,
        limit=rule.limit(level),
        unit=rule.unit,
        at_s=found.at_s,
        words=words,
    )


def measures(summary: EpisodeSummary) -> Iterator[Measure]:
    """Every value that a rule looks at, in the order: episode, cameras, buses."""
    yield Measure("too_short", "episode", summary.duration_s)
    yield Measure("ended_by_fault", "episode", float(bool(summary.fault)), detail=summary.fault)
    for process, count in summary.restarts.items():
        yield Measure("restarts", process, float(count))
    for name, camera in summary.cameras.items():
        for rule, measure in CAMERA_MEASURES.items():
            value, at_s = measure(camera)
            yield Measure(rule, name, value, at_s)
    for name, bus in summary.buses.items():
        for rule, look in BUS_MEASURES.items():
            value, at_s, detail = look(bus)
            yield Measure(rule, name, value, at_s, detail)


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole > 0 else 0.0


def _rate_share(camera: CameraSummary) -> float | None:
    """Fresh pictures per second against what camera and dataset together can give."""
    if camera.nominal_fps <= 0 or camera.rows <= 1:
        return None
    expected = camera.rows - camera.expected
    return camera.fresh / expected if expected > 0 else None


CAMERA_MEASURES: Final[
    dict[str, Callable[[CameraSummary], tuple[float | None, float | None]]]
] = {
    "repeat_run": lambda c: (float(c.repeat_run), c.repeat_run_at_s),
    "repeated": lambda c: (_percent(c.repeated, c.rows), None),
    "missing": lambda c: (_percent(c.missing, c.rows), c.missing_at_s),
    "lost": lambda c: (_percent(c.lost, c.rows + c.lost), c.lost_at_s),
    "late": lambda c: (_percent(c.late, c.rows), None),
    "corrupt": lambda c: (_percent(c.corrupt, c.rows), c.corrupt_at_s),
    "frozen": lambda c: (c.frozen_s, c.frozen_at_s),
    "black": lambda c: (c.black_s, c.black_at_s),
    "time_error": lambda c: (c.error_p99_periods, c.error_at_s),
    "effective_rate": lambda c: (_rate_share(c), None),
}  # fmt: skip
"""rule -> (value, seconds into the episode) of one camera."""

BUS_MEASURES: Final[
    dict[str, Callable[[BusSummary], tuple[float | None, float | None, str]]]
] = {
    "joint_validity": lambda b: (_percent(b.invalid_rows, b.rows), b.invalid_at_s, b.invalid_joint),
    "joint_gap": lambda b: (float(b.invalid_run), b.invalid_at_s, b.invalid_joint),
    "late_replies": lambda b: (_percent(b.late_replies, b.ticks), b.late_reply_at_s, ""),
    "overruns": lambda b: (_percent(b.overruns, b.ticks + b.overruns), None, ""),
    "tracking": lambda b: (b.tracking_p95, b.tracking_at_s, b.tracking_joint),
    "clipping": lambda b: (_percent(b.clipped_rows, b.rows), b.clipped_at_s, b.clipped_joint),
    "no_motion": lambda b: (b.motion_range, None, ""),
}  # fmt: skip
"""rule -> (value, seconds into the episode, detail) of one bus."""

"""From one recording to its figures: rows, pictures against stamps, skew, waits, cost, loops.

Everything that takes time (decoding every picture) happens here, after the machine was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.models import RobotConfig
from recd.config.streams import TickFlag
from recd.daemon.align.joints import JointRule
from recd.daemon.writer.rows import PairRows, align_pair, bus_of
from recd.perf import truth
from recd.perf.control import loop_between, sample_figures
from recd.perf.episode import StoredEpisode
from recd.perf.recording import Recorded
from recd.perf.scenario import Scenario
from recd.perf.skew import JointTruth, Poses, joint_truth, skew_figures
from recd.perf.subject import FOLLOWER
from recd.shm.clock import NS_PER_MS, NS_PER_S

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Rows:
    """What both cameras and joints of one episode are compared with.

    times_ns: int64 [K] of the rows; pair: rows rebuilt from the side files; equal: whether the
    dataset's own state and action are exactly those.
    """

    times_ns: npt.NDArray[np.int64]
    pair: PairRows
    equal: bool


def run_result(
    recorded: Recorded, scenario: Scenario, robot: RobotConfig, *, poses: Poses, root: Any
) -> dict[str, Any]:
    """All figures of one recording, as the result file has them."""
    episode = StoredEpisode(root, recorded.uid, int(recorded.saved["episode_index"]))
    ticks = {name: episode.ticks(name) for name in scenario.camera_names}
    rows = _rows(episode, robot, next(iter(ticks.values()))["tick_ns"])
    joints = _joint_truth(rows, robot, poses)
    cameras, wrong_rows = {}, set()
    for number, (name, records) in enumerate(ticks.items()):
        stamps = list(truth.read_stamps(episode.video(name)))
        period_ns = scenario.camera_period_ns
        seen = truth.compare(stamps, records, camera=number, period_ns=period_ns)
        wrong_rows |= {finding.row for finding in seen.findings}
        cameras[name] = {
            **camera_counts(records, seen, scenario),
            "lost": recorded.losses.get(f"cam.{name}", 0),
            "truth": truth.plain(seen),
            "times": truth.times_of(seen, records, period_ns=period_ns),
            "skew": skew_figures(
                joints, captured_ns=seen.captured_ns, claimed_ns=_claimed_ns(records),
                rows_ns=rows.times_ns,
            ),
        }  # fmt: skip
    return {
        "uid": recorded.uid,
        "rows": row_counts(ticks, rows.pair, wrong_rows, expected=scenario.expected_rows)
        | {"rebuilt_equal": rows.equal, "fps": scenario.fps},
        "cameras": cameras,
        "waits": waits(recorded, ticks),
        "cpu": recorded.recording.plain(),
        "finish": _finish(recorded),
        "memory": recorded.memory,
        "control": _control(recorded, episode, robot),
        "streams": dict(sorted(recorded.losses.items())),
        "verdict": (recorded.saved.get("verdict") or {}).get("level", ""),
        "machine_busy_cores": recorded.load.busy_cores,
        "machine_stolen_cores": recorded.load.stolen_cores,
        "others_cores": _others(recorded),
    }


def _rows(episode: StoredEpisode, robot: RobotConfig, times_ns: npt.NDArray[np.int64]) -> Rows:
    pair, _, _ = FOLLOWER.partition(".")
    arm = robot.arms[pair]
    bus = bus_of(
        pair, joints=robot.joints(pair), rate_hz=arm.rate_hz, degrees=arm.use_degrees,
        action=robot.dataset.action,
    )  # fmt: skip
    samples = episode.samples(FOLLOWER, joints=len(bus.joints))
    rebuilt = align_pair(samples, times_ns, bus)
    stored = episode.rows()
    equal = np.array_equal(
        np.float32(stored["observation.state"]), rebuilt.state_values
    ) and np.array_equal(np.float32(stored["action"]), rebuilt.action_values)
    return Rows(times_ns, rebuilt, bool(equal))


def _joint_truth(rows: Rows, robot: RobotConfig, poses: Poses) -> JointTruth:
    pair, _, _ = FOLLOWER.partition(".")
    arm = robot.arms[pair]
    bus = bus_of(
        pair, joints=robot.joints(pair), rate_hz=arm.rate_hz, degrees=arm.use_degrees,
        action=robot.dataset.action,
    )  # fmt: skip
    judged = [at for at, rule in enumerate(bus.rules) if rule is JointRule.INTERPOLATE]
    found = joint_truth(rows.pair.state_values, rows.times_ns, poses, bus=FOLLOWER, judged=judged)
    found.late_ns[~_all_joints(rows.pair)] = np.nan
    return found


def _all_joints(pair: PairRows) -> npt.NDArray[np.bool_]:
    """bool [K]: rows with a true reading of every joint."""
    return np.asarray(pair.state.valid.all(axis=1), np.bool_)


def _claimed_ns(records: Records) -> npt.NDArray[np.int64]:
    """Capture time that each row claims; 0 where it says that it has no picture of its own."""
    absent = (records["flags"] & (TickFlag.MISSING | TickFlag.CORRUPT)) != 0
    return np.where(absent, 0, records["capture_ns"])


def row_counts(
    ticks: Mapping[str, Records], pair: PairRows, wrong: set[int], *, expected: int
) -> dict[str, Any]:
    """Rows of an episode. kept: rows that were due, with a picture of every camera that is what
    the row says, and a true reading of every joint; percent_kept: of the expected."""
    stored = min(len(records) for records in ticks.values())
    whole = _all_joints(pair)[:stored].copy()
    joints_invalid = int((~whole).sum())
    for records in ticks.values():
        absent = records["flags"][:stored] & (TickFlag.MISSING | TickFlag.CORRUPT)
        whole &= absent == 0
    whole[[row for row in wrong if row < stored]] = False
    kept = int(whole[:expected].sum())
    return {
        "expected": expected,
        "stored": stored,
        "kept": kept,
        "percent_kept": 100.0 * kept / expected,
        "joints_invalid": joints_invalid,
    }


def camera_counts(ticks: Records, seen: truth.PictureTruth, scenario: Scenario) -> dict[str, Any]:
    """Counts of one camera by its flags, and how many repeats and skips drift cannot explain.

    allowed_by_drift: 1 + relative drift x time / period, the bound of the alignment rule.
    """
    flags = ticks["flags"]

    def count(wanted: TickFlag, *without: TickFlag) -> int:
        found = (flags & wanted) != 0
        for other in without:
            found &= (flags & other) == 0
        return int(found.sum())

    repeated = count(TickFlag.REPEAT, TickFlag.EXPECTED, TickFlag.MISSING)
    drift_ppm = _drift_ppm(ticks, seen, scenario)
    seconds = len(ticks) / scenario.fps
    allowed = 1 + int(abs(drift_ppm or 0.0) * 1e-6 * seconds * scenario.camera_fps)
    skipped = count(TickFlag.SKIP_BEFORE)
    slower = scenario.camera_fps < scenario.fps
    faster = scenario.camera_fps > scenario.fps
    return {
        "fresh": int(((flags & (TickFlag.REPEAT | TickFlag.MISSING)) == 0).sum()),
        "repeated": repeated,
        "expected_repeats": count(TickFlag.EXPECTED),
        "skipped": skipped,
        "missing": count(TickFlag.MISSING),
        "late": count(TickFlag.LATE),
        "corrupt": count(TickFlag.CORRUPT),
        "drift_ppm": drift_ppm,
        "allowed_by_drift": allowed,
        "beyond_drift": (0 if slower else max(0, repeated - allowed))
        + (0 if faster else max(0, skipped - allowed)),
        "unflagged": len(seen.findings),
    }


def _drift_ppm(ticks: Records, seen: truth.PictureTruth, scenario: Scenario) -> float | None:
    """Rate of the camera against its nominal one, from its true capture times; + is fast."""
    fresh = seen.readable & ((ticks["flags"] & TickFlag.REPEAT) == 0)
    captured, numbers = seen.captured_ns[fresh], ticks["source_seq"][fresh]
    if len(captured) < 2 or captured[-1] == captured[0] or numbers[0] < 0:
        return None
    rate = float(numbers[-1] - numbers[0]) * NS_PER_S / float(captured[-1] - captured[0])
    return (rate / scenario.camera_fps - 1) * 1e6


def waits(recorded: Recorded, ticks: Mapping[str, Records]) -> dict[str, float]:
    """What the operator waits for, ms: reply of `start`, row 0, its packets, durable after stop."""
    times = recorded.waits
    first_row_ns = max(int(records["encoded_ns"][0]) for records in ticks.values())
    return {
        "start_reply_ms": (times.replied_ns - times.asked_ns) / NS_PER_MS,
        "start_to_row_time_ms": (times.t0_ns - times.asked_ns) / NS_PER_MS,
        "start_to_first_row_ms": (first_row_ns - times.asked_ns) / NS_PER_MS,
        "stop_to_durable_ms": (times.durable_ns - times.stopping_ns) / NS_PER_MS,
    }


def _finish(recorded: Recorded) -> dict[str, Any]:
    """CPU and bytes after stop until the work that was left is done, less what idling costs."""
    use = recorded.finishing
    cpu_s = sum(use.cpu_s.values()) - recorded.idle_cores * use.span_s
    written = sum(recorded.recording.written_bytes.values()) + sum(use.written_bytes.values())
    return {
        "cpu_s": max(0.0, cpu_s),
        "span_s": use.span_s,
        "idle_cores": recorded.idle_cores,
        "episode_written_bytes": written,
    }


def _control(recorded: Recorded, episode: StoredEpisode, robot: RobotConfig) -> dict[str, Any]:
    told = {}
    for bus in robot.buses():
        pair, _, role = bus.partition(".")
        process = f"arm:{bus}"
        if process not in recorded.loops_after:
            continue
        samples = episode.samples(bus, joints=len(robot.joints(pair)))
        told[process] = {
            **loop_between(recorded.loops_before.get(process), recorded.loops_after[process]),
            **sample_figures(
                samples, role=role, rate_hz=robot.arms[pair].rate_hz,
                first_ns=recorded.waits.t0_ns, last_ns=recorded.waits.stopping_ns,
            ),
        }  # fmt: skip
    return told


def _others(recorded: Recorded) -> float:
    """Cores used by nobody of ours: the rest of the machine, this bench included."""
    use = recorded.recording
    ours = (sum(use.cpu_s.values()) + sum(use.simulator_cpu_s.values())) / use.span_s
    return max(0.0, recorded.load.busy_cores - ours)

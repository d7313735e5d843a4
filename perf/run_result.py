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
from recd.daemon.dataset.schema import ACTION, STATE
from recd.daemon.writer.builder import buses_of
from recd.daemon.writer.rows import align_pair
from recd.perf import truth
from recd.perf.control import loop_between, sample_figures
from recd.perf.episode import StoredEpisode
from recd.perf.floors import wire_us
from recd.perf.recording import Recorded
from recd.perf.scenario import Scenario
from recd.perf.skew import JointTruth, Poses, joint_truth, skew_figures
from recd.shm.clock import NS_PER_MS, NS_PER_S

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Rows:
    """The joints of one episode's rows. times_ns: int64 [K]; state: float32 [K, J]; valid: bool
    [K, J]; differences: which accounts of the same rows do not agree."""

    times_ns: npt.NDArray[np.int64]
    state: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    differences: tuple[str, ...] = ()

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """bool [K]: rows with a true reading of every joint."""
        return np.asarray(self.valid.all(axis=1), np.bool_)


def run_result(
    recorded: Recorded, scenario: Scenario, robot: RobotConfig, *, poses: Poses, root: Any
) -> dict[str, Any]:
    """All figures of one recording, as the result file has them."""
    episode = StoredEpisode(root, recorded.uid, int(recorded.saved["episode_index"]))
    ticks = {name: episode.ticks(name) for name in scenario.camera_names}
    rows = _rows(episode, robot, ticks)
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
            "timeline": timeline(records, seen),
            "skew": skew_figures(
                joints, captured_ns=seen.captured_ns, claimed_ns=_claimed_ns(records),
                rows_ns=rows.times_ns,
            ),
        }  # fmt: skip
    return {
        "uid": recorded.uid,
        "rows": row_counts(ticks, rows.whole, wrong_rows, expected=scenario.expected_rows)
        | {"differences": list(rows.differences), "fps": scenario.fps},
        "cameras": cameras,
        "waits": waits(recorded, ticks),
        "cpu": recorded.recording.plain(),
        "finish": _finish(recorded),
        "memory": recorded.memory,
        "control": _control(recorded, episode, robot),
        "streams": dict(sorted(recorded.losses.items())),
        "verdict": (recorded.saved.get("verdict") or {}).get("level", ""),
        "motion": recorded.motion,
        "codec": episode.manifest().get("codec", {}),
        "machine_busy_cores": recorded.load.busy_cores,
        "machine_stolen_cores": recorded.load.stolen_cores,
        "others_cores": _others(recorded),
    }


def _rows(episode: StoredEpisode, robot: RobotConfig, ticks: Mapping[str, Records]) -> Rows:
    """Rows as logged while recording, compared with the dataset's own and with a rebuild."""
    logged, stored = episode.row_log(), episode.rows()
    times_ns = logged["tick_ns"]
    rebuilt = [
        align_pair(episode.samples(f"{bus.pair}.follower", joints=len(bus.joints)), times_ns, bus)
        for bus in buses_of(robot)
    ]
    state = np.hstack([pair.state_values for pair in rebuilt])
    action = np.hstack([pair.action_values for pair in rebuilt])
    accounts = {
        "dataset and row log: state": (stored[STATE], logged[STATE]),
        "dataset and row log: action": (stored[ACTION], logged[ACTION]),
        "dataset and samples: state": (stored[STATE], state),
        "dataset and samples: action": (stored[ACTION], action),
    }
    for column, (name, records) in enumerate(ticks.items()):
        claimed = logged["recd.camera_error_ns"].reshape(len(times_ns), -1)[:, column]
        accounts[f"row log and tick records: {name}"] = (claimed, records["error_ns"])
    differences = tuple(
        name
        for name, (one, other) in accounts.items()
        if not np.array_equal(one.astype(other.dtype), other)
    )
    valid = logged["recd.state_valid"].astype(np.bool_)
    return Rows(times_ns, logged[STATE].astype(np.float32), valid, differences)


def _joint_truth(rows: Rows, robot: RobotConfig, poses: Poses) -> JointTruth:
    bus = buses_of(robot)[0]  # its joints come first in the rows
    judged = [at for at, rule in enumerate(bus.rules) if rule is JointRule.INTERPOLATE]
    found = joint_truth(rows.state, rows.times_ns, poses, bus=f"{bus.pair}.follower", judged=judged)
    found.late_ns[~rows.whole] = np.nan
    return found


def _claimed_ns(records: Records) -> npt.NDArray[np.int64]:
    """Capture time that each row claims; 0 where it says that it has no picture of its own."""
    absent = (records["flags"] & (TickFlag.MISSING | TickFlag.CORRUPT)) != 0
    return np.where(absent, 0, records["capture_ns"])


def row_counts(
    ticks: Mapping[str, Records], joints: npt.NDArray[np.bool_], wrong: set[int], *, expected: int
) -> dict[str, Any]:
    """Rows of an episode. joints: bool [K], rows with all of them true; wrong: rows that lie.

    kept: rows that were due, with a picture of every camera that is what the row says, and a true
    reading of every joint; percent_kept: of the expected.
    """
    stored = min(len(records) for records in ticks.values())
    whole = joints[:stored].copy()
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


TIMELINE_POINTS = 400


def timeline(ticks: Records, seen: truth.PictureTruth) -> dict[str, list[float]]:
    """Exposure (by stamp) to packet handed to the file, the worst row of each stretch of a run.

    s: time since row 0; latency_ms: same length, at most TIMELINE_POINTS. Rows without an intact
    picture of their own are left out.
    """
    rows = np.flatnonzero((seen.captured_ns > 0) & ((ticks["flags"] & TickFlag.REPEAT) == 0))
    if not len(rows):
        return {"s": [], "latency_ms": []}
    late_ns = ticks["encoded_ns"][rows] - seen.captured_ns[rows]
    since_ns = ticks["tick_ns"][rows] - ticks["tick_ns"][0]
    stretches = np.array_split(np.arange(len(rows)), min(TIMELINE_POINTS, len(rows)))
    worst = [part[int(np.argmax(late_ns[part]))] for part in stretches]
    return {
        "s": [round(float(since_ns[at]) / NS_PER_S, 3) for at in worst],
        "latency_ms": [round(float(late_ns[at]) / NS_PER_MS, 3) for at in worst],
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
        wire = wire_us()[role] + robot.simulation.reply_delay_us
        told[process] = {
            "wire_us": wire,
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

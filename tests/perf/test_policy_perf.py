import io
import json
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from rich.console import Console

from recd.config.errors import RecdError
from recd.config.policy_streams import STATUSES, chunk_dtype
from recd.config.policy_wire import Status
from recd.config.streams import GoalSource, Motion, arm_sample_dtype
from recd.daemon.arms.motion import Cause
from recd.perf import budgets, compare, floor, result
from recd.perf.policy import document, figures, report
from recd.perf.policy.echo import SIZES
from recd.perf.policy.figures import Freeze, Interruption, Stretch
from recd.perf.policy.process import echoing, policy_process
from recd.perf.policy.reference import REACH_UNITS, Reference, reference_from
from recd.perf.scenario import Scenario
from recd.shm.clock import NS_PER_MS, NS_PER_S

PERIOD_NS = 4 * NS_PER_MS
T0 = 10**12
JOINTS = 2
DEGREES = (True, False)
REFERENCE = Reference((0.0, 50.0), (15.0, -15.0), (0.2, 0.23), T0)


def samples(ticks, *, late_ns=0):
    """A policy drives all along; its goals are the reference of `late_ns` ago."""
    found = np.zeros(ticks, arm_sample_dtype(JOINTS))
    found["tick"] = np.arange(ticks)
    found["goal_written_ns"] = T0 + found["tick"] * PERIOD_NS
    found["request_ns"] = found["goal_written_ns"] + NS_PER_MS
    found["sample_ns"] = found["request_ns"] + NS_PER_MS
    found["motion"], found["source"], found["chunk"] = Motion.POLICY, GoalSource.POLICY, 1
    found["sent"] = REFERENCE.at(found["goal_written_ns"] - late_ns)
    found["present"] = REFERENCE.at(found["sample_ns"])
    found["sent_raw"] = found["tick"][:, None]
    return found


def held(records, first, last, cause):
    part = records[first:last]
    part["motion"], part["source"], part["cause"] = Motion.HOLD, GoalSource.HOLD, cause
    part["sent_raw"] = records["sent_raw"][first]
    return records


def chunks(*rows, status=Status.APPLIED):
    """(number, received, observed), times in ms after T0."""
    found = np.zeros(len(rows), chunk_dtype(JOINTS))
    found["status"] = STATUSES.index(status)
    for record, (number, received_ms, observed_ms) in zip(found, rows, strict=True):
        record["chunk"] = number
        record["received_ns"] = T0 + received_ms * NS_PER_MS
        record["obs_ns"] = T0 + observed_ms * NS_PER_MS
    return found


def test_the_reference_begins_at_rest_where_the_arm_is_and_stays_in_its_range():
    moved = reference_from([-90.0, 40.0, 0.0], [-100.0, -50.0, 0.0], [100.0, 50.0, 100.0], T0)
    times = T0 + np.arange(0, 60 * NS_PER_S, 20 * NS_PER_MS)
    places = moved.at(times)
    assert places[0].tolist() == [-90.0, 40.0, 0.0]
    assert np.abs(places[1] - places[0]).max() < 0.01
    assert (places >= [-100.0, -50.0, 0.0]).all()
    assert (places <= [100.0, 50.0, 100.0]).all()
    assert np.abs(places - places[0]).max() == pytest.approx(REACH_UNITS, rel=1e-3)
    assert Reference.of(json.loads(json.dumps(moved.plain()))) == moved


def test_a_chunks_first_goal_is_the_first_that_carries_it_and_those_in_between_are_counted():
    told = samples(100)
    told["chunk"][:50], told["chunk"][50:] = 1, 2
    # Goal 50 stands on the wire at 200 ms; goals 48 and 49 at 192 and 196.
    found = figures.first_goals(told, chunks((2, 191, 100)), period_ns=PERIOD_NS)
    assert found["ms"]["max"] == 9.0
    assert found["periods"]["max"] == 2.25
    assert found["before"] == {"2": 1}


def test_a_chunk_that_a_newer_one_overtook_has_no_goal_and_a_refused_one_is_not_looked_for():
    told = samples(100)
    told["chunk"][50:] = 3
    sent = np.concatenate([chunks((2, 197, 100), (3, 198, 100)),
                           chunks((4, 300, 200), status=Status.SEAM)])  # fmt: skip
    found = figures.first_goals(told, sent, period_ns=PERIOD_NS)
    assert (found["ms"]["n"], found["ms"]["max"], found["unseen"]) == (1, 2.0, 1)


def test_an_interruption_ends_with_the_last_goal_of_the_policy_and_tells_who_obeyed_when():
    told = held(samples(100), 50, 80, Cause.COMMAND)
    # The last goal of the policy, number 49, stood on the wire at 196 ms.
    marks = [Interruption("hold", T0 + 195 * NS_PER_MS, T0 + 300 * NS_PER_MS)]
    found = figures.interruptions(told, marks, period_ns=PERIOD_NS)
    assert found["last_goal_ms"]["max"] == 1.0
    assert found["periods"]["max"] == 0.25
    assert found["heard_ms"]["max"] == 6.0
    assert found["idle"] == 0


def test_what_is_interrupted_while_the_policy_holds_is_not_judged():
    told = held(samples(100), 20, 80, Cause.QUEUE_EMPTY)
    marks = [Interruption("hold", T0 + 200 * NS_PER_MS, T0 + 300 * NS_PER_MS)]
    found = figures.interruptions(told, marks, period_ns=PERIOD_NS)
    assert (found["last_goal_ms"]["n"], found["idle"]) == (0, 1)


def test_a_missed_heartbeat_is_counted_from_the_last_sign_of_life_to_the_last_goal_and_to_rest():
    told = held(samples(200), 78, 150, Cause.HEARTBEAT_MISSED)
    told["sent_raw"][78:80] = [[500, 500], [501, 501]]  # slowing down
    told["sent_raw"][80:150] = 502
    freeze = Freeze(T0 + 6 * NS_PER_MS, T0 + 560 * NS_PER_MS)
    found = figures.freezes(told, [freeze], heartbeat_ns=300 * NS_PER_MS, period_ns=PERIOD_NS)
    assert found["causes"] == {"heartbeat_missed": 1}
    assert found["last_goal_ms"]["max"] == 302.0  # goal 77, at 308 ms
    assert found["late_periods"]["max"] == 0.5
    assert found["still_ms"]["max"] == 314.0  # goal 80


def test_a_stop_that_nothing_answered_is_told_and_not_taken_for_a_quick_hold():
    freeze = Freeze(T0, T0 + 700 * NS_PER_MS)
    found = figures.freezes(
        samples(200), [freeze], heartbeat_ns=300 * NS_PER_MS, period_ns=PERIOD_NS
    )
    assert found["causes"] == {"none": 1}
    assert found["last_goal_ms"]["n"] == 0


def tracked(records, sent):
    stretch = Stretch(100.0, T0, T0 + 2 * NS_PER_S)
    return figures.tracking(records, sent, REFERENCE, stretch, degrees=DEGREES,
                            dt_ns=33 * NS_PER_MS)  # fmt: skip


def test_goals_of_their_own_time_have_no_error_and_late_ones_have_their_delay_times_the_speed():
    sent = chunks((1, 100, 0))
    assert tracked(samples(500), sent)["commanded_deg"]["max"] < 1e-3
    late = tracked(samples(500, late_ns=100 * NS_PER_MS), sent)["commanded_deg"]
    fastest = figures.fastest_deg_s(REFERENCE, DEGREES)
    assert late["max"] == pytest.approx(0.1 * fastest, rel=0.02)
    assert tracked(samples(500), sent)["reached_deg"]["max"] < 1e-3


def test_the_same_chunks_played_from_their_arrival_are_late_by_what_they_took():
    found = tracked(samples(500), chunks((1, 0, -100), (2, 500, 400)))
    slower = 0.067 * figures.fastest_deg_s(REFERENCE, DEGREES)  # 100 ms less the first row's 33
    assert found["arrival_deg"]["max"] == pytest.approx(slower, rel=0.02)
    assert found["latency_ms"]["p50"] == 100.0


def test_holds_for_want_of_a_plan_are_counted_once_each_and_their_time_as_a_share():
    told = held(held(samples(500), 100, 150, Cause.QUEUE_EMPTY), 300, 350, Cause.QUEUE_EMPTY)
    found = tracked(held(told, 400, 450, Cause.COMMAND), chunks((1, 0, -100)))
    assert found["queue_empty"] == 2
    assert found["held_share"] == pytest.approx(0.3)
    assert found["goals"] == 350


def test_joints_that_are_no_angles_do_not_count_as_degrees():
    told = samples(500)
    told["sent"][:, 1] += 40
    assert tracked(told, chunks((1, 0, -100)))["commanded_deg"]["max"] < 1e-3


def test_the_answer_of_the_plain_socket_has_the_bytes_it_was_told(tmp_path):
    with ExitStack() as ends:
        where = ends.enter_context(echoing("tcp://127.0.0.1:*", tmp_path))
        context = ends.enter_context(zmq.Context())
        socket = ends.enter_context(context.socket(zmq.REQ))
        socket.connect(where)
        for asked in (SIZES + b"[900, 24, 22000]", b"anything"):
            socket.send(asked)
            assert socket.poll(20_000)
            parts = socket.recv_multipart()
        assert [len(part) for part in parts] == [900, 24, 22000]


def test_a_policy_that_cannot_do_what_it_is_told_says_why_and_lives_on(tmp_path):
    with policy_process(tmp_path) as policy:
        with pytest.raises(RecdError, match="it does not drive"):
            policy.tell("pace", latency_ms=1, horizon=2)
        with pytest.raises(RecdError, match="nowhere"):
            policy.tell("begin", endpoint="ipc:///nowhere/policy.sock", key="", dt_s=0.1,
                        latency_ms=1, horizon=2)  # fmt: skip
        assert policy.tell("leave") == {}


def loops(p99):
    counts = {"p50": 5.0, "p99": p99, "p99_9": 90.0, "n": 1000}
    histogram = [0] * 64
    histogram[20] = 1000
    loop = {"lateness_us": counts, "lateness_histogram": histogram, "skipped": 0}
    return {"arm:main.follower": loop}


def test_the_noise_is_what_legs_without_a_policy_differ_by():
    legs = [floor.Leg(kind, loops(p99)) for kind, p99 in
            (("with", 400.0), ("without", 20.0), ("with", 50.0), ("without", 30.0))]  # fmt: skip
    assert document.noise(legs) == {"arm:main.follower": 1.5}
    pooled = floor.compared(legs, ("with", "without"))["processes"]["arm:main.follower"]
    assert pooled["ratio_p99"] == 1.0
    assert pooled["ratio_p99_spread"]["most"] == 20.0


@pytest.fixture
def policy_run():
    told = held(samples(300), 78, 150, Cause.HEARTBEAT_MISSED)
    told["chunk"][10:] = 2
    sent = chunks((2, 39, -100))
    asked = {"observed_ns": [3 * NS_PER_MS, 4 * NS_PER_MS], "floor_ns": [NS_PER_MS] * 2,
             "age_ns": [40 * NS_PER_MS], "refused": 0, "sizes": [900, 24, 24, 22000]}  # fmt: skip
    legs = [floor.Leg("with", loops(30.0)), floor.Leg("without", loops(25.0))]
    return {
        "uid": "0" * 32,
        "observe": {"ipc": figures.observed(asked)},
        "first_goal": figures.first_goals(told, sent, period_ns=PERIOD_NS),
        "interrupted": figures.interruptions(told, [], period_ns=PERIOD_NS),
        "frozen": figures.freezes(told, [Freeze(T0 + 6 * NS_PER_MS, T0 + 560 * NS_PER_MS)],
                                  heartbeat_ns=300 * NS_PER_MS, period_ns=PERIOD_NS),
        "tracking": {"100": tracked(told, sent)},
        "reference": REFERENCE.plain() | {"fastest_deg_s": 9.4},
        "lateness": floor.compared(legs, ("with", "without"))["processes"],
        "cpu": {"cores": {"gateway": 0.1, "adapter": 0.3}, "absent_cores": {"gateway": 0.02}},
        "memory": {"pss_bytes": {"gateway": 38 * 2**20}},
        "streams": {"chunks": 0},
        "control": {},
        "others_cores": 0.05,
    }  # fmt: skip


@pytest.fixture
def policy_document(document, policy_run):
    runs = [policy_run, policy_run]
    told = {key: value for key, value in document.items() if key not in ("floor", "dataset")}
    plain = Scenario(cameras=3).plain()
    return told | {
        "kind": "policy",
        "scenario": plain | {"latencies_ms": [100.0], "horizon": 30, "adapter": "openpi"},
        "runs": runs,
        "lateness": {"legs": [], "processes": policy_run["lateness"],
                     "noise_p99": {"arm:main.follower": 1.2}},
        "adapter": {"type": "openpi", "unserved_cores": {"adapter": 0.01, "gateway": 0.02},
                    "driving_cores": {"adapter": [0.3, 0.4], "gateway": [0.1, 0.1]}},
        "summary": result.summary(runs, result.SHAPES["policy"]),
    }  # fmt: skip


def test_a_result_of_policies_is_written_and_read_again_and_one_that_lacks_a_figure_is_not(
    tmp_path, policy_document
):
    path = result.save(policy_document, tmp_path / "policy.json")
    assert result.load(path) == policy_document
    del policy_document["runs"][1]["frozen"]
    with pytest.raises(RecdError, match=r"runs\[0\].frozen"):
        result.save(policy_document, tmp_path / "other.json")
    assert "kind" in result.problems(policy_document | {"kind": "guess"})[0]


def test_the_spread_is_told_of_every_transport_latency_loop_and_process(policy_document):
    assert {
        "observe.ipc.ms.p99", "observe.ipc.ratio_p50", "tracking.100.commanded_deg.rms",
        "lateness.arm:main.follower.ratio_p99", "cpu.cores.gateway", "cpu.absent_cores.gateway",
        "first_goal.periods.p99", "frozen.late_periods.max",
    } <= set(policy_document["summary"])  # fmt: skip


def test_the_tables_tell_the_floor_beside_the_figure_and_the_notes_above_all(policy_document):
    policy_document["notes"] = ["the machine was not quiet"]
    out = io.StringIO()
    report.show(policy_document, Console(file=out, width=128, emoji=False))
    text = out.getvalue()
    assert "3.00 / 4.00 / 4.00" in text
    assert "1.00 / 1.00 / 1.00" in text
    assert text.index("the machine was not quiet") < text.index("observation:")
    assert "openpi server" in text


def test_results_of_different_kinds_are_not_compared(document, policy_document):
    with pytest.raises(RecdError, match="kind: expected the same"):
        compare.require_same(document, policy_document)


def test_every_budget_of_policies_finds_its_value_and_a_late_hold_is_over(policy_run):
    rows = budgets.load_budgets()
    policy_run["interrupted"]["periods"]["max"] = 0.2
    judged = budgets.judge([policy_run], ["process:gateway", "stream:chunks"], rows, whole="policy")
    found = {(one.subject, one.metric): one for one in judged}
    metrics = {row.metric for row in rows if row.subject == "policy"}
    assert {metric for subject, metric in found if subject == "policy"} == metrics
    assert [one.metric for one in judged if one.subject == "policy" and one.value is None] == []
    assert found["stream:chunks", "lost"].kept
    policy_run["frozen"]["late_periods"]["max"] = 3.0
    (late,) = [one for one in budgets.judge([policy_run], [], rows, whole="policy")
               if one.metric == "hold_late_periods"]  # fmt: skip
    assert not late.kept
    assert "run" not in {subject for subject, _ in found}


def test_notes_name_what_a_figure_was_not_measured_by(policy_run):
    silent = SimpleNamespace(quiet=True)
    measured = SimpleNamespace(silence=silent, failures=["no adapter"], realtime={})
    policy_run["frozen"]["causes"] = {"queue_empty": 2}
    policy_run["others_cores"] = 0.9
    notes = document.notes(measured, [policy_run])
    assert notes[0] == "no adapter"
    assert "others used 0.90 cores" in notes[1]
    assert "queue_empty" in notes[2]

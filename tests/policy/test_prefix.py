"""What an observation says of the plan is what the playback commands if nothing else comes."""

from collections.abc import Sequence
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.clients.observation import Prefix
from recd.config.policy_streams import queue_dtype
from recd.config.policy_wire import Mode, Status
from recd.daemon.policy.playback import Plan, Playback, Rules
from recd.daemon.policy.prefix import Queue, along, prefix_of
from recd.shm.clock import NS_PER_MS, NS_PER_S

TICK_NS, DT_NS, LATENCY_NS = 4 * NS_PER_MS, 33 * NS_PER_MS, 10 * NS_PER_MS
NOW = 1_000_000 * NS_PER_S
LOW, HIGH = (-90.0, 0.0), (90.0, 100.0)
RULES = Rules(
    lead_ns=TICK_NS, seam=500.0, start_gap=500.0, latency_ns=LATENCY_NS, observation_ns=NS_PER_S,
    low=LOW, high=HIGH, speed=(360.0, 360.0), stepwise=(False, True),
)  # fmt: skip


class Arm:
    """A playback, and what a follower without limits of speed would have been told by it."""

    def __init__(self) -> None:
        self.play = Playback(RULES)
        self.told: list[float] = [1.0, 50.0]
        self.now = NOW

    def offer(self, plan: Plan) -> Status:
        return self.play.offer(plan, self.now, self.told).status

    def tick(self) -> bool:
        goal = self.play.goal(self.now, self.told)
        self.now += TICK_NS
        if goal is None:
            return False
        kept = [own if isnan(asked) else asked for asked, own in zip(goal, self.told, strict=True)]
        self.told = np.clip(kept, LOW, HIGH).tolist()
        return True

    def queue(self) -> Queue:
        record = np.zeros(1, queue_dtype(2))[0]
        self.play.show(record)
        rows = int(record["rows"])
        return Queue(
            self.now - TICK_NS + LATENCY_NS, np.array(self.told), record["target_ns"][:rows],
            record["values"][:rows], record["velocity"][:rows] != 0, int(record["until_ns"]),
            np.array(LOW), np.array(HIGH),
        )  # fmt: skip


def plan(number: int, obs_ns: int, rows: Sequence[Sequence[float]], **changes: object) -> Plan:
    told = {
        "mode": Mode.REPLACE, "blend": 0, "valid_until_ns": 2**62, "velocity": False, **changes,
    }  # fmt: skip
    targets = [obs_ns + (k + 1) * DT_NS for k in range(len(rows))]
    return Plan(chunk=number, epoch=1, obs_ns=obs_ns, dt_ns=DT_NS, age_limit_ns=NS_PER_S,
                targets_ns=targets, rows=rows, **told)  # type: ignore[arg-type]  # fmt: skip


def assert_foretold(arm: Arm, least: int = 1) -> None:
    """Play on to the end of the prefix: each goal lies on it, at the time that it is due."""
    times, places = prefix_of({"main": arm.queue()}, {"main": 2})
    checked = 0
    while arm.now + LATENCY_NS <= times[-1]:
        due_ns = arm.now + LATENCY_NS
        assert arm.tick(), "the prefix ends before the plan does"
        foretold = along(np.array([due_ns]), times, places)[0]
        np.testing.assert_allclose(arm.told, foretold, atol=1e-6)
        checked += 1
    assert checked >= least


values = st.lists(
    st.tuples(st.floats(-120, 120), st.floats(-20, 120)).map(list), min_size=4, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(values, values, st.sampled_from(Mode), st.integers(0, 6), st.integers(1, 12),
       st.tuples(st.booleans(), st.booleans()))  # fmt: skip
def test_the_prefix_is_what_is_commanded_if_no_chunk_comes(
    first, second, mode, blend, ticks, velocity
) -> None:
    """Whatever joined the plan before, and however much of it was played."""
    arm = Arm()
    assert arm.offer(plan(1, arm.now - DT_NS // 2, first, velocity=velocity[0])) == "applied"
    for _ in range(ticks):
        arm.tick()
    arm.offer(plan(2, arm.now - 5 * NS_PER_MS, second, mode=mode, blend=blend,
                   velocity=velocity[1]))  # fmt: skip
    arm.tick()
    inside = [[max(lo, min(hi, v)) == v for v, lo, hi in zip(row, LOW, HIGH, strict=True)]
              for row in [*first, *second]]  # fmt: skip
    if np.all(inside) and not any(velocity):
        assert_foretold(arm)
        return
    # Beyond the range, a goal is cut between two rows, the prefix at its rows.
    times, places = prefix_of({"main": arm.queue()}, {"main": 2})
    assert (places >= LOW).all()
    assert (places <= HIGH).all()
    assert (np.diff(times) > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-60, 60), st.floats(-30, 30)).map(list), min_size=4,
                max_size=15), st.integers(1, 12))  # fmt: skip
def test_velocities_are_told_as_the_places_they_lead_to(rows, ticks) -> None:
    arm = Arm()
    assert arm.offer(plan(1, arm.now, rows, velocity=True)) == "applied"
    for _ in range(ticks):
        arm.tick()
    assert_foretold(arm)


def test_a_joint_that_is_left_out_is_told_where_it_holds() -> None:
    arm = Arm()
    arm.offer(plan(1, arm.now, [[float(k), nan] for k in range(10)]))
    arm.tick()
    _, places = prefix_of({"main": arm.queue()}, {"main": 2})
    assert (places[:, 1] == 50.0).all()
    assert_foretold(arm)


@pytest.mark.parametrize("why", ["validity", "observation"])
def test_nothing_is_foretold_beyond_what_may_be_played(why: str) -> None:
    arm = Arm()
    until_ns = arm.now + 5 * DT_NS + 1 if why == "validity" else 2**62
    rows = [[float(k), 50.0] for k in range(20 if why == "validity" else 60)]
    arm.offer(plan(1, arm.now, rows, valid_until_ns=until_ns))
    arm.tick()
    assert_foretold(arm, least=10)
    assert not arm.tick()


def test_two_pairs_come_in_one_table_and_a_pair_without_a_plan_is_not_known() -> None:
    left, right = Arm(), Arm()
    left.now -= NS_PER_MS
    left.offer(plan(1, NOW, [[10.0, 20.0]] * 4))
    right.offer(plan(1, NOW - 7 * NS_PER_MS, [[30.0, 40.0]] * 2))
    left.tick(), right.tick()
    widths = {"left": 2, "right": 2, "third": 1}
    times, places = prefix_of({"left": left.queue(), "right": right.queue()}, widths)
    assert (np.diff(times) > 0).all()
    assert times[0] == right.queue().due_ns, "the later one of the two: both are known then"
    assert np.isfinite(places[0, :4]).all()
    assert np.isnan(places[:, 4]).all()
    assert places[-1, :2].tolist() == [10.0, 20.0]
    assert np.isnan(places[-1, 2:]).all(), "its plan had ended by then"


def test_no_plan_is_a_table_of_no_rows() -> None:
    times, places = prefix_of({}, {"main": 2})
    assert (times.shape, places.shape) == ((0,), (0, 2))
    assert np.isnan(Prefix(times, places).at([NOW])).all()


def test_a_client_reads_it_at_the_times_of_its_own_rows() -> None:
    told = Prefix(np.array([NOW, NOW + 2]), np.array([[0.0, 5.0], [1.0, nan]]))
    found = told.at([NOW - 1, NOW + 1, NOW + 2, NOW + 3])
    np.testing.assert_allclose(found[1:3, 0], [0.5, 1.0])
    assert np.isnan(found[[0, 3]]).all()

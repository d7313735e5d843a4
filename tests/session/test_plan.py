"""The plan: LeRobot's meaning of the keys, and invariants under random inputs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.session import plan as planning
from recd.daemon.session.plan import Act, Fact, Key, OnClientLost, Phase, Plan, PlanSpec, Step

S = 1_000_000_000
SPEC = PlanSpec(episodes=2, episode_ns=10 * S, reset_ns=5 * S, task="t")


class World:
    """Plays the session for a plan: does what the plan asks, at once, and keeps the record."""

    def __init__(self, spec: PlanSpec) -> None:
        self.now = 100 * S
        self.plan: Plan = planning.begin(spec, self.now)
        self.acts: list[Act] = []
        self.running = False
        self.closing = False
        self.kept = 0

    def feed(self, happened: Key | Fact) -> None:
        self._apply(planning.advance(self.plan, happened, self.now))

    def _apply(self, step: Step) -> None:
        self.plan = step.plan
        for act in step.acts:
            self.acts.append(act)
            match act:
                case Act.START:
                    assert not self.running
                    self.running = True
                    self.feed(Fact.STARTED)
                case Act.STOP:
                    assert self.running
                    self.running, self.closing, self.kept = False, True, self.kept + 1
                case Act.DISCARD:
                    assert self.running
                    self.running, self.closing = False, True
                case Act.UNDO:
                    self.kept -= 1
                case _:
                    pass

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * S)
        self.feed(Fact.TIME)

    def close(self) -> None:
        self.closing = False
        self.feed(Fact.ENDED)

    def save(self) -> None:
        self._apply(planning.saved(self.plan))


def test_two_episodes_run_by_time_with_one_reset_between_and_none_after() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.pass_time(10)
    world.close()
    assert world.plan.phase is Phase.RESET
    world.save()
    world.pass_time(5)
    world.pass_time(10)
    world.close()
    assert world.plan.phase is Phase.SAVING
    world.save()
    assert (world.plan.phase, world.plan.done, world.plan.outcome) == (Phase.DONE, 2, "complete")
    assert world.acts == [Act.START, Act.STOP, Act.RESET, Act.START, Act.STOP, Act.FINISH]


def test_next_ends_episode_and_reset_early() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.feed(Key.NEXT)
    world.close()
    world.feed(Key.NEXT)
    assert world.plan.phase is Phase.RECORDING
    assert world.plan.episode == 2


def test_rerecord_in_an_episode_throws_it_away_resets_and_records_the_same_number() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.feed(Key.RERECORD)
    world.close()
    assert (world.plan.phase, world.plan.done, world.plan.episode) == (Phase.RESET, 0, 1)
    world.pass_time(5)
    assert (world.plan.phase, world.kept) == (Phase.RECORDING, 0)


def test_rerecord_in_the_last_episode_is_followed_by_a_reset_all_the_same() -> None:
    world = World(replace(SPEC, episodes=1))
    world.feed(Fact.AVAILABLE)
    world.feed(Key.RERECORD)
    world.close()
    assert world.plan.phase is Phase.RESET


def test_rerecord_in_the_reset_phase_undoes_the_episode_just_recorded_and_starts_again() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.pass_time(10)
    world.close()
    world.feed(Key.RERECORD)
    assert world.acts[-2:] == [Act.UNDO, Act.START]
    assert (world.plan.phase, world.plan.episode) == (Phase.RECORDING, 1)


def test_stop_saves_the_partial_episode_and_ends() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.pass_time(3)
    world.feed(Key.STOP)
    world.close()
    world.save()
    assert (world.plan.phase, world.kept, world.plan.outcome) == (Phase.DONE, 1, "stopped")


def test_hold_stops_the_clock_of_the_phase() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.pass_time(9)
    world.feed(Key.HOLD)
    world.pass_time(60)
    assert (world.plan.phase, world.plan.left_ns(world.now)) == (Phase.RECORDING, 1 * S)
    world.feed(Key.HOLD)
    world.pass_time(0.5)
    assert world.plan.phase is Phase.RECORDING
    world.pass_time(0.5)
    assert world.plan.phase is Phase.ENDING
    assert world.acts == [Act.START, Act.HOLD, Act.RESUME, Act.STOP]


def test_an_episode_ended_by_a_fault_waits_for_a_person() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.running = False
    world.feed(Fact.ENDED)
    world.pass_time(3600)
    assert world.plan.phase is Phase.RESET
    world.feed(Key.NEXT)
    assert world.plan.phase is Phase.RECORDING


@pytest.mark.parametrize(
    ("policy", "phase", "acts"),
    [
        (OnClientLost.FINISH, Phase.RECORDING, []),
        (OnClientLost.STOP, Phase.ENDING, [Act.STOP]),
        (OnClientLost.CONTINUE, Phase.RECORDING, []),
    ],
)
def test_a_vanished_client_does_what_the_plan_says(
    policy: OnClientLost, phase: Phase, acts: list[Act]
) -> None:
    world = World(replace(SPEC, on_client_lost=policy))
    world.feed(Fact.AVAILABLE)
    world.feed(Fact.CLIENT_LOST)
    assert (world.plan.phase, world.acts[1:]) == (phase, acts)
    if world.running:
        world.pass_time(10)
    world.close()
    ended = policy is not OnClientLost.CONTINUE
    assert (world.plan.phase is Phase.SAVING) == ended


def test_a_client_lost_while_held_does_not_leave_the_plan_waiting_for_ever() -> None:
    world = World(replace(SPEC, on_client_lost=OnClientLost.FINISH))
    world.feed(Fact.AVAILABLE)
    world.feed(Key.HOLD)
    world.feed(Fact.CLIENT_LOST)
    assert world.plan.phase is Phase.ENDING


def test_a_failed_commit_is_recorded_again() -> None:
    world = World(SPEC)
    world.feed(Fact.AVAILABLE)
    world.pass_time(10)
    world.close()
    world.plan = planning.failed(world.plan).plan
    assert (world.plan.done, world.plan.episode) == (0, 1)


@pytest.mark.parametrize(
    "spec",
    [
        PlanSpec(episodes=0, episode_ns=S, reset_ns=0),
        PlanSpec(episodes=1, episode_ns=0, reset_ns=0),
        PlanSpec(episodes=1, episode_ns=S, reset_ns=-1),
    ],
)
def test_numbers_that_mean_nothing_are_refused(spec: PlanSpec) -> None:
    with pytest.raises(ValueError, match="expected"):
        planning.begin(spec, 0)


EVENTS = st.one_of(
    st.sampled_from([*Key, Fact.AVAILABLE, Fact.CLIENT_LOST]),
    st.floats(0, 12),
    st.sampled_from(["close", "save"]),
)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.sampled_from(OnClientLost), st.lists(EVENTS, max_size=60))
def test_whatever_happens_starts_and_ends_alternate_and_the_count_is_right(
    episodes: int, policy: OnClientLost, events: list[Key | Fact | float | str]
) -> None:
    world = World(replace(SPEC, episodes=episodes, on_client_lost=policy))
    for event in events:
        if world.plan.phase is Phase.DONE:
            break
        match event:
            case "close":
                if world.closing:
                    world.close()
            case "save":
                if world.plan.unsaved:
                    world.save()
            case float():
                world.pass_time(event)
            case _:
                assert not isinstance(event, str) or isinstance(event, Key | Fact)
                world.feed(event)  # type: ignore[arg-type]
        assert 0 <= world.plan.done <= episodes
        in_hand = int(world.closing and not world.plan.throw_away)
        assert world.kept == world.plan.done + in_hand
        assert world.running == (world.plan.phase is Phase.RECORDING)
        assert world.plan.elapsed_ns(world.now) >= 0
    starts = world.acts.count(Act.START)
    ends = world.acts.count(Act.STOP) + world.acts.count(Act.DISCARD)
    assert starts - ends == int(world.running)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from([Key.NEXT, Key.RERECORD]), max_size=5))
def test_time_alone_finishes_every_plan(episodes: int, keys: list[Key]) -> None:
    world = World(replace(SPEC, episodes=episodes))
    for step in range(40 + 4 * len(keys)):
        if world.plan.phase is Phase.WAITING:
            world.feed(Fact.AVAILABLE)
        if step < len(keys):
            world.feed(keys[step])
        world.pass_time(11)
        if world.closing:
            world.close()
        while world.plan.unsaved and world.plan.phase is not Phase.DONE:
            world.save()
    assert (world.plan.phase, world.plan.done) == (Phase.DONE, episodes)

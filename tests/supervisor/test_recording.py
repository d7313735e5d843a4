"""The choreography of episodes under any order of commands, answers, losses and time."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from recd.config.errors import RecdError
from recd.daemon.session import machine
from recd.daemon.session.machine import Event, State
from recd.daemon.supervisor.recording import CLOSE_PATIENCE_NS, Recording
from recd.daemon.supervisor.takes import (
    KEPT_EPISODES,
    SUMMARIES_KEPT,
    Fate,
    Grid,
    RecordingSpec,
    Take,
    forget,
)
from recd.shm.clock import NS_PER_S

CAMERAS = ("front", "wrist")
OPEN = {Fate.RECORDING, Fate.CLOSING, Fate.COMMITTING, Fate.DISCARDING}


class Workers:
    """The wire: remembers what was sent to whom, and what was told to waiting commands."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.outcomes: dict[str, Mapping[str, Any] | RecdError] = {}

    def send(self, process: str, ty: str, **fields: Any) -> bool:
        self.sent.append((process, ty, fields))
        return True

    def of_kind(self, *kinds: str) -> list[str]:
        return list(kinds)

    def announce(self, topic: str, event: str, **fields: Any) -> None:
        assert topic
        assert event

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        self.outcomes[key] = outcome

    def count(self, ty: str) -> Counter[tuple[str, str]]:
        return Counter(
            (process, fields["uid"])
            for process, sent, fields in self.sent
            if sent == ty and not fields.get("resume")
        )


class Choreography(RuleBasedStateMachine):
    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.workers = Workers()
        spec = RecordingSpec(
            name="main", root=self.root, grid=Grid(30),
            encoders={camera: f"encoder:{camera}" for camera in CAMERAS}, writers=("writer",),
            codec={}, task="t", operator="",
        )  # fmt: skip
        self.recording = Recording(spec, self.workers, self.workers)
        self.now = NS_PER_S
        self.awaited: set[str] = set()
        self.refused_rightly = True
        self.advance(Event.AVAILABLE)

    def advance(self, event: Event) -> None:
        self.recording.session = machine.advance(self.recording.session, event)

    def teardown(self) -> None:
        self.finish()

    # --- people ----------------------------------------------------------------------------

    @rule(command=st.sampled_from(["start", "stop", "discard", "restart", "undo", "mark"]))
    def command(self, command: str) -> None:
        recording, now = self.recording, self.now
        legal = recording.session.legal
        try:
            match command:
                case "start":
                    recording.start(now)
                case "stop":
                    self.awaited.add(f"saved:{recording.stop(now).uid}")
                case "discard":
                    self.awaited.add(f"discarded:{recording.discard(now).uid}")
                case "restart":
                    self.awaited.add(f"restarted:{recording.discard(now, restart=True).uid}")
                case "undo":
                    self.awaited.add(f"undone:{recording.undo()}")
                case "mark":
                    recording.mark(now, "x")
        except RecdError:
            self.refused_rightly = command not in legal or command in ("restart", "undo")

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += int(seconds * NS_PER_S)
        self.recording.watch(self.now)

    # --- workers ---------------------------------------------------------------------------

    def open_takes(self) -> list[Any]:
        return [take for take in self.recording.takes.values() if take.fate in OPEN]

    @rule(camera=st.sampled_from(CAMERAS), fails=st.booleans())
    def encoder_answers(self, camera: str, fails: bool) -> None:
        for take in self.open_takes():
            if take.ticks is None and not fails:
                continue
            ty = "failed" if fails else "closed"
            self.recording.hear(
                f"encoder:{camera}", "encoder", ty, {"uid": take.uid, "reason": "r"}, self.now
            )

    @rule(ty=st.sampled_from(["durable", "failed"]))
    def writer_answers(self, ty: str) -> None:
        for take in self.open_takes():
            if take.seal is None and ty != "failed":  # a full disk may end it at any time
                continue
            said = "discarded" if ty == "durable" and not take.seal["keep"] else ty
            self.writer_says(said, uid=take.uid, rows=3, reason="r")

    def writer_says(self, ty: str, **fields: Any) -> None:
        self.recording.hear("writer", "writer", ty, fields, self.now)

    @precondition(lambda self: self.recording.session.undoing)
    @rule(ty=st.sampled_from(["undone", "refused_op"]))
    def writer_undoes(self, ty: str) -> None:
        for uid in self.recording.session.undoing:
            if ("writer", uid) in self.workers.count("undo"):
                self.writer_says(ty, uid=uid, op="undo", reason="r")

    @rule(process=st.sampled_from(["writer", "encoder:front"]))
    def worker_comes_back(self, process: str) -> None:
        self.recording.worker_left(process, process.partition(":")[0], self.now)
        self.recording.worker_back(process, process.partition(":")[0])

    @rule()
    def something_is_lost(self) -> None:
        self.recording.abort(self.now, "lost")

    @rule(available=st.booleans())
    def availability(self, available: bool) -> None:
        self.advance(Event.AVAILABLE if available else Event.UNAVAILABLE)

    @rule()
    def fault_and_reset(self) -> None:
        if self.recording.session.state is State.FAULT:
            self.recording.reset()
            self.advance(Event.AVAILABLE)
        else:
            self.recording.fault(self.now, "gone")

    @rule()
    def rubbish_from_workers(self) -> None:
        for ty in ("closed", "failed", "durable", "discarded", "undone", "refused_op"):
            self.recording.hear("writer", "writer", ty, {"uid": "nobody"}, self.now)
            self.recording.hear("encoder:front", "encoder", ty, {}, self.now)

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def a_take_is_in_hand_exactly_while_recording_or_closing(self) -> None:
        session = self.recording.session
        busy = session.state in (State.RECORDING, State.FINALIZING)
        assert busy == (session.take is not None) == (self.recording.current is not None)

    @invariant()
    def a_legal_command_is_never_refused(self) -> None:
        assert self.refused_rightly

    @invariant()
    def every_take_begins_ends_and_is_sealed_at_most_once(self) -> None:
        for ty in ("begin", "end", "seal"):
            assert all(count == 1 for count in self.workers.count(ty).values()), ty

    @invariant()
    def nothing_is_sealed_before_all_its_cameras_have_answered(self) -> None:
        for take in self.recording.takes.values():
            assert take.seal is None or take.all_closed
            assert take.seal is None or take.ticks is not None

    @invariant()
    def only_saved_takes_can_be_undone(self) -> None:
        last = self.recording.session.last_saved
        assert last is None or self.recording.takes[last].fate is Fate.SAVED

    def finish(self) -> None:
        """Let everybody answer: every take comes to an end and every waiting command hears it."""
        for _ in range(8):
            if self.recording.session.state is State.RECORDING:
                self.command("stop")
            self.now += 20 * CLOSE_PATIENCE_NS
            self.recording.watch(self.now)
            self.writer_answers("durable")
            self.writer_undoes("undone")
        assert self.recording.settled
        assert not self.open_takes()
        missing = self.awaited - set(self.workers.outcomes)
        assert not missing


def test_any_order_of_commands_answers_and_losses_ends_every_take(tmp_path: Path) -> None:
    Choreography.root = tmp_path
    run_state_machine_as_test(
        Choreography, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


class Announced(Workers):
    """Workers that also remember what the operator was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []

    def announce(self, topic: str, event: str, **fields: Any) -> None:
        if topic == "fault":
            self.told.append((event, fields))


def one_camera(root: Path, workers: Workers, *, kind: str = "clock", **more: Any) -> Recording:
    """A recording of one camera that is READY."""
    spec = RecordingSpec(
        name="main", root=root, grid=Grid(30, kind=kind), encoders={"front": "encoder:front"},
        writers=("writer",), codec={}, task="t", operator="", **more,
    )  # fmt: skip
    recording = Recording(spec, workers, workers)
    recording.session = machine.advance(recording.session, Event.AVAILABLE)
    return recording


@pytest.mark.parametrize("kind", ["clock", "step"])
def test_an_episode_that_would_grow_too_long_is_announced_and_closed_before(
    tmp_path: Path, kind: str
) -> None:
    decided = {"front": 5}
    workers = Announced()
    recording = one_camera(tmp_path, workers, kind=kind, decided=lambda uid: decided)
    began = NS_PER_S
    take = recording.start(began)

    def at(second: int) -> None:
        decided["front"] = second * 30
        recording.watch(began + second * NS_PER_S)

    at(900)
    assert workers.told == []
    for second in (940, 960, 980):
        at(second)
    assert [event for event, _ in workers.told] == ["longest_episode"]
    assert workers.told[0][1]["left_s"] == pytest.approx(50, abs=1)
    assert recording.session.state is State.RECORDING
    at(991)
    assert recording.session.state is State.FINALIZING
    assert workers.told[-1][1]["action"] == "closed"
    assert take.ticks is not None
    assert take.ticks < 1000 * 30
    recording.hear("encoder:front", "encoder", "closed", {"uid": take.uid}, began)
    assert take.seal is not None
    assert (take.seal["keep"], take.seal["end_reason"]) == (True, "longest episode")


def test_an_encoder_is_given_up_when_it_stands_still_not_when_it_was_far_behind(
    tmp_path: Path,
) -> None:
    workers, decided = Announced(), {"front": 100}
    recording = one_camera(tmp_path, workers, decided=lambda uid: decided)
    take = recording.start(NS_PER_S)
    now = 100 * NS_PER_S
    recording.stop(now)
    for _ in range(10):
        now += CLOSE_PATIENCE_NS - NS_PER_S
        decided["front"] += 1
        recording.watch(now)
        assert take.failed == {}
    recording.watch(now + CLOSE_PATIENCE_NS)
    assert recording.session.state is State.FINALIZING
    recording.watch(now + CLOSE_PATIENCE_NS + 1)
    assert "did not close its file in time" in take.failed["front"]


def test_parts_of_an_encoder_that_had_died_are_given_time_to_be_joined(tmp_path: Path) -> None:
    workers = Workers()
    recording = one_camera(tmp_path, workers)
    take = recording.start(NS_PER_S)
    recording.worker_left("encoder:front", "encoder", 2 * NS_PER_S)
    now = 900 * NS_PER_S
    recording.stop(now)
    recording.watch(now + CLOSE_PATIENCE_NS + 60 * NS_PER_S)
    assert take.failed == {}
    recording.hear("encoder:front", "encoder", "closed", {"uid": take.uid}, now)
    assert take.seal is not None


def test_an_arm_that_came_back_with_another_calibration_is_not_recorded(tmp_path: Path) -> None:
    workers = Workers()
    spec = RecordingSpec(
        name="main", root=tmp_path, grid=Grid(30), encoders={}, writers=("writer",), codec={},
        task="t", operator="",
    )  # fmt: skip
    recording = Recording(spec, workers, workers)
    recording.session = machine.advance(recording.session, Event.AVAILABLE)
    recording.calibrations = {"main.follower": ["aa"]}
    recording.arms["main.follower"] = {"calibration_sha256": "bb", "calibration": "/c/new.json"}
    with pytest.raises(RecdError, match=r"arms.main.follower: /c/new.json") as refused:
        recording.start(NS_PER_S)
    assert "accept_calibration=true" in refused.value.mend
    assert workers.sent == []
    assert recording.session.state is State.READY
    recording.arms["main.follower"] = {"calibration_sha256": "aa", "calibration": "/c/old.json"}
    take = recording.start(NS_PER_S)
    recording.stop(2 * NS_PER_S)
    assert take.seal is not None
    assert take.seal["arms"]["main.follower"]["calibration_sha256"] == "aa"


def test_a_writer_that_gives_the_running_take_up_ends_it_and_nothing_waits_for_ever(
    tmp_path: Path,
) -> None:
    workers = Announced()
    recording = one_camera(tmp_path, workers)
    take = recording.start(NS_PER_S)
    said = {"uid": take.uid, "reason": "no space left on device", "kept_at": "/d/.recd/staging/x"}
    recording.hear("writer", "writer", "failed", said, 2 * NS_PER_S)
    assert recording.session.state is State.FINALIZING
    recording.hear("encoder:front", "encoder", "closed", {"uid": take.uid}, 3 * NS_PER_S)
    assert take.fate is Fate.FAILED
    assert recording.settled
    assert recording.session.state is State.READY
    outcome = workers.outcomes[f"saved:{take.uid}"]
    assert isinstance(outcome, RecdError)
    assert "no space left" in outcome.message
    assert workers.count("seal") == {}


def saved_take(number: int) -> Take:
    """An ended take with all that its workers said of it."""
    said = {"histogram": list(range(768)), "bytes": 10**6}
    seal = {"task": "pick", "operator": "ann", "marks": [{"label": "good"}], "end_reason": "stop",
            "cameras": {"front": said}}  # fmt: skip
    outcome = {"episode_index": number, "rows": 30, "duration_ns": NS_PER_S, "verdict": "good",
               "summary": {"cameras": [1] * 99}, "totals": {"episodes": number}}  # fmt: skip
    begin = {"task": "begun as", "operator": "bob", "robot": "x" * 10_000}
    return Take(
        f"{number:032x}", Path("/x"), 0, begin, ("front",), fate=Fate.SAVED, closed={"front": said},
        seal=seal, outcome=outcome, ended_ns=1,
    )  # fmt: skip


def test_of_takes_that_ended_only_what_is_told_of_them_stays_in_memory() -> None:
    takes = {take.uid: take for take in map(saved_take, range(SUMMARIES_KEPT + 5))}
    running = saved_take(99)
    running.ended_ns, running.fate = 0, Fate.RECORDING
    before = {uid: take.describe() for uid, take in takes.items()}
    whole = running.describe()
    forget({**takes, running.uid: running})
    assert running.describe() == whole
    assert "robot" in running.begin
    for back, (uid, take) in enumerate(reversed(takes.items()), 1):
        told = take.describe()
        summary = before[uid].pop("summary")
        assert told.pop("summary", None) == (summary if back < SUMMARIES_KEPT else None)
        assert told == before[uid]
        assert "histogram" not in repr(take)
        assert "robot" not in repr(take)


def test_the_oldest_takes_go_but_none_that_has_not_ended() -> None:
    takes = {take.uid: take for take in map(saved_take, range(KEPT_EPISODES + 3))}
    oldest = next(iter(takes.values()))
    oldest.ended_ns = 0
    forget(takes)
    assert len(takes) == KEPT_EPISODES + 1
    assert oldest.uid in takes

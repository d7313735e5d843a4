from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.session import machine
from recd.daemon.session.machine import Event, State
from recd.daemon.session.plan import Phase
from recd.daemon.supervisor.planner import Planner
from recd.daemon.supervisor.recording import Recording, RecordingSpec
from recd.daemon.supervisor.takes import Grid
from recd.shm.clock import NS_PER_S


class Outbox:
    """Messages that would go to workers, and what the recording tells."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    def send(self, process: str, ty: str, **fields: Any) -> bool:
        self.sent.append((process, ty, fields))
        return True

    def of_kind(self, *kinds: str) -> list[str]:
        return list(kinds)

    def announce(self, topic: str, event: str, **fields: Any) -> None:
        pass

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        pass

    def on_take(self, what: str, uid: str) -> None:
        pass


def running_plan(root: Path, *, kind: str = "clock") -> tuple[Planner, Recording, Outbox]:
    outbox = Outbox()
    spec = RecordingSpec(
        name="main",
        root=root,
        grid=Grid(30, 1, kind),
        encoders={"front": "encoder:front"},
        writers=("writer",),
        codec={},
        task="t",
        operator="",
    )
    recording = Recording(spec, outbox, outbox)
    recording.session = machine.advance(recording.session, Event.AVAILABLE)
    planner = Planner(
        recording, hold=lambda held: None, announce=outbox.announce, client_lost="finish"
    )
    planner.start(NS_PER_S, {"episodes": 2, "episode_s": 1.0, "reset_s": 1.0}, had_episodes=False)
    assert recording.session.state is State.RECORDING
    return planner, recording, outbox


def test_a_phase_that_ends_just_after_a_fault_ended_the_episode_asks_for_nothing(tmp_path):
    planner, recording, outbox = running_plan(tmp_path)
    recording.abort(2 * NS_PER_S, "bus silent")
    sent = len(outbox.sent)
    planner.watch(9 * NS_PER_S)
    planner.key("stop", 9 * NS_PER_S)
    assert recording.session.state is State.FINALIZING
    assert [ty for _, ty, _ in outbox.sent[sent:]] == []


def test_rerecord_just_after_a_fault_ended_the_episode_harms_nothing(tmp_path):
    planner, recording, _ = running_plan(tmp_path)
    recording.abort(2 * NS_PER_S, "bus silent")
    planner.key("rerecord", 2 * NS_PER_S + 1)
    assert recording.session.state is State.FINALIZING


def test_an_undone_take_whose_commit_fails_is_recorded_again_once(tmp_path):
    planner, recording, _ = running_plan(tmp_path)
    recording.watchers.append(lambda what, uid: planner.on_take(what, uid, 3 * NS_PER_S))
    uid = recording.current.uid
    planner.key("next", 2 * NS_PER_S)
    recording.hear("encoder:front", "encoder", "closed", {"uid": uid}, 2 * NS_PER_S)
    assert (planner.plan.phase, planner.plan.done) == (Phase.RESET, 1)
    planner.key("rerecord", 3 * NS_PER_S)
    assert (planner.plan.phase, planner.plan.done) == (Phase.RECORDING, 0)
    recording.hear("writer", "writer", "failed", {"uid": uid, "reason": "r"}, 3 * NS_PER_S)
    assert (planner.plan.done, planner.plan.unsaved, planner.plan.episode) == (0, 0, 1)


def test_a_take_whose_commit_fails_is_counted_out_and_recorded_again(tmp_path):
    planner, recording, _ = running_plan(tmp_path)
    recording.watchers.append(lambda what, uid: planner.on_take(what, uid, 3 * NS_PER_S))
    uid = recording.current.uid
    planner.key("next", 2 * NS_PER_S)
    recording.hear("encoder:front", "encoder", "closed", {"uid": uid}, 2 * NS_PER_S)
    recording.hear("writer", "writer", "failed", {"uid": uid, "reason": "r"}, 3 * NS_PER_S)
    assert (planner.plan.done, planner.plan.episode, planner.plan.unsaved) == (0, 1, 0)


def test_a_plan_over_step_sources_ends_with_them_and_says_why(tmp_path):
    planner, recording, outbox = running_plan(tmp_path, kind="step")
    recording.watchers.append(lambda what, uid: planner.on_take(what, uid, 2 * NS_PER_S))
    uid, now = recording.current.uid, 2 * NS_PER_S
    recording.spent = True
    recording.source_ended(now, 25)
    recording.hear("encoder:front", "encoder", "closed", {"uid": uid}, now)
    recording.hear("writer", "writer", "durable", {"uid": uid, "rows": 25}, 9 * NS_PER_S)
    ends = [fields["ticks"] for _, ty, fields in outbox.sent if ty == "end"]
    assert ends == [25, 25]  # encoder and writer
    assert recording.takes[uid].describe()["end_reason"] == "source ended"
    assert not planner.active
    assert (planner.plan.done, planner.plan.outcome) == (1, "the sources are at their end")


def test_a_plan_that_finds_no_step_for_its_next_episode_ends_instead_of_waiting(tmp_path):
    planner, recording, _ = running_plan(tmp_path, kind="step")
    recording.watchers.append(lambda what, uid: planner.on_take(what, uid, 3 * NS_PER_S))
    uid = recording.current.uid
    planner.key("next", 2 * NS_PER_S)
    recording.hear("encoder:front", "encoder", "closed", {"uid": uid}, 2 * NS_PER_S)
    recording.spent = True  # the last step went by while the episode was closing
    recording.session = replace(
        machine.advance(recording.session, Event.UNAVAILABLE), why=("camera:front (at its end)",)
    )
    planner.watch(9 * NS_PER_S)
    recording.hear("writer", "writer", "durable", {"uid": uid, "rows": 25}, 9 * NS_PER_S)
    assert not planner.active
    assert "camera:front (at its end)" in planner.plan.outcome


def test_an_episode_for_which_no_step_was_left_is_thrown_away(tmp_path):
    _, recording, outbox = running_plan(tmp_path, kind="step")
    recording.source_ended(2 * NS_PER_S, 0)
    kept = {fields["keep"] for _, ty, fields in outbox.sent if ty == "end"}
    assert kept == {False}


def test_the_time_of_a_plan_makes_no_rows_that_a_step_source_did_not_give(tmp_path):
    planner, _, outbox = running_plan(tmp_path, kind="step")
    planner.watch(4 * NS_PER_S)
    assert {fields["ticks"] for _, ty, fields in outbox.sent if ty == "end"} == {1}

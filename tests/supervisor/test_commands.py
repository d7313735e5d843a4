"""Commands over the real socket: episodes, refusals, retries, rubbish."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from recd.clients import client as client_module
from recd.clients.client import RecdClient
from recd.config.errors import RecdError
from recd.config.messages import COMMANDS, MAX_MESSAGE_BYTES, decode, new_request_id
from recd.config.versions import own_version
from recd.shm.clock import NS_PER_S

from .conftest import Daemon, until

Start = Callable[..., Daemon]
PERIOD_NS = NS_PER_S // 30


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose writer commits nothing while `held` is there; tests leave it in READY."""
    folder = tmp_path_factory.mktemp("slow")
    daemon = Daemon(folder, {"writer": {"commit_held_by": str(folder / "held")}})
    daemon.wait_state("READY")
    yield daemon
    daemon.close()


@pytest.fixture
def held(slow: Daemon) -> Iterator[Path]:
    """What keeps `slow` from committing until it is unlinked."""
    path = slow.config.parent / "held"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def record_one(daemon: Daemon, **start: Any) -> dict[str, Any]:
    daemon.ok("start", **start)
    return daemon.ok("stop")


def test_an_episode_from_start_to_durable(shared: Daemon) -> None:
    before = shared.status()["t_ns"]
    started = shared.ok("start", task="stack cubes", operator="ada")
    assert started["t0_ns"] - before > 0
    assert shared.status()["state"] == "RECORDING"
    shared.ok("mark", label="success")
    saved = shared.ok("stop")
    assert (saved["uid"], saved["state"]) == (started["uid"], "saved")
    assert (saved["task"], saved["operator"]) == ("stack cubes", "ada")
    assert [mark["label"] for mark in saved["marks"]] == ["success"]
    assert saved["verdict"]["level"] == "good"
    assert saved["durable_s"] > 0
    assert shared.status()["last_episode"]["uid"] == saved["uid"]
    assert shared.ok("episodes")["episodes"][-1]["uid"] == saved["uid"]


def test_row_zero_lies_within_two_periods_of_the_request(shared: Daemon) -> None:
    before = shared.status()["t_ns"]
    started = shared.ok("start")
    after = shared.status()["t_ns"]
    shared.ok("stop")
    assert before < started["t0_ns"] <= after + 2 * PERIOD_NS


def test_illegal_commands_name_the_state_and_what_is_legal(shared: Daemon) -> None:
    refusal = shared.refused("stop")
    assert (refusal["code"], refusal["state"]) == ("state", "READY")
    assert "start" in refusal["legal"]
    shared.ok("start")
    refusal = shared.refused("start")
    assert (refusal["state"], "stop" in refusal["legal"]) == ("RECORDING", True)
    assert refusal["mend"]
    shared.ok("stop")


def test_a_repeated_request_id_is_answered_again_and_not_done_again(shared: Daemon) -> None:
    request_id = new_request_id()
    first = shared.request("start", request_id=request_id)
    again = shared.request("start", request_id=request_id)
    assert first == again
    assert first["ok"]
    shared.ok("stop")


def test_a_retry_of_a_waiting_stop_on_another_connection_gets_the_same_reply(
    slow: Daemon, held: Path
) -> None:
    slow.ok("start")
    request_id = new_request_id()
    slow.post("stop", request_id=request_id)
    until(lambda: slow.status()["state"] != "RECORDING", "stop begun")
    message = {"v": 1, "ty": "req", "id": request_id, "cmd": "stop", "args": {}}
    other = slow.connect()
    other.send(msgpack.packb(message))
    held.unlink()
    reply = slow.reply_to(request_id)
    assert other.poll(30_000)
    assert decode(other.recv()) == reply
    assert reply["result"]["state"] == "saved"
    uids = [take["uid"] for take in slow.ok("episodes")["episodes"]]
    assert uids.count(reply["result"]["uid"]) == 1
    other.close()


def test_start_is_possible_while_the_last_episode_is_still_being_saved(
    slow: Daemon, held: Path
) -> None:
    slow.ok("start")
    first = slow.ok("stop", wait=False)
    slow.wait_state("READY")
    slow.ok("start")
    status = slow.status()
    assert status["state"] == "RECORDING"
    assert status["flags"]["committing"]
    assert status["committing"] == [first["uid"]]
    held.unlink()
    slow.ok("stop")
    takes = slow.ok("episodes")["episodes"][-2:]
    assert [take["state"] for take in takes] == ["saved", "saved"]


def test_a_deadline_that_passes_is_told_and_the_command_goes_on(slow: Daemon, held: Path) -> None:
    slow.ok("start")
    request_id = new_request_id()
    slow.post("stop", request_id=request_id, deadline_ms=100)
    assert slow.reply_to(request_id)["error"]["code"] == "deadline"
    held.unlink()
    until(lambda: slow.ok("episodes")["episodes"][-1]["state"] == "saved", "saved all the same")


def test_a_client_that_waits_no_longer_is_told_that_the_command_goes_on(
    slow: Daemon, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "REPLY_GRACE_MS", 30_000)  # of a daemon that is kept waiting
    with RecdClient(endpoint=f"ipc://{slow.runtime / 'ctl.sock'}") as client:
        client.start()
        with pytest.raises(RecdError, match="it goes on") as told:
            client.stop(timeout_s=0.1)
    assert told.value.code == "deadline"
    held.unlink()
    until(lambda: slow.ok("episodes")["episodes"][-1]["state"] == "saved", "saved all the same")


def test_discard_puts_the_take_in_the_trash_and_undelete_brings_it_back(shared: Daemon) -> None:
    uid = shared.ok("start")["uid"]
    assert shared.ok("discard")["state"] == "discarded"
    number = shared.ok("undelete", uid=uid)["episode_index"]
    take = shared.ok("episodes")["episodes"][-1]
    assert (take["state"], take["episode_index"]) == ("saved", number)
    assert "trash" in shared.refused("undelete", uid=uid)["message"]


def test_rerecord_while_recording_discards_and_starts_again(shared: Daemon) -> None:
    uid = shared.ok("start", task="t1")["uid"]
    again = shared.ok("rerecord")
    assert again["discarded"] == uid
    assert again["uid"] != uid
    status = shared.status()
    assert (status["state"], status["episode"]["uid"]) == ("RECORDING", again["uid"])
    assert status["episode"]["task"] == "t1"
    shared.ok("stop")
    states = {take["uid"]: take["state"] for take in shared.ok("episodes")["episodes"]}
    assert (states[uid], states[again["uid"]]) == ("discarded", "saved")


def test_rerecord_while_idle_undoes_the_last_episode_once(shared: Daemon) -> None:
    older, newer = record_one(shared)["uid"], record_one(shared)["uid"]
    assert "no longer the latest" in shared.refused("rerecord", uid=older)["message"]
    assert shared.ok("rerecord", uid=newer)["uid"] == newer
    assert "no episode" in shared.refused("rerecord")["message"]
    takes = {take["uid"]: take for take in shared.ok("episodes")["episodes"]}
    assert (takes[older]["state"], takes[newer]["state"]) == ("saved", "undone")
    assert "episode_index" not in takes[newer]  # the next episode gets its number


def test_rerecord_while_the_last_episode_is_still_being_saved_undoes_it_then(
    slow: Daemon, held: Path
) -> None:
    slow.ok("start")
    uid = slow.ok("stop", wait=False)["uid"]
    slow.wait_state("READY")
    request_id = new_request_id()
    slow.post("rerecord", request_id=request_id)
    assert slow.status()["committing"] == [uid]
    held.unlink()
    assert slow.reply_to(request_id)["result"]["uid"] == uid
    assert slow.ok("episodes")["episodes"][-1]["state"] == "undone"


def test_a_commit_that_fails_says_where_everything_is_kept(start_daemon: Start) -> None:
    daemon = start_daemon(writer={"fail_commit": True})
    daemon.wait_state("READY")
    daemon.ok("start")
    refusal = daemon.refused("stop")
    assert refusal["code"] == "not_saved"
    assert "disk full" in refusal["message"]
    assert "/somewhere" in refusal["mend"]
    assert daemon.status()["state"] == "READY"


def test_an_episode_that_is_lost_ends_recctl_with_code_3(start_daemon: Start) -> None:
    daemon = start_daemon(writer={"fail_commit": True})
    daemon.wait_state("READY")
    recctl = [sys.executable, "-m", "recd.clients.recctl.cli", "--endpoint",
              f"ipc://{daemon.runtime / 'ctl.sock'}"]  # fmt: skip
    daemon.ok("start")
    stopped = subprocess.run([*recctl, "stop"], capture_output=True, text=True, timeout=60)
    assert stopped.returncode == 3
    assert "could not be saved: disk full" in stopped.stderr


def test_task_and_operator_are_kept_for_the_next_episodes(shared: Daemon) -> None:
    shared.ok("task", text="fold towel")
    shared.ok("operator", name="grace")
    saved = record_one(shared)
    assert (saved["task"], saved["operator"]) == ("fold towel", "grace")
    assert shared.ok("task") == {"task": "fold towel"}


def test_motion_commands_answer_with_the_motion_state(shared: Daemon) -> None:
    assert shared.ok("arm")["motion"]["main"]["state"] == "TELEOP"
    assert shared.ok("estop", pair="main")["motion"]["main"]["state"] == "HOLD"
    assert "main" in shared.refused("arm", pair="third")["mend"]


def test_a_step_of_every_other_command_is_answered(shared: Daemon) -> None:
    done_elsewhere = {"start", "stop", "discard", "rerecord", "undelete", "mark", "arm", "estop",
                      "task", "operator", "shutdown", "status", "episodes", "devices"}  # fmt: skip
    asked = {
        "plan.start": {"episodes": 0, "episode_s": 1, "reset_s": 1},
        "plan.key": {"key": "next"},
        "plan.attach": {"client": "c"},
        "plan.detach": {"client": "c"},
    }
    for name in sorted(set(COMMANDS) - done_elsewhere):
        reply = shared.request(name, **asked.get(name, {}))
        assert reply["ok"] or reply["error"]["message"], name


def test_shm_shows_rings_with_their_writers_and_readers(shared: Daemon) -> None:
    shm = shared.ok("shm")
    rings = {ring["name"]: ring for ring in shm["rings"]}
    assert {"cam.front", "ticks.front", "arm.main.follower", "telemetry.main.follower"} == set(
        rings
    )
    assert shm["nbytes"] > 0


def test_snapshot_without_a_picture_says_so(shared: Daemon) -> None:
    assert "front" in shared.ok("snapshot")["failed"]
    assert "not delivered" in shared.refused("snapshot", camera="front")["message"]
    assert "front" in shared.refused("snapshot", camera="nose")["mend"]


def test_reset_is_refused_where_nothing_was_given_up(shared: Daemon) -> None:
    assert shared.refused("reset")["code"] == "state"


RUBBISH = [
    b"",
    b"\xc1",
    b"GET / HTTP/1.1\r\n\r\n",
    msgpack.packb([1]),
    msgpack.packb({"v": 9, "ty": "req", "id": "abc", "cmd": "start"}),
    msgpack.packb({"v": 0, "ty": "req", "id": "abc", "cmd": "status"}),
    msgpack.packb(
        {"v": 1, "ty": "req", "id": "abc", "cmd": "status", "args": [[[[[[[[[[1]]]]]]]]]]}
    ),
    b"\xdf\xff\xff\xff\xff",
    msgpack.packb({"v": 1, "ty": "req", "id": "x", "cmd": "start", "args": {"task": "a\x00b"}}),
]


@pytest.mark.parametrize("number", range(len(RUBBISH)))
def test_a_malformed_message_gets_a_typed_reply_and_harms_nothing(
    shared: Daemon, number: int
) -> None:
    peer = shared.connect()
    peer.send(RUBBISH[number])
    assert peer.poll(30_000)
    reply = decode(peer.recv())
    assert not reply["ok"]
    assert reply["error"]["code"] in ("malformed", "version", "oversized", "argument")
    assert shared.status()["state"] == "READY"
    peer.close()


def other_version(daemon: Daemon, cmd: str) -> dict[str, Any]:
    """The reply to a client of a recd that speaks another protocol."""
    peer = daemon.connect()
    asked = {"v": 7, "ty": "req", "id": new_request_id(), "cmd": cmd, "args": {"later": [1]},
             "recd": "9.9.9", "deadline_ms": 60_000}  # fmt: skip
    peer.send(msgpack.packb(asked))
    assert peer.poll(60_000)
    reply = decode(peer.recv())
    peer.close()
    assert reply["re"] == asked["id"]
    assert reply["recd"] == own_version()
    return reply


def test_a_client_of_any_protocol_version_sees_stops_and_ends_and_is_refused_the_rest(
    start_daemon: Start,
) -> None:
    daemon = start_daemon()
    daemon.wait_state("READY")
    refused = other_version(daemon, "start")["error"]
    assert refused["code"] == "version"
    assert "expected 1" in refused["message"]
    assert "found 7 of recd 9.9.9" in refused["message"]
    assert "status, stop, shutdown" in refused["mend"]
    daemon.ok("start")
    assert other_version(daemon, "hello")["result"]["protocol"] == 1
    assert other_version(daemon, "status")["result"]["state"] == "RECORDING"
    assert other_version(daemon, "stop")["result"]["state"] == "saved"
    assert other_version(daemon, "shutdown")["ok"]
    assert daemon.process.wait(timeout=60) == 0
    assert daemon.said.count("client of another version") == 1
    assert "recd 9.9.9, protocol 7" in daemon.said


def test_oversized_and_random_messages_never_touch_a_running_episode(shared: Daemon) -> None:
    uid = shared.ok("start")["uid"]
    dice = random.Random(7)
    for _ in range(20):
        peer = shared.connect()
        peer.send(os.urandom(MAX_MESSAGE_BYTES + 1))
        peer.close()
    peer = shared.connect()
    for _ in range(500):
        peer.send(dice.randbytes(dice.randrange(200)))
    peer.send_multipart([b"a"] * 50)
    status = until(
        lambda: (told := shared.status())["rejected_messages"] >= 450 and told, "rubbish counted"
    )
    assert (status["state"], status["episode"]["uid"]) == ("RECORDING", uid)
    peer.close()
    shared.ok("stop")


def test_events_are_numbered_without_gaps(shared: Daemon) -> None:
    events = shared.subscribe()
    until(lambda: shared.status() and events.poll(100), "subscription reached the daemon")
    record_one(shared)
    seen: list[tuple[str, int, str]] = []
    while not any(event == "saved" for _, _, event in seen):
        assert events.poll(30_000), seen
        topic, body = events.recv_multipart()
        message = decode(body)
        seen.append((topic.decode(), message["seq"], message["event"]))
    numbers = [number for _, number, _ in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {"state", "episode"} <= {topic for topic, _, _ in seen}
    events.close()

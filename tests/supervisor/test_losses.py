"""Workers that die, freeze or refuse: what the session does, and what the operator reads."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recd.clients.client import RecdClient
from recd.clients.recctl import show
from recd.config.errors import RecdError
from recd.config.messages import new_request_id

from .conftest import Daemon, gone, until

Start = Callable[..., Daemon]


def test_a_device_that_always_refuses_ends_in_fault_with_its_mend_and_reset_tries_again(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(camera__front={"refuse": True})
    status = daemon.wait_state("FAULT")
    assert "camera:front: camera 7 is not there" in status["fault"]
    seat = status["processes"]["camera:front"]
    assert (seat["phase"], seat["restarts"]) == ("given_up", 2)
    assert seat["error"]["mend"] == "plug it in"
    assert status["processes"]["writer"]["phase"] == "running"
    assert "camera 7" in daemon.refused("start")["message"]
    daemon.ok("reset")
    again = daemon.wait_state("FAULT")
    assert again["processes"]["camera:front"]["restarts"] == 4
    assert "Traceback" not in daemon.said


def test_an_optional_camera_that_is_gone_does_not_stop_anybody(start_daemon: Start) -> None:
    daemon = start_daemon(
        camera__front={"die_at_once": True}, set=["cameras.front.required=optional"]
    )
    until(lambda: daemon.status()["processes"]["camera:front"]["phase"] == "given_up", "given up")
    status = daemon.wait_state("READY")
    assert status["flags"]["degraded"]
    assert status["degraded"] == ["camera:front"]
    seat = status["processes"]["camera:front"]
    assert seat["error"]["message"] == "exit code 3"
    assert daemon.ok("reset") == {"state": "READY"}
    until(
        lambda: daemon.status()["processes"]["camera:front"]["restarts"] > seat["restarts"],
        "the camera to be tried again",
    )


def test_a_device_that_is_away_tells_why_and_its_mend_in_status_and_at_start(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(camera__front={"device_away": "no camera at /dev/video7"})
    until(lambda: daemon.status()["waiting_for"] == ["camera:front"], "only the camera is away")
    until(lambda: daemon.status()["processes"]["camera:front"]["error"], "it to say why")
    status = daemon.status()
    error = status["processes"]["camera:front"]["error"]
    assert (error["message"], error["mend"]) == ("no camera at /dev/video7", "plug it in")
    assert "no camera at /dev/video7" in daemon.refused("start")["message"]
    told = "\n".join(show.status(status))
    assert "no camera at /dev/video7\n    plug it in" in told


def test_a_worker_without_a_sign_of_life_is_replaced(start_daemon: Start) -> None:
    daemon = start_daemon(timing={"camera:front": {"stale_after_ns": 800}})
    daemon.wait_state("READY")
    os.kill(daemon.pid_of("camera:front"), signal.SIGSTOP)
    # A busy computer may have it taken for stuck once more than it was.
    until(lambda: daemon.status()["processes"]["camera:front"]["restarts"], "replaced")
    daemon.wait_state("READY")
    assert "stuck" in daemon.said


def test_a_worker_that_never_gets_ready_is_replaced_until_fault(start_daemon: Start) -> None:
    daemon = start_daemon(
        camera__front={"never_ready": True}, timing={"camera:front": {"ready_after_ns": 200}}
    )
    assert "not ready" in daemon.wait_state("FAULT")["fault"]


def test_an_arm_that_dies_ends_the_episode_which_is_kept(shared: Daemon) -> None:
    uid = shared.ok("start")["uid"]
    os.kill(shared.pid_of("arm:main.follower"), signal.SIGKILL)
    take = until(
        lambda: (t := shared.ok("episodes")["episodes"][-1])["state"] == "saved" and t, "saved"
    )
    assert take["uid"] == uid
    assert "arm:main.follower" in take["end_reason"]
    assert shared.wait_state("READY")["arms"]["main"]["motion"] == {}


def test_an_arm_in_fault_ends_the_episode_and_is_waited_for_until_armed_again(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(arm__main_follower={"fault_on_hold": True})
    daemon.wait_state("READY")
    daemon.ok("start")
    daemon.ok("hold")
    take = until(
        lambda: (t := daemon.ok("episodes")["episodes"][-1])["state"] == "saved" and t, "saved"
    )
    assert "bus_silent" in take["end_reason"]
    daemon.wait_state("IDLE")
    refusal = daemon.refused("start")
    assert "bus silent" in refusal["message"]
    assert "recctl arm" in refusal["message"]
    daemon.ok("arm")
    daemon.wait_state("READY")


def test_a_marked_camera_that_dies_marks_the_episode_which_goes_on(shared: Daemon) -> None:
    shared.ok("start")
    old = shared.pid_of("camera:front")
    os.kill(old, signal.SIGKILL)
    until(lambda: shared.pid_of("camera:front") not in (None, old), "restarted")
    until(lambda: not shared.status()["flags"]["degraded"], "back")
    assert shared.status()["state"] == "RECORDING"
    saved = shared.ok("stop")
    assert saved["restarts"] == {"camera:front": 1}


def test_a_camera_required_to_abort_ends_the_episode(start_daemon: Start) -> None:
    daemon = start_daemon(set=["cameras.front.required=abort"])
    daemon.wait_state("READY")
    daemon.ok("start")
    os.kill(daemon.pid_of("camera:front"), signal.SIGKILL)
    take = until(
        lambda: (t := daemon.ok("episodes")["episodes"][-1])["state"] == "saved" and t, "saved"
    )
    assert "camera:front" in take["end_reason"]


def test_an_encoder_that_dies_in_an_episode_is_told_it_again(start_daemon: Start) -> None:
    daemon = start_daemon(encoder__front={"die_in_episode": True})
    daemon.wait_state("READY")
    daemon.ok("start")
    until(lambda: daemon.status()["processes"]["encoder:front"]["restarts"] == 1, "restarted")
    until(lambda: not daemon.status()["flags"]["degraded"], "back")
    saved = daemon.ok("stop")
    assert saved["state"] == "saved"
    assert saved["summary"]["failed"] == {}


def test_an_encoder_that_fails_ends_the_episode_and_the_writer_is_told(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(encoder__front={"fail_begin": True})
    daemon.wait_state("READY")
    daemon.ok("start")
    take = until(
        lambda: (t := daemon.ok("episodes")["episodes"][-1])["state"] == "saved" and t, "sealed"
    )
    assert take["summary"]["failed"] == {"front": "codec broke"}
    assert "codec broke" in take["end_reason"]


def test_a_writer_that_dies_comes_back_into_the_running_episode(daemon: Daemon) -> None:
    uid = daemon.ok("start")["uid"]
    os.kill(daemon.pid_of("writer"), signal.SIGKILL)
    until(lambda: daemon.status()["processes"]["writer"]["restarts"] == 1, "writer ended")
    until(lambda: daemon.status()["processes"]["writer"]["phase"] == "running", "writer is back")
    assert daemon.status()["state"] == "RECORDING"
    saved = daemon.ok("stop")
    assert (saved["uid"], saved["state"], saved["summary"]["restarts"]) == (
        uid, "saved", {"writer": 1}
    )  # fmt: skip
    assert "recovered" not in saved


def test_a_take_that_kills_every_writer_is_left_to_recovery_once_its_files_are_closed(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(writer={"dies_of_takes": True}, most=5)
    daemon.wait_state("READY")
    uid = daemon.ok("start")["uid"]
    os.kill(daemon.pid_of("encoder:front"), signal.SIGSTOP)
    os.kill(daemon.pid_of("writer"), signal.SIGKILL)
    until(lambda: daemon.status()["state"] == "FINALIZING", "episode ended")
    writer = daemon.status()["processes"]["writer"]
    assert (writer["phase"], writer["pid"]) == ("waiting", None)
    os.kill(daemon.pid_of("encoder:front"), signal.SIGCONT)
    take = until(
        lambda: (t := daemon.ok("episodes")["episodes"][-1])["state"] == "saved" and t, "saved"
    )
    assert (take["uid"], take["recovered"], take["rows"]) == (uid, True, 5)
    assert "writer: ended 4 times in this episode" in take["end_reason"]
    daemon.wait_state("READY")


def test_a_writer_killed_while_committing_leaves_the_commit_to_the_next_one(
    start_daemon: Start, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    daemon = start_daemon(writer={"commit_held_by": str(held)})
    daemon.wait_state("READY")
    uid = daemon.ok("start")["uid"]
    request_id = new_request_id()
    daemon.post("stop", request_id=request_id)
    daemon.wait_state("READY")
    os.kill(daemon.pid_of("writer"), signal.SIGKILL)
    held.unlink()
    saved = daemon.reply_to(request_id)["result"]
    assert (saved["uid"], saved["state"], saved["restarts"]) == (uid, "saved", {"writer": 1})


def test_a_take_thrown_away_while_the_writer_dies_is_thrown_away_by_the_next_one(
    daemon: Daemon,
) -> None:
    uid = daemon.ok("start")["uid"]
    writer = daemon.pid_of("writer")
    os.kill(writer, signal.SIGSTOP)
    request_id = new_request_id()
    daemon.post("discard", request_id=request_id)
    until(lambda: daemon.status()["committing"] == [uid], "sealed")
    os.kill(writer, signal.SIGKILL)
    assert daemon.reply_to(request_id)["result"]["state"] == "discarded"


def test_a_full_disk_refuses_start_with_the_reason(start_daemon: Start) -> None:
    daemon = start_daemon(set=["dataset.reserve_mb=1000000000"])
    until(lambda: daemon.status()["flags"]["low_disk"], "low disk noticed")
    daemon.wait_state("READY")
    assert "disk" in daemon.refused("start")["message"]


def test_hooks_run_on_events_with_their_values_and_a_hanging_one_hurts_nobody(
    start_daemon: Start, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    daemon = start_daemon(
        set=[f'hooks.start="echo $RECD_EVENT $RECD_UID >> {told}"', "hooks.stop=sleep 1000"]
    )
    daemon.wait_state("READY")
    uid = daemon.ok("start")["uid"]
    daemon.ok("stop")
    until(lambda: told.exists() and told.read_text() == f"start {uid}\n", "hook ran")
    workers = daemon.workers()
    assert daemon.end() == 0
    assert gone(workers)


def test_arming_an_arm_that_is_starting_is_refused_as_such_and_a_client_waits_for_it(
    start_daemon: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start_daemon(arm__main_follower={"ready_after": str(go)})
    until(lambda: daemon.status()["processes"]["arm:main.follower"]["pid"], "started")
    refusal = daemon.refused("arm")
    assert refusal["code"] == "starting"
    assert "arm:main.follower is starting, for" in refusal["message"]
    with RecdClient(endpoint=f"ipc://{daemon.runtime / 'ctl.sock'}") as client:
        with pytest.raises(RecdError, match="is starting"):
            client.arm(timeout_s=0.1)
        with ThreadPoolExecutor() as pool:
            armed = pool.submit(client.arm, timeout_s=30)
            go.touch()
            assert armed.result()["motion"]["main"]["state"] == "TELEOP"


def test_arming_an_arm_that_cannot_start_tells_what_stops_it_and_its_mend(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(arm__main_follower={"refuse": True})
    daemon.wait_state("FAULT")
    refusal = daemon.refused("arm")
    assert "camera 7 is not there" in refusal["message"]
    assert refusal["mend"] == "plug it in"


def test_every_event_has_its_hook_with_the_values_of_what_happened(
    start_daemon: Start, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    words = {
        "start": "$RECD_NAME $RECD_INSTANCE $RECD_TASK", "stop": "$RECD_NAME $RECD_VERDICT",
        "reset": "$RECD_NAME $RECD_PHASE", "fault": "$RECD_NAME $RECD_PROCESS",
    }  # fmt: skip
    hooks = [f'hooks.{event}="echo {event}: {said} >> {told}"' for event, said in words.items()]
    daemon = start_daemon(set=hooks)
    daemon.wait_state("READY")
    daemon.ok("plan.start", episodes=2, episode_s=0.2, reset_s=0.1, task="cups")
    until(lambda: not daemon.ok("plan.status")["plan"]["active"], "the plan to end")
    os.kill(daemon.status()["processes"]["camera:front"]["pid"], signal.SIGKILL)
    wanted = {
        "start: started testrobot cups", "stop: saved good", "reset: reset reset",
        "fault: worker_lost camera:front",
    }  # fmt: skip
    until(
        lambda: told.exists() and wanted <= set(told.read_text().splitlines()),
        f"all of {wanted}",
    )
    until(lambda: told.read_text().count("start: ") == 2, "the hook of both starts")

"""Kills in the middle of edits: undo and discard through the daemon, others on a closed dataset.

Whatever the point: the episode is in the dataset or in the trash, whole, and can be brought back.
"""

import os
import subprocess
import sys
from contextlib import suppress
from random import Random
from typing import Final

from recd.config.errors import RecdError
from recd.daemon.dataset.edit import DELETE_POINTS, RELABEL_POINTS
from recd.daemon.dataset.pack import FAULT_POINTS as PACK_POINTS
from recd.daemon.dataset.survey import survey
from recd.daemon.faultpoints import ENVIRONMENT_KEY
from recd.daemon.faultpoints import arm as arm_point
from recd.perf.storm.fault import Made, Strike
from recd.perf.storm.processes import POINTS_OF_UNDO
from recd.perf.storm.subject import StormSubject, await_true

KILLED: Final = -9
OF_PACKED: Final = "delete.moved.video"
"""Passed where a file holds several episodes; tests/dataset/test_edit_atomic.py kills there."""

POINTS: Final = {
    "pack": PACK_POINTS,
    "delete": tuple(point for point in DELETE_POINTS if point != OF_PACKED),
    "relabel": RELABEL_POINTS,
}


def undo_killed(subject: StormSubject, draw: Random) -> Made:
    """The last episode is undone, and the writer is killed at a named point of that."""
    point = draw.choice(POINTS_OF_UNDO)
    takes = subject.client.call("episodes", limit=1)["episodes"]
    arm_point(subject.armed_points, point, "kill")
    with suppress(RecdError):  # the writer that would answer is gone
        subject.client.rerecord(timeout_s=20)
    return {"point": point, "undone": takes[-1]["uid"]}


def discard_killed(subject: StormSubject, _: Random) -> Made:
    """A running episode is discarded, and the writer is killed as soon as that is noted."""
    uid = subject.client.start(task="discarded")["uid"]
    await_true(lambda: subject.rows() >= 15, "15 rows", 30)
    arm_point(subject.armed_points, "discard.journaled", "kill")
    with suppress(RecdError):
        subject.client.discard()
    return {"point": "discard.journaled", "discarded": uid, "uids": [uid]}


def bring_back(subject: StormSubject, made: Made) -> None:
    """Undelete what an edit took away. RecdError when it is neither in the dataset nor trash."""
    uid = made.get("undone") or made.get("discarded") or made.get("deleted", "")
    subject.client.wait_until("READY", timeout_s=90)
    if uid and uid not in {episode.uid for episode in survey(subject.dataset)}:
        subject.client.undelete(uid)
        made["brought_back"] = True


def edit_killed(edit: str) -> Strike:
    """`recctl dataset EDIT` is killed at one of its named points, on the closed dataset."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        uids = _at_least_two(subject)
        subject.end()
        episodes = survey(subject.dataset)
        uid = draw.choice(episodes).uid
        point = draw.choice(POINTS[edit])
        command = [sys.executable, "-m", "recd.clients.recctl.cli", "dataset", edit]
        command += [str(subject.dataset), *_arguments(edit, uid)]
        environment = {**os.environ, ENVIRONMENT_KEY: f"{point}:kill"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        if done.returncode != KILLED:
            raise RecdError(f"{edit} was not killed at {point}: {done.returncode} {done.stderr}")
        made: Made = {"point": point, "uids": uids, "dies": True}
        return made | ({"deleted": uid} if edit == "delete" else {})

    return strike


def _at_least_two(subject: StormSubject) -> list[str]:
    """An edit needs something that it leaves; the uids of episodes recorded for that."""
    uids = []
    while len(survey(subject.dataset)) < 2:
        uids.append(subject.client.start(task="one more")["uid"])
        await_true(lambda: subject.rows() >= 20, "20 rows", 30)
        subject.client.stop(timeout_s=60)
    return uids


def _arguments(edit: str, uid: str) -> list[str]:
    return {"pack": [], "delete": [uid], "relabel": [uid, "--task", "another one"]}[edit]

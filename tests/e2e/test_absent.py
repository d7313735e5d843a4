"""Who is not there costs nothing: no process, no descriptor to wake it, no thread."""

import os
from collections import Counter
from pathlib import Path

from recd.config.load import load_robot
from recd.daemon.supervisor.processes import process_table

from .conftest import SMALL, running

POLICY = "policy={}"
GATEWAY_READS = {
    "arm:main.leader": 0, "arm:main.follower": 3, "camera:front": 1, "camera:wrist": 1,
}  # fmt: skip
"""Rings of each process: of a follower its samples, its telemetry and its verdicts on plans."""


def woken(overrides):
    """Process -> how many readers it wakes, by the table of processes."""
    rows = process_table(load_robot("demo", overrides=overrides))
    read = Counter(stream for row in rows if row.wants.woken for stream in row.wants.rings_read)
    return {row.name: sum(read[stream] for stream in row.wants.rings_write)
            for row in rows if row.kind in ("camera", "arm")}  # fmt: skip


def held(robot, names):
    """Process -> (event descriptors, threads) that it really has."""
    pids = {name: facts["pid"] for name, facts in robot.client.status()["processes"].items()}
    told = {}
    for name in names:
        folder = Path(f"/proc/{pids[name]}")
        links = [os.readlink(link) for link in (folder / "fd").iterdir()]
        told[name] = links.count("anon_inode:[eventfd]"), len(list((folder / "task").iterdir()))
    return pids, told


def test_without_policies_and_viewers_nobody_is_woken_for_them(tmp_path):
    bare, more = woken(SMALL), woken((*SMALL, POLICY))
    with running(tmp_path / "bare", *SMALL) as robot:
        pids, without = held(robot, bare)
        robot.client.call("snapshot")
        readers = {ring["name"]: len(ring["readers"]) for ring in robot.client.call("shm")["rings"]}
        _, looked_at = held(robot, bare)
    assert not {"gateway", "adapter"} & set(pids)
    assert {name: bells for name, (bells, _) in without.items()} == bare
    # A picture for a person is the supervisor's own look: producers know nothing of it.
    assert looked_at == without
    assert readers["arm.main.follower"] == 1
    assert not any(name.startswith(("plans.", "verdicts.", "chunks")) for name in readers)

    with running(tmp_path / "more", *SMALL, POLICY) as robot:
        pids, with_policy = held(robot, more)
    assert "gateway" in pids
    for name, (bells, threads) in with_policy.items():
        extra = more[name] - bare[name]
        assert extra == GATEWAY_READS[name]
        assert bells == without[name][0] + extra
        assert threads == without[name][1]

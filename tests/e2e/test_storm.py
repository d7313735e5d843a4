"""A few faults of the storm in every test run; the long storm is `make storm`."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter

import psutil
import pytest

from recd.perf.storm.disks import may_mount
from recd.perf.storm.matrix import BY_NAME, FAULTS, MOST, Bout, draw_bouts, possible_faults
from recd.perf.storm.runner import run_storm
from recd.perf.storm.settings import STRICT
from tests.rig import until

SAMPLE = (
    ("bad checksums", "writer killed", "killed at a named point while saving"),
    ("encoder stopped for 1 s", "everything killed"),
)
LONG_SEED, LONG = 7, 120


def test_a_seed_draws_the_same_bouts_and_every_fault_as_often_as_its_weight():
    drawn = draw_bouts(FAULTS, seed=3, count=1)
    assert drawn == draw_bouts(FAULTS, seed=3, count=1)
    assert drawn != draw_bouts(FAULTS, seed=4, count=1)
    counts = Counter(fault.name for bout in drawn for fault in bout.faults)
    assert counts == {fault.name: fault.weight for fault in FAULTS}


def test_a_bout_is_the_same_whether_the_storm_is_long_or_ends_with_it():
    long = draw_bouts(FAULTS, seed=3, count=500)
    assert draw_bouts(FAULTS, seed=3, count=1, bouts=100)[99] == long[99]
    assert [bout.number for bout in long] == list(range(len(long)))


def test_only_the_last_fault_of_a_bout_may_end_its_episode_and_all_fit_its_setting():
    for bout in draw_bouts(FAULTS, seed=5, count=400):
        assert 1 <= len(bout.faults) <= MOST
        assert not any(fault.ends_bout for fault in bout.faults[:-1])
        assert all(fault.setting in ("", bout.setting.name) for fault in bout.faults)


def storm(bouts, seed, folder, *, disk):
    told = run_storm(bouts, seed=seed, folder=folder, disk=disk, say=print, done=lambda one: None)
    return {f"{one.bout} {one.fault}": one.findings for one in told if not one.good}


@pytest.mark.timeout(170)
def test_a_fixed_sample_of_faults_costs_no_more_than_is_allowed(tmp_path):
    bouts = [
        Bout(at, STRICT, tuple(BY_NAME[name] for name in names)) for at, names in enumerate(SAMPLE)
    ]
    assert storm(bouts, 1, tmp_path, disk=False) == {}


STORM = """
import sys
from pathlib import Path
from recd.perf.storm.subject import StormSubject
folder = Path(sys.argv[1])
subject = StormSubject(folder, folder, folder / "set")
subject.start()
print(*(process.pid for process in subject.tree()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def short_folder():
    """The path of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="recd-", ignore_cleanup_errors=True) as folder:
        yield folder


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.timeout(120)
def test_a_storm_that_is_killed_leaves_no_daemon(short_folder):
    with subprocess.Popen(
        [sys.executable, "-c", STORM, short_folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as storm:
        pids = [int(pid) for pid in storm.stdout.readline().split()]
        os.kill(storm.pid, signal.SIGKILL)
    assert pids
    until(lambda: not any(lives(pid) for pid in pids), "every process to end")


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_a_long_storm_of_all_faults_costs_no_more_than_is_allowed(tmp_path):
    disk = not may_mount()
    bouts = draw_bouts(possible_faults(disk=disk), seed=LONG_SEED, count=LONG)
    assert storm(bouts, LONG_SEED, tmp_path, disk=disk) == {}

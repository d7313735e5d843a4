"""The storm's preload library, in the processes that it is loaded into and in no other."""

import contextlib
import os
import subprocess
import sys
from random import Random

import pytest

from recd.perf.storm.shims import (
    HOUR_NS,
    heal,
    may_preload,
    preloaded,
    slow_syncs,
    slow_writes,
    step_wall,
)
from recd.perf.storm.subject import StormSubject
from recd.shm.clock import NS_PER_MS, NS_PER_S, clock_pair

pytestmark = pytest.mark.skipif(bool(may_preload()), reason=may_preload())

APART = "from recd.shm.clock import clock_pair; p = clock_pair(); print(p.real_ns - p.mono_ns)"
SYNC = """
import os, tempfile
from recd.shm.clock import now_ns
with tempfile.TemporaryFile() as file:
    began_ns = now_ns()
    os.{call}(file.fileno())
    print(now_ns() - began_ns)
"""


@pytest.fixture
def subject(tmp_path):
    """A daemon that is not started: a folder with the control file, and the variables."""
    return StormSubject(tmp_path, tmp_path, tmp_path / "set", variables=preloaded(tmp_path))


def told(subject, code, *arguments):
    environment = os.environ | dict(subject.variables)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, text=True, check=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout)


def here_ns():
    pair = clock_pair()
    return pair.real_ns - pair.mono_ns


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
def test_the_wall_clock_steps_in_the_process_alone_and_the_monotonic_one_stays(subject, step_ns):
    step_wall(step_ns)(subject, Random(1))
    assert abs(told(subject, APART) - here_ns() - step_ns) < NS_PER_S
    heal(subject, {})
    assert abs(told(subject, APART) - here_ns()) < NS_PER_S


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_sync_takes_as_long_as_the_fault_says(subject, call):
    made = slow_syncs(subject, Random(1))
    assert told(subject, SYNC.format(call=call)) >= made["sync_ms"] * NS_PER_MS


WRITE = """
import sys
from recd.shm.clock import now_ns
with open(sys.argv[1], "wb", buffering=0) as file:
    began_ns = now_ns()
    file.write(b"row")
    print(now_ns() - began_ns)
"""


def test_a_write_takes_as_long_as_the_fault_says_on_the_disk_of_the_dataset_alone(
    subject, tmp_path
):
    subject.dataset.mkdir()
    made = slow_writes(subject, Random(1))
    on_it, elsewhere = subject.dataset / "rows", "/dev/shm/recd-storm-rows"
    assert told(subject, WRITE, str(on_it)) >= made["write_ms"] * NS_PER_MS
    with contextlib.closing(open(elsewhere, "wb")):
        assert told(subject, WRITE, elsewhere) < made["write_ms"] * NS_PER_MS
    os.unlink(elsewhere)

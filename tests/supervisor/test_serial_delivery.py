"""Kernel workers that deliver serial input: raised while a daemon runs, given back afterwards."""

import os
import subprocess
import sys

import pytest

from recd.daemon.supervisor import serial_delivery
from recd.daemon.supervisor.serial_delivery import CHECK_NS, SerialDelivery

ROOT = os.geteuid() == 0


def policies() -> dict[int, int]:
    found = {}
    for pid in serial_delivery._unbound_workers():
        try:
            found[pid] = os.sched_getscheduler(pid)
        except ProcessLookupError:
            continue
    return found


def of(there: dict[int, int]) -> dict[int, int]:
    """Those that are still there; the kernel makes and ends workers as it likes."""
    return {pid: policy for pid, policy in policies().items() if pid in there}


@pytest.mark.skipif(not ROOT, reason="only root may raise kernel workers")
@pytest.mark.skipif(not policies(), reason="no kernel workers are visible in this container")
def test_workers_are_raised_while_watched_and_given_back_at_the_end():
    there = policies()
    delivery = SerialDelivery(1)
    delivery.watch(0)
    raised = of(there)
    delivery.close()
    assert delivery.answer == "granted"
    assert set(raised.values()) == {os.SCHED_FIFO}
    given_back = policies()
    assert {given_back[pid] for pid in raised if pid in given_back} == {os.SCHED_OTHER}


@pytest.mark.skipif(not ROOT, reason="only root may raise kernel workers")
@pytest.mark.skipif(not policies(), reason="no kernel workers are visible in this container")
def test_a_daemon_that_ended_beside_us_does_not_keep_them_low():
    there = policies()
    ours, other = SerialDelivery(1), SerialDelivery(1)
    ours.watch(0)
    other.watch(0)
    other.close()
    ours.watch(CHECK_NS)
    assert set(of(there).values()) == {os.SCHED_FIFO}
    ours.close()


def test_a_program_that_calls_itself_a_worker_is_none():
    own = os.getpid()
    with open("/proc/self/comm", "r+") as name:
        before = name.read()
        name.write("kworker/u8:9")
        name.flush()
        found = serial_delivery._unbound_workers()
        name.seek(0)
        name.write(before)
    assert own not in found


@pytest.mark.skipif(ROOT, reason="root may raise them")
def test_without_the_right_the_answer_names_the_mend():
    delivery = SerialDelivery(1)
    delivery.watch(0)
    assert delivery.answer == "" or "CAP_SYS_NICE" in delivery.answer


def test_zero_leaves_them_alone():
    before = policies()
    delivery = SerialDelivery(0)
    delivery.watch(0)
    assert delivery.answer == ""
    assert of(before).items() <= before.items()


def test_a_daemon_that_may_open_no_file_is_told_so_and_looks_again():
    code = (
        "import resource\n"
        "from recd.daemon.supervisor.serial_delivery import CHECK_NS, SerialDelivery\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "delivery = SerialDelivery(1)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))\n"
        "delivery.watch(0)\n"
        "print(delivery.answer)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "delivery.watch(CHECK_NS)\n"
        "delivery.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "refused: /proc: Too many open files\n"

import os
import subprocess
import sys

from recd.perf import costs
from recd.perf.costs import Account, Ledger, Memory, Process
from recd.shm.clock import NS_PER_S

SUPERVISOR = Process(1, "supervisor", simulated=False)
CAMERA = Process(2, "camera:front", simulated=False)
SIM = Process(3, "sim", simulated=True)


def ledger(at_s, *accounts):
    return Ledger(at_s * NS_PER_S, {account.process.pid: account for account in accounts})


def test_the_simulated_robot_is_never_counted_as_recd():
    before = ledger(0, Account(CAMERA, 1.0, 0.0, 100), Account(SIM, 5.0, 0.0, 50))
    after = ledger(10, Account(CAMERA, 2.0, 0.0, 300), Account(SIM, 9.0, 0.0, 90))
    used = costs.used_between(before, after).plain()
    assert used["cores"] == {"camera:front": 0.1}
    assert used["total_written_bytes"] == 200
    assert used["simulator_cores"] == {"sim": 0.4}


def test_a_process_that_died_is_charged_through_its_parent():
    before = ledger(0, Account(SUPERVISOR, 0.0, 2.0, 0), Account(CAMERA, 3.0, 0.0, 0))
    after = ledger(10, Account(SUPERVISOR, 0.5, 6.0, 0))
    used = costs.used_between(before, after)
    assert used.cpu_s == {"supervisor": 0.5, costs.ENDED: 1.0}


def test_a_process_that_began_in_between_counts_from_zero():
    again = Process(9, "camera:front", simulated=False)
    before = ledger(0, Account(CAMERA, 3.0, 0.0, 0))
    after = ledger(10, Account(CAMERA, 3.5, 0.0, 0), Account(again, 0.25, 0.0, 7))
    used = costs.used_between(before, after)
    assert used.cpu_s == {"camera:front": 0.75}
    assert used.written_bytes == {"camera:front": 7}


def test_the_peak_of_the_tree_is_the_largest_sum_at_one_time():
    samples = [
        [Memory(SUPERVISOR, 10, 20), Memory(CAMERA, 50, 60), Memory(SIM, 500, 500)],
        [Memory(SUPERVISOR, 30, 40), Memory(CAMERA, 20, 25), Memory(SIM, 900, 900)],
    ]
    told = costs.peak_memory(samples)
    assert told["peak_pss_bytes"] == 60
    assert told["peak_rss_bytes"] == 80
    assert told["pss_bytes"] == {"supervisor": 30, "camera:front": 50}
    assert told["peak_simulator_pss_bytes"] == 900


def test_children_of_the_simulator_are_simulators_and_strangers_are_ours():
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    sim = subprocess.Popen(
        [sys.executable, "-c", f"{code}; p.wait()"], stdout=subprocess.PIPE, text=True
    )
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        child = int(sim.stdout.readline())
        rows = {row.pid: row for row in costs.tree(os.getpid(), {"sim": sim.pid})}
        assert rows[os.getpid()].name == "supervisor"
        assert rows[sim.pid].simulated and rows[child].simulated  # noqa: PT018
        assert rows[stranger.pid] == Process(stranger.pid, "other:sleep", simulated=False)
        assert child in costs.read_ledger(rows.values()).accounts
        assert {m.process.pid for m in costs.read_memory(rows.values())} == set(rows)
    finally:
        subprocess.run(["kill", str(child)], check=True)
        for process in (sim, stranger):
            process.kill()
            process.wait()
        sim.stdout.close()

"""Policies and daemons that die in the middle of a chunk, on arms that outlive them."""

import json
from pathlib import Path

from recd.config.errors import RecdError
from recd.daemon.sim import launch
from tests.e2e.armbench import Bench
from tests.e2e.policybench import driving
from tests.rig import until

LONG_STEPS = 250


def attached(bench: Bench) -> bool:
    try:
        bench.client.call("policy.attach")
    except RecdError:
        return False
    return True


def test_a_dead_policy_frees_the_arm_and_one_whose_daemon_was_killed_moves_nothing(
    tmp_path: Path,
) -> None:
    with launch.running(tmp_path / "sim", pairs=["main"], hand="attend") as sim:
        bench = Bench(sim, tmp_path, "policy={}")
        try:
            bench.robot.start()
            bench.teleoperating()
            with driving(bench.robot.policy_endpoint, LONG_STEPS) as driver:
                until(lambda: attached(bench), "a warmed-up client to be attached")
            # Killed: nobody has to wait for it, nor for the chunk that would last.
            bench.in_state("HOLD", "lease_lost")
            with driving(bench.robot.policy_endpoint, LONG_STEPS) as driver:
                until(lambda: attached(bench), "a warmed-up client to be attached")
                driver.until_said("applied")
                bench.client.start()
                until(lambda: bench.robot.rows() >= 40, "rows of the policy")
                assert bench.motion()["state"] == "POLICY"
                bench.kill_daemon()
                mark = bench.control.mark()
                bench.robot.start()
                driver.until_said("stale_epoch")
                bench.ticks(40)
                told = bench.motion()
                assert (told["state"], told["cause"]) == ("HOLD", "found_with_torque")
                bench.assert_stood_still(mark)
                assert all(bench.torque())
            info = json.loads((bench.robot.root / "meta" / "info.json").read_text())
            assert info["total_episodes"] == 1
            assert info["total_frames"] >= 10, "all but the last second of what was recorded"
        finally:
            bench.stop_daemon()

"""What cannot work is refused at `policy attach`, as expected, found and how to mend it; the robot
stays in HOLD. What no daemon could start with is refused before (tests/adapters/test_gate.py).
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.openpi_server import OpenpiServer
from recd.config.errors import RecdError
from recd.config.load import load_robot
from tests.e2e.policybench import OVERRIDES, PolicyBench
from tests.rig import until

GOOD = """
wire: openpi
images: {observation/image: {camera: front}}
state: {observation/state: joints}
actions: {actions: {columns: joints}}
prompt: prompt
size: 64
"""
BAD = GOOD.replace("front", "ceiling").replace("columns: joints", "columns: [waist.pos]")


class Refusing(PolicyBench):
    """A daemon whose adapter reads `profile`, and its server."""

    server: OpenpiServer
    profile: Path

    def refusal(self) -> RecdError | None:
        """What `attach` answers when it refuses with something to do."""
        try:
            self.client.call("policy.attach")
        except RecdError as error:
            return error if error.mend else None
        return None

    def assert_refused(self, *words: str) -> None:
        """With these words and a mend; nobody has the lease, and nothing moves."""
        mark = self.control.mark()

        def said() -> bool:
            refusal = self.refusal()
            return refusal is not None and all(word in refusal.message for word in words)

        until(said, f"a refusal that says {words}")
        assert self.motion()["state"] == "HOLD"
        assert self.leases()["main"]["kind"] == "nobody"
        assert all(len(set(goals)) <= 1 for goals in self.goals(mark).values())


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusing]:
    profile = tmp_path_factory.mktemp("profile") / "mine.yaml"
    profile.write_text(GOOD)
    server = OpenpiServer(load_profile(str(profile), wire="openpi"))
    profile.write_text(BAD)
    told = ("policy.type=openpi", f"policy.server.address={server.address}",
            f"policy.server.profile={profile}", "policy.server.horizon=30")  # fmt: skip
    with Refusing.running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *told) as bench:
        bench.server, bench.profile = server, profile
        bench.client.hold()
        yield bench
        bench.server.close()


def test_a_profile_that_does_not_fit_is_refused_at_attach_by_each_of_its_names(robot) -> None:
    robot.assert_refused(
        "images.observation/image: expected one of the cameras front, found 'ceiling'",
        "actions.actions: expected one of shoulder_pan.pos, ",
    )


def test_a_horizon_that_the_server_does_not_have_is_refused_and_the_right_one_drives(robot) -> None:
    port = int(robot.server.address.rpartition(":")[2])
    robot.profile.write_text(GOOD)
    profile = load_profile(str(robot.profile), wire="openpi")
    robot.server.close()
    robot.server = OpenpiServer(profile, port=port, metadata={"horizon": 8})
    robot.assert_refused("horizon: expected 30, found 8")
    robot.server.close()
    robot.server = OpenpiServer(profile, port=port)

    def attached() -> bool:
        try:
            robot.client.call("policy.attach")
        except RecdError:
            return False
        return True

    until(attached, "the adapter to be attached")
    robot.in_state("POLICY")


def test_an_adapter_without_its_environment_is_refused_at_attach(tmp_path) -> None:
    lerobot = tmp_path / "lerobot" / "bin" / "python"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        told = ("policy.type=lerobot", f"policy.server.address={address}",
                "policy.server.cameras={front: front}",
                f"policy.server.lerobot={{python: {lerobot}, path: {tmp_path}, policy: act}}",
                )  # fmt: skip
        with Refusing.running(tmp_path / "robot", *OVERRIDES, *told) as bench:
            bench.client.hold()
            bench.assert_refused(str(lerobot))


@pytest.mark.parametrize(
    "change", ["policy.heartbeat_ms=0", "policy.lease_kept_s=0", "policy.observation_s=-1",
               "policy.stuck_s=0", "policy.server.timeout_s=0", "policy.server.timeout_s=-1",
               "policy.server.warm_up_timeout_s=0"],
)  # fmt: skip
def test_a_time_that_never_comes_is_refused_before_the_daemon_starts(change: str) -> None:
    with pytest.raises(RecdError) as refused:
        load_robot("demo", overrides=("policy.type=openpi", change), check_machine=False)
    key, _, value = change.partition("=")
    assert key in str(refused.value)
    assert value in str(refused.value)

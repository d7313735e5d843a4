"""Policies from other computers: keys and roles at every door of the gateway."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recd.clients.policy import PolicyClient
from recd.config import keys
from recd.config.errors import RecdError
from recd.config.policy_wire import Status
from tests.e2e.policybench import DT_S, OVERRIDES, PolicyBench
from tests.ports import free_ports
from tests.rig import running, until

NOW = "2026-01-01T00:00:00+00:00"
ROLES = ("observe", "teleop", "policy")


def _held(bench: PolicyBench) -> dict[str, Any] | None:
    lease = bench.leases()["main"]
    return lease if lease["kind"] == "policy" else None


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PolicyBench, str, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    for role in ROLES:
        keys.make_client(folder, role, role, created=NOW)
    port = free_ports(4)
    tcp = (f"policy.endpoint=tcp://0.0.0.0:{port}", f"control.keys_dir={folder}")
    with running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *tcp) as robot:
        bench = PolicyBench(robot)
        bench.gateway("policy.stats")
        yield bench, f"tcp://127.0.0.1:{port}", folder / "clients"
        bench.control.close()


def test_a_policys_key_observes_acts_and_is_named_with_its_lease(guarded) -> None:
    bench, endpoint, folder = guarded
    with PolicyClient(endpoint=endpoint, key=folder / "policy.key", name="far away") as policy:
        policy.acquire()
        bench.center = bench.observe(policy).state.astype(float)
        until(lambda: bench.send(policy).status is Status.SHADOW, "a sound chunk")
        lease = until(lambda: _held(bench), "the lease to be told")
        public = keys.read_pair(folder / "policy.key").public
        assert (lease["holder"], lease["key"]) == ("far away", keys.fingerprint(public))
        offset_ns, bound_ns = policy.clock()
        assert abs(offset_ns) <= bound_ns, "both ends have the same clock here"


def test_a_key_that_may_only_look_looks_and_does_not_act(guarded) -> None:
    bench, endpoint, folder = guarded
    with PolicyClient(endpoint=endpoint, key=folder / "observe.key") as onlooker:
        seen = bench.observe(onlooker)
        with pytest.raises(RecdError, match="expected role policy or admin, found observe"):
            onlooker.acquire()
        ack = onlooker.act(seen, bench.chunk(seen), dt_s=DT_S)
        assert ack.status is Status.REFUSED
        assert "expected role policy" in ack.reason


def test_a_revoked_key_is_not_heard_any_more(guarded) -> None:
    bench, endpoint, folder = guarded
    with PolicyClient(endpoint=endpoint, key=folder / "teleop.key") as client:
        seen = bench.observe(client)
        keys.revoke(folder.parent, "teleop", at=NOW)

        def refused() -> bool:
            return client.act(seen, bench.chunk(seen), dt_s=DT_S).facts.get("code") == "key"

        until(refused, "the refusal of a revoked key")

"""Policies from other computers: keys and roles at every door of the gateway."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from recd.clients.policy import PolicyClient
from recd.clients.policy_events import Listener
from recd.config import keys
from recd.config.endpoints import parse_endpoint
from recd.config.errors import RecdError
from recd.config.policy_wire import Status
from recd.perf.ports import free_ports
from tests.e2e.policybench import DT_S, OVERRIDES, PolicyBench
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
    port = free_ports(6)
    tcp = (f"policy.endpoint=tcp://0.0.0.0:{port}", f"control.endpoint=tcp://0.0.0.0:{port + 4}",
           f"control.keys_dir={folder}")  # fmt: skip
    with running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *tcp) as robot:
        bench = PolicyBench(robot)
        bench.gateway("policy.stats")
        bench.control_endpoint = f"tcp://127.0.0.1:{port + 4}"
        yield bench, f"tcp://127.0.0.1:{port}", folder / "clients"
        bench.control.close()


def test_a_policys_key_observes_acts_and_is_named_with_its_lease(guarded) -> None:
    bench, endpoint, folder = guarded
    with PolicyClient(endpoint=endpoint, key=folder / "policy.key", name="far away") as policy:
        policy.acquire()
        bench.center = bench.observe(policy).state.astype(float)
        until(lambda: bench.send(policy).status is Status.SHADOW, "a sound chunk")
        lease = until(
            lambda: (held := _held(bench)) and "clock" in held and held,
            "the lease and its holder's clock to be told",
        )
        saved = bench.robot.record(5)
        manifest = json.loads((bench.robot.own(saved["uid"]) / "manifest.json").read_text())
        (noted,) = manifest["policies"]
        assert noted["key"] == lease["key"]
        for told in (noted["clock"], lease["clock"], bench.observe(policy).clocks["main"].told()):
            assert abs(told["offset_ns"]) <= told["bound_ns"] + 1, "both ends have one clock here"
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


def test_events_are_heard_by_keys_of_the_list_alone(guarded, tmp_path) -> None:
    _, endpoint, folder = guarded
    shutil.copytree(folder.parent, tmp_path / "keys")
    keys.make_client(tmp_path / "keys", "unknown", "policy", created=NOW)
    stranger, door = keys.read_pair(tmp_path / "keys/clients/unknown.key"), parse_endpoint(endpoint)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with (
        context,
        Listener(context, door, stranger) as unknown, Listener(context, door, None) as bare,
        PolicyClient(endpoint=endpoint, key=folder / "observe.key") as onlooker,
        PolicyClient(endpoint=endpoint, key=folder / "policy.key", name="far away") as policy,
    ):  # fmt: skip
        heard = []

        def again() -> bool:
            policy.acquire()
            policy.call("lease.release", lease=policy._ident)
            if (event := onlooker.next_event("lease", timeout_s=0.1)) is not None:
                heard.append(event.name)
            return len(heard) >= 10

        until(again, "ten events of leases")
        assert set(heard) == {"acquired", "ended"}
        assert (unknown.next(timeout_s=0.1), bare.next()) == (None, None)


def test_a_key_that_nobody_knows_does_not_enter_and_disturbs_nobody(guarded, tmp_path) -> None:
    bench, endpoint, folder = guarded
    shutil.copytree(folder.parent, tmp_path / "keys")
    keys.make_client(tmp_path / "keys", "stranger", "policy", created=NOW)
    bench.ready()
    bench.client.start()
    with PolicyClient(endpoint=endpoint, key=folder / "policy.key") as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        before = bench.gateway("policy.stats")["handshakes_refused"]
        with pytest.raises(RecdError, match="no reply"):
            PolicyClient(endpoint=endpoint, key=tmp_path / "keys/clients/stranger.key")

        def told() -> bool:
            bench.send(policy)
            return bool(bench.gateway("policy.stats")["handshakes_refused"] > before)

        until(told, "the refusal to be counted")
        bench.rejoin(policy)
        bench.assert_gentle(mark)
    assert bench.client.stop()["state"] == "saved"
    assert "key refused" in bench.robot.log.read_text()


def test_a_key_that_may_only_look_keeps_the_inference_log_of_a_far_robot(guarded, tmp_path) -> None:
    bench, endpoint, folder = guarded
    bench.ready()
    with PolicyClient(endpoint=endpoint, key=folder / "policy.key", name="far away") as policy:
        bench.drive(policy)
        logged = subprocess.Popen(
            [sys.executable, "-m", "recd.clients.recctl.cli", "--endpoint", bench.control_endpoint,
             "--key", str(folder / "observe.key"), "policy", "log", "--policy-endpoint", endpoint,
             "--for", "2", "--log-dir", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: (bench.send(policy), logged.poll() is not None)[1], "the log to end")
        said, complaints = logged.communicate()
    assert (logged.returncode, complaints) == (0, "")
    assert "inference log: " in said
    (file,) = tmp_path.rglob("*_policy_inference.csv")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert "applied" in {row["status"] for row in rows}
    assert {row["holder"] for row in rows} == {"far away"}
    (file,) = tmp_path.rglob("*_robot_state.csv")
    with file.open(newline="") as lines:
        assert "POLICY" in {row["motion"] for row in csv.DictReader(lines)}


def test_a_revoked_key_is_not_heard_any_more(guarded) -> None:
    bench, endpoint, folder = guarded
    with PolicyClient(endpoint=endpoint, key=folder / "teleop.key") as client:
        seen = bench.observe(client)
        keys.revoke(folder.parent, "teleop", at=NOW)

        def refused() -> bool:
            return client.act(seen, bench.chunk(seen), dt_s=DT_S).facts.get("code") == "key"

        until(refused, "the refusal of a revoked key")

"""Adapters at the whole daemon: foreign servers drive, and what they do wrong moves nothing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.faults import parse_fault
from recd.clients.policybench.gr00t_server import Gr00tServer
from recd.clients.policybench.openpi_server import OpenpiServer
from recd.clients.policybench.script import Script
from recd.config.errors import RecdError
from tests.e2e.policybench import OVERRIDES, PolicyBench
from tests.rig import until

SCRIPT = Script(horizon=20, latency_ms=20, jitter_ms=5, amplitude=5.0, period_s=2.0)
MAKE = {"openpi": OpenpiServer, "gr00t": Gr00tServer}
LOST_AFTER = {"openpi": 10_000, "gr00t": 2}
"""policy.server.failures_most: of the one the arm goes on by itself, of the other it does not."""


def new_server(wire: str, port: int = 0, **options: Any) -> OpenpiServer | Gr00tServer:
    return MAKE[wire](load_profile("", wire=wire), SCRIPT, port=port, **options)


class AdapterBench(PolicyBench):
    """A daemon whose adapter has a scripted server."""

    server: OpenpiServer | Gr00tServer

    def adapter(self) -> dict[str, Any]:
        return dict(self.gateway("policy.stats").get("adapter", {}))

    def offers(self) -> bool:
        return bool(self.adapter().get("state") == "offering")

    def attached(self) -> int:
        """Let it drive, from whatever was before. Returns a mark in the servo log."""
        self.server.faults.clear()
        if not self.armed():
            self.client.arm()
            self.in_state("TELEOP")
        self.client.call("hold")
        self.in_state("HOLD", "command")
        mark = self.control.mark()
        until(self._taken, "the adapter to be attached")
        self.in_state("POLICY")
        return mark

    def refusal(self) -> str:
        """What `attach` answers, with a mend, when it refuses."""
        try:
            self.client.call("policy.attach")
        except RecdError as error:
            return error.message if error.mend else ""
        return ""

    def _taken(self) -> bool:
        try:
            self.client.call("policy.attach")
        except RecdError:
            return False
        return True


@pytest.fixture(scope="module", params=MAKE)
def served(tmp_path_factory: pytest.TempPathFactory, request) -> Iterator[AdapterBench]:
    wire = request.param
    server = new_server(wire)
    told = (
        f"policy.type={wire}", f"policy.server.address={server.address}",
        "policy.server.cameras={wrist: front}", "policy.server.timeout_s=0.4",
        f"policy.server.failures_most={LOST_AFTER[wire]}", "policy.server.image_size=64",
    )  # fmt: skip
    with AdapterBench.running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *told) as found:
        found.server, found.wire = server, wire
        yield found
        found.server.close()


@pytest.fixture
def bench(served: AdapterBench) -> Iterator[AdapterBench]:
    """One that records all the time, whatever its server does."""
    if served.client.status()["episode"] is None:
        served.client.start()
    yield served
    if served.client.status()["episode"] is None:
        (last,) = served.client.call("episodes", limit=1)["episodes"]
        # A simulated arm that a busy computer silences ends its episode; a server never does.
        assert "main." in last["end_reason"] or "bus_silent" in last["end_reason"], last
        return
    upto = served.robot.rows() + 3
    until(lambda: served.robot.rows() >= upto, "rows after the fault")


def test_the_arm_moves_as_the_reference_says_and_the_other_joints_stand(bench) -> None:
    mark = bench.attached()
    with bench.policy() as onlooker:
        seen = [bench.observe(onlooker).state]
        until(
            lambda: (
                (seen.append(bench.observe(onlooker).state), np.ptp([s[0] for s in seen]))[1]
                > 1.6 * SCRIPT.amplitude
            ),
            "a swing of the first joint",
        )
    spread = np.ptp(np.array(seen), axis=0)
    assert spread[0] < 2 * SCRIPT.amplitude + 4
    assert (spread[1:] < 4).all()
    bench.assert_gentle(mark)
    assert bench.adapter()["horizon"] == SCRIPT.horizon
    lease = bench.leases()["main"]
    server = {
        "openpi": f"ws://{bench.server.address} horizon={SCRIPT.horizon} step_s=0.0333333",
        "gr00t": f"tcp://{bench.server.address}",
    }
    assert (lease["adapter"], lease["model"]) == (bench.wire, server[bench.wire])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stall s=45", "within 0.4 s"), ("late s=1", "within 0.4 s"), ("nan", "finite"),
        ("object", "expected a type"), ("huge", "expected sizes"), ("truncated", "msgpack"),
        ("error", "out of memory"), ("hangup", ""), ("far", "seam"),
    ],
)  # fmt: skip
def test_a_fault_holds_the_arm_with_its_reason_and_it_goes_on_when_it_may(
    bench, fault: str, reason: str
) -> None:
    mark = bench.attached()
    bench.server.faults.set(parse_fault(f"{fault} count=9000"))
    stays = bench.wire == "openpi" or fault == "far"
    bench.in_state("HOLD", "queue_empty" if stays else "lease_lost")
    # The first chunks after the hold may be told something else: they were seen before it.
    until(lambda: (said := bench.adapter()["trouble"]) and reason in said, "the reason")
    bench.server.faults.clear()
    if stays:
        bench.in_state("POLICY")
    else:
        until(bench.offers, "the adapter to offer again")
        bench.in_state("HOLD")  # for the empty queue or the lost lease, whichever came first
    bench.assert_gentle(mark)


@pytest.mark.parametrize(
    ("fault", "words"), [("width", "columns, found"), ("horizon", "expected 20, found 10")]
)
def test_chunks_of_another_form_cost_the_lease_and_attach_says_why(bench, fault, words) -> None:
    mark = bench.attached()
    bench.server.faults.set(parse_fault(f"{fault} count=9000"))
    bench.in_state("HOLD", "lease_lost")
    until(lambda: words in bench.refusal(), "the refusal with its reason")
    bench.assert_gentle(mark)
    bench.assert_stands()


def test_a_server_that_is_killed_and_comes_back_never_jerks_the_arm(bench) -> None:
    mark = bench.attached()
    port = int(bench.server.address.rpartition(":")[2])
    bench.server.close()
    bench.in_state("HOLD")
    bench.server = new_server(bench.wire, port)
    if bench.wire == "openpi":
        bench.in_state("POLICY")
    else:
        until(bench.offers, "the adapter to offer again")
        bench.in_state("HOLD")  # for the empty queue or the lost lease, whichever came first
    bench.assert_gentle(mark)


def test_a_server_that_wants_the_past_is_shown_it(bench) -> None:
    if bench.wire != "gr00t":
        pytest.skip("a server of openpi has no word for the past")
    port = int(bench.server.address.rpartition(":")[2])
    bench.server.close()
    until(lambda: not bench.offers(), "the adapter to miss its server")
    bench.server = new_server("gr00t", port, history=(-15, 0), state_history=(-3, -1, 0))
    mark = bench.attached()
    served = bench.server.served
    until(lambda: bench.server.served > served + 10, "some inferences")
    shapes = {key: values.shape for key, values in bench.server.seen.items()}
    assert shapes == {"front": (1, 2, 64, 64, 3), "wrist": (1, 2, 64, 64, 3),
                      "single_arm": (1, 3, 5), "gripper": (1, 3, 1)}  # fmt: skip
    # A moving arm is elsewhere at each of these times, but where it turns back.
    until(lambda: len({*bench.server.seen["single_arm"][0, :, 0].tolist()}) == 3, "three places")
    bench.assert_gentle(mark)


def test_a_server_of_another_robot_is_refused_before_it_has_the_lease(bench) -> None:
    port = int(bench.server.address.rpartition(":")[2])
    bench.server.close()
    if bench.wire == "openpi":
        with bench.policy() as onlooker:
            names = list(onlooker.names)
        bench.server = new_server(
            "openpi", port, metadata={"step_s": 0.5, "action_names": names[::-1]}
        )
        words = (f"expected the columns {', '.join(names)}, found {', '.join(names[::-1])}",
                 "step_s: expected 0.0333333, found 0.5")  # fmt: skip
    else:
        bench.server = new_server("gr00t", port, history=(-15, 1), state_history=(-3000, 0))
        words = ("images: expected steps of 0 (the present) or before, each once, found -15, 1",
                 "state: expected a server that looks at most")  # fmt: skip
    until(lambda: all(word in bench.refusal() for word in words), "the refusal with its reasons")
    assert bench.leases()["main"]["kind"] == "nobody"
    assert bench.motion()["state"] != "POLICY"

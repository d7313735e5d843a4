"""What the gateway publishes is heard by a policy's client, in order."""

import numpy as np

from recd.clients.policy import Event, PolicyClient
from recd.config.policy_wire import Status
from tests.e2e.policybench import DT_S, PolicyBench
from tests.rig import until


def heard(client: PolicyClient) -> list[Event]:
    """All that came and was not read yet."""
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found


def refuse(bench: PolicyBench, policy: PolicyClient) -> int:
    """Send a chunk that cannot be played; its number."""
    seen = bench.observe(policy)
    ack = policy.act(seen, np.full((3, 6), np.nan), dt_s=DT_S)
    assert ack.status is Status.NOT_FINITE
    return int(ack.facts["chunk"])


def listens(bench: PolicyBench, policy: PolicyClient) -> None:
    """Until its connection is there, by events that it has to hear."""
    until(lambda: (refuse(bench, policy), policy.next_event("chunk"))[1], "the first event")


def test_a_client_hears_refused_chunks_motion_and_leases_without_a_gap(bench) -> None:
    with bench.policy(name="listens") as listening, bench.policy(name="acts") as policy:
        listens(bench, listening)
        heard(listening)
        bench.drive(policy)
        number = refuse(bench, policy)
        policy.close()
        bench.in_state("HOLD", "lease_lost")
        events: list[Event] = []

        def ended() -> bool:
            events.extend(heard(listening))
            causes = {e.facts.get("cause") for e in events if e.topic == "motion"}
            names = {e.name for e in events if e.topic == "lease"}
            return "lease_lost" in causes and "ended" in names

        until(ended, "the end of the lease and its hold to be told")
    numbers = [event.number for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [e.at_ns for e in events] == sorted(e.at_ns for e in events)
    taken = next(e for e in events if e.name == "acquired")
    assert (taken.topic, taken.facts["holder"], taken.facts["pair"]) == ("lease", "acts", "main")
    refused = next(e for e in events if e.topic == "chunk" and e.facts["chunk"] == number)
    assert (refused.name, refused.facts["status"]) == ("refused", "not_finite")
    assert "expected finite numbers" in refused.facts["reason"]
    motions = [e.facts["motion"] for e in events if e.topic == "motion"]
    assert "POLICY" in motions
    assert motions[-1] == "HOLD"
    assert next(e for e in events if e.name == "ended").facts["reason"] == "released"


def test_only_the_topics_that_are_named_are_given(bench) -> None:
    with bench.policy() as policy:
        listens(bench, policy)
        heard(policy)
        refuse(bench, policy)
        policy.acquire()
        event = policy.next_event("lease", timeout_s=10.0)
        assert event is not None
        assert (event.topic, event.name) == ("lease", "acquired")
        assert policy.next_event("chunk") is None, "the one before it was thrown away"

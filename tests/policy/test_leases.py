import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.errors import RecdError
from recd.config.policy_streams import Held
from recd.config.policy_wire import Clock
from recd.daemon.policy.leases import Leases
from recd.shm.clock import NS_PER_S

NOW = 100 * NS_PER_S


def leases() -> Leases:
    return Leases.begin({"left": 3, "right": 7}, keep_ns=2 * NS_PER_S, stuck_ns=NS_PER_S)


def test_epochs_go_on_where_an_earlier_gateway_was() -> None:
    assert {lease.epoch for lease in leases().by_pair.values()} == {8}


def test_a_holder_of_the_same_kind_is_in_the_way_and_named() -> None:
    table = leases()
    table.acquire(["left"], Held.POLICY, NOW, ident="a", holder="pi0")
    with pytest.raises(RecdError) as refused:
        table.acquire(["left", "right"], Held.POLICY, NOW, ident="b", holder="act")
    assert refused.value.code == "held"
    assert "pi0" in refused.value.message
    assert table.held_by("b") == [], "all of them or none"


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (Held.POLICY, Held.TELEOP, True),
        (Held.REPLAY, Held.POLICY, True),
        (Held.TELEOP, Held.POLICY, False),
        (Held.POLICY, Held.REPLAY, False),
    ],
)
def test_a_larger_kind_takes_the_lease_and_a_smaller_one_does_not(
    first: Held, second: Held, taken: bool
) -> None:
    table = leases()
    table.acquire(["left"], first, NOW, ident="a", holder="first")
    before = table.of("left").epoch
    if taken:
        table.acquire(["left"], second, NOW, ident="b", holder="second")
        assert table.of("left").epoch > before
    else:
        with pytest.raises(RecdError):
            table.acquire(["left"], second, NOW, ident="b", holder="second")
        assert table.held_by("a") == ["left"]


def test_signs_of_life_without_progress_stop_counting() -> None:
    table = leases()
    table.acquire(["left"], Held.POLICY, NOW, ident="a", holder="x")
    for tenth in range(1, 30):
        table.beat("a", NOW + tenth * NS_PER_S // 10, progress=5)
    assert table.of("left").beat_ns == NOW + 11 * NS_PER_S // 10
    assert table.expire(NOW + 3 * NS_PER_S) == []
    assert table.expire(NOW + 4 * NS_PER_S) == ["left"]
    assert table.of("left").kind is Held.NOBODY


def test_a_chunk_is_progress_by_itself() -> None:
    table = leases()
    table.acquire(["left"], Held.POLICY, NOW, ident="a", holder="x")
    later = NOW + 60 * NS_PER_S
    table.beat("a", later)
    assert table.of("left").beat_ns == later


def test_a_clock_is_the_holders_own_and_ends_with_its_lease() -> None:
    table = leases()
    table.acquire(["left"], Held.POLICY, NOW, ident="a", holder="x")
    table.beat("a", NOW, progress=1)
    assert "clock" not in table.of("left").describe(NOW), "nothing is told by who says nothing"
    table.beat("a", NOW, progress=2, clock=Clock(-5, 3))
    table.beat("a", NOW)
    assert table.of("left").describe(NOW)["clock"] == {"offset_ns": -5, "bound_ns": 3}
    table.acquire(["left"], Held.TELEOP, NOW, ident="b", holder="y")
    assert "clock" not in table.of("left").describe(NOW)


def test_the_secret_is_told_to_nobody() -> None:
    table = leases()
    table.acquire(["left"], Held.POLICY, NOW, ident="verysecret", holder="x")
    assert "verysecret" not in str(table.of("left").describe(NOW))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "release", "beat", "expire"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([Held.REPLAY, Held.POLICY, Held.TELEOP]),
        st.sampled_from([["left"], ["right"], ["left", "right"]]),
        st.integers(0, 4),
    ),
    max_size=30,
)


@given(actions=ACTIONS)
def test_an_epoch_never_comes_again_with_another_holder(actions: list) -> None:
    table, now = leases(), NOW
    seen: dict[tuple[str, int], str] = {}
    for what, ident, kind, pairs, seconds in actions:
        now += seconds * NS_PER_S
        try:
            match what:
                case "acquire":
                    table.acquire(pairs, kind, now, ident=ident, holder=ident)
                case "release":
                    table.release(table.held_by(ident))
                case "beat":
                    table.beat(ident, now, progress=seconds)
                case _:
                    table.expire(now)
        except RecdError:
            continue
        for pair, lease in table.by_pair.items():
            assert seen.setdefault((pair, lease.epoch), lease.ident) == lease.ident

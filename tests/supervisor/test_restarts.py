"""Back-off and window of restarts, and that a storm always ends."""

from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.supervisor.restarts import RestartHistory, RestartPolicy, When, after_exit

S = 1_000_000_000
POLICY = RestartPolicy(most=3, window_ns=60 * S, first_ns=S, cap_ns=3 * S)


def test_delays_double_up_to_the_cap_and_then_it_gives_up() -> None:
    now, history, delays = 0, RestartHistory(), []
    while True:
        decision = after_exit(POLICY, history, failed=True, now_ns=now)
        if decision.at_ns is None:
            break
        delays.append(decision.at_ns - now)
        now, history = decision.at_ns, decision.history
    assert delays == [S, 2 * S, 3 * S]
    assert decision.given_up


def test_restarts_older_than_the_window_are_forgiven() -> None:
    history = RestartHistory((1 * S, 2 * S, 3 * S))
    decision = after_exit(POLICY, history, failed=True, now_ns=100 * S)
    assert decision.at_ns == 101 * S
    assert not decision.given_up


def test_a_clean_end_is_not_restarted_on_failure_but_is_with_always() -> None:
    clean = after_exit(POLICY, RestartHistory(), failed=False, now_ns=0)
    assert (clean.at_ns, clean.given_up) == (None, False)
    always = RestartPolicy(when=When.ALWAYS)
    assert after_exit(always, RestartHistory(), failed=False, now_ns=0).at_ns is not None


def test_never_means_never() -> None:
    never = RestartPolicy(when=When.NEVER)
    assert after_exit(never, RestartHistory(), failed=True, now_ns=0).at_ns is None


@given(st.lists(st.integers(0, 10 * S), max_size=200))
def test_never_more_than_the_policy_allows_in_any_window(lives_ns: list[int]) -> None:
    now, history, starts = 0, RestartHistory(), []
    for life_ns in lives_ns:
        now += life_ns
        decision = after_exit(POLICY, history, failed=True, now_ns=now)
        if decision.at_ns is None:
            break
        starts.append(decision.at_ns)
        now, history = decision.at_ns, decision.history
    for at in starts:
        assert sum(at - POLICY.window_ns < other <= at for other in starts) <= POLICY.most

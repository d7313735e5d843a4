import io

import pytest
from rich.console import Console

from recd.config.load import load_robot
from recd.perf import tick_calls, ticks

RATE_HZ = 250
BELLS = tick_calls.Doorbells(sample=("gateway",), telemetry=("gateway",), telemetry_every=50)
LEADER_TICK = ["poll", "ppoll", "write", "clock_nanosleep", "ppoll", "read", "write",
               "clock_nanosleep"]  # fmt: skip


def looks(blocks, *, minor=0, collections=0):
    last = len(blocks) - 1
    return [
        ticks.Look(number * 10**9, count, collections * number, False, minor * (number == last), 0)
        for number, count in enumerate(blocks)
    ]


def state(*args, calls=None, **kwargs):
    return ticks.steady_state(looks(*args, **kwargs), rate_hz=RATE_HZ, calls=calls)


def judge(calls, role="leader", bells=BELLS):
    made = tick_calls.split([*calls, "poll"])
    return tick_calls.judge(made, role, bells, servos=6)


def kept(loop):
    return ticks.kept({"loops": {"arm:main.leader": loop.plain()}})


def test_a_loop_that_keeps_nothing_is_steady_however_much_it_holds_at_one_look():
    found = state([100, 900, 100, 100, 100, 900, 100, 100])
    assert found.ticks == 7 * RATE_HZ
    assert found.net_blocks == 0
    assert found.steady
    assert kept(found)


def test_one_object_kept_at_each_heartbeat_is_not_steady():
    found = state([100 + 10 * second for second in range(8)])
    assert not found.steady
    assert not kept(found)


def test_one_page_fault_or_one_collection_is_not_steady():
    for found in (state([100] * 8, minor=1), state([100] * 8, collections=1)):
        assert not found.steady
        assert not kept(found)


def test_calls_are_read_in_their_order_without_both_ends():
    said = [
        " 10.000000:         syscalls:sys_enter_read: ",
        " 10.500000:        syscalls:sys_enter_write: ",
        " 10.600000:     syscalls:sys_enter_pselect6: fd: 3",
        "an unknown line",
        " 11.000000:         syscalls:sys_enter_read: ",
    ]
    assert ticks.recorded(said) == ["write", "pselect6"]
    assert ticks.recorded([]) == []


def test_ticks_that_make_the_listed_calls_keep_the_goal_in_however_many_pieces_replies_come():
    three = [*LEADER_TICK, "read", "ppoll", "read", "ppoll"]
    telemetry = [*LEADER_TICK, "write"]
    found = judge([*LEADER_TICK * 50, *three, *telemetry])
    assert found["ticks"] == 52
    assert found["listed_percent"] == 100
    assert found["pieces"] == {"1": 51, "3": 1}
    assert kept(state([100] * 8, calls=found))


def test_a_loop_may_look_once_before_there_is_a_piece_and_not_twice():
    found = judge([*LEADER_TICK, "ppoll", *LEADER_TICK, "ppoll", "ppoll"])
    assert found["listed_percent"] == 50
    assert found["others"] == {"ppoll +2": 1}


def test_a_call_without_a_row_is_named_and_misses_the_goal_though_it_is_made_but_once():
    found = judge([*LEADER_TICK * 999, *LEADER_TICK, "futex"])
    assert found["unlisted"] == {"futex": 1}
    assert found["others"] == {"futex +1": 1}
    assert not kept(state([100] * 8, calls=found))


def test_one_call_more_in_each_tick_is_named_and_misses_the_goal():
    found = judge([*LEADER_TICK, "write", "write"] * 100)
    assert found["others"] == {"write +2": 100}
    assert not kept(state([100] * 8, calls=found))


def test_late_replies_read_by_the_sdk_are_known_calls_of_no_ordinary_tick():
    found = judge([*LEADER_TICK * 999, *LEADER_TICK, "pselect6", "read"])
    assert found["unlisted"] == {}
    assert found["listed_percent"] == pytest.approx(99.9)
    assert kept(state([100] * 8, calls=found))


def test_more_pieces_than_servos_are_no_listed_tick():
    found = judge(LEADER_TICK + ["read", "ppoll"] * 6)
    assert found["others"] == {"ppoll +1, read +1": 1}


def test_only_a_follower_may_ask_its_servos_twice():
    request = ["ppoll", "write", "clock_nanosleep", "ppoll", "read", "ppoll"]
    follower = [*LEADER_TICK, "write"]
    assert judge(follower + request, "follower")["listed_percent"] == 100
    assert judge(LEADER_TICK + request)["listed_percent"] == 0


def test_who_is_not_there_is_not_woken():
    alone = tick_calls.doorbells(load_robot("demo"), "main.follower")
    assert alone.sample == alone.telemetry == ()
    remote = load_robot("demo", overrides=("policy={}",))
    assert tick_calls.doorbells(remote, "main.follower").sample == ("gateway",)
    assert tick_calls.doorbells(remote, "main.leader").sample == ()
    calls = tick_calls.expected("follower", alone)
    more = tick_calls.expected("follower", tick_calls.doorbells(remote, "main.follower"))
    assert more == calls | {"write": calls["write"] + 1}


@pytest.mark.parametrize("calls", [None, judge(LEADER_TICK * 99 + [*LEADER_TICK, "brk"])])
def test_what_could_not_be_counted_is_told_and_the_rest_is_shown(calls):
    loop = state([100] * 8, calls=calls).plain()
    screen = Console(file=io.StringIO(), width=120)
    told = {"loops": {"arm:main.leader": loop}, "calls_not_counted": "expected perf, found none",
            "realtime": {"arm:main.leader": {"memory lock": "refused: no"}}}  # fmt: skip
    ticks.show(told, screen)
    text = screen.file.getvalue()
    words = ("not measured",) if calls is None else ("! brk: 1 times", "99.00 %", "doorbell of")
    for word in ("kept", "found none", "memory lock: refused: no", *words):
        assert word in text

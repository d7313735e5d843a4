import io

from rich.console import Console

from recd.perf import ticks

RATE_HZ = 250


def looks(blocks, *, minor=0, collections=0):
    last = len(blocks) - 1
    return [
        ticks.Look(number * 10**9, count, collections * number, False, minor * (number == last), 0)
        for number, count in enumerate(blocks)
    ]


def state(*args, **kwargs):
    return ticks.steady_state(looks(*args, **kwargs), rate_hz=RATE_HZ, calls={})


def test_a_loop_that_keeps_nothing_is_steady_however_much_it_holds_at_one_look():
    found = state([100, 900, 100, 100, 100, 900, 100, 100])
    assert found.ticks == 7 * RATE_HZ
    assert found.net_blocks == 0
    assert found.steady


def test_one_object_kept_at_each_heartbeat_is_not_steady():
    assert not state([100 + 10 * second for second in range(8)]).steady


def test_one_page_fault_or_one_collection_is_not_steady():
    assert not state([100] * 8, minor=1).steady
    assert not state([100] * 8, collections=1).steady


def test_calls_are_those_of_whole_seconds_by_name():
    said = [
        "     1.0,9000,,syscalls:sys_enter_read,1,100.00,,",
        "     2.0,500,,syscalls:sys_enter_read,1,100.00,,",
        "     2.0,0,,syscalls:sys_enter_brk,1,100.00,,",
        "     3.0,502,,syscalls:sys_enter_read,1,100.00,,",
        "     3.0,250,,syscalls:sys_enter_write,1,100.00,,",
        "     3.2,7,,syscalls:sys_enter_read,1,100.00,,",
        "     3.2,<not counted>,,syscalls:sys_enter_write,0,100.00,,",
    ]
    assert ticks.counted(said) == {"read": [500, 502], "write": [0, 250]}


def test_what_could_not_be_counted_is_told_and_the_rest_is_shown():
    loop = state([100] * 8).plain()
    screen = Console(file=io.StringIO(), width=120)
    told = {"loops": {"arm:main.leader": loop}, "calls_not_counted": "expected perf, found none",
            "realtime": {"arm:main.leader": {"memory lock": "refused: no"}}}  # fmt: skip
    ticks.show(told, screen)
    text = screen.file.getvalue()
    for word in ("steady", "found none", "memory lock: refused: no"):
        assert word in text

from typing import Any

from recd.daemon.supervisor.holders import with_holders

NOBODY = {"epoch": 4, "kind": "nobody"}


def lease(epoch: int, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "kind": "policy", "holder": "a", "key": "", "adapter": "",
            "held_s": 3.0, **more}  # fmt: skip


def test_each_holder_stands_there_once_however_often_it_is_told_and_nobody_does_not() -> None:
    noted = with_holders([], {"left": lease(2), "right": NOBODY})
    noted = with_holders(noted, {"left": lease(2, held_s=4.0), "right": lease(5, holder="b")})
    noted = with_holders(noted, {"left": NOBODY, "right": lease(5, holder="b")})
    assert [(one["pair"], one["holder"], one["epoch"]) for one in noted] == [
        ("left", "a", 2), ("right", "b", 5)]  # fmt: skip
    assert all("held_s" not in one for one in noted)


def test_a_holders_clock_is_the_last_one_that_it_told_and_absent_where_it_told_none() -> None:
    first, second = {"offset_ns": 5, "bound_ns": 3}, {"offset_ns": 6, "bound_ns": 2}
    noted = with_holders([], {"left": lease(2)})
    assert "clock" not in noted[0]
    noted = with_holders(noted, {"left": lease(2, clock=first)})
    noted = with_holders(noted, {"left": lease(2, clock=second)})
    noted = with_holders(noted, {"left": lease(2)})
    assert [one["clock"] for one in noted] == [second]

"""The wire: what is not a small plain message of this protocol is refused, by type and by name."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.config import messages
from recd.config.errors import RecdError
from recd.config.messages import COMMANDS, CommandError, MessageError, Request, parse_request

ID = "0123456789abcdef0123456789abcdef"


def request(**changes: Any) -> dict[str, Any]:
    return {"v": 1, "ty": "req", "id": ID, "cmd": "status", "args": {}, **changes}


def read(data: bytes) -> Request | RecdError:
    try:
        return parse_request(messages.decode(data))
    except (MessageError, CommandError) as refused:
        return refused


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"not msgpack at all", "malformed"),
        (msgpack.packb([1, 2]), "malformed"),
        (msgpack.packb({1: 2}), "malformed"),
        (msgpack.packb({"a": {b"x": 2}}), "malformed"),
        (msgpack.packb({"t": msgpack.Timestamp(1)}), "malformed"),
        (msgpack.packb({"e": msgpack.ExtType(5, b"x")}), "malformed"),
        (b"\xdf\xff\xff\xff\xff", "malformed"),
        (b"\xdd\xff\xff\xff\xff", "malformed"),
        (b"\x81\xa1a" + b"\x91" * 5000 + b"\x01", "malformed"),
        (msgpack.packb({"a": nested(9)}), "oversized"),
        (msgpack.packb({"a": [[0] * 3000, [0] * 3000]}), "oversized"),
        (bytes(messages.MAX_MESSAGE_BYTES + 1), "oversized"),
        (msgpack.packb({"a": 1}) + b"\x00", "malformed"),
        (b"\x82\xa1a\x01\xa1a\x02", "malformed"),
        (msgpack.packb({"k" * 65: 1}), "oversized"),
        (msgpack.packb({"a": "x" * messages.MAX_REQUEST_BYTES}), "oversized"),
    ],
)
def test_what_is_not_one_small_plain_map_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MessageError) as refused:
        messages.decode(data, messages.REQUEST_LIMITS)
    assert refused.value.code == code


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_give_a_map_or_a_typed_refusal(data: bytes) -> None:
    assert isinstance(read(data), Request | RecdError)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "v": VALUES | st.just(1),
            "ty": VALUES | st.just("req"),
            "id": VALUES | st.just(ID),
            "cmd": VALUES | st.sampled_from(sorted(COMMANDS)),
            "args": VALUES
            | st.dictionaries(
                st.sampled_from(["task", "uid", "key", "episodes", "label"]), VALUES, max_size=4
            ),
            "deadline_ms": VALUES | st.just(100),
        },
    )
)
def test_any_map_is_a_request_or_a_typed_refusal(message: dict[str, Any]) -> None:
    parsed = read(msgpack.packb(message))
    assert isinstance(parsed, RecdError) or parsed.cmd in COMMANDS


def test_a_request_survives_the_wire() -> None:
    sent = Request(ID, "start", {"task": "Würfel greifen"}, 500)
    assert parse_request(messages.decode(sent.pack())) == sent


def test_a_binary_id_is_answered_in_hex() -> None:
    assert parse_request(request(id=bytes(16))).id == "0" * 32


def test_unknown_fields_and_arguments_are_ignored() -> None:
    parsed = parse_request(request(later=1, args={"later": {"x": [1]}}))
    assert parsed.args == {}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"v": 2, "cmd": "start"}, "version"),
        ({"v": None}, "version"),
        ({"v": 0}, "version"),
        ({"v": True}, "version"),
        ({"v": 2**40}, "version"),
        ({"ty": "rep"}, "malformed"),
        ({"id": ""}, "malformed"),
        ({"id": "x" * 65}, "malformed"),
        ({"id": b"short"}, "malformed"),
        ({"deadline_ms": 0}, "malformed"),
        ({"deadline_ms": True}, "malformed"),
        ({"deadline_ms": 1e9}, "malformed"),
        ({"cmd": "selfdestruct"}, "unknown"),
        ({"cmd": 7}, "unknown"),
        ({"args": []}, "malformed"),
        ({"cmd": "mark"}, "argument"),
        ({"cmd": "mark", "args": {"label": "a\x1b[2Jb"}}, "argument"),
        ({"cmd": "mark", "args": {"label": "x" * 5000}}, "argument"),
        ({"cmd": "undelete", "args": {"uid": "../../etc"}}, "argument"),
        ({"cmd": "plan.key", "args": {"key": "jump"}}, "argument"),
        ({"cmd": "stop", "args": {"wait": 1}}, "argument"),
        ({"cmd": "arm", "args": {"pair": "../x"}}, "argument"),
        (
            {"cmd": "plan.start", "args": {"episodes": 1, "episode_s": float("nan"), "reset_s": 0}},
            "argument",
        ),
        ({"cmd": "plan.start", "args": {"episodes": 0, "episode_s": 1, "reset_s": 0}}, "argument"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_type(change: dict[str, Any], code: str) -> None:
    with pytest.raises((MessageError, CommandError)) as refused:
        parse_request(request(**change))
    assert refused.value.code == code


def test_an_unknown_command_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CommandError) as refused:
        parse_request(request(cmd="strat"))
    assert "start" in refused.value.mend


def test_a_reply_may_nest_deeper_than_a_request() -> None:
    inner: object = 1
    for _ in range(12):
        inner = {"a": [inner]}
    data = messages.encode({"v": 1, "told": inner})
    assert messages.decode(data)["v"] == 1
    with pytest.raises(MessageError, match="nested deeper than 8 levels"):
        messages.decode(data, messages.REQUEST_LIMITS)

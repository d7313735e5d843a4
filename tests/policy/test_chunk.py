"""What a chunk may be. Bad ones are refused with the right word, whatever is wrong with them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recd.config.messages import MessageError
from recd.config.policy_streams import plan_dtype
from recd.config.policy_wire import MOST_STEPS, Status, pack, raw, unpack
from recd.daemon.policy.chunk import ChunkError, absolute, fill_plan, read_chunk
from recd.daemon.policy.layout import ActionLayout

LAYOUT = ActionLayout(
    ("a.pos", "b.pos", "g.pos"), ("degrees",) * 3, (-90.0,) * 3, (90.0,) * 3, {"main": slice(0, 3)}
)
HEADER: dict[str, Any] = {
    "ty": "act", "id": "1", "lease": {"id": "f" * 32, "epoch": 4}, "chunk": 1, "obs": 9,
    "t_ref": 10**12, "dt_ns": 33_000_000, "layout": LAYOUT.layout_id,
}  # fmt: skip
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def received(actions: Any = ROWS, **changes: Any) -> Any:
    parts = pack({**HEADER, **changes}, [raw("actions", np.asarray(actions))])
    return read_chunk(*unpack(parts), LAYOUT)


def refused(actions: Any = ROWS, **changes: Any) -> ChunkError:
    with pytest.raises(ChunkError) as caught:
        received(actions, **changes)
    return caught.value


def test_a_sound_chunk_comes_out_as_it_went_in() -> None:
    chunk = received()
    assert np.array_equal(chunk.values, ROWS)
    assert chunk.offsets_ns.tolist() == [33_000_000 * k for k in range(1, 5)]
    assert chunk.age_limit_ns == 2 * 5 * 33_000_000


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"layout": "0" * 16}, Status.LAYOUT),
        ({"layout": None}, Status.LAYOUT),
        ({"actions": ROWS[:, :2]}, Status.LAYOUT),
        ({"actions": np.zeros((MOST_STEPS + 1, 3), np.float32)}, Status.LAYOUT),
        ({"actions": ROWS.reshape(-1)}, Status.MALFORMED),
        ({"actions": ROWS.astype(np.int32)}, Status.MALFORMED),
        ({"actions": np.where(ROWS == 5, np.nan, ROWS)}, Status.NOT_FINITE),
        ({"actions": np.where(ROWS == 5, np.inf, ROWS)}, Status.NOT_FINITE),
        ({"dt_ns": 0}, Status.MALFORMED),
        ({"dt_ns": -1}, Status.MALFORMED),
        ({"dt_ns": True}, Status.MALFORMED),
        ({"dt_ns": 0.033}, Status.MALFORMED),
        ({"chunk": -1}, Status.MALFORMED),
        ({"chunk": 2**63}, Status.MALFORMED),
        ({"lease": None}, Status.MALFORMED),
        ({"lease": {"id": "", "epoch": 1}}, Status.MALFORMED),
        ({"rep": "speed"}, Status.MALFORMED),
        ({"mode": "sudden"}, Status.MALFORMED),
        ({"mask": [True, False]}, Status.MALFORMED),
        ({"mask": [1, 1, 1]}, Status.MALFORMED),
        ({"offsets_ns": [1, 2, 3]}, Status.MALFORMED),
        ({"offsets_ns": [1, 2, 2, 3]}, Status.MALFORMED),
        ({"offsets_ns": [1, 2, 3, 2**62]}, Status.MALFORMED),
        ({"dt_ns": 10**9, "actions": np.zeros((40, 3), np.float32)}, Status.MALFORMED),
        ({"valid_ns": -5}, Status.MALFORMED),
    ],
)
def test_what_is_wrong_is_refused_with_its_word(changes: dict[str, Any], status: Status) -> None:
    error = refused(**changes)
    assert error.status is status
    assert error.message


def test_a_masked_dimension_may_hold_anything_and_comes_out_as_nothing() -> None:
    rows = ROWS.copy()
    rows[:, 1] = np.nan
    chunk = received(rows, mask=[True, False, True])
    positions = absolute(chunk, np.zeros(3))
    assert np.isnan(positions[:, 1]).all()
    assert np.array_equal(positions[:, [0, 2]], ROWS[:, [0, 2]])


def test_relative_and_delta_are_made_absolute_with_the_state_at_the_observation() -> None:
    state = np.array([10.0, 20.0, 30.0])
    relative = absolute(received(rep="rel_obs"), state)
    assert np.array_equal(relative, ROWS + state)
    delta = absolute(received(rep="delta"), state)
    assert np.array_equal(delta, np.cumsum(ROWS, axis=0) + state)
    with pytest.raises(ChunkError) as caught:
        absolute(received(rep="delta"), np.array([10.0, np.nan, 30.0]))
    assert caught.value.status is Status.UNKNOWN_OBS


def test_velocities_stay_what_they_are_and_need_no_state() -> None:
    chunk = received(rep="vel", mask=[True, True, False])
    velocities = absolute(chunk, np.full(3, np.nan))
    assert np.array_equal(velocities[:, :2], ROWS[:, :2])
    assert np.isnan(velocities[:, 2]).all()
    record = np.zeros(1, plan_dtype(3))[0]
    for word, velocity in (("vel", True), ("abs", False)):
        fill_plan(record, received(rep=word), velocities, LAYOUT.groups["main"])
        assert bool(record["velocity"]) is velocity
    assert np.array_equal(record["values"][:4, :2], ROWS[:, :2])


def described(**changes: Any) -> list[Any]:
    told = {"n": "actions", "fi": 0, "enc": "raw", "dt": "f4", "sh": [4, 3], **changes}
    return [*pack({**HEADER, "arrays": [told]}), ROWS.tobytes()]


@pytest.mark.parametrize(
    "changes",
    [
        {"dt": "O"}, {"dt": "O8"}, {"dt": "U4"}, {"dt": ">f4"}, {"dt": None}, {"dt": ["f4"]},
        {"sh": [2**63, 3]}, {"sh": [2**31, 2**33]}, {"sh": [-4, -3]}, {"sh": [4, 3, 1, 1, 1]},
        {"sh": [4.0, 3]}, {"sh": [True, 12]}, {"sh": "43"}, {"sh": [4, 4]}, {"sh": [0, 3]},
        {"fi": 1}, {"fi": True}, {"n": ""}, {"n": 7}, {"enc": "pickle"}, {"dt": "f8"},
    ],
)  # fmt: skip
def test_a_description_that_its_buffer_does_not_bear_out_is_refused(changes: dict) -> None:
    unpack(described())
    with pytest.raises(MessageError):
        unpack(described(**changes))


def test_truncated_and_superfluous_buffers_are_refused() -> None:
    header, buffer = described()
    for parts in ([header], [header, buffer[:-1]], [header, buffer, buffer], [], [b"", buffer]):
        with pytest.raises(MessageError):
            unpack(parts)


@given(parts=st.lists(st.binary(max_size=200), max_size=4))
def test_arbitrary_bytes_are_refused_as_messages(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        unpack(parts)


KEYS = (*HEADER, "rep", "mode", "mask", "offsets_ns", "valid_ns", "blend")
WORDS = st.sampled_from(["", "abs", "delta", "blend", "x" * 200, "\u00e9"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changes=st.dictionaries(st.sampled_from(KEYS), PLAIN, max_size=4))
def test_whatever_a_header_claims_is_refused_in_words_or_sound(changes: dict[str, Any]) -> None:
    words = ""
    try:
        chunk = received(**changes)
    except (ChunkError, MessageError) as error:
        chunk, words = None, error.message
    if chunk is None:
        assert words
        return
    assert chunk.values.shape == (4, 3)
    assert (np.diff(chunk.offsets_ns) > 0).all()
    assert abs(int(chunk.t_ref_ns) + int(chunk.offsets_ns[-1])) < 2**63

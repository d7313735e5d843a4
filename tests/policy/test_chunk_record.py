from typing import Any

import numpy as np
import pytest

from recd.config.policy_streams import MODES, STATUSES, chunk_dtype
from recd.config.policy_wire import MOST_ELEMENTS, Status, pack, raw, unpack
from recd.daemon.policy.chunk import ChunkError, read_chunk
from recd.daemon.policy.desk import REPRESENTATIONS, fill_record
from tests.policy.test_chunk import HEADER, LAYOUT, ROWS


def record_of(actions: Any, **changes: Any) -> Any:
    """What the log keeps of a chunk, in a slot that was used before."""
    header, buffers = unpack(pack({**HEADER, **changes}, [raw("actions", np.asarray(actions))]))
    record = np.frombuffer(b"\xaa" * chunk_dtype(3).itemsize, chunk_dtype(3)).copy()[0]
    try:
        chunk, told = read_chunk(header, buffers, LAYOUT), {"status": Status.APPLIED}
    except ChunkError as error:
        chunk, told = None, {"status": error.status, "reason": error.message}
    fill_record(record, chunk, header, buffers, told)
    return record


def values_of(record: Any) -> np.ndarray:
    steps, columns = int(record["steps"]), int(record["columns"])
    return record["values"][: steps * columns].reshape(steps, columns)


def test_a_chunk_is_kept_with_all_that_its_sender_said() -> None:
    record = record_of(
        ROWS, mode="blend", blend=2, valid_ns=5 * 10**8, rep="rel_obs",
        infer={"start": 7, "end": 9}, task="fold",
    )  # fmt: skip
    assert np.array_equal(values_of(record), ROWS)
    assert (MODES[record["mode"]], record["blend"]) == ("blend", 2)
    assert REPRESENTATIONS[record["representation"]] == "rel_obs"
    assert (record["valid_ns"], record["infer_start_ns"], record["infer_end_ns"]) == (
        5 * 10**8,
        7,
        9,
    )
    assert (record["epoch"], record["obs"], record["obs_ns"]) == (4, 9, 10**12)
    assert (record["mask"], record["task"], record["reason"]) == (0b111, b"fold", b"")
    assert record["offset_ns"][:5].tolist() == [33_000_000 * k for k in (1, 2, 3, 4)] + [0]


@pytest.mark.parametrize(
    ("actions", "changes", "status"),
    [
        (np.where(ROWS == 5, np.nan, ROWS), {}, Status.NOT_FINITE),
        (ROWS[:, :2], {}, Status.LAYOUT),
        (ROWS, {"layout": "0" * 16}, Status.LAYOUT),
        (ROWS.astype(np.int32), {"mode": "sudden", "blend": -3}, Status.MALFORMED),
    ],
)
def test_the_numbers_of_a_refused_chunk_are_kept_as_they_came(actions, changes, status) -> None:
    record = record_of(actions, **changes)
    assert np.array_equal(values_of(record), actions.astype(np.float32), equal_nan=True)
    assert STATUSES[record["status"]] is status
    assert record["reason"]
    assert (record["chunk"], record["obs"], record["dt_ns"], record["valid_ns"]) == (
        1, 9, 33_000_000, -1
    )  # fmt: skip
    assert record["offset_ns"][0] == 33_000_000


def test_what_makes_no_sense_is_kept_as_nothing_and_what_is_too_long_is_cut() -> None:
    record = record_of(
        np.full((400, 3), 1e300), chunk="one", obs=2**63, t_ref=None, infer=5, lease=[],
        valid_ns=True,
    )  # fmt: skip
    assert (record["chunk"], record["obs"], record["obs_ns"], record["epoch"]) == (-1, 0, 0, 0)
    assert (record["infer_start_ns"], record["valid_ns"], record["steps"]) == (0, -1, 400)
    assert np.isinf(record["values"]).all()
    empty = record_of(np.zeros((MOST_ELEMENTS, 0), np.float32))
    assert (empty["steps"], empty["columns"]) == (MOST_ELEMENTS, 0)

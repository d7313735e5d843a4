"""The log of chunks: everything in order, bounded whatever a peer sends, losses told by numbers."""

from typing import Any

import numpy as np
import pytest

from recd.config.messages import MessageError
from recd.config.policy_wire import MOST_ELEMENTS, MOST_STEPS, Buffer, pack, raw, unpack
from recd.daemon.policy.desk import Answer
from recd.daemon.policy.journal import (
    ANSWER_MOST,
    KEPT,
    TEXT_MOST,
    VALUES_BYTES_MOST,
    Journal,
    read_after,
)
from recd.daemon.policy.observe import Seen

PEER = (0, b"peer")
SEEN = Seen(1_000, np.array([1.0, np.nan]), {"front": "mjpeg 640x480"})


def put(journal: Journal, number: int = 1, values: Any = None, **header: Any) -> None:
    told = {"id": str(number), "chunk": number, "obs": 4, "t_ref": 1_000, "dt_ns": 10, **header}
    rows = np.full((3, 2), number, np.float32) if values is None else values
    journal.heard(PEER, told, {"actions": raw("actions", rows)}, now=50)
    ack = {"chunk": number, "epoch": 1, "status": "applied", "first_applied": 0, "late": 0}
    journal.answered(Answer(PEER, told, ack, latency_ns=40), SEEN, "me", now=60)


def read(journal: Journal, after: int = 0) -> tuple[dict[str, Any], dict[str, Buffer]]:
    """Over the wire."""
    told, buffers = journal.after(after)
    return unpack(pack({"ty": "chunks", **told}, buffers))


def test_a_chunk_comes_out_with_what_it_was_and_what_became_of_it() -> None:
    journal = Journal()
    put(journal, task="pick", policy="test", infer={"start": 100, "end": 130})
    header, buffers = read(journal)
    (told,) = header["chunks"]
    assert (told["seq"], told["chunk"], told["status"], told["holder"]) == (1, 1, "applied", "me")
    assert (told["received"], told["acked"], told["latency_ns"]) == (50, 60, 40)
    assert (told["infer_ns"], told["task"], told["policy"]) == (30, "pick", "test")
    assert told["inputs"] == {"front": "mjpeg 640x480"}
    assert buffers["0.values"].array().tolist() == [[1, 1], [1, 1], [1, 1]]
    assert buffers["0.offsets"].array().tolist() == [10, 20, 30]
    np.testing.assert_array_equal(buffers["0.state"].array(), [1.0, np.nan])


def test_a_reader_gets_what_is_new_in_order_and_sees_what_it_lost() -> None:
    journal = Journal()
    for number in range(1, KEPT + 11):
        put(journal, number)
    last, numbers = 0, []
    while (header := read(journal, last)[0])["chunks"]:
        assert len(header["chunks"]) <= ANSWER_MOST
        numbers += [told["seq"] for told in header["chunks"]]
        last = numbers[-1]
    assert numbers == list(range(11, KEPT + 11))
    assert read(journal, last)[0]["newest"] == KEPT + 10


def test_whatever_a_peer_sends_stays_small() -> None:
    journal = Journal()
    huge = np.zeros((VALUES_BYTES_MOST, 2), np.float32)
    texts = {"task": "\U0001f916" * 10_000, "policy": ["x"] * 9, "mode": "y" * 10_000}
    for number in range(1, KEPT + 1):
        put(journal, number, huge, infer="now", dt_ns=-1, **texts)
    last = 0
    while (answer := journal.after(last))[0]["chunks"]:
        for told in answer[0]["chunks"]:
            assert len(told["task"]) == len(told["mode"]) == TEXT_MOST
            assert told["policy"] is told["infer_ns"] is None
        assert all(len(buffer.data) <= 64 for buffer in answer[1])
        assert pack(answer[0], answer[1])
        last = answer[0]["chunks"][-1]["seq"]
    assert last == KEPT


def test_rows_without_columns_cost_nothing_however_many_are_claimed() -> None:
    journal = Journal()
    put(journal, values=np.zeros((MOST_ELEMENTS, 0), np.float32))
    _, buffers = read(journal)
    assert buffers["0.values"].shape == (MOST_STEPS, 0)
    assert buffers["0.offsets"].shape == (MOST_STEPS,)


def test_chunks_that_are_never_answered_are_not_kept_for_ever() -> None:
    journal = Journal()
    for number in range(10_000):
        journal.heard(PEER, {"id": str(number)}, {}, now=1)
    assert len(journal._under_way) <= 64


@pytest.mark.parametrize("after", [-1, 1.0, True, None, "1", 2**62])
def test_a_number_that_is_none_is_refused(after: Any) -> None:
    with pytest.raises(MessageError, match="after: expected a whole number"):
        read_after({"after": after})

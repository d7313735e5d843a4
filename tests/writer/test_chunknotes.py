import numpy as np
import pytest

from recd.config.policy_streams import STATUSES, chunk_dtype
from recd.config.policy_wire import Status
from recd.daemon.writer.chunknotes import ChunkNotes
from recd.daemon.writer.publish import outcome

MS = 1_000_000


def chunk(number: int, received_ns: int, task: str = "", **fields: object) -> np.void:
    record = np.zeros(1, chunk_dtype(6))[0]
    record["chunk"], record["received_ns"], record["task"] = number, received_ns, task.encode()
    record["status"] = STATUSES.index(fields.pop("status", Status.APPLIED))
    for name, value in fields.items():
        record[name] = value
    return record


def notes(*records: np.void) -> ChunkNotes:
    found = ChunkNotes()
    for record in records:
        found.add(record)
    return found


def test_a_row_has_the_task_of_the_chunk_that_acted_in_it() -> None:
    known = notes(chunk(1, 10, "pick"), chunk(2, 20, "placé"), chunk(3, 30))
    rows = np.array([-1, 1, 2, 3, 9]), np.array([15, 15, 25, 35, 95])
    assert known.tasks(*rows, "else") == ["else", "pick", "placé", "else", "else"]


def test_a_number_that_comes_again_with_another_lease_means_the_newer_chunk() -> None:
    known = notes(chunk(1, 10, "before"), chunk(1, 50, "after"))
    assert known.tasks(np.array([1, 1, 1]), np.array([5, 49, 51]), "none") == [
        "none", "before", "after"
    ]  # fmt: skip


def test_a_chunk_that_was_not_played_gives_no_row_its_task() -> None:
    known = notes(
        chunk(1, 10, "acts"), chunk(1, 20, "again", status=Status.DUPLICATE), chunk(1, 50),
    )  # fmt: skip
    assert known.tasks(np.array([1, 1]), np.array([30, 60]), "else") == ["acts", "else"]


def test_of_two_holders_that_number_alike_each_pair_has_its_own_chunks_task() -> None:
    known = notes(chunk(1, 10, "left", mask=0b000111), chunk(1, 20, "right", mask=0b111000))
    rows = np.array([1, 1]), np.array([15, 25])
    assert known.tasks(*rows, "else", among=0b000111) == ["left", "left"]
    assert known.tasks(*rows, "else", among=0b111000) == ["else", "right"]


def test_figures_are_of_the_chunks_that_came_during_the_episode() -> None:
    known = notes(
        *(chunk(k, k * MS, obs_ns=k * MS - 40 * MS, margin_ns=5 * MS) for k in range(100, 200)),
        chunk(300, 150 * MS, status=Status.SEAM, obs_ns=1),
    )
    told = known.describe(120 * MS, 180 * MS)
    assert told is not None
    assert told["chunks"] == {"applied": 61, "seam": 1}
    assert told["latency_ms"] == {"count": 61, "p1": 40.0, "p50": 40.0, "p99": 40.0}
    assert told["margin_ms"]["p50"] == 5.0
    assert known.describe(0, 1) is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], ""),
        (["look"], ""),
        (["fail", "success"], "success"),
        (["success", "x", "fail"], "fail"),
    ],
)
def test_the_outcome_is_what_a_person_said_last(labels: list[str], said: str) -> None:
    assert outcome([{"label": label} for label in labels]) == said

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.config.errors import DatasetError
from recd.daemon.dataset.journal import Journal, encode_frame, read_journal
from recd.daemon.dataset.ledger import LedgerEntry, Move, Transaction, replay

RECORDS = [
    {"ty": "begin", "uid": "a" * 32, "facts": {"t0_ns": 1, "task": "pick ü"}},
    {"ty": "discard", "uid": "a" * 32},
    {"ty": "begin", "uid": "b" * 32, "facts": {}},
]


def written(path, records=RECORDS):
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def test_a_journal_cut_at_any_byte_gives_the_records_before_the_cut(tmp_path):
    whole = written(tmp_path / "journal")
    ends, position = [], len(whole) - sum(len(encode_frame(record)) for record in RECORDS)
    for record in RECORDS:
        position += len(encode_frame(record))
        ends.append(position)
    for cut in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        wanted = RECORDS[: sum(end <= cut for end in ends)]
        assert read_journal(path).records == wanted


def test_appending_after_a_cut_at_any_byte_continues_after_the_last_whole_record(tmp_path):
    whole = written(tmp_path / "journal")
    for cut in range(0, len(whole) + 1, 3):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        kept = read_journal(path).records
        journal = Journal(path)
        journal.append({"ty": "begin", "uid": "new", "facts": {}})
        journal.close()
        assert read_journal(path).records == [*kept, {"ty": "begin", "uid": "new", "facts": {}}]


@settings(max_examples=150, deadline=None)
@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_never_gives_a_wrong_record(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("journal") / "journal"
    whole = bytearray(written(path))
    whole[at % len(whole)] ^= 1 << bit
    path.write_bytes(whole)
    try:
        records = read_journal(path).records
    except DatasetError:
        return
    assert records == RECORDS[: len(records)]


def test_a_newer_journal_and_a_foreign_file_are_refused_untouched(tmp_path):
    path = tmp_path / "journal"
    written(path)
    newer = path.read_bytes()[:8] + (99).to_bytes(4, "little")
    for content, words in ((newer, "version 99"), (b"something else", "not a recd journal")):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=words):
            read_journal(path)
        assert path.read_bytes() == content


def test_a_failed_write_is_cut_off_so_that_the_next_record_is_readable(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal")
    journal.append(RECORDS[0])
    real = os.write

    def full_disk(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[:7])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("recd.daemon.dataset.journal.os.write", full_disk)
    with pytest.raises(OSError, match="no space left"):
        journal.append(RECORDS[1])
    monkeypatch.setattr("recd.daemon.dataset.journal.os.write", real)
    journal.append(RECORDS[2])
    journal.close()
    assert read_journal(tmp_path / "journal").records == [RECORDS[0], RECORDS[2]]


def entry(uid: str, number: int) -> dict:
    return {
        "uid": uid,
        "episode_index": number,
        "length": 5,
        "first_row": 5 * number,
        "rows_sha256": "0" * 64,
        "videos": {},
    }


def transaction(kind: str, uid: str, number: int) -> Transaction:
    move = Move("a", "b", digest="1", before="2", keep="c", label="info")
    return Transaction(kind, uid, (move,), {"meta/info.json": uid}, entry(uid, number))


def test_the_ledger_follows_commit_undo_and_undelete():
    steps = [
        {"ty": "begin", "uid": "x", "facts": {}},
        transaction("commit", "x", 0).as_record(),
        {"ty": "done"},
        transaction("commit", "y", 1).as_record(),
        {"ty": "done"},
        transaction("undo", "y", 1).as_record(),
        {"ty": "done"},
    ]
    ledger = replay(steps)
    assert (ledger.last_uid, list(ledger.trashed)) == ("x", ["y"])
    ledger = replay([*steps, transaction("undelete", "y", 1).as_record(), {"ty": "done"}])
    assert ledger.published["y"] == LedgerEntry(**entry("y", 1))
    assert (ledger.trashed, ledger.after) == ({}, {"meta/info.json": "y"})


def test_a_checkpoint_gives_the_same_ledger_also_with_something_pending():
    records = [
        {"ty": "begin", "uid": "w", "facts": {"task": "t"}},
        {"ty": "begin", "uid": "v", "facts": {}},
        {"ty": "discard", "uid": "v"},
        transaction("commit", "x", 0).as_record(),
        {"ty": "done"},
        transaction("undo", "x", 0).as_record(),
    ]
    ledger = replay(records)
    assert ledger.pending is not None
    assert replay(ledger.checkpoint()) == ledger


def test_a_long_journal_is_replaced_by_a_checkpoint_when_opened(studio, monkeypatch):
    monkeypatch.setattr("recd.daemon.dataset.handle.COMPACT_ABOVE_BYTES", 2000)
    store = studio.open()
    uids = [studio.record(store, 2).uid for _ in range(5)]
    studio.close()
    before = (studio.root / ".recd/journal").stat().st_size
    store = studio.open()
    assert (studio.root / ".recd/journal").stat().st_size < before
    assert [episode.uid for episode in store.episodes()] == uids
    studio.record(store, 2)
    store.undo(store.last_uid)
    studio.close()
    assert [episode.uid for episode in studio.open().episodes()] == uids

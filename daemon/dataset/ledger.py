"""What the journal's records add up to: which uid is which episode, what is open, what is pending.

Pure: records in, ledger out. The ledger is recd's memory; the dataset's own files decide.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from recd.daemon.dataset.journal import Record

BEGIN, DISCARD, QUARANTINE, PREPARE, DONE, ABORT, CHECKPOINT = (
    "begin",
    "discard",
    "quarantine",
    "prepare",
    "done",
    "abort",
    "checkpoint",
)
COMPACT_ABOVE_BYTES = 4 << 20
"""A journal longer than this is replaced by one checkpoint when the dataset is opened."""


@dataclass(frozen=True, slots=True)
class Move:
    """One rename of a transaction, paths relative to the dataset folder.

    digest: sha256 of what is moved ("dir" for a folder); before: sha256 of what the target held,
    "" nothing; keep: where a copy of that lies, "" nowhere; label: its fault point; swap: two
    folders change places (digests are `tree_digest`s); names: those folders inside `src` and `dst`
    that change places all in one instant (see `exchange`).
    """

    src: str
    dst: str
    digest: str
    before: str = ""
    keep: str = ""
    label: str = ""
    swap: bool = False
    names: tuple[str, ...] = ()

    def as_record(self) -> Record:
        """Without what is not set, as versions before it wrote it."""
        return {key: value for key, value in asdict(self).items() if key != "names" or value}

    @classmethod
    def from_record(cls, record: Record) -> "Move":
        return cls(**{**record, "names": tuple(record.get("names", ()))})


@dataclass(frozen=True, slots=True)
class Transaction:
    """A set of renames that happens wholly. kind: commit, undo, undelete, pack, delete, relabel,
    repair.

    after: sha256 by name of the metadata files once it is done; entry: the episode concerned, for
    delete and repair `published` and `trashed` afterwards.
    """

    kind: str
    uid: str
    moves: tuple[Move, ...]
    after: Mapping[str, str]
    entry: Mapping[str, Any]

    def as_record(self) -> Record:
        moves = [move.as_record() for move in self.moves]
        return {
            "ty": PREPARE,
            "kind": self.kind,
            "uid": self.uid,
            "moves": moves,
            "after": dict(self.after),
            "entry": dict(self.entry),
        }

    @classmethod
    def from_record(cls, record: Record) -> "Transaction":
        return cls(
            kind=record["kind"],
            uid=record["uid"],
            moves=tuple(Move.from_record(move) for move in record["moves"]),
            after=record["after"],
            entry=record["entry"],
        )


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An episode recd published. rows_sha256: of state and action bytes; videos: digests by key."""

    uid: str
    episode_index: int
    length: int
    first_row: int
    rows_sha256: str
    videos: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Ledger:
    """published: by uid in order of episode number; begun: running or not finished episodes with
    the facts of their start; trashed: undone or discarded; pending: a transaction without end;
    after: sha256 of the metadata files as recd last left them; last_uid: the last one published."""

    published: dict[str, LedgerEntry] = field(default_factory=dict)
    begun: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    trashed: dict[str, LedgerEntry | None] = field(default_factory=dict)
    pending: Transaction | None = None
    after: Mapping[str, str] = field(default_factory=dict)

    @property
    def last_uid(self) -> str | None:
        return next(reversed(self.published), None)

    def apply(self, record: Record) -> None:
        """Take one record into account; unknown kinds are of a later minor version: ignored."""
        match record:
            case {"ty": "begin", "uid": uid, "facts": facts}:
                self.begun[uid] = facts
                self.trashed.pop(uid, None)
            case {"ty": "discard", "uid": uid}:
                self.begun.pop(uid, None)
                self.trashed[uid] = None
            case {"ty": "quarantine", "uid": uid}:
                self.begun.pop(uid, None)
            case {"ty": "prepare"}:
                self.pending = Transaction.from_record(record)
            case {"ty": "done"}:
                self._finish()
            case {"ty": "abort"}:
                self.pending = None
            case {"ty": "checkpoint"}:
                self._restore(record)

    def _finish(self) -> None:
        done, self.pending = self.pending, None
        if done is None:
            return
        self.after = done.after
        match done.kind:
            case "commit" | "undelete":
                self.published[done.uid] = LedgerEntry(**done.entry)
                self.begun.pop(done.uid, None)
                self.trashed.pop(done.uid, None)
            case "delete" | "repair":
                self.published = {e["uid"]: LedgerEntry(**e) for e in done.entry["published"]}
                self.trashed |= {e["uid"]: LedgerEntry(**e) for e in done.entry["trashed"]}
            case "undo":
                self.trashed[done.uid] = self.published.pop(done.uid, None)

    def _restore(self, record: Record) -> None:
        self.published = {e["uid"]: LedgerEntry(**e) for e in record["published"]}
        self.begun = dict(record["begun"])
        self.trashed = {
            uid: LedgerEntry(**e) if e else None for uid, e in record["trashed"].items()
        }
        self.after = record["after"]
        self.pending = None

    def checkpoint(self) -> list[Record]:
        """Records that give this ledger again."""
        records: list[Record] = [
            {
                "ty": CHECKPOINT,
                "published": [asdict(entry) for entry in self.published.values()],
                "begun": dict(self.begun),
                "trashed": {u: asdict(e) if e else None for u, e in self.trashed.items()},
                "after": dict(self.after),
            }
        ]
        if self.pending:
            records.append(self.pending.as_record())
        return records


def replay(records: Iterable[Record]) -> Ledger:
    """The ledger after all `records`."""
    ledger = Ledger()
    for record in records:
        ledger.apply(record)
    return ledger

"""A set of renames that a crash cannot leave half done.

Everything is written and synced beforehand; PREPARE names every rename with the digests on both
sides, so that whoever comes after a crash can finish it, take it back, or see that somebody else
has written meanwhile and keep off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import keep_copy, make_folders, remove_tree, sha256_of, sync_all
from recd.daemon.dataset.journal import Journal
from recd.daemon.dataset.ledger import ABORT, DONE, Ledger, Move, Transaction
from recd.daemon.faultpoints import fault_point

FOLDER = "dir"


def digest_of(path: Path) -> str:
    """sha256 of a file, "dir" for a folder, "" for nothing."""
    if path.is_dir():
        return FOLDER
    return sha256_of(path) if path.exists() else ""


class MoveState(Enum):
    """How far one rename has come: DONE, WAITING, LOST (source gone), FOREIGN (target changed)."""

    DONE = "done"
    WAITING = "waiting"
    LOST = "lost"
    FOREIGN = "foreign"


def state_of(root: Path, move: Move) -> MoveState:
    """Decide from the digests of both ends."""
    source, target = digest_of(root / move.src), digest_of(root / move.dst)
    if source == move.digest and target == move.before:
        return MoveState.WAITING
    if target == move.digest and source in ("", move.digest):
        return MoveState.DONE
    if target == move.before:
        return MoveState.LOST
    return MoveState.FOREIGN


def run(
    root: Path,
    transaction: Transaction,
    *,
    journal: Journal,
    ledger: Ledger,
    staged: list[Path],
) -> None:
    """Publish a prepared transaction: sync, PREPARE, renames, folder syncs, DONE.

    staged: files and folders that must be durable before PREPARE. On return everything is durable.
    """
    kind = transaction.kind
    touched: list[Path] = []
    for move in transaction.moves:
        touched += make_folders((root / move.dst).parent)
    sync_all([*staged, *touched])
    fault_point(f"{kind}.synced")
    record = transaction.as_record()
    journal.append(record)
    ledger.apply(record)
    fault_point(f"{kind}.prepared")
    finish(root, transaction, journal=journal, ledger=ledger)


def finish(root: Path, transaction: Transaction, *, journal: Journal, ledger: Ledger) -> None:
    """Do every rename that is not done yet, make them durable, write DONE."""
    kind = transaction.kind
    for move in transaction.moves:
        source = root / move.src
        if source.exists():
            source.replace(root / move.dst)
        fault_point(f"{kind}.moved.{move.label}")
    sync_all(folders_of(root, transaction))
    fault_point(f"{kind}.folders_synced")
    journal.append({"ty": DONE, "kind": kind, "uid": transaction.uid})
    ledger.apply({"ty": DONE})
    fault_point(f"{kind}.done")


def folders_of(root: Path, transaction: Transaction) -> list[Path]:
    """Folders whose entries the renames change, still existing."""
    ends = [root / end for move in transaction.moves for end in (move.src, move.dst)]
    return [path for path in dict.fromkeys(end.parent for end in ends) if path.is_dir()]


@dataclass(frozen=True, slots=True)
class Rolled:
    """What became of a pending transaction. outcome: forward, back, or foreign (untouched)."""

    kind: str
    uid: str
    outcome: str
    detail: str = ""


def roll(root: Path, *, journal: Journal, ledger: Ledger) -> Rolled | None:
    """Finish or take back what a crash left pending; None when nothing was.

    Nothing is touched when somebody else has written over a target since PREPARE.
    """
    pending = ledger.pending
    if pending is None:
        return None
    states = [state_of(root, move) for move in pending.moves]
    foreign = [m.dst for m, s in zip(pending.moves, states, strict=True) if s is MoveState.FOREIGN]
    if foreign:
        return Rolled(pending.kind, pending.uid, "foreign", ", ".join(foreign))
    fault_point("recover.before_roll")
    lost = [m.src for m, s in zip(pending.moves, states, strict=True) if s is MoveState.LOST]
    if not lost:
        finish(root, pending, journal=journal, ledger=ledger)
        return Rolled(pending.kind, pending.uid, "forward")
    take_back(root, pending, states, fault_point)
    record = {"ty": ABORT, "kind": pending.kind, "uid": pending.uid}
    journal.append(record)
    ledger.apply(record)
    return Rolled(pending.kind, pending.uid, "back", "lost: " + ", ".join(lost))


def take_back(
    root: Path,
    pending: Transaction,
    states: list[MoveState],
    passing: Callable[[str], None],
) -> None:
    """Undo the renames that were done, last first; idempotent.

    DatasetError before anything is touched when an earlier content was not kept.
    """
    done = [m for m, s in zip(pending.moves, states, strict=True) if s is MoveState.DONE]
    for move in done:
        if move.before and not (move.keep and digest_of(root / move.keep) == move.before):
            raise DatasetError(
                f"unfinished {pending.kind} of {pending.uid}: the earlier {move.dst} was not kept",
                mend="Restore the folder from a copy, or ask `recctl recover` to set it aside.",
            )
    for move in reversed(done):
        source, target = root / move.src, root / move.dst
        make_folders(source.parent)
        if not move.before:
            target.replace(source)
        else:
            keep_copy(target, source)
            passing("recover.copied_back")
            restore(root / move.keep, target)
        passing("recover.taken_back")
    sync_all(folders_of(root, pending))


def restore(kept: Path, target: Path) -> None:
    """Put a kept copy at `target` as a file of its own, atomically."""
    temporary = target.with_name(target.name + ".tmp")
    remove_tree(temporary)
    temporary.write_bytes(kept.read_bytes())
    sync_all([temporary])
    temporary.replace(target)

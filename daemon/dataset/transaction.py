"""A set of renames that a crash cannot leave half done.

Everything is written and synced beforehand; PREPARE names every rename with the digests on both
sides, so that whoever comes after a crash can finish it, take it back, or see that somebody else
has written meanwhile and keep off.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import (
    NOTHING_BEGUN,
    keep_copy,
    make_folders,
    remove_tree,
    sha256_of,
    sync_all,
)
from recd.daemon.dataset.exchange import (
    end_half_exchanges,
    exchange,
    settle,
    show_together,
    tree_digest,
)
from recd.daemon.dataset.journal import Journal
from recd.daemon.dataset.ledger import ABORT, DONE, Ledger, Move, Transaction
from recd.daemon.digest import HEAD_LAST, head_last_of
from recd.daemon.faultpoints import fault_point

FOLDER = "dir"


def digest_of(path: Path, *, like: str = "") -> str:
    """Digest of a file, "dir" for a folder, "" for nothing. like: the digest it is held against,
    which tells the kind; else sha256."""
    if path.is_dir():
        return FOLDER
    if not path.exists():
        return ""
    return head_last_of(path) if like.startswith(HEAD_LAST) else sha256_of(path)


class MoveState(Enum):
    """How far one rename has come: DONE, WAITING, LOST (source gone), FOREIGN (target changed)."""

    DONE = "done"
    WAITING = "waiting"
    LOST = "lost"
    FOREIGN = "foreign"


def state_of(root: Path, move: Move) -> MoveState:
    """Decide from the digests of both ends."""
    if move.swap:
        return _state_of_swap(root, move)
    source = digest_of(root / move.src, like=move.digest)
    target = digest_of(root / move.dst, like=move.digest)
    if source == move.digest and target == move.before:
        return MoveState.WAITING
    if target == move.digest and source in ("", move.digest):
        return MoveState.DONE
    if target == move.before:
        return MoveState.LOST
    return MoveState.FOREIGN


def _state_of_swap(root: Path, move: Move) -> MoveState:
    source = tree_digest(root / move.src, move.names)
    target = tree_digest(root / move.dst, move.names)
    if target == move.digest:
        return MoveState.DONE
    if target in (move.before, ""):
        return MoveState.WAITING if source == move.digest else MoveState.LOST
    return MoveState.FOREIGN


def run(
    root: Path,
    transaction: Transaction,
    *,
    journal: Journal,
    ledger: Ledger,
    staged: list[Path],
    syncs: Mapping[Path, Future[None]] = NOTHING_BEGUN,
) -> None:
    """Publish a prepared transaction: sync, PREPARE, renames, folder syncs, DONE.

    staged: files and folders that must be durable before PREPARE; syncs: those of them of which
    the disk was told already. On return everything is durable.
    """
    kind = transaction.kind
    touched: list[Path] = []
    for move in transaction.moves:
        touched += make_folders((root / move.dst).parent)
    sync_all([*staged, *touched], syncs)
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
        source, target = root / move.src, root / move.dst
        if move.names:
            _show(root, move, f"{kind}.")
        elif move.swap:
            if _state_of_swap(root, move) is MoveState.WAITING:
                exchange(source, target)
        elif source.exists():
            source.replace(target)
        fault_point(f"{kind}.moved.{move.label}")
    sync_all(folders_of(root, transaction))
    fault_point(f"{kind}.folders_synced")
    journal.append({"ty": DONE, "kind": kind, "uid": transaction.uid})
    ledger.apply({"ty": DONE})
    fault_point(f"{kind}.done")


def _show(root: Path, move: Move, prefix: str) -> None:
    """Let several folders change places in one instant, or end what a kill left of it."""

    def passing(step: str) -> None:
        fault_point(prefix + step)

    if _state_of_swap(root, move) is MoveState.WAITING:
        show_together(root, root / move.src, move.names, passing)
    else:
        settle(root, root / move.src, move.names, passing)


def folders_of(root: Path, transaction: Transaction) -> list[Path]:
    """Folders whose entries the renames change, still existing."""
    alone = [move for move in transaction.moves if not move.names]  # the others sync their own
    ends = [root / end for move in alone for end in (move.src, move.dst)]
    return [path for path in dict.fromkeys(end.parent for end in ends) if path.is_dir()]


@dataclass(frozen=True, slots=True)
class Rolled:
    """What became of a pending transaction. outcome: forward, back, foreign (untouched),
    or aside (taken back because of foreign writes)."""

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
    for move in pending.moves:
        if move.names:
            end_half_exchanges(root, root / move.src, move.names)
    states = [state_of(root, move) for move in pending.moves]
    pairs = list(zip(pending.moves, states, strict=True))
    foreign = [_named(move) for move, state in pairs if state is MoveState.FOREIGN]
    if foreign:
        return Rolled(pending.kind, pending.uid, "foreign", ", ".join(foreign))
    fault_point("recover.before_roll")
    lost = [move.src for move, state in pairs if state is MoveState.LOST]
    if not lost:
        finish(root, pending, journal=journal, ledger=ledger)
        return Rolled(pending.kind, pending.uid, "forward")
    take_back(root, pending, states, fault_point)
    record = {"ty": ABORT, "kind": pending.kind, "uid": pending.uid}
    journal.append(record)
    ledger.apply(record)
    return Rolled(pending.kind, pending.uid, "back", "lost: " + ", ".join(lost))


def withdraw(
    root: Path, *, journal: Journal, ledger: Ledger, in_use: Callable[[str], bool]
) -> None:
    """Give up a pending transaction that somebody else has written over: take back what is ours.

    in_use: whether the dataset as it is now names a file; such a one stays. Metadata of ours goes
    back to what it was before. What others wrote is not touched. Idempotent.
    """
    pending = ledger.pending
    if pending is None:
        return
    if any(_shown(root, move) for move in pending.moves):
        _go_on(root, pending, journal=journal, ledger=ledger, in_use=in_use)
        return
    for move in reversed(pending.moves):
        source, target = root / move.src, root / move.dst
        if move.names:
            settle(root, source, move.names, fault_point)
            continue
        if state_of(root, move) is not MoveState.DONE or in_use(move.dst):
            continue
        fault_point("recover.withdrawing")
        make_folders(source.parent)
        if move.swap:
            exchange(source, target)
        elif move.before and digest_of(root / move.keep) == move.before:
            keep_copy(target, source)
            restore(root / move.keep, target)
        elif not move.before:
            target.replace(source)
    sync_all(folders_of(root, pending))
    record = {"ty": ABORT, "kind": pending.kind, "uid": pending.uid}
    journal.append(record)
    ledger.apply(record)


def _named(move: Move) -> str:
    return " and ".join(move.names) or move.dst


def _shown(root: Path, move: Move) -> bool:
    """Whether several folders have changed places: the old ones lie where the new ones were."""
    return bool(move.names) and tree_digest(root / move.src, move.names) == move.before


def _go_on(
    root: Path,
    pending: Transaction,
    *,
    journal: Journal,
    ledger: Ledger,
    in_use: Callable[[str], bool],
) -> None:
    """End an edit on whose result others have written: what is still to be moved away is moved."""
    for move in pending.moves:
        source, target = root / move.src, root / move.dst
        fault_point("recover.withdrawing")
        if move.names:
            settle(root, source, move.names, fault_point)
        elif state_of(root, move) is MoveState.WAITING and not in_use(move.src):
            source.replace(target)
    sync_all(folders_of(root, pending))
    journal.append({"ty": DONE, "kind": pending.kind, "uid": pending.uid})
    ledger.apply({"ty": DONE})


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
        if move.swap:
            continue
        if move.before and not (move.keep and digest_of(root / move.keep) == move.before):
            raise DatasetError(
                f"unfinished {pending.kind} of {pending.uid}: the earlier {move.dst} was not kept",
                mend="Nothing was touched; restore the folder from a copy.",
            )
    for move in pending.moves:
        if move.names:
            settle(root, root / move.src, move.names, passing)
    for move in reversed(done):
        source, target = root / move.src, root / move.dst
        make_folders(source.parent)
        if move.names:
            show_together(root, source, move.names, passing)
        elif move.swap:
            exchange(source, target)
        elif not move.before:
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

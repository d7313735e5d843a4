"""Folders of a dataset change places with new ones; several of them in one step for any reader.

Several: each becomes a link into `view`, then `view` and the new folder change places in one
rename, then the links become folders again. Whoever looks sees all old or all new, at every
instant. Limit: the file system must know links and RENAME_EXCHANGE, else each goes on its own.
"""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import keep_copy, make_folders, remove_tree, sync_all
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import Move

AT_FDCWD = -100
RENAME_EXCHANGE = 2
SHOWN = ("data", "meta")
"""Folders of a dataset that a loader must see both old or both new."""

VIEW = "view"
"""Folder beside the new one; holds the links before and after, and the old folders in between."""

_renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
_renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)

Passing = Callable[[str], None]


def tree_digest(folder: Path, names: Sequence[str] = ()) -> str:
    """Digest of a folder's file names, sizes and times, not contents; "" where there is none.

    names: of the folders inside that count; none: all of it.
    """
    tops = [folder / name for name in names] or [folder]
    if not any(top.is_dir() for top in tops):
        return ""
    digest = hashlib.sha256()
    for top in tops:
        for path in sorted(top.rglob("*")):
            if path.is_file():
                found = path.stat()
                name = path.relative_to(folder).as_posix()
                digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def exchange(one: Path, other: Path) -> None:
    """Two entries change places, in one step where the file system can (renameat2)."""
    if _renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(one))
    between = one.with_name(one.name + ".swap")
    if not os.path.lexists(between):
        other.replace(between)
    _end_exchange(one, other)


def _end_exchange(one: Path, other: Path) -> None:
    """What a kill left undone of an exchange in three renames; nothing where there is none."""
    between = one.with_name(one.name + ".swap")
    if not os.path.lexists(between):
        return
    if not os.path.lexists(other):
        one.replace(other)
    between.replace(one)


def make_view(root: Path, new: Path, names: Sequence[str]) -> bool:
    """Lay out the links that `show_together` needs, not synced; False where links cannot be.

    DatasetError where a folder of the dataset is itself a link: it would be replaced by a folder.
    """
    for name in names:
        if (root / name).is_symlink():
            raise DatasetError(
                f"{root / name}: is a link to {os.readlink(root / name)}, expected a folder; "
                "nothing was touched",
                mend="Give the dataset a folder of its own there, then try again.",
            )
    view = new.with_name(VIEW)
    remove_tree(view)
    for name in names:
        make_folders((view / name).parent)
        try:
            os.symlink(_target(root, view, name), view / name)
        except OSError as refused:
            if refused.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            remove_tree(view)
            return False
    return True


def _target(root: Path, view: Path, name: str) -> str:
    return os.path.relpath(view / name, (root / name).parent)


def _linked(root: Path, view: Path, name: str) -> bool:
    path = root / name
    return path.is_symlink() and os.readlink(path) == _target(root, view, name)


def end_half_exchanges(root: Path, new: Path, names: Sequence[str]) -> None:
    """Where exchanging takes three renames: finish the one that a kill interrupted."""
    view = new.with_name(VIEW)
    for name in names:
        _end_exchange(view / name, root / name)
    _end_exchange(view, new)


def show_together(root: Path, new: Path, names: Sequence[str], passing: Passing) -> None:
    """The folders `names` of `root` and those of `new` change places, all in one instant.

    Goes on from wherever a kill interrupted it, as long as the old ones are seen; durable.
    """
    view = new.with_name(VIEW)
    for name in names:
        if not _linked(root, view, name):
            exchange(view / name, root / name)
        passing(f"linked.{name}")
    sync_all([root, view])
    exchange(view, new)
    sync_all([view.parent])
    passing("exchanged")
    settle(root, new, names, passing)


def settle(root: Path, new: Path, names: Sequence[str], passing: Passing) -> None:
    """Links become the folders they show; durable. Nothing changes for a reader. Idempotent."""
    view = new.with_name(VIEW)
    for name in names:
        if _linked(root, view, name):
            exchange(view / name, root / name)
        passing(f"settled.{name}")
    if view.is_dir():
        sync_all([root, view])


def keep_other_meta(root: Path, new: Path) -> None:
    """All of `meta` but the table of episodes, into `new` as it is."""
    for path in (root / "meta").rglob("*"):
        name = path.relative_to(root)
        if path.is_file() and not name.as_posix().startswith("meta/episodes/"):
            make_folders((new / name).parent)
            keep_copy(path, new / name)


def swaps(layout: Layout, new: Path) -> list[Move]:
    """The move that lets `data` and `meta` change places with those of `new` in one instant.

    Where the file system knows no links it is two, one after the other.
    """
    root, source = layout.root, layout.relative(new)
    if make_view(root, new, SHOWN):
        digest, before = tree_digest(new, SHOWN), tree_digest(root, SHOWN)
        return [Move(source, "", digest, before=before, label="dataset", swap=True, names=SHOWN)]
    return [
        Move(
            f"{source}/{name}",
            name,
            digest=tree_digest(new / name),
            before=tree_digest(root / name),
            label="dataset",
            swap=True,
        )
        for name in SHOWN
    ]

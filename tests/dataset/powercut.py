"""A power cut in the strictest reading of POSIX: what was not fsynced is gone.

The process under test notes, at every fsync, the content of the file or the entries of the folder
(`Witness`); what is on the disk after the cut is built from these notes and from the state before
the process began (`Disk`). A folder that was never synced since holds what it held before, a file
the bytes of its last sync, a new file nothing at all. With a generator, every entry and every file
is instead the synced or the present one by chance: disks may write more than they were asked to.
The dice are thrown for paths, so that a seed is the same cut on every computer.
"""

import os
import pickle
import re
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple


class Link(NamedTuple):
    """A symbolic link: on the disk it is a part of its folder's entry."""

    inode: int
    target: str


Entries = dict[str, int | Link]
Content = tuple[bytes, int]
"""Bytes of a file and its time of change (ns), which is synced with them."""

EMPTY: Content = (b"", 0)


class Witness:
    """Patches os.fsync and os.fdatasync of this process; notes survive its SIGKILL."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._pinned: list[int] = []
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._noting(getattr(os, name)))

    def _noting(self, real):
        def sync(fd) -> None:
            fd = fd if isinstance(fd, int) else fd.fileno()
            real(fd)
            with self._lock:
                self._pinned.append(os.dup(fd))  # its number must not be given to another file
                self._notes.write(pickle.dumps(note_of(fd)))

        return sync


def note_of(fd: int) -> tuple[int, bool, object]:
    """(inode, is it a folder, entries or content) of an open file or folder."""
    facts = os.fstat(fd)
    if stat.S_ISDIR(facts.st_mode):
        return facts.st_ino, True, entries_of(Path(f"/proc/self/fd/{fd}"))
    return facts.st_ino, False, (Path(f"/proc/self/fd/{fd}").read_bytes(), facts.st_mtime_ns)


def entries_of(folder: Path) -> Entries:
    with os.scandir(folder) as found:
        return {
            entry.name: Link(entry.inode(), os.readlink(entry.path))
            if entry.is_symlink()
            else entry.inode()
            for entry in found
        }


_UID = re.compile("[0-9a-f]{32}")


def _paths(folders: dict[int, Entries], top: int, path: str = "") -> dict[int, str]:
    """Where each inode is found below the folder `top`."""
    found = {top: path}
    for name, inode in folders.get(top, {}).items():
        number = inode.inode if isinstance(inode, Link) else inode
        found |= _paths(folders, number, f"{path}/{name}")
    return found


def _exchange_at_once(old, new, mixed) -> None:
    """Two entries that changed places did so in one step; here both have."""
    changed = {
        (number, name): (inode, new[number][name])
        for number, entries in old.items()
        for name, inode in entries.items()
        if new.get(number, {}).get(name, inode) != inode
    }
    for (number, name), (before, after) in changed.items():
        if (after, before) in changed.values():
            mixed[number][name] = after


class Disk:
    """A folder whose present state is all on the disk; later, what a cut left of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pins: list[int] = []
        self._folders: dict[int, Entries] = {}
        self._files: dict[int, Content] = {}
        self._look(self._folders, self._files, pin=True)

    def _look(self, folders: dict[int, Entries], files: dict[int, Content], *, pin: bool) -> None:
        for path in (self._root, *self._root.rglob("*")):
            if path.is_symlink():
                continue
            fd = os.open(path, os.O_RDONLY)
            number, is_folder, content = note_of(fd)
            (folders if is_folder else files)[number] = content
            if pin:
                self._pins.append(fd)
            else:
                os.close(fd)

    def after_cut(self, notes: Path, target: Path, *, seed: int | None = None) -> None:
        """Build at `target` what is left, from the notes of the process that was cut.

        seed: of the dice; without one, the strictest reading.
        """
        folders, files = dict(self._folders), dict(self._files)
        with notes.open("rb") as file:
            while True:
                try:
                    number, is_folder, content = pickle.load(file)
                except EOFError:
                    break
                (folders if is_folder else files)[number] = content
        if seed is not None:
            folders, files = self._by_chance(folders, files, seed)
        self._build(target, self._root.stat().st_ino, folders, files)

    def _by_chance(self, folders, files, seed: int):
        now_folders: dict[int, Entries] = {}
        now_files: dict[int, Content] = {}
        self._look(now_folders, now_files, pin=False)
        top = self._root.stat().st_ino
        paths = _paths(folders, top) | _paths(now_folders, top)

        def either(old, new, number: int, name: str = ""):
            dice = Random(f"{seed} {_UID.sub('UID', paths.get(number, '?'))} {name}")
            return dice.choice((old, new))

        mixed: dict[int, Entries] = {}
        for number in {*folders, *now_folders}:
            old, new = folders.get(number, {}), now_folders.get(number, {})
            mixed[number] = {
                name: chosen
                for name in {*old, *new}
                if (chosen := either(old, new, number, name).get(name)) is not None
            }
        _exchange_at_once(folders, now_folders, mixed)
        # A rename is one step on every disk: what has left its old place has come to the new one,
        # and a folder is in one place only.
        for number, old in folders.items():
            for name, inode in old.items():
                moved = inode in folders and now_folders.get(number, {}).get(name) != inode
                if moved and sum(inode in entries.values() for entries in mixed.values()) > 1:
                    del mixed[number][name]
        named = {number for entries in mixed.values() for number in entries.values()}
        everywhere = {n for e in now_folders.values() for n in e.values()}
        for number, old in folders.items():
            for name, inode in old.items():
                if inode in everywhere and inode not in named:
                    mixed[number][name] = inode
        contents = {
            number: either(files.get(number, EMPTY), now_files.get(number, EMPTY), number)
            if number in files and number in now_files
            else files.get(number, now_files.get(number, EMPTY))
            for number in {*files, *now_files}
        }
        return mixed, contents

    def _build(self, path: Path, number: int, folders, files) -> None:
        path.mkdir()
        for name, inode in folders.get(number, {}).items():
            if isinstance(inode, Link):
                os.symlink(inode.target, path / name)
            elif inode in folders or (inode not in files and (self._is_folder(inode))):
                self._build(path / name, inode, folders, files)
            else:
                content, changed_ns = files.get(inode, EMPTY)
                (path / name).write_bytes(content)
                os.utime(path / name, ns=(changed_ns, changed_ns))

    def _is_folder(self, inode: int) -> bool:
        """A new folder that was never synced itself: empty after the cut."""
        return any(p.is_dir() and p.stat().st_ino == inode for p in self._root.rglob("*"))

    def close(self) -> None:
        for fd in self._pins:
            os.close(fd)


@contextmanager
def disk_of(root: Path):
    disk = Disk(root)
    try:
        yield disk
    finally:
        disk.close()


def cuts(disk: Disk, notes: Path, folder: Path, seeds: range = range(1)):
    """What is left in the strictest reading, then by chance."""
    disk.after_cut(notes, folder / "strict")
    yield folder / "strict"
    for seed in seeds:
        disk.after_cut(notes, folder / f"chance-{seed}", seed=seed)
        yield folder / f"chance-{seed}"

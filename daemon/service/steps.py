"""What an installation does, one step at a time: each can say what it will do, whether that is
done already, and do it. Doing it again changes nothing.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recd.config.errors import RecdError
from recd.daemon.service.people import account, as_account, group_id

SHARED_FOLDER = 0o2770
"""setgid: what anybody makes below belongs to the group."""


class Step(Protocol):
    """One thing to do."""

    def done(self) -> bool:
        """Whether nothing is left to do."""

    def do(self) -> None:
        """Do it. OSError and RecdError say why not."""

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PutFile:
    """A file with this content, mode and group, replaced atomically; owned by root."""

    path: Path
    content: str
    mode: int = 0o644
    group: str = ""

    def done(self) -> bool:
        try:
            facts = self.path.stat()
            same = self.path.read_text(encoding="utf-8") == self.content
        except (OSError, UnicodeDecodeError):
            return False
        return same and stat.S_IMODE(facts.st_mode) == self.mode and _group_is(facts, self.group)

    def do(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text(self.content, encoding="utf-8")
        part.chmod(self.mode)
        if self.group:
            os.chown(part, -1, _known_group(self.group))
        part.replace(self.path)

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class Run:
    """Tell one of the system's managers. Harmless to repeat, so never taken as done.

    optional: nothing is wrong where this manager does not exist.
    """

    argv: tuple[str, ...]
    optional: bool = False

    def done(self) -> bool:
        return self.optional and shutil.which(self.argv[0]) is None

    def do(self) -> None:
        if self.done():
            return
        try:
            ended = subprocess.run(self.argv, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RecdError(f"{' '.join(self.argv)}: {error}", code="service") from error
        if ended.returncode != 0 and not self.optional:
            raise RecdError(
                f"{' '.join(self.argv)}: ended with {ended.returncode}: {ended.stderr.strip()}",
                code="service",
            )

    def __str__(self) -> str:
        return f"run   {' '.join(self.argv)}"


@dataclass(frozen=True, slots=True)
class ShareFolder:
    """A folder that user and group may both write, with all that is below.

    Missing folders above are made for `maker`. Below, only what belongs to `maker` or `user` is
    changed, and links are left alone: nobody else's file changes hands.
    """

    path: Path
    user: str
    group: str
    maker: str

    def done(self) -> bool:
        return self.path.is_dir() and not any(True for _ in self._unshared())

    def do(self) -> None:
        for folder in reversed([p for p in (self.path, *self.path.parents) if not p.exists()]):
            self._make(folder)
        gid, ours = _known_group(self.group), self._ours()
        for entry, _ in self._unshared():
            fd = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                facts = os.fstat(fd)
                if facts.st_uid in ours:
                    os.fchown(fd, -1, gid)
                    os.fchmod(fd, _shared_mode(facts))
            finally:
                os.close(fd)

    def _make(self, folder: Path) -> None:
        """As one of the two, never as root: a folder that people may write is no place for it."""
        for name in (self.maker, self.user):
            who = account(name)
            if who is not None and as_account(who, lambda: _mkdir(folder)):
                return
        raise RecdError(
            f"{folder}: neither {self.maker} nor {self.user} may make it",
            mend=f"Make it: sudo install -d -o {self.maker} {folder}", code="permission",
        )  # fmt: skip

    def _ours(self) -> set[int]:
        return {found.uid for name in (self.user, self.maker) if (found := account(name))}

    def strangers(self) -> Iterator[Path]:
        """What lies below and belongs to somebody else."""
        ours = self._ours()
        for entry, facts in _walk(self.path):
            if facts.st_uid not in ours:
                yield entry

    def _unshared(self) -> Iterator[tuple[Path, os.stat_result]]:
        gid = group_id(self.group)
        for entry, facts in _walk(self.path):
            if facts.st_gid != gid or stat.S_IMODE(facts.st_mode) != _shared_mode(facts):
                yield entry, facts

    def __str__(self) -> str:
        what = "share" if self.path.exists() else "make "
        return f"{what} {self.path} (user {self.user}, group {self.group}, setgid)"


def _mkdir(folder: Path) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    return True


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Folders and plain files of a tree, itself first; links and special files left out."""
    if not root.is_dir():
        return
    yield root, root.stat()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            entry = Path(folder, name)
            facts = entry.lstat()
            if stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode):
                yield entry, facts


def _shared_mode(facts: os.stat_result) -> int:
    mode = stat.S_IMODE(facts.st_mode)
    if stat.S_ISDIR(facts.st_mode):
        return mode | SHARED_FOLDER
    return mode | (mode & 0o600) >> 3


def _group_is(facts: os.stat_result, group: str) -> bool:
    return not group or facts.st_gid == group_id(group)


def _known_group(name: str) -> int:
    gid = group_id(name)
    if gid is None:
        raise RecdError(f"there is no group {name!r}", mend=f"sudo groupadd --system {name}")
    return gid

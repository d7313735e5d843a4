"""Linux accounts, and what they may do to a path: asked of the kernel, as that account.

Modes, lists of access and mounts are all respected, because the question is put by a process that
has become the account. Needs root for any account but one's own.
"""

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from recd.config.errors import RecdError

NOBODY_KNOWN = 65_531
"""A number that no account has: stands for an account that is still to be made."""

_MODES = {"read": os.R_OK, "write": os.W_OK, "enter": os.X_OK}


@dataclass(frozen=True, slots=True)
class Account:
    """One account as the kernel sees it. groups: every group it is in, its own included."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"


def account(name: str) -> Account | None:
    """The account of this name with all its groups; None when there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(sorted(os.getgrouplist(name, entry.pw_gid)))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def invoker() -> Account:
    """Who asked: the account behind sudo, else our own."""
    name = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    found = account(name) if name else None
    if found is not None:
        return found
    return account(pwd.getpwuid(os.geteuid()).pw_name) or _unnamed()


def _unnamed() -> Account:
    return Account(str(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()))


def group_id(name: str) -> int | None:
    """Number of a group, None when there is none of this name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def members(group: str) -> list[str]:
    """Accounts listed in a group, sorted; [] when there is no such group."""
    try:
        return sorted(grp.getgrnam(group).gr_mem)
    except KeyError:
        return []


def existing_groups(names: Iterable[str]) -> list[str]:
    """Those of `names` that this computer has, in their order."""
    return [name for name in names if group_id(name) is not None]


def with_groups(who: Account, names: Iterable[str]) -> Account:
    """The account as it will be once it is in these groups too."""
    more = {gid for name in names if (gid := group_id(name)) is not None}
    return Account(who.name, who.uid, who.gid, tuple(sorted({*who.groups, *more})), who.home)


def future(name: str, group: str) -> Account:
    """An account that is still to be made: owns nothing, is in no group but `group`."""
    gid = group_id(group) or NOBODY_KNOWN
    return Account(name, NOBODY_KNOWN, gid, (gid,))


def may(who: Account, path: Path, *wants: str) -> bool:
    """Whether `who` may `read`, `write`, `enter` what is at `path` (which must exist)."""
    mode = 0
    for want in wants:
        mode |= _MODES[want]
    return as_account(who, lambda: os.access(path, mode))


def as_account(who: Account, question: Callable[[], bool]) -> bool:
    """Ask `question` in a child process that has become `who`.

    Raises RecdError when this process may not become it.
    """
    if os.geteuid() != 0 and who.uid != os.geteuid():
        raise RecdError(
            f"what {who.name} may do can only be found out by root",
            mend="Run it with sudo.", code="permission",
        )  # fmt: skip
    child = os.fork()
    if child == 0:
        answer = False
        try:
            if os.geteuid() == 0:
                os.setgroups(who.groups)
                os.setresgid(who.gid, who.gid, who.gid)
                os.setresuid(who.uid, who.uid, who.uid)
            answer = bool(question())
        finally:
            os._exit(0 if answer else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def first_wall(who: Account, path: Path) -> Path | None:
    """The uppermost folder on the way to `path` that `who` may not enter; None when there is none.

    Folders that do not exist yet are no wall.
    """
    for folder in reversed(path.parents):
        if folder.exists() and not may(who, folder, "enter"):
            return folder
    return None

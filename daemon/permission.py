"""How a user gets to open a device node that is closed to them. Only looks, changes nothing."""

import grp
import os


def group_of(path: str) -> str:
    """Name of the group that `path` belongs to, its number where it has none."""
    gid = os.stat(path).st_gid
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def way_in(path: str, *, usual: str, user: str = "$USER") -> str:
    """The mend: join the node's group where that helps, else give the node to the `usual` group."""
    group = group_of(path)
    if group != "root" and os.stat(path).st_mode & 0o060:
        return f"sudo usermod -aG {group} {user}, then log in again."
    return (
        f"Its group {group} does not help. Until the next plug: sudo chgrp {usual} {path}; "
        f"sudo chmod g+rw {path}; for good: a udev rule. And sudo usermod -aG {usual} {user}, "
        "then log in again."
    )

"""Where an instance keeps its sockets and its lock. Both sides of the control plane ask here."""

import grp
import os
import stat
from pathlib import Path

from recd.config.errors import RecdError

SOCKET_PATH_BYTES = 107
"""Longest path of a unix socket on Linux (sun_path less its final zero)."""


def runtime_base() -> Path:
    """Folder that holds one folder per instance; need not exist.

    RECD_RUNTIME_DIR, else systemd's RUNTIME_DIRECTORY, else /run/recd for root or where it is
    ours, else $XDG_RUNTIME_DIR/recd, else /tmp/recd-<uid>.
    """
    for variable in ("RECD_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        if named := os.environ.get(variable):
            return Path(named.split(":")[0])
    system = Path("/run/recd")
    if os.geteuid() == 0 or (system.is_dir() and os.access(system, os.W_OK)):
        return system
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.access(session, os.W_OK):
        return Path(session) / "recd"
    return Path(f"/tmp/recd-{os.geteuid()}")


def runtime_dir(instance: str, configured: str = "") -> Path:
    """Runtime folder of one instance; `configured` is control.runtime_dir."""
    path = Path(configured).expanduser().absolute() if configured else runtime_base() / instance
    longest = len(os.fsencode(path / "ctl.sock"))
    if longest > SOCKET_PATH_BYTES:
        raise RecdError(
            f"control.runtime_dir: expected a socket path of at most {SOCKET_PATH_BYTES} bytes, "
            f"found {longest} ({path})",
            mend="Set control.runtime_dir or RECD_RUNTIME_DIR to a shorter folder.",
        )
    return path


def group_id(name: str) -> int | None:
    """Number of the Linux group `control.group`, None for no name. RecdError for an unknown one."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise RecdError(
            f"control.group: expected a group of this computer, found {name!r}",
            mend=f"sudo groupadd {name}; or leave control.group out",
        ) from None


def make_private(path: Path, *, gid: int | None = None) -> Path:
    """Create `path` with mode 0700, or 2750 for group `gid`; or check that it is ours, and close it
    to others. A folder that a service made for a group (mode 0750) stays open to it.

    RecdError when the folder cannot be made, is another user's, or lies where others could exchange
    it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RecdError(
            f"{path}: expected a folder that user {os.geteuid()} can make, found "
            f"{error.strerror} ({error.filename})",
            mend="Set control.runtime_dir or RECD_RUNTIME_DIR to a folder of your own.",
        ) from error
    facts, above = path.stat(), path.parent.stat()
    if facts.st_uid != os.geteuid():
        raise RecdError(
            f"{path}: expected a folder of user {os.geteuid()}, found one of user {facts.st_uid}",
            mend="Remove it, or set RECD_RUNTIME_DIR to a folder of your own.",
        )
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise RecdError(
            f"{path.parent}: expected a folder that others cannot change, found mode "
            f"{stat.S_IMODE(above.st_mode):04o}",
            mend=f"chmod o-w {path.parent}; or set RECD_RUNTIME_DIR to a folder of your own.",
        )
    if gid is not None:
        _give_to_group(path, gid)
    elif stat.S_IMODE(facts.st_mode) & 0o027:
        path.chmod(stat.S_IMODE(facts.st_mode) & ~0o027)
    return path


def _give_to_group(path: Path, gid: int) -> None:
    if path.stat().st_gid != gid:
        try:
            os.chown(path, -1, gid)
        except PermissionError:
            name = grp.getgrgid(gid).gr_name
            raise RecdError(
                f"control.group: expected a group that the daemon's user is in, found {name!r}",
                mend=f"sudo usermod -aG {name} USER, then log in again",
            ) from None
    path.chmod(0o2750)


def open_to_group(directory: Path) -> bool:
    """Whether a runtime folder is its group's: whoever may enter it may operate its daemon."""
    return directory.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) == stat.S_IXGRP


def make_below(path: Path) -> Path:
    """Create `path` in a runtime folder, for the same people as that."""
    make_private(path)
    path.chmod(0o750 if open_to_group(path.parent) else 0o700)
    return path


def control_endpoint(directory: Path) -> str:
    """ZeroMQ endpoint of the control socket in a runtime folder."""
    return f"ipc://{directory / 'ctl.sock'}"


def policy_endpoint(directory: Path) -> str:
    """ZeroMQ endpoint of the policy gateway's requests in a runtime folder."""
    return f"ipc://{directory / 'policy.sock'}"


def event_endpoint(directory: Path) -> str:
    """ZeroMQ endpoint of the event socket in a runtime folder."""
    return f"ipc://{directory / 'evt.sock'}"


def running_instances() -> list[str]:
    """Names of instances whose control socket exists below the default runtime folders.

    Folders that a killed daemon left do not count beside one that a process holds. When none is
    held as far as this user may see (another pid namespace shows no locks), all of them are named.
    """
    sockets = list(_in_runtime_folders("ctl.sock"))
    held = [path for path in sockets if lock_holder(path.parent / "recd.lock")]
    return sorted({path.parent.name for path in held or sockets})


def starting_instances() -> dict[str, int]:
    """Instances that a process holds already, but whose control socket is not open yet, by pid."""
    starting = {}
    for path in _in_runtime_folders("recd.lock"):
        pid = 0 if (path.parent / "ctl.sock").exists() else lock_holder(path)
        if pid:
            starting[path.parent.name] = pid
    return starting


def lock_holder(path: Path) -> int:
    """Process that holds the lock of an instance, 0 when none does. Never takes the lock itself."""
    try:
        inode = path.stat().st_ino
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return 0
    held = [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")]
    return held[0] if held else 0


def instance_dir(instance: str) -> Path:
    """Runtime folder of a running instance, wherever it is; where it would be when none runs.

    A service's folder is not below this user's own base.
    """
    for base in sorted(_runtime_bases(), key=lambda base: base != runtime_base()):
        folder = base / instance
        if folder.is_dir() and (not os.access(folder, os.X_OK) or (folder / "ctl.sock").exists()):
            return folder
    return runtime_dir(instance)


def closed_folders() -> list[Path]:
    """Runtime folders of daemons that this user may not enter."""
    found = []
    for base in _runtime_bases():
        try:
            found += [entry for entry in base.iterdir() if entry.is_dir()]
        except OSError:
            continue
    return sorted(folder for folder in found if not os.access(folder, os.X_OK))


def _in_runtime_folders(name: str) -> set[Path]:
    """Every file of this name in a runtime folder that this user may enter."""
    found: set[Path] = set()
    for base in _runtime_bases():
        try:
            found |= set(base.glob(f"*/{name}"))
        except OSError:
            continue
    return found


def _runtime_bases() -> set[Path]:
    """Every folder below which a daemon of this user or a service would have its own."""
    bases = {runtime_base()}
    if "RECD_RUNTIME_DIR" not in os.environ:
        bases.add(Path("/run/recd"))
        if session := os.environ.get("XDG_RUNTIME_DIR"):
            bases.add(Path(session) / "recd")
    return bases

"""A cage for one program: `python -m recd.clients.adapters.lerobot.confine FD PLAN`.

The program gets namespaces of its own (no network interface, no process but its own), a file system
of what it is shown, read-only, and a small /tmp; as root it becomes nobody. What was got is written
to FD as JSON, `{"got": [...], "missing": [...]}` or `{"refused": why}`, before the program begins.
"""

import ctypes
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recd.clients.adapters.lerobot.syscalls import ends_with_parent, no_new_privileges, restrict

NEW_MOUNTS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
SEPARATE = NEW_MOUNTS | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_PIDS | NEW_NETWORK

MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
DETACH = 2
SET_ATTRIBUTES = 442
"""System call mount_setattr, the same number everywhere; Linux 5.12 and later."""
RECURSIVE, READ_ONLY, NO_SUID, NO_DEVICES = 0x8000, 0x1, 0x2, 0x4
AT_FDCWD = -100

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64")
"""Folders of the computer that programs need; links stay links."""
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("null", "zero", "random", "urandom")
TMP_BYTES = 256 * 2**20
NOBODY = 65534

LIMITS: Mapping[int, int] = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: TMP_BYTES,
    resource.RLIMIT_NOFILE: 512,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs, and what it sees. command: with absolute paths; shown: folders, read-only, at
    their own place; placed: where it stands inside -> file or folder; variables: its whole
    environment; memory_bytes: most it may allocate; root: an empty folder, for the file system.
    """

    command: Sequence[str]
    shown: Sequence[str]
    placed: Mapping[str, str]
    variables: Mapping[str, str]
    memory_bytes: int
    root: str

    def dumped(self) -> str:
        """As the last argument of the command line."""
        return json.dumps(asdict(self))


class _Kernel:
    """System calls that Python 3.11 has no name for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def call(self, name: str, *args: Any) -> None:
        if getattr(self._libc, name)(*args):
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")

    def mount(self, source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
        self.call(
            "mount", source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags),
            data.encode(),
        )  # fmt: skip

    def bind(self, source: str, target: Path, *, devices: bool = False) -> None:
        """`source` also at `target`, read-only, with everything that is mounted below it."""
        self.mount(source, target, "", MS_BIND | MS_REC)
        wanted = READ_ONLY | NO_SUID | (0 if devices else NO_DEVICES)
        attributes = (ctypes.c_uint64 * 4)(0 if devices else wanted, 0, 0, 0)
        self.call(
            "syscall", ctypes.c_long(SET_ATTRIBUTES), ctypes.c_long(AT_FDCWD), os.fsencode(target),
            ctypes.c_long(RECURSIVE), attributes, ctypes.c_long(ctypes.sizeof(attributes)),
        )  # fmt: skip


def leave_the_others(kernel: _Kernel) -> None:
    """Namespaces of its own for this process, and of processes for its children. OSError where the
    kernel refuses; half of a cage is none.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.call("unshare", SEPARATE if user == 0 else SEPARATE | NEW_USER)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    kernel.mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def enter(kernel: _Kernel, plan: Plan) -> tuple[list[str], list[str]]:
    """In the child: only what the plan shows is there any more. (got, missing) in words."""
    missing = []
    _furnish(kernel, plan)
    try:  # while the old one is still to be seen: without, the kernel gives no new one
        kernel.mount("proc", Path(plan.root, "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        missing.append(f"no /proc ({error.strerror})")
    os.chdir(plan.root)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", DETACH)
    os.chdir("/")
    got = ["no network interface", "no devices", "no process but its own",
           "no files but its interpreter's and the system's programs, read-only",
           f"{TMP_BYTES >> 20} MiB of /tmp"]  # fmt: skip
    return got, missing


def _furnish(kernel: _Kernel, plan: Plan) -> None:
    root = Path(plan.root)
    kernel.mount(
        "tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={TMP_BYTES},nr_inodes=4096,mode=755"
    )
    for name, mode in (("tmp", 0o1777), ("proc", 0o555), ("dev", 0o755)):
        (root / name).mkdir()
        (root / name).chmod(mode)
    for name in DEVICES:
        (root / "dev" / name).touch()
        kernel.bind(f"/dev/{name}", root / "dev" / name, devices=True)
    for name in SYSTEM:
        outside = Path("/", name)
        if outside.is_symlink():
            (root / name).symlink_to(os.readlink(outside))
        elif outside.is_dir():
            _show(kernel, root, str(outside), str(outside))
    for path in (*SYSTEM_FILES, *plan.shown):
        if os.path.exists(path) and not path.startswith("/usr/"):
            _show(kernel, root, path, path)
    for place, path in plan.placed.items():
        _show(kernel, root, path, place)


def _show(kernel: _Kernel, root: Path, path: str, place: str) -> None:
    target = root / place.lstrip("/")
    if target.exists():
        return  # below something that is shown already
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(path):
        target.mkdir()
    else:
        target.touch()
    kernel.bind(path, target)


def become(plan: Plan) -> tuple[list[str], str]:
    """User, limits and filter of the process that will be the program. (got, missing)."""
    got = [f"{plan.memory_bytes >> 20} MiB of memory"]
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        got.append("user nobody")
    ends_with_parent()
    for number, most in {**LIMITS, resource.RLIMIT_DATA: plan.memory_bytes}.items():
        hard = resource.getrlimit(number)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (most, most))
    no_new_privileges()
    got.append("no new privileges")
    unfiltered = restrict(programs=True)
    return (got if unfiltered else [*got, "system calls filtered"]), unfiltered


def main() -> int:
    told_fd, plan = int(sys.argv[1]), Plan(**json.loads(sys.argv[2]))
    ends_with_parent()
    os.umask(0o022)
    kernel = _Kernel()
    try:
        leave_the_others(kernel)
        pid = os.fork()
        if pid == 0:
            got, missing = enter(kernel, plan)
            gained, unfiltered = become(plan)
            got += gained
            missing += [unfiltered] if unfiltered else []
    except OSError as error:
        os.write(told_fd, json.dumps({"refused": error.strerror or str(error)}).encode())
        return 1
    if pid == 0:
        os.write(told_fd, json.dumps({"got": got, "missing": missing}).encode())
        os.close(told_fd)
        os.execve(plan.command[0], list(plan.command), dict(plan.variables))
    os.close(told_fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(main())

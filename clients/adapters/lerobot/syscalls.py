"""What a confined process may not ask of the kernel, by libseccomp where the computer has it.

Standard library only. A filter is for ever and for all that the process starts; without the library
nothing is filtered, and the caller is told so.
"""

import ctypes
import errno
import signal
import socket

LIBRARY = "libseccomp.so.2"
ALLOW = 0x7FFF0000
MASKED_EQUAL, NOT_EQUAL = 7, 1
NEW_USER_NAMESPACE = 0x10000000
EVERY_THREAD = 4

DENIED = (
    "acct", "add_key", "bpf", "chroot", "delete_module", "finit_module", "fsconfig", "fsmount",
    "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup",
    "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount",
    "name_to_handle_at", "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd",
    "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "reboot",
    "request_key", "setns", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd",
)  # fmt: skip
"""Ways out, or into the kernel, that neither Python nor torch needs."""

STARTING = ("execve", "execveat")
"""Other programs: nothing is started any more once the modules are loaded."""


class _Compare(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def restrict(*, programs: bool) -> str:
    """Filter this process from now on; `programs`: it may start others (it is about to become one).

    Returns what was not possible in words, empty when it was. Needs no_new_privs, or privilege.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"system calls are not filtered: no {LIBRARY} here"
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ALLOW)))
    library.seccomp_attr_set(rules, EVERY_THREAD, 1)
    try:
        for name in DENIED if programs else (*DENIED, *STARTING):
            _deny(library, rules, name, errno.EPERM)
        _deny(library, rules, "clone3", errno.ENOSYS)  # its flags cannot be seen; clone's can
        _deny(
            library, rules, "clone", errno.EPERM,
            _Compare(0, MASKED_EQUAL, NEW_USER_NAMESPACE, NEW_USER_NAMESPACE),
        )  # fmt: skip
        _deny(
            library, rules, "socket", errno.EAFNOSUPPORT, _Compare(0, NOT_EQUAL, socket.AF_UNIX, 0)
        )
        failed = library.seccomp_load(rules)
    finally:
        library.seccomp_release(rules)
    return f"system calls are not filtered: {LIBRARY} says {failed}" if failed else ""


def _deny(
    library: ctypes.CDLL, rules: ctypes.c_void_p, name: str, code: int, *compare: _Compare
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # this kernel's headers do not know it, nor does this architecture
    refuse = ctypes.c_uint32(0x00050000 | code)
    array = (_Compare * max(1, len(compare)))(*compare)
    library.seccomp_rule_add_array(rules, refuse, number, len(compare), array)


def ends_with_parent() -> None:
    """SIGKILL for this process when the one that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)


def no_new_privileges() -> None:
    """Nothing that this process starts gains rights by being set-user-ID. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")

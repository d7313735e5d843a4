"""Machine code of kernels, compiled once per machine, mapped and called without numba.

A process that only calls kernels pays a file mapping, not numba's import. Limit: kernels are leaf
code over addresses and numbers. No exceptions, objects or float constants; a library only by
addresses that the caller hands over (libc.py, calls.py).
"""

import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import json
import mmap
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recd.config.errors import RecdError

if TYPE_CHECKING:
    import subprocess

MAGIC = b"recdAOT1"
HEADER_BYTES = 4096
_PREFIX_BYTES = len(MAGIC) + 4
COMPILE_TIMEOUT_S = 300
NUMBA_SETTINGS = {
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_LOOP_VECTORIZE": "0",  # vector constants would lie beside the code
    "NUMBA_SLP_VECTORIZE": "0",
}
KEEP_FILES = 8
"""Older compilations of the same module beyond these are removed when a new one is stored."""

C_TYPES: dict[str, Any] = {
    "address": ctypes.c_void_p,
    "uint8*": ctypes.c_void_p,
    "int32*": ctypes.c_void_p,
    "int64*": ctypes.c_void_p,
    "float32*": ctypes.c_void_p,
    "float64*": ctypes.c_void_p,
    "int64": ctypes.c_int64,
    "float64": ctypes.c_double,
    "none": None,
}
"""Type word of a kernel's signature -> ctypes type. An address is an int64 in the kernel; a pointer
is indexed there (`p[i]`), so that the same function runs in Python on a numpy array. Callers pass
both as a number, cheapest as a ctypes.c_void_p prepared once."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One function to compile. Types are words of C_TYPES.

    function: plain Python that numba can type, calling nothing but njit functions of its module.
    A float constant other than 0.0 lives beside the code on x86: pass it as an argument.
    releases_gil: for kernels that run longer than some microseconds in a process with threads.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    result: str = "int64"
    releases_gil: bool = False


class Kernels:
    """Compiled kernels by name: `kernels["ring_take"]` is callable with numbers.

    The mapping lives as long as this object; functions keep it alive.
    """

    def __init__(self, file: Path, mapping: mmap.mmap, functions: dict[str, Any]) -> None:
        self.file = file
        self._code = np.frombuffer(mapping, np.uint8)
        self._functions = {
            name: self._bind(int(self._code.ctypes.data) + HEADER_BYTES, entry)
            for name, entry in functions.items()
        }

    def _bind(self, code: int, entry: dict[str, Any]) -> Callable[..., Any]:
        prototype = ctypes.CFUNCTYPE if entry["releases_gil"] else ctypes.PYFUNCTYPE
        types = (C_TYPES[word] for word in entry["arguments"])
        function: Any = prototype(C_TYPES[entry["result"]], *types)(code + entry["offset"])
        function.keeps = self._code
        return function

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)


@functools.cache
def load(module: str) -> Kernels:
    """Kernels of `module`, from the cache, compiled first when the cache has none for this state.

    `module` (a dotted name) has a table `AOT: dict[str, Kernel]`; it is imported only to compile,
    in a process of its own, so that this one stays small. The file's name holds a hash of every
    source in the module's folder and in recd.shm, of the versions of Python, numba and llvmlite,
    and of the kind of processor: an edited source is never served from the cache. Code is made
    for the plain processor of its kind, so that one cache serves all machines of a home.

    Raises RecdError: cache folder not usable, kernel not relocatable, compiler failed.
    """
    folder = cache_dir()
    file = folder / f"{module}-{source_key(module)}.kernels"
    kernels = read_cache(file)
    if kernels is not None:
        return kernels
    with _lock(folder):
        kernels = read_cache(file)  # another process may have been first
        if kernels is None:
            _compile(module, file)
            kernels = read_cache(file)
    if kernels is None:
        raise RecdError(
            f"kernel cache {file}: just written, not readable as expected (owner, mode, content)",
            mend="set RECD_CACHE_DIR to a folder that only this user can write",
        )
    return kernels


def cache_dir() -> Path:
    """RECD_CACHE_DIR, else systemd's CACHE_DIRECTORY, else $XDG_CACHE_HOME/recd, ~/.cache/recd."""
    chosen = os.environ.get("RECD_CACHE_DIR")
    if not chosen:
        chosen = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if not chosen:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(home, "recd")
    return Path(os.path.abspath(chosen))


def source_key(module: str) -> str:
    """Hash (32 hex digits) of all that the machine code of `module` depends on."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    digest = hashlib.sha256(f"{module} {sys.version} {platform.machine()}".encode())
    folders = {Path(__file__).resolve().parent, Path(spec.origin).resolve().parent}
    sources = [path for folder in sorted(folders) for path in sorted(folder.glob("*.py"))]
    for path in [*sources, *map(_version_file, ("numba", "llvmlite"))]:
        content = path.read_bytes()
        digest.update(f"\n{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _version_file(package: str) -> Path:
    """The file with the package's version, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RecdError(f"the package {package} is not installed", mend=f"pip install {package}")
    return Path(spec.origin).parent / "_version.py"


def read_cache(file: Path) -> Kernels | None:
    """The kernels in `file`; None when it is absent, damaged, or someone else could change it."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cache_error(file.parent, error) from error
    try:
        facts = os.fstat(fd)
        if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
            return None
        if facts.st_size <= HEADER_BYTES:
            return None
        mapping = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    except PermissionError as error:
        raise RecdError(
            f"kernel cache {file}: cannot be mapped as code (file system mounted noexec?)",
            mend="set RECD_CACHE_DIR to a folder on a file system that allows programs",
        ) from error
    finally:
        os.close(fd)
    functions = _checked_header(mapping)
    return None if functions is None else Kernels(file, mapping, functions)


def _checked_header(mapping: mmap.mmap) -> dict[str, Any] | None:
    if mapping[: len(MAGIC)] != MAGIC:
        return None
    length = int.from_bytes(mapping[len(MAGIC) : _PREFIX_BYTES], "little")
    header = mapping[_PREFIX_BYTES : _PREFIX_BYTES + length]
    digest = mapping[HEADER_BYTES - 32 : HEADER_BYTES]
    if _PREFIX_BYTES + length > HEADER_BYTES - 32:
        return None
    if hashlib.sha256(header + mapping[HEADER_BYTES:]).digest() != digest:
        return None
    functions: dict[str, Any] = json.loads(header)
    return functions


def pack(functions: dict[str, Any], code: bytes) -> bytes:
    """Content of a cache file: header (functions by name, with their offset in `code`), code."""
    header = json.dumps(functions, separators=(",", ":")).encode()
    prefix = MAGIC + len(header).to_bytes(4, "little") + header
    if len(prefix) > HEADER_BYTES - 32:
        raise ValueError(f"too many kernels in one module: header of {len(prefix)} bytes")
    digest = hashlib.sha256(header + code).digest()
    return prefix.ljust(HEADER_BYTES - 32, b"\0") + digest + code


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One compiler at a time; the kernel frees the lock of a process that dies."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cache_error(folder, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _cache_error(folder: Path, error: OSError) -> RecdError:
    return RecdError(
        f"kernel cache folder {folder}: {error.strerror}",
        mend="make it writable for this user, or set RECD_CACHE_DIR to a folder that is",
    )


def _compile(module: str, file: Path) -> None:
    import subprocess  # only here: the cache nearly always has it

    part = file.with_suffix(f".{os.getpid()}.part")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    environment |= NUMBA_SETTINGS
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "recd.shm.aot_compile", module, str(part)]
    try:
        done = _run(command, environment)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()
            raise RecdError(
                f"kernels of {module}: the compiler ended with {done.returncode}: "
                f"{reason[-1] if reason else 'no message'}",
                mend=f"see all of it: {sys.executable} -m recd.shm.aot_compile {module} /dev/null",
            )
        os.replace(part, file)
    except subprocess.TimeoutExpired as error:
        raise RecdError(
            f"kernels of {module}: not compiled within {COMPILE_TIMEOUT_S} s",
            mend="start again when the machine is less busy",
        ) from error
    except OSError as error:
        raise _cache_error(file.parent, error) from error
    finally:
        part.unlink(missing_ok=True)
    forget_old(module, file.parent)


def _run(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    import subprocess

    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
        )
    except OSError as error:
        raise RecdError(
            f"cannot start {command[0]} to compile kernels: {error.strerror}",
            mend="use a Python that this user may run (a virtual environment of its own)",
        ) from error


def forget_old(module: str, folder: Path) -> None:
    """Keep the newest KEEP_FILES compilations; a process that has an older one mapped keeps it."""
    by_age = sorted(folder.glob(f"{module}-*.kernels"), key=lambda path: path.stat().st_mtime_ns)
    for path in by_age[:-KEEP_FILES]:
        path.unlink(missing_ok=True)

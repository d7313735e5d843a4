"""Compiles the preload library once per content and says how to start a program under it."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from recd.config.errors import RecdError

SOURCE = Path(__file__).with_name("shim.c")

COMPILERS = ("cc", "gcc", "clang")


def compiler() -> str | None:
    """Path of a C compiler, or None."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def build(folder: Path, *, source: Path = SOURCE, name: str = "recd-v4l2-shim") -> Path:
    """The compiled library in `folder`, built when it is not there for this source yet."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = folder / f"{name}-{digest}.so"
    if library.exists():
        return library
    path = compiler()
    if path is None:
        raise RecdError(
            f"expected a C compiler ({', '.join(COMPILERS)}), found none",
            mend="Run 'sudo apt install gcc libc6-dev linux-libc-dev'.",
            code="no_compiler",
        )
    folder.mkdir(parents=True, exist_ok=True)
    half = library.with_suffix(f".{os.getpid()}.tmp")
    command = [path, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    result = subprocess.run(
        [*command, "-o", str(half), str(source), "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if result.returncode:
        raise RecdError(
            f"{source.name} does not compile:\n{result.stderr}",
            mend="Run 'sudo apt install linux-libc-dev libc6-dev'.",
            code="compile",
        )
    os.replace(half, library)
    return library


def environment(library: Path, devices: Mapping[str, Path | str]) -> dict[str, str]:
    """Variables that make `devices` (device path -> socket of the device) visible to a program.

    Merge into its environment. Paths need not exist; where they do, links to them work too.
    """
    pairs = ";".join(f"{path}={socket}" for path, socket in devices.items())
    return {"LD_PRELOAD": str(library), "RECD_V4L2_SHIM": pairs}

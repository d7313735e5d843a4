"""Starting the sidecar: lerobot's interpreter, in its cage, with one end of a socket pair.

What the cage really holds is said in words (`Started.got`, `missing`); a computer that gives none
is refused, unless the configuration says `confinement: none`.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import recd.shm.clock
from recd.clients.adapters.lerobot.confine import Plan
from recd.clients.adapters.wire import MismatchError

HERE = Path(__file__).parent
MODULE = "recd.clients.adapters.lerobot.inside"
MODULES = {
    "recd/__init__.py": Path(str(recd.__file__)),
    "recd/clients/__init__.py": HERE.parents[1] / "__init__.py",
    "recd/clients/adapters/__init__.py": HERE.parent / "__init__.py",
    "recd/clients/adapters/lerobot": HERE,
    "recd/shm/__init__.py": Path(str(recd.shm.__file__)),
    "recd/shm/clock.py": Path(recd.shm.clock.__file__),
}
"""All of recd that the sidecar sees: place below INSIDE -> file or folder."""

INSIDE = Path("/sidecar")
ASK_S = 30.0
ABOUT = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
MEND = (
    "Allow user namespaces (kernel.apparmor_restrict_unprivileged_userns=0; in the unit of the "
    "service: RestrictNamespaces=no), or start the daemon by hand as root: the sidecar becomes "
    "nobody. For a server that you trust as you trust yourself: "
    "policy.server.lerobot.confinement: none"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sidecar runs. python: lerobot's interpreter; python_path: further folders of
    modules; confined: False only when the operator said so; memory_bytes: most it may allocate.
    """

    python: Path
    python_path: tuple[Path, ...] = ()
    confined: bool = True
    memory_bytes: int = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Started:
    """A sidecar that loads its modules. link: recd's end; folder: goes with it."""

    process: "subprocess.Popen[bytes]"
    link: socket.socket
    folder: "tempfile.TemporaryDirectory[str]"
    got: tuple[str, ...]
    missing: tuple[str, ...]

    def end(self) -> None:
        """At once. Idempotent."""
        self.link.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


def start(place: Place) -> Started:
    """The process, confined. MismatchError when that cannot be, here or with this interpreter."""
    shown = asked(place)
    folder = tempfile.TemporaryDirectory(prefix="recd-sidecar-")
    link, theirs = socket.socketpair()
    with theirs:
        try:
            process, got, missing = (_caged if place.confined else _free)(
                place, Path(folder.name), theirs.fileno(), shown
            )
        except BaseException:
            link.close()
            folder.cleanup()
            raise
    return Started(process, link, folder, got, missing)


Begun = tuple["subprocess.Popen[bytes]", tuple[str, ...], tuple[str, ...]]


def _free(place: Place, folder: Path, link: int, shown: Sequence[str]) -> Begun:
    del shown
    for where, module in MODULES.items():
        (folder / where).parent.mkdir(parents=True, exist_ok=True)
        (folder / where).symlink_to(module)
    process = subprocess.Popen(
        [*_command(place, link), "open"], stdin=subprocess.DEVNULL, cwd="/", pass_fds=(link,),
        env=_variables([folder, *place.python_path]),
    )  # fmt: skip
    return process, (), ("confinement: none; what the server sends may do all that recd may",)


def _caged(place: Place, folder: Path, link: int, shown: Sequence[str]) -> Begun:
    plan = Plan(
        command=[*_command(place, link), "filter"],
        shown=shown,
        placed={str(INSIDE / where): str(module) for where, module in MODULES.items()},
        variables=_variables([INSIDE, *place.python_path]),
        memory_bytes=place.memory_bytes,
        root=str(folder),
    )
    told, tells = os.pipe()
    with os.fdopen(told, "rb") as heard:
        with os.fdopen(tells, "wb"):
            process = subprocess.Popen(
                [sys.executable, "-m", Plan.__module__, str(tells), plan.dumped()],
                stdin=subprocess.DEVNULL, pass_fds=(link, tells),
            )  # fmt: skip
        words = heard.read() if select.select([heard], [], [], ASK_S)[0] else b""
    said = json.loads(words) if words else {"refused": "it ended without a word"}
    if "refused" in said:
        process.kill()
        process.wait()
        raise MismatchError(
            f"expected to confine the sidecar, found that this computer refuses: {said['refused']}",
            mend=MEND,
        )
    return process, tuple(said["got"]), tuple(said["missing"])


def _command(place: Place, link: int) -> list[str]:
    return [str(place.python), "-P", "-m", MODULE, str(link)]


def asked(place: Place) -> list[str]:
    """Folders that lerobot's interpreter needs. MismatchError when it is none."""
    try:
        done = subprocess.run(
            [str(place.python), "-P", "-c", ABOUT], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=True, timeout=ASK_S, env=_variables(place.python_path),
        )  # fmt: skip
        found = [str(path) for path in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MismatchError(
            "policy.server.lerobot.python: expected the interpreter of lerobot's environment, "
            f"found {place.python} ({error})",
            mend="It is ENVIRONMENT/bin/python, and runs by itself.",
        ) from error
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def _variables(searched: Sequence[Path]) -> dict[str, str]:
    """The sidecar's whole environment: nothing of recd's own is in it."""
    return {
        "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "USER": "sidecar",
        "LANG": "C.UTF-8", "PYTHONPATH": ":".join(map(str, searched)),
        "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip

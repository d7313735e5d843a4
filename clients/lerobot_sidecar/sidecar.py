"""recd's end of the sidecar: start it confined, hand it pictures and joints, take checked numbers.

Nothing that the sidecar says is trusted: sizes, shapes and numbers are compared before use. It has
one way out, a socket pair that is joined here to the one address of the PolicyServer.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.lerobot_sidecar.confine import Plan
from recd.clients.lerobot_sidecar.frames import ACTIONS_BYTES, FrameError, receive, send
from recd.clients.lerobot_sidecar.inside import join_sockets
from recd.config.errors import RecdError
from recd.config.policy_wire import MOST_STEPS

HERE = Path(__file__).parent
PLACE = "/sidecar"
START_S = 120.0
ASK_S = 30.0
CONNECT_S = 3.0

ABOUT = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"


class SidecarError(RecdError):
    """The sidecar or its server failed; only a new one helps."""

    code = "sidecar"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sidecar runs and what it reaches. python: lerobot's interpreter; server: host:port
    of its PolicyServer; python_path: further folders of modules; confined: False only when the
    operator said so; memory_bytes: most that it may allocate.
    """

    python: Path
    server: str
    python_path: tuple[Path, ...] = ()
    confined: bool = True
    memory_bytes: int = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Policy:
    """What the server is to load, in its own words. rename: its keys by ours, as lerobot's."""

    kind: str
    path: str
    actions_per_chunk: int
    device: str = "cpu"
    rename: Mapping[str, str] = field(default_factory=dict)


class Sidecar:
    """One sidecar with one connection to one server. got, missing: its confinement, in words;
    lerobot: the version it found. Not for several threads. SidecarError when it fails.
    """

    def __init__(self, place: Place) -> None:
        self.got: list[str] = []
        self.missing: list[str] = []
        self.lerobot = ""
        self._step = 0
        self._cameras: dict[str, tuple[int, int, int]] = {}
        self._width = 0
        self._folder = tempfile.TemporaryDirectory(prefix="recd-sidecar-")
        self._server = _reached(place.server)
        self._link, theirs = socket.socketpair()
        ours, their_way = socket.socketpair()
        with theirs, their_way:
            try:
                self._process = self._start(place, theirs, their_way)
                join_sockets(ours, self._server)
                self._await_ready()
            except BaseException:
                self.close()
                raise

    # --- start -------------------------------------------------------------------------------

    def _start(
        self, place: Place, link: socket.socket, way: socket.socket
    ) -> "subprocess.Popen[bytes]":
        shown, searched = _asked(place)
        fds = [str(link.fileno()), str(way.fileno())]
        package = Path(PLACE if place.confined else self._folder.name)
        program = [str(place.python), "-P", "-m", f"{HERE.name}.inside", *fds]
        variables = _variables([package, *searched])
        if not place.confined:
            (package / HERE.name).symlink_to(HERE)
            self.missing = ["confinement: none. What the policy server sends can do what recd can"]
            return subprocess.Popen(
                [*program, "open"], stdin=subprocess.DEVNULL, env=variables, cwd="/",
                pass_fds=(link.fileno(), way.fileno()),
            )  # fmt: skip
        plan = Plan(
            command=[*program, "filter"],
            shown=shown,
            placed={str(HERE): f"{PLACE}/{HERE.name}"},
            variables=variables,
            memory_bytes=place.memory_bytes,
            root=self._folder.name,
        )
        told, tells = os.pipe()
        with os.fdopen(told, "rb") as heard:
            with os.fdopen(tells, "wb"):
                process = subprocess.Popen(
                    [sys.executable, "-m", "recd.clients.lerobot_sidecar.confine", str(tells),
                     plan.dumped()],
                    stdin=subprocess.DEVNULL, pass_fds=(link.fileno(), way.fileno(), tells),
                )  # fmt: skip
            words = heard.read() if select.select([heard], [], [], ASK_S)[0] else b""
        self._process = process
        self._hear_confinement(words)
        return process

    def _hear_confinement(self, words: bytes) -> None:
        told = json.loads(words) if words else {"refused": "it ended without a word"}
        if "refused" in told:
            raise SidecarError(
                "expected a confined sidecar, found that this computer does not let recd make one: "
                f"{told['refused']}",
                mend="Run the adapter as root (the sidecar becomes nobody), or allow user "
                "namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0); or, for a "
                "server that you trust like your own account, say confinement: none.",
            )
        self.got, self.missing = told["got"], told["missing"]

    def _await_ready(self) -> None:
        header, _ = self._heard(START_S)
        self.lerobot = str(header.get("ready", ""))[:40]
        if header.get("missing"):
            self.missing.append(str(header["missing"])[:200])

    # --- work --------------------------------------------------------------------------------

    def setup(
        self, policy: Policy, joints: Sequence[str],
        cameras: Mapping[str, tuple[int, int, int]], *, timeout_s: float,
    ) -> None:  # fmt: skip
        """Have the server load its policy. cameras: name -> (height, width, 3)."""
        self._cameras, self._width = dict(cameras), len(joints)
        self._ask(
            {"op": "setup", "joints": list(joints), "cameras": self._cameras,
             "policy_type": policy.kind, "path": policy.path, "device": policy.device,
             "actions_per_chunk": policy.actions_per_chunk, "rename": dict(policy.rename)},
            [], timeout_s,
        )  # fmt: skip

    def infer(
        self, joints: Mapping[str, float], pictures: Mapping[str, npt.NDArray[np.uint8]],
        task: str, *, timeout_s: float,
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        """float32 [T, D] for one observation. pictures: uint8 [H, W, 3] in RGB, as announced."""
        shapes = {name: pictures[name].shape for name in self._cameras}
        if shapes != self._cameras:
            raise SidecarError(f"pictures: expected {self._cameras}, found {shapes}")
        header, buffers = self._ask(
            {"op": "infer", "joints": dict(joints), "cameras": shapes, "task": task},
            [np.ascontiguousarray(pictures[name]).tobytes() for name in shapes], timeout_s,
        )  # fmt: skip
        return self._actions(header.get("shape"), buffers)

    def _actions(self, shape: Any, buffers: list[bytes]) -> npt.NDArray[np.float32]:
        sound = (
            isinstance(shape, list) and len(shape) == 2 and len(buffers) == 1
            and all(type(size) is int for size in shape)
            and 0 < shape[0] <= MOST_STEPS and shape[1] == self._width
            and len(buffers[0]) == 4 * shape[0] * shape[1]
        )  # fmt: skip
        if not sound:
            raise SidecarError(
                f"actions: expected 1..{MOST_STEPS} rows of {self._width}, found "
                f"{str(shape)[:40]} in {sum(map(len, buffers))} bytes",
                mend="Does the policy belong to this robot?",
            )
        return np.frombuffer(buffers[0], "<f4").reshape(shape).copy()

    def _ask(
        self, told: Mapping[str, Any], buffers: Sequence[bytes], timeout_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        self._step += 1
        self._link.settimeout(timeout_s)
        try:
            send(self._link, {**told, "step": self._step, "timeout_s": timeout_s}, buffers)
        except OSError as error:
            raise SidecarError(f"the sidecar takes no message: {error}") from error
        header, found = self._heard(timeout_s + 1.0)
        if header.get("re") != self._step:
            raise SidecarError("the sidecar answered another question")
        return header, found

    def _heard(self, patience_s: float) -> tuple[dict[str, Any], list[bytes]]:
        self._link.settimeout(patience_s)
        try:
            header, buffers = receive(self._link, most_bytes=ACTIONS_BYTES)
        except TimeoutError as error:
            raise SidecarError(f"no answer within {patience_s:g} s") from error
        except (OSError, EOFError, FrameError) as error:
            code = self._process.poll()
            ended = "" if code is None else f"; it ended with {code}, and said why above"
            raise SidecarError(f"the sidecar is of no use any more: {error}{ended}") from error
        if "error" in header:
            raise SidecarError(f"the policy server: {str(header['error'])[:500]}")
        return header, buffers

    def close(self) -> None:
        """End the sidecar and its connection. Idempotent."""
        for end in (self._link, self._server):
            end.close()
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._folder.cleanup()


def _reached(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        raise SidecarError(
            f"server: expected host:port, found {server!r}", mend="For instance 192.168.1.5:8080"
        )
    try:
        return socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
    except OSError as error:
        raise SidecarError(
            f"server: expected a PolicyServer at {server}, found {error.strerror or error}",
            mend="python -m lerobot.async_inference.policy_server --host=... --port=...",
        ) from error


def _asked(place: Place) -> tuple[list[str], list[str]]:
    """(folders to show, module folders) of lerobot's interpreter. SidecarError when it is none."""
    try:
        done = subprocess.run(
            [str(place.python), "-P", "-c", ABOUT], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=True, timeout=ASK_S, env=_variables(list(place.python_path)),
        )  # fmt: skip
        prefix, base, *searched = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SidecarError(
            f"python: expected the interpreter of lerobot's environment, found {place.python} "
            f"({error})",
            mend="It is ENVIRONMENT/bin/python.",
        ) from error
    folders = dict.fromkeys([prefix, base, *(path for path in searched if os.path.isdir(path))])
    return list(folders), [str(path) for path in place.python_path]


def _variables(searched: Sequence[Path | str]) -> dict[str, str]:
    """The sidecar's whole environment: nothing of recd's own is in it."""
    return {
        "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8",
        "PYTHONPATH": ":".join(map(str, searched)), "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip

"""Make the fixture of a version, NAME.tar.xz: real files and messages of its own code.

`python tests/versions/make.py NAME [COMMIT]` uses the recd that Python finds: PYTHONPATH=OLD/src
for an older checkout. Only programs, wire and option names that every version has are used.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import zmq

import recd
from recd.config import messages
from recd.shm.clock import now_ns, sleep_until_ns

HERE = Path(__file__).parent
PLACE = Path("/tmp/recd-version")  # short for sockets, and the only path that gets into files
SETS = (
    "cameras.wrist=null", "cameras.front.width=160", "cameras.front.height=160",
    "arms.main.rate_hz=50", "dataset.reserve_mb=0",
)  # fmt: skip
VIDEO = ("dataset.columns=full",)
IMAGES = ("dataset.video=false", "dataset.fps=5", "cameras.front.fps=5")


class Daemon:
    """A daemon of that version on the simulated robot; `ask` keeps the bytes both ways."""

    def __init__(self, root: Path, *sets: str) -> None:
        self.said: list[dict[str, str]] = []
        words = [f"--set={word}" for word in (f"dataset.root={root}", *SETS, *sets)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recd.daemon.cli", "run", "demo", *words],
            env=environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=(PLACE / "log").open("ab"),
        )  # fmt: skip
        socket = PLACE / "run" / "demo" / "ctl.sock"
        wait(lambda: socket.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, PLACE / "log"
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"ipc://{socket}")
        self.events = self.context.socket(zmq.SUB)
        self.events.subscribe("")
        self.events.connect(f"ipc://{socket.with_name('evt.sock')}")
        try:
            wait(lambda: self.ask("status", keep=False)["state"] == "READY")
        except BaseException:
            self.kill()
            raise

    def ask(self, cmd: str, *, keep: bool = True, **args: Any) -> dict[str, Any]:
        asked = messages.Request(messages.new_request_id(), cmd, args, 60_000).pack()
        self.socket.send(asked)
        reply = self.socket.recv_multipart()[-1]
        if keep:
            self.said.append({"cmd": cmd, "request": asked.hex(), "reply": reply.hex()})
        told = messages.decode(reply)
        assert told["ok"], told
        return dict(told["result"])

    def rows(self) -> int:
        return int((self.ask("status", keep=False)["episode"] or {"rows": 0})["rows"])

    def episode(self, rows: int, end: str = "stop") -> dict[str, Any]:
        uid = self.ask("start", task="Stack the cups")["uid"]
        wait(lambda: self.rows() >= rows)
        self.ask("mark", label="success")
        self.ask("status")
        return {"uid": uid, **self.ask(end)}

    def heard(self) -> list[list[str]]:
        """Every event so far: topic and the bytes of its map."""
        found = []
        while self.events.poll(100):
            topic, body = self.events.recv_multipart()
            found.append([topic.decode(), body.hex()])
        return found

    def kill(self) -> None:
        """Everything at once, as a power cut looks to the processes. Idempotent."""
        if self.context.closed:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.context.destroy(linger=0)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "RECD_RUNTIME_DIR": str(PLACE / "run"), **more}


def wait(found: Any, timeout_s: float = 120.0) -> None:
    until_ns = now_ns() + int(timeout_s * 1e9)
    while not found():
        assert now_ns() < until_ns, f"waited too long: {PLACE / 'log'}"
        sleep_until_ns(now_ns() + 50_000_000)


def recctl(*argv: str, code: int = 0, **env: str) -> None:
    command = [sys.executable, "-m", "recd.clients.recctl.cli", *argv]
    done = subprocess.run(command, env=environment(**env), capture_output=True, text=True)
    assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)


def tear(daemon: Daemon, rows: int) -> None:
    """An episode of at least `rows` rows that is recorded still when everything is killed."""
    daemon.ask("start")
    wait(lambda: daemon.rows() >= rows)
    daemon.kill()


def make_video(root: Path) -> tuple[dict[str, Any], str]:
    """Two saved episodes, one discarded, one undone, one torn; everything that was said meanwhile,
    and the uid of the discarded one."""
    daemon = Daemon(root, *VIDEO)
    try:
        daemon.ask("hello")
        daemon.ask("arm")
        for _ in range(2):
            daemon.episode(3)
        discarded = daemon.episode(3, "discard")
        daemon.episode(3)
        daemon.ask("rerecord")
        daemon.ask("episodes")
        wire = {"said": daemon.said, "events": daemon.heard()}
        tear(daemon, 45)
    finally:
        daemon.kill()
    return wire, str(discarded["uid"])


def make_images(root: Path) -> None:
    """One saved episode, one torn."""
    daemon = Daemon(root, *IMAGES)
    try:
        daemon.episode(2)
        tear(daemon, 8)
    finally:
        daemon.kill()


def make_half_committed(whole: Path, root: Path, uid: str) -> None:
    """An undelete killed at the point from which it must be rolled forward."""
    shutil.copytree(whole, root, symlinks=True)
    recctl("dataset", "undelete", str(root), uid,
           code=-signal.SIGKILL, RECD_FAULT="commit.prepared:kill")  # fmt: skip


def make_keys(folder: Path) -> None:
    """The daemon's pair, two clients, one of them revoked; nothing where there were no keys yet."""
    try:
        from recd.config import keys
    except ImportError:
        return
    for name, role in (("anna", "operate"), ("ben", "observe")):
        keys.make_client(folder, name, role, created="2026-11-27T00:00:00+00:00")
    keys.revoke(folder, "ben", at="2026-11-27T00:00:01+00:00")


def make(name: str, commit: str) -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    files = PLACE / "files"
    files.mkdir(parents=True)
    wire, discarded = make_video(files / "video")
    (files / "wire.json").write_text(json.dumps(wire))
    make_half_committed(files / "video", files / "half", discarded)
    make_images(files / "images")
    make_keys(files / "keys")
    for preset in sorted((Path(messages.__file__).parent / "presets").glob("*.yaml")):
        shutil.copy(preset, files / preset.name)
    made = {"recd": recd.__version__, "commit": commit, "protocol": messages.PROTOCOL_VERSION}
    (files / "made.json").write_text(json.dumps(made))
    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as tar:
        for path in sorted(files.iterdir()):
            tar.add(path, path.name, filter=nobody)


def nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by no account of the computer that made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")

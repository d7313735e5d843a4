"""The other side: the environment lerobot runs in, a worker that answers, its unmodified commands.

Everything lerobot writes beside datasets (caches, home) goes to a folder of the test run.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
FFMPEG = ("avutil", "avcodec", "avformat", "avdevice", "avfilter", "swscale", "swresample")
COMMAND_S = 600


class LerobotError(AssertionError):
    """lerobot refused or raised; the text is its own."""


def link_ffmpeg(python: Path, folder: Path) -> Path | None:
    """Links to the FFmpeg inside PyAV under its usual names, which torchcodec looks for.

    None where PyAV brings none along; torchcodec then needs the system's.
    """
    packages = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    brought = packages / "av.libs"
    if not brought.is_dir():
        return None
    folder.mkdir()
    for library in brought.iterdir():
        (folder / library.name).symlink_to(library)
        name, _, version = library.name.partition(".so.")
        bare = name.removeprefix("lib").split("-")[0]
        if bare in FFMPEG:
            (folder / f"lib{bare}.so.{version.split('.')[0]}").symlink_to(library)
    return folder


def environment(python: Path, folder: Path) -> dict[str, str]:
    """Variables of every lerobot process."""
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (folder / "cache").mkdir()
    own = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_LEROBOT_HOME": str(folder / "lerobot"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "SVT_LOG": "1",
        "WANDB_MODE": "disabled",
    }
    if (libraries := link_ffmpeg(python, folder / "ffmpeg")) is not None:
        before = os.environ.get("LD_LIBRARY_PATH")
        own["LD_LIBRARY_PATH"] = f"{libraries}:{before}" if before else str(libraries)
    return {**plain, **own}


@dataclass(frozen=True)
class Running:
    """A program of lerobot at work, and the file with what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def has_said(self, words: str) -> bool:
        """Whether it has. LerobotError when it ended instead."""
        said = self.log.read_text(errors="replace")
        if words not in said and self.process.poll() is not None:
            last = "\n".join(said.splitlines()[-25:])
            raise LerobotError(f"ended with {self.process.returncode}:\n{last}")
        return words in said


@dataclass
class Lerobot:
    """lerobot's interpreter, its commands, and a worker for questions.

    python: its interpreter; folder: for logs; variables: environment of every process.
    """

    python: Path
    folder: Path
    variables: Mapping[str, str]
    worker: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def ask(self, op: str, **arguments: Any) -> Any:
        """One operation of `lerobot_worker.OPERATIONS`. LerobotError with what it raised."""
        worker = self._running()
        assert worker.stdin is not None
        assert worker.stdout is not None
        plain = json.loads(json.dumps({"op": op, **arguments}, default=str))
        worker.stdin.write(json.dumps(plain) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if not line:
            raise LerobotError(f"the worker ended:\n{self._last_words('worker.log')}")
        told = json.loads(line)
        if "result" not in told:
            raise LerobotError(told.get("error") or f"{op} died with status {told['died']}")
        return told["result"]

    def _running(self) -> "subprocess.Popen[str]":
        if self.worker is None:
            with open(self.folder / "worker.log", "ab") as log:
                self.worker = subprocess.Popen(
                    [str(self.python), str(HERE / "lerobot_worker.py")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**self.variables, "PYTHONPATH": str(SOURCES)},
                )
        return self.worker

    def run(
        self, command: Sequence[str], *, variables: Mapping[str, str] | None = None, name: str
    ) -> str:
        """A command of lerobot, or a script of ours in its interpreter; what it said.

        No terminal, no standard input. LerobotError with its last words unless it exits 0.
        """
        log = self.folder / f"{name}.log"
        with log.open("wb") as said:
            done = subprocess.run(
                [*self._program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**self.variables, **(variables or {})},
                cwd=self.folder,
                check=False,
                timeout=COMMAND_S,
            )
        if done.returncode:
            raise LerobotError(
                f"{command[0]} ended with {done.returncode}:\n{self._last_words(log)}"
            )
        return log.read_text(errors="replace")

    @contextlib.contextmanager
    def running(
        self, command: Sequence[str], *, variables: Mapping[str, str], name: str
    ) -> Iterator["Running"]:
        """The same while a block runs; interrupted at its end, and killed if that does not do."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*self._program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**self.variables, **variables},
                cwd=self.folder,
            )
        try:
            yield Running(process, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _program(self, name: str) -> list[str]:
        if name.endswith(".py"):
            return [str(self.python), str(HERE / name)]
        if name.startswith("lerobot."):
            return [str(self.python), "-m", name]
        return [str(self.python.parent / name)]

    def _last_words(self, log: Path | str) -> str:
        lines = (self.folder / log).read_text(errors="replace").splitlines()
        return "\n".join(lines[-25:])

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            assert self.worker.stdin is not None
            assert self.worker.stdout is not None
            self.worker.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.worker.wait(10)
            self.worker.kill()
            self.worker.wait()
            self.worker.stdout.close()


def plugin_installed(side: Lerobot, folder: Path) -> dict[str, str]:
    """Installs recd and its plugin into `folder` as docs/lerobot_plugin.md says, without touching
    lerobot's environment. Returns the variables that put them beside it.

    RECD_LEROBOT_MORE: the folder with grpcio, pyzmq and msgpack, as tests/interop/run makes it.
    """
    checkout = HERE.parents[1]
    parts = [checkout, checkout / "plugins" / "lerobot_robot_recd"]
    subprocess.run(
        [
            str(side.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-build-isolation", "--target", str(folder), *map(str, parts),
        ],
        stdin=subprocess.DEVNULL, check=True, timeout=COMMAND_S,
    )  # fmt: skip
    more = os.environ["RECD_LEROBOT_MORE"]
    return {"PYTHONPATH": f"{folder}:{more}", "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def lerobot(python: Path, folder: Path) -> Iterator[Lerobot]:
    """lerobot in this folder, until the block ends."""
    side = Lerobot(python, folder, environment(python, folder))
    try:
        yield side
    finally:
        side.close()

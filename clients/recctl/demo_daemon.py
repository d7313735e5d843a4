"""The daemon of a demo: started with the demo preset, ended with the command that started it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from recd.clients.client import NotRunningError, RecdClient
from recd.config.errors import RecdError
from recd.config.paths import running_instances
from recd.shm.clock import NS_PER_S, now_ns

START_TIMEOUT_S = 120.0

directory_option = click.option(
    "-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-data"), show_default=True, help="Where dataset and log go.",
)  # fmt: skip
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
    help="Change one value of the demo preset.",
)  # fmt: skip


@contextmanager
def started(instance: str, directory: Path, overrides: tuple[str, ...]) -> Iterator[RecdClient]:
    """A daemon of the demo preset that is READY, its log in `directory`; it ends with this block.

    RecdError when one of this instance runs already, or this one does not come up.
    """
    if instance in running_instances():
        raise RecdError(
            f"a daemon of instance {instance!r} is running already",
            mend=f"End it first: recctl --instance {instance} shutdown",
        )
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
    for override in overrides:
        command += ["--set", override]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # so that the daemon is ended with this command
    log = directory / "recd.log"
    with _daemon(command, log) as process, _client(process, log, instance) as client:
        client.wait_until("READY", timeout_s=START_TIMEOUT_S)
        yield client


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def say_unless(quiet: bool) -> Callable[[str], None]:
    """Prints a line, or nothing where only JSON may come out."""
    return (lambda text: None) if quiet else (lambda text: click.echo(text))


@contextmanager
def _daemon(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that ends with this block, however it is left."""
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        yield process
        process.wait(30)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _client(process: subprocess.Popen[bytes], log: Path, instance: str) -> RecdClient:
    """A connection as soon as the daemon listens; RecdError with its last words if it ends."""
    deadline_ns = now_ns() + int(START_TIMEOUT_S * NS_PER_S)
    while now_ns() < deadline_ns:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            last = "\n  ".join(lines[-3:])
            raise RecdError(f"the daemon ended with code {process.returncode}:\n  {last}",
                            mend=f"See {log}")  # fmt: skip
        try:
            return RecdClient(instance)
        except NotRunningError:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    raise RecdError("the daemon did not come up", mend=f"See {log}")

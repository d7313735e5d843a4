"""How recctl speaks: one JSON document for scripts, or plain lines and tables for people."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import click
from click.shell_completion import CompletionItem

from recd.clients.client import RecdClient
from recd.config.errors import RecdError, StateError

SENTENCE_MAX = 500
"""Characters; no first sentence of a command's help is longer."""

EXIT_REFUSED, EXIT_USAGE, EXIT_LOST, EXIT_NO_DAEMON, EXIT_WARNINGS = 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130


REPLY_S, DURABLE_S = 10.0, 120.0
"""How long to wait for a reply, and for an episode to be durable (a slow disk may need it), where
--timeout does not say."""


class Group(click.Group):
    """A command with subcommands, whose list shows the whole first sentence of each."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, wrapped instead of cut."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, one.get_short_help_str(SENTENCE_MAX))
                    for name, one in self.commands.items()
                    if not one.hidden
                ]
            )


def complete_config(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """For the completion of a CONFIG argument: presets, and files."""
    from recd.config.load import preset_names

    presets = [CompletionItem(name) for name in preset_names() if name.startswith(begun)]
    # click's script for bash forgets what came before a `file`.
    return [CompletionItem(begun, type="file"), *presets]


@dataclass(frozen=True, slots=True)
class Output:
    """Options of one call of recctl and where its results go. differs: how the daemon is of
    another version, once that has been told."""

    instance: str | None = None
    endpoint: str | None = None
    key: str | None = None
    as_json: bool = False
    timeout_s: float | None = None
    differs: list[str] = field(default_factory=list)

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self:
        """For errors raised before options were parsed."""
        return cls(as_json="--json" in argv)

    def client(self) -> RecdClient:
        """A connection by the options given."""
        timeout_s = self.timeout_s or REPLY_S
        return RecdClient(
            self.instance, endpoint=self.endpoint, key=self.key, timeout_s=timeout_s,
            on_differs=self._tell_differs,
        )  # fmt: skip

    def _tell_differs(self, how: str) -> None:
        """Once, on standard error: standard output stays one document."""
        if not self.differs:
            self.differs.append(how)
            click.echo(click.style("recctl: ", fg="yellow", bold=True) + how, err=True)

    @property
    def durable_s(self) -> float:
        """How long to wait for what ends with an episode on the disk."""
        return self.timeout_s or DURABLE_S

    def call(self, cmd: str, *, timeout_s: float | None = None, **args: Any) -> dict[str, Any]:
        """One command on a connection of its own."""
        with self.client() as client:
            return client.call(cmd, timeout_s=timeout_s, **args)

    def show(self, result: Any, render: Callable[[Any], str | Iterable[str]]) -> None:
        """Print `result` as JSON, or what `render` makes of it."""
        if self.as_json:
            click.echo(json.dumps(result, default=_plain))
            return
        for line in self._lines(result, render):
            click.echo(line)

    def _lines(self, result: Any, render: Callable[[Any], str | Iterable[str]]) -> list[str]:
        try:
            text = render(result)
            return [text] if isinstance(text, str) else list(text)
        except (LookupError, TypeError, ValueError, AttributeError):
            if not self.differs:
                raise  # a defect; only another version's reply may lack what is shown here
            return [f"{name}: {value}" for name, value in result.items()]

    def error(self, error: RecdError) -> None:
        """Print an error: to standard error for people, as a document for scripts."""
        if self.as_json:
            told: dict[str, Any] = {
                "code": error.code, "message": error.message, "mend": error.mend
            }  # fmt: skip
            if isinstance(error, StateError):
                told |= {"state": error.state, "legal": list(error.legal)}
            click.echo(json.dumps({"error": told}))
            return
        click.echo(click.style("recctl: ", fg="red", bold=True) + error.message, err=True)
        if error.mend:
            click.echo(f"  {error.mend}", err=True)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Left-aligned columns; numbers to the right. Plain text, so it greps."""
    body = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(head), *body]) for i in range(len(head))]
    right = [
        bool(body) and all(line[i].replace(".", "").lstrip("-").isdigit() or not line[i]
                           for line in body) for i in range(len(head))
    ]  # fmt: skip

    def join(line: Sequence[str]) -> str:
        parts = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    title = click.style(join(head), bold=True) if sys.stdout.isatty() else join(head)
    return [title, *(join(line) for line in body)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """12.3 s, 4:05, 1:02:03"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def long_time(seconds: float) -> str:
    """45 s, 12 min, 88 h, 20 d: how long something will do, in one figure."""
    for unit, length_s, upto in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 4 * 86400)):
        if seconds < upto:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(nbytes: float) -> str:
    """1.2 GB, 340 MB"""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit in ("B", "kB") else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"

"""recctl: remote control of a recd daemon, and the offline tools that need none.

Every command has `--json` for scripts and ends with a meaningful exit code: 0 done, 1 refused or
failed, 2 wrong usage, 3 something was lost, 4 no daemon, 5 warnings.
"""

import importlib
import os
import sys
from dataclasses import replace

import click

from recd import __version__
from recd.clients.recctl.output import (
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_NO_DAEMON,
    EXIT_REFUSED,
    EXIT_USAGE,
    Output,
)
from recd.config.errors import RecdError

EXIT_CODES: dict[str, int] = {
    "usage": EXIT_USAGE,
    "not_saved": EXIT_LOST,
    "not_running": EXIT_NO_DAEMON,
    "timeout": EXIT_NO_DAEMON,
}
"""Code of an error -> exit code; every other one is a refusal."""

TRACE_VARIABLE = "RECD_TRACEBACK"
"""Set in the environment: a fault of recctl itself is shown whole, for a report."""

COMMANDS: dict[str, tuple[str, str]] = {
    "start": ("session", "Begin an episode."),
    "stop": ("session", "End the episode and keep it."),
    "rerecord": ("session", "Throw the running (or the last) episode away and do it again."),
    "discard": ("session", "End the running episode and put it in the trash."),
    "undelete": ("session", "Bring a discarded or undone episode back."),
    "mark": ("session", "Mark the running episode: success, fail or any text."),
    "task": ("session", "Show or set the task of the next episodes."),
    "operator": ("session", "Show or set who records."),
    "status": ("session", "What the daemon is doing."),
    "episodes": ("session", "Episodes of this session."),
    "reset": ("session", "Leave FAULT and try again."),
    "shutdown": ("session", "Finish the running episode and end the daemon."),
    "record": ("record", "Record a number of episodes by a plan."),
    "attach": ("record", "Join a plan that is running."),
    "arm": ("arms", "Torque on and follow the leader."),
    "disarm": ("arms", "Stop following."),
    "teleop": ("arms", "Follow the leader."),
    "hold": ("arms", "Stand still with torque on."),
    "resume": ("arms", "Go on after hold."),
    "estop": ("arms", "Stand still at once; a second time: apply the torque policy."),
    "policy": ("policy", "Let a policy drive, interrupt it, take over."),
    "rollout": ("rollout", "Record by itself while a policy drives."),
    "highlight": ("rollout", "Save the last seconds as an episode."),
    "replay": ("replay", "Play the actions of a saved episode."),
    "release": ("arms", "Apply a torque policy without any daemon."),
    "top": ("watch", "Processes: CPU, memory, lateness, losses."),
    "shm": ("watch", "Rings in shared memory: fill, readers, losses."),
    "snapshot": ("watch", "What every camera sees now, as pictures."),
    "devices": ("watch", "Cameras and serial ports of this computer."),
    "keys": ("access", "Keys of clients on other computers: make, list, show, revoke."),
    "doctor": ("doctor", "Check this computer before a session."),
    "config": ("setup", "Check, show or update a configuration."),
    "service": ("service", "Install recd as a service of systemd."),
    "completion": ("setup", "Shell completion for bash, zsh or fish."),
    "sim": ("sim", "Faults of the simulated robot, on demand."),
    "demo": ("demo", "Record three episodes with the simulated robot."),
    "verify": ("dataset", "Check a dataset."),
    "dataset": (
        "dataset",
        "A dataset folder: look at it, edit it, pack it, its trash.",
    ),
    "recover": ("dataset", "Save what can be saved of a torn dataset."),
}
"""Command -> module of recctl and one line of help. Modules load when their command runs."""


def _json_here(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given and isinstance(ctx.obj, Output):
        ctx.obj = replace(ctx.obj, as_json=True)


def _take_json(command: click.Command) -> None:
    """Let `--json` also stand behind the name of `command` and of its subcommands."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _take_json(below)
        if not command.invoke_without_command:
            return
    if not any("--json" in option.opts for option in command.params):
        command.params.append(
            click.Option(["--json"], is_flag=True, expose_value=False, callback=_json_here,
                         help="One JSON document on standard output.")
        )  # fmt: skip


class LazyGroup(click.Group):
    """Loads a command's module when it is used: `recctl status` must not import PyArrow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        del ctx
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"recd.clients.recctl.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        _take_json(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table, without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name offered for a mistyped one."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else " See 'recctl --help'."
            raise click.UsageError(f"no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


EXIT_CODE_HELP = """\b
Exit codes:
  0    done
  1    refused or failed; the message says why and what helps
  2    wrong usage
  3    something was lost: an episode was not saved, a torn one put aside
  4    no daemon, or none that answers
  5    doctor found nothing but warnings
  130  Ctrl-C
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODE_HELP,
)
@click.option("-i", "--instance", metavar="NAME", envvar="RECD_INSTANCE",
              help="Which daemon, where several run.")  # fmt: skip
@click.option("--endpoint", metavar="ADDRESS", envvar="RECD_ENDPOINT",
              help="ZeroMQ address of the daemon instead of an instance.")  # fmt: skip
@click.option("--key", metavar="FILE", envvar="RECD_KEY", help="Key file for a tcp address.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), metavar="S",
              help="How long to wait for a reply: else 10 s, and 120 s for an episode to be "
              "durable.")  # fmt: skip
@click.version_option(__version__, prog_name="recctl")
@click.pass_context
def recctl(
    ctx: click.Context,
    instance: str | None,
    endpoint: str | None,
    key: str | None,
    as_json: bool,
    timeout_s: float | None,
) -> None:
    """Remote control of the recd recording daemon, and tools for its datasets."""
    ctx.obj = Output(
        instance=instance, endpoint=endpoint, key=key, as_json=as_json, timeout_s=timeout_s
    )


def main() -> None:
    """Entry point: runs recctl and turns errors into one clear message and an exit code."""
    output = Output.from_argv(sys.argv)
    try:
        code = recctl.main(prog_name="recctl", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        if output.as_json:
            output.error(RecdError(error.format_message(), code="usage"))
        else:
            error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Nobody reads on; what Python would still flush at its exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_REFUSED)
    except Exception as error:
        told = _told(error)
        output.error(told)
        sys.exit(EXIT_CODES.get(told.code, EXIT_REFUSED))
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> RecdError:
    """Any error in an operator's words; a fault of recctl's own asks to be reported."""
    if isinstance(error, RecdError):
        return error
    if TRACE_VARIABLE in os.environ:
        raise error
    if isinstance(error, OSError) and error.filename is not None:
        return RecdError(
            f"{error.filename}: {error.strerror}", mend="Check the path and its rights.", code="os"
        )
    return RecdError(
        f"internal error: {type(error).__name__}: {error}",
        mend=f"Please report it, with what {TRACE_VARIABLE}=1 recctl ... prints.",
        code="internal",
    )


if __name__ == "__main__":
    main()

"""`recd run CONFIG`: the daemon in the foreground, for a terminal or for systemd."""

import faulthandler
import sys

import click

from recd import __version__
from recd.config.errors import RecdError
from recd.daemon import lean, log  # noqa: F401 - lean before anything of structlog and pydantic


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recd")
def recd() -> None:
    """Recording daemon for robot learning. Talk to it with recctl."""


@recd.command()
@click.argument("config")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one value; repeat."
)
def run(config: str, overrides: tuple[str, ...]) -> None:
    """Run the daemon for CONFIG: a YAML file or the name of a preset (try: recd run demo).

    SIGTERM and Ctrl-C finish the running episode and leave nothing behind.
    """
    faulthandler.enable()  # systemd's watchdog sends SIGABRT: the log then says where we hung
    from recd.daemon import realtime
    from recd.daemon.supervisor.forks import start_forks

    log.configure(process="supervisor")
    realtime.refuse_huge_pages()
    forks = start_forks()  # it imports on another core what follows here
    from recd.config.load import load_robot
    from recd.daemon.preflight import check_here
    from recd.daemon.supervisor.supervisor import Supervisor

    robot = load_robot(config, overrides=overrides)
    check_here(robot, config, overrides=overrides, access=False)
    sys.exit(Supervisor(robot, forks=forks).run())


def main() -> None:
    """Entry point of `recd`: errors that an operator can mend are told without a traceback."""
    try:
        recd(standalone_mode=False)
    except RecdError as error:
        _tell(error)
        sys.exit(2)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _tell(error: RecdError) -> None:
    """To the terminal or the journal, and to `systemctl status`."""
    from recd.daemon.supervisor.notify import Notifier

    notifier = Notifier()
    notifier.status(f"refused: {error.message.splitlines()[0]}")
    notifier.close()
    if log.leads_to_journal(sys.stderr):
        for line in f"recd: {error}".splitlines():
            click.echo(f"<{log.PRIORITIES['error']}>{line}", err=True)
        return
    click.echo(click.style("recd: ", fg="red", bold=True) + str(error), err=True)


if __name__ == "__main__":
    main()

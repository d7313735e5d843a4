"""recctl dataset copy, merge: a new dataset from the episodes of others, recorded or not."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recd.clients.recctl.output import Output, size

FOLDER = click.Path(path_type=Path, file_okay=False)
LEVELS = ("good", "check", "bad")


@click.command()
@click.argument("root", type=FOLDER)
@click.argument("dest", type=FOLDER)
@click.option("--since", metavar="UID", default="",
              help="Only what comes behind this episode; its first digits do.")  # fmt: skip
@click.option("--packed", is_flag=True, help="Join the files to LeRobot's sizes.")
@click.option("--only-success", is_flag=True, help="Only episodes whose last mark of success or "
              "fail is success.")  # fmt: skip
@click.option("--exclude-verdict", "verdicts", multiple=True, type=click.Choice(LEVELS),
              help="Leave out episodes of this verdict; may be given more than once.")  # fmt: skip
@click.pass_obj
def copy(
    output: Output,
    root: Path,
    dest: Path,
    since: str,
    packed: bool,
    only_success: bool,
    verdicts: tuple[str, ...],
) -> None:
    """Copy the episodes of ROOT into the new dataset DEST, also while they are being recorded.

    uids and side files stay, numbers are dense. DEST appears when it is whole and verified; a copy
    that was interrupted goes on where it was, called once more.
    """
    from recd.daemon.dataset.gather import gather
    from recd.daemon.dataset.snapshot import Selection

    meant = Selection(since, only_success, tuple(sorted(set(verdicts))))
    output.show(asdict(gather([root], dest, selection=meant, packed=packed)), _gathered)


@click.command()
@click.argument("roots", type=FOLDER, nargs=-1, required=True)
@click.argument("dest", type=FOLDER)
@click.option("--packed", is_flag=True, help="Join the files to LeRobot's sizes.")
@click.pass_obj
def merge(output: Output, roots: tuple[Path, ...], dest: Path, packed: bool) -> None:
    """Copy the episodes of all ROOTS, in this order, into the new dataset DEST.

    Robot, rate, features and codecs must be the same. uids and side files stay; an episode that
    several of them hold comes once. As safe to interrupt as `copy`.
    """
    from recd.daemon.dataset.gather import gather

    if len(roots) < 2:
        raise click.UsageError("give at least two datasets and the new folder")
    output.show(asdict(gather(roots, dest, packed=packed)), _gathered)


def _gathered(told: dict[str, Any]) -> list[str]:
    earlier = told["episodes"] - told["copied"]
    lines = [
        f"{told['root']}: {told['episodes']} episodes, {told['rows']} rows, "
        f"{size(told['nbytes'])}, verified" + (f"; {earlier} were there already" * bool(earlier))
    ]
    if told["twice"]:
        lines.append(f"{len(told['twice'])} episodes are in several sources and came once")
    return lines

"""Carry out an installation, or take it back: only what the ledger lists, and only if unchanged."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from recd.config.errors import RecdError
from recd.daemon.service import people
from recd.daemon.service.ledger import digest, ledgers, read_ledger, text_of
from recd.daemon.service.places import Places
from recd.daemon.service.plan import Plan
from recd.daemon.service.steps import PutFile, Run

Say = Callable[[str], None]


def check_privileged(places: Places) -> None:
    """Raises RecdError unless this process may install into `places`, before anything is done."""
    if not places.live:
        return
    if os.geteuid() != 0:
        raise RecdError(
            "installing a service needs root; nothing was changed",
            mend="Run it with sudo; --dry-run shows what it would do.", code="permission",
        )  # fmt: skip
    if not Path("/run/systemd/system").is_dir():
        raise RecdError(
            "this computer was not started by systemd; nothing was changed",
            mend="Start recd with 'recd run CONFIG', or use --prefix to prepare an image.",
            code="service",
        )


def install(plan: Plan, *, say: Say) -> bool:
    """Do all steps of `plan`, telling each that changes something; whether any file changed."""
    changed = False
    for step in plan.steps:
        if step.done():
            continue
        say(str(step))
        step.do()
        changed = changed or not isinstance(step, Run)
    files = [step.path for step in plan.steps if isinstance(step, PutFile)]
    ledger = PutFile(plan.files.ledger, text_of(files, source=plan.source))
    if not ledger.done():
        ledger.do()
    return changed


def prove(plan: Plan) -> list[str]:
    """Write, read and remove a file in the dataset's folder as the service and as each operator.

    Returns whom it was proven for. Raises RecdError, naming the first who could not.
    """
    proven = []
    for name in dict.fromkeys((plan.user, *plan.operators)):
        found = people.account(name)
        if found is None:
            raise RecdError(f"the account {name} is missing after installing", code="service")
        who = people.with_groups(found, (plan.group,))
        if not people.as_account(who, lambda: _writes(plan.robot.dataset_root)):
            raise RecdError(
                f"dataset.root: {name} cannot write in {plan.robot.dataset_root}",
                mend="Is the file system mounted read-only, or without Unix permissions?",
                code="permission",
            )
        proven.append(name)
    return proven


def _writes(root: Path) -> bool:
    path = root / f".recd-proof-{secrets.token_hex(4)}"
    os.umask(0o007)
    try:
        path.write_text("proof\n")
        group_may_write = bool(path.stat().st_mode & 0o020)
        return group_may_write and path.read_text() == "proof\n"
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def uninstall(places: Places, unit: str, *, say: Say, pretend: bool = False) -> list[Path]:
    """Stop, disable and remove the service `unit`. Returns the files that were left because
    somebody changed them. Files that another installed unit needs stay without a word.
    """
    ledger = places.ledgers / f"{unit}.json"
    listed = read_ledger(ledger)
    if not listed:
        known = ", ".join(path.stem for path in ledgers(places.ledgers)) or "none"
        raise RecdError(
            f"{unit}: not installed by recd (installed: {known}); nothing was changed",
            mend="Name the robot's instance: recctl service uninstall NAME", code="service",
        )  # fmt: skip
    others = {
        name for path in ledgers(places.ledgers) if path != ledger for name in read_ledger(path)
    }
    steps = [Run(("systemctl", "disable", "--now", unit))] if places.live else []
    for step in steps:
        say(str(step))
        if not pretend:
            step.do()
    kept = []
    for name, known in listed.items():
        path = Path(name)
        found = digest(path)
        if name in others or not found:
            continue
        if found != known:
            kept.append(path)
            continue
        say(f"remove {path}")
        if not pretend:
            path.unlink()
            _remove_empty(path.parent)
    if not pretend:
        ledger.unlink()
        for folder in (places.ledgers, places.at("/etc/recd")):
            _remove_empty(folder)
        _tell_managers(places)
    return kept


def _tell_managers(places: Places) -> None:
    if places.live:
        Run(("udevadm", "control", "--reload"), optional=True).do()
        Run(("systemctl", "daemon-reload")).do()


OWN_FOLDERS = ("recd", ".installed")
"""Folders that an installation makes and takes away again; `*.service.d` is the third kind."""


def _remove_empty(folder: Path) -> None:
    if folder.name in OWN_FOLDERS or folder.name.endswith(".service.d"):
        with contextlib.suppress(OSError):  # not empty: somebody keeps something there
            folder.rmdir()

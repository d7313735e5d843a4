"""recctl service: recd as a service of systemd, for one robot or several on one computer."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from recd.clients.client import NotRunningError
from recd.clients.recctl.output import EXIT_NO_DAEMON, REPLY_S, Group, Output, complete_config
from recd.clients.recctl.setup import OVERRIDE
from recd.config.errors import RecdError, StateError
from recd.daemon.service.places import Places
from recd.shm.clock import NS_PER_S, now_ns

PREFIX = click.option("--prefix", type=click.Path(path_type=Path, file_okay=False), default="/",
                      help="Root folder of an image to prepare: files only.")  # fmt: skip
RESTART_WAIT_S = 24 * 3600.0


@click.group(cls=Group)
def service() -> None:
    """recd as a service of systemd: starts with the computer and with the robot's plug."""


@service.command()
@click.argument("config", shell_complete=complete_config)
@click.option("--user", metavar="NAME", help="Account of the service; else who runs this.")
@click.option("--group", metavar="NAME", default="recd", show_default=True,
              help="Its members operate the daemon and own its files.")  # fmt: skip
@click.option("--several", is_flag=True, help="One of several robots: recd@NAME.service.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@PREFIX
@OVERRIDE
@click.pass_obj
def install(
    output: Output, config: str, user: str | None, group: str, *, several: bool, dry_run: bool,
    prefix: Path, overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Install the service for CONFIG; doing it again brings it up to date."""
    from recd.daemon.service import install as doing
    from recd.daemon.service.people import invoker
    from recd.daemon.service.places import SERVICE_ACCOUNT
    from recd.daemon.service.plan import Request, make_plan

    places, who = Places(prefix.absolute()), invoker()
    if not dry_run:
        doing.check_privileged(places)
    name = user or (who.name if who.uid != 0 else SERVICE_ACCOUNT)
    plan = make_plan(
        Request(config, name, group, places, os.path.dirname(sys.executable), several,
                tuple(overrides)),
        invoker=who,
    )  # fmt: skip
    told: dict[str, Any] = {"unit": plan.files.unit, "user": name, "group": group, "done": []}
    if dry_run:
        told["would"] = [str(step) for step in plan.steps if not step.done()]
        output.show(told, lambda found: found["would"] or ["nothing to do"])
        return
    changed = doing.install(plan, say=told["done"].append)
    if places.live:
        told["writable_for"] = doing.prove(plan)
        told["next"] = _start_or_say(output, plan.files.unit, plan.robot.instance_name, changed)
    output.show(told, _installed)


def _installed(told: dict[str, Any]) -> list[str]:
    lines = [*told["done"], f"{told['unit']}: installed, runs as {told['user']}:{told['group']}"]
    if who := told.get("writable_for"):
        lines.append(f"dataset folder: writable for {', '.join(who)} (tried)")
    return [*lines, told["next"]] if told.get("next") else lines


def _start_or_say(output: Output, unit: str, instance: str, changed: bool) -> str:
    """What is left to do for a person. A running daemon is restarted only when it rests."""
    if _shown(unit, "ActiveState")["ActiveState"] != "active":
        return f"start it: sudo systemctl start {unit}"
    if not changed:
        return "running"
    reasons = _reasons(output, instance)
    if reasons:
        return (f"still runs as before: {'; '.join(reasons)}. Later: sudo recctl service restart "
                f"{instance}")  # fmt: skip
    _systemctl("restart", unit)
    return "restarted (it was idle and disarmed)"


@service.command()
@click.argument("instance", required=False)
@click.option("--wait", is_flag=True, help="Wait until the daemon is idle and disarmed.")
@click.pass_obj
def restart(output: Output, instance: str | None, *, wait: bool) -> None:
    """Restart the service, if nothing is recorded and no arm is driven."""
    unit, name = _unit_of(instance)
    deadline_ns = now_ns() + int(RESTART_WAIT_S * NS_PER_S)
    while reasons := _reasons(output, name):
        if not wait or now_ns() > deadline_ns:
            raise StateError(
                f"restart refused: {'; '.join(reasons)}", state="BUSY", legal=("status",),
                mend="Stop the episode and disarm first, or give --wait.",
            )  # fmt: skip
        with output.client() as client:
            client.pause(1.0, "state", "event")
    _systemctl("restart", unit)
    output.show({"unit": unit, "restarted": True}, lambda _: f"{unit}: restarted")


@service.command()
@click.argument("instance", required=False)
@PREFIX
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@click.pass_obj
def uninstall(output: Output, instance: str | None, prefix: Path, *, dry_run: bool) -> None:
    """Stop the service and remove what install put there; datasets and accounts stay."""
    from recd.daemon.service import install as doing

    places = Places(prefix.absolute())
    if not dry_run:
        doing.check_privileged(places)
    unit, _ = _unit_of(instance, places)
    told: dict[str, Any] = {"unit": unit, "done": []}
    kept = doing.uninstall(places, unit, say=told["done"].append, pretend=dry_run)
    told["kept"] = [str(path) for path in kept]
    output.show(told, lambda found: [
        *found["done"], *(f"left, because it was changed: {path}" for path in found["kept"])
    ])  # fmt: skip


@service.command()
@click.argument("instance", required=False)
@click.pass_context
def status(ctx: click.Context, instance: str | None) -> None:
    """What systemd knows of the service. Exit code 4 when it does not run."""
    from recd.daemon.service.ledger import source_of

    output: Output = ctx.obj
    unit, name = _unit_of(instance)
    files = Places().unit(name, several="@" in unit)
    shown = _shown(unit, "ActiveState", "SubState", "StatusText", "Result", "NRestarts", "MainPID",
                   "UnitFileState", "ActiveEnterTimestamp")  # fmt: skip
    told: dict[str, Any] = {
        "unit": unit, "instance": name, **shown,
        "config": str(files.config), "source": source_of(files.ledger),
        "source_changed": _newer(Path(source_of(files.ledger)), files.config),
    }  # fmt: skip
    output.show(told, _status_lines)
    if shown["ActiveState"] not in ("active", "activating", "reloading"):
        ctx.exit(EXIT_NO_DAEMON)


def _newer(source: Path, installed: Path) -> bool:
    try:
        return source.stat().st_mtime_ns > installed.stat().st_mtime_ns
    except OSError:
        return False


def _status_lines(told: dict[str, Any]) -> list[str]:
    lines = [
        f"{told['unit']}: {told['ActiveState']} ({told['SubState']}), {told['UnitFileState']}",
        f"  says:     {told['StatusText'] or '-'}",
        f"  last end: {told['Result']}; restarted {told['NRestarts']} times",
        f"  config:   {told['config']} (from {told['source'] or 'elsewhere'})",
        f"  log:      journalctl -u {told['unit']}",
    ]
    if told["source_changed"]:
        lines.append(f"  {told['source']} has changed since: sudo recctl service install it again")
    return lines


@service.command(hidden=True)
@click.argument("config", shell_complete=complete_config)
@click.pass_obj
def stopped(output: Output, config: str) -> None:
    """The unit's stop hook: apply the torque policy of CONFIG if the daemon died."""
    from recd.config.load import dump, load_robot
    from recd.daemon.arms.release import release
    from recd.daemon.service.stopped import apply_policy, died

    how = died(os.environ)
    if not how:
        return
    robot = load_robot(config, check_machine=False)
    buses = [f"{pair}.follower" for pair, arm in robot.arms.items() if arm.follower.port != "sim"]
    done = apply_policy(buses, lambda bus: release(dump(robot), bus))
    told = {"died": how, "buses": done}
    output.show(told, lambda _: [
        f"<4>recd died: {how}; torque policy of the followers:",
        *(f"<4>{bus}: {what}" for bus, what in done.items()),
    ])  # fmt: skip


def _unit_of(instance: str | None, places: Places | None = None) -> tuple[str, str]:
    """(unit, instance) among those installed. RecdError when it is not clear which."""
    from recd.daemon.service.ledger import ledgers, read_ledger

    found: dict[str, str] = {}
    for path in ledgers((places or Places()).ledgers):
        configs = [Path(name).stem for name in read_ledger(path) if name.endswith(".yaml")]
        found |= dict.fromkeys(configs, path.stem)
    if instance is None and len(found) == 1:
        instance = next(iter(found))
    if instance is None or instance not in found:
        named = ", ".join(sorted(found)) or "none"
        raise RecdError(
            f"no service of recd is installed as {instance!r} (installed: {named})"
            if instance else f"which service? installed: {named}",
            mend="recctl service install CONFIG installs one." if not found else
            "Name one of them.",
            code="service",
        )  # fmt: skip
    return found[instance], instance


def _reasons(output: Output, instance: str) -> list[str]:
    from recd.clients.client import RecdClient
    from recd.daemon.service.idle import reasons_to_wait

    try:
        wait_s = output.timeout_s or REPLY_S
        with RecdClient(instance, endpoint=output.endpoint, timeout_s=wait_s) as client:
            return reasons_to_wait(client.status())
    except NotRunningError:
        return []


def _shown(unit: str, *names: str) -> dict[str, str]:
    said = _systemctl("show", unit, f"--property={','.join(names)}")
    lines = (line.partition("=") for line in said.splitlines())
    return dict.fromkeys(names, "") | {name: value for name, _, value in lines}


def _systemctl(*arguments: str) -> str:
    try:
        ended = subprocess.run(["systemctl", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise RecdError(f"systemctl: {error.strerror}", mend="Is this a system with systemd?",
                        code="service") from error  # fmt: skip
    if ended.returncode != 0:
        raise RecdError(
            f"systemctl {' '.join(arguments)}: {ended.stderr.strip()}",
            mend="Run it with sudo." if os.geteuid() else "journalctl -xe tells more.",
            code="service",
        )
    return ended.stdout

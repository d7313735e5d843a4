"""What `recctl service install` would do for one robot: checked first, then listed as steps.

Everything that can be found out before is found out here and raises RecdError; nothing is touched.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recd.config.errors import RecdError
from recd.config.load import Source, apply_overrides, read_source, validate
from recd.config.models import RobotConfig
from recd.daemon.arms.calibration import calibration_path
from recd.daemon.service import people, units
from recd.daemon.service.ledger import installed_files, read_ledger
from recd.daemon.service.people import Account
from recd.daemon.service.places import SERVICE_ACCOUNT, Places, UnitPlaces
from recd.daemon.service.steps import PutFile, Run, ShareFolder, Step

PASSING = ("/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")
"""Folders whose content ends with the computer's or the service's life."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. several: one of several robots on this computer.

    bin: folder with the programs `recd`, `recctl` and the `python` that runs them.
    """

    config: str
    user: str
    group: str
    places: Places
    bin: str
    several: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Checked and ready to be carried out. source: the operator's own file."""

    robot: RobotConfig
    source: str
    user: str
    group: str
    files: UnitPlaces
    steps: tuple[Step, ...]
    operators: tuple[str, ...]


def make_plan(request: Request, *, invoker: Account) -> Plan:
    """Check `request` and list its steps. Relative and `~` paths are those of `invoker`."""
    robot, data, source = resolved(request.config, request.overrides, invoker=invoker)
    files = request.places.unit(robot.instance_name, several=request.several)
    service = _service_account(request, invoker)
    operators = _operators(request, invoker)
    facts = _facts(request, robot)
    _check_programs(service, facts.bin)
    _check_calibrations(robot, service)
    share = ShareFolder(robot.dataset_root, request.user, request.group, invoker.name)
    _check_dataset(share, [service, *operators])
    steps = _steps(request, files, facts, robot, data, source, invoker, share)
    _check_free(files, steps)
    names = tuple(operator.name for operator in operators)
    return Plan(robot, source, request.user, request.group, files, steps, names)


def resolved(
    config: str, overrides: tuple[str, ...], *, invoker: Account
) -> tuple[RobotConfig, Mapping[str, Any], str]:
    """The robot, the same as plain data with absolute paths, and the file it came from.

    Only what stands in the file is in the data: defaults stay defaults of the installed version.
    """
    read = read_source(_absolute(config, invoker) if "/" in config or "." in config else config)
    apply_overrides(read, overrides)
    robot = validate(read, check_machine=False)
    data = read.data
    data["dataset"]["root"] = _absolute(robot.dataset.root, invoker)
    for pair, arm in robot.arms.items():
        for role, side in (("leader", arm.leader), ("follower", arm.follower)):
            if side is not None and side.port != "sim":
                path = calibration_path(
                    role, side.id, override=side.calibration, environ=_home_of(invoker)
                )
                data["arms"][pair][role]["calibration"] = _absolute(str(path), invoker)
    for name, camera in robot.cameras.items():
        if camera.source == "file":
            data["cameras"][name]["device"] = _absolute(camera.device, invoker)
    return validate(Source(read.name, data, {}), check_machine=False), data, read.name


def _home_of(invoker: Account) -> Mapping[str, str]:
    """LeRobot's variables when we are who asked; sudo drops them, so then the home decides."""
    if os.geteuid() == invoker.uid:
        return {"XDG_CACHE_HOME": f"{invoker.home}/.cache", **os.environ}
    return {"XDG_CACHE_HOME": f"{invoker.home}/.cache"}


def _absolute(path: str, invoker: Account) -> str:
    if path == "~" or path.startswith("~/"):
        path = invoker.home + path[1:]
    return os.path.normpath(os.path.abspath(os.path.expanduser(path)))


def _service_account(request: Request, invoker: Account) -> Account:
    found = people.account(request.user)
    if found is not None and found.uid == 0:
        raise RecdError(
            "--user: expected an account without privileges, found root",
            mend=f"Leave --user out, or give {SERVICE_ACCOUNT}.", code="usage",
        )  # fmt: skip
    if found is None and request.user != SERVICE_ACCOUNT:
        raise RecdError(
            f"--user: expected an account of this computer, found {request.user!r}",
            mend=f"Leave --user out (then it is {invoker.name}), or give {SERVICE_ACCOUNT}, which "
            "is made when it is missing.",
            code="usage",
        )  # fmt: skip
    groups = (request.group, *people.existing_groups(units.DEVICE_GROUPS))
    who = found or people.future(request.user, request.group)
    return people.with_groups(who, groups)


def _operators(request: Request, invoker: Account) -> list[Account]:
    """Who operates the daemon: the group's members and whoever installs it. Root may anyway."""
    names = {invoker.name, *people.members(request.group)} - {"root", request.user}
    found = [people.account(name) for name in sorted(names)]
    return [people.with_groups(who, (request.group,)) for who in found if who is not None]


def _facts(request: Request, robot: RobotConfig) -> units.UnitFacts:
    instance = robot.instance_name
    groups = people.existing_groups(units.DEVICE_GROUPS)
    serial = next((name for name in ("dialout", "uucp") if name in groups), request.group)
    return units.UnitFacts(
        instance="%i" if request.several else instance,
        user=request.user,
        group=request.group,
        bin=request.bin,
        device_groups=" ".join(groups),
        serial_group=serial,
        video_group="video" if "video" in groups else request.group,
    )


def _steps(
    request: Request, files: UnitPlaces, facts: units.UnitFacts, robot: RobotConfig,
    data: Mapping[str, Any], source: str, invoker: Account, share: ShareFolder,
) -> tuple[Step, ...]:  # fmt: skip
    live = request.places.live
    text = "".join((
        f"# Made by 'recctl service install' from {source}, with every path written out.\n",
        "# Edit that file and install again; this one is overwritten.\n",
        yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True),
    ))  # fmt: skip
    accounts: list[Step] = [
        PutFile(files.sysusers, _sysusers(request, facts, invoker)),
        PutFile(files.tmpfiles, units.render(units.template("recd.tmpfiles"), facts)),
    ]
    if live:
        accounts += [
            Run(("systemd-sysusers", str(files.sysusers))),
            Run(("systemd-tmpfiles", "--create", str(files.tmpfiles))),
        ]
    own: list[Step] = [
        PutFile(files.config, text, 0o640, request.group if live else ""),
        *([share] if live else []),
        PutFile(files.rules, units.render(units.template("70-recd.rules"), facts)),
        PutFile(files.plug_rules, units.plug_rules(robot, unit=files.unit)),
        PutFile(files.file, units.render(units.template(files.file.name), facts)),
        PutFile(files.drop_in, units.robot_drop_in(robot, source=source)),
    ]
    if files.needrestart.parent.is_dir():
        own.append(PutFile(files.needrestart, units.template("recd.needrestart")))
    managers: list[Step] = [
        Run(("udevadm", "control", "--reload"), optional=True),
        Run(("udevadm", "trigger", "--action=change", "--subsystem-match=tty",
             "--subsystem-match=video4linux", "--subsystem-match=usb-serial"), optional=True),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "enable", files.unit)),
    ]  # fmt: skip
    return (*accounts, *own, *(managers if live else []))


def _sysusers(request: Request, facts: units.UnitFacts, invoker: Account) -> str:
    """Who installs may operate; an account that exists is not declared anew."""
    text = units.render(units.template("recd.sysusers"), facts)
    if request.user != SERVICE_ACCOUNT:
        text = "".join(line for line in text.splitlines(True) if not line.startswith("u "))
    if invoker.name not in ("root", request.user):
        text += f"m {invoker.name} {request.group}\n"
    return text


def _check_programs(service: Account, bin_folder: str) -> None:
    for name in ("recd", "recctl"):
        path = Path(bin_folder) / name
        if not path.exists():
            raise RecdError(
                f"{path}: expected a program of recd, found nothing",
                mend="Install recd as a package: pip install recd", code="service",
            )  # fmt: skip
    for path in (Path(bin_folder) / "recd", (Path(bin_folder) / "python").resolve()):
        wall = people.first_wall(service, path)
        if wall is not None or not people.may(service, path, "read", "enter"):
            raise RecdError(
                f"the account {service.name} may not run {path} ({wall or path} is closed to it)",
                mend="Install recd where everybody may run it, for instance in /opt/recd: "
                "python3 -m venv /opt/recd && /opt/recd/bin/pip install recd",
                code="permission",
            )


def _check_calibrations(robot: RobotConfig, service: Account) -> None:
    for pair, arm in robot.arms.items():
        for role, side in (("leader", arm.leader), ("follower", arm.follower)):
            if side is None or side.port == "sim":
                continue
            path = Path(side.calibration or "")
            key = f"arms.{pair}.{role}.calibration"
            if not path.is_file():
                raise RecdError(
                    f"{key}: expected a calibration file, found none at {path}",
                    mend="Calibrate the arm with lerobot-calibrate, or name its file.",
                    code="config",
                )
            wall = people.first_wall(service, path)
            if wall is not None or not people.may(service, path, "read"):
                raise RecdError(
                    f"{key}: the account {service.name} may not read {path} "
                    f"({wall or path} is closed to it)",
                    mend=f"Copy it to /etc/recd and name it there, or open {wall or path}, or "
                    "run the service as its owner with --user.",
                    code="permission",
                )


def _check_dataset(share: ShareFolder, people_of_it: list[Account]) -> None:
    root = share.path
    if any(root == Path(folder) or Path(folder) in root.parents for folder in PASSING):
        raise RecdError(
            f"dataset.root: expected a folder that stays, found {root}",
            mend="Put it into a home or below /var/lib/recd.", code="config",
        )  # fmt: skip
    for who in people_of_it:
        wall = people.first_wall(who, root)
        if wall is not None:
            raise RecdError(
                f"dataset.root: the account {who.name} does not get to {root}: {wall} is closed",
                mend=f"Open the way (chmod o+x {wall}), put the dataset below /var/lib/recd, or "
                "run the service as the owner with --user.",
                code="permission",
            )
    if root.exists() and not root.is_dir():
        raise RecdError(f"dataset.root: expected a folder, found a file at {root}", code="config")
    stranger = next(share.strangers(), None)
    if stranger is not None:
        raise RecdError(
            f"dataset.root: {stranger} belongs to neither {share.user} nor {share.maker}",
            mend=f"Give it to one of them first: sudo chown -R {share.maker} {root}",
            code="permission",
        )


def _check_free(files: UnitPlaces, steps: tuple[Step, ...]) -> None:
    """Neither another robot's service nor a file of somebody else is overwritten."""
    configs = [name for name in read_ledger(files.ledger) if name.endswith(".yaml")]
    if configs and str(files.config) not in configs:
        raise RecdError(
            f"{files.unit}: already the service of another robot ({configs[0]})",
            mend="Give --several to run more robots beside it, or uninstall that one first.",
            code="service",
        )
    known = installed_files(files.ledger.parent)
    for step in steps:
        if isinstance(step, PutFile) and step.path.exists() and str(step.path) not in known:
            if step.done():
                continue
            raise RecdError(
                f"{step.path}: expected no file there, found one that recd did not install",
                mend="Move it away, or give the robot another 'instance' name.", code="service",
            )  # fmt: skip

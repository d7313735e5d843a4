"""Unit files and their like: templates shipped in `recd/systemd`, filled in for one robot. Pure.

A word between at signs that no fact fills is an error, so that no template is installed half done.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from recd.config.models import RobotConfig

_TOKEN = re.compile(r"@([a-z_]+)@")

DEVICE_GROUPS = ("dialout", "uucp", "video", "render", "plugdev")
"""Groups that own cameras and serial ports on one distribution or another."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What the templates ask for. bin: folder of the programs `recd` and `recctl`.

    device_groups: those of DEVICE_GROUPS that this computer has; serial_group, video_group: the
    ones that own the nodes.
    """

    instance: str
    user: str
    group: str
    bin: str
    device_groups: str = ""
    serial_group: str = "dialout"
    video_group: str = "video"


def template(name: str) -> str:
    """Text of one file of the top-level folder `systemd/`."""
    return (resources.files("recd") / "systemd" / name).read_text(encoding="utf-8")


def render(text: str, facts: UnitFacts) -> str:
    """`text` with every `@word@` filled in. Raises KeyError for a word that is no fact."""
    words = asdict(facts)
    return _TOKEN.sub(lambda found: str(words[found[1]]), text)


def robot_drop_in(robot: RobotConfig, *, source: str) -> str:
    """What of a unit depends on the robot's own configuration: where its dataset is."""
    root = quoted(str(robot.dataset_root))
    return (
        f"# Made by 'recctl service install' from {source}\n"
        f"[Unit]\nRequiresMountsFor={root}\n\n"
        f"[Service]\nReadWritePaths={root}\n"
    )


def quoted(path: str) -> str:
    """A path as systemd reads it: no specifiers, no separation at blanks."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def plug_rules(robot: RobotConfig, *, unit: str) -> str:
    """udev rules: plugging in a bus of this robot starts its service.

    Ports are matched by the name that the configuration gives them, so a link that udev makes
    itself (by-id, by-path, recd/...) follows the adapter. Simulated and other ports have no rule.
    """
    lines = [f"# Made by 'recctl service install': plugging in {robot.name} starts {unit}."]
    lines += [
        f'ACTION=="add", SUBSYSTEM=="tty", {match}, TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="{unit}"'
        for match in _matches(ports_of(robot))
    ]
    return "\n".join(lines) + "\n"


def ports_of(robot: RobotConfig) -> list[str]:
    """Serial ports of all buses, simulated ones left out."""
    sides = [side for arm in robot.arms.values() for side in (arm.leader, arm.follower) if side]
    return [side.port for side in sides if side.port != "sim"]


def _matches(ports: Iterable[str]) -> list[str]:
    found = []
    for port in ports:
        path = Path(port)
        if not port.startswith("/dev/") or re.search(r'["*?\[\]|]', port):
            continue
        name = str(path.relative_to("/dev"))
        found.append(f'SYMLINK=="{name}"' if "/" in name else f'KERNEL=="{name}"')
    return found

"""From `sim` in a configuration to the endpoints that the simulated robot reported. Pure.

After this, a camera or arm process cannot tell that its device is simulated: it gets a stream URL
or the path of a serial port, like any other.
"""

from collections.abc import Mapping
from typing import Any

from recd.config.errors import RecdError


def resolve(kind: str, config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """`config` of a process with every `sim` replaced by what the sim worker reported.

    facts: its `ready` message: `endpoints` {bus: path}, `cameras` {name: URL}, `calibrations`
    {bus: file}. RecdError when something configured is not simulated.
    """
    match kind:
        case "camera":
            return _camera(config, facts)
        case "arm":
            return _arm(config, facts)
        case _:
            return dict(config)


def _camera(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("source") != "sim":
        return dict(config)
    name = config["name"]
    found = facts.get("cameras", {}).get(name)
    url = found.get("url") if isinstance(found, Mapping) else found
    if not url:
        raise _missing(f"camera {name}", facts.get("cameras", {}))
    return {**config, "source": "http", "device": str(url)}


def _arm(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    resolved = dict(config)
    for side in ("leader", "follower"):
        section = config.get(side)
        if not section or section.get("port") != "sim":
            continue
        bus = f"{config['pair']}.{side}"
        port = facts.get("endpoints", {}).get(bus)
        if not port:
            raise _missing(f"bus {bus}", facts.get("endpoints", {}))
        calibration = section.get("calibration") or facts.get("calibrations", {}).get(bus)
        resolved[side] = {**section, "port": str(port), "calibration": calibration}
    return resolved


def _missing(what: str, known: Mapping[str, Any]) -> RecdError:
    return RecdError(
        f"the simulated robot has no {what}; it has {', '.join(known) or 'nothing'}",
        mend="report this: configuration and simulator disagree",
    )

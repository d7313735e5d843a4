"""What a configuration asks of this computer beyond its own text: connected cameras, keys, group.

Only asks: nothing is set, started or repaired. Called before a daemon starts by `config check` and
`doctor`.
"""

from collections.abc import Iterable

from recd.config.endpoints import parse_endpoint
from recd.config.errors import ConfigError, ConfigProblem, RecdError
from recd.config.keys import check_keys, keys_folder
from recd.config.load import apply_overrides, read_source
from recd.config.models import ControlConfig, RobotConfig
from recd.config.paths import group_id
from recd.daemon.cameras.preflight import refused_cameras


def check_here(
    robot: RobotConfig, config: str, *, overrides: Iterable[str] = (), access: bool = True
) -> None:
    """Raise ConfigError with everything that cannot work here, each with file and line.

    config, overrides: where `robot` came from. access: group, keys and the dataset folder, too;
    the daemon, which uses them itself, refuses in its own words. Raises DatasetError for a folder
    of another robot, size or rate.
    """
    sections = {name: camera.model_dump(mode="json") for name, camera in robot.cameras.items()}
    found = [(e.key, e.expected, e.found, e.mend) for e in refused_cameras(sections)]
    if access:
        found += access_problems(robot.control)
    if not found:
        if access:
            from recd.daemon.writer.preflight import check_dataset  # pyarrow: not for a daemon

            check_dataset(robot)
        return
    source = read_source(config)
    apply_overrides(source, overrides)
    raise ConfigError(
        [
            ConfigProblem(key, source.where(tuple(key.split("."))), expected, found_, mend)
            for key, expected, found_, mend in found
        ]
    )


def access_problems(control: ControlConfig) -> list[tuple[str, str, str, str]]:
    """(key, expected, found, mend) for a group that is not there, and for every file of keys that
    is missing, open to others or damaged, where the configuration names or needs keys."""
    problems = []
    try:
        group_id(control.group)
    except RecdError as error:
        problems.append(_in_parts("control.group", error))
    if control.endpoint and parse_endpoint(control.endpoint).asks_for_keys(control.curve):
        named = "control.keys_dir" if control.keys_dir else "control.endpoint"
        problems += [_in_parts(named, error) for error in check_keys(keys_folder(control.keys_dir))]
    return problems


def _in_parts(key: str, error: RecdError) -> tuple[str, str, str, str]:
    """`PATH: expected A, found B` as A and `B in PATH`; other messages say what was found."""
    subject, told, rest = error.message.partition(": expected ")
    expected, _, found = rest.rpartition(", found ")
    if not told or not expected:
        return key, "a file of keys that can be used", error.message, error.mend
    where = f" ({subject})" if subject != key else ""
    return key, expected, found + where, error.mend

"""From a YAML file or preset to a RobotConfig. Every problem is told with key, file and line."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from recd.config.checks import check_robot
from recd.config.errors import ConfigError, ConfigProblem
from recd.config.models import RobotConfig, Section

Key = tuple[str | int, ...]


@dataclass(slots=True)
class Source:
    """A parsed document and where each key stands: `lines[("cameras", "front", "fps")] = 14`."""

    name: str
    data: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)
    overridden: dict[Key, str] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """`file:line` of a key, or of its nearest parent; `--set ...` when it came from there."""
        for length in range(len(key), -1, -1):
            head = key[:length]
            if head in self.overridden:
                return f"--set {self.overridden[head]}"
            if head in self.lines:
                return f"{self.name}:{self.lines[head]}"
        return self.name


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with recd."""
    folder = resources.files("recd.config") / "presets"
    return tuple(
        sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    )


def read_source(config: str | Path) -> Source:
    """Read a file, or a preset by its bare name.

    Raises ConfigError for a missing file, bad YAML, or a key given twice.
    """
    text_name = str(config)
    if "/" not in text_name and text_name in preset_names():
        text = (resources.files("recd.config") / "presets" / f"{text_name}.yaml").read_text()
        return parse(text, name=f"preset:{text_name}")
    path = Path(config).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        close = difflib.get_close_matches(text_name, preset_names(), n=1)
        mend = f"Did you mean the preset {close[0]!r}?" if close else (
            f"Give a YAML file or one of the presets {', '.join(preset_names())}."
        )  # fmt: skip
        raise ConfigError(
            [ConfigProblem(text_name, "", "a readable file or a preset", reason, mend)]
        ) from error
    return parse(text, name=str(path))


def parse(text: str, *, name: str) -> Source:
    """Parse YAML text, remembering the line of every key."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError([ConfigProblem("(file)", where, "YAML", problem)]) from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError([ConfigProblem("(file)", name, "a map of sections", "something else")])
    lines: dict[Key, int] = {}
    problems: list[ConfigProblem] = []
    _note_lines(node, (), name, lines, problems)
    if problems:
        raise ConfigError(problems)
    data = yaml.safe_load(text)
    return Source(name=name, data=data, lines=lines)


def _note_lines(
    node: yaml.Node, key: Key, name: str, lines: dict[Key, int], problems: list[ConfigProblem]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            child = (*key, key_node.value)
            line = key_node.start_mark.line + 1
            if child in lines:
                found = f"it again (first on line {lines[child]})"
                problems.append(ConfigProblem(dotted(child), f"{name}:{line}", "one entry", found))
            lines[child] = line
            _note_lines(value_node, child, name, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*key, i)] = item.start_mark.line + 1
            _note_lines(item, (*key, i), name, lines, problems)


def apply_overrides(source: Source, overrides: Iterable[str]) -> None:
    """Apply `key.path=value` strings in order; the value is read as YAML.

    A null value removes the key. Raises ConfigError for a malformed override.
    """
    for override in overrides:
        path_text, separator, value_text = override.partition("=")
        path = tuple(part.strip() for part in path_text.split("."))
        if not separator or not all(path):
            raise ConfigError([ConfigProblem(override, "--set", "key.path=value", repr(override))])
        try:
            value = yaml.safe_load(value_text)
        except yaml.YAMLError as error:
            problem = ConfigProblem(path_text, f"--set {override}", "a YAML value", value_text)
            raise ConfigError([problem]) from error
        _set(source.data, path, value, override)
        source.overridden[path] = override


def _set(data: dict[str, Any], path: tuple[str, ...], value: object, override: str) -> None:
    for depth, part in enumerate(path[:-1]):
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        if not isinstance(data, dict):
            key = ".".join(path[: depth + 1])
            problem = ConfigProblem(key, f"--set {override}", "a section", repr(data))
            raise ConfigError([problem])
    if value is None:
        data.pop(path[-1], None)
    else:
        data[path[-1]] = value


def load_robot(
    config: str | Path, *, overrides: Iterable[str] = (), check_machine: bool = True
) -> RobotConfig:
    """Load, override, validate and cross-check one robot's configuration.

    config: file or preset name. check_machine: also compare rings with this computer's memory.
    Raises ConfigError that names every problem found, before anything is started.
    """
    source = read_source(config)
    apply_overrides(source, overrides)
    return validate(source, check_machine=check_machine)


def validate(source: Source, *, check_machine: bool = True) -> RobotConfig:
    """Turn a parsed source into a RobotConfig, or raise ConfigError with all problems."""
    try:
        robot = RobotConfig.model_validate(source.data)
    except ValidationError as error:
        raise ConfigError([_problem(source, item) for item in error.errors()]) from error
    problems = [
        ConfigProblem(dotted(p.key), source.where(p.key), p.expected, p.found, p.mend)
        for p in check_robot(robot, check_machine=check_machine)
    ]
    if problems:
        raise ConfigError(problems)
    return robot


def dotted(key: Key) -> str:
    """("cameras", "front", "fps") -> cameras.front.fps"""
    return ".".join(str(part) for part in key)


def _problem(source: Source, item: ErrorDetails) -> ConfigProblem:
    key = tuple(part for part in item["loc"] if not _is_union_tag(part))
    where = source.where(key)
    found = _short(item["input"])
    match item["type"]:
        case "extra_forbidden":
            known = _known_keys(key[:-1])
            close = difflib.get_close_matches(str(key[-1]), known, n=1)
            mend = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
            return ConfigProblem(dotted(key), where, "a known key", repr(key[-1]), mend)
        case "missing":
            return ConfigProblem(dotted(key), where, "a value", "nothing", "Add the key.")
        case "value_error":
            expected, _, rest = str(item["msg"]).removeprefix("Value error, ").partition(", found ")
            return ConfigProblem(dotted(key), where, expected, rest or found)
        case "string_pattern_mismatch":
            expected = f"a name like {item['ctx']['pattern']}"
            return ConfigProblem(dotted(key), where, expected, found)
        case _:
            message = re.sub(r"^Input should be ", "", str(item["msg"]))
            return ConfigProblem(dotted(key), where, message, found)


def _is_union_tag(part: str | int) -> bool:
    """pydantic puts the branch of a union or map key into the path (`int`, `[key]`)."""
    return part in ("int", "float", "str", "[key]") or str(part).startswith(
        ("literal[", "dict[", "constrained-", "nullable[", "function-")
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(path: Key) -> list[str]:
    model: type[Section] | None = RobotConfig
    for part in path:
        annotation = (
            model.model_fields[str(part)].annotation
            if model and part in model.model_fields
            else None
        )
        model = _section_in(annotation) or (model if annotation is None else None)
        if model is None:
            return []
    return sorted(model.model_fields) if model else []


def _section_in(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _section_in(argument)) is not None:
            return found
    return None


def dump(robot: RobotConfig) -> Mapping[str, Any]:
    """The full configuration with every default, as plain data (for `recctl config show`)."""
    return robot.model_dump(mode="json")

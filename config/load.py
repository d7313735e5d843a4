"""From a YAML file or preset to a RobotConfig. Every problem is told with key, file and line."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from recd.config.checks import check_robot
from recd.config.errors import ConfigError, ConfigProblem
from recd.config.migrate import renamed, version_in
from recd.config.models import NAME_PATTERN, REPO_ID_PATTERN, RobotConfig, Section

Key = tuple[str | int, ...]

YAML_SLIPS = (
    ("\\t", "Indent with spaces, not with tabs."),
    (
        "mapping values are not allowed",
        "Put a space after every colon, and quote text with colons.",
    ),
    ("expected ',' or", "Close the bracket that is open on this line or above."),
    ("another document", "Remove the line '---' in the middle."),
    ("constructor for the tag", "Remove the tag (!...); plain values only."),
)
"""What the parser says -> what a person most likely did."""

ANY_NAME = "a name of small letters, digits and _, beginning with a letter"

NAMES_OF_PATTERN = {NAME_PATTERN: ANY_NAME, REPO_ID_PATTERN: "USER/NAME, as local/my_dataset"}

WORDS_OF_ERROR: Mapping[str, tuple[str, str]] = {
    "model_type": ("a section (key: value)", ""),
    "dict_type": ("a section (key: value)", ""),
    "list_type": ("a list, as [a, b]", ""),
    "string_type": ("text", 'Put it in quotes: "..."'),
    "int_type": ("a whole number", ""),
    "int_from_float": ("a whole number", ""),
    "float_type": ("a number", ""),
    "bool_type": ("true or false", ""),
    "finite_number": ("a finite number", ""),
    "too_short": ("at least one", ""),
    "string_too_short": ("text that is not empty", ""),
}
"""Type of a pydantic error -> expected, mend: what a person reads instead of its own words."""


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
            if head and head not in self.lines:
                for path, override in self.overridden.items():
                    if path[:length] == head:
                        return f"--set {override}"
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
        reason = getattr(error, "strerror", None) or "a file that is not UTF-8 text"
        close = difflib.get_close_matches(text_name, preset_names(), n=1)
        mend = f"Did you mean the preset {close[0]!r}?" if close else (
            f"Give a YAML file or one of the presets {', '.join(preset_names())}."
        )  # fmt: skip
        raise ConfigError(
            [ConfigProblem(text_name or "''", "", "a readable file or a preset", reason, mend)]
        ) from error
    return parse(text, name=str(path))


def parse(text: str, *, name: str) -> Source:
    """Parse YAML text of any version, remembering the line of every key; names become today's."""
    text = renamed(text, version_in(text, name))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError([_not_yaml(error, name)]) from error
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else "a list" if isinstance(
            node, yaml.SequenceNode) else "plain text"  # fmt: skip
        raise ConfigError(
            [ConfigProblem("(file)", name, "sections (key: value)", found,
                           "Begin with: recctl config preset so101 > my_robot.yaml")]
        )  # fmt: skip
    lines: dict[Key, int] = {}
    problems: list[ConfigProblem] = []
    try:
        _note_lines(node, (), name, lines, problems)
        if problems:
            raise ConfigError(problems)
        data = yaml.safe_load(text)
    except RecursionError as error:
        raise ConfigError(
            [ConfigProblem("(file)", name, "sections of finite depth", "an alias within itself",
                           "Write the values out instead of &name and *name.")]
        ) from error  # fmt: skip
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_not_yaml(error, name)]) from error
    return Source(name=name, data=data, lines=lines)


def _not_yaml(error: yaml.YAMLError, name: str) -> ConfigProblem:
    """A problem of the parser, with a mend for the slips that people make."""
    mark = getattr(error, "problem_mark", None)
    where = f"{name}:{mark.line + 1}" if mark else name
    problem = (
        str(getattr(error, "problem", None) or error).removeprefix("but ").removeprefix("found ")
    )
    mend = next(
        (mend for sign, mend in YAML_SLIPS if sign in problem),
        "Look at this line and the one above.",
    )
    return ConfigProblem("(file)", where, "YAML", problem, mend)


def _note_lines(
    node: yaml.Node, key: Key, name: str, lines: dict[Key, int], problems: list[ConfigProblem]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            child = (*key, key_node.value)
            line = key_node.start_mark.line + 1
            if child in lines:
                found = f"it again (first on line {lines[child]})"
                problems.append(ConfigProblem(dotted(child), f"{name}:{line}", "one entry", found,
                                              "Remove or rename one of the two."))  # fmt: skip
                continue
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
        raise ConfigError(_problems(source, error.errors())) from error
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


def _problems(source: Source, items: Iterable[ErrorDetails]) -> list[ConfigProblem]:
    """One problem per key: pydantic reports every branch of a union on its own."""
    told: dict[Key, ConfigProblem] = {}
    for item in items:
        key = tuple(part for part in item["loc"] if not _is_union_tag(part))
        problem = _problem(source, key, item)
        if key in told:
            either = f"{told[key].expected} or {problem.expected}"
            problem = replace(told[key], expected=either, mend="")
        told[key] = problem
    return [
        problem
        for key, problem in told.items()
        if not any(other != key and other[: len(key)] == key for other in told)
    ]


def _problem(source: Source, key: Key, item: ErrorDetails) -> ConfigProblem:
    where, value, kind = source.where(key), item["input"], item["type"]
    found = _short(value)
    match kind:
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
            expected = NAMES_OF_PATTERN.get(item["ctx"]["pattern"], "other text")
            return ConfigProblem(dotted(key), where, expected, found)
        case "string_type" if "[key]" in item["loc"]:
            mend = "YAML reads on, off, yes, no and numbers as values: use another name."
            return ConfigProblem(dotted(key[:-1]), where, ANY_NAME, found, mend)
    expected, mend = WORDS_OF_ERROR.get(
        kind, (re.sub(r"^Input should be (a valid )?", "", str(item["msg"])), "")
    )
    if isinstance(value, str) and kind in ("int_type", "float_type") and _is_number(value):
        mend = "Remove the quotes."
    if isinstance(value, str) and ":" in value and kind in ("model_type", "dict_type"):
        mend = "Put a space after every colon."
    if value is None:
        found, mend = "nothing", "Give a value, or remove the key."
    return ConfigProblem(dotted(key), where, expected, found, mend)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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

"""Configurations of older versions: what was renamed since, as a table, and the file brought up.

The text is edited where a key stands, so that comments, order and layout stay. A file that says no
version is of recd 0.1. Limit: a change that needs more than renaming has to get a row kind here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from recd.config.errors import ConfigError, ConfigProblem

CONFIG_VERSION: Final = 1
"""Of today's files. Raised with a row of MIGRATIONS when a file that worked would not any more."""

UNTOLD: Final = 0
"""Version of files that say none: recd 0.1."""

VERSION_KEY: Final = "version"


@dataclass(frozen=True, slots=True)
class Rename:
    """path: keys from the top, `*` any name; the last one becomes `name`, its value stays."""

    path: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Migration:
    """From the version before `to`. why: for people who read the table."""

    to: int
    why: str
    renames: tuple[Rename, ...] = ()


MIGRATIONS: Final = (Migration(1, "files say their version"),)
"""One row for every version after 0, in order."""


def version_in(text: str, name: str, *, newest: int = CONFIG_VERSION) -> int:
    """Version of a configuration; text that is no YAML map counts as one that says none.

    ConfigError when it is newer than `newest` or no version at all. name: for the message.
    """
    for key, value in _pairs(_root(text)):
        if key.value == VERSION_KEY:
            return _checked(value, f"{name}:{key.start_mark.line + 1}", newest)
    return UNTOLD


def _checked(value: yaml.Node, where: str, newest: int) -> int:
    found = str(value.value) if isinstance(value, yaml.ScalarNode) else "a section"
    expected = "1" if newest == 1 else f"1..{newest}"
    if not found.isascii() or not found.isdigit() or int(found) == UNTOLD:
        mend = "Remove the line where the file is of recd 0.1; recctl config migrate adds it."
        raise ConfigError([ConfigProblem(VERSION_KEY, where, expected, repr(found), mend)])
    if int(found) > newest:
        mend = "This file is of a newer recd: update recd, or use the file that this one had."
        raise ConfigError([ConfigProblem(VERSION_KEY, where, f"at most {newest}", found, mend)])
    return int(found)


def renamed(text: str, version: int, *, table: Sequence[Migration] = MIGRATIONS) -> str:
    """`text` of `version` with today's names; every key stays on its line."""
    for migration in table:
        if migration.to > version:
            text = _apply(text, migration.renames)
    return text


def migrated(text: str, version: int, *, table: Sequence[Migration] = MIGRATIONS) -> str:
    """The whole file as today's: today's names, and the version it then has."""
    newest = table[-1].to
    text = renamed(text, version, table=table)
    if version == newest:
        return text
    for key, value in _pairs(_root(text)):
        if key.value == VERSION_KEY:
            return _replaced(text, value, str(newest))
    head = _first_line(text)
    return f"{text[:head]}{VERSION_KEY}: {newest}\n{text[head:]}"


def _first_line(text: str) -> int:
    """Where the first key's line begins: comments at the top stay at the top."""
    root = _root(text)
    pairs = list(_pairs(root))
    if not pairs or (root is not None and root.flow_style):
        return 0
    return text.rfind("\n", 0, pairs[0][0].start_mark.index) + 1


def _apply(text: str, renames: Sequence[Rename]) -> str:
    for rename in renames:
        # From the end: a replaced key must not move the ones that are still to come.
        for key in sorted(_matching(_root(text), rename.path), key=lambda k: -k.start_mark.index):
            text = _replaced(text, key, rename.name)
    return text


def _matching(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[yaml.ScalarNode]:
    for key, value in _pairs(node):
        if path[0] not in ("*", key.value):
            continue
        if len(path) == 1:
            yield key
        else:
            yield from _matching(value, path[1:])


def _replaced(text: str, node: yaml.Node, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def _root(text: str) -> yaml.MappingNode | None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None  # whoever loads it says what is wrong with it
    return node if isinstance(node, yaml.MappingNode) else None


def _pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key, value

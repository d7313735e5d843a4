"""Writes the configuration reference (docs/configuration.md) from the models, so it stays true."""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from recd.config.load import preset_names
from recd.config.models import RobotConfig, Section

HEADER = """\
# Configuration reference

Written by `make docs` from the models in `config/models.py`; do not edit by hand.

One YAML file describes one robot. `recctl config check FILE` refuses what cannot work and names
key, file and line; `recctl config show FILE` prints every value with its default filled in. Any
value can be changed for one run with `--set key.path=value` (`null` removes a key). Presets:
{presets}.

`version` counts the forms of this file. Files of older versions work as they are; `recctl config
migrate FILE` shows them in today's form. A file of a newer recd is refused.
"""


def section_of(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section class inside an annotation, and whether it sits in a map by name."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    origin = get_origin(annotation)
    for argument in get_args(annotation):
        section, _ = section_of(argument)
        if section is not None:
            return section, origin is dict
    return None, False


def type_words(annotation: Any) -> str:
    """A type in words: `integer`, `one of a, b`, `text or none`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(argument) for argument in arguments)
    if origin is dict:
        return f"map of {type_words(arguments[1])}"
    if origin is list:
        return f"list of {type_words(arguments[0])}"
    if origin is not None and arguments:
        return type_words(arguments[0])
    words = {int: "integer", float: "number", str: "text", bool: "true/false", type(None): "none"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default_words(info: FieldInfo) -> str:
    """The default in YAML's words; `required` when there is none."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, Section) or value in ({}, []):
        return ""
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case None:
            return "none"
        case "":
            return "empty"
    return f"`{value}`"


def range_words(info: FieldInfo) -> str:
    """Bounds of a number, e.g. ` (1..240)`."""
    bounds = {name: getattr(m, name) for m in info.metadata for name in ("ge", "gt", "le", "lt")
              if hasattr(m, name)}  # fmt: skip
    if not bounds:
        return ""
    low = f"{bounds['ge']:.7g}" if "ge" in bounds else ""
    low = f">{bounds['gt']:.7g}" if "gt" in bounds else low
    high = f"{bounds['le']:.7g}" if "le" in bounds else ""
    return f" ({low}..{high})"


def rows(model: type[Section], path: str) -> Iterator[str]:
    """Markdown of one section and of all below it."""
    title = path or "top level"
    yield f"\n## {title}\n\n{(model.__doc__ or '').strip()}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    below: list[tuple[type[Section], str]] = []
    for name, info in model.model_fields.items():
        section, by_name = section_of(info.annotation)
        key = f"{path}.{name}" if path else name
        if section is not None:
            child = f"{key}.<name>" if by_name else key
            below.append((section, child))
            kind = f"section `{child}`"
        else:
            kind = type_words(info.annotation) + range_words(info)
        meaning = " ".join((info.description or "").split()).replace("|", "\\|")
        yield f"| `{name}` | {kind.replace('|', '/')} | {default_words(info)} | {meaning} |"
    for section, child in below:
        yield from rows(section, child)


def render() -> str:
    """The whole page as Markdown."""
    names = ", ".join(f"`{name}`" for name in preset_names())
    return HEADER.format(presets=names) + "\n".join(rows(RobotConfig, "")) + "\n"


if __name__ == "__main__":
    print(render(), end="")

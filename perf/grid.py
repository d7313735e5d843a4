"""Grid files: which scenarios a bench measures. YAML, checked whole before anything runs. Pure.

A file has defaults and cells; a cell's axis may list several values, and stands for every
combination of its lists.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from recd.config.errors import ConfigError, ConfigProblem
from recd.daemon.encode.codecs import CODECS
from recd.perf.load import LOADS
from recd.perf.scenario import PAIRS, Scenario, calibrated_ms

GRIDS = Path(__file__).with_name("grids")

PIXELS: Mapping[str, str] = {
    "mjpeg": "sim", "h264": "sim-h264", "yuyv": "v4l2", "mjpeg_v4l2": "v4l2-mjpeg",
}  # fmt: skip
"""Pixel format of a grid -> source of the scenario (scenario.SOURCES)."""

ENCODERS = ("av1", *(row.vcodec for row in CODECS))
"""Names of encoders. Whether the machine has one of hardware is found out before its cell runs."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Control loop against bare loop in every cell. pairs: times A B, 0 none; seconds: of a leg."""

    pairs: int = 0
    seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid, read. cells: scenarios in the order in which they run."""

    name: str
    cells: tuple[Scenario, ...]
    floor: Floor = field(default_factory=Floor)

    @property
    def seconds(self) -> float:
        """About how long all cells take."""
        return sum(self.cell_s(cell) for cell in self.cells)

    def cell_s(self, cell: Scenario) -> float:
        """About how long a cell takes: recordings, legs, start, settling, decoding."""
        return cell.runs * (cell.seconds * 1.4 + 4) + 20 + 2 * self.floor.pairs * self.floor.seconds


class _RefusedError(Exception):
    """A value that cannot be: (expected, found)."""


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _RefusedError(f"a whole number {least}..{most}", repr(value))
        return value

    return read


def _number(least: float, most: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _RefusedError(f"a number {least:g}..{most:g}", repr(value))
        if not least <= value <= most:
            raise _RefusedError(f"a number {least:g}..{most:g}", repr(value))
        return float(value)

    return read


def _size(value: Any) -> tuple[int, int]:
    width, _, height = str(value).partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise _RefusedError("WxH, for example 640x480", repr(value))
    return int(width), int(height)


def _codec(value: Any) -> tuple[str, str]:
    """`h264`, `h264 ultrafast`, `av1 12`, `h264_vaapi`."""
    words = str(value).split()
    if not 1 <= len(words) <= 2:
        raise _RefusedError(
            "a codec and perhaps its preset, for example `h264 ultrafast`", repr(value)
        )
    if words[0] not in ENCODERS:
        raise _RefusedError(f"one of {', '.join(ENCODERS)}", repr(words[0]))
    return words[0], words[1] if len(words) == 2 else ""


def _one_of(names: Mapping[str, Any]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise _RefusedError(f"one of {', '.join(names)}", repr(value))
        return str(value)

    return read


@dataclass(frozen=True, slots=True)
class Axis:
    """One key of a cell. read: value -> checked value; into: -> fields of a Scenario."""

    read: Callable[[Any], Any]
    into: Callable[[Any], dict[str, Any]]


AXES: Mapping[str, Axis] = {
    "cameras": Axis(_whole(1, 16), lambda v: {"cameras": v}),
    "size": Axis(_size, lambda v: {"width": v[0], "height": v[1]}),
    "fps": Axis(_whole(1, 240), lambda v: {"fps": v, "camera_fps": float(v)}),
    "pixels": Axis(_one_of(PIXELS), lambda v: {"source": PIXELS[v],
                                               "latency_ms": calibrated_ms(PIXELS[v])}),
    "codec": Axis(_codec, lambda v: {"vcodec": v[0], "preset": v[1]}),
    "crf": Axis(_whole(0, 63), lambda v: {"crf": v}),
    "g": Axis(_whole(1, 600), lambda v: {"g": v}),
    "threads": Axis(_whole(1, 16), lambda v: {"threads": v}),
    "control_hz": Axis(_whole(10, 1000), lambda v: {"rate_hz": v}),
    "arm_pairs": Axis(_whole(1, len(PAIRS)), lambda v: {"arm_pairs": v}),
    "load": Axis(_one_of(LOADS), lambda v: {"load": v}),
}  # fmt: skip
"""What a cell may say; what it does not say is the default of Scenario."""

_TOP: Mapping[str, Callable[[Any], Any]] = {
    "seconds": _number(2, 3600),
    "repeats": _whole(1, 50),
    "floor": lambda value: value,
    "cells": lambda value: value,
}
_FLOOR: Mapping[str, Callable[[Any], Any]] = {
    "pairs": _whole(0, 20),
    "seconds": _number(1, 300),
}


def grid_path(named: str) -> Path:
    """A file, or one of the grids that come with recd by its name. ConfigError when neither."""
    path = Path(named)
    own = GRIDS / f"{named}.yaml"
    if path.is_file():
        return path
    if own.is_file():
        return own
    names = ", ".join(sorted(grid.stem for grid in GRIDS.glob("*.yaml")))
    raise ConfigError([ConfigProblem(named, "", f"a grid file, or one of {names}", "nothing")])


def load_grid(path: Path) -> Grid:
    """Read a grid file. ConfigError names every key and value that cannot be."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([ConfigProblem(path.name, "", "a readable YAML file", str(error))]) from (
            error
        )
    problems: list[ConfigProblem] = []
    grid = _grid(path, data, problems)
    if problems or grid is None:
        raise ConfigError(problems)
    return grid


def _grid(path: Path, data: Any, problems: list[ConfigProblem]) -> Grid | None:
    top = _mapping(data, _TOP, "", path, problems)
    floor = _mapping(top.get("floor", {}), _FLOOR, "floor.", path, problems)
    listed = top.get("cells")
    if not isinstance(listed, list) or not listed:
        problems.append(ConfigProblem("cells", path.name, "a list of cells", repr(listed)))
        return None
    runs = {"seconds": top.get("seconds", 30.0), "runs": top.get("repeats", 3)}
    cells = [
        Scenario(**runs, **fields)
        for number, cell in enumerate(listed)
        for fields in _combinations(cell, f"cells[{number}].", path, problems)
    ]
    problems += [
        ConfigProblem("cells", path.name, "codec h264 with pixels h264, recorded as it comes",
                      cell.vcodec, "Put pixels: h264 into a cell of its own.")
        for cell in dict.fromkeys(cells) if cell.as_sent and cell.vcodec != "h264"
    ]  # fmt: skip
    return Grid(path.stem, tuple(dict.fromkeys(cells)), Floor(**floor))


def _mapping(
    data: Any, known: Mapping[str, Callable[[Any], Any]], above: str, path: Path,
    problems: list[ConfigProblem],
) -> dict[str, Any]:  # fmt: skip
    if not isinstance(data, dict):
        problems.append(ConfigProblem(above.rstrip(".") or path.name, path.name,
                                      f"a map with {', '.join(known)}", repr(data)))  # fmt: skip
        return {}
    read = {}
    for key, value in data.items():
        if key not in known:
            problems.append(_unknown(f"{above}{key}", known, path))
            continue
        try:
            read[key] = known[key](value)
        except _RefusedError as refused:
            problems.append(ConfigProblem(f"{above}{key}", path.name, *refused.args))
    return read


def _combinations(
    cell: Any, above: str, path: Path, problems: list[ConfigProblem]
) -> list[dict[str, Any]]:
    if not isinstance(cell, dict):
        problems.append(ConfigProblem(above.rstrip("."), path.name, "a map of axes", repr(cell)))
        return []
    choices: list[list[dict[str, Any]]] = []
    for key, value in cell.items():
        if key not in AXES:
            problems.append(_unknown(f"{above}{key}", AXES, path))
            continue
        axis = AXES[key]
        try:
            listed = value if isinstance(value, list) else [value]
            choices.append([axis.into(axis.read(one)) for one in listed])
        except _RefusedError as refused:
            problems.append(ConfigProblem(f"{above}{key}", path.name, *refused.args))
    return [
        {name: value for fields in chosen for name, value in fields.items()}
        for chosen in product(*choices)
    ]


def _unknown(key: str, known: Mapping[str, Any], path: Path) -> ConfigProblem:
    return ConfigProblem(key, path.name, f"one of {', '.join(known)}", "an unknown key",
                         "Correct or remove it.")  # fmt: skip

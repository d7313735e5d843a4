"""A grid measured, cell by cell; every cell's result is a file of its own as soon as it is there.

One run at a time. A cell that fails is told and the next one begins; what was measured stays.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf import result
from recd.perf.grid import Grid
from recd.perf.machine import fingerprint, origin
from recd.perf.scenario import Scenario
from recd.perf.spine import Plan, measure, require_space

INDEX = "grid.json"
GRID_VERSION = 1

Measure = Callable[[Plan, Callable[[str], None]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a bench that ran. file: name of its result, "" when it failed; error: why."""

    title: str
    file: str
    error: str = ""


def run_grid(
    grid: Grid, folder: Path, *, quiet_s: float, say: Callable[[str], None],
    measure_cell: Measure = measure,
) -> list[Cell]:  # fmt: skip
    """Measure every cell into `folder`: `NN-name.json` each, and an index. RecdError when the disk
    has too little room for the largest cell, before anything runs."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = [_plan(grid, cell, folder, quiet_s) for cell in grid.cells]
    for plan in plans:
        require_space(plan)
    say(f"{len(plans)} cells, about {grid.seconds / 60:.0f} minutes; results in {folder}")
    cells: list[Cell] = []
    try:
        for number, plan in enumerate(plans, 1):
            say(f"cell {number} of {len(plans)}")
            cells.append(_cell(number, plan, folder, say, measure_cell))
            _write_index(grid, folder, cells)
    except KeyboardInterrupt:
        say(f"interrupted: {len(cells)} of {len(plans)} cells are kept in {folder}")
        raise
    return cells


def _plan(grid: Grid, scenario: Scenario, folder: Path, quiet_s: float) -> Plan:
    return Plan(
        scenario, folder / "data", quiet_s=quiet_s, floor_pairs=grid.floor.pairs,
        floor_s=grid.floor.seconds,
    )  # fmt: skip


def _cell(
    number: int, plan: Plan, folder: Path, say: Callable[[str], None], measure_cell: Measure
) -> Cell:
    title = plan.scenario.title()
    plan.directory.mkdir(parents=True, exist_ok=True)
    try:
        found = measure_cell(plan, say)
        name = f"{number:02d}-{slug(plan.scenario)}.json"
        result.save(found, folder / name)
    except RecdError as error:
        say(f"cell {number} failed: {error}")
        log = plan.directory / "recd.log"
        if log.exists():
            log.replace(folder / f"{number:02d}-recd.log")
        return Cell(title, "", str(error))
    finally:
        shutil.rmtree(plan.directory, ignore_errors=True)
    return Cell(title, name)


def slug(scenario: Scenario) -> str:
    """Name of a scenario for a file: 2x640x480@30-yuyv-h264_ultrafast-250hz-none."""
    pixels = scenario.pixels.split()[0].lower().replace(".", "")
    if scenario.source == "v4l2-mjpeg":
        pixels = "mjpeg_v4l2"
    codec = scenario.vcodec + (f"_{scenario.preset}" if scenario.preset else "")
    pairs = f"-{scenario.arm_pairs}pairs" if scenario.arm_pairs > 1 else ""
    return (
        f"{scenario.cameras}x{scenario.width}x{scenario.height}@{scenario.camera_fps:g}-{pixels}"
        f"-{codec}-{scenario.rate_hz}hz-{scenario.load}{pairs}"
    )


def _write_index(grid: Grid, folder: Path, cells: list[Cell]) -> None:
    index = {
        "format": GRID_VERSION, "kind": "grid", "grid": grid.name, "origin": origin(),
        "machine": fingerprint(folder), "expected": len(grid.cells),
        "cells": [{"title": c.title, "file": c.file, "error": c.error} for c in cells],
    }  # fmt: skip
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def load_folder(folder: Path) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """Index and whole results of a bench's folder, finished or not. RecdError when it is none."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecdError(f"{folder}: expected the folder of a bench, found: {error}") from error
    if index.get("format") != GRID_VERSION:
        raise RecdError(f"{path}: expected format {GRID_VERSION}, found {index.get('format')!r}")
    return index, [result.load(folder / cell["file"]) for cell in index["cells"] if cell["file"]]

"""A grid measured, cell by cell; every cell's result is a file of its own as soon as it is there.

One run at a time. A cell that fails is told and the next one begins; what was measured stays, and a
bench that ended early is gone on with in its folder.
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
    """Measure every cell that `folder` lacks into it: `NN-name.json` each, and an index.

    RecdError before anything runs: the disk has too little room for the largest cell, or the folder
    holds another grid's results, or those of another commit or computer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans = [_plan(grid, cell, folder, quiet_s) for cell in grid.cells]
    cells = _measured_before(grid, folder)
    for plan in plans:
        require_space(plan)
    left_s = sum(grid.cell_s(cell) for number, cell in enumerate(grid.cells, 1)
                 if number not in cells)  # fmt: skip
    say(f"{len(plans)} cells, about {left_s / 60:.0f} minutes; results in {folder}")
    if cells:
        say(f"{len(cells)} of them are there from before and stay")
    try:
        for number, plan in enumerate(plans, 1):
            if number in cells:
                continue
            say(f"cell {number} of {len(plans)}")
            cells[number] = _cell(number, plan, folder, say, measure_cell)
            _write_index(grid, folder, [cells[key] for key in sorted(cells)])
    except KeyboardInterrupt:
        say(f"interrupted: {len(cells)} of {len(plans)} cells are kept in {folder}")
        say("the same command with that --directory goes on")
        raise
    return [cells[key] for key in sorted(cells)]


def _measured_before(grid: Grid, folder: Path) -> dict[int, Cell]:
    """Cells of this grid, by number from 1, whose results are in the folder. A mixture of grids,
    commits or computers would look like one measurement: refused (RecdError)."""
    if not (folder / INDEX).exists():
        return {}
    index, results = load_folder(folder)
    here = {"grid": grid.name, "commit": origin()["commit"], **_computer(fingerprint(folder))}
    there = {"grid": index["grid"], "commit": index["origin"]["commit"],
             **_computer(index["machine"])}  # fmt: skip
    for key, value in here.items():
        if there[key] != value:
            raise _another(folder, f"{key} {value!r}", repr(there[key]))
    scenarios = [cell.plain() for cell in grid.cells]
    kept = [cell for cell in index["cells"] if cell["file"]]
    cells: dict[int, Cell] = {}
    for cell, one in zip(kept, results, strict=True):
        if one["scenario"] not in scenarios:
            raise _another(folder, f"cells of the grid {grid.name}", cell["title"])
        cells[scenarios.index(one["scenario"]) + 1] = Cell(cell["title"], cell["file"])
    return cells


def _computer(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {key: machine[key] for key in ("cpu", "cores_allowed")}


def _another(folder: Path, expected: str, found: str) -> RecdError:
    return RecdError(
        f"{folder}: holds the results of another bench: expected {expected}, found {found}",
        mend="Name another --directory.",
    )


def _plan(grid: Grid, scenario: Scenario, folder: Path, quiet_s: float) -> Plan:
    return Plan(
        scenario, folder / "data", quiet_s=quiet_s, floor_pairs=grid.floor.pairs,
        floor_s=grid.floor.seconds,
    )  # fmt: skip


def _cell(
    number: int, plan: Plan, folder: Path, say: Callable[[str], None], measure_cell: Measure
) -> Cell:
    title = plan.scenario.title()
    # A bench that was killed left what it recorded last.
    shutil.rmtree(plan.directory, ignore_errors=True)
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

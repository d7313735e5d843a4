"""What recctl prints of a dataset folder: its episodes as a table, one episode as a page."""

from collections.abc import Mapping
from typing import Any

import click

from recd.clients.recctl.output import duration, size, table
from recd.clients.recctl.show import LEVEL_COLOURS, decoded, streams

Told = Mapping[str, Any]

HEAD = ("episode", "uid", "rows", "length", "verdict", "pictures", "marks", "saved", "operator",
        "task")  # fmt: skip


def dataset_info(told: Told) -> list[str]:
    """What a dataset is, in a few lines, and one line an episode."""
    facts = told["dataset"]
    lines = [
        f"{facts['root']}: {facts['robot_type'] or 'no robot'}, {facts['fps']} fps, "
        f"{facts['columns']} columns, {facts['episodes']} episodes, {facts['rows']} rows "
        f"({duration(facts['rows'] / facts['fps']) if facts['fps'] else '-'}), "
        f"{size(facts['nbytes'])}"
    ]
    if facts["cameras"]:
        lines.append("cameras: " + ", ".join(f"{k} {v}" for k, v in facts["cameras"].items()))
    lines += [f"task: {task}" for task in facts["tasks"]]
    for name in ("staged", "trashed", "quarantined"):
        if facts[name]:
            lines.append(f"{name}: {facts[name]}, {WAITING[name]}")
    if not told["episodes"]:
        return [*lines, "no episodes"]
    return [*lines, "", *table(HEAD, [_line(e, facts["fps"]) for e in told["episodes"]])]


WAITING = {
    "staged": "unfinished; recctl recover (or the daemon that records them) takes them up",
    "trashed": "to be brought back; recctl dataset trash lists them",
    "quarantined": "put aside by a recovery, with the reason, in .recd/quarantine",
}
"""Folder of recd's own -> what its episodes are."""


def _line(episode: Told, fps: int) -> tuple[object, ...]:
    manifest = episode["manifest"]
    level = (manifest.get("verdict") or {}).get("level", "")
    return (
        episode["episode_index"],
        episode["uid"][:8] or "(lerobot)",
        episode["length"],
        duration(episode["length"] / fps),
        level + ("*" if manifest.get("recovered") else ""),
        decoded(manifest.get("decode")),
        " ".join(mark["label"] for mark in manifest.get("marks", ())),
        str(manifest.get("saved_at", ""))[:19],
        manifest.get("operator", ""),
        ", ".join(episode["tasks"]),
    )


FACTS = ("saved_at", "station", "operator", "end_reason", "recovered", "recovered_from", "columns",
         "restarts", "relabelled", "calibration_accepted", "calibration_changed", "config_sha256",
         "rows_sha256", "recd")  # fmt: skip
"""Keys of a manifest shown as they are, in this order."""


def dataset_episode(told: Told) -> list[str]:
    """All that is known of one episode."""
    manifest = told["manifest"]
    verdict = manifest.get("verdict") or {}
    level = verdict.get("level", "no verdict")
    lines = [
        f"episode {told['episode_index']} ({told['uid']}): {told['length']} rows, "
        f"{click.style(level, fg=LEVEL_COLOURS.get(level), bold=True)}"
    ]
    lines += [f"  {reason['words']}" for reason in verdict.get("reasons", ())]
    lines += [f"task: {task}" for task in told["tasks"]]
    for mark in manifest.get("marks", ()):
        lines.append(f"mark at {mark['at_s']:.1f} s: {mark['label']}")
    lines += [f"{key}: {_plain(manifest[key])}" for key in FACTS if manifest.get(key)]
    for name, facts in {**manifest.get("robot", {})}.items():
        lines.append(f"robot {name}: {facts}")
    for name, facts in manifest.get("devices", {}).items():
        lines.append(f"device {name}: {_plain(facts)}")
    for name, digest in manifest.get("calibration_sha256", {}).items():
        lines.append(f"calibration {name}: {digest[:16]}")
    lines += _decode(manifest.get("decode") or {})
    lines += [line.removeprefix("  ") for line in streams(manifest.get("streams") or {})]
    return [
        *lines,
        *table(("file", "size"), [(f["name"], size(f["nbytes"])) for f in told["files"]]),
    ]


def _decode(told: Told) -> list[str]:
    if told.get("good") is None:
        return ["pictures: not decoded yet", *(f"  {found}" for found in told.get("findings", ()))]
    head = f"pictures: {told['pictures']} decoded, {decoded(told)}"
    return [head, *(f"  {found}" for found in told["findings"])]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_plain(each) for each in value)
    return str(value)

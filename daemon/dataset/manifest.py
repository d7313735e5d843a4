"""The story of one episode, kept beside it by uid: who, where, with what, how much of it is whole.

A plain JSON object; recd fills identity and fingerprint, the recording adds its facts.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import recd
from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import replace_json
from recd.daemon.dataset.parquet import EpisodeRows
from recd.shm import clock

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
RECORDING_FACTS: Mapping[str, str] = {
    "station": "name of the recording place",
    "operator": "who demonstrated",
    "robot": "name and type of the robot",
    "devices": "serial numbers of arms and cameras, by stream",
    "config_sha256": "of the resolved configuration",
    "arm_config_sha256": "of the configuration of each pair of arms",
    "calibration_sha256": "of each calibration file's content, by arm",
    "calibration_accepted": "arms whose calibration differs from earlier episodes, with those",
    "streams": "kept, lost, repeated, missing, late, by stream",
    "restarts": "restarts of workers during the episode, by process",
    "codec": "encoder and its options, by camera",
    "end_reason": "why the episode ended",
    "marks": "labels the operator set, with row and time",
    "outcome": "success or fail, as a person said last; empty: nobody did",
    "policies": "who held a lease meanwhile: pair, holder, kind, key, adapter, epoch",
    "policy": "chunks by what became of them, latency and margin in ms; none: no chunk came",
    "rollout": "strategy that began the episode by itself",
    "commanded": "commands of callers with a key: name, role, fingerprint and time (of the plan's "
    "start, before the episode: negative)",
    "timing": "lateness, work and lag of every process meanwhile: counts by half octaves of ns",
    "verdict": "good, check or bad, with the rules that said so",
    "recovered": "true when a crash interrupted the episode; then with what was lost",
    "clock": "monotonic and wall time at start and end",
}
"""Facts a recording gives; all are optional, others are kept as they come."""

NOT_DECODED: Mapping[str, Any] = {"good": None, "pictures": 0, "findings": []}
"""`decode` of an episode until it was decoded after its save; good is then true or false."""


def new_uid() -> str:
    """128 random bits in hex; not from the time, so that stations never meet."""
    return secrets.token_hex(16)


def rows_sha256(rows: EpisodeRows) -> str:
    """Digest of state and action bytes (little endian float32): survives lerobot's renumbering."""
    digest = hashlib.sha256()
    for values in (rows.state, rows.action):
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()


def build_manifest(
    facts: Mapping[str, Any],
    *,
    uid: str,
    rows: EpisodeRows,
    digest: str,
    videos: Mapping[str, Mapping[str, Any]],
    columns: str,
) -> dict[str, Any]:
    """Manifest of an episode about to be published. digest: its `rows_sha256`.

    DatasetError when a fact is no JSON.
    """
    manifest = {
        "format": MANIFEST_VERSION,
        "recd": recd.__version__,
        "uid": uid,
        "saved_at": clock.wall_iso(clock.clock_pair().real_ns),
        "columns": columns,
        "length": len(rows),
        "rows_sha256": digest,
        "tasks": list(dict.fromkeys(rows.task)),
        "videos": {key: dict(video) for key, video in videos.items()},
        "decode": dict(NOT_DECODED),
        **{key: value for key, value in facts.items() if value is not None},
    }
    try:
        json.dumps(manifest)
    except (TypeError, ValueError) as broken:
        raise DatasetError(f"manifest of {uid}: {broken}") from broken
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in an episode's own folder. DatasetError when it is not readable or newer."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise DatasetError(f"{path}: not readable: {broken}") from broken
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DatasetError(f"{path}: not a recd manifest")
    if manifest["format"] > MANIFEST_VERSION:
        raise DatasetError(
            f"{path}: manifest version {manifest['format']}, known up to {MANIFEST_VERSION}",
            mend="Use the newer recd that wrote it; nothing was touched.",
        )
    return manifest


def note(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add facts to a published episode's manifest (a later check's result), durably."""
    manifest = {**read_manifest(folder), **facts}
    replace_json(folder / MANIFEST, manifest)
    return manifest

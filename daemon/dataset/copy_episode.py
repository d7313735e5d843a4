"""One episode of another dataset comes into this one: rows, mp4s, side files, story.

Its rows are proven by their fingerprint, its mp4s by digest or by copying packets, and the commit
checks the rest as of any recording.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recd.daemon.dataset.boxes import BrokenVideoError, read_track
from recd.daemon.dataset.commit import commit
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.durable import make_folders, remove_tree
from recd.daemon.dataset.handle import Handle
from recd.daemon.dataset.layout import FileIndex, Layout, video_name
from recd.daemon.dataset.ledger import BEGIN
from recd.daemon.dataset.manifest import MANIFEST, rows_sha256
from recd.daemon.dataset.parquet import EpisodeRows, Pictures
from recd.daemon.dataset.recover import histogram_of_video, probe_pins
from recd.daemon.dataset.remux import Clip, join
from recd.daemon.dataset.schema import ACTION, BOOKKEEPING, PICTURES, STATE
from recd.daemon.dataset.snapshot import Original, Snapshot
from recd.daemon.dataset.stats import STAT_KEYS, FeatureStats
from recd.daemon.dataset.videos import VideoFile, pins_of_feature
from recd.daemon.digest import head_last_of
from recd.daemon.faultpoints import fault_point

DERIVED = ("format", "uid", "columns", "length", "rows_sha256", "tasks", "videos")
"""Keys of a manifest that are worked out anew for the new dataset."""


class ChangedError(Exception):
    """A source changed under the reader: look again."""


def copy_episode(handle: Handle, snapshot: Snapshot, original: Original, table: pa.Table) -> None:
    """Commit `original`, whose rows are `table`, to the dataset of `handle`.

    ChangedError when the source is no longer what the snapshot says; whatever else is raised, the
    episode is not there and its staging may be removed.
    """
    layout, uid = handle.layout, original.uid
    staging = layout.staging(uid)
    remove_tree(staging)
    make_folders(staging / OWN_FOLDER)
    record = {"ty": BEGIN, "uid": uid, "facts": {}}
    handle.journal.append(record)
    handle.ledger.apply(record)
    fault_point("copy.staged")
    if original.entry is not None:
        for path in Layout(snapshot.root).episode(uid).iterdir():
            if path.name != MANIFEST and path.is_file():
                shutil.copyfile(path, staging / OWN_FOLDER / path.name)
    videos = {key: _video(snapshot, original, key, staging) for key in handle.schema.video_keys}
    rows = _rows(snapshot, original, table)
    if rows_sha256(rows) != original.digest:
        raise ChangedError
    fault_point("copy.copied")
    commit(handle, uid, rows=rows, videos=videos, facts=_facts(original))


def _facts(original: Original) -> dict[str, Any]:
    if original.entry is None:
        return {"imported": {"dataset": original.root.name, "episode_index": original.number}}
    return {key: value for key, value in original.manifest.items() if key not in DERIVED}


def _video(snapshot: Snapshot, original: Original, key: str, staging: Path) -> VideoFile:
    """The episode's own mp4: the file as it is, or its pictures cut out by copying packets."""
    row, fps = original.row, snapshot.schema.fps
    place = FileIndex(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
    source, target = snapshot.root / video_name(key, place), staging / f"{key}.mp4"
    first, count = round(row[f"videos/{key}/from_timestamp"] * fps), original.length
    try:
        track = read_track(source)
        if first == 0 and len(track.pts) == count:
            shutil.copyfile(source, target)
            digest = head_last_of(target)
            if head_last_of(source) != digest:
                raise ChangedError
        else:
            join([Clip(source, count, first)], target, fps=fps)
            digest = ""
    except (BrokenVideoError, ValueError) as broken:
        raise ValueError(f"{video_name(key, place)}: {broken}") from broken
    pins = pins_of_feature(snapshot.schema.features[key]) or probe_pins(target)
    stats = _camera_stats(original, key) or histogram_of_video(target, count)
    return VideoFile(target, count, pins, stats, digest=digest)


def _camera_stats(original: Original, key: str) -> FeatureStats | None:
    """Statistics of a camera as the source has them; None where they are not all there."""
    found = {name: original.row.get(f"stats/{key}/{name}") for name in STAT_KEYS}
    if any(value is None for value in found.values()):
        return None
    stats = {name: np.asarray(value) for name, value in found.items()}
    whole = all(value.shape[1:] == (1, 1) for name, value in stats.items() if name != "count")
    return stats if whole else None


def _rows(snapshot: Snapshot, original: Original, table: pa.Table) -> EpisodeRows:
    schema, texts = snapshot.schema, snapshot.tasks
    images = {}
    for key in schema.image_keys:
        kept = _camera_stats(original, key)
        if kept is None:
            raise ValueError(f"no statistics of {key}: recompute them with lerobot first")
        images[key] = Pictures((cell["bytes"].as_py() for cell in table[key]), kept)
    fixed = {STATE, ACTION, *BOOKKEEPING}
    others = [k for k, ft in schema.features.items() if k not in fixed]
    return EpisodeRows(
        state=np.array(table[STATE].to_pylist(), np.float32),
        action=np.array(table[ACTION].to_pylist(), np.float32),
        task=[texts[number] for number in table["task_index"].to_pylist()],
        extra={
            key: table[key].to_pylist()
            for key in others
            if schema.features[key]["dtype"] not in PICTURES
        },
        images=images,
    )

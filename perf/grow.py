"""A dataset of many episodes without recording them: one real episode, committed again and again.

Every episode is staged and committed by the code that saves recordings, so that journal, manifests,
side files and metadata are what a daemon would have left. Limit: all have the same pictures (hard
links) and side files; a joint value tells their rows apart.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.daemon.dataset import DatasetStore, EpisodeRows, VideoFile, new_uid
from recd.daemon.dataset.copy_episode import DERIVED
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.durable import keep_copy
from recd.daemon.dataset.layout import INFO
from recd.daemon.dataset.manifest import MANIFEST
from recd.daemon.dataset.recover import histogram_of_video, probe_pins
from recd.daemon.digest import head_last_of
from recd.perf.episode import StoredEpisode

STEP = 0.001
"""The first joint of the first row moves by so much from copy to copy."""

TELL_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Template:
    """One published episode, read. videos: video key -> its mp4 as it lies in the dataset."""

    state: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    task: str
    videos: dict[str, VideoFile]
    sides: list[Path]
    facts: dict[str, Any]


def count_of(root: Path) -> int:
    """Episodes of the dataset at `root`, 0 where there is none."""
    path = root / INFO
    return int(json.loads(path.read_text())["total_episodes"]) if path.exists() else 0


def read_template(root: Path) -> Template:
    """The first episode of the dataset at `root`. RecdError when recd did not record it."""
    with DatasetStore.open(root) as store:
        first = store.episodes()[0]
        keys = store.schema.video_keys
    if not first.uid:
        raise RecdError(f"{root}: expected an episode recorded by recd, found another's")
    stored = StoredEpisode(root, first.uid, first.episode_index)
    rows = stored.rows()
    videos = {}
    for key in keys:
        path = stored.video(key.rpartition(".")[2])
        histogram = histogram_of_video(path, first.length)
        videos[key] = VideoFile(path, first.length, probe_pins(path), histogram, head_last_of(path))
    return Template(
        state=rows["observation.state"].astype(np.float32),
        action=rows["action"].astype(np.float32),
        task=first.tasks[0],
        videos=videos,
        sides=[path for path in stored.own.iterdir() if path.is_file() and path.name != MANIFEST],
        facts={key: value for key, value in first.manifest.items() if key not in DERIVED},
    )


def grow(root: Path, episodes: int, *, say: Callable[[str], None]) -> None:
    """Commit copies of the first episode until the dataset at `root` has `episodes`.

    RecdError when it has more already.
    """
    present = count_of(root)
    if present > episodes:
        raise RecdError(f"{root}: expected at most {episodes} episodes, found {present}",
                        mend="Ask for larger sizes, or grow another folder.")  # fmt: skip
    if present == episodes:
        return
    template = read_template(root)
    with DatasetStore.open(root) as store:
        for number in range(present, episodes):
            _commit(store, template, number)
            if (number + 1) % TELL_EVERY == 0:
                say(f"grown to {number + 1} episodes")


def _commit(store: DatasetStore, template: Template, number: int) -> None:
    uid = new_uid()
    folder = store.stage(uid)
    videos = {}
    for key, video in template.videos.items():
        path = folder / f"{key}.mp4"
        keep_copy(video.path, path)
        videos[key] = VideoFile(path, video.packets, video.pins, video.histogram, video.digest)
    for path in template.sides:
        keep_copy(path, folder / OWN_FOLDER / path.name)
    state = template.state.copy()
    state[0, 0] += STEP * number
    rows = EpisodeRows(state, template.action, [template.task] * len(state))
    store.commit(uid, rows, videos, manifest=template.facts)

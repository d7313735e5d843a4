"""One operation on a dataset, in a process of its own, to be killed at a fault point.

As a script it takes its fault from RECD_FAULT; `forked` arms a copy of the test's own process,
which saves the start of an interpreter for each of the many points.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

from recd.daemon import faultpoints
from recd.daemon.dataset import (
    CameraHistogram,
    CodecPins,
    DatasetStore,
    EpisodeRows,
    VideoFile,
    commit,
    draft,
    pack,
    recover,
    transaction,
    trash,
)

ARMED = (commit, draft, pack, recover, transaction, trash)


def act(root: Path, action: str, uid: str, count: int = 0) -> None:
    with DatasetStore.open(root) as store:
        if action == "commit":
            commit_staged(store, uid, count)
        elif action == "undo":
            store.undo(uid)
        elif action == "undelete":
            store.undelete(uid)
        elif action == "pack":
            store.pack()
        elif action == "recover":
            store.recover()


def commit_staged(store: DatasetStore, uid: str, count: int) -> None:
    episode, width = store.totals.episodes, len(store.schema.state_names)
    state = np.arange(count * width, dtype=np.float32).reshape(count, width) + 1000 * episode
    rows = EpisodeRows(state, state + np.float32(0.5), ["a new task"] * count)
    pixels = CameraHistogram(1, np.ones((3, 256), np.uint64))
    videos = {}
    for key in store.schema.video_keys:
        height, width = store.schema.features[key]["shape"][:2]
        path = store.root / ".recd/staging" / uid / f"{key}.mp4"
        videos[key] = VideoFile(path, count, CodecPins("h264", "yuv420p", width, height), pixels)
    store.commit(uid, rows, videos, manifest={"operator": "child"})


def forked(root: Path, action: str, uid: str, count: int = 0, *, fault: str = "") -> int:
    """Run `act` in a forked child; its exit code, or minus the signal that killed it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.alarm(60)
            for module in ARMED:
                if hasattr(module, "fault_point"):
                    module.fault_point = faultpoints.watching(fault)
            act(root, action, uid, count)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    act(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))

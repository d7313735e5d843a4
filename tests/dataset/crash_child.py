"""One operation on a dataset, in a process of its own, to be killed at a fault point.

As a script it takes its fault from RECD_FAULT. As a server it forks itself for each request, which
saves the start of an interpreter for each of the many points.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
from powercut import Witness

from recd.daemon import faultpoints
from recd.daemon.dataset import (
    CameraHistogram,
    CodecPins,
    DatasetStore,
    EpisodeRows,
    VideoFile,
    commit,
    copy_episode,
    draft,
    edit,
    gather,
    pack,
    recover,
    repair,
    transaction,
    trash,
)

ARMED = (commit, copy_episode, draft, edit, gather, pack, recover, repair, transaction, trash)


def act(root: Path, action: str, uid: str, count: int = 0) -> None:
    if action == "copy":
        gather.gather([root], Path(uid), packed=True)
        return
    if action == "repair":
        repair.repair(root)
        return
    with DatasetStore.open(root) as store:
        if action == "commit":
            commit_staged(store, uid, count)
        elif action == "undo":
            store.undo(uid)
        elif action == "undelete":
            store.undelete(uid)
        elif action == "delete":
            store.delete([uid])
        elif action == "relabel":
            store.relabel(uid, "relabelled")
        elif action == "pack":
            store.pack()
        elif action == "purge":
            store.purge(uid)
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


def forked(request: dict) -> int:
    """Do one request in a fork; its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.alarm(60)
            if request["notes"]:
                Witness(Path(request["notes"]))
            for module in ARMED:
                if hasattr(module, "fault_point"):
                    module.fault_point = faultpoints.watching(request["fault"])
            act(Path(request["root"]), request["action"], request["uid"], request["count"])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve() -> None:
    """Requests as JSON lines in, exit codes out; this process itself never starts a thread."""
    for line in sys.stdin:
        print(forked(json.loads(line)), flush=True)


class CrashServer:
    """Starts operations in processes that may be killed, at the price of a fork each."""

    def __init__(self) -> None:
        quiet = os.environ | {"RECD_FAULT": "", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--serve"]
        self._server = subprocess.Popen(
            command, env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self, root: Path, action: str, uid: str = "", count: int = 0, *, fault: str = "",
        notes: Path | None = None,
    ) -> int:  # fmt: skip
        request = {
            "root": str(root), "action": action, "uid": uid, "count": count, "fault": fault,
            "notes": str(notes or ""),
        }  # fmt: skip
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        assert fault or code == 0
        return code

    def close(self) -> None:
        self._server.communicate(timeout=30)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        act(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))

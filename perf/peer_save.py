"""lerobot's own save_episode on a dataset of many episodes. Run by lerobot's interpreter alone.

peer_save.py ROOT SIZE COUNT CODEC CRF GOP: resumes ROOT, records COUNT episodes with pictures and
values of its first one, in real time, and prints one JSON line. Before the first that is timed, the
mp4s that it appends to are made as long as SIZE episodes of one session would have made them:
lerobot copies them at every save, up to the 200 MB at which it begins others.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import concatenate_video_files, get_video_duration_in_s

MOST_MB = 200.0


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def frames_of(root: Path, keys: list[str]) -> dict[str, list[Any]]:
    """All pictures of the first episode, RGB."""
    found = {}
    for key in keys:
        path = root / "videos" / key / "chunk-000" / "file-000.mp4"
        with av.open(str(path)) as container:
            found[key] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return found


def record(
    dataset: LeRobotDataset, frames: dict[str, list[Any]], rows: list[dict[str, Any]]
) -> float:
    """One episode at the dataset's rate; ms that save_episode took."""
    began = now_s()
    for number, row in enumerate(rows):
        pictures = {key: images[number] for key, images in frames.items()}
        dataset.add_frame({**row, **pictures, "task": "Pick the cube and place it in the bowl."})
        # Alone in lerobot's environment: recd's clock is not there.
        time.sleep(max(0.0, began + (number + 1) / dataset.fps - now_s()))  # noqa: TID251
    asked = now_s()
    dataset.save_episode()
    return (now_s() - asked) * 1000.0


def lengthen(dataset: LeRobotDataset, size: int) -> float:
    """Make the open mp4s hold what `size` episodes of one session leave in them; MB of all."""
    total = 0.0
    latest = dataset.meta.latest_episode
    for key in dataset.meta.video_keys:
        place = {name: latest[f"videos/{key}/{name}_index"][0] for name in ("chunk", "file")}
        path = dataset.root / dataset.meta.video_path.format(
            video_key=key, chunk_index=place["chunk"], file_index=place["file"]
        )
        each_mb = path.stat().st_size / 2**20
        copies = size % max(1, int(MOST_MB / each_mb)) or 1
        one = path.with_suffix(".one.mp4")
        shutil.copyfile(path, one)
        concatenate_video_files([one] * copies, path)
        one.unlink()
        latest[f"videos/{key}/to_timestamp"][0] = get_video_duration_in_s(path)
        total += path.stat().st_size / 2**20
    return total


def main() -> None:
    root, (size, count) = Path(sys.argv[1]), map(int, sys.argv[2:4])
    codec, crf, gop = sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
    began = now_s()
    dataset = LeRobotDataset.resume(
        "local/growth", root=root, streaming_encoding=True, encoder_threads=2,
        rgb_encoder=RGBEncoderConfig(vcodec=codec, crf=crf, g=gop),
    )  # fmt: skip
    open_s = now_s() - began
    frames = frames_of(root, list(dataset.meta.video_keys))
    length = min(len(images) for images in frames.values())
    names = ("observation.state", "action")
    table = pq.read_table(root / "data" / "chunk-000" / "file-000.parquet", columns=list(names))
    rows = [
        {name: np.array(row[name], np.float32) for name in names}
        for row in table.slice(0, length).to_pylist()
    ]
    first = record(dataset, frames, rows)
    video_mb = lengthen(dataset, size)
    saves = [record(dataset, frames, rows) for _ in range(count)]
    print(json.dumps({"open_s": open_s, "first_save_ms": first, "video_mb": video_mb,
                      "save_ms": saves}))  # fmt: skip


if __name__ == "__main__":
    main()

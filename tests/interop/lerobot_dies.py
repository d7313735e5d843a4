"""lerobot records a small dataset and dies as processes do, in its own interpreter.

python lerobot_dies.py ROOT EPISODES kill|resume
"""

import os
import signal
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

NAMES = [f"joint_{n}.pos" for n in range(6)]
FEATURES = {
    "action": {"dtype": "float32", "shape": (6,), "names": NAMES},
    "observation.state": {"dtype": "float32", "shape": (6,), "names": NAMES},
    "observation.images.front": {
        "dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"],
    },
}  # fmt: skip


HELD: list[LeRobotDataset] = []
"""A dataset that is let go of finalizes itself; one that is held until the end does not."""


def record(dataset: LeRobotDataset, episodes: int) -> None:
    HELD.append(dataset)
    for episode in range(episodes):
        for frame in range(4 + episode % 3):
            value = np.full(6, 100 * episode + frame, np.float32)
            picture = np.full((48, 64, 3), (40 * episode, 5 * frame, 90), np.uint8)
            dataset.add_frame({
                "action": value + 0.5, "observation.state": value, "task": f"task {episode % 2}",
                "observation.images.front": picture,
            })  # fmt: skip
        dataset.save_episode()


def main() -> None:
    root, episodes, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    made = LeRobotDataset.create("local/dies", 30, FEATURES, root=root, robot_type="so_follower")
    record(made, episodes)
    if how == "resume":
        made.finalize()
        record(LeRobotDataset.resume("local/dies", root=root), episodes)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

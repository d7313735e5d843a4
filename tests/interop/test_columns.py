"""The real lerobot opens a dataset of two pairs with all of recd's own columns."""

from dataclasses import replace

import numpy as np
import pytest
from studio import Studio

from recd.daemon.dataset.manifest import new_uid

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
PAIRS, ROWS = ("left", "right"), 12


def test_columns_of_each_pair_are_read_by_lerobot(side, tally, whole, tmp_path) -> None:
    studio = Studio(tmp_path, columns="full", robot_type="bi_so_follower")
    store = studio.open(pairs=PAIRS)
    try:
        for episode in range(2):
            uid = new_uid()
            videos = studio.stage(store, ROWS, episode, uid)
            numbers = np.arange(ROWS)
            own = {
                "recd.pair_control_source": np.stack([numbers % 3, numbers % 2], axis=1),
                "recd.pair_chunk_id": np.stack([numbers, numbers - 1], axis=1),
                "recd.pair_intervention": np.stack([numbers > 5, numbers > 8], axis=1),
                "recd.pair_task.left": [f"task {k % 2}" for k in numbers],
                "recd.sent": np.ones((ROWS, 12), np.float32),
            }
            rows = replace(studio.rows(episode, ROWS), extra=own)
            store.commit(uid, rows, videos, manifest={"operator": "test"})
    finally:
        studio.close()
    whole(studio.root, episodes=2)

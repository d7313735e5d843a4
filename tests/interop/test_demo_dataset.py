"""A freshly recorded demo dataset: lerobot reads all of it, its pictures are what its rows say."""

import re

import numpy as np
import pytest
from recorders import recd_records
from stamp_claims import compare_episode, episode_claims

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

TRAINING_STEPS = 2


def test_lerobot_reads_every_row_and_every_picture_of_a_fresh_demo(demo, whole):
    whole(demo, episodes=3)


def test_lerobot_reads_what_a_camera_encoded_itself(whole, tally, tmp_path):
    """Copied access units and those of our own beside them, in one track."""
    tally.add("recd_sessions")
    own = ("cameras.front.fourcc=h264",)
    whole(recd_records(tmp_path, episodes=2, episode_s=3, overrides=own), episodes=2)


def test_every_picture_shows_the_frame_and_the_time_that_its_row_claims(demo, side, tally):
    seen = side.ask("stamps", root=demo)
    claims = episode_claims(demo)
    found, bias_ms = [], []
    for episode, (start, end) in enumerate(seen["ranges"]):
        for number, (key, stamps) in enumerate(seen["stamps"].items()):
            told = compare_episode(stamps[start:end], claims[episode][key], camera=number)
            found += [f"episode {episode} {key}: {wrong}" for wrong in told.wrong]
            bias_ms += told.late_ms
            tally.add("stamps_compared", told.compared)
            tally.add("stamps_admitted", told.admitted)
    tally.add("stamps_wrong", len(found))
    low, middle, high = np.quantile(bias_ms, (0.05, 0.5, 0.95))
    tally.notes.append(
        f"Capture times of the demo: claimed less burned in {middle:.2f} ms in the middle, "
        f"{low:.2f} to {high:.2f} ms for nine of ten (the simulated cameras send 5 ms late)."
    )
    assert not found
    pictures = sum(map(len, seen["stamps"].values()))
    assert tally.counts["stamps_compared"] + tally.counts["stamps_admitted"] == pictures
    assert tally.counts["stamps_compared"] > pictures // 2


def test_act_trains_on_it(demo, side, tally, tmp_path):
    said = side.run(
        [
            "lerobot-train",
            "--dataset.repo_id=local/recd_demo",
            f"--dataset.root={demo}",
            "--policy.type=act",
            "--policy.device=cpu",
            "--policy.push_to_hub=false",
            "--policy.pretrained_backbone_weights=null",
            "--policy.chunk_size=10",
            "--policy.n_action_steps=10",
            "--policy.dim_model=64",
            "--policy.dim_feedforward=128",
            "--batch_size=2",
            "--num_workers=0",
            f"--steps={TRAINING_STEPS}",
            "--log_freq=1",
            f"--output_dir={tmp_path / 'train'}",
        ],
        name="lerobot-train",
    )
    losses = [float(value) for value in re.findall(r"\bloss:([0-9.]+)", said)]
    assert len(losses) == TRAINING_STEPS
    assert np.isfinite(losses).all()
    assert list((tmp_path / "train").glob("checkpoints/*/pretrained_model/model.safetensors"))
    tally.add("training_steps", TRAINING_STEPS)

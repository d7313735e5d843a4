"""A randomly initialised ACT of the real lerobot, saved where its programs load it from.

`tiny_act.py FOLDER WIDTH HEIGHT POSE...`: its actions lie around the pose (six numbers).
"""

import sys

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy

SPREAD = 1.0
STEPS = 20
CAMERA = "observation.images.front"


def main() -> None:
    folder, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pose = torch.tensor([float(word) for word in sys.argv[4:]])
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (len(pose),)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, height, width)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(pose),))},
        device="cpu", push_to_hub=False, pretrained_backbone_weights=None, use_vae=False,
        chunk_size=STEPS, n_action_steps=STEPS, dim_model=64, n_heads=2, dim_feedforward=128,
        n_encoder_layers=1,
    )  # fmt: skip
    around = {"mean": pose, "std": torch.full_like(pose, SPREAD)}
    picture = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)}
    stats = {"observation.state": around, "action": around, CAMERA: picture}
    ACTPolicy(config).save_pretrained(folder)
    for part in make_pre_post_processors(config, dataset_stats=stats):
        part.save_pretrained(folder)


if __name__ == "__main__":
    main()

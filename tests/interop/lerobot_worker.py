"""The real lerobot, asked line by line: one JSON request on standard input, one JSON answer out.

Runs in lerobot's interpreter. lerobot is imported once; each request is answered by a child of its
own, so no cache of one dataset reaches the next. `OPERATIONS` is the table of what can be asked.
"""

import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import check_lerobot
import torch
from check_lerobot import verdict
from lerobot.datasets import LeRobotDataset, delete_episodes, merge_datasets, split_dataset

PACKAGES = ("lerobot", "torch", "torchvision", "torchcodec", "av", "datasets", "numpy", "pyarrow")


def about() -> dict[str, Any]:
    """Versions, and the decoders that load here."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "decoders": list(check_lerobot.BACKENDS),
    }


def check(root: str, *, stale_numbers: bool = False) -> dict[str, Any]:
    """Load, every row, every picture of every camera with every decoder, statistics, windows."""
    return verdict(Path(root), stale_numbers=stale_numbers)


def stamps(root: str) -> dict[str, Any]:
    """What the pictures say about themselves: per camera [[camera, frame, capture us] | null]."""
    from recd.daemon.sim.stamp import read_stamp

    ds = LeRobotDataset("local/stamps", root=root)
    seen: dict[str, list[Any]] = {key: [] for key in ds.meta.camera_keys}
    for i in range(len(ds)):
        item = ds[i]
        for key, found in seen.items():
            picture = (item[key] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            stamp = read_stamp(picture)
            found.append(stamp and [stamp.camera, stamp.frame, stamp.t_capture_us])
    episodes = ds.meta.episodes
    starts, ends = (list(episodes[f"dataset_{side}_index"]) for side in ("from", "to"))
    return {"ranges": list(zip(starts, ends, strict=True)), "stamps": seen}


def merge(roots: list[str], out: str) -> list[str]:
    """Merge datasets in this order."""
    loaded = [LeRobotDataset(f"local/part{i}", root=root) for i, root in enumerate(roots)]
    return [str(merge_datasets(loaded, "local/merged", out).root)]


def delete(root: str, episodes: list[int], out: str) -> list[str]:
    """A copy without these episodes."""
    whole = LeRobotDataset("local/whole", root=root)
    return [str(delete_episodes(whole, episodes, out, "local/deleted").root)]


def split(root: str, parts: dict[str, list[int]], out: str) -> list[str]:
    """One dataset per part."""
    made = split_dataset(LeRobotDataset("local/whole", root=root), parts, out)
    return [str(made[name].root) for name in parts]


def tiny_act(folder: str, size: list[int], pose: list[float]) -> None:
    """Save a randomly initialised ACT and its processors. size: (width, height) of its picture;
    its actions lie around the pose.
    """
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies import make_pre_post_processors
    from lerobot.policies.act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    camera, (width, height), middle = "observation.images.front", size, torch.tensor(pose)
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (len(pose),)),
            camera: PolicyFeature(FeatureType.VISUAL, (3, height, width)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(pose),))},
        device="cpu", push_to_hub=False, pretrained_backbone_weights=None, use_vae=False,
        chunk_size=20, n_action_steps=20, dim_model=64, n_heads=2, dim_feedforward=128,
        n_encoder_layers=1,
    )  # fmt: skip
    around = {"mean": middle, "std": torch.ones_like(middle)}
    picture = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)}
    stats = {"observation.state": around, "action": around, camera: picture}
    ACTPolicy(config).save_pretrained(folder)
    for part in make_pre_post_processors(config, dataset_stats=stats):
        part.save_pretrained(folder)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "about": about,
    "check": check,
    "stamps": stamps,
    "merge": merge,
    "delete": delete,
    "split": split,
    "tiny_act": tiny_act,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"result": ...}, or {"error", "where"} of whatever lerobot raised."""
    name = request.pop("op")
    try:
        return {"result": OPERATIONS[name](**request)}
    except Exception as error:  # whatever lerobot raises is its answer
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]}"
        return {"error": text, "where": f"{Path(where.filename).name}:{where.name}"}


def answer_in_a_child(request: dict[str, Any]) -> str:
    """`answer` as one line; {"died": status} when the child ended without one."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        check_lerobot.use_cache(tempfile.mkdtemp(dir=os.environ["HF_DATASETS_CACHE"]))
        with os.fdopen(write_fd, "w") as told:
            told.write(json.dumps(answer(request)))
        sys.stderr.flush()
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as heard:
        line = heard.read()
    _, status = os.waitpid(pid, 0)
    return line or json.dumps({"died": status})


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # lerobot prints; only answers go to the asker
    torch.set_num_threads(1)  # threads do not survive a fork
    for line in sys.stdin:
        answers.write(answer_in_a_child(json.loads(line)) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

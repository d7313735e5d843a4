"""What the real lerobot makes of a dataset. Needs an interpreter with lerobot; recd is not used.

    python check_lerobot.py ROOT... [--edit] [--content] [--counted] [--json]

--edit also resumes, merges in both orders, deletes and splits, on copies. --content also compares
every picture and row with what recd's test recordings hold. --counted reads only the episodes that
info.json counts. Exit code 0 when all are good.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("SVT_LOG", "1")

import av
import datasets
import numpy as np
import torch
from lerobot.configs import encoder_config_from_video_info
from lerobot.datasets import LeRobotDataset, delete_episodes, merge_datasets, split_dataset
from lerobot.datasets.compute_stats import aggregate_stats
from lerobot.utils.feature_utils import dataset_to_policy_features


def loadable_backends() -> tuple[str, ...]:
    """Both decoders, or only pyav where torchcodec finds no FFmpeg libraries."""
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            import torchcodec  # noqa: F401
        except (ImportError, RuntimeError, OSError):
            return ("pyav",)
    return ("pyav", "torchcodec")


BACKENDS = loadable_backends()
STATS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
AUTOMATIC = ("timestamp", "frame_index", "episode_index", "index", "task_index")
COLOUR_TOLERANCE = 10
REPO = "local/check"


class WrongError(Exception):
    """lerobot read something, but it is not what the dataset says it holds."""


@dataclass(frozen=True)
class Reading:
    """A dataset that was read whole. pictures: decoded, each once per decoder."""

    ds: LeRobotDataset
    pictures: int


def use_cache(folder: Path | str) -> None:
    """Where the Parquet loader keeps its copies; one folder per look, so that none is stale."""
    datasets.config.HF_DATASETS_CACHE = Path(folder)


def need(condition: bool, text: str) -> None:
    if not condition:
        raise WrongError(text)


def check_tables(ds: LeRobotDataset, root: Path, *, stale_numbers: bool = False) -> None:
    """Counts, numbering, files named by every episode, ranges in the mp4s.

    stale_numbers: lerobot 0.6.1 merges a dataset of several episodes files into one and leaves
    their old numbers in it; asserted as its defect.
    """
    meta, episodes = ds.meta, ds.meta.episodes
    rows = ds.hf_dataset
    need(len(ds) == len(rows) == meta.total_frames == sum(episodes["length"]), "row counts differ")
    need(list(episodes["episode_index"]) == list(range(meta.total_episodes)), "episode numbers")
    need(list(meta.tasks["task_index"]) == list(range(meta.total_tasks)), "task numbers")
    index = np.asarray(rows.data.column("index"))
    need((index == np.arange(len(ds))).all(), "index column is not 0..N-1")
    for e in range(meta.total_episodes):
        row = episodes[e]
        need(row["dataset_to_index"] - row["dataset_from_index"] == row["length"], f"range of {e}")
        need((root / meta.get_data_file_path(e)).exists(), f"data file of episode {e}")
        place = (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"])
        name = "meta/episodes/chunk-{:03d}/file-{:03d}.parquet".format(*place)
        need((root / name).exists() or stale_numbers, f"episode {e}: {name} is not there")
        for key in meta.video_keys:
            start, end = (row[f"videos/{key}/{side}_timestamp"] for side in ("from", "to"))
            span = round(end * meta.fps) - round(start * meta.fps)
            need(span == row["length"], f"{key}: episode {e} spans {span} pictures")


def check_items(ds: LeRobotDataset, content: Callable | None) -> int:
    """Every row, every picture, decoded. Returns the number of pictures."""
    pictures = 0
    meta, starts = ds.meta, ds.meta.episodes["dataset_from_index"]
    for i in range(len(ds)):
        item = ds[i]
        e, f = item["episode_index"].item(), item["frame_index"].item()
        need(i == starts[e] + f, f"row {i} says episode {e} frame {f}")
        need(abs(item["timestamp"].item() - f / meta.fps) < 1e-4, f"row {i}: timestamp")
        need(isinstance(item["task"], str), f"row {i}: task is {item['task']!r}")
        for key in meta.camera_keys:
            height, width, channels = meta.shapes[key]
            shape = tuple(item[key].shape)
            need(shape == (channels, height, width), f"{key}: shape {shape}")
            pictures += 1
        for key, value in item.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                need(bool(torch.isfinite(value).all()), f"row {i}: {key} is not finite")
        if content:
            content(ds, item, e, f)
    return pictures


def recorded_content(ds: LeRobotDataset, item: dict, episode: int, frame: int) -> None:
    """What recd's tests record: green by episode, blue by frame, state counting up."""
    for key in ds.meta.camera_keys:
        red, green, blue = (item[key].mean(dim=(1, 2)) * 255).tolist()
        want = ((episode * 40 + 20) % 256, (frame * 5) % 256)
        far = max(abs(green - want[0]), abs(blue - want[1]), abs(red))
        need(
            far <= COLOUR_TOLERANCE, f"{key}: episode {episode} frame {frame} shows another picture"
        )
    state = item["observation.state"]
    want = torch.arange(len(state), dtype=torch.float32) + frame * len(state) + 1000 * episode
    need(bool((state == want).all()), f"episode {episode} frame {frame}: state {state.tolist()}")
    need(bool((item["action"] == want + 0.5).all()), f"episode {episode} frame {frame}: action")


def check_stats(ds: LeRobotDataset) -> None:
    """Shapes and finiteness that training, resume and merge need."""
    meta = ds.meta
    need(meta.stats is not None, "no statistics")
    for key, feature in meta.features.items():
        if feature["dtype"] == "string":
            continue
        need(key in meta.stats, f"no statistics of {key}")
        picture = key in meta.camera_keys
        want = (feature["shape"][2], 1, 1) if picture else (feature["shape"][-1],)
        for name in STATS:
            value = meta.stats[key].get(name)
            need(value is not None and value.shape == want, f"stats of {key}: {name}")
            need(bool(np.isfinite(value).all()), f"stats of {key}: {name} is not finite")
    aggregate_stats([meta.stats])
    dataset_to_policy_features(meta.features)
    for key in meta.video_keys:
        encoder_config_from_video_info(meta.features[key].get("info"))


def check_windows(root: Path, ds: LeRobotDataset, backend: str) -> None:
    """One shuffled batch with neighbours in time, as training reads."""
    step = 1 / ds.meta.fps
    deltas = {key: [-step, 0.0] for key in ds.meta.video_keys} | {"action": [0.0, step]}
    windowed = LeRobotDataset(REPO, root=root, video_backend=backend, delta_timestamps=deltas)
    loader = torch.utils.data.DataLoader(windowed, batch_size=4, shuffle=True)
    next(iter(loader))


def read(root: Path, content: Callable | None = None, *, stale_numbers: bool = False) -> Reading:
    """Load and read everything with both decoders."""
    datasets.disable_progress_bars()
    pictures = 0
    for backend in BACKENDS:
        ds = LeRobotDataset(REPO, root=root, video_backend=backend)
        check_tables(ds, root, stale_numbers=stale_numbers)
        pictures += check_items(ds, content)
        check_stats(ds)
        check_windows(root, ds, backend)
        if not ds.meta.video_keys:
            break
    return Reading(ds, pictures)


def read_counted(root: Path) -> int:
    """Read the episodes that info.json counts, with content; what lies behind them is ignored.

    What a loader sees while an operation of recd is interrupted. Returns the episodes.
    """
    datasets.disable_progress_bars()
    for backend in BACKENDS:
        ds = LeRobotDataset(REPO, root=root, video_backend=backend)
        counted = ds.meta.total_episodes
        lengths = ds.meta.episodes["length"][:counted]
        need(len(ds) == sum(lengths), f"{len(ds)} rows for episodes of {lengths}")
        check_items(ds, recorded_content)
    return counted


def resumed(root: Path, rows: int = 5) -> LeRobotDataset:
    """Add one episode with lerobot's own recorder."""
    meta = LeRobotDataset(REPO, root=root).meta
    encoders = [encoder_config_from_video_info(meta.features[k]["info"]) for k in meta.video_keys]
    ds = LeRobotDataset.resume(REPO, root=root, rgb_encoder=encoders[0] if encoders else None)
    for _ in range(rows):
        frame = {"task": "probe"}
        for key, feature in meta.features.items():
            if key in AUTOMATIC:
                continue
            if feature["dtype"] == "string":
                frame[key] = "probe"
            else:
                kind = np.uint8 if key in meta.camera_keys else feature["dtype"]
                frame[key] = np.zeros(feature["shape"], kind)
        ds.add_frame(frame)
    ds.save_episode()
    ds.finalize()
    return read(root).ds


def episodes_files(root: Path) -> int:
    return len(list((root / "meta/episodes").glob("*/*.parquet")))


def edit(root: Path, work: Path) -> None:
    """Everything lerobot's tools do to a dataset, each result read again."""
    several = episodes_files(root) > 1
    grown_root = work / "grown"
    shutil.copytree(root, grown_root)
    grown = resumed(grown_root)
    first, second = (LeRobotDataset(name, root=root) for name in ("local/a", "local/b"))
    merged = merge_datasets([first, second], "local/m", work / "merged").root
    read(merged, stale_numbers=several)
    last = grown.meta.total_episodes - 1
    read(delete_episodes(grown, [last], work / "deleted", "local/d").root)
    if last > 1:
        rest = {"rest": list(range(1, last)), "first": [0]}
        for part in split_dataset(first, rest, work / "split").values():
            read(part.root)


def merge_both_ways(one: Path, other: Path, work: Path) -> None:
    """Merge two datasets in both orders and read the results."""
    for name, pair in (("ab", (one, other)), ("ba", (other, one))):
        loaded = [LeRobotDataset(f"local/{i}", root=root) for i, root in enumerate(pair)]
        several = any(episodes_files(root) > 1 for root in pair)
        read(merge_datasets(loaded, f"local/{name}", work / name).root, stale_numbers=several)


def verdict(
    root: Path, *, content: bool = False, with_edit: bool = False, stale_numbers: bool = False
) -> dict:
    """{"good", "error", "where", "episodes", "rows", "pictures"} of one dataset folder."""
    try:
        seen = read(root, recorded_content if content else None, stale_numbers=stale_numbers)
        if with_edit:
            with tempfile.TemporaryDirectory() as folder:
                edit(root, Path(folder))
    except Exception as error:  # whatever lerobot raises is the verdict
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).splitlines()[0][:200] if str(error) else ""
        place = f"{Path(where.filename).name}:{where.name}"
        error_text = f"{type(error).__name__}: {text}"
        counts = {"episodes": 0, "rows": 0, "pictures": 0}
        return {"good": False, "error": error_text, "where": place, **counts}
    counts = {
        "episodes": seen.ds.meta.total_episodes,
        "rows": len(seen.ds),
        "pictures": seen.pictures,
    }
    return {"good": True, "error": "", "where": "", **counts}


def counted_verdict(root: Path) -> dict:
    """Like `verdict`, with the number of episodes seen."""
    try:
        return {"good": True, "error": "", "where": "", "episodes": read_counted(root)}
    except Exception as error:  # whatever lerobot raises is the verdict
        text = f"{type(error).__name__}: {error}"[:200]
        return {"good": False, "error": text, "where": "", "episodes": -1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", nargs="*", type=Path)
    parser.add_argument("--edit", action="store_true")
    parser.add_argument("--content", action="store_true")
    parser.add_argument("--counted", action="store_true", help="only what info.json counts")
    parser.add_argument("--merge", nargs=2, type=Path, help="merge two datasets in both orders")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory(prefix="recd-interop-") as cache:
        use_cache(cache)
        return judge(chosen)


def judge(chosen: argparse.Namespace) -> int:
    """What the command line asks for, printed."""
    found = {}
    for root in chosen.roots:
        if chosen.counted:
            found[str(root)] = counted_verdict(root)
            continue
        found[str(root)] = verdict(root, content=chosen.content, with_edit=chosen.edit)
    if chosen.merge:
        with tempfile.TemporaryDirectory() as folder:
            merge_both_ways(*chosen.merge, Path(folder))
        found["merge"] = {"good": True, "error": "", "where": ""}
    if chosen.json:
        print(json.dumps(found))
    else:
        print(f"decoders: {', '.join(BACKENDS)}")
        for root, said in found.items():
            print(f"{'good' if said['good'] else 'BAD '} {root} {said['error']} {said['where']}")
    return 0 if all(said["good"] for said in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

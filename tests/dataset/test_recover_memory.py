import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from studio import Studio, png_of

from recd.daemon.dataset import Camera, new_uid
from tests.dataset.conftest import log_rows

CAMERA = Camera("front", 720, 1280)
FEW, MANY = 8, 48
RECOVER = """
import resource, sys
from pathlib import Path
from recd.daemon.dataset import DatasetStore
with DatasetStore.open(Path(sys.argv[1])) as store:
    (episode,) = store.recover().recovered
print(episode.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def noise() -> np.ndarray:
    """A picture that no codec makes small."""
    shape = (CAMERA.height, CAMERA.width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def stage_pictures(folder: Path, count: int) -> Path:
    path, data = folder / f"{CAMERA.key}.pictures", png_of(noise())
    with path.open("wb") as file:
        file.write(struct.pack("<8sII", b"RECDPICS", 1, 0))
        for k in range(count):
            file.write(struct.pack("<qII", k, len(data), zlib.crc32(data)) + data)
    return path


def stage_video(folder: Path, count: int) -> Path:
    path, pixels = folder / f"{CAMERA.key}.mp4", noise()
    flags = "frag_keyframe+empty_moov+default_base_moof"
    with av.open(str(path), "w", options={"movflags": flags}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.options = {"crf": "1", "g": "1", "bf": "0", "preset": "ultrafast"}
        stream.width, stream.height, stream.pix_fmt = CAMERA.width, CAMERA.height, "yuv420p"
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def recovered(folder: Path, stage, count: int) -> tuple[int, int]:
    """Bytes of the pictures of a torn episode, and the most memory that recovering it took."""
    studio = Studio(folder, use_videos=stage is stage_video, cameras=(CAMERA,))
    store, uid = studio.open(), new_uid()
    nbytes = stage(store.stage(uid), count).stat().st_size
    log_rows(studio, store, uid, count)
    studio.close()
    done = subprocess.run(
        [sys.executable, "-c", RECOVER, str(studio.root)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows, peak = map(int, done.stdout.split())
    assert rows >= count - 1
    return nbytes, peak


@pytest.mark.parametrize("stage", [stage_video, stage_pictures])
def test_recovering_a_longer_episode_takes_no_more_memory(tmp_path, stage):
    few, peak_of_few = recovered(tmp_path / "few", stage, FEW)
    many, peak_of_many = recovered(tmp_path / "many", stage, MANY)
    assert many - few > 60_000_000
    assert peak_of_many - peak_of_few < (many - few) / 3

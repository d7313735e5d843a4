"""Real material for dataset tests: small videos with known content, rows with known numbers.

Green tells the episode, blue the frame; `tests/interop/check_lerobot.py` knows the same code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from recd.daemon.dataset import (
    Camera,
    CameraHistogram,
    CodecPins,
    CommitResult,
    DatasetSchema,
    DatasetStore,
    EpisodeRows,
    Pictures,
    VideoFile,
    new_uid,
)
from recd.daemon.dataset.boxes import read_track
from recd.daemon.dataset.delay import set_delay
from recd.daemon.realtime import keep_class

ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}
OPTIONS = {
    "h264": {"crf": "30", "g": "2", "bf": "0", "tune": "zerolatency", "preset": "ultrafast"},
    "av1": {"crf": "30", "g": "2", "preset": "12", "svtav1-params": "pred-struct=1:lp=1"},
}
LEAD = {"h264": 1, "av1": 0}
"""Pictures by which decoding runs ahead, as in the files of recd's encoders and of lerobot's."""

FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"


def picture(episode: int, frame: int, height: int, width: int) -> np.ndarray:
    """RGB picture that says which one it is: green by episode, blue by frame."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = (episode * 40 + 20) % 256
    pixels[..., 2] = (frame * 5) % 256
    return pixels


def histogram_of(pictures: Iterable[np.ndarray]) -> CameraHistogram:
    hist, count = np.zeros((3, 256), np.uint64), 0
    for pixels in pictures:
        for channel in range(3):
            counted = np.bincount(pixels[..., channel].ravel(), minlength=256)
            hist[channel] += counted.astype(np.uint64)
        count += 1
    return CameraHistogram(count, hist)


def write_clip(
    path: Path,
    *,
    episode: int,
    frames: Iterable[int],
    size: tuple[int, int],
    codec: str = "h264",
    fps: int = 30,
    movflags: str = FRAGMENTS,
    options: Mapping[str, str] | None = None,
    time_base: Fraction | None = None,
    pts: Iterable[int] | None = None,
) -> None:
    height, width = size
    muxer = {"movflags": movflags} if movflags else {}
    with keep_class(), av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(ENCODERS[codec], rate=fps, options=OPTIONS[codec])
        stream.options = {**OPTIONS[codec], **(options or {})}
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        base = time_base or Fraction(1, fps)
        stream.time_base = stream.codec_context.time_base = base
        numbers = list(frames)
        for frame, stamp in zip(numbers, pts or range(len(numbers)), strict=False):
            image = av.VideoFrame.from_ndarray(picture(episode, frame, height, width), "rgb24")
            image.pts, image.time_base = stamp, base
            container.mux(stream.encode(image))
        container.mux(stream.encode())


@dataclass
class Studio:
    """Makes a schema, opens stores and records episodes whose every value is known.

    lead: h264 files are laid out like lerobot's (`LEAD`), not as x264 without B-frames leaves them.
    """

    folder: Path
    fps: int = 30
    codec: str = "h264"
    use_videos: bool = True
    columns: str = "plain"
    lead: bool = False
    robot_type: str = "so101_follower"
    cameras: tuple[Camera, ...] = (Camera("front", 96, 128), Camera("wrist", 48, 64))
    stores: list[DatasetStore] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "dataset"

    def schema(self, **changes: object) -> DatasetSchema:
        settings: dict[str, object] = {
            "fps": self.fps,
            "cameras": self.cameras,
            "use_videos": self.use_videos,
            "columns": self.columns,
        } | changes
        robot = settings.pop("robot_type", self.robot_type)
        return DatasetSchema.for_robot(robot, **settings)

    def open(self, **changes: object) -> DatasetStore:
        schema = self.schema(**changes)
        store = DatasetStore.open_or_create(self.root, schema, repo_id="local/test")
        self.stores.append(store)
        return store

    def rows(
        self, episode: int, count: int, tasks: Iterable[str] = ("pick the cube",)
    ) -> EpisodeRows:
        width = len(self.schema().state_names)
        state = np.arange(count * width, dtype=np.float32).reshape(count, width) + 1000 * episode
        texts = list(tasks)
        images = {}
        if not self.use_videos:
            images = {camera.key: self.pictures(camera, episode, count) for camera in self.cameras}
        return EpisodeRows(
            state=state,
            action=state + np.float32(0.5),
            task=[texts[k * len(texts) // count] for k in range(count)],
            images=images,
        )

    def pictures(self, camera: Camera, episode: int, count: int) -> Pictures:
        shown = [picture(episode, k, camera.height, camera.width) for k in range(count)]
        return Pictures([png_of(pixels) for pixels in shown], histogram_of(shown))

    def video(self, store: DatasetStore, camera: Camera, path: Path, *, episode: int, count: int):
        size = (camera.height, camera.width)
        write_clip(
            path, episode=episode, frames=range(count), size=size, codec=self.codec, fps=self.fps
        )
        if self.lead:
            set_delay(path, read_track(path), frames=LEAD[self.codec], fps=self.fps)
        shown = (picture(episode, k, *size) for k in range(0, count, 5))
        pins = CodecPins(self.codec, "yuv420p", camera.width, camera.height, g=2, crf=30)
        return VideoFile(path, count, pins, histogram_of(shown))

    def stage(self, store: DatasetStore, count: int, episode: int, uid: str) -> dict:
        folder = store.stage(uid)
        if not self.use_videos:
            return {}
        return {
            camera.key: self.video(
                store, camera, folder / f"{camera.key}.mp4", episode=episode, count=count
            )
            for camera in self.cameras
        }

    def record(
        self,
        store: DatasetStore,
        count: int = 8,
        *,
        tasks: Iterable[str] = ("pick the cube",),
        uid: str = "",
    ) -> CommitResult:
        episode, uid = store.totals.episodes, uid or new_uid()
        videos = self.stage(store, count, episode, uid)
        rows = self.rows(episode, count, tasks)
        return store.commit(uid, rows, videos, manifest={"operator": "test"})

    def close(self) -> None:
        while self.stores:
            self.stores.pop().close()


def png_of(pixels: np.ndarray) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = pixels.shape[1], pixels.shape[0], "rgb24"
    codec.time_base = Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
